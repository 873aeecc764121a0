use std::path::PathBuf;

use crate::files::is_full;
use crate::gpu::DeviceError;
use crate::images::ImageError;
use crate::models::ModelError;
use crate::models::import::ImportError;
use crate::models::minkunet::TextSpace;
use crate::models::signature::OtherFile;
use crate::models::sonata::SonataError;
use crate::objects::CatalogueError;
use crate::ops::OpError;
use crate::pipeline::PipelineError;
use crate::purify::PurifyError;
use crate::query::saved::SavedError;
use crate::views::ViewsError;
use crate::views::fit::Fit;
use crate::weights::WeightsError;
use crate::weights::store::StoreError;

/// Error of a session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// There is no such device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The catalogue of objects cannot be written.
    #[error(transparent)]
    Objects(#[from] CatalogueError),
    /// The store of weights cannot be used, or does not have a network.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file of weights cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The configuration inside a file of weights cannot be read.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A file of weights is of another system.
    #[error(transparent)]
    OtherFile(#[from] OtherFile),
    /// A configuration is not valid.
    #[error("{place}: {source}")]
    Configuration {
        /// File, and part of it.
        place: String,
        /// Error in it.
        source: serde_json::Error,
    },
    /// The weights do not fit the configuration derived from their shapes.
    #[error("a variant of the model {model} needs its configuration: {source}")]
    NeedsConfiguration {
        /// Name of the network.
        model: &'static str,
        /// The mismatch.
        source: WeightsError,
    },
    /// The student does not fit the image model.
    #[error(
        "{student}: the student takes {found} channels, the features of {model} have {embedding} and colour and normal {geometry}: these weights do not belong together"
    )]
    OtherStudent {
        /// The student's weights.
        student: String,
        /// Number of channels it takes.
        found: usize,
        /// Network whose words the features are compared with.
        model: &'static str,
        /// Number of channels of the features.
        embedding: usize,
        /// Number of channels of colour and normal.
        geometry: usize,
    },
    /// The 3D network and the words have different numbers of channels.
    #[error("{network}: features of {found} channels; those of the words have {words}")]
    OtherNetwork {
        /// The 3D network's weights.
        network: String,
        /// Channels of its features.
        found: usize,
        /// Channels of the words.
        words: usize,
    },
    /// The 3D network and the views are in the spaces of different words.
    #[error(
        "the ensemble with {image_model} needs a 3D network in the space of {}; this one is in the space of {}, so it \
         can only answer alone",
        space(*needed), space(*found)
    )]
    NoCommonSpace {
        /// Name of the image model.
        image_model: &'static str,
        /// Its space.
        needed: TextSpace,
        /// Space of the 3D network.
        found: TextSpace,
    },
    /// An image model was chosen for a method that looks at no pictures.
    #[error("a 3D network without views looks at no pictures, so there is no use for {image_model}")]
    NoPictures {
        /// Name of the image model.
        image_model: &'static str,
    },
    /// Fused features alone shall answer, and none are given.
    #[error("the method fusion labels by fused features, and none are given; give them with --fused")]
    NoFused,
    /// Fused features are given without a network that they can join.
    #[error(
        "fused features belong to the ensemble with a 3D network in the space of CLIP: give that network and --method ensemble, or --method fusion for the features alone"
    )]
    NoUseOfFused,
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// The folder contains neither a scan nor a recording.
    #[error("{}: no scan in this folder: {source}", folder.display())]
    NoScan {
        /// The folder.
        folder: PathBuf,
        /// Reason why it is not a recording.
        source: Box<ViewsError>,
    },
    /// A part of a data set does not exist.
    #[error("{}: no {split} in this folder; {way_out}", folder.display())]
    NoPart {
        /// The folder.
        folder: PathBuf,
        /// The part: train, val or test.
        split: String,
        /// What to give instead.
        way_out: String,
    },
    /// A scene of a list does not exist.
    #[error("{}, line {line}: {} does not exist", list.display(), entry.display())]
    ListEntry {
        /// The list.
        list: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// Path of the missing scan or recording.
        entry: PathBuf,
    },
    /// A name in a list is that of several scenes.
    #[error("{}, line {line}: {} is both {} and {}", list.display(), entry.display(), places[0].display(), places[1].display())]
    SeveralScenes {
        /// The list.
        list: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// The name.
        entry: PathBuf,
        /// Two scans of this name.
        places: [PathBuf; 2],
    },
    /// A list names no scene.
    #[error("{}: the list names no scene", list.display())]
    EmptyList {
        /// The list.
        list: PathBuf,
    },
    /// The scan is not where the recording's depth maps show something.
    #[error(
        "{}: the scan does not fit the recording {}: {fit}; expected a scan in the world of the recording's poses, in metres{turned}",
        scan.display(), recording.display()
    )]
    DoesNotFit {
        /// The scan.
        scan: PathBuf,
        /// The recording.
        recording: PathBuf,
        /// What was compared.
        fit: Fit,
        /// Empty, or how the scan's axes must be turned to fit.
        turned: String,
    },
    /// The recording has no poses, so its frames cannot be placed in a scan.
    #[error("{}: the recording has no poses, so nothing says where in the scan its frames are", recording.display())]
    NoPoses {
        /// The recording.
        recording: PathBuf,
    },
    /// A picture needs more memory than the model may use.
    #[error("{}: at {} x {} pixels the model needs {bytes} bytes, more than it may use", path.display(), size[1], size[0])]
    PictureTooLarge {
        /// The picture.
        path: PathBuf,
        /// Height and width at which the model would see it.
        size: [usize; 2],
        /// Memory that the model needs.
        bytes: u64,
    },
    /// The device failed while the model saw pictures.
    #[error(transparent)]
    Seeing(OpError),
    /// The query is empty.
    #[error("the question has no words")]
    NoQuestion,
    /// The folder does not contain results.
    #[error("{}: no {}: expected a folder with the results of a labelling", folder.display(), crate::query::saved::FILE_NAME)]
    NoResults {
        /// The folder.
        folder: PathBuf,
    },
    /// The saved features were made with other weights.
    #[error("{}: the features were made with other weights ({made_with}, SHA-256 {sha256}) than {given}", features.display())]
    OtherWeights {
        /// The saved features.
        features: PathBuf,
        /// The weights they were made with.
        made_with: String,
        /// SHA-256 of these weights.
        sha256: String,
        /// The weights that are loaded.
        given: String,
    },
    /// The scan and the saved features are from different runs.
    #[error("{}: has {points} points, the features are of {features}: both must be from the same run", scan.display())]
    OtherScan {
        /// The scan.
        scan: PathBuf,
        /// Number of its points.
        points: usize,
        /// Number of points of the features.
        features: usize,
    },
    /// The saved features and the words have different numbers of channels.
    #[error("{}: {found} channels, the words have {words}", features.display())]
    OtherChannels {
        /// The saved features.
        features: PathBuf,
        /// Number of their channels.
        found: usize,
        /// Number of channels of the words.
        words: usize,
    },
    /// Reading or checking a recording failed.
    #[error(transparent)]
    Views(Box<ViewsError>),
    /// A model cannot be built.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Sonata cannot be built or cannot encode the scan.
    #[error(transparent)]
    Sonata(#[from] SonataError),
    /// Labelling or drawing failed.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// Purification failed.
    #[error(transparent)]
    Purify(#[from] PurifyError),
    /// Saved features cannot be read.
    #[error(transparent)]
    Saved(#[from] SavedError),
    /// A picture cannot be written.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The device failed.
    #[error(transparent)]
    Op(#[from] OpError),
    /// A thread of the session ended before it was done.
    #[error("a thread ended early")]
    Thread,
}

/// Whose words a space has.
fn space(space: TextSpace) -> &'static str {
    match space {
        TextSpace::XDecoder => "X-Decoder's words",
        TextSpace::Clip => "CLIP",
    }
}

impl From<ViewsError> for SessionError {
    fn from(error: ViewsError) -> Self {
        Self::Views(Box::new(error))
    }
}

impl SessionError {
    /// True if there is no space left to write: a full disk, a quota, or a limit on file size.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if error.downcast_ref::<std::io::Error>().is_some_and(is_full) {
                return true;
            }
            cause = error.source();
        }
        false
    }
}
