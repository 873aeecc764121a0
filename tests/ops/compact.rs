//! Splitting an index map into what is present and what is absent.

use geopurify::ops::compact::compact;
use geopurify::ops::{int_tensor, int_values};

use crate::common::{Random, everywhere};

#[test]
fn present_and_absent_positions_keep_their_order() {
    for n in [0, 1, 255, 256, 257, 2048, 2049, 70_000] {
        let mut random = Random(n as u64);
        let index: Vec<i32> = (0..n).map(|_| random.below(900) as i32 - 300).collect();
        let is_present = |&position: &usize| index[position] >= 0;
        let (present, absent): (Vec<usize>, Vec<usize>) = (0..n).partition(is_present);
        let order: Vec<i32> = present.iter().chain(&absent).map(|&position| position as i32).collect();
        everywhere(|name, device| {
            let parted = compact(int_tensor(index.clone(), [n], device)).unwrap();
            assert_eq!(parted.num_present, present.len(), "{name}, {n}");
            assert_eq!(int_values(parted.position_from_place.clone()).unwrap(), order, "{name}, {n}");
            assert_eq!(int_values(parted.present()).unwrap(), order[..present.len()], "{name}, {n}");
            assert_eq!(int_values(parted.absent()).unwrap(), order[present.len()..], "{name}, {n}");
            let places = int_values(parted.place_from_position).unwrap();
            assert!(places.iter().zip(0..).all(|(&place, i)| order[place as usize] == i), "{name}, {n}");
        });
    }
    everywhere(|name, device| {
        let all = compact(int_tensor(vec![4, 0], [2], device)).unwrap();
        assert_eq!((all.num_present, all.absent().dims()), (2, [0]), "{name}");
        let none = compact(int_tensor(vec![-1; 300], [300], device)).unwrap();
        assert_eq!((none.num_present, none.present().dims()), (0, [0]), "{name}");
    });
}
