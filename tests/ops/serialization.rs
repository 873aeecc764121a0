//! Orders of voxels along space-filling curves.

use geopurify::ops::serialization::{Curve, serialization};
use geopurify::ops::{OpError, int_tensor, int_values};

use crate::common::{devices, everywhere};
use crate::helpers::voxels::{coords, shuffled_surface};

#[test]
fn a_hilbert_curve_visits_neighbours_one_after_the_other() {
    everywhere(|name, device| {
        for (side, depth) in [(1, 1), (3, 2), (7, 3), (15, 4)] {
            // A cube that ends one short of a power of two has the curve's full depth, but not all of its cells.
            let cube: Vec<[i32; 4]> =
                (0..side * side * side).map(|i| [0, i % side, i / side % side, i / (side * side)]).collect();
            let found = serialization(coords(&cube, device), &Curve::ALL).unwrap();
            assert_eq!((found.depth, found.batch_sizes), (depth, vec![cube.len()]), "{name}");
            for (curve, sequence) in Curve::ALL.into_iter().zip(&found.sequences) {
                let keys = int_values(sequence.keys.clone()).unwrap();
                let order = int_values(sequence.order.clone()).unwrap();
                let positions: Vec<i32> = order.iter().map(|&v| keys[v as usize * 3]).collect();
                assert!(positions.is_sorted_by(|a, b| a < b), "{name}, {curve:?}");
                let is_hilbert = matches!(curve, Curve::Hilbert | Curve::HilbertTransposed);
                for (place, pair) in order.windows(2).enumerate().filter(|_| is_hilbert) {
                    if positions[place + 1] == positions[place] + 1 {
                        let [a, b] = [pair[0], pair[1]].map(|v| cube[v as usize]);
                        let steps: i32 = a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum();
                        assert_eq!(steps, 1, "{name}, {curve:?}: {a:?} {b:?}");
                    }
                }
            }
        }
    });
}

/// The bits of three coordinates from the top, the first coordinate's first.
fn interleaved([a, b, c]: [i32; 3]) -> u64 {
    (0..21).rev().fold(0, |code, bit| [a, b, c].iter().fold(code, |code, v| code << 1 | (v >> bit & 1) as u64))
}

#[test]
fn voxels_are_ordered_by_batch_then_along_each_curve() {
    everywhere(|name, device| {
        for n in [1, 2, 255, 256, 257, 1500] {
            let voxels = shuffled_surface(n, 3, 5);
            let found = serialization(coords(&voxels, device), &Curve::ALL).unwrap();
            let sizes: Vec<usize> = (0..found.batch_sizes.len())
                .map(|batch| voxels.iter().filter(|v| v[0] == batch as i32).count())
                .collect();
            assert_eq!(found.batch_sizes, sizes, "{name}");
            for (curve, sequence) in Curve::ALL.into_iter().zip(&found.sequences) {
                let order = int_values(sequence.order.clone()).unwrap();
                let inverse = int_values(sequence.inverse.clone()).unwrap();
                let keys: Vec<[i32; 3]> = int_values(sequence.keys.clone()).unwrap().as_chunks().0.to_vec();
                assert!((0..n).all(|place| inverse[order[place] as usize] == place as i32), "{name}, {curve:?}");
                let key = |v: i32| {
                    let [low, high, batch] = keys[v as usize];
                    (batch, high as u32, low as u32)
                };
                assert!(order.windows(2).all(|pair| key(pair[0]) < key(pair[1])), "{name}, {curve:?}, {n}");
                let expected = |&[_, x, y, z]: &[i32; 4]| match curve {
                    Curve::Z => Some(interleaved([x, y, z])),
                    Curve::ZTransposed => Some(interleaved([y, x, z])),
                    _ => None,
                };
                for (voxel, key) in voxels.iter().zip(&keys) {
                    let code = u64::from(key[0] as u32) | u64::from(key[1] as u32) << 32;
                    assert!(expected(voxel).is_none_or(|expected| expected == code), "{name}, {curve:?}");
                }
            }
        }
    });
}

#[test]
fn what_has_no_place_on_a_curve_is_refused() {
    for (name, device) in devices() {
        let serialize = |voxels: &[[i32; 4]]| serialization(coords(voxels, &device), &[Curve::Hilbert]);
        for bad in [[0, -1, 0, 0], [0, 0, 65_535, 0], [-1, 0, 0, 0], [65_536, 0, 0, 0]] {
            assert!(matches!(serialize(&[[0; 4], bad]), Err(OpError::Value { .. })), "{name}, {bad:?}");
        }
        assert_eq!(serialize(&[[0, 65_534, 65_534, 65_534]]).unwrap().depth, 16, "{name}");
        assert_eq!(serialize(&[]).unwrap().batch_sizes.len(), 0, "{name}");
        let tall = int_tensor(vec![0; 6], [2, 3], &device);
        assert!(matches!(serialization(tall, &Curve::ALL), Err(OpError::Shape { .. })), "{name}");
    }
    assert!("peano".parse::<Curve>().unwrap_err().to_string().contains("no curve 'peano'"));
}
