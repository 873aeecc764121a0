//! A scan with answers as one page that needs no server.

use std::io::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::ViewerError;
use super::answers;
use super::library::{Entry, Library, OpenScan, Refusal};
use super::page::with_data;
use crate::files::write_atomic;
use crate::session::Session;

/// Points of an exported page, unless another number is asked for. The file has some 5 MB then.
pub const EXPORT_POINTS: usize = 500_000;

/// Words that the page of an export can show.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Asked {
    /// A question.
    Question(String),
    /// New labels.
    Labels(Vec<String>),
}

/// Writes the results in `folder` as a page to `path`, with the answers to what is `asked` and with `max_points`
/// points at most. Returns its size in bytes.
///
/// # Errors
/// [`ViewerError`] if the results are damaged, a question cannot be answered, or the file cannot be written.
pub fn export(
    session: Session,
    entry: Entry,
    asked: &[Asked],
    max_points: usize,
    path: &Path,
) -> Result<u64, ViewerError> {
    let wrong = |refusal: Refusal, folder: &Path| ViewerError::Content {
        path: folder.to_path_buf(),
        message: match refusal {
            Refusal::Question(message) | Refusal::Unable(message) => message,
            Refusal::NotFound => "no such scan".to_owned(),
        },
    };
    let library = Library::new(session, vec![entry], max_points);
    library.open(0)?;
    let folder = &library.entries()[0].folder;
    let open = library.scan(0).map_err(|refusal| wrong(refusal, folder))?;
    let page = page(&library, 0, &open, asked, max_points).map_err(|refusal| wrong(refusal, folder))?;
    write_atomic(path, |out| out.write_all(page.as_bytes()))
        .map_err(|source| ViewerError::Io { path: path.to_path_buf(), source })?;
    Ok(page.len() as u64)
}

/// The page of an open scan of `library`, with the answers to what is `asked` and with `max_points` points at most.
pub(super) fn page(
    library: &Library,
    index: usize,
    open: &OpenScan,
    asked: &[Asked],
    max_points: usize,
) -> Result<String, Refusal> {
    let thinned = library.thinned(index, open, max_points)?;
    let scan = thinned.as_ref().unwrap_or(&open.scan);
    let mut blocks = vec![("scan", packed(&scan.whole())), ("reply", packed(&answers::objects(scan)))];
    for asked in asked {
        let reply = match asked {
            Asked::Question(question) => answers::answer(scan, &library.ask(open, question)?),
            Asked::Labels(words) => {
                let (words, found) = library.label(open, words)?;
                answers::labels(scan, &words, &found)
            }
        };
        blocks.push(("reply", packed(&reply)));
    }
    Ok(with_data(&blocks))
}

/// Bytes, compressed, as text.
fn packed(bytes: &[u8]) -> String {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    // A vector takes all bytes.
    let compressed = encoder.write_all(bytes).and_then(|()| encoder.finish());
    STANDARD.encode(compressed.unwrap_or_default())
}
