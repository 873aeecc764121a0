//! A scan in the pipeline: its points with a position, and its appearance.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use glam::{DMat3, DVec3, Vec3};

use super::PipelineError;
use crate::cloud::{PointCloud, Unit};
use crate::purify;
use crate::views::fuse::{FuseOptions, fuse};
use crate::views::render::{self, shaded};
use crate::views::virtual_cameras;
use crate::views::{Dataset, Pose};

/// Most frames from which a cloud is fused, spread evenly over the recording.
const MAX_FUSED_FRAMES: usize = 1000;
/// Least cosine (40°) at which a direction is snapped to an axis. Cameras are held at a slant, but the axes
/// of recordings are upright.
const ALONG_AXIS: f64 = 0.766;

/// A scan with at least one point that has a position.
#[derive(Clone, Debug)]
pub struct Scene {
    /// The cloud as read or fused: all points, in the order of the file.
    pub cloud: PointCloud,
    /// Its file; `None` if it was fused.
    pub path: Option<PathBuf>,
    /// Up direction, if the scan's file states it or the recording's cameras give one.
    pub up: Option<DVec3>,
    /// Notes for the user.
    pub notes: Vec<String>,
    /// Points with a position; `None` if all points have one.
    finite: Option<Finite>,
    origin: [f64; 3],
    /// Positions relative to `origin`.
    points: Vec<[f32; 3]>,
    /// True if the recording that it was fused from has an arbitrary scale.
    is_scaleless: bool,
}

/// Part of a cloud with finite positions, without the points set aside.
#[derive(Clone, Debug)]
struct Finite {
    /// Indices of these points in the cloud, ascending.
    kept: Vec<u32>,
    positions: Vec<[f64; 3]>,
    colors: Option<Vec<[u8; 3]>>,
    normals: Option<Vec<[f32; 3]>>,
    faces: Vec<[u32; 3]>,
    deviations: Option<Vec<f32>>,
}

impl Finite {
    fn of(cloud: &PointCloud) -> Self {
        let kept: Vec<u32> = (0..cloud.len()).filter(|&i| cloud.is_used(i)).map(|i| i as u32).collect();
        let mut new_from_old = vec![u32::MAX; cloud.len()];
        kept.iter().zip(0..).for_each(|(&old, new)| new_from_old[old as usize] = new);
        let faces = cloud.faces.iter().map(|face| face.map(|old| new_from_old[old as usize]));
        Self {
            positions: pick(&cloud.positions, &kept),
            colors: cloud.colors.as_deref().map(|colors| pick(colors, &kept)),
            normals: cloud.normals.as_deref().map(|normals| pick(normals, &kept)),
            faces: faces.filter(|face| !face.contains(&u32::MAX)).collect(),
            deviations: cloud.splats.as_ref().map(|splats| pick(&splats.deviation, &kept)),
            kept,
        }
    }
}

fn pick<T: Copy>(values: &[T], kept: &[u32]) -> Vec<T> {
    kept.iter().map(|&i| values[i as usize]).collect()
}

impl Scene {
    /// Makes a scene of a cloud, read from `path` or made in memory.
    ///
    /// # Errors
    /// [`PipelineError::NoPoints`] if no point has a position.
    pub fn new(cloud: PointCloud, path: Option<&Path>) -> Result<Self, PipelineError> {
        let num_finite = cloud.num_finite();
        if num_finite == 0 {
            return Err(PipelineError::NoPoints { path: path.map(Path::to_path_buf), points: cloud.len() });
        }
        let mut notes = cloud.notes.clone();
        let all_used = num_finite == cloud.len() && cloud.aside.is_empty();
        let finite = (!all_used).then(|| Finite::of(&cloud));
        if num_finite < cloud.len() {
            notes.push(format!("{} points have no position and stay unlabelled", cloud.len() - num_finite));
        }
        let (origin, mut points) = cloud.centered();
        if let Some(finite) = &finite {
            points = pick(&points, &finite.kept);
        }
        let up = cloud.up.map(DVec3::from);
        let path = path.map(Path::to_path_buf);
        Ok(Self { cloud, path, up, notes, finite, origin, points, is_scaleless: false })
    }

    /// Reads a scan.
    ///
    /// # Errors
    /// [`PipelineError::Cloud`], [`PipelineError::NoPoints`].
    pub fn read(path: &Path) -> Result<Self, PipelineError> {
        Self::new(PointCloud::read(path)?, Some(path))
    }

