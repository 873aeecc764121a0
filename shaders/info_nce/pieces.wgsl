// The start of every piece among the sorted contributions. A piece ends where the next begins; those past the
// last are empty. One thread per piece.
// `offsets` [num_rows], `piece_offsets` [num_rows + 1], `piece_first` [max_pieces + 1].
#import shared/linear_id

const WG: u32 = 128u;

struct Params { num_rows: u32, num_entries: u32, max_pieces: u32, piece_len: u32 }

@group(0) @binding(0) var<storage, read> offsets: array<u32>;
@group(0) @binding(1) var<storage, read> piece_offsets: array<u32>;
@group(0) @binding(2) var<storage, read_write> piece_first: array<u32>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let piece = workgroup_index(wid, nwg) * WG + lid;
    if piece > params.max_pieces {
        return;
    }
    // The row whose pieces reach past this one, or none.
    var low = 0u;
    var high = params.num_rows;
    while low < high {
        let middle = (low + high) / 2u;
        if piece_offsets[middle + 1u] <= piece {
            low = middle + 1u;
        } else {
            high = middle;
        }
    }
    piece_first[piece] = params.num_entries;
    if low < params.num_rows {
        piece_first[piece] = offsets[low] + (piece - piece_offsets[low]) * params.piece_len;
    }
}
