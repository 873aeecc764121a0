//! The prefix sum, seen through compaction, whose places it makes.

use geopurify::gpu::shaders::prefix_sum::reduce;
use geopurify::ops::compact::compact;
use geopurify::ops::{int_tensor, int_values};

use crate::common::{Random, everywhere};

#[test]
fn sums_go_on_over_blocks_and_over_blocks_of_blocks() {
    let block = reduce::BLOCK as usize;
    for n in [block - 1, block, block + 1, 5 * block + 3, block * block + 1] {
        let mut random = Random(n as u64);
        let index: Vec<i32> = (0..n).map(|_| random.below(3) as i32 - 1).collect();
        let num_present = index.iter().filter(|&&i| i >= 0).count();
        // The sum of all present ones before a position is its place, or for an absent one how far it moves back.
        let mut sum = 0;
        let places = index.iter().enumerate().map(|(position, &i)| {
            let place = if i >= 0 { sum } else { num_present + position - sum };
            sum += usize::from(i >= 0);
            place as i32
        });
        let places: Vec<i32> = places.collect();
        everywhere(|name, device| {
            let parted = compact(int_tensor(index.clone(), [n], device)).unwrap();
            assert_eq!(parted.num_present, num_present, "{name}, {n}");
            assert!(int_values(parted.place_from_position).unwrap() == places, "{name}, {n}");
        });
    }
}
