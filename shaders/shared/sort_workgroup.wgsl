// A bitonic sort (Batcher, "Sorting networks and their applications", 1968) of SLOTS pairs (value, index) in
// shared memory, ascending by value, then by index. An empty slot holds (LARGEST, NONE), behind every pair.
const WG: u32 = 128u;
const SLOTS: u32 = 256u;
const NONE: u32 = 0xffffffffu;
const LARGEST: f32 = 3.4028235e38;

var<workgroup> values: array<f32, SLOTS>;
var<workgroup> indices: array<u32, SLOTS>;

fn precedes(a: u32, b: u32) -> bool {
    return values[a] < values[b] || (values[a] == values[b] && indices[a] < indices[b]);
}

// For all threads of the workgroup; what they wrote before is seen, and every thread sees the result.
fn sort_workgroup(lid: u32) {
    for (var size = 2u; size <= SLOTS; size *= 2u) {
        for (var stride = size / 2u; stride > 0u; stride /= 2u) {
            workgroupBarrier();
            let a = lid / stride * stride * 2u + lid % stride;
            let b = a + stride;
            if precedes(b, a) == ((a & size) == 0u) {
                let value = values[a];
                let index = indices[a];
                values[a] = values[b];
                indices[a] = indices[b];
                values[b] = value;
                indices[b] = index;
            }
        }
    }
    workgroupBarrier();
}
