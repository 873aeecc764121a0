// The camera: its axes in the frame of the points, its centre, image coordinates with pixel centres at
// whole numbers. Sums are written out, so that every device adds in the same order.
struct Pinhole { x_axis: vec3<f32>, y_axis: vec3<f32>, z_axis: vec3<f32>, center: vec3<f32> }

fn to_camera(camera: Pinhole, point: vec3<f32>) -> vec3<f32> {
    let d = point - camera.center;
    return vec3<f32>(
        camera.x_axis.x * d.x + camera.x_axis.y * d.y + camera.x_axis.z * d.z,
        camera.y_axis.x * d.x + camera.y_axis.y * d.y + camera.y_axis.z * d.z,
        camera.z_axis.x * d.x + camera.z_axis.y * d.y + camera.z_axis.z * d.z,
    );
}