    /// Makes the scan of a recording that has none: fuses its depth maps, or takes its own points.
    ///
    /// # Errors
    /// [`PipelineError::Views`] if frames cannot be fused, [`PipelineError::NothingToFuse`] for a recording
    /// with neither depth nor points.
    pub fn of_recording(dataset: &dyn Dataset, options: &FuseOptions) -> Result<Self, PipelineError> {
        let usable: Vec<usize> = (0..dataset.len())
            .filter(|&i| dataset.frames()[i].has_depth() && dataset.frames()[i].pose_of_depth().is_some())
            .collect();
        let mut scene = if usable.is_empty() {
            let points = dataset.points()?;
            let points = points.ok_or_else(|| PipelineError::NothingToFuse { path: dataset.root().to_path_buf() })?;
            Self::new(points, None)?
        } else {
            let count = usable.len().min(MAX_FUSED_FRAMES);
            let frames: Vec<usize> = (0..count).map(|i| usable[i * usable.len() / count]).collect();
            Self::new(fuse(dataset, &frames, options)?.cloud, None)?
        };
        scene.up = up_of(dataset.frames().iter().filter_map(|frame| frame.pose));
        scene.is_scaleless = !dataset.conventions().metric;
        Ok(scene)
    }

    /// Makes a scan of one frame of a recording without poses, in the axes of its own camera.
    ///
    /// # Errors
    /// The same as [`of_recording`](Self::of_recording).
    pub fn of_frame(dataset: &dyn Dataset, frame: usize, options: &FuseOptions) -> Result<Self, PipelineError> {
        let mut scene = Self::new(fuse(dataset, &[frame], options)?.cloud, None)?;
        scene.up = Some(DVec3::NEG_Y);
        scene.is_scaleless = !dataset.conventions().metric;
        Ok(scene)
    }

    /// The same scan mirrored in y: recordings with a left-handed world are read this way.
    #[must_use]
    pub fn mirrored(mut self) -> Self {
        let flip = |cloud_positions: &mut [[f64; 3]]| cloud_positions.iter_mut().for_each(|p| p[1] = -p[1]);
        let flip_normals = |normals: Option<&mut Vec<[f32; 3]>>| {
            normals.into_iter().flatten().for_each(|n| n[1] = -n[1]);
        };
        flip(&mut self.cloud.positions);
        flip_normals(self.cloud.normals.as_mut());
        if let Some(finite) = &mut self.finite {
            flip(&mut finite.positions);
            flip_normals(finite.normals.as_mut());
        }
        self.origin[1] = -self.origin[1];
        self.points.iter_mut().for_each(|p| p[1] = -p[1]);
        self.notes.push("the recording's world is left-handed: the scan is read mirrored in y".into());
        self
    }

    /// Number of points with a position.
    #[must_use]
    pub fn num_points(&self) -> usize {
        self.points.len()
    }

    /// Positions relative to [`origin`](Self::origin).
    #[must_use]
    pub fn points(&self) -> &[[f32; 3]] {
        &self.points
    }

    /// Origin of [`points`](Self::points).
    #[must_use]
    pub fn origin(&self) -> [f64; 3] {
        self.origin
    }

    /// Exact positions.
    #[must_use]
    pub fn positions(&self) -> &[[f64; 3]] {
        self.finite.as_ref().map_or(&self.cloud.positions, |finite| &finite.positions)
    }

    /// Colours, if the scan has any.
    #[must_use]
    pub fn colors(&self) -> Option<&[[u8; 3]]> {
        self.finite.as_ref().map_or(self.cloud.colors.as_deref(), |finite| finite.colors.as_deref())
    }

    /// Normals of any length, if the scan has any.
    #[must_use]
    pub fn normals(&self) -> Option<&[[f32; 3]]> {
        self.finite.as_ref().map_or(self.cloud.normals.as_deref(), |finite| finite.normals.as_deref())
    }

    /// Triangles as indices of points; empty for clouds.
    #[must_use]
    pub fn faces(&self) -> &[[u32; 3]] {
        self.finite.as_ref().map_or(&self.cloud.faces, |finite| &finite.faces)
    }

    /// Standard deviations of the points, if they are Gaussian splats.
    fn deviations(&self) -> Option<&[f32]> {
        let all = || self.cloud.splats.as_ref().map(|splats| splats.deviation.as_slice());
        self.finite.as_ref().map_or_else(all, |finite| finite.deviations.as_deref())
    }

    /// Spreads values of the points with a position over all points; the others get `empty`.
    #[must_use]
    pub fn for_all_points<T: Copy>(&self, values: Vec<T>, empty: T) -> Vec<T> {
        let Some(finite) = &self.finite else { return values };
        let mut all = vec![empty; self.cloud.len()];
        finite.kept.iter().zip(values).for_each(|(&i, value)| all[i as usize] = value);
        all
    }

    /// Metres per unit of the coordinates, stated or guessed; `None` if unknown, as in the arbitrary scale of a
    /// recording.
    #[must_use]
    pub fn metres_per_unit(&self) -> Option<f64> {
        self.unit().and_then(Unit::metres)
    }

