//! Registry of published weights: their addresses and licences.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::name::is_name;

/// Registry inside the program.
const EMBEDDED: &str = include_str!("../../weights/registry.toml");
/// Environment variable with the path of a registry to use instead.
const REGISTRY_VARIABLE: &str = "GEOPURIFY_REGISTRY";

/// Terms under which weights may be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Licence {
    /// SPDX identifier, or a description if there is none.
    pub id: String,
    /// Address of the licence text or statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// True if commercial use is forbidden.
    #[serde(default)]
    pub non_commercial: bool,
    /// Further remarks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl fmt::Display for Licence {
    /// Writes identifier, ban on commercial use, address and note in one sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)?;
        if self.non_commercial {
            f.write_str(", NOT FOR COMMERCIAL USE")?;
        }
        if let Some(url) = &self.url {
            write!(f, " ({url})")?;
        }
        match &self.note {
            Some(note) => write!(f, ": {note}"),
            None => Ok(()),
        }
    }
}

/// Published weights.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Name they are stored under.
    pub name: String,
    /// Model they belong to.
    pub model: String,
    /// Short description.
    pub about: String,
    /// Name of the published file.
    pub file: String,
    /// Address of the file, if it can be downloaded without a browser.
    pub url: Option<String>,
    /// How to get the file by hand, if it cannot.
    pub by_hand: Option<String>,
    /// SHA-256 of the file in lower-case hexadecimal; `None` if it is not known for certain.
    pub sha256: Option<String>,
    /// Length of the file in bytes.
    pub bytes: Option<u64>,
    /// Web page that links to the file.
    pub page: String,
    /// Repository of the code that the weights were published with.
    pub repository: Option<String>,
    /// Paper to cite.
    pub paper: Option<String>,
    /// Entries of the model's configuration that the file does not tell.
    #[serde(default)]
    pub config: serde_json::Map<String, serde_json::Value>,
    /// Terms of the weights.
    #[serde(alias = "license")]
    pub licence: Licence,
}

impl Published {
    /// Returns where the weights come from: the file's address, else the page.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.url.as_deref().unwrap_or(&self.page)
    }

    /// Returns how to get these weights, in one sentence.
    #[must_use]
    pub fn how_to_get(&self) -> String {
        match (&self.url, &self.by_hand) {
            (Some(_), _) => format!("get them with: geopurify weights fetch {}", self.name),
            (None, by_hand) => {
                let hint = by_hand.as_ref().map_or(String::new(), |hint| format!(" ({hint})"));
                format!(
                    "download {} from {}{hint}, then: geopurify weights import {} {}",
                    self.file, self.page, self.model, self.file
                )
            }
        }
    }
}

/// List of all known published weights.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// Entries in the order of the registry.
    #[serde(rename = "weights")]
    pub entries: Vec<Published>,
}

/// Error of reading a registry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The operating system reported an error.
    #[error("registry {}: {source}", path.display())]
    Io {
        /// File concerned.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The text is not a valid registry.
    #[error("registry {origin}: {reason}")]
    Malformed {
        /// Path of the file, or a note that it is the embedded registry.
        origin: String,
        /// Description of the problem, with the line if known.
        reason: String,
    },
    /// The registry has no entry of this name.
    #[error("the registry knows no weights '{name}'; it has {known}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// Names in the registry.
        known: String,
    },
}

impl Registry {
    /// Loads the registry in `file`, else the one that GEOPURIFY_REGISTRY names, else the embedded one.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn load(file: Option<&Path>) -> Result<Self, RegistryError> {
        let named = file.map(Path::to_path_buf).or_else(|| std::env::var_os(REGISTRY_VARIABLE).map(PathBuf::from));
        let Some(path) = named.filter(|path| !path.as_os_str().is_empty()) else {
            return Self::parse(EMBEDDED, "(embedded)");
        };
        let text = std::fs::read_to_string(&path).map_err(|source| RegistryError::Io { path: path.clone(), source })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Parses a registry; `origin` names it in errors.
    ///
    /// # Errors
    /// [`RegistryError::Malformed`].
    pub fn parse(text: &str, origin: &str) -> Result<Self, RegistryError> {
        let malformed = |reason: String| RegistryError::Malformed { origin: origin.to_owned(), reason };
        let registry: Self = toml::from_str(text).map_err(|error| malformed(error.to_string()))?;
        let mut names = std::collections::HashSet::new();
        for entry in &registry.entries {
            if !is_name(&entry.name) || !is_name(&entry.file) {
                // Both are used as file names.
                return Err(malformed(format!("'{}' or '{}' is not a plain name", entry.name, entry.file)));
            }
            if !names.insert(&entry.name) {
                return Err(malformed(format!("'{}' is listed twice", entry.name)));
            }
            let is_hash = |hash: &str| hash.len() == 64 && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            if entry.sha256.as_deref().is_some_and(|hash| !is_hash(hash)) {
                return Err(malformed(format!(
                    "the sha256 of '{}' is not 64 lower-case hexadecimal digits",
                    entry.name
                )));
            }
        }
        Ok(registry)
    }

