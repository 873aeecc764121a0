//! Where scans are looked at from: rooms cut and turned in every way, objects, terrain, and strays.

use std::path::Path;

use burn::tensor::Device;
use geopurify::cloud::PointCloud;
use geopurify::views::render::{Renderer, Scene, pinhole, radii};
use geopurify::views::virtual_cameras::{
    Options, Scan, SceneKind, VirtualCamera, VirtualCameras, guess_up, virtual_cameras,
};
use glam::{DMat3, DVec3, Vec3};

/// A point and its colour.
type Colored = ([f32; 3], [u8; 3]);

const WALL: [u8; 3] = [210, 210, 200];
const WOOD: [u8; 3] = [120, 70, 40];
/// Where the scans lie.
const ORIGIN: DVec3 = DVec3::new(100.0, -20.0, 3.0);

/// Adds points 4 cm apart on the sides of a box. `sides` are those of -x, x, -y, y, -z and z.
fn add_box(points: &mut Vec<Colored>, low: [f32; 3], high: [f32; 3], sides: [bool; 6], color: [u8; 3]) {
    const STEP: f32 = 0.04;
    for side in (0..6).filter(|side| sides[*side]) {
        let [u, v] = [(side / 2 + 1) % 3, (side / 2 + 2) % 3];
        let count = |axis: usize| ((high[axis] - low[axis]) / STEP) as usize;
        for (i, j) in (0..=count(u)).flat_map(|i| (0..=count(v)).map(move |j| (i, j))) {
            let mut p = if side % 2 == 1 { high } else { low };
            (p[u], p[v]) = (low[u] + i as f32 * STEP, low[v] + j as f32 * STEP);
            points.push((p, color));
        }
    }
}

/// A room of 5 x 4 x 2.6 m with z up, a table and a cupboard. The floor is darker than the ceiling.
fn room() -> Vec<Colored> {
    let mut points = Vec::new();
    let size = [5.0, 4.0, 2.6];
    add_box(&mut points, [0.0; 3], size, [true, true, true, true, false, false], WALL);
    add_box(&mut points, [0.0; 3], size, [false, false, false, false, true, false], [110, 90, 70]);
    add_box(&mut points, [0.0; 3], size, [false, false, false, false, false, true], [240; 3]);
    let furniture = [([3.2, 1.0, 0.0], [4.4, 1.8, 0.75]), ([0.0, 1.0, 0.0], [0.6, 2.2, 1.9])];
    let is_inside = |p: &[f32; 3], low: [f32; 3], high: [f32; 3]| (0..3).all(|a| p[a] >= low[a] && p[a] <= high[a]);
    points.retain(|(p, _)| !furniture.iter().any(|(low, high)| is_inside(p, *low, *high)));
    add_box(&mut points, furniture[0].0, furniture[0].1, [true, true, true, true, false, true], WOOD);
    add_box(&mut points, furniture[1].0, furniture[1].1, [false, true, true, true, false, true], WOOD);
    points
}

/// The part of the room that `keep` keeps.
fn part(keep: impl Fn([f32; 3]) -> bool) -> Vec<Colored> {
    room().into_iter().filter(|(p, _)| keep(*p)).collect()
}

/// Kind and cameras of a scan, and the shares of its points that the drawn pictures show once and three times.
fn placed(points: &[Colored]) -> (VirtualCameras, [f64; 2]) {
    placed_in(points, [324, 242])
}

