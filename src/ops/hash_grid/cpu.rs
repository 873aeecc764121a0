//! Host twin of the hash table over voxels.

/// Marks a free slot.
const EMPTY: u32 = u32::MAX;

/// Hash table from (batch, x, y, z) to the index of the voxel, any i32 coordinates.
#[derive(Clone, Debug)]
pub struct HashGrid<'a> {
    coords: &'a [[i32; 4]],
    table: Vec<u32>,
}

/// The hash of `shaders/shared/hash.wgsl`: blocks of 4 × 2 × 2 voxels are one cache line of the table.
fn slot(c: [i32; 4], mask: usize) -> usize {
    let [b, x, y, z] = [c[0], c[1] >> 2, c[2] >> 1, c[3] >> 1].map(|v| v as u32);
    let mut h = x.wrapping_mul(73_856_093)
        ^ y.wrapping_mul(19_349_669)
        ^ z.wrapping_mul(83_492_791)
        ^ b.wrapping_mul(2_654_435_761);
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^= h >> 16;
    let inside = (c[1] & 3) | ((c[2] & 1) << 2) | ((c[3] & 1) << 3);
    ((h << 4) | (inside as u32 ^ (h >> 28))) as usize & mask
}

impl<'a> HashGrid<'a> {
    /// The table of `coords`; of a voxel listed twice the lowest index is kept.
    #[must_use]
    pub fn build(coords: &'a [[i32; 4]]) -> Self {
        let capacity = (4 * coords.len()).next_power_of_two().max(2);
        let mut table = vec![EMPTY; capacity];
        for (voxel, &c) in coords.iter().enumerate() {
            let mut at = slot(c, capacity - 1);
            while table[at] != EMPTY && coords[table[at] as usize] != c {
                at = (at + 1) & (capacity - 1);
            }
            if table[at] == EMPTY {
                table[at] = voxel as u32;
            }
        }
        Self { coords, table }
    }

    /// Index of the voxel at `c`, or -1.
    #[must_use]
    pub fn lookup(&self, c: [i32; 4]) -> i32 {
        let mask = self.table.len() - 1;
        let mut at = slot(c, mask);
        loop {
            match self.table[at] {
                EMPTY => return -1,
                voxel if self.coords[voxel as usize] == c => return voxel as i32,
                _ => at = (at + 1) & mask,
            }
        }
    }
}
