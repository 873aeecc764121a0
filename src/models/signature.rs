//! Which system a file of weights is of, by the names and shapes of its tensors.
//!
//! One table knows every system. Imports and files that are given directly ask it, so that a file of another
//! system is named, instead of all the keys that it lacks.

use std::path::PathBuf;

use super::clip::{ClipTextConfig, is_hugging_face};
use super::lseg::LSegConfig;
use super::minkunet::MinkUnetConfig;
use super::sonata::{ConcertoSize, SonataConfig};
use super::student::StudentConfig;
use super::xdecoder::XDecoderConfig;
use crate::weights::Inventory;

/// A kind of file, and how it is recognised.
#[derive(Debug)]
pub struct Signature {
    /// Whose file it is, as `Sonata's`.
    pub owner: &'static str,
    /// What of theirs it is, as `file`.
    pub thing: &'static str,
    /// Model as which it can be imported.
    pub model: Option<&'static str>,
    /// What to do with a file that cannot be imported.
    advice: &'static str,
    matches: fn(&Contents<'_>) -> bool,
}

/// The tensors of a file. One without elements may declare any extents, so it does not count. The others are
/// limited by the file.
struct Contents<'a>(&'a Inventory);

impl Contents<'_> {
    fn shape(&self, key: &str) -> Option<Vec<usize>> {
        self.0.shape(key).filter(|shape| !shape.contains(&0))
    }

    fn has(&self, key: &str) -> bool {
        self.shape(key).is_some()
    }

    /// True if a key ends in `end`, whatever comes before.
    fn has_ending(&self, end: &str) -> bool {
        self.0.tensors.keys().any(|key| key.ends_with(end))
    }

    fn concerto(&self) -> Option<ConcertoSize> {
        ConcertoSize::of(&|key| self.shape(key))
    }

    fn is_sonata(&self) -> bool {
        SonataConfig::recognises(&|key| self.shape(key))
    }
}

const fn known(
    owner: &'static str,
    thing: &'static str,
    model: &'static str,
    matches: fn(&Contents<'_>) -> bool,
) -> Signature {
    Signature { owner, thing, model: Some(model), advice: "", matches }
}

/// Every kind of file that is recognised. The first that matches says what a file is.
pub const SIGNATURES: &[Signature] = &[
    known("a student's", "file", "student", |file| StudentConfig::of(&|key| file.shape(key)).is_some()),
    known("Concerto's", "file (tiny)", "sonata", |file| file.concerto() == Some(ConcertoSize::Tiny)),
    known("Concerto's", "file (small)", "sonata", |file| file.concerto() == Some(ConcertoSize::Small)),
    known("Concerto's", "file (large)", "sonata", |file| file.concerto() == Some(ConcertoSize::Large)),
    known("Sonata's", "file", "sonata", |file| file.is_sonata()),
    known("X-Decoder's", "file", "xdecoder", |file| XDecoderConfig::recognises(&|key| file.shape(key))),
    known("CUA-O3D's", "file", "openscene", |file| {
        MinkUnetConfig::of(&|key| file.shape(key)).is_some_and(|config| config.heads.len() > 1)
    }),
    known("OpenScene's", "file", "openscene", |file| MinkUnetConfig::of(&|key| file.shape(key)).is_some()),
    known("LSeg's", "file", "lseg", |file| LSegConfig::recognises(&|key| file.shape(key))),
    known("CLIP's", "file", "clip", |file| {
        ClipTextConfig::recognises(&|key| file.shape(key)) || is_hugging_face(&|key| file.shape(key))
    }),
    Signature {
        owner: "X-Decoder's",
        thing: "pre-training file, which lacks the decoder",
        model: None,
        advice: "get the trained network with: geopurify weights fetch xdecoder",
        matches: |file| {
            let has_encoder = file.has_ending("layers.0.blocks.0.modulation.f.weight")
                || file.has_ending("lang_encoder.token_embedding.weight");
            has_encoder && !file.has_ending("query_feat.weight")
        },
    },
    Signature {
        owner: "Concerto's",
        thing: "linear head for ScanNet, which lacks the encoder",
        model: None,
        advice: "get the encoder with: geopurify weights fetch concerto-large",
        matches: |file| file.has("seg_head.weight") && !file.is_sonata(),
    },
    Signature {
        owner: "OpenScene's",
        thing: "file of fused features of a scan, which has no weights",
        model: None,
        advice: "its networks are listed by: geopurify weights list",
        matches: |file| file.has("feat") && file.has("mask_full"),
    },
];

/// A file of weights is of another system than expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: this is {found}, not {expected}; {advice}", path.display())]
pub struct OtherFile {
    /// The file.
    pub path: PathBuf,
    /// What it is.
    pub found: String,
    /// Whose file was expected.
    pub expected: &'static str,
    /// Model as which it can be imported.
    pub model: Option<&'static str>,
    /// What to do with it.
    pub advice: String,
}

/// Says what a file is: the first of [`SIGNATURES`] that matches its tensors.
#[must_use]
pub fn recognise(contents: &Inventory) -> Option<&'static Signature> {
    SIGNATURES.iter().find(|signature| (signature.matches)(&Contents(contents)))
}

