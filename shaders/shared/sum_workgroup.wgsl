// The sum of one value of every thread of a workgroup, in a fixed order; every thread gets it.
const WG: u32 = 128u;

var<workgroup> partial: array<f32, WG>;

fn sum_workgroup(value: f32, lid: u32) -> f32 {
    partial[lid] = value;
    workgroupBarrier();
    for (var stride = WG / 2u; stride > 0u; stride /= 2u) {
        if lid < stride {
            partial[lid] += partial[lid + stride];
        }
        workgroupBarrier();
    }
    let total = partial[0];
    // The next sum must not overwrite what a thread has yet to read.
    workgroupBarrier();
    return total;
}
