//! Recorded RGB-D of every layout: written here from a known room, read back, checked, fused, damaged.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use geopurify::images::Rgb8Image;
use geopurify::views::check::{Reading, Verdict, check};
use geopurify::views::fuse::{FuseOptions, fuse};
use geopurify::views::{
    Dataset, DepthImage, Intrinsics, Layout, OpenOptions, Pose, PoseConvention, ViewsError, detect, open,
};
use glam::{DMat3, DQuat, DVec3, EulerRot};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

// The room.

const LOW: DVec3 = DVec3::new(-2.0, -1.2, -1.5);
const HIGH: DVec3 = DVec3::new(2.2, 1.3, 3.0);

/// Smooth, so that JPEG and resampling change it little.
fn color_at(p: DVec3) -> [u8; 3] {
    let wave = |phase: f64| (128.0 + 90.0 * phase.sin()).round() as u8;
    [wave(1.1 * p.x + 0.4 * p.z), wave(1.3 * p.y + 1.0), wave(0.9 * p.z - 0.5 * p.x)]
}

/// Distance to the nearest wall and its normal, into the room.
fn wall_at(p: DVec3) -> (f64, DVec3) {
    let walls = [
        (p.x - LOW.x, DVec3::X),
        (HIGH.x - p.x, -DVec3::X),
        (p.y - LOW.y, DVec3::Y),
        (HIGH.y - p.y, -DVec3::Y),
        (p.z - LOW.z, DVec3::Z),
        (HIGH.z - p.z, -DVec3::Z),
    ];
    let nearest = walls.into_iter().min_by(|a, b| a.0.abs().total_cmp(&b.0.abs())).unwrap();
    (nearest.0.abs(), nearest.1)
}

/// Where a line of sight from inside the room ends, as a multiple of `direction`.
fn hit(from: DVec3, direction: DVec3) -> f64 {
    let mut nearest = f64::INFINITY;
    for axis in 0..3 {
        let wall = if direction[axis] > 0.0 { HIGH[axis] } else { LOW[axis] };
        if direction[axis] != 0.0 {
            nearest = nearest.min((wall - from[axis]) / direction[axis]);
        }
    }
    nearest
}

fn render(camera: &Intrinsics, pose: &Pose) -> (Rgb8Image, DepthImage) {
    let (mut colors, mut depths) = (Vec::new(), Vec::new());
    for y in 0..camera.height {
        for x in 0..camera.width {
            let ray = pose.rotation() * camera.unproject(x as f64, y as f64, 1.0);
            let depth = hit(pose.center(), ray);
            colors.push(color_at(pose.center() + ray * depth));
            depths.push(depth as f32);
        }
    }
    let image = Rgb8Image::new(camera.width, camera.height, colors).unwrap();
    (image, DepthImage::new(camera.width, camera.height, depths).unwrap())
}

/// Where the camera of frame `i` is.
fn pose(i: usize) -> Pose {
    let t = i as f64;
    let turn = DQuat::from_euler(EulerRot::YXZ, 0.4 + 0.16 * t, -0.2 + 0.05 * t, 0.1 + 0.02 * t);
    let center = DVec3::new(-0.8 + 0.12 * t, 0.3 - 0.05 * t, 0.2 + 0.1 * t);
    Pose::new(DMat3::from_quat(turn), center, PoseConvention::OPENCV_CAMERA_TO_WORLD).unwrap()
}

/// What one frame shows.
struct Shot {
    pose: Pose,
    color: Rgb8Image,
    depth: DepthImage,
}

/// How large a test recording is.
#[derive(Clone, Copy)]
struct Plan {
    frames: usize,
    /// Pictures are 640 x 480 divided by this.
    shrink: usize,
}

const FULL: Plan = Plan { frames: 6, shrink: 5 };
const SMALL: Plan = Plan { frames: 2, shrink: 20 };

impl Plan {
    /// A camera of 640 x 480 as this plan has it.
    fn camera(self, fx: f64, fy: f64, cx: f64, cy: f64) -> Intrinsics {
        let camera = Intrinsics::new(640, 480, fx, fy, cx, cy).unwrap();
        camera.scaled_to(640 / self.shrink, 480 / self.shrink)
    }

    fn shoot(self, color: &Intrinsics, depth: &Intrinsics) -> Vec<Shot> {
        let shot = |i| {
            let pose = pose(i);
            Shot { pose, color: render(color, &pose).0, depth: render(depth, &pose).1 }
        };
        (0..self.frames).map(shot).collect()
    }
}

// Writing.

fn png(image: &Rgb8Image) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (width, height) = (image.width() as u32, image.height() as u32);
    let encoder = PngEncoder::new(&mut bytes);
    encoder.write_image(image.pixels().as_flattened(), width, height, ExtendedColorType::Rgb8).unwrap();
    bytes
}

fn jpeg(image: &Rgb8Image) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (width, height) = (image.width() as u32, image.height() as u32);
    let encoder = JpegEncoder::new_with_quality(&mut bytes, 97);
    encoder.write_image(image.pixels().as_flattened(), width, height, ExtendedColorType::Rgb8).unwrap();
    bytes
}

fn units(depth: &DepthImage, per_meter: f64) -> Vec<u16> {
    depth.meters().iter().map(|&meters| (f64::from(meters) * per_meter).round() as u16).collect()
}

fn depth_png(depth: &DepthImage, per_meter: f64) -> Vec<u8> {
    let raw: Vec<u8> = units(depth, per_meter).iter().flat_map(|unit| unit.to_ne_bytes()).collect();
    let mut bytes = Vec::new();
    let (width, height) = (depth.width() as u32, depth.height() as u32);
    PngEncoder::new(&mut bytes).write_image(&raw, width, height, ExtendedColorType::L16).unwrap();
    bytes
}

fn put(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

type Matrix = [[f64; 4]; 4];

fn camera_to_world(pose: &Pose) -> Matrix {
    let [a, b, c] = pose.rows();
    [a, b, c, [0.0, 0.0, 0.0, 1.0]]
}

/// y up, z backward: the second and third column change their sign.
fn opengl(pose: &Pose) -> Matrix {
    camera_to_world(pose).map(|[x, y, z, t]| [x, -y, -z, t])
}

fn text(matrix: &Matrix) -> String {
    matrix.map(|row| row.map(|x| x.to_string()).join(" ")).join("\n") + "\n"
}

fn quaternion(rotation: DMat3) -> [f64; 4] {
    DQuat::from_mat3(&rotation).to_array()
}

/// World-to-camera rotation as w x y z, and translation.
fn colmap_pose(pose: &Pose) -> ([f64; 4], [f64; 3]) {
    let inverse = pose.rotation().transpose();
    let [x, y, z, w] = quaternion(inverse);
    ([w, x, y, z], (-(inverse * pose.center())).to_array())
}

fn scannet(root: &Path, plan: Plan) -> PathBuf {
    // As in ScanNet: colour larger than depth, each with its own intrinsics, said for the full size.
    let full = Intrinsics::new(1296, 968, 1170.0, 1170.0, 647.8, 483.8).unwrap();
    let color = full.scaled_to(1296 / plan.shrink / 2, 968 / plan.shrink / 2);
    let depth = plan.camera(577.9, 578.7, 318.9, 242.7);
    write_scannet_folders(root, &plan.shoot(&color, &depth), 1000.0);
    put(root.join("intrinsic/intrinsic_color.txt"), "1170 0 647.8 0\n0 1170 483.8 0\n0 0 1 0\n0 0 0 1\n");
    let Intrinsics { fx, fy, cx, cy, .. } = depth;
    put(root.join("intrinsic/intrinsic_depth.txt"), format!("{fx} 0 {cx} 0\n0 {fy} {cy} 0\n0 0 1 0\n0 0 0 1\n"));
    put(root.join("intrinsic/extrinsic_color.txt"), "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n");
    root.to_path_buf()
}

fn write_scannet_folders(root: &Path, shots: &[Shot], per_meter: f64) {
    for (i, shot) in shots.iter().enumerate() {
        put(root.join(format!("color/{i}.jpg")), jpeg(&shot.color));
        put(root.join(format!("depth/{i}.png")), depth_png(&shot.depth, per_meter));
        put(root.join(format!("pose/{i}.txt")), text(&camera_to_world(&shot.pose)));
    }
}

/// A `.sens` file; what is stored is chosen by the coding of colour and depth.
fn sens_bytes(plan: Plan, color_coding: u32, depth_coding: u32) -> Vec<u8> {
    let color = plan.camera(580.0, 581.0, 320.0, 241.0);
    let depth = color.scaled_to(color.width / 2, color.height / 2);
    let mut bytes = 4_u32.to_le_bytes().to_vec();
    bytes.extend(9_u64.to_le_bytes());
    bytes.extend(b"Synthetic");
    let identity: [[f32; 4]; 4] =
        std::array::from_fn(|row| std::array::from_fn(|column| f32::from(u8::from(row == column))));
    let intrinsics = |camera: &Intrinsics| {
        let mut matrix = identity;
        (matrix[0][0], matrix[1][1]) = (camera.fx as f32, camera.fy as f32);
        (matrix[0][2], matrix[1][2]) = (camera.cx as f32, camera.cy as f32);
        matrix
    };
    for matrix in [intrinsics(&color), identity, intrinsics(&depth), identity] {
        bytes.extend(matrix.as_flattened().iter().flat_map(|x| x.to_le_bytes()));
    }
    let sizes = [color.width, color.height, depth.width, depth.height].map(|size| size as u32);
    for value in [color_coding, depth_coding].into_iter().chain(sizes) {
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend(1000_f32.to_le_bytes());
    bytes.extend((plan.frames as u64).to_le_bytes());
    for (i, shot) in plan.shoot(&color, &depth).iter().enumerate() {
        let matrix = camera_to_world(&shot.pose);
        bytes.extend(matrix.as_flattened().iter().flat_map(|&x| (x as f32).to_le_bytes()));
        bytes.extend([i as u64, i as u64].iter().flat_map(|time| time.to_le_bytes()));
        let picture = match color_coding {
            0 => shot.color.pixels().as_flattened().to_vec(),
            1 => png(&shot.color),
            _ => jpeg(&shot.color),
        };
        let raw: Vec<u8> = units(&shot.depth, 1000.0).iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let map = match depth_coding {
            0 => raw,
            _ => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&raw).unwrap();
                encoder.finish().unwrap()
            }
        };
        bytes.extend([picture.len() as u64, map.len() as u64].iter().flat_map(|len| len.to_le_bytes()));
        bytes.extend(picture);
        bytes.extend(map);
    }
    // The inertial data that follow the frames.
    bytes.extend(0_u64.to_le_bytes());
    bytes
}