/// Checks that a file with these tensors may be one of the model `model`. A file that no signature matches may be.
///
/// # Errors
/// [`OtherFile`] if it is of another system.
pub fn expect(model: &str, contents: &Inventory) -> Result<(), OtherFile> {
    let Some(found) = recognise(contents).filter(|found| found.model != Some(model)) else { return Ok(()) };
    let path = contents.source.clone();
    let owner = SIGNATURES.iter().rev().find(|signature| signature.model == Some(model)).map(|other| other.owner);
    let expected = match owner {
        Some(owner) if owner != found.owner => owner,
        _ => "the network itself",
    };
    let advice = match found.model {
        Some(model) => format!("import it with: geopurify weights import {model} {}", path.display()),
        None => found.advice.to_owned(),
    };
    Err(OtherFile { path, found: format!("{} {}", found.owner, found.thing), expected, model: found.model, advice })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::{Dtype, TensorInfo};

    fn contents(tensors: &[(&str, &[usize])]) -> Inventory {
        let info = |shape: &[usize]| TensorInfo { shape: shape.to_vec(), dtype: Dtype::F32 };
        let tensors = tensors.iter().map(|(key, shape)| ((*key).to_owned(), info(shape))).collect();
        Inventory { source: "x.pth".into(), tensors, ..Inventory::default() }
    }

    #[test]
    fn the_last_signature_of_a_model_is_its_own() {
        // `expect` names the expected system by it.
        for (model, owner) in [("sonata", "Sonata's"), ("openscene", "OpenScene's"), ("xdecoder", "X-Decoder's")] {
            let last = SIGNATURES.iter().rev().find(|signature| signature.model == Some(model)).unwrap();
            assert_eq!(last.owner, owner);
        }
    }

    #[test]
    fn parts_of_a_system_are_told_from_the_network() {
        for prefix in ["", "backbone.", "module.image_encoder."] {
            let key = format!("{prefix}layers.0.blocks.0.modulation.f.weight");
            let error = expect("xdecoder", &contents(&[(&key, &[4, 2])])).unwrap_err().to_string();
            assert_eq!(
                error,
                "x.pth: this is X-Decoder's pre-training file, which lacks the decoder, not the network itself; get the \
                 trained network with: geopurify weights fetch xdecoder"
            );
        }
        let error = expect("sonata", &contents(&[("seg_head.weight", &[20, 8])])).unwrap_err();
        assert!(error.model.is_none() && error.to_string().contains("Concerto's linear head for ScanNet"), "{error}");
        let fused = contents(&[("feat", &[3, 8]), ("mask_full", &[9])]);
        let error = expect("openscene", &fused).unwrap_err().to_string();
        assert!(error.contains("OpenScene's file of fused features of a scan"), "{error}");
    }

    #[test]
    fn an_unknown_file_may_be_anything() {
        let unknown = contents(&[("fc.weight", &[3, 3])]);
        assert!(recognise(&unknown).is_none());
        assert_eq!(expect("student", &unknown), Ok(()));
        // A tensor without elements may have any extents, so it says nothing.
        let empty = contents(&[("feat", &[0, 8]), ("mask_full", &[0])]);
        assert!(recognise(&empty).is_none());
    }
}
