//! Paths as text in reports. A path need not be UTF-8; its other bytes become the replacement character.

use std::path::Path;

use serde::Serializer;

/// Serializes a path as text.
///
/// # Errors
/// Those of `serializer`.
pub(crate) fn path<S: Serializer>(path: impl AsRef<Path>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.as_ref().to_string_lossy())
}

/// Serializes a path as text, or nothing.
///
/// # Errors
/// Those of `serializer`.
pub(crate) fn optional<S: Serializer, P: AsRef<Path>>(path: &Option<P>, serializer: S) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => serializer.serialize_some(&path.as_ref().to_string_lossy()),
        None => serializer.serialize_none(),
    }
}
