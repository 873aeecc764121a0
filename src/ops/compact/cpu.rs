//! Host twin of the compact.

use rayon::prelude::*;

/// Positions that one thread goes through at a time: few enough to stay in its nearest cache.
const BLOCK: usize = 1 << 12;

/// The result of [`compact`](super::compact).
pub(crate) struct Partitioned {
    pub(crate) position_from_place: Vec<i32>,
    pub(crate) place_from_position: Vec<i32>,
    pub(crate) num_present: usize,
}

/// Positions of `index [N]` that have an index to the front, the others behind.
pub(crate) fn compact(index: &[i32]) -> Partitioned {
    let count = |block: &[i32]| block.iter().filter(|&&index| index >= 0).count();
    let counts: Vec<usize> = index.par_chunks(BLOCK).with_min_len(8).map(count).collect();
    let num_present = counts.iter().sum();
    let mut position_from_place = vec![0; index.len()];
    let mut place_from_position = vec![0; index.len()];
    // Every block's own part of the front and of the back.
    let (mut front, mut back) = position_from_place.split_at_mut(num_present);
    let mut parts = Vec::with_capacity(counts.len());
    let mut first_places = [0, num_present];
    let blocks = index.chunks(BLOCK).zip(place_from_position.chunks_mut(BLOCK)).zip(counts);
    for (number, ((index, places), num_front)) in blocks.enumerate() {
        let num_back = index.len() - num_front;
        let (own_front, rest) = front.split_at_mut(num_front);
        front = rest;
        let (own_back, rest) = back.split_at_mut(num_back);
        back = rest;
        parts.push((number * BLOCK, index, places, [own_front, own_back], first_places));
        first_places = [first_places[0] + num_front, first_places[1] + num_back];
    }
    parts.into_par_iter().with_min_len(8).for_each(|(first, index, places, [front, back], first_places)| {
        // Without a branch, which half of the indices would mispredict.
        let mut order = [0; BLOCK];
        let mut num_before = 0;
        for (i, (&index, place)) in index.iter().zip(places).enumerate() {
            let has_one = index >= 0;
            let (own, global) = if has_one {
                (num_before, first_places[0] + num_before)
            } else {
                (front.len() + i - num_before, first_places[1] + i - num_before)
            };
            order[own % BLOCK] = (first + i) as i32;
            *place = global as i32;
            num_before += usize::from(has_one);
        }
        front.copy_from_slice(&order[..front.len()]);
        back.copy_from_slice(&order[front.len()..index.len()]);
    });
    Partitioned { position_from_place, place_from_position, num_present }
}
