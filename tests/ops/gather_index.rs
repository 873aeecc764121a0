//! Composition of index maps.

use geopurify::ops::gather_index::gather_index;
use geopurify::ops::{int_tensor, int_values};

use crate::common::{Random, everywhere};

#[test]
fn index_maps_compose() {
    for n in [0, 1, 255, 256, 257, 2048, 2049, 70_000] {
        let mut random = Random(n as u64);
        let index: Vec<i32> = (0..n).map(|_| random.below(900) as i32 - 300).collect();
        let map: Vec<i32> = (0..500).map(|_| random.below(100) as i32 - 30).collect();
        let composed: Vec<i32> = index
            .iter()
            .map(|&i| usize::try_from(i).ok().and_then(|i| map.get(i)).map_or(-1, |&c| c.max(-1)))
            .collect();
        everywhere(|name, device| {
            let (map, index) = (int_tensor(map.clone(), [500], device), int_tensor(index.clone(), [n], device));
            assert_eq!(int_values(gather_index(map, index).unwrap()).unwrap(), composed, "{name}, {n}");
        });
    }
    everywhere(|name, device| {
        let nowhere = gather_index(int_tensor(Vec::new(), [0], device), int_tensor(vec![0, -7, i32::MIN], [3], device));
        assert_eq!(int_values(nowhere.unwrap()).unwrap(), [-1; 3], "{name}");
    });
}