fn sens(root: &Path, plan: Plan) -> PathBuf {
    let path = root.join("scene0000_00.sens");
    put(&path, sens_bytes(plan, 2, 1));
    path
}

fn sens_raw(root: &Path, plan: Plan) -> PathBuf {
    put(root.join("scene.sens"), sens_bytes(plan, 0, 0));
    root.to_path_buf()
}

/// The camera of Matterport at 1280 x 1024.
fn matterport_camera() -> Intrinsics {
    Intrinsics::new(1280, 1024, 1076.0, 1075.0, 629.7, 501.5).unwrap()
}

fn matterport_shots(plan: Plan) -> Vec<Shot> {
    let camera = matterport_camera().scaled_to(640 / plan.shrink, 512 / plan.shrink);
    plan.shoot(&camera, &camera)
}

fn matterport_undistorted(root: &Path, plan: Plan) -> PathBuf {
    let mut conf = format!("dataset matterport\nn_images {}\n", plan.frames);
    conf += "depth_directory undistorted_depth_images\ncolor_directory undistorted_color_images\n\n";
    // Rows are counted from the lower edge.
    conf += &format!("intrinsics_matrix 1076 0 629.7  0 1075 {} 0 0 1\n", 1023.0 - 501.5);
    for (i, shot) in matterport_shots(plan).iter().enumerate() {
        put(root.join(format!("undistorted_color_images/ab12_i1_{i}.jpg")), jpeg(&shot.color));
        put(root.join(format!("undistorted_depth_images/ab12_d1_{i}.png")), depth_png(&shot.depth, 4000.0));
        conf += &format!("scan ab12_d1_{i}.png ab12_i1_{i}.jpg {}\n", text(&opengl(&shot.pose)).replace('\n', " "));
    }
    put(root.join("undistorted_camera_parameters/ab12.conf"), conf);
    root.to_path_buf()
}

fn matterport_raw(root: &Path, plan: Plan) -> PathBuf {
    for (i, shot) in matterport_shots(plan).iter().enumerate() {
        put(root.join(format!("matterport_color_images/ab12_i1_{i}.jpg")), jpeg(&shot.color));
        put(root.join(format!("matterport_depth_images/ab12_d1_{i}.png")), depth_png(&shot.depth, 4000.0));
        put(root.join(format!("matterport_camera_poses/ab12_pose_1_{i}.txt")), text(&camera_to_world(&shot.pose)));
    }
    let intrinsics = "1280 1024 1076 1075 629.7 501.5 0 0 0 0 0";
    put(root.join("matterport_camera_intrinsics/ab12_intrinsics_1.txt"), intrinsics);
    root.to_path_buf()
}

fn matterport_exported(root: &Path, plan: Plan) -> PathBuf {
    for (i, shot) in matterport_shots(plan).iter().enumerate() {
        let camera = matterport_camera().scaled_to(shot.color.width(), shot.color.height());
        let Intrinsics { fx, fy, cx, cy, .. } = camera;
        put(root.join(format!("color/ab12_i1_{i}.jpg")), jpeg(&shot.color));
        put(root.join(format!("depth/ab12_d1_{i}.png")), depth_png(&shot.depth, 4000.0));
        put(root.join(format!("pose/ab12_i1_{i}.txt")), text(&camera_to_world(&shot.pose)));
        put(root.join(format!("intrinsic/ab12_i1_{i}.txt")), format!("{fx} 0 {cx}\n0 {fy} {cy}\n0 0 1\n"));
    }
    root.to_path_buf()
}

fn replica(root: &Path, plan: Plan) -> PathBuf {
    let full = Intrinsics::new(1200, 680, 600.0, 600.0, 599.5, 339.5).unwrap();
    let camera = full.scaled_to(600 / plan.shrink, 340 / plan.shrink);
    let room = root.join("room0");
    let mut trajectory = String::new();
    for (i, shot) in plan.shoot(&camera, &camera).iter().enumerate() {
        put(room.join(format!("results/frame{i:06}.jpg")), jpeg(&shot.color));
        put(room.join(format!("results/depth{i:06}.png")), depth_png(&shot.depth, 6553.5));
        trajectory += &(text(&camera_to_world(&shot.pose)).trim().replace('\n', " ") + "\n");
    }
    put(room.join("traj.txt"), trajectory);
    let camera =
        r#"{"camera": {"w": 1200, "h": 680, "fx": 600.0, "fy": 600.0, "cx": 599.5, "cy": 339.5, "scale": 6553.5}}"#;
    put(root.join("cam_params.json"), camera);
    room
}

fn replica_folders(root: &Path, plan: Plan) -> PathBuf {
    let camera = plan.camera(500.0, 500.0, 319.5, 239.5);
    let Intrinsics { fx, fy, cx, cy, .. } = camera;
    write_scannet_folders(&root.join("replica_2d/office0"), &plan.shoot(&camera, &camera), 6553.5);
    put(root.join("replica_2d/intrinsics.txt"), format!("{fx} 0 {cx} 0\n0 {fy} {cy} 0\n0 0 1 0\n0 0 0 1\n"));
    root.join("replica_2d/office0")
}

fn tum_line(time: f64, pose: &Pose) -> String {
    let [t, q] = [pose.center().to_array().to_vec(), quaternion(pose.rotation()).to_vec()];
    let numbers: Vec<String> = t.iter().chain(&q).map(ToString::to_string).collect();
    format!("{time:.4} {}\n", numbers.join(" "))
}

fn tum(root: &Path, plan: Plan) -> PathBuf {
    let camera = plan.camera(517.3, 516.5, 318.6, 255.3);
    let [mut colors, mut depths, mut poses] =
        ["# file: 'rgbd_dataset_freiburg1_room.bag'\n".to_owned(), String::new(), String::new()];
    for (i, shot) in plan.shoot(&camera, &camera).iter().enumerate() {
        // The maps come 12 ms after the pictures, the poses around both are the same.
        let time = 1_305_031_453.3 + 0.5 * i as f64;
        put(root.join(format!("rgb/{time:.6}.png")), png(&shot.color));
        put(root.join(format!("depth/{:.6}.png", time + 0.012)), depth_png(&shot.depth, 5000.0));
        colors += &format!("{time:.6} rgb/{time:.6}.png\n{:.6} rgb/absent.png\n", time + 0.1);
        depths += &format!("{0:.6} depth/{0:.6}.png\n", time + 0.012);
        poses += &(tum_line(time - 0.004, &shot.pose) + &tum_line(time + 0.02, &shot.pose));
    }
    put(root.join("rgb.txt"), colors);
    put(root.join("depth.txt"), depths);
    put(root.join("groundtruth.txt"), poses);
    root.to_path_buf()
}

