// A workgroup sums CHANNELS columns over a block of BLOCK_ROWS rows: thread `lid` has column
// `lid % CHANNELS` and every LANES-th row; `sum_lanes` adds the lanes of a column in a fixed order.
const CHANNELS: u32 = 32u;
const LANES: u32 = 8u;
const WG: u32 = 256u;
const BLOCK_ROWS: u32 = 512u;

var<workgroup> lanes: array<f32, WG>;

// The sum of a column, for the threads of the first lane.
fn sum_lanes(value: f32, lid: u32) -> f32 {
    lanes[lid] = value;
    workgroupBarrier();
    for (var stride = WG / 2u; stride >= CHANNELS; stride /= 2u) {
        if lid < stride {
            lanes[lid] += lanes[lid + stride];
        }
        workgroupBarrier();
    }
    let total = lanes[lid % CHANNELS];
    // The next sum must not overwrite what a thread has yet to read.
    workgroupBarrier();
    return total;
}
