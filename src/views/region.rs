//! The frames of a region: a scan of one room, and a recording of the whole house.

use glam::DVec3;

use super::Frame;

/// Number of frames that are taken if no camera is inside the region.
const NEAREST: usize = 100;

/// Frames of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionFrames {
    /// Numbers of the frames, ascending.
    pub frames: Vec<usize>,
    /// True if their cameras are inside the region's box; false if none is, and these are the nearest.
    pub are_inside: bool,
}

/// Returns the frames of `usable` (numbers) whose cameras are inside the box around `positions`, as the published
/// code takes Matterport3D's. If there is none, it takes the 100 that are nearest to the middle of the box. A frame
/// without a pose is left out.
#[must_use]
pub fn frames_of_region(frames: &[Frame], usable: &[usize], positions: &[[f64; 3]]) -> RegionFrames {
    let centers: Vec<(usize, DVec3)> =
        usable.iter().filter_map(|&index| Some((index, frames.get(index)?.pose?.center()))).collect();
    let points = positions.iter().map(|&position| DVec3::from_array(position)).filter(|point| point.is_finite());
    let (low, high) =
        points.fold((DVec3::INFINITY, DVec3::NEG_INFINITY), |(low, high), point| (low.min(point), high.max(point)));
    let is_inside = |center: &DVec3| center.cmpgt(low).all() && center.cmplt(high).all();
    let inside: Vec<usize> = centers.iter().filter(|(_, center)| is_inside(center)).map(|&(index, _)| index).collect();
    if !inside.is_empty() {
        return RegionFrames { frames: inside, are_inside: true };
    }
    let middle = (low + high) / 2.0;
    let mut nearest = centers;
    nearest.sort_by(|a, b| a.1.distance_squared(middle).total_cmp(&b.1.distance_squared(middle)).then(a.0.cmp(&b.0)));
    nearest.truncate(NEAREST);
    let mut frames: Vec<usize> = nearest.into_iter().map(|(index, _)| index).collect();
    frames.sort_unstable();
    RegionFrames { frames, are_inside: false }
}

#[cfg(test)]
mod tests {
    use glam::DMat3;

    use super::*;
    use crate::views::{Intrinsics, Pose, PoseConvention};

    fn frames(centers: &[[f64; 3]]) -> Vec<Frame> {
        let lens = Intrinsics::new(4, 4, 2.0, 2.0, 1.5, 1.5).unwrap();
        let pose = |center| Pose::new(DMat3::IDENTITY, center, PoseConvention::OPENCV_CAMERA_TO_WORLD).unwrap();
        let frame = |center: &[f64; 3]| Frame {
            name: String::new(),
            color: lens,
            depth: None,
            pose: Some(pose(DVec3::from_array(*center))),
            depth_pose: None,
        };
        centers.iter().map(frame).collect()
    }

    const ROOM: [[f64; 3]; 3] = [[1.0, 1.0, 0.0], [3.0, 2.0, 2.5], [2.0, f64::NAN, 9.0]];

    #[test]
    fn cameras_inside_the_box_are_taken() {
        // Outside, inside, on the border, inside but not usable, inside.
        let frames = frames(&[[0.0, 1.5, 1.0], [1.1, 1.5, 1.0], [3.0, 1.5, 1.0], [2.0, 1.5, 1.0], [2.9, 1.9, 2.4]]);
        let found = frames_of_region(&frames, &[0, 1, 2, 4], &ROOM);
        assert_eq!(found, RegionFrames { frames: vec![1, 4], are_inside: true });
    }

    #[test]
    fn without_a_camera_inside_the_nearest_hundred_are_taken() {
        let centers: Vec<[f64; 3]> = (0..150).map(|i| [4.0 + f64::from((i * 37) % 150), 1.5, 1.0]).collect();
        let all: Vec<usize> = (0..150).collect();
        let found = frames_of_region(&frames(&centers), &all, &ROOM);
        let nearest: Vec<usize> = all.iter().copied().filter(|i| (i * 37) % 150 < 100).collect();
        assert_eq!(found, RegionFrames { frames: nearest, are_inside: false });
        assert!(frames_of_region(&[], &[], &ROOM).frames.is_empty());
    }
}