fn icl(root: &Path, plan: Plan) -> PathBuf {
    let camera = plan.camera(481.2, 480.0, 319.5, 239.5);
    let [mut pairs, mut poses] = [String::new(), String::new()];
    let mirror = DMat3::from_diagonal(DVec3::new(1.0, -1.0, 1.0));
    for (i, shot) in plan.shoot(&camera, &camera).iter().enumerate() {
        put(root.join(format!("rgb/{i}.png")), png(&shot.color));
        put(root.join(format!("depth/{i}.png")), depth_png(&shot.depth, 5000.0));
        pairs += &format!("{i} depth/{i}.png {i} rgb/{i}.png\n");
        // World and camera have y the other way round: a left-handed world.
        let turn = mirror * shot.pose.rotation() * mirror;
        let convention = PoseConvention::OPENCV_CAMERA_TO_WORLD;
        poses += &tum_line(i as f64, &Pose::new(turn, mirror * shot.pose.center(), convention).unwrap());
    }
    put(root.join("associations.txt"), pairs);
    put(root.join("livingRoom0.gt.freiburg"), poses);
    root.to_path_buf()
}

fn redwood(root: &Path, plan: Plan) -> PathBuf {
    let camera = plan.camera(525.0, 525.0, 319.5, 239.5);
    let mut trajectory = String::new();
    for (i, shot) in plan.shoot(&camera, &camera).iter().enumerate() {
        put(root.join(format!("image/{i:05}.jpg")), jpeg(&shot.color));
        put(root.join(format!("depth/{i:05}.png")), depth_png(&shot.depth, 1000.0));
        trajectory += &format!("{i} {i} {}\n{}", i + 1, text(&camera_to_world(&shot.pose)));
    }
    put(root.join("trajectory.log"), trajectory);
    root.to_path_buf()
}