    /// Returns the entry `name`.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`], which lists the known names.
    pub fn get(&self, name: &str) -> Result<&Published, RegistryError> {
        self.entries.iter().find(|entry| entry.name == name).ok_or_else(|| {
            let known: Vec<_> = self.entries.iter().map(|entry| entry.name.as_str()).collect();
            RegistryError::Unknown { name: name.to_owned(), known: known.join(", ") }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_one_is_sound_and_says_the_licences() {
        let registry = Registry::parse(EMBEDDED, "(embedded)").unwrap();
        let names: Vec<_> = registry.entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "student",
                "sonata",
                "concerto-tiny",
                "concerto-small",
                "concerto-base",
                "concerto-large",
                "concerto-base-origin",
                "concerto-large-outdoor",
                "xdecoder",
                "xdecoder-focal-l-bestseg",
                "xdecoder-focal-l-oq101",
                "xdecoder-focal-t",
                "xdecoder-focal-t-bestseg",
                "openscene",
                "openscene-lseg",
                "openscene-matterport",
                "openscene-nuscenes",
                "lseg",
                "clip-vit-b-32",
                "clip-vit-l-14-336"
            ]
        );
        let sonata = registry.get("sonata").unwrap();
        assert!(sonata.licence.non_commercial);
        assert!(sonata.licence.to_string().starts_with("CC-BY-NC-4.0, NOT FOR COMMERCIAL USE (https://"));
        assert_eq!(sonata.how_to_get(), "get them with: geopurify weights fetch sonata");
        for entry in registry.entries.iter().filter(|entry| entry.name.starts_with("concerto")) {
            assert!(entry.licence.non_commercial && entry.model == "sonata", "{}", entry.name);
        }
        assert_eq!(registry.get("concerto-large").unwrap().config["takes_zeros"], true);
        let student = registry.get("student").unwrap();
        assert!(student.url.is_none() && student.by_hand.is_some());
        assert!(student.how_to_get().ends_with("then: geopurify weights import student geopurify.pth"));
        for entry in &registry.entries {
            assert!(entry.url.as_ref().is_none_or(|url| url.starts_with("https://")), "{}", entry.name);
        }
        let error = registry.get("resnet").unwrap_err().to_string();
        assert_eq!(error, format!("the registry knows no weights 'resnet'; it has {}", names.join(", ")));
    }

    #[test]
    fn broken_ones_are_errors() {
        let entry = |name: &str, file: &str, more: &str| {
            format!(
                "[[weights]]\nname = '{name}'\nmodel = 'm'\nabout = 'a'\nfile = '{file}'\npage = 'p'\n{more}\n\
                 [weights.licence]\nid = 'MIT'\n"
            )
        };
        assert_eq!(Registry::parse(&entry("a", "a.pth", ""), "r").unwrap().entries.len(), 1);
        for (text, expected) in [
            ("weights = 3".to_owned(), "r"),
            (entry("a", "../a.pth", ""), "not a plain name"),
            (entry("a/b", "a.pth", ""), "not a plain name"),
            (entry("a", "a.pth", "sha256 = 'ABC'"), "64 lower-case"),
            (entry("a", "a.pth", "uri = 'x'"), "uri"),
            (entry("a", "a.pth", "") + &entry("a", "a.pth", ""), "twice"),
        ] {
            let error = Registry::parse(&text, "r").unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
