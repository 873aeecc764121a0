// Slot of a voxel (batch, x, y, z) in an open-addressing table of capacity mask + 1 (a power of
// two): spatial hash of Teschner et al. 2003, finished with MurmurHash3's mixer.
const EMPTY: u32 = 0xffffffffu;

fn hash_slot(c: vec4<i32>, mask: u32) -> u32 {
    let u = bitcast<vec4<u32>>(c);
    var h = (u.y * 73856093u) ^ (u.z * 19349669u) ^ (u.w * 83492791u) ^ (u.x * 2654435761u);
    h ^= h >> 16u;
    h *= 0x85ebca6bu;
    h ^= h >> 13u;
    h *= 0xc2b2ae35u;
    h ^= h >> 16u;
    return h & mask;
}