fn redwood_benchmark(root: &Path, plan: Plan) -> PathBuf {
    let camera = plan.camera(520.0, 520.0, 319.5, 239.5);
    let mut trajectory = String::new();
    for (i, shot) in plan.shoot(&camera, &camera).iter().enumerate() {
        put(root.join(format!("livingroom1-color/{i:05}.jpg")), jpeg(&shot.color));
        put(root.join(format!("livingroom1-depth-clean/{i:05}.png")), depth_png(&shot.depth, 1000.0));
        trajectory += &format!("{i}\t{i}\t{}\n{}", i + 1, text(&camera_to_world(&shot.pose)));
    }
    put(root.join("livingroom1-traj.txt"), trajectory);
    let matrix = "[520.0, 0, 0, 0, 520.0, 0, 319.5, 239.5, 1]";
    put(root.join("intrinsic.json"), format!(r#"{{"width": 640, "height": 480, "intrinsic_matrix": {matrix}}}"#));
    root.to_path_buf()
}

fn nerfstudio(root: &Path, plan: Plan) -> PathBuf {
    let camera = plan.camera(530.0, 531.0, 322.0, 238.0);
    let mut frames = Vec::new();
    for (i, shot) in plan.shoot(&camera, &camera).iter().enumerate() {
        put(root.join(format!("images/frame_{i}.png")), png(&shot.color));
        put(root.join(format!("depth/frame_{i}.png")), depth_png(&shot.depth, 1000.0));
        let mut matrix = opengl(&shot.pose).to_vec();
        let mut file = format!("./images/frame_{i}.png");
        // Half of them are written in the short forms.
        if i % 2 == 1 {
            matrix.truncate(3);
            file = format!("images/frame_{i}");
        }
        let depth = format!("depth/frame_{i}.png");
        frames.push(serde_json::json!({"file_path": file, "depth_file_path": depth, "transform_matrix": matrix}));
    }
    let Intrinsics { width, height, fx, fy, cx, cy } = camera;
    // From the corner, not the centre, of the first pixel.
    let all = serde_json::json!({
        "camera_model": "OPENCV", "w": width, "h": height, "fl_x": fx, "fl_y": fy, "cx": cx + 0.5, "cy": cy + 0.5,
        "k1": 0.0, "ply_file_path": "points.ply", "frames": frames
    });
    put(root.join("transforms.json"), all.to_string());
    let ply = "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\nend_header\n1 2 3\n";
    put(root.join("points.ply"), ply);
    root.to_path_buf()
}

fn nerfstudio_angles(root: &Path, plan: Plan) -> PathBuf {
    let size = (640 / plan.shrink, 480 / plan.shrink);
    let f = size.0 as f64 * 0.8;
    let camera = Intrinsics::new(size.0, size.1, f, f, (size.0 - 1) as f64 / 2.0, (size.1 - 1) as f64 / 2.0).unwrap();
    let mut frames = Vec::new();
    for (i, shot) in plan.shoot(&camera, &camera).iter().enumerate() {
        put(root.join(format!("{i}.png")), png(&shot.color));
        put(root.join(format!("{i}.depth.png")), depth_png(&shot.depth, 4000.0));
        let matrix = opengl(&shot.pose);
        frames.push(serde_json::json!({"file_path": i.to_string(), "depth_path": format!("{i}.depth.png"), "transform_matrix": matrix}));
    }
    let angle = 2.0 * (0.5 / 0.8_f64).atan();
    let all = serde_json::json!({"camera_angle_x": angle, "integer_depth_scale": 1.0 / 4000.0, "frames": frames});
    put(root.join("transforms.json"), all.to_string());
    root.join("transforms.json")
}

fn colmap_shots(root: &Path, plan: Plan) -> (Intrinsics, Vec<Shot>) {
    let camera = plan.camera(540.0, 541.0, 321.0, 238.0);
    let shots = plan.shoot(&camera, &camera);
    for (i, shot) in shots.iter().enumerate() {
        put(root.join(format!("images/a/{i}.jpg")), jpeg(&shot.color));
    }
    (camera, shots)
}

fn colmap_text(root: &Path, plan: Plan) -> PathBuf {
    let (camera, shots) = colmap_shots(root, plan);
    let Intrinsics { width, height, fx, fy, cx, cy } = camera;
    let model = format!("# cameras\n7 PINHOLE {width} {height} {fx} {fy} {} {}\n", cx + 0.5, cy + 0.5);
    put(root.join("sparse/cameras.txt"), model);
    let mut images = "# images\n".to_owned();
    // In any order, every second without points.
    for (i, shot) in shots.iter().enumerate().rev() {
        let (q, t) = colmap_pose(&shot.pose);
        let numbers: Vec<String> = q.iter().chain(&t).map(ToString::to_string).collect();
        images +=
            &format!("{} {} 7 a/{i}.jpg\n{}\n", i + 1, numbers.join(" "), if i % 2 == 0 { "" } else { "1.5 2.5 -1" });
    }
    put(root.join("sparse/images.txt"), images);
    put(root.join("sparse/points3D.txt"), "# points\n5 2.2 0.5 1.0 10 20 30 0.3 1 2 2 3\n");
    root.to_path_buf()
}

fn colmap_binary(root: &Path, plan: Plan) -> PathBuf {
    let (camera, shots) = colmap_shots(root, plan);
    let floats = |numbers: &[f64]| numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let mut cameras = 1_u64.to_le_bytes().to_vec();
    cameras.extend([7_u32.to_le_bytes(), 4_u32.to_le_bytes()].concat());
    cameras.extend([camera.width as u64, camera.height as u64].iter().flat_map(|side| side.to_le_bytes()));
    cameras.extend(floats(&[camera.fx, camera.fy, camera.cx + 0.5, camera.cy + 0.5, 0.0, 0.0, 0.0, 0.0]));
    put(root.join("sparse/0/cameras.bin"), cameras);
    let mut images = (shots.len() as u64).to_le_bytes().to_vec();
    for (i, shot) in shots.iter().enumerate() {
        let (q, t) = colmap_pose(&shot.pose);
        images.extend((i as u32 + 1).to_le_bytes());
        images.extend([floats(&q), floats(&t)].concat());
        images.extend(7_u32.to_le_bytes());
        images.extend(format!("a/{i}.jpg\0").bytes());
        images.extend(1_u64.to_le_bytes());
        images.extend([floats(&[3.0, 4.0]), u64::MAX.to_le_bytes().to_vec()].concat());
        let mut map = format!("{}&{}&1&", shot.depth.width(), shot.depth.height()).into_bytes();
        map.extend(shot.depth.meters().iter().flat_map(|x| x.to_le_bytes()));
        put(root.join(format!("stereo/depth_maps/a/{i}.jpg.geometric.bin")), map);
    }
    put(root.join("sparse/0/images.bin"), images);
    let mut points = 1_u64.to_le_bytes().to_vec();
    points.extend([5_u64.to_le_bytes().to_vec(), floats(&[2.2, 0.5, 1.0]), vec![10, 20, 30], floats(&[0.3])].concat());
    points.extend(1_u64.to_le_bytes());
    points.extend([1_u32.to_le_bytes(), 0_u32.to_le_bytes()].concat());
    put(root.join("sparse/0/points3D.bin"), points);
    root.to_path_buf()
}

fn polycam(root: &Path, plan: Plan) -> PathBuf {
    let camera = plan.camera(480.0, 480.0, 321.0, 239.0);
    let coarse = camera.scaled_to(camera.width / 2, camera.height / 2);
    for (i, shot) in plan.shoot(&camera, &coarse).iter().enumerate() {
        let keyframes = root.join("keyframes");
        let name = 29_048_000 + i;
        put(keyframes.join(format!("corrected_images/{name}.jpg")), jpeg(&shot.color));
        put(keyframes.join(format!("images/{name}.jpg")), "not to be read");
        put(keyframes.join(format!("cameras/{name}.json")), "not to be read");
        put(keyframes.join(format!("depth/{name}.png")), depth_png(&shot.depth, 1000.0));
        let sure = vec![255_u8; coarse.width * coarse.height];
        let mut confidence = Vec::new();
        let encoder = PngEncoder::new(&mut confidence);
        encoder.write_image(&sure, coarse.width as u32, coarse.height as u32, ExtendedColorType::L8).unwrap();
        put(keyframes.join(format!("confidence/{name}.png")), confidence);
        let mut json = serde_json::json!({
            "fx": camera.fx, "fy": camera.fy, "cx": camera.cx, "cy": camera.cy, "width": camera.width,
            "height": camera.height, "blur_score": 200.0
        });
        for (k, value) in opengl(&shot.pose)[..3].as_flattened().iter().enumerate() {
            json[format!("t_{}{}", k / 4, k % 4)] = (*value).into();
        }
        put(keyframes.join(format!("corrected_cameras/{name}.json")), json.to_string());
    }
    root.to_path_buf()
}

/// The files of a Record3D recording.
fn record3d_files(plan: Plan) -> Vec<(String, Vec<u8>)> {
    let camera = plan.camera(470.0, 470.0, 318.0, 241.0);
    let coarse = camera.scaled_to(camera.width / 2, camera.height / 2);
    let (mut files, mut poses) = (Vec::new(), Vec::new());
    let lzfse = |raw: &[u8]| {
        let mut packed = Vec::new();
        lzfse_rust::encode_bytes(raw, &mut packed).unwrap();
        packed
    };
    for (i, shot) in plan.shoot(&camera, &coarse).iter().enumerate() {
        let raw: Vec<u8> = shot.depth.meters().iter().flat_map(|x| x.to_le_bytes()).collect();
        files.push((format!("rgbd/{i}.jpg"), jpeg(&shot.color)));
        files.push((format!("rgbd/{i}.depth"), lzfse(&raw)));
        files.push((format!("rgbd/{i}.conf"), lzfse(&vec![2_u8; raw.len() / 4])));
        let [x, y, z] = shot.pose.rotation().to_cols_array_2d();
        let turn = DMat3::from_cols(x.into(), -DVec3::from(y), -DVec3::from(z));
        poses.push([quaternion(turn).to_vec(), shot.pose.center().to_array().to_vec()].concat());
    }
    let metadata = serde_json::json!({
        "w": camera.width, "h": camera.height, "dw": coarse.width, "dh": coarse.height, "poses": poses,
        "K": [camera.fx, 0, 0, 0, camera.fy, 0, camera.cx, camera.cy, 1]
    });
    files.push(("metadata".into(), metadata.to_string().into_bytes()));
    files
}

fn record3d(root: &Path, plan: Plan) -> PathBuf {
    let mut bytes = Vec::new();
    let mut archive = rawzip::ZipArchiveWriter::new(&mut bytes);
    for (name, content) in record3d_files(plan) {
        // Records are stored as they are, text is deflated.
        let method =
            if name == "metadata" { rawzip::CompressionMethod::DEFLATE } else { rawzip::CompressionMethod::STORE };
        let (mut entry, config) = archive.new_file(&name).compression_method(method).start().unwrap();
        if method == rawzip::CompressionMethod::DEFLATE {
            let mut writer = config.wrap(flate2::write::DeflateEncoder::new(&mut entry, flate2::Compression::fast()));
            writer.write_all(&content).unwrap();
            let (encoder, descriptor) = writer.finish().unwrap();
            encoder.finish().unwrap();
            entry.finish(descriptor).unwrap();
        } else {
            let mut writer = config.wrap(&mut entry);
            writer.write_all(&content).unwrap();
            let (_, descriptor) = writer.finish().unwrap();
            entry.finish(descriptor).unwrap();
        }
    }
    archive.finish().unwrap();
    let path = root.join("2024-01-01--12-00-00.r3d");
    put(&path, bytes);
    path
}

fn record3d_unpacked(root: &Path, plan: Plan) -> PathBuf {
    for (name, content) in record3d_files(plan) {
        put(root.join(name), content);
    }
    root.to_path_buf()
}

fn seven_scenes(root: &Path, plan: Plan) -> PathBuf {
    let camera = plan.camera(585.0, 585.0, 320.0, 240.0);
    for (i, shot) in plan.shoot(&camera, &camera).iter().enumerate() {
        let folder = root.join(if i < 4 { "seq-01" } else { "seq-02" });
        put(folder.join(format!("frame-{i:06}.color.png")), png(&shot.color));
        put(folder.join(format!("frame-{i:06}.depth.png")), depth_png(&shot.depth, 1000.0));
        put(folder.join(format!("frame-{i:06}.pose.txt")), text(&camera_to_world(&shot.pose)));
    }
    root.to_path_buf()
}

fn scannet_tool(root: &Path, plan: Plan) -> PathBuf {
    let camera = plan.camera(570.0, 570.0, 320.0, 240.0);
    for (i, shot) in plan.shoot(&camera, &camera).iter().enumerate() {
        put(root.join(format!("frame-{i:06}.color.jpg")), jpeg(&shot.color));
        let mut pgm = format!("P5\n{} {}\n65535\n", camera.width, camera.height).into_bytes();
        pgm.extend(units(&shot.depth, 1000.0).iter().flat_map(|unit| unit.to_be_bytes()));
        put(root.join(format!("frame-{i:06}.depth.pgm")), pgm);
        put(root.join(format!("frame-{i:06}.pose.txt")), text(&camera_to_world(&shot.pose)));
    }
    let mut info = String::new();
    for kind in ["Color", "Depth"] {
        let lower = kind.to_lowercase();
        info += &format!("m_{lower}Width = 640\nm_{lower}Height = 480\n");
        info += &format!("m_calibration{kind}Intrinsic = 570 0 320 0 0 570 240 0 0 0 1 0 0 0 0 1\n");
    }
    put(root.join("_info.txt"), info);
    root.to_path_buf()
}

fn images(root: &Path, plan: Plan) -> PathBuf {
    let camera = plan.camera(525.0, 525.0, 319.5, 239.5);
    for (i, shot) in plan.shoot(&camera, &camera).iter().enumerate() {
        put(root.join(format!("rgb/{i}.png")), png(&shot.color));
        put(root.join(format!("depth/{i}.png")), depth_png(&shot.depth, 1000.0));
    }
    put(root.join("intrinsics.txt"), "525 525 319.5 239.5");
    root.to_path_buf()
}

/// A map of confidence that is sure everywhere.
fn sure(depth: &DepthImage) -> Vec<u8> {
    let values = vec![2_u8; depth.width() * depth.height()];
    let mut bytes = Vec::new();
    let (width, height) = (depth.width() as u32, depth.height() as u32);
    PngEncoder::new(&mut bytes).write_image(&values, width, height, ExtendedColorType::L8).unwrap();
    bytes
}

/// A camera, a coarser one for depth, and what both see: as phones record.
fn phone(plan: Plan) -> (Intrinsics, Vec<Shot>) {
    let camera = plan.camera(480.0, 480.0, 321.0, 239.0);
    let coarse = camera.scaled_to(camera.width / 2, camera.height / 2);
    (camera, plan.shoot(&camera, &coarse))
}

fn scanner_app(root: &Path, plan: Plan) -> PathBuf {
    let (camera, shots) = phone(plan);
    for (i, shot) in shots.iter().enumerate() {
        put(root.join(format!("frame_{i:05}.jpg")), jpeg(&shot.color));
        put(root.join(format!("depth_{i:05}.png")), depth_png(&shot.depth, 1000.0));
        put(root.join(format!("conf_{i:05}.png")), sure(&shot.depth));
        let Intrinsics { fx, fy, cx, cy, .. } = camera;
        let json = serde_json::json!({
            "cameraPoseARFrame": opengl(&shot.pose).as_flattened(), "intrinsics": [fx, 0, cx, 0, fy, cy, 0, 0, 1], "time": 0.1
        });
        put(root.join(format!("frame_{i:05}.json")), json.to_string());
    }
    // A frame without a picture, as most are.
    put(root.join("frame_00099.json"), "{}");
    put(root.join("info.json"), "{}");
    root.to_path_buf()
}

fn arkitscenes(root: &Path, plan: Plan) -> PathBuf {
    let camera = plan.camera(480.0, 480.0, 321.0, 239.0);
    let frames = root.join("41048190_frames");
    let mut trajectory = String::new();
    for (i, shot) in plan.shoot(&camera, &camera).iter().enumerate() {
        let time = 3320.5 + 0.5 * i as f64;
        put(frames.join(format!("lowres_wide/41048190_{time:.3}.png")), png(&shot.color));
        put(frames.join(format!("lowres_depth/41048190_{time:.3}.png")), depth_png(&shot.depth, 1000.0));
        put(frames.join(format!("confidence/41048190_{time:.3}.png")), sure(&shot.depth));
        let Intrinsics { width, height, fx, fy, cx, cy } = camera;
        let intrinsics = format!("{width} {height} {fx} {fy} {cx} {cy}");
        // Rounded otherwise.
        put(frames.join(format!("lowres_wide_intrinsics/41048190_{:.3}.pincam", time + 0.001)), intrinsics);
        let inverse = shot.pose.inverse();
        let turn = DQuat::from_mat3(&inverse.rotation()).to_scaled_axis();
        let numbers = [turn.to_array(), inverse.center().to_array()].concat();
        let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
        trajectory += &format!("{} {}\n", time + 0.0004, numbers.join(" "));
    }
    put(frames.join("lowres_wide.traj"), trajectory);
    root.to_path_buf()
}

fn scannetpp(root: &Path, plan: Plan) -> PathBuf {
    let (camera, shots) = phone(plan);
    let iphone = root.join("iphone");
    let mut all = serde_json::Map::new();
    for (i, shot) in shots.iter().enumerate() {
        let name = format!("frame_{:06}", 10 * i);
        put(iphone.join(format!("rgb/{name}.jpg")), jpeg(&shot.color));
        put(iphone.join(format!("depth/{name}.png")), depth_png(&shot.depth, 1000.0));
        let Intrinsics { fx, fy, cx, cy, .. } = camera;
        let entry = serde_json::json!({
            "aligned_pose": camera_to_world(&shot.pose), "pose": camera_to_world(&pose(0)), "intrinsic": [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]
        });
        all.insert(name, entry);
    }
    put(iphone.join("pose_intrinsic_imu.json"), serde_json::Value::Object(all).to_string());
    root.to_path_buf()
}

fn stray(root: &Path, plan: Plan) -> PathBuf {
    let (camera, shots) = phone(plan);
    let mut odometry = "timestamp, frame, x, y, z, qx, qy, qz, qw\n".to_owned();
    for (i, shot) in shots.iter().enumerate() {
        put(root.join(format!("rgb/{i:06}.jpg")), jpeg(&shot.color));
        put(root.join(format!("depth/{i:06}.png")), depth_png(&shot.depth, 1000.0));
        put(root.join(format!("confidence/{i:06}.png")), sure(&shot.depth));
        let numbers = [shot.pose.center().to_array().to_vec(), quaternion(shot.pose.rotation()).to_vec()].concat();
        let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
        odometry += &format!("{}, {i:06}, {}\n", 0.1 * i as f64, numbers.join(", "));
    }
    put(root.join("odometry.csv"), odometry);
    let Intrinsics { fx, fy, cx, cy, .. } = camera;
    put(root.join("camera_matrix.csv"), format!("{fx}, 0.0, {cx}\n0.0, {fy}, {cy}\n0.0, 0.0, 1.0\n"));
    root.to_path_buf()
}

/// An export of RTAB-Map: with numbers it has poses of the robot's body.
fn write_rtabmap(root: &Path, plan: Plan, numbered: bool) -> PathBuf {
    let camera = plan.camera(525.0, 525.0, 319.5, 239.5);
    let mut poses = "#timestamp x y z qx qy qz qw id\n".to_owned();
    let on_body = DMat3::from_cols_array(&[0.0, -1.0, 0.0, 0.0, 0.0, -1.0, 1.0, 0.0, 0.0]);
    let offset = DVec3::new(0.1, 0.0, 0.3);
    for (i, shot) in plan.shoot(&camera, &camera).iter().enumerate() {
        let time = 1_305_031_453.25 + 0.5 * i as f64;
        let name = if numbered { (i + 1).to_string() } else { format!("{time:.6}") };
        put(root.join(format!("rgb/{name}.jpg")), jpeg(&shot.color));
        put(root.join(format!("depth/{name}.png")), depth_png(&shot.depth, 1000.0));
        let Intrinsics { width, height, fx, fy, cx, cy } = camera;
        let yaml = format!(
            "%YAML:1.0\n---\ncamera_name: {name}\nimage_width: {width}\nimage_height: {height}\ncamera_matrix:\n   rows: 3\n   cols: 3\n   data: [ {fx}, 0., {cx}, 0., {fy},\n       {cy}, 0., 0., 1. ]\ndistortion_coefficients:\n   rows: 1\n   cols: 5\n   data: [ 0., 0., 0., 0., 0. ]\ndistortion_model: plumb_bob\nlocal_transform:\n   rows: 3\n   cols: 4\n   data: [ 0., 0., 1., 0.1, -1., 0., 0., 0., 0., -1., 0., 0.3 ]\n"
        );
        put(root.join(format!("calib/{name}.yaml")), yaml);
        let pose = match numbered {
            true => {
                let turn = shot.pose.rotation() * on_body.transpose();
                let convention = PoseConvention::OPENCV_CAMERA_TO_WORLD;
                Pose::new(turn, shot.pose.center() - turn * offset, convention).unwrap()
            }
            false => shot.pose,
        };
        let line = tum_line(time, &pose);
        poses += &if numbered { format!("{} {}\n", line.trim(), i + 1) } else { line };
    }
    put(root.join("poses.txt"), poses);
    root.to_path_buf()
}

fn rtabmap(root: &Path, plan: Plan) -> PathBuf {
    write_rtabmap(root, plan, false)
}

fn rtabmap_body(root: &Path, plan: Plan) -> PathBuf {
    write_rtabmap(root, plan, true)
}

fn open3d(root: &Path, plan: Plan) -> PathBuf {
    let camera = plan.camera(610.0, 611.0, 321.0, 240.0);
    let mut trajectory = String::new();
    for (i, shot) in plan.shoot(&camera, &camera).iter().enumerate() {
        put(root.join(format!("color/{i:05}.jpg")), jpeg(&shot.color));
        put(root.join(format!("depth/{i:05}.png")), depth_png(&shot.depth, 1000.0));
        trajectory += &format!("{i} {i} {}\n{}", i + 1, text(&camera_to_world(&shot.pose)));
    }
    put(root.join("scene/trajectory.log"), trajectory);
    let Intrinsics { width, height, fx, fy, cx, cy } = camera;
    let matrix = [fx, 0.0, 0.0, 0.0, fy, 0.0, cx, cy, 1.0];
    let json = serde_json::json!({"width": width, "height": height, "intrinsic_matrix": matrix, "depth_scale": 1000.0});
    put(root.join("camera_intrinsic.json"), json.to_string());
    root.to_path_buf()
}

/// An array as NumPy writes it, by rows or by columns, of numbers of the type `descr`.
fn npy_file(descr: &str, by_columns: bool, [height, width]: [usize; 2], numbers: impl Iterator<Item = u8>) -> Vec<u8> {
    let order = if by_columns { "True" } else { "False" };
    let head = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': ({height}, {width}), }}");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    let padded = format!("{head:<117}\n");
    bytes.extend((padded.len() as u16).to_le_bytes());
    bytes.extend(padded.bytes());
    bytes.extend(numbers);
    bytes
}

/// A depth map as NumPy writes it.
fn npy(depth: &DepthImage) -> Vec<u8> {
    let numbers = depth.meters().iter().flat_map(|meters| meters.to_le_bytes());
    npy_file("<f4", false, [depth.height(), depth.width()], numbers)
}

/// A moment of nuScenes' cameras as OpenScene prepares it. Matrices are stored by rows and by columns.
fn nuscenes(root: &Path, plan: Plan) -> PathBuf {
    const CAMERAS: [&str; 6] = ["back", "back_left", "back_right", "front", "front_left", "front_right"];
    let camera = plan.camera(480.0, 470.0, 321.0, 239.0);
    let Intrinsics { fx, fy, cx, cy, .. } = camera;
    for (name, shot) in CAMERAS.into_iter().zip(plan.shoot(&camera, &camera)) {
        put(root.join(format!("color/{name}.jpg")), jpeg(&shot.color));
        let rows = camera_to_world(&shot.pose);
        let columns = (0..4).flat_map(|column| rows.map(|row| row[column]));
        put(
            root.join(format!("pose/{name}.npy")),
            npy_file("<f8", true, [4, 4], columns.flat_map(|number| number.to_le_bytes())),
        );
        let intrinsics = [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0];
        let numbers = intrinsics.into_iter().flat_map(|number| number.to_le_bytes());
        put(root.join(format!("K/{name}.npy")), npy_file("<f8", false, [3, 3], numbers));
    }
    root.to_path_buf()
}

fn tiff_floats(depth: &DepthImage) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut encoder = tiff::encoder::TiffEncoder::new(&mut bytes).unwrap();
    let (width, height) = (depth.width() as u32, depth.height() as u32);
    encoder.write_image::<tiff::encoder::colortype::Gray32Float>(width, height, depth.meters()).unwrap();
    bytes.into_inner()
}

/// An OpenEXR file with colour and a channel Z, in blocks of 16 rows that zlib packs.
fn exr(depth: &DepthImage) -> Vec<u8> {
    let (width, height) = (depth.width(), depth.height());
    let mut bytes = vec![0x76, 0x2f, 0x31, 0x01, 2, 0, 0, 0];
    let mut attribute = |name: &str, kind: &str, value: &[u8]| {
        bytes.extend(
            [name.as_bytes(), &[0], kind.as_bytes(), &[0], &(value.len() as u32).to_le_bytes(), value].concat(),
        );
    };
    let channel = |name: &str, kind: u32| {
        let numbers = [kind, 0, 1, 1].iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        [name.as_bytes(), &[0], &numbers].concat()
    };
    attribute("channels", "chlist", &[channel("R", 1), channel("ViewLayer.Depth.Z", 2), vec![0]].concat());
    attribute("compression", "compression", &[3]);
    let window: Vec<u8> = [0, 5, width as i32 - 1, height as i32 + 4].iter().flat_map(|x| x.to_le_bytes()).collect();
    attribute("dataWindow", "box2i", &window);
    attribute("lineOrder", "lineOrder", &[0]);
    bytes.push(0);
    let (table, count) = (bytes.len(), height.div_ceil(16));
    bytes.extend(vec![0; 8 * count]);
    for block in 0..count {
        let rows = block * 16..height.min(block * 16 + 16);
        let mut raw = Vec::new();
        for row in rows.clone() {
            raw.extend(vec![0x3c; 2 * width]);
            raw.extend(depth.meters()[row * width..][..width].iter().flat_map(|meters| meters.to_le_bytes()));
        }
        let mut mixed: Vec<u8> = raw.iter().step_by(2).chain(raw.iter().skip(1).step_by(2)).copied().collect();
        for i in (1..mixed.len()).rev() {
            mixed[i] = mixed[i].wrapping_sub(mixed[i - 1]).wrapping_add(128);
        }
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&mixed).unwrap();
        let packed = encoder.finish().unwrap();
        let packed = if packed.len() < raw.len() { packed } else { raw };
        let at = bytes.len() as u64;
        bytes[table + 8 * block..][..8].copy_from_slice(&at.to_le_bytes());
        bytes.extend((rows.start as i32 + 5).to_le_bytes());
        bytes.extend((packed.len() as u32).to_le_bytes());
        bytes.extend(packed);
    }
    bytes
}

