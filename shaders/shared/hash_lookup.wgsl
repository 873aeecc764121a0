// Index of the voxel at `c` in the bound `table` over the bound `coords`, or -1.
#import shared/hash

fn hash_lookup(c: vec4<i32>, mask: u32) -> i32 {
    var slot = hash_slot(c, mask);
    loop {
        let voxel = table[slot];
        if voxel == EMPTY {
            return -1;
        }
        if all(coords[voxel] == c) {
            return i32(voxel);
        }
        slot = (slot + 1u) & mask;
    }
    return -1;
}