/// As [`placed`], in pictures of another width and height.
fn placed_in(points: &[Colored], [width, height]: [usize; 2]) -> (VirtualCameras, [f64; 2]) {
    let (points, colors): (Vec<[f32; 3]>, Vec<[u8; 3]>) = points.iter().copied().unzip();
    let origin = ORIGIN.to_array();
    let scan = Scan { points: &points, origin, normals: None, colors: Some(&colors), faces: &[], metres_per_unit: 1.0 };
    let cameras = virtual_cameras(&scan, &Options { width, height, ..Options::default() });
    let radii = radii(&points);
    let scene = Scene { points: &points, origin, colors: &colors, faces: &[], radii: &radii };
    let renderer = Renderer::new(&scene, &Device::flex()).unwrap();
    let mut times = vec![0; points.len()];
    for camera in &cameras.cameras {
        let pinhole = pinhole(&camera.intrinsics, &camera.pose, origin, camera.near);
        let depth = renderer.seen(&pinhole).unwrap().depth;
        for (times, point) in times.iter_mut().zip(&points) {
            let p = Vec3::from_array(pinhole.to_camera(*point)).as_dvec3();
            if let Some([x, y]) = camera.intrinsics.pixel(p) {
                let d = f64::from(depth[y * pinhole.width + x]);
                *times += usize::from(d > 0.0 && (d - p.z).abs() <= 0.05 * d);
            }
        }
    }
    let share = |least: usize| times.iter().filter(|times| **times >= least).count() as f64 / times.len() as f64;
    (cameras, [share(1), share(3)])
}

/// Centres of the cameras relative to the scan.
fn eyes(cameras: &VirtualCameras) -> Vec<DVec3> {
    cameras.cameras.iter().map(|camera| camera.pose.center() - ORIGIN).collect()
}

#[test]
fn a_room_cut_in_any_way_is_looked_at_from_inside() {
    let storeys = || {
        let upper = part(|p| p[2] > 0.02).into_iter().map(|([x, y, z], color)| ([x, y, z + 2.9], color));
        let between = part(|p| p[2] < 0.02).into_iter().map(|([x, y, z], color)| ([x, y, z + 2.9], color));
        room().into_iter().chain(upper).chain(between).collect::<Vec<_>>()
    };
    // What a camera in the corner, 1.4 m above the floor, has in its picture.
    let frame = |[x, y, z]: [f32; 3]| {
        let (x, y, z) = (x - 1.0, y - 2.0, z - 1.4);
        x > 0.5 && y.abs() < 0.6 * x && z.abs() < 0.45 * x
    };
    let cuts: [(&str, Vec<Colored>); 9] = [
        ("whole", room()),
        ("no ceiling", part(|p| p[2] < 2.5)),
        ("walls of 1.2 m", part(|p| p[2] < 1.2)),
        ("wall missing", part(|p| p[0] < 4.9)),
        ("no wall, no ceiling", part(|p| p[1] < 3.9 && p[2] < 2.5)),
        ("half", part(|p| p[0] > 2.5)),
        ("corridor", part(|p| p[1] > 2.3)),
        ("two storeys", storeys()),
        ("one frame", part(frame)),
    ];
    for (name, points) in cuts {
        let (cameras, [once, thrice]) = placed(&points);
        assert_eq!((cameras.kind, cameras.up, cameras.strays), (SceneKind::Interior, DVec3::Z, 0), "{name}");
        assert!(once > 0.9 && thrice > 0.8, "{name}: {once} {thrice}");
        let eyes = eyes(&cameras);
        let near = |eye: &&DVec3| points.iter().any(|(p, _)| DVec3::from(p.map(f64::from)).distance(**eye) < 0.2);
        assert_eq!(eyes.iter().find(near), None, "{name}");
        let inside = eyes.iter().filter(|eye| (0.0..5.0).contains(&eye.x) && (0.0..4.0).contains(&eye.y));
        assert!(inside.count() * 2 > eyes.len(), "{name}: {eyes:?}");
    }
}

#[test]
fn the_up_direction_of_a_room_is_found_whatever_axis_it_is() {
    type Turn = fn([f32; 3]) -> [f32; 3];
    let turns: [(Turn, DVec3); 7] = [
        (|p| p, DVec3::Z),
        (|[x, y, z]| [x, z, -y], DVec3::Y),
        (|[x, y, z]| [x, -z, y], DVec3::NEG_Y),
        (|[x, y, z]| [z, y, -x], DVec3::X),
        (|[x, y, z]| [-z, y, x], DVec3::NEG_X),
        (|[x, y, z]| [x, -y, -z], DVec3::NEG_Z),
        // Turned about the vertical, too.
        (|[x, y, z]| [0.8 * x - 0.6 * y, z, -0.6 * x - 0.8 * y], DVec3::Y),
    ];
    for (turn, up) in turns {
        let turned: Vec<Colored> = room().into_iter().map(|(p, color)| (turn(p), color)).collect();
        let (cameras, [once, thrice]) = placed(&turned);
        assert_eq!((cameras.up, cameras.kind), (up, SceneKind::Interior));
        assert!(once > 0.97 && thrice > 0.95, "{up}: {once} {thrice}");
    }
}

