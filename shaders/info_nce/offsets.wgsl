// The start of every row's contributions among the sorted ones, and the number of pieces in which they are summed.
// `row_from_entry` [num_entries], `order` [num_entries] sorts it; `offsets` and `num_pieces` [num_rows].
#import shared/linear_id

const WG: u32 = 128u;
// Most contributions of a piece.
const PIECE: u32 = 256u;

struct Params { num_rows: u32, num_entries: u32 }

@group(0) @binding(0) var<storage, read> row_from_entry: array<u32>;
@group(0) @binding(1) var<storage, read> order: array<u32>;
@group(0) @binding(2) var<storage, read_write> offsets: array<u32>;
@group(0) @binding(3) var<storage, read_write> num_pieces: array<u32>;
@group(0) @binding(4) var<uniform> params: Params;

// The first sorted contribution to a row not below `row`.
fn lower_bound(row: u32) -> u32 {
    var low = 0u;
    var high = params.num_entries;
    while low < high {
        let middle = (low + high) / 2u;
        if row_from_entry[order[middle]] < row {
            low = middle + 1u;
        } else {
            high = middle;
        }
    }
    return low;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let row = workgroup_index(wid, nwg) * WG + lid;
    if row >= params.num_rows {
        return;
    }
    let first = lower_bound(row);
    offsets[row] = first;
    num_pieces[row] = (lower_bound(row + 1u) - first + PIECE - 1u) / PIECE;
}