/// nerfstudio with depth in metres.
fn nerfstudio_depth(root: &Path, plan: Plan, extension: &str, write: fn(&DepthImage) -> Vec<u8>) -> PathBuf {
    let camera = plan.camera(530.0, 531.0, 322.0, 238.0);
    let mut frames = Vec::new();
    for (i, shot) in plan.shoot(&camera, &camera).iter().enumerate() {
        put(root.join(format!("images/{i}.png")), png(&shot.color));
        put(root.join(format!("depth/{i}.{extension}")), write(&shot.depth));
        let (file, depth) = (format!("images/{i}.png"), format!("depth/{i}.{extension}"));
        let matrix = opengl(&shot.pose);
        frames.push(serde_json::json!({"file_path": file, "depth_file_path": depth, "transform_matrix": matrix}));
    }
    let Intrinsics { width, height, fx, fy, cx, cy } = camera;
    let all = serde_json::json!({
        "w": width, "h": height, "fl_x": fx, "fl_y": fy, "cx": cx + 0.5, "cy": cy + 0.5, "frames": frames
    });
    put(root.join("transforms.json"), all.to_string());
    root.to_path_buf()
}

fn nerfstudio_npy(root: &Path, plan: Plan) -> PathBuf {
    nerfstudio_depth(root, plan, "npy", npy)
}

