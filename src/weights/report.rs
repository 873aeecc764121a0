//! Report of how the tensors of a file match those of a model, by name.

use std::fmt;
use std::path::PathBuf;

use super::dtype::Dtype;

/// A tensor with another shape than the model's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misshaped {
    /// Name of the tensor.
    pub key: String,
    /// Shape the model needs.
    pub expected: Vec<usize>,
    /// Shape in the file.
    pub found: Vec<usize>,
}

/// A tensor with another element type than f32.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cast {
    /// Name of the tensor.
    pub key: String,
    /// Type in the file.
    pub from: Dtype,
}

/// Result of matching a [`TensorSource`](super::TensorSource) with a model. Every list is ordered by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// File the weights came from.
    pub source: PathBuf,
    /// Keys that match, with the right shape.
    pub applied: Vec<String>,
    /// Keys that the model needs and the file lacks, with their shapes. Fatal.
    pub missing: Vec<(String, Vec<usize>)>,
    /// Keys of the file that the model does not have. Fatal.
    pub unused: Vec<String>,
    /// Keys with another shape. Fatal.
    pub misshaped: Vec<Misshaped>,
    /// Keys that hold integers where the model needs floats, with the type. Fatal.
    pub not_float: Vec<Cast>,
    /// Applied keys that were converted to f32.
    pub cast: Vec<Cast>,
    /// Unused keys that are allowed.
    pub ignored: Vec<String>,
    /// Entries that are not tensors, with their type.
    pub not_tensors: Vec<(String, String)>,
    /// Prefix that was removed from every key of the file.
    pub stripped_prefix: Option<&'static str>,
}

impl LoadReport {
    /// Returns true if the file has every weight of the model and no other.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.unused.is_empty() && self.misshaped.is_empty() && self.not_float.is_empty()
    }
}

impl fmt::Display for LoadReport {
    /// Writes a summary line, then a line for each key that was not simply applied. Problems come first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} applied, {} missing, {} unused, {} misshaped, {} not float, {} cast, {} ignored",
            self.source.display(),
            self.applied.len(),
            self.missing.len(),
            self.unused.len(),
            self.misshaped.len(),
            self.not_float.len(),
            self.cast.len(),
            self.ignored.len(),
        )?;
        if let Some(prefix) = self.stripped_prefix {
            write!(f, "; prefix '{prefix}' removed from every key")?;
        }
        let mut line = |status: &str, detail: fmt::Arguments<'_>| write!(f, "\n  {status:<10} {detail}");
        for (key, shape) in &self.missing {
            line("missing", format_args!("{key} {shape:?}"))?;
        }
        for key in &self.unused {
            line("unused", format_args!("{key}"))?;
        }
        for bad in &self.misshaped {
            line("misshaped", format_args!("{} expected {:?}, found {:?}", bad.key, bad.expected, bad.found))?;
        }
        for bad in &self.not_float {
            line("not float", format_args!("{} is {}", bad.key, bad.from))?;
        }
        for cast in &self.cast {
            line("cast", format_args!("{} from {}", cast.key, cast.from))?;
        }
        for key in &self.ignored {
            line("ignored", format_args!("{key}"))?;
        }
        for (key, what) in &self.not_tensors {
            line("no tensor", format_args!("{key} is {what}"))?;
        }
        Ok(())
    }
}
