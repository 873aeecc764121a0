//! Settings of the tables in a folder. A later run must have the same ones.

use std::io::{ErrorKind, Write as _};
use std::path::Path;

use serde_json::{Map, Value as Json};

use super::error::ReproduceError;
use crate::files::write_atomic;

/// File of the settings in a folder of tables.
pub(super) const SETTINGS_FILE: &str = "settings.json";

/// Reads the settings of the folder; empty if there are none.
pub(super) fn read(folder: &Path) -> Result<Map<String, Json>, ReproduceError> {
    let path = folder.join(SETTINGS_FILE);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Map::new()),
        Err(source) => return Err(ReproduceError::io(&path, source)),
    };
    serde_json::from_slice(&text).map_err(|error| ReproduceError::io(&path, error.into()))
}

/// Joins the settings `asked` with those `found`. What was not given before may be given now, and the other way
/// round.
pub(super) fn joined(
    folder: &Path,
    mut found: Map<String, Json>,
    asked: Map<String, Json>,
) -> Result<Map<String, Json>, ReproduceError> {
    for (setting, asked) in asked {
        match found.get(&setting) {
            Some(before) if !before.is_null() && !asked.is_null() && *before != asked => {
                let (before, asked) = differing(before, &asked);
                return Err(ReproduceError::Differs {
                    path: folder.join(SETTINGS_FILE),
                    setting,
                    found: before,
                    asked,
                });
            }
            Some(before) if !before.is_null() => {}
            _ => drop(found.insert(setting, asked)),
        }
    }
    Ok(found)
}

/// The values of two settings; of tables only the entries that differ.
fn differing(before: &Json, asked: &Json) -> (String, String) {
    let (Json::Object(first), Json::Object(second)) = (before, asked) else {
        return (before.to_string(), asked.to_string());
    };
    let without = |table: &Map<String, Json>, other: &Map<String, Json>| {
        let kept = table.iter().filter(|(name, value)| other.get(*name) != Some(value));
        Json::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect()).to_string()
    };
    (without(first, second), without(second, first))
}

/// Writes the settings of the folder.
pub(super) fn write(folder: &Path, settings: &Map<String, Json>) -> Result<(), ReproduceError> {
    let path = folder.join(SETTINGS_FILE);
    let written = write_atomic(&path, |out| {
        serde_json::to_writer_pretty(&mut *out, settings)?;
        out.write_all(b"\n")
    });
    written.map_err(|source| ReproduceError::io(&path, source))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Json) -> Map<String, Json> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn settings_may_be_added_but_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path()).unwrap().is_empty());
        let first = map(json!({ "epochs": { "student": 2, "network": 3 }, "matterport": null }));
        write(folder.path(), &first).unwrap();
        let found = read(folder.path()).unwrap();
        assert_eq!(found, first);
        let more = map(json!({ "epochs": null, "matterport": "rooms" }));
        let both = joined(folder.path(), found.clone(), more).unwrap();
        assert_eq!(both, map(json!({ "epochs": { "student": 2, "network": 3 }, "matterport": "rooms" })));
        let other = map(json!({ "epochs": { "student": 4, "network": 3 } }));
        let message = joined(folder.path(), found, other).unwrap_err().to_string();
        assert!(message.ends_with("settings.json: epochs is {\"student\":2} here, not {\"student\":4}"), "{message}");
        std::fs::write(folder.path().join(SETTINGS_FILE), "{").unwrap();
        assert!(read(folder.path()).is_err());
    }
}