fn nerfstudio_tiff(root: &Path, plan: Plan) -> PathBuf {
    nerfstudio_depth(root, plan, "tiff", tiff_floats)
}

fn nerfstudio_exr(root: &Path, plan: Plan) -> PathBuf {
    nerfstudio_depth(root, plan, "exr", exr)
}

type Writer = fn(&Path, Plan) -> PathBuf;

/// Those of which no frame has a depth map.
const WITHOUT_DEPTH: [&str; 2] = ["colmap, text", "nuScenes"];

const RECORDINGS: [(&str, Layout, Writer); 31] = [
    ("scannet", Layout::ScanNet, scannet),
    ("sens", Layout::Sens, sens),
    ("sens, raw, by its folder", Layout::Sens, sens_raw),
    ("matterport, undistorted", Layout::Matterport, matterport_undistorted),
    ("matterport, raw", Layout::Matterport, matterport_raw),
    ("matterport, exported", Layout::Matterport, matterport_exported),
    ("replica", Layout::Replica, replica),
    ("replica, in folders", Layout::Replica, replica_folders),
    ("tum", Layout::Tum, tum),
    ("icl", Layout::Icl, icl),
    ("redwood", Layout::Redwood, redwood),
    ("redwood, benchmark", Layout::Redwood, redwood_benchmark),
    ("nerfstudio", Layout::Nerfstudio, nerfstudio),
    ("nerfstudio, angles", Layout::Nerfstudio, nerfstudio_angles),
    ("colmap, text", Layout::Colmap, colmap_text),
    ("colmap, binary", Layout::Colmap, colmap_binary),
    ("polycam", Layout::Polycam, polycam),
    ("record3d", Layout::Record3d, record3d),
    ("record3d, unpacked", Layout::Record3d, record3d_unpacked),
    ("7scenes", Layout::SevenScenes, seven_scenes),
    ("3D Scanner App", Layout::ScannerApp, scanner_app),
    ("ARKitScenes", Layout::ArkitScenes, arkitscenes),
    ("ScanNet++", Layout::ScanNetPp, scannetpp),
    ("nuScenes", Layout::NuScenes, nuscenes),
    ("Stray Scanner", Layout::Stray, stray),
    ("RTAB-Map", Layout::RtabMap, rtabmap),
    ("RTAB-Map, poses of the body", Layout::RtabMap, rtabmap_body),
    ("Open3D's recorder", Layout::Redwood, open3d),
    ("depth as NumPy's", Layout::Nerfstudio, nerfstudio_npy),
    ("depth as TIFF", Layout::Nerfstudio, nerfstudio_tiff),
    ("depth as OpenEXR", Layout::Nerfstudio, nerfstudio_exr),
];

// Reading.

fn opened(path: &Path) -> Box<dyn Dataset> {
    open(path, &OpenOptions::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn all(dataset: &dyn Dataset) -> Vec<usize> {
    (0..dataset.len()).collect()
}

const VOXEL: f64 = 0.05;

/// The fused cloud is the room: its walls, colours and normals.
fn assert_room(name: &str, dataset: &dyn Dataset, frames: &[usize], from_world: impl Fn(DVec3) -> DVec3) {
    let fused = fuse(dataset, frames, &FuseOptions { voxel: VOXEL, ..FuseOptions::default() });
    let fused = fused.unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(fused.report.frames, frames.len(), "{name}: {}", fused.report);
    let cloud = &fused.cloud;
    assert!(cloud.len() > 1000 * frames.len().min(4) / 2, "{name}: {}", fused.report);
    let (colors, normals) = (cloud.colors.as_ref().unwrap(), cloud.normals.as_ref().unwrap());
    let mut tilts = Vec::new();
    for ((position, color), normal) in cloud.positions.iter().zip(colors).zip(normals) {
        let point = from_world(DVec3::from_array(*position));
        let (distance, facing) = wall_at(point);
        assert!(distance < VOXEL / 2.0, "{name}: {point} is {distance} m off the walls");
        for (found, expected) in color.iter().zip(color_at(point)) {
            assert!(found.abs_diff(expected) <= 8, "{name}: at {point} {color:?}, expected {:?}", color_at(point));
        }
        let normal = from_world(DVec3::from_array(normal.map(f64::from))) - from_world(DVec3::ZERO);
        assert!((normal.length() - 1.0).abs() < 1e-5, "{name}: {normal}");
        tilts.push(normal.dot(facing));
    }
    tilts.sort_by(f64::total_cmp);
    // The rest lies in edges, where two walls share a voxel.
    assert!(tilts[tilts.len() / 10] > 0.98, "{name}: normals, {}", tilts[tilts.len() / 10]);
}

#[test]
fn every_layout_gives_the_room_back() {
    for (name, layout, write) in
        RECORDINGS.into_iter().chain([("scannet's tool", Layout::SevenScenes, scannet_tool as Writer)])
    {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), FULL);
        assert_eq!(detect(&path).unwrap(), layout, "{name}");
        let dataset = opened(&path);
        let counts = dataset.counts();
        assert_eq!((dataset.layout(), dataset.root()), (layout, path.as_path()), "{name}");
        assert_eq!((counts.frames, counts.posed, counts.invalid_poses), (6, 6, 0), "{name}: {counts}");
        // Poses, whatever the convention, are those the pictures were taken from.
        for (i, frame) in dataset.frames().iter().enumerate() {
            let (found, expected) = (frame.pose.unwrap(), pose(i));
            assert!(found.center().abs_diff_eq(expected.center(), 1e-5), "{name} {i}: {found:?}, {expected:?}");
            assert!(found.angle_to(&expected) < 1e-3, "{name} {i}: {found:?}, {expected:?}");
            let color = dataset.color(i).unwrap();
            assert_eq!([color.width(), color.height()], [frame.color.width, frame.color.height], "{name}");
        }
        if WITHOUT_DEPTH.contains(&name) {
            assert_eq!((counts.with_depth, dataset.depth(0).unwrap()), (0, None), "{name}");
            continue;
        }
        assert_eq!(counts.with_depth, 6, "{name}");
        let checked = check(&*dataset).unwrap();
        assert_eq!(checked.verdict, Verdict::Confirmed, "{name}: {checked}");
        assert!(checked.agreement.median_error < 0.015, "{name}: {checked}");
        assert!(checked.plausible_depth && checked.depth_factor.is_none(), "{name}: {checked}");
        assert_room(name, &*dataset, &all(&*dataset), |p| p);
        if layout == Layout::Tum {
            assert_eq!(counts.missing_color, 6, "{counts}");
        }
        let forced = open(&path, &OpenOptions { layout: Some(layout), ..OpenOptions::default() }).unwrap();
        assert_eq!(forced.frames(), dataset.frames(), "{name}");
    }
}

