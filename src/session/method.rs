//! Ways to label a scan.

use std::fmt;
use std::str::FromStr;

/// Way to label a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Views, lifted to the points and purified: GeoPurify's.
    GeoPurify,
    /// A 3D network alone, as OpenScene's: no view is needed.
    OpenScene,
    /// The 3D network and the views together.
    Ensemble,
    /// Features that OpenScene fused from views beforehand, alone.
    Fusion,
}

impl Method {
    /// All methods.
    pub const ALL: [Self; 4] = [Self::GeoPurify, Self::OpenScene, Self::Ensemble, Self::Fusion];
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GeoPurify => "geopurify",
            Self::OpenScene => "openscene",
            Self::Ensemble => "ensemble",
            Self::Fusion => "fusion",
        })
    }
}

/// There is no method of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no method; expected geopurify, openscene, ensemble or fusion")]
pub struct UnknownMethod(String);

impl FromStr for Method {
    type Err = UnknownMethod;

    fn from_str(name: &str) -> Result<Self, UnknownMethod> {
        Self::ALL.into_iter().find(|method| method.to_string() == name).ok_or_else(|| UnknownMethod(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_read_by_their_names() {
        for method in Method::ALL {
            assert_eq!(method.to_string().parse(), Ok(method));
        }
        let error = "lseg".parse::<Method>().unwrap_err().to_string();
        assert_eq!(error, "'lseg' is no method; expected geopurify, openscene, ensemble or fusion");
    }
}