    /// Unit of the coordinates, stated or guessed; `None` if unknown.
    #[must_use]
    pub fn unit(&self) -> Option<Unit> {
        if self.is_scaleless { None } else { self.cloud.guess_unit().unit }
    }

    /// Indices of the points with a position; `None` if all have one.
    #[must_use]
    pub fn kept(&self) -> Option<&[u32]> {
        self.finite.as_ref().map(|finite| finite.kept.as_slice())
    }

    /// The scan turned by a rotation about the mean of its points. It stays where it is if `turn` is the
    /// identity.
    #[must_use]
    pub fn turned(&self, turn: DMat3) -> Turned<'_> {
        let (positions, normals) = (self.positions(), self.normals());
        if turn == DMat3::IDENTITY {
            let (positions, normals) = (positions.into(), normals.map(Cow::from));
            return Turned { scene: self, turn, centre: DVec3::ZERO, positions, normals };
        }
        // In f32 from the origin, because far coordinates must not lose digits in the sum.
        let offsets = self.points.iter().map(|p| Vec3::from_array(*p).as_dvec3());
        let mean = DVec3::from(self.origin) + offsets.sum::<DVec3>() / self.points.len() as f64;
        let position = |p: &[f64; 3]| (turn * (DVec3::from(*p) - mean)).to_array();
        let normal = |n: &[f32; 3]| (turn * Vec3::from_array(*n).as_dvec3()).as_vec3().to_array();
        Turned {
            scene: self,
            turn,
            centre: mean,
            positions: positions.iter().map(position).collect(),
            normals: normals.map(|normals| normals.iter().map(normal).collect()),
        }
    }

    /// The scan as input of purification.
    #[must_use]
    pub fn to_purify(&self) -> purify::Scan<'_> {
        purify::Scan { positions: self.positions(), colors: self.colors(), normals: self.normals() }
    }

    /// The scan as input for placing virtual cameras.
    #[must_use]
    pub fn to_cameras(&self) -> virtual_cameras::Scan<'_> {
        virtual_cameras::Scan {
            points: &self.points,
            origin: self.origin,
            normals: self.normals(),
            colors: self.colors(),
            faces: self.faces(),
            metres_per_unit: self.metres_per_unit().unwrap_or(1.0),
        }
    }

    /// Appearance of the scan: its colours, or grey shading if it has none or only one.
    #[must_use]
    pub fn appearance(&self, up: DVec3) -> Appearance {
        let several = |colors: &&[[u8; 3]]| colors.iter().any(|color| *color != colors[0]);
        let colors = match self.colors().filter(several) {
            Some(colors) => colors.to_vec(),
            None => shaded(&self.points, self.normals(), self.faces(), up),
        };
        let radii = match (self.faces().is_empty(), self.deviations()) {
            (true, None) => render::radii(&self.points),
            (true, Some(deviations)) => render::splat_radii(&self.points, deviations),
            (false, _) => vec![0.0; self.points.len()],
        };
        Appearance { colors, radii }
    }
}

/// A scan turned by a rotation.
#[derive(Clone, Debug)]
pub struct Turned<'a> {
    scene: &'a Scene,
    turn: DMat3,
    centre: DVec3,
    positions: Cow<'a, [[f64; 3]]>,
    normals: Option<Cow<'a, [[f32; 3]]>>,
}

impl<'a> Turned<'a> {
    /// The scan, as it is in its file.
    #[must_use]
    pub fn scene(&self) -> &'a Scene {
        self.scene
    }

    /// Returns where a turned position is in the scan.
    #[must_use]
    pub fn in_scan(&self, position: [f64; 3]) -> [f64; 3] {
        (self.turn.transpose() * DVec3::from(position) + self.centre).to_array()
    }

    /// Turned positions of the points that have one.
    #[must_use]
    pub fn positions(&self) -> &[[f64; 3]] {
        &self.positions
    }

    /// The turned scan as input of purification.
    #[must_use]
    pub fn to_purify(&self) -> purify::Scan<'_> {
        purify::Scan { positions: &self.positions, colors: self.scene.colors(), normals: self.normals.as_deref() }
    }
}

/// Data for drawing a scan besides its geometry.
#[derive(Clone, Debug)]
pub struct Appearance {
    /// `[N]` colours.
    pub colors: Vec<[u8; 3]>,
    /// `[N]` radii of discs, in the scan's unit.
    pub radii: Vec<f32>,
}

impl Appearance {
    /// `scene` as input of the renderer.
    #[must_use]
    pub fn of<'a>(&'a self, scene: &'a Scene) -> render::Scene<'a> {
        render::Scene {
            points: &scene.points,
            origin: scene.origin,
            colors: &self.colors,
            faces: scene.faces(),
            radii: &self.radii,
        }
    }
}

