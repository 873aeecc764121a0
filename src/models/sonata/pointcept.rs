//! Encoders in checkpoints of Pointcept's training, which hold a student, a teacher and their heads.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::SonataConfig;
use crate::weights::{HostTensor, Inventory, TensorSource, WeightsError};

/// What stands before the encoder's keys, and whose encoder that is. The first that a file has is used: the teacher
/// is the mean of many students, and what the authors publish. `module.` is gone if all keys had it.
const ENCODERS: [(&str, &str); 4] = [
    ("teacher.backbone.", "teacher"),
    ("module.teacher.backbone.", "teacher"),
    ("student.backbone.", "student"),
    ("module.student.backbone.", "student"),
];

/// The encoder of a training checkpoint, under the names that a published encoder has.
pub struct PointceptEncoder<'a> {
    source: &'a mut dyn TensorSource,
    prefix: &'static str,
    inventory: Inventory,
    /// Whose encoder it is: `teacher` or `student`.
    pub whose: &'static str,
    /// Keys of the file that are not the encoder's.
    pub others: Vec<String>,
}

fn encoder(contents: &Inventory) -> Option<(&'static str, &'static str)> {
    let has = |prefix: &str| SonataConfig::recognises(&|key| contents.shape(&format!("{prefix}{key}")));
    ENCODERS.into_iter().find(|(prefix, _)| has(prefix))
}

impl<'a> PointceptEncoder<'a> {
    /// Wraps a source.
    ///
    /// # Errors
    /// The source, if it is no training checkpoint.
    pub fn new(source: &'a mut dyn TensorSource) -> Result<Self, &'a mut dyn TensorSource> {
        let held = source.inventory().into_owned();
        let Some((prefix, whose)) = encoder(&held) else { return Err(source) };
        let (mut tensors, mut others) = (BTreeMap::new(), Vec::new());
        for (key, info) in &held.tensors {
            match key.strip_prefix(prefix) {
                Some(name) => drop(tensors.insert(name.to_owned(), info.clone())),
                None => others.push(key.clone()),
            }
        }
        Ok(Self { source, prefix, inventory: Inventory { tensors, ..held }, whose, others })
    }
}

impl TensorSource for PointceptEncoder<'_> {
    fn inventory(&self) -> Cow<'_, Inventory> {
        Cow::Borrowed(&self.inventory)
    }

    fn take(&mut self, key: &str, shape: &[usize]) -> Result<HostTensor, WeightsError> {
        self.source.take(&format!("{}{key}", self.prefix), shape)
    }
}
