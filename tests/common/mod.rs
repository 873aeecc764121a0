//! What the test binaries share: the devices to test on and reproducible random input.

use burn::tensor::Device;
use geopurify::gpu::{DeviceSelection, Limits, adapters, select, with_limits};

/// The devices to test on: `cpu` and every graphics adapter, or only `GEOPURIFY_DEVICE`.
///
/// A machine without any adapter fails here, loudly: a run that skipped the WGSL has tested nothing.
#[allow(dead_code, reason = "some test binaries need the adapters alone")]
pub(crate) fn devices() -> Vec<(String, Device)> {
    let _ = env_logger::builder().is_test(true).filter_level(log::LevelFilter::Error).try_init();
    if let Ok(only) = std::env::var("GEOPURIFY_DEVICE") {
        let selection: DeviceSelection = only.parse().expect("GEOPURIFY_DEVICE is auto, gpu, cpu or an index");
        let selected = select(selection).expect("the device GEOPURIFY_DEVICE names opens");
        return vec![(selected.name, selected.device)];
    }
    let adapters = adapters();
    assert!(
        !adapters.is_empty(),
        "no graphics adapter on this machine: the WGSL cannot be tested. Install a Vulkan driver \
         (Debian and Ubuntu: mesa-vulkan-drivers), or set GEOPURIFY_DEVICE=cpu to test the host alone."
    );
    let mut selections = vec![DeviceSelection::Cpu];
    selections.extend(adapters.iter().map(|a| DeviceSelection::Index(a.index)));
    selections.into_iter().map(|s| select(s).expect("a listed adapter opens")).map(|s| (s.name, s.device)).collect()
}

/// Runs `body` on every device, plainly and with dispatches folded after three workgroups.
#[allow(dead_code, reason = "not every test binary folds")]
pub(crate) fn everywhere(body: impl Fn(&str, &Device)) {
    for (name, device) in devices() {
        body(&name, &device);
        let folded = Limits { max_binding_bytes: u64::MAX, max_workgroups: 3 };
        with_limits(folded, || body(&format!("{name}, folded"), &device));
    }
}

/// SplitMix64: enough randomness for test input, and the same on every machine.
pub(crate) struct Random(pub u64);

#[allow(dead_code, reason = "not every test binary draws every kind")]
impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in 0..bound.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Uniform in -1..1.
    pub(crate) fn signed(&mut self) -> f32 {
        ((self.next() >> 40) as f64 / f64::from(1 << 24) * 2.0 - 1.0) as f32
    }

    pub(crate) fn floats(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.signed()).collect()
    }
}

/// ‖a − b‖ / ‖b‖ in f64; 0 where both are empty or zero.
#[allow(dead_code, reason = "integer tests need no norm")]
pub(crate) fn rel_l2(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let (mut difference, mut norm) = (0.0, 0.0);
    for (&x, &y) in a.iter().zip(b) {
        difference += (f64::from(x) - f64::from(y)).powi(2);
        norm += f64::from(y).powi(2);
    }
    if difference == 0.0 { 0.0 } else { (difference / norm).sqrt() }
}