/// Mean up direction of the cameras, if they agree. It is snapped to an axis close to it.
fn up_of(poses: impl Iterator<Item = Pose>) -> Option<DVec3> {
    let (sum, count) = poses.fold((DVec3::ZERO, 0.0), |(sum, count), pose| (sum - pose.rotation().y_axis, count + 1.0));
    let mean = sum / f64::max(count, 1.0);
    if mean.length() < 0.5 {
        return None;
    }
    let up = mean.normalize();
    let axes = [DVec3::X, DVec3::Y, DVec3::Z].into_iter().flat_map(|axis| [axis, -axis]);
    let nearest = axes.max_by(|a, b| a.dot(up).total_cmp(&b.dot(up)))?;
    Some(if nearest.dot(up) > ALONG_AXIS { nearest } else { up })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::PoseConvention;

    fn cloud() -> PointCloud {
        PointCloud {
            positions: vec![[1e6, 0.0, 1.0], [f64::NAN; 3], [1e6 + 1.0, 0.0, 1.0], [1e6, 1.0, 1.0]],
            colors: Some(vec![[1; 3], [2; 3], [3; 3], [4; 3]]),
            faces: vec![[0, 2, 3], [0, 1, 2]],
            ..PointCloud::default()
        }
    }

    #[test]
    fn points_without_position_are_set_aside_and_put_back() {
        let scene = Scene::new(cloud(), None).unwrap();
        assert_eq!((scene.num_points(), scene.points().len(), scene.positions().len()), (3, 3, 3));
        assert_eq!(scene.points()[0], [-0.5, -0.5, 0.0]);
        assert_eq!(scene.colors().unwrap(), [[1; 3], [3; 3], [4; 3]]);
        assert_eq!(scene.faces(), [[0, 1, 2]]);
        assert_eq!(scene.for_all_points(vec![7, 8, 9], -1), [7, -1, 8, 9]);
        assert_eq!(scene.kept(), Some(&[0, 2, 3][..]));
        assert!(scene.notes.iter().any(|note| note.starts_with("1 points have no position")), "{:?}", scene.notes);
        let mirrored = scene.mirrored();
        assert_eq!((mirrored.positions()[2], mirrored.points()[2]), ([1e6, -1.0, 1.0], [-0.5, -0.5, 0.0]));
    }

    #[test]
    fn an_arbitrary_scale_has_no_metres() {
        let scene = Scene::new(PointCloud { unit: None, ..cloud() }, None).unwrap();
        assert_eq!(scene.metres_per_unit(), Some(1.0));
        assert_eq!(Scene { is_scaleless: true, ..scene }.metres_per_unit(), None);
    }

    #[test]
    fn points_set_aside_are_neither_shown_nor_placed() {
        let splats = crate::cloud::Splats { deviation: vec![0.1, 0.2, 0.3, 0.4], opacity: vec![1.0; 4] };
        let scene = Scene::new(PointCloud { aside: vec![0], splats: Some(splats), ..cloud() }, None).unwrap();
        assert_eq!(scene.kept(), Some(&[2, 3][..]));
        assert_eq!(scene.points(), [[0.5, -0.5, 0.0], [-0.5, 0.5, 0.0]]);
        assert_eq!(scene.deviations(), Some(&[0.3, 0.4][..]));
        assert_eq!(scene.for_all_points(vec![8, 9], -1), [-1, -1, 8, 9]);
        assert!(scene.notes.iter().any(|note| note.starts_with("1 points have no position")), "{:?}", scene.notes);
    }

    #[test]
    fn a_scan_without_any_position_is_an_error() {
        let nothing = PointCloud { positions: vec![[f64::NAN; 3]; 2], ..PointCloud::default() };
        let error = Scene::new(nothing, Some(Path::new("a.pcd"))).unwrap_err().to_string();
        assert_eq!(error, "a.pcd: none of its 2 points has a position");
        assert!(Scene::new(PointCloud::default(), None).is_err());
    }

    #[test]
    fn up_is_where_cameras_have_it() {
        let pose = |pitch: f64| {
            let rotation =
                glam::DMat3::from_cols(DVec3::X, DVec3::NEG_Z, DVec3::Y) * glam::DMat3::from_rotation_x(pitch);
            Pose::new(rotation, DVec3::ZERO, PoseConvention::OPENCV_CAMERA_TO_WORLD).unwrap()
        };
        assert_eq!(up_of([pose(0.3), pose(-0.5)].into_iter()), Some(DVec3::Z));
        assert_eq!(up_of([pose(0.0), pose(std::f64::consts::PI)].into_iter()), None);
        assert_eq!(up_of(std::iter::empty()), None);
    }
}
