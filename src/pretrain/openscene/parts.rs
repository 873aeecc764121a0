//! Parts of scans, side by side, as a step of a 3D network's training sees them.

use burn::prelude::*;

use crate::models::ModelError;
use crate::models::minkunet::{Cells, MinkUnetConfig, TrainableMinkUnet};
use crate::ops::{float_tensor, int_tensor, normalize_rows};
use crate::pretrain::PretrainError;
use crate::pretrain::parameters::Parameters;
use crate::weights::StateDict;

/// Weight of a height difference in the distance to the middle of a part, so that parts are whole from floor to
/// ceiling.
const HEIGHT_WEIGHT: f32 = 0.3;

/// The `most` cells nearest to `middle`, ascending.
pub(super) fn nearest(cells: &Cells, middle: [f32; 3], most: usize) -> Vec<u32> {
    let distance = |p: &[f32; 3]| {
        let [x, y, z] = [0, 1, 2].map(|axis| p[axis] - middle[axis]);
        x * x + y * y + HEIGHT_WEIGHT * HEIGHT_WEIGHT * z * z
    };
    let mut order: Vec<(f32, u32)> = cells.positions.iter().map(distance).zip(0..).collect();
    if order.len() > most {
        let by_distance = |a: &(f32, u32), b: &(f32, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
        order.select_nth_unstable_by(most, by_distance);
        order.truncate(most);
    }
    let mut kept: Vec<u32> = order.into_iter().map(|(_, cell)| cell).collect();
    kept.sort_unstable();
    kept
}

/// Parts that go through the network together.
#[derive(Debug, Default)]
pub(super) struct Parts {
    coords: Vec<i32>,
    features: Vec<f32>,
    num_parts: i32,
}

impl Parts {
    pub(super) fn add(&mut self, cells: &Cells) {
        let number = self.num_parts;
        self.coords.extend(cells.turned(0.0).coords.iter().flat_map(|&[_, x, y, z]| [number, x, y, z]));
        self.features.extend_from_slice(&cells.features);
        self.num_parts += 1;
    }

    /// Number of cells, M.
    pub(super) fn num_cells(&self) -> usize {
        self.coords.len() / 4
    }

    /// The network's first head for every cell, `[M, D]`, of unit length. What batch norm counted is put into the
    /// parameters.
    pub(super) fn forward(
        self,
        config: &MinkUnetConfig,
        parameters: &mut Parameters,
    ) -> Result<Tensor<2>, PretrainError> {
        let device = parameters.device().clone();
        let num_cells = self.num_cells();
        let channels = self.features.len() / num_cells.max(1);
        let (mut network, _) = TrainableMinkUnet::load_as(config.clone(), &mut *parameters, &device)?;
        let coords = int_tensor(self.coords, [num_cells, 4], &device);
        let last = network.forward_train(float_tensor(self.features, [num_cells, channels], &device), coords)?;
        let out = normalize_rows(network.head(last, 0)?);
        for (key, values) in network.running_statistics() {
            parameters.put(&key, values)?;
        }
        Ok(out)
    }
}

/// Weights of a network before its training.
pub(super) fn initial(config: &MinkUnetConfig, seed: u64, device: &Device) -> Result<StateDict, PretrainError> {
    let network = TrainableMinkUnet::new(config, seed, device).map_err(ModelError::from)?;
    Ok(StateDict { tensors: network.state_dict()?.tensors, ..StateDict::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_near_its_middle_and_as_high_as_the_scan() {
        let points: Vec<[f64; 3]> = (0..400).map(|i| [0.1 * f64::from(i % 20), 0.0, 0.1 * f64::from(i / 20)]).collect();
        let cells = Cells::new(&points, None, MinkUnetConfig::small(8).input, 0.1).unwrap();
        let kept = nearest(&cells, [0.95, 0.0, 0.95], 120);
        assert!(kept.len() == 120 && kept.is_sorted());
        let extent = |axis: usize| {
            let values = || kept.iter().map(|&cell| cells.positions[cell as usize][axis]);
            values().fold(f32::MIN, f32::max) - values().fold(f32::MAX, f32::min)
        };
        let (width, height) = (extent(0), extent(2));
        assert!(height > 1.8 && width < 0.9, "{height} {width}");
        assert_eq!(nearest(&cells, [0.0; 3], 500).len(), 400);
    }
}
