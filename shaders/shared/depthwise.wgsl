// One value of a depthwise convolution, zeros outside the image. The shader that imports this binds
// `source` [images, height, width, num_channels] and `kernels` [taps, num_channels], and has the sizes and
// `kernel` among its parameters.
fn depthwise(pixel: u32, channel: u32, first_tap: u32) -> f32 {
    let x = pixel % params.width;
    let y = pixel / params.width % params.height;
    let reach = params.kernel / 2u;
    // The kernel's rows and columns that lie inside the image.
    let first_row = reach - min(reach, y);
    let last_row = min(params.kernel, params.height + reach - y);
    let first_col = reach - min(reach, x);
    let last_col = min(params.kernel, params.width + reach - x);
    var sum = 0.0;
    for (var row = first_row; row < last_row; row++) {
        for (var col = first_col; col < last_col; col++) {
            let at = pixel + row * params.width + col - reach * params.width - reach;
            let tap = first_tap + row * params.kernel + col;
            sum += source[at * params.num_channels + channel] * kernels[tap * params.num_channels + channel];
        }
    }
    return sum;
}
