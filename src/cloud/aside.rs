//! Points that are kept in results but are no part of what was scanned.

use super::{PointCloud, splats};

/// As many points exactly at zero are no accident: scanners write invalid returns this way.
const MANY_ZEROS: usize = 16;
/// The zero point is far from a scan if it is farther from it than this many times its size.
const FAR: f64 = 2.0;

/// Sets aside invalid returns and faint splats, with a note for each. At least one point stays. Points
/// that are set aside already stay so.
pub(super) fn set_aside(cloud: &mut PointCloud) {
    let zeros = zero_returns(cloud);
    put(cloud, zeros, |n| format!("{n} points at 0 0 0 are invalid returns: set aside, they stay unlabelled"));
    let faint = splats::faint(cloud);
    let most = splats::FAINT;
    put(cloud, faint, |n| format!("{n} splats are fainter than an opacity of {most}: set aside, they stay unlabelled"));
}

fn put(cloud: &mut PointCloud, mut points: Vec<u32>, note: impl Fn(usize) -> String) {
    points.retain(|&i| !cloud.is_aside(i as usize));
    if points.is_empty() {
        return;
    }
    let mut all = [cloud.aside.as_slice(), &points].concat();
    all.sort_unstable();
    all.dedup();
    let is_used = |i: &u32| cloud.is_finite(*i as usize) && all.binary_search(i).is_err();
    if (0..).take(cloud.len()).any(|i| is_used(&i)) {
        cloud.notes.push(note(points.len()));
        cloud.aside = all;
    }
}

/// Points exactly at zero that are no part of the scan: many of them, or far from all others. Corners of
/// triangles are never such points.
fn zero_returns(cloud: &PointCloud) -> Vec<u32> {
    let at_zero = |p: &[f64; 3]| *p == [0.0; 3];
    let zeros: Vec<u32> = (0..).zip(&cloud.positions).filter_map(|(i, p)| at_zero(p).then_some(i)).collect();
    if zeros.is_empty() || !cloud.faces.is_empty() {
        return Vec::new();
    }
    let others = cloud.positions.iter().filter(|p| !at_zero(p) && p.iter().all(|x| x.is_finite()));
    let (mut lo, mut hi) = ([f64::INFINITY; 3], [f64::NEG_INFINITY; 3]);
    for p in others {
        for axis in 0..3 {
            lo[axis] = lo[axis].min(p[axis]);
            hi[axis] = hi[axis].max(p[axis]);
        }
    }
    let size = (0..3).map(|axis| hi[axis] - lo[axis]).fold(0.0, f64::max);
    let distance = (0..3).map(|axis| lo[axis].max(-hi[axis])).fold(0.0, f64::max);
    let far = size > 0.0 && distance > FAR * size;
    if far || zeros.len() >= MANY_ZEROS { zeros } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cloud(positions: Vec<[f64; 3]>) -> PointCloud {
        let mut cloud = PointCloud { positions, ..PointCloud::default() };
        set_aside(&mut cloud);
        cloud
    }

    #[test]
    fn zeros_far_from_the_scan_or_in_numbers() {
        let scan = [[500_000.0, 5e6, 300.0], [500_004.0, 5e6, 302.0]];
        let far = cloud(vec![scan[0], [0.0; 3], scan[1]]);
        assert_eq!((far.aside.as_slice(), far.notes.len()), (&[1][..], 1));
        assert_eq!(far.bounds().unwrap().0, scan[0]);
        let near = cloud(vec![[-1.0; 3], [0.0; 3], [1.0; 3]]);
        assert!(near.aside.is_empty() && near.notes.is_empty());
        let mut many = vec![[0.0, -0.0, 0.0]; 20];
        many.push([1.0; 3]);
        assert_eq!(cloud(many).aside.len(), 20);
        assert!(cloud(vec![[0.0; 3]; 20]).aside.is_empty());
    }
}
