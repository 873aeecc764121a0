//! CLIP's text side as Hugging Face distributes it, under OpenAI's names.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::weights::{Dtype, HostTensor, Inventory, TensorInfo, TensorSource, WeightsError};

/// What stands before the number of a layer, here and in OpenAI's layout.
const LAYERS: (&str, &str) = ("text_model.encoder.layers.", "transformer.resblocks.");
/// The projection, `[out, in]` here and `[in, out]` in OpenAI's layout.
const PROJECTION: (&str, &str) = ("text_projection.weight", "text_projection");
/// Names outside the layers.
const NAMES: [(&str, &str); 4] = [
    ("text_model.embeddings.token_embedding.weight", "token_embedding.weight"),
    ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("text_model.final_layer_norm.weight", "ln_final.weight"),
    ("text_model.final_layer_norm.bias", "ln_final.bias"),
];
/// Names of a layer's parts.
const LAYER_NAMES: [(&str, &str); 5] = [
    ("self_attn.out_proj.", "attn.out_proj."),
    ("layer_norm1.", "ln_1."),
    ("layer_norm2.", "ln_2."),
    ("mlp.fc1.", "mlp.c_fc."),
    ("mlp.fc2.", "mlp.c_proj."),
];
/// A layer's projections of the input, in the order in which OpenAI's layout stacks them.
const STACKED: ([&str; 3], &str) = (["self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj."], "attn.in_proj_");

/// Returns true if the shapes are those of Hugging Face's layout of CLIP.
#[must_use]
pub fn is_hugging_face(shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> bool {
    shape(NAMES[0].0).is_some() && shape(PROJECTION.0).is_some()
}

/// A source in Hugging Face's layout that gives the text side's tensors as OpenAI's layout has them. All others
/// keep their names.
pub struct HuggingFaceClip<'a> {
    source: &'a mut dyn TensorSource,
    inventory: Inventory,
    /// Where the tensors of OpenAI's layout come from.
    places: BTreeMap<String, Place>,
}

/// Where a tensor of OpenAI's layout comes from.
enum Place {
    /// A tensor with the same values.
    Same(String),
    /// The transposed matrix.
    Transposed(String),
    /// Tensors to be put below each other.
    Stacked([String; 3]),
}

impl<'a> HuggingFaceClip<'a> {
    /// Wraps a source.
    pub fn new(source: &'a mut dyn TensorSource) -> Self {
        let held = source.inventory().into_owned();
        let mut inventory = Inventory { tensors: BTreeMap::new(), ..held.clone() };
        let mut places = BTreeMap::new();
        for (key, info) in &held.tensors {
            let (name, shape, place) = place_of(key, info, &held);
            inventory.tensors.insert(name.clone(), TensorInfo { shape, dtype: info.dtype });
            if let Some(place) = place {
                places.insert(name, place);
            }
        }
        // The parts of a stack are known by its name.
        for place in places.values() {
            if let Place::Stacked(parts) = place {
                parts.iter().for_each(|part| drop(inventory.tensors.remove(part)));
            }
        }
        Self { source, inventory, places }
    }
}

impl TensorSource for HuggingFaceClip<'_> {
    fn inventory(&self) -> Cow<'_, Inventory> {
        Cow::Borrowed(&self.inventory)
    }

    fn take(&mut self, key: &str, shape: &[usize]) -> Result<HostTensor, WeightsError> {
        match self.places.get(key) {
            None => self.source.take(key, shape),
            Some(Place::Same(name)) => self.source.take(name, shape),
            Some(Place::Transposed(name)) => {
                let reversed: Vec<usize> = shape.iter().rev().copied().collect();
                let taken = self.source.take(name, &reversed)?;
                let &[rows, columns] = shape else { return Ok(taken) };
                let value = |i: usize| taken.data[i % columns * rows + i / columns];
                let data = (0..rows * columns).map(value).collect();
                Ok(HostTensor { shape: shape.to_vec(), data, ..taken })
            }
            Some(Place::Stacked(names)) => {
                let rows = shape.first().map_or(0, |rows| rows / names.len());
                let part: Vec<usize> = [rows].into_iter().chain(shape.iter().skip(1).copied()).collect();
                let mut stack = HostTensor { shape: shape.to_vec(), dtype_in_file: Dtype::F32, data: Vec::new() };
                for name in names {
                    let taken = self.source.take(name, &part)?;
                    stack.dtype_in_file = taken.dtype_in_file;
                    stack.data.extend_from_slice(&taken.data);
                }
                Ok(stack)
            }
        }
    }
}