#[test]
fn a_wrong_convention_is_found_in_every_layout() {
    for (name, _, write) in RECORDINGS {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), FULL);
        let right = opened(&path).conventions().pose.unwrap();
        if WITHOUT_DEPTH.contains(&name) {
            continue;
        }
        let conventions = [
            PoseConvention::OPENCV_CAMERA_TO_WORLD,
            PoseConvention::OPENGL_CAMERA_TO_WORLD,
            PoseConvention::OPENCV_WORLD_TO_CAMERA,
        ];
        for wrong in conventions.into_iter().filter(|&convention| convention != right) {
            let dataset = open(&path, &OpenOptions { pose: Some(wrong.into()), ..OpenOptions::default() }).unwrap();
            let checked = check(&*dataset).unwrap();
            assert_eq!(checked.stated, Some(wrong));
            assert_eq!(
                checked.verdict,
                Verdict::Contradicted(Reading::Convention(right)),
                "{name}, {wrong}: {checked}"
            );
            let best = checked.others.iter().find(|(reading, _)| *reading == Reading::Convention(right)).unwrap().1;
            assert!(checked.agreement.median_error > 5.0 * best.median_error, "{name}, {wrong}: {checked}");
        }
    }
}

#[test]
fn poses_written_by_other_programs_are_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let root = scannet(folder.path(), FULL);
    let verdict = |write: &dyn Fn(&Pose) -> Matrix| {
        for i in 0..FULL.frames {
            put(root.join(format!("pose/{i}.txt")), text(&write(&pose(i))));
        }
        check(&*opened(&root)).unwrap().verdict
    };
    assert_eq!(verdict(&camera_to_world), Verdict::Confirmed);
    let opengl_found = Verdict::Contradicted(Reading::Convention(PoseConvention::OPENGL_CAMERA_TO_WORLD));
    assert_eq!(verdict(&opengl), opengl_found);
    let transposed = verdict(&|pose| {
        let m = camera_to_world(pose);
        std::array::from_fn(|row| {
            std::array::from_fn(|column| if row < 3 && column < 3 { m[column][row] } else { m[row][column] })
        })
    });
    assert_eq!(transposed, Verdict::Contradicted(Reading::Transposed));
    assert!(matches!(verdict(&|_| camera_to_world(&pose(0))), Verdict::Undecided(_)));
}

#[test]
fn a_wrong_scale_of_depth_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let root = scannet(folder.path(), FULL);
    for (units, factor) in [(5000.0, 5.0), (4000.0, 4.0), (200.0, 0.2), (1.0, 0.001), (1e6, 1000.0)] {
        let options = OpenOptions { depth_units_per_meter: Some(units), ..OpenOptions::default() };
        let dataset = open(&root, &options).unwrap();
        let checked = check(&*dataset).unwrap();
        assert_eq!(checked.depth_factor, Some(factor), "{checked}");
        assert_eq!(checked.plausible_depth, (100.0..10_000.0).contains(&units), "{checked}");
    }
    let options = OpenOptions { depth_units_per_meter: Some(-1.0), ..OpenOptions::default() };
    assert!(matches!(open(&root, &options), Err(ViewsError::Argument { .. })));
}

#[test]
fn pictures_without_poses_stand_alone() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = opened(&images(folder.path(), FULL));
    assert_eq!((dataset.layout(), dataset.counts().posed, dataset.counts().with_depth), (Layout::Images, 0, 6));
    for i in 0..dataset.len() {
        assert_room("images", &*dataset, &[i], |p| pose(i).to_world(p));
    }
    let both = fuse(&*dataset, &[0, 1], &FuseOptions::default()).unwrap_err();
    assert!(matches!(both, ViewsError::NothingToFuse { frames: 2, .. }), "{both}");
    assert!(matches!(check(&*dataset).unwrap().verdict, Verdict::Undecided(_)));
}

#[test]
fn points_that_come_with_a_recording() {
    for write in [colmap_text, colmap_binary] {
        let folder = tempfile::tempdir().unwrap();
        let dataset = opened(&write(folder.path(), SMALL));
        let cloud = dataset.points().unwrap().unwrap();
        assert_eq!(cloud.positions, [[2.2, 0.5, 1.0]]);
        assert_eq!(cloud.colors.unwrap(), [[10, 20, 30]]);
        assert!(!dataset.conventions().metric);
    }
    let folder = tempfile::tempdir().unwrap();
    let cloud = opened(&nerfstudio(folder.path(), SMALL)).points().unwrap().unwrap();
    assert_eq!(cloud.positions, [[1.0, 2.0, 3.0]]);
}

#[test]
fn lens_distortion_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let root = colmap_text(folder.path(), FULL);
    let straight = opened(&root);
    let ideal = straight.color(0).unwrap();
    let camera = straight.frames()[0].color;
    let Intrinsics { width, height, fx, fy, cx, cy } = camera;
    let bent = format!("7 OPENCV {width} {height} {fx} {fy} {} {} -0.1 0.01 0.001 0\n", cx + 0.5, cy + 0.5);
    // The picture as such a lens shows it: for each of its pixels, the ideal place is searched.
    let mut seen = ideal.clone();
    for (i, pixel) in seen.pixels_mut().iter_mut().enumerate() {
        let (u, v) = ((i % width) as f64, (i / width) as f64);
        let target = camera.unproject(u, v, 1.0);
        let (mut x, mut y) = (target.x, target.y);
        for _ in 0..30 {
            let rr = x * x + y * y;
            let radial = 1.0 - 0.1 * rr + 0.01 * rr * rr;
            x += target.x - (x * radial + 2.0 * 0.001 * x * y);
            y += target.y - (y * radial + 0.001 * (rr + 2.0 * y * y));
        }
        let ray = pose(0).rotation() * DVec3::new(x, y, 1.0);
        *pixel = color_at(pose(0).center() + ray * hit(pose(0).center(), ray));
    }
    assert!(seen.pixels().iter().zip(ideal.pixels()).any(|(a, b)| a[0].abs_diff(b[0]) > 6));
    put(root.join("sparse/cameras.txt"), bent);
    put(root.join("images/a/0.jpg"), jpeg(&seen));
    let dataset = opened(&root);
    let found = dataset.color(0).unwrap();
    for (i, (a, b)) in found.pixels().iter().zip(ideal.pixels()).enumerate() {
        assert!(a.iter().zip(b).all(|(a, b)| a.abs_diff(*b) <= 5), "pixel {i}: {a:?}, expected {b:?}");
    }
    put(root.join("sparse/cameras.txt"), format!("7 OPENCV_FISHEYE {width} {height} {fx} {fy} {cx} {cy} 0 0 0 0\n"));
    let error = open(&root, &OpenOptions::default()).err().unwrap().to_string();
    assert!(error.contains("OPENCV_FISHEYE") && error.contains("cameras.txt"), "{error}");
}