#[test]
fn the_up_direction_is_found_with_oblique_walls_and_no_ceiling() {
    type Turn = fn([f32; 3]) -> [f32; 3];
    let turns: [(Turn, DVec3); 4] = [
        (|p| p, DVec3::Z),
        (|[x, y, z]| [x, z, -y], DVec3::Y),
        (|[x, y, z]| [-z, y, x], DVec3::NEG_X),
        (|[x, y, z]| [x, -y, -z], DVec3::NEG_Z),
    ];
    for (turn, up) in turns {
        for height in [1.75, 2.5] {
            let oblique = |[x, y, z]: [f32; 3]| [0.8 * x - 0.6 * y, 0.6 * x + 0.8 * y, z];
            let turned: Vec<Colored> =
                part(|p| p[2] < height).into_iter().map(|(p, color)| (turn(oblique(p)), color)).collect();
            let points: Vec<[f32; 3]> = turned.iter().map(|(p, _)| *p).collect();
            let colors: Vec<[u8; 3]> = turned.iter().map(|(_, color)| *color).collect();
            let origin = [0.0; 3];
            let scan = Scan {
                points: &points,
                origin,
                normals: None,
                colors: Some(&colors),
                faces: &[],
                metres_per_unit: 1.0,
            };
            assert_eq!(guess_up(&scan), up, "{height}");
        }
    }
}

#[test]
fn objects_stay_objects_and_are_not_turned() {
    let mut car = Vec::new();
    add_box(&mut car, [0.0; 3], [4.2, 1.8, 0.8], [true; 6], WOOD);
    add_box(&mut car, [1.0, 0.1, 0.8], [3.4, 1.7, 1.5], [true, true, true, true, false, true], [40; 3]);
    let mut bed = Vec::new();
    add_box(&mut bed, [0.0; 3], [2.0, 1.6, 0.5], [true, true, true, true, false, true], WALL);
    let ball = |i: usize| {
        let (turn, height) = (i as f32 * 2.4, i as f32 / 10_000.0 - 1.0);
        let around = (1.0 - height * height).max(0.0).sqrt();
        ([0.5 * around * turn.cos(), 0.5 * around * turn.sin(), 0.5 * height], WALL)
    };
    for (name, points) in [("car", car), ("bed", bed), ("ball", (0..20_000).map(ball).collect())] {
        let (cameras, [once, _]) = placed(&points);
        assert_eq!((cameras.kind, cameras.up), (SceneKind::Object, DVec3::Z), "{name}");
        assert!(once > 0.8, "{name}: {once}");
    }
}

/// A sparse forest as an aircraft measures it, relative to its first point.
fn forest() -> Vec<Colored> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/views/forest.laz");
    let positions = PointCloud::read(&path).unwrap().positions;
    let first = DVec3::from_array(positions[0]);
    positions.iter().map(|p| ((DVec3::from_array(*p) - first).as_vec3().to_array(), [60, 100, 50])).collect()
}

#[test]
fn sparse_terrain_is_looked_at_from_above() {
    let points = forest();
    let (cameras, [once, _]) = placed_in(&points, [648, 484]);
    assert_eq!((cameras.kind, cameras.up), (SceneKind::Terrain, DVec3::Z));
    let unseen = ((1.0 - once) * points.len() as f64).round();
    assert!(points.len() == 7140 && unseen <= 1100.0, "{unseen} of {}", points.len());
    assert!((cameras.seen_once - once).abs() < 0.1, "planned {}, drawn {once}", cameras.seen_once);
}

