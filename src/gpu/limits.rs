use std::cell::Cell;

use burn_cubecl::cubecl::client::Client;

/// Limits of a device for one launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest buffer that can be allocated and bound, in bytes.
    pub max_binding_bytes: u64,
    /// Largest workgroup count in one dispatch dimension.
    pub max_workgroups: u32,
}

impl Limits {
    /// Limits of a host: nothing is bound, so nothing is cut.
    pub const HOST: Self = Self { max_binding_bytes: u64::MAX, max_workgroups: u32::MAX };

    /// The limits of the adapter behind `client`, lowered by [`with_limits`] where that is in force.
    pub(crate) fn of(client: &Client) -> Self {
        let properties = client.properties();
        let device = Self {
            max_binding_bytes: properties.memory.max_page_size,
            max_workgroups: properties.hardware.max_cube_count.0.min(65_535),
        };
        device.lowered()
    }

    /// These limits, or the lower ones of an enclosing [`with_limits`].
    #[must_use]
    pub fn lowered(self) -> Self {
        match LOWERED.get() {
            Some(lower) => Self {
                max_binding_bytes: self.max_binding_bytes.min(lower.max_binding_bytes),
                max_workgroups: self.max_workgroups.min(lower.max_workgroups),
            },
            None => self,
        }
    }

    /// How many rows of `row_bytes` fit one binding, at least 1.
    #[must_use]
    pub fn rows(&self, row_bytes: usize) -> usize {
        usize::try_from(self.max_binding_bytes / row_bytes.max(1) as u64).unwrap_or(usize::MAX).max(1)
    }
}

thread_local! {
    static LOWERED: Cell<Option<Limits>> = const { Cell::new(None) };
}

/// Runs `body` as if every device had at most `limits` on this thread: the chunked and folded paths
/// of large scenes, walked at a small size.
pub fn with_limits<T>(limits: Limits, body: impl FnOnce() -> T) -> T {
    struct Restore(Option<Limits>);
    impl Drop for Restore {
        fn drop(&mut self) {
            LOWERED.set(self.0);
        }
    }
    let _restore = Restore(LOWERED.replace(Some(limits)));
    body()
}
