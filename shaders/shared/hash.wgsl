// Slot of a voxel (batch, x, y, z) in an open-addressing table of capacity mask + 1 (a power of
// two): spatial hash of Teschner et al. 2003 over blocks of 4 x 2 x 2 voxels, finished with MurmurHash3's
// mixer. A block's 16 slots are one cache line, so that a voxel's neighbours cost few of them; their order
// differs from block to block, or flat surfaces would leave half of every line empty.
const EMPTY: u32 = 0xffffffffu;

fn hash_slot(c: vec4<i32>, mask: u32) -> u32 {
    let block = bitcast<vec4<u32>>(c >> vec4<u32>(0u, 2u, 1u, 1u));
    var h = (block.y * 73856093u) ^ (block.z * 19349669u) ^ (block.w * 83492791u) ^ (block.x * 2654435761u);
    h ^= h >> 16u;
    h *= 0x85ebca6bu;
    h ^= h >> 13u;
    h *= 0xc2b2ae35u;
    h ^= h >> 16u;
    let inside = u32(c.y & 3) | (u32(c.z & 1) << 2u) | (u32(c.w & 1) << 3u);
    return ((h << 4u) | (inside ^ (h >> 28u))) & mask;
}
