//! Comparison of a device with the host's twin.

use burn::tensor::Device;
use geopurify::gpu::{Limits, with_limits};

use crate::common::{devices, rel_l2};

/// f32 sums of a few hundred terms of order one, in another order.
pub(crate) const ROUNDING: f64 = 2e-6;

/// Sizes around a workgroup of `wg` threads.
pub(crate) fn sizes(wg: u32) -> Vec<usize> {
    let wg = wg as usize;
    vec![0, 1, wg - 1, wg, wg + 1, 5 * wg + 3]
}

/// Runs `body` on the host, then on every device with the result of the host, plainly and with
/// dispatches folded after three workgroups.
pub(crate) fn against_twin<T>(on: impl Fn(&Device) -> T, compare: impl Fn(&str, &T, &T)) {
    let twin = on(&Device::flex());
    for (name, device) in devices() {
        compare(&name, &on(&device), &twin);
        let folded = Limits { max_binding_bytes: u64::MAX, max_workgroups: 3 };
        compare(&format!("{name}, folded"), &with_limits(folded, || on(&device)), &twin);
    }
}

pub(crate) fn close(what: &str, found: &[f32], expected: &[f32]) {
    let difference = rel_l2(found, expected);
    assert!(difference <= ROUNDING, "{what}: {difference:e}");
}

#[test]
fn relative_differences_are_norms_over_the_whole_tensor() {
    assert_eq!(rel_l2(&[0.0], &[0.0]), 0.0);
    assert_eq!(rel_l2(&[1.0], &[0.0]), f64::INFINITY);
    assert_eq!(rel_l2(&[3.0, 4.0], &[3.0, 4.0]), 0.0);
    assert_eq!(rel_l2(&[0.0, 0.0], &[3.0, 4.0]), 1.0);
    assert!(rel_l2(&[f32::NAN], &[1.0]).is_nan());
}