/// Name and shape of a tensor in OpenAI's layout. The place is `None` if the tensor keeps its name.
fn place_of(key: &str, info: &TensorInfo, held: &Inventory) -> (String, Vec<usize>, Option<Place>) {
    let shape = info.shape.clone();
    let same = |name: String| (name, info.shape.clone(), Some(Place::Same(key.to_owned())));
    if key == PROJECTION.0 && shape.len() == 2 {
        let place = Place::Transposed(key.to_owned());
        return (PROJECTION.1.to_owned(), vec![shape[1], shape[0]], Some(place));
    }
    if let Some((_, name)) = NAMES.iter().find(|(name, _)| *name == key) {
        return same((*name).to_owned());
    }
    let Some((layer, part)) = key.strip_prefix(LAYERS.0).and_then(|rest| rest.split_once('.')) else {
        return (key.to_owned(), shape, None);
    };
    let prefix = format!("{}{layer}", LAYERS.1);
    for (name, openai) in LAYER_NAMES {
        if let Some(kind) = part.strip_prefix(name) {
            return same(format!("{prefix}.{openai}{kind}"));
        }
    }
    let (parts, openai) = STACKED;
    if let Some(kind) = part.strip_prefix(parts[0]) {
        let names = parts.map(|part| format!("{}{layer}.{part}{kind}", LAYERS.0));
        if names.iter().all(|name| held.tensors.get(name) == Some(info))
            && let Some((rows, rest)) = shape.split_first()
            && let Some(rows) = rows.checked_mul(parts.len())
        {
            let shape = [rows].into_iter().chain(rest.iter().copied()).collect();
            return (format!("{prefix}.{openai}{kind}"), shape, Some(Place::Stacked(names)));
        }
    }
    (key.to_owned(), shape, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::StateDict;

    fn state(tensors: &[(&str, &[usize])]) -> StateDict {
        let mut state = StateDict::default();
        for (at, (key, shape)) in tensors.iter().enumerate() {
            let data = (0..shape.iter().product()).map(|i: usize| (10 * at + i) as f32).collect();
            let tensor = HostTensor { shape: shape.to_vec(), dtype_in_file: Dtype::F16, data };
            state.tensors.insert((*key).to_owned(), tensor);
        }
        state
    }

    #[test]
    fn tensors_are_given_as_openai_has_them() {
        let mut state = state(&[
            ("text_projection.weight", &[2, 3]),
            ("text_model.encoder.layers.7.self_attn.v_proj.bias", &[2]),
            ("text_model.encoder.layers.7.self_attn.q_proj.bias", &[2]),
            ("text_model.encoder.layers.7.self_attn.k_proj.bias", &[2]),
            ("text_model.encoder.layers.7.mlp.fc1.bias", &[1]),
            ("vision_model.post_layernorm.weight", &[1]),
        ]);
        let mut source = HuggingFaceClip::new(&mut state);
        let keys: Vec<String> = source.inventory().tensors.keys().cloned().collect();
        assert_eq!(
            keys,
            [
                "text_projection",
                "transformer.resblocks.7.attn.in_proj_bias",
                "transformer.resblocks.7.mlp.c_fc.bias",
                "vision_model.post_layernorm.weight"
            ]
        );
        assert_eq!(source.inventory().shape("transformer.resblocks.7.attn.in_proj_bias"), Some(vec![6]));
        let mut take = |key: &str, shape: &[usize]| source.take(key, shape).unwrap().data;
        assert_eq!(take("text_projection", &[3, 2]), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        let bias = take("transformer.resblocks.7.attn.in_proj_bias", &[6]);
        assert_eq!(bias, [20.0, 21.0, 30.0, 31.0, 10.0, 11.0]);
        assert_eq!(take("transformer.resblocks.7.mlp.c_fc.bias", &[1]), [40.0]);
        assert_eq!(take("vision_model.post_layernorm.weight", &[1]), [50.0]);
    }

    #[test]
    fn a_part_that_lacks_its_others_keeps_its_name() {
        let key = "text_model.encoder.layers.0.self_attn.q_proj.weight";
        let mut state = state(&[(key, &[2, 2]), ("text_model.encoder.layers.0.self_attn.k_proj.weight", &[1, 2])]);
        let source = HuggingFaceClip::new(&mut state);
        assert!(source.inventory().tensors.contains_key(key));
        assert_eq!(source.inventory().tensors.len(), 2);
    }
}
