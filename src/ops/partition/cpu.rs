//! Host twin of the partition.

use rayon::prelude::*;

/// Positions that one thread goes through at a time.
const BLOCK: usize = 1 << 15;

/// What [`partition`](super::partition) gives.
pub(crate) struct Partitioned {
    pub(crate) position_from_place: Vec<i32>,
    pub(crate) place_from_position: Vec<i32>,
    pub(crate) num_something: usize,
}

/// Positions of `index [N]` whose index is something to the front, the others behind.
pub(crate) fn partition(index: &[i32]) -> Partitioned {
    let count = |block: &[i32]| block.iter().filter(|&&index| index >= 0).count();
    let counts: Vec<usize> = index.par_chunks(BLOCK).map(count).collect();
    let num_something = counts.iter().sum();
    let mut position_from_place = vec![0; index.len()];
    let mut place_from_position = vec![0; index.len()];
    // Every block's own part of the front and of the back.
    let (mut front, mut back) = position_from_place.split_at_mut(num_something);
    let mut parts = Vec::with_capacity(counts.len());
    let mut places = [0, num_something];
    let blocks = index.chunks(BLOCK).zip(place_from_position.chunks_mut(BLOCK)).zip(counts);
    for (number, ((index, place_from_position), num_front)) in blocks.enumerate() {
        let num_back = index.len() - num_front;
        let (own_front, rest) = front.split_at_mut(num_front);
        front = rest;
        let (own_back, rest) = back.split_at_mut(num_back);
        back = rest;
        parts.push((number * BLOCK, index, place_from_position, [own_front, own_back], places));
        places = [places[0] + num_front, places[1] + num_back];
    }
    parts.into_par_iter().for_each(|(first, index, place_from_position, sides, places)| {
        let mut taken = [0; 2];
        for ((position, &index), place) in (first..).zip(index).zip(place_from_position) {
            let side = usize::from(index < 0);
            sides[side][taken[side]] = position as i32;
            *place = (places[side] + taken[side]) as i32;
            taken[side] += 1;
        }
    });
    Partitioned { position_from_place, place_from_position, num_something }
}