#[test]
fn bad_frames_are_counted_and_the_rest_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let root = scannet(folder.path(), FULL);
    put(root.join("pose/0.txt"), "-inf -inf -inf -inf\n".repeat(4));
    put(root.join("pose/1.txt"), "nan 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n");
    fs::remove_file(root.join("pose/2.txt")).unwrap();
    fs::remove_file(root.join("depth/3.png")).unwrap();
    let other = Rgb8Image::filled(20, 20, [9; 3]).unwrap();
    put(root.join("color/4.jpg"), jpeg(&other));
    let dataset = opened(&root);
    let counts = *dataset.counts();
    assert_eq!((counts.frames, counts.posed, counts.invalid_poses, counts.with_depth), (6, 3, 2, 5), "{counts}");
    assert!(dataset.notes().iter().any(|note| note.contains("not finite")), "{:?}", dataset.notes());
    assert_eq!(dataset.depth(3).unwrap(), None);
    let error = dataset.color(4).unwrap_err();
    assert!(matches!(error, ViewsError::Size { found: [20, 20], .. }), "{error}");
    assert!(error.to_string().contains("4.jpg"), "{error}");
    assert!(matches!(dataset.color(6), Err(ViewsError::UnknownFrame { index: 6, count: 6 })));
    let fused = fuse(&*dataset, &all(&*dataset), &FuseOptions { voxel: VOXEL, ..FuseOptions::default() }).unwrap();
    let report = &fused.report;
    assert_eq!((report.frames, report.without_pose, report.without_depth, report.unreadable), (1, 3, 1, 1), "{report}");
    assert!(report.first_error.as_ref().unwrap().contains("4.jpg"));
    let poses = root.join("pose");
    fs::remove_dir_all(&poses).unwrap();
    fs::create_dir(&poses).unwrap();
    assert!(matches!(open(&root, &OpenOptions::default()), Err(ViewsError::Missing { .. })));
    fs::remove_dir_all(root.join("color")).unwrap();
    fs::create_dir(root.join("color")).unwrap();
    assert!(matches!(open(&root, &OpenOptions::default()), Err(ViewsError::NoFrames { .. })));
}

#[test]
fn fusing_does_not_depend_on_threads_and_keeps_to_its_limits() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = opened(&redwood(folder.path(), FULL));
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| fuse(&*dataset, &[0, 1, 2, 3, 4, 5], &FuseOptions::default()).unwrap())
    };
    let (one, three) = (run(1), run(3));
    assert_eq!((&one.cloud.positions, &one.cloud.normals), (&three.cloud.positions, &three.cloud.normals));
    assert_eq!((&one.cloud.colors, one.report), (&three.cloud.colors, three.report));
    let fuse_with = |options| fuse(&*dataset, &[0], &options).unwrap_err();
    let options = FuseOptions::default();
    assert!(matches!(
        fuse_with(FuseOptions { max_voxels: 10, ..options }),
        ViewsError::TooManyVoxels { limit: 10, .. }
    ));
    for wrong in [
        FuseOptions { voxel: 0.0, ..options },
        FuseOptions { voxel: f64::NAN, ..options },
        FuseOptions { min_depth: 3.0, max_depth: 2.0, ..options },
        FuseOptions { max_incidence: 90.0, ..options },
    ] {
        assert!(matches!(fuse_with(wrong), ViewsError::Argument { .. }));
    }
    assert!(matches!(fuse(&*dataset, &[9], &options), Err(ViewsError::UnknownFrame { .. })));
    // Voxels too small to be counted are no voxels.
    let tiny = fuse(&*dataset, &[0], &FuseOptions { voxel: 1e-12, ..options }).unwrap();
    assert_eq!((tiny.cloud.len(), tiny.report.fused), (0, 0));
}

#[test]
fn what_is_no_recording_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let error = detect(folder.path()).unwrap_err().to_string();
    assert!(error.ends_with("the folder is empty"), "{error}");
    put(folder.path().join("scene.ply"), "ply\n");
    scannet(&folder.path().join("inner"), SMALL);
    let error = detect(folder.path()).unwrap_err().to_string();
    assert!(Layout::ALL.iter().all(|layout| error.contains(&format!("  {layout}: "))), "{error}");
    assert!(
        error.contains("scene.ply") && error.contains("inner inside it is a recording of layout scannet"),
        "{error}"
    );
    assert!(matches!(detect(&folder.path().join("absent")), Err(ViewsError::Io { .. })));
    // Forced where nothing of it is there, each says what it misses.
    for layout in Layout::ALL {
        let options = OpenOptions { layout: Some(layout), ..OpenOptions::default() };
        let empty = tempfile::tempdir().unwrap();
        let error = open(empty.path(), &options).err().unwrap_or_else(|| panic!("{layout}"));
        assert!(matches!(error, ViewsError::Missing { .. } | ViewsError::NoFrames { .. }), "{layout}: {error}");
        assert!(error.to_string().contains(&empty.path().display().to_string()), "{error}");
    }
}

// Damage.

/// Everything that can be asked of a recording; whether all of it could be answered.
fn exercise(path: &Path, layout: Layout) -> bool {
    let Ok(dataset) = open(path, &OpenOptions { layout: Some(layout), ..OpenOptions::default() }) else { return false };
    let mut whole = !dataset.is_empty();
    for i in 0..dataset.len() {
        whole &= dataset.color(i).is_ok();
        whole &= dataset.depth(i).is_ok();
    }
    whole &= dataset.points().is_ok();
    let _ = check(&*dataset);
    let _ = fuse(&*dataset, &all(&*dataset), &FuseOptions { voxel: VOXEL, ..FuseOptions::default() });
    whole
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn damaged_recordings_give_errors_and_never_panic() {
    // Unoptimised builds take a tenth of the damage in the same time.
    let changes = if cfg!(debug_assertions) { 4 } else { 24 };
    for (name, layout, write) in RECORDINGS {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), SMALL);
        assert!(exercise(&path, layout), "{name}");
        for file in files_below(folder.path()) {
            let whole = fs::read(&file).unwrap();
            for len in [0, whole.len() / 3, whole.len() * 9 / 10] {
                fs::write(&file, &whole[..len]).unwrap();
                exercise(&path, layout);
                let _ = detect(&path);
            }
            // Spread over the file, denser in its head.
            for k in 0..changes {
                let mut bytes = whole.clone();
                let at = if k < changes / 2 { k * 5 } else { k * whole.len() / changes };
                let Some(byte) = bytes.get_mut(at) else { continue };
                *byte ^= [0xff, 0x01, 0x80, 0x10][k % 4];
                fs::write(&file, &bytes).unwrap();
                exercise(&path, layout);
            }
            fs::remove_file(&file).unwrap();
            exercise(&path, layout);
            fs::write(&file, &whole).unwrap();
        }
    }
}

#[test]
fn truncated_sens_files_keep_what_is_whole() {
    let bytes = sens_bytes(FULL, 2, 1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.sens");
    let read = |bytes: &[u8]| {
        put(&path, bytes);
        open(&path, &OpenOptions::default())
    };
    let dataset = read(&bytes[..bytes.len() * 2 / 3]).unwrap();
    assert!((1..6).contains(&dataset.len()));
    assert!(dataset.notes().iter().any(|note| note.contains("cut off")), "{:?}", dataset.notes());
    let last = dataset.len() - 1;
    assert!(dataset.color(last).is_ok() && dataset.depth(last).is_ok());
    // The number of frames, the sizes and the lengths of pieces are not believed.
    let count = 4 + 8 + 9 + 4 * 64 + 2 * 4 + 4 * 4 + 4;
    let with = |at: usize, value: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        read(&bytes)
    };
    assert_eq!(with(count, &u64::MAX.to_le_bytes()).unwrap().len(), 6);
    assert!(matches!(with(count + 8 + 80, &u64::MAX.to_le_bytes()), Err(ViewsError::NoFrames { .. })));
    assert!(matches!(with(count - 20, &u32::MAX.to_le_bytes()), Err(ViewsError::Value { .. })));
    assert!(matches!(with(count - 4, &0_f32.to_le_bytes()), Err(ViewsError::Value { .. })));
    assert!(matches!(with(4, &u64::MAX.to_le_bytes()), Err(ViewsError::Value { .. })));
    let error = with(count - 24, &2_u32.to_le_bytes()).err().unwrap().to_string();
    assert!(error.contains("Occipital") && error.contains("cut.sens"), "{error}");
    let error = with(0, &3_u32.to_le_bytes()).err().unwrap().to_string();
    assert!(error.contains("version 3"), "{error}");
}

#[test]
fn declared_counts_of_colmap_are_not_believed() {
    for name in ["cameras", "images", "points3D"] {
        let folder = tempfile::tempdir().unwrap();
        let root = colmap_binary(folder.path(), SMALL);
        let file = root.join(format!("sparse/0/{name}.bin"));
        let mut bytes = fs::read(&file).unwrap();
        bytes[..8].copy_from_slice(&(u64::MAX / 2).to_le_bytes());
        put(&file, bytes);
        let error = match open(&root, &OpenOptions::default()) {
            Ok(dataset) => dataset.points().unwrap_err(),
            Err(error) => error,
        };
        assert!(matches!(error, ViewsError::Truncated { .. }), "{error}");
    }
}
