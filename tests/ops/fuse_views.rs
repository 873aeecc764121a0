//! Fusion of the views of a point against its definition.

use burn::prelude::*;
use burn::tensor::Device;
use geopurify::ops::fuse_views::fuse_views;
use geopurify::ops::{float_tensor, float_values, int_tensor, int_values};

use crate::common::{Random, everywhere, rel_l2};

#[test]
fn fusions_equal_the_definition() {
    for (num_views, num_points, num_queries, num_labels) in
        [(1, 70, 3, 2), (5, 200, 7, 5), (12, 65, 20, 1), (9000, 2, 2, 17)]
    {
        let mut random = Random(8);
        let query: Vec<i32> =
            (0..num_views * num_points).map(|_| random.below(2 * num_queries) as i32 - num_queries as i32).collect();
        let query: Vec<i32> = query.into_iter().map(|q| q.max(-1)).collect();
        let logits: Vec<f32> = random.floats(num_views * num_queries * num_labels).iter().map(|x| 5.0 * x).collect();
        let logit = |v: usize, q: i32, label: usize| logits[(v * num_queries + q as usize) * num_labels + label];
        let (mut consensus, mut count, mut row, mut weights) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for point in 0..num_points {
            let seen: Vec<(usize, i32)> =
                (0..num_views).map(|v| (v, query[v * num_points + point])).filter(|s| s.1 >= 0).collect();
            let total = |label: usize| seen.iter().map(|&(v, q)| f64::from(logit(v, q, label))).sum::<f64>();
            let best = (0..num_labels).max_by(|&a, &b| total(a).total_cmp(&total(b))).unwrap();
            consensus.push(if seen.is_empty() { -1 } else { best as i32 });
            count.push(seen.len() as i32);
            let mut order: Vec<(f32, i32)> =
                seen.iter().map(|&(v, q)| (logit(v, q, best), (v * num_queries) as i32 + q)).collect();
            order.sort_by(|a, b| b.0.total_cmp(&a.0));
            order.truncate(3);
            let sum: f64 = order.iter().map(|o| f64::from(o.0).exp()).sum();
            for i in 0..3 {
                row.push(order.get(i).map_or(-1, |o| o.1));
                weights.push(order.get(i).map_or(0.0, |o| (f64::from(o.0).exp() / sum) as f32));
            }
        }
        assert!(consensus.contains(&-1) || num_views > 5);
        everywhere(|name, device| {
            let of_table = |(i, &query): (usize, &i32)| match query {
                -1 => -1,
                query => (i / num_points * num_queries) as i32 + query,
            };
            let rows = query.iter().enumerate().map(of_table).collect();
            let rows = int_tensor(rows, [num_views, num_points], device);
            let logits = float_tensor(logits.clone(), [num_views * num_queries, num_labels], device);
            let found = fuse_views(rows, logits).unwrap();
            assert_eq!(int_values(found.consensus).unwrap(), consensus, "{name}");
            assert_eq!(int_values(found.num_views).unwrap(), count, "{name}");
            assert_eq!(int_values(found.row).unwrap(), row, "{name}");
            assert!(rel_l2(&float_values(found.weights).unwrap(), &weights) < 2e-6, "{name}");
        });
    }
    let device = Device::flex();
    let error = fuse_views(int_tensor(vec![7], [1, 1], &device), Tensor::zeros([3, 2], &device)).unwrap_err();
    assert_eq!(error.to_string(), "fuse_views: row 7, expected at most 3 - 1");
    assert!(fuse_views(int_tensor(vec![0], [1, 1], &device), Tensor::zeros([3, 0], &device)).is_err());
    let none = fuse_views(int_tensor(Vec::new(), [0, 2], &device), Tensor::zeros([0, 2], &device)).unwrap();
    assert_eq!(int_values(none.consensus).unwrap(), [-1; 2]);
}