#[test]
fn strays_are_left_out_and_counted() {
    let mut points = room();
    let (alone, _) = placed(&points);
    points.push(([3000.0, 10.0, 5.0], [0; 3]));
    points.push(([1.0, -900.0, 1.0], [0; 3]));
    let (cameras, [once, thrice]) = placed(&points);
    assert_eq!((cameras.strays, cameras.kind, cameras.up), (2, SceneKind::Interior, DVec3::Z));
    assert!(once > 0.97 && thrice > 0.95, "{once} {thrice}");
    assert!(cameras.cameras.len().abs_diff(alone.cameras.len()) <= 6);
}

#[test]
fn without_colours_a_room_on_its_side_is_still_found() {
    let points: Vec<[f32; 3]> = room().into_iter().map(|([x, y, z], _)| [x, z, -y]).collect();
    let scan =
        Scan { points: &points, origin: [0.0; 3], normals: None, colors: None, faces: &[], metres_per_unit: 1.0 };
    assert_eq!(guess_up(&scan), DVec3::Y);
    let millimetres: Vec<[f32; 3]> = points.iter().map(|p| p.map(|v| v * 1000.0)).collect();
    assert_eq!(guess_up(&Scan { points: &millimetres, metres_per_unit: 1e-3, ..scan }), DVec3::Y);
}

/// The room with its points moved by up to 1 cm, and without the regularity of a grid.
fn rough_room() -> Vec<Colored> {
    let mut state = 1_u32;
    let mut jitter = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 * 0.02 - 0.01
    };
    room().into_iter().map(|(p, color)| (p.map(|x| x + jitter()), color)).collect()
}

#[test]
fn a_turned_room_has_the_same_pictures() {
    let points = rough_room();
    // Places and directions of the cameras in a turned room, turned back.
    let shot = |turn: DMat3| -> (DVec3, Vec<[DVec3; 2]>) {
        let turned = |p: [f32; 3]| (turn * Vec3::from(p).as_dvec3()).as_vec3().to_array();
        let (points, colors): (Vec<[f32; 3]>, Vec<[u8; 3]>) = points.iter().map(|(p, c)| (turned(*p), *c)).unzip();
        let origin = ORIGIN.to_array();
        let scan =
            Scan { points: &points, origin, normals: None, colors: Some(&colors), faces: &[], metres_per_unit: 1.0 };
        let found = virtual_cameras(&scan, &Options::default());
        assert_eq!(found.kind, SceneKind::Interior);
        let seen = |camera: &VirtualCamera| [camera.pose.center() - ORIGIN, camera.pose.rotation().z_axis];
        let back = |camera: &VirtualCamera| seen(camera).map(|v| turn.transpose() * v);
        (found.up, found.cameras.iter().map(back).collect())
    };
    let (_, upright) = shot(DMat3::IDENTITY);
    let is_there = |[eye, ahead]: &[DVec3; 2]| {
        upright.iter().any(|other| (other[0] - eye).length() < 1e-3 && (other[1] - ahead).length() < 1e-3)
    };
    let onto = |up: DVec3| match up {
        DVec3::Z => DMat3::IDENTITY,
        DVec3::NEG_Z => DMat3::from_rotation_x(std::f64::consts::PI),
        up => DMat3::from_axis_angle(DVec3::Z.cross(up), std::f64::consts::FRAC_PI_2),
    };
    for up in DVec3::AXES.into_iter().flat_map(|axis| [axis, -axis]) {
        let (found_up, found) = shot(onto(up));
        assert!(found_up.abs_diff_eq(up, 1e-9), "{up}: {found_up}");
        assert_eq!(found.len(), upright.len(), "{up}");
        assert!(found.iter().all(is_there), "{up}");
    }
    // Between the axes, rounding moves the last digits of all positions.
    for degrees in [15.0_f64, 30.0, 45.0, 200.0] {
        let (_, found) = shot(DMat3::from_rotation_z(degrees.to_radians()));
        let there = found.iter().filter(|view| is_there(view)).count();
        assert!(there * 10 >= 9 * found.len().max(upright.len()), "{degrees}: {there} of {}", found.len());
    }
}
