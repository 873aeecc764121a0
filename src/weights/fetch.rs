//! Downloads of published weights. They resume after a break and are verified before use.
//!
//! Bytes that have arrived are in `<file>.part`. Beside it, `<file>.part.json` holds what a server needs to
//! tell whether the rest still belongs to them. A file under its own name is complete and has the expected
//! hash.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use ureq::http::{HeaderMap, StatusCode};
use ureq::{Agent, Body, http::Response};

use super::registry::Published;
use super::{WeightsError, file_sha256};
use crate::files::{LEFTOVER, Lock, free_space, is_full, remove_partials, write_atomic};

/// Bytes read at once.
const BLOCK: usize = 1 << 17;
/// Bytes that must arrive before earlier failures are forgotten. Without it, a server that sends a little and
/// breaks off would be asked forever.
const PROGRESS: u64 = 1 << 20;
/// Slowest accepted download speed, in bytes per second.
const SLOWEST: u64 = 1 << 10;
/// Largest accepted file whose length the registry does not state, in bytes.
const LONGEST: u64 = 16 << 30;
/// Longest wait before another attempt.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Bytes left free on the disk.
const MARGIN: u64 = 1 << 20;

/// Timeouts and retries of a download.
#[derive(Debug, Clone, Copy)]
pub struct FetchSettings {
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for the next bytes, and the time over which the speed is measured.
    pub stall_timeout: Duration,
    /// Number of failures in a row, with less than a mebibyte received between them, that ends the download.
    pub attempts: u32,
    /// Wait after the first failure. It doubles with each further one.
    pub first_wait: Duration,
    /// True to allow plain HTTP. It is always allowed for addresses of this machine.
    pub allow_http: bool,
}

impl Default for FetchSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(30),
            attempts: 5,
            first_wait: Duration::from_secs(1),
            allow_http: false,
        }
    }
}

/// Progress report of a running download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchEvent<'a> {
    /// Number of bytes received so far.
    At {
        /// Bytes of the file on disk.
        done: u64,
        /// Length of the file, if the server states it.
        total: Option<u64>,
    },
    /// An attempt failed and another one will follow.
    Retry {
        /// Description of the failure.
        reason: &'a str,
        /// Time until the next attempt.
        wait: Duration,
    },
}

/// A complete download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The file.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its SHA-256. It equals the expected one, if one is known.
    pub sha256: String,
    /// Bytes that were there from an earlier download.
    pub resumed_at: u64,
}

/// Error of a download.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The file cannot be downloaded without a browser.
    #[error("'{name}' has no direct address: {how}")]
    ByHand {
        /// Weights asked for.
        name: String,
        /// How to get it instead.
        how: String,
    },
    /// Another process is downloading the same file.
    #[error("{}: another process is downloading this file; wait for it", path.display())]
    Busy {
        /// Path of the lock file.
        path: PathBuf,
    },
    /// The server refused the request.
    #[error("{url}: the server answered {status}; see {page}")]
    Status {
        /// Address asked for.
        url: String,
        /// HTTP status of the answer.
        status: StatusCode,
        /// Web page of the weights.
        page: String,
    },
    /// The address is invalid or leads nowhere.
    #[error("{url}: {reason}")]
    Address {
        /// Address asked for.
        url: String,
        /// Description of the problem.
        reason: String,
    },
    /// All attempts to connect or to download failed.
    #[error("{url}: {reason}; {attempts} failures in a row. {kept} bytes are kept in {}: run the command again to \
        go on from there", part.display())]
    Connection {
        /// Address asked for.
        url: String,
        /// Description of the last failure.
        reason: String,
        /// Number of failures without progress.
        attempts: u32,
        /// Bytes received.
        kept: u64,
        /// Path of the file with the received bytes.
        part: PathBuf,
    },
    /// The file on the server has another length than the registry states.
    #[error("{url}: the file has {found} bytes, but the registry expects {expected}: it is another file")]
    Length {
        /// Address asked for.
        url: String,
        /// Length expected.
        expected: u64,
        /// Length stated by the server, or bytes received so far.
        found: u64,
    },
    /// The file is longer than any weights are.
    #[error("{url}: more than {limit} bytes, and the registry does not state a length: it is no file of weights")]
    TooLong {
        /// Address asked for.
        url: String,
        /// Largest length accepted.
        limit: u64,
    },
    /// The address is one of plain HTTP.
    #[error("{url}: plain HTTP, which anyone on the way can change; --allow-http takes it all the same")]
    PlainHttp {
        /// Address asked for.
        url: String,
    },
    /// The downloaded file is another than that of the first download. It is removed.
    #[error("{url}: another file than at the first download\n  SHA-256 then {expected}\n  SHA-256 now  {found}\n\
        the file was removed. If its authors have replaced it, remove {} and fetch it again", record.display())]
    OtherThanBefore {
        /// Address asked for.
        url: String,
        /// Hash of the first download.
        expected: String,
        /// Hash of the downloaded file.
        found: String,
        /// File that remembers the hash.
        record: PathBuf,
    },
    /// The downloaded file has the wrong hash. It is removed.
    #[error("{url}: wrong SHA-256\n  expected {expected}\n  found    {found}\nthe file was removed")]
    WrongHash {
        /// Address asked for.
        url: String,
        /// Hash in the registry.
        expected: String,
        /// Hash of the downloaded file.
        found: String,
    },
    /// The disk is full, or would be. The received bytes are kept.
    #[error("{}: {needed} more bytes are needed, {}; free some space and run the command again to resume, or set \
        GEOPURIFY_HOME to another disk",
        path.display(), match free { Some(free) => format!("{free} are free"), None => "the disk is full".to_owned() })]
    NoSpace {
        /// Path of the file being written.
        path: PathBuf,
        /// Bytes still to be downloaded.
        needed: u64,
        /// Free bytes on the disk, if known.
        free: Option<u64>,
    },
    /// The operating system reported an error.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or directory concerned.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The downloaded file could not be read back.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

impl FetchError {
    fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }
}

/// Reason why an attempt ended before the file was complete.
enum Failure {
    Fatal(FetchError),
    Retry(String),
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        Self::Fatal(error)
    }
}

/// Downloads the file of `published` into the folder `downloads`, resuming an earlier download.
///
/// # Errors
/// [`FetchError`]. The received bytes are kept, unless they have the wrong hash.
pub fn fetch(
    published: &Published,
    downloads: &Path,
    settings: &FetchSettings,
    observe: &mut dyn FnMut(FetchEvent),
) -> Result<Fetched, FetchError> {
    let Some(url) = &published.url else {
        return Err(FetchError::ByHand { name: published.name.clone(), how: published.how_to_get() });
    };
    let is_plain = url.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"));
    if is_plain && !settings.allow_http && !is_local(url) {
        return Err(FetchError::PlainHttp { url: url.clone() });
    }
    std::fs::create_dir_all(downloads).map_err(|error| FetchError::io(downloads, error))?;
    // A leftover of a killed run that cannot be removed only costs space.
    let _ = remove_partials(downloads, LEFTOVER);
    let path = downloads.join(format!("{}.lock", published.file));
    let locked = Lock::take(&path).map_err(|error| FetchError::io(&path, error))?;
    let _alone = locked.ok_or(FetchError::Busy { path })?;

    let path = downloads.join(&published.file);
    if path.exists() {
        // The file of an earlier download that was not imported. It can only be verified if a hash is known.
        let sha256 = file_sha256(&path)?;
        if known_sha256(published, &path).as_ref() == Some(&sha256) {
            let bytes = std::fs::metadata(&path).map_err(|error| FetchError::io(&path, error))?.len();
            return Ok(Fetched { path, bytes, sha256, resumed_at: bytes });
        }
        std::fs::remove_file(&path).map_err(|error| FetchError::io(&path, error))?;
    }

    let mut part = Part::open(&path, url, known_sha256(published, &path).is_some())?;
    let resumed_at = part.len;
    let agent = agent(url, settings);
    let (mut failures, mut mark) = (0, part.len);
    loop {
        let reason = match part.attempt(&agent, published, url, settings, observe) {
            Ok(()) => break,
            Err(Failure::Fatal(error)) => return Err(error),
            Err(Failure::Retry(reason)) => reason,
        };
        if part.len >= mark.saturating_add(PROGRESS) {
            failures = 0;
            mark = part.len;
        }
        mark = mark.min(part.len);
        failures += 1;
        if failures >= settings.attempts {
            let (kept, part) = (part.len, part.path);
            return Err(FetchError::Connection { url: url.clone(), reason, attempts: failures, kept, part });
        }
        let wait = settings.first_wait.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST_WAIT);
        observe(FetchEvent::Retry { reason: &reason, wait });
        std::thread::sleep(wait);
    }
    let bytes = part.len;
    let sha256 = part.complete(&path, published, url)?;
    Ok(Fetched { path, bytes, sha256, resumed_at })
}

/// Returns the hash that the file must have: that of the registry, else that of the first download from the same
/// address.
fn known_sha256(published: &Published, file: &Path) -> Option<String> {
    let remembered = || {
        let text = std::fs::read_to_string(record(file)).ok()?;
        let (hash, url) = text.trim_end().split_once("  ")?;
        (Some(url) == published.url.as_deref()).then(|| hash.to_owned())
    };
    published.sha256.clone().or_else(remembered)
}

/// File that remembers the hash of the first download of `file`.
fn record(file: &Path) -> PathBuf {
    with_suffix(file, ".sha256")
}

/// Returns true for an address of this machine.
fn is_local(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default();
    // Before an @ stands the name of a user.
    !host.contains('@')
        && ["127.0.0.1", "localhost", "[::1]"]
            .iter()
            .any(|local| host.strip_prefix(local).is_some_and(|rest| rest.is_empty() || rest.starts_with(':')))
}

/// Returns true if the terms of these weights were accepted earlier.
#[must_use]
pub fn is_accepted(published: &Published, downloads: &Path) -> bool {
    std::fs::read_to_string(acceptance(published, downloads)).is_ok_and(|terms| terms == published.licence.to_string())
}

/// Records that the terms of these weights were accepted. The record becomes void if the terms change.
///
/// # Errors
/// [`FetchError::Io`].
pub fn accept(published: &Published, downloads: &Path) -> Result<(), FetchError> {
    let path = acceptance(published, downloads);
    std::fs::create_dir_all(downloads)
        .and_then(|()| write_atomic(&path, |file| file.write_all(published.licence.to_string().as_bytes())))
        .map_err(|error| FetchError::io(&path, error))
}

fn acceptance(published: &Published, downloads: &Path) -> PathBuf {
    downloads.join(format!("{}.licence", published.name))
}

fn agent(url: &str, settings: &FetchSettings) -> Agent {
    let config = Agent::config_builder()
        .timeout_resolve(Some(settings.connect_timeout))
        .timeout_connect(Some(settings.connect_timeout))
        .timeout_recv_response(Some(settings.stall_timeout))
        .timeout_per_read(Some(settings.stall_timeout))
        // Redirects are held to it too. There are no others than to HTTP and HTTPS.
        .https_only(!settings.allow_http && !is_local(url))
        .http_status_as_error(false)
        .user_agent(concat!("geopurify/", env!("CARGO_PKG_VERSION")));
    // A proxy cannot reach addresses of this machine.
    match is_local(url) {
        true => config.proxy(None).build().into(),
        false => config.build().into(),
    }
}

/// Partly downloaded file.
struct Part {
    path: PathBuf,
    file: File,
    len: u64,
    origin_path: PathBuf,
    origin: Origin,
    /// True if a wrong file would be noticed at the end.
    hash_is_known: bool,
}

/// Source of a partial download.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Origin {
    url: String,
    /// Strong validator of the server. Answers with the same validator have the same bytes.
    etag: Option<String>,
    /// Length of the whole file.
    total: Option<u64>,
}

impl Part {
    /// Opens the partial download of `target`. It starts anew if the part came from another address, or if
    /// neither a validator nor a final hash can tell that the rest belongs to it.
    fn open(target: &Path, url: &str, hash_is_known: bool) -> Result<Self, FetchError> {
        let path = with_suffix(target, ".part");
        let origin_path = with_suffix(target, ".part.json");
        let file = File::options().create(true).read(true).write(true).truncate(false).open(&path);
        let file = file.map_err(|error| FetchError::io(&path, error))?;
        let len = file.metadata().map_err(|error| FetchError::io(&path, error))?.len();
        let origin: Option<Origin> =
            std::fs::read(&origin_path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let mut part = Self { path, file, len, origin_path, origin: origin.unwrap_or_default(), hash_is_known };
        if part.origin.url == url && part.can_go_on() {
            part.len = part.file.seek(SeekFrom::End(0)).map_err(|error| FetchError::io(&part.path, error))?;
        } else {
            part.restart(Origin { url: url.to_owned(), ..Origin::default() })?;
        }
        Ok(part)
    }

    /// Returns true if it is enough to request the rest of the file.
    fn can_go_on(&self) -> bool {
        (self.origin.etag.is_some() || self.hash_is_known) && self.origin.total.is_none_or(|total| self.len <= total)
    }

    /// Discards the received bytes.
    fn restart(&mut self, origin: Origin) -> Result<(), FetchError> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(|error| FetchError::io(&self.path, error))?;
        self.len = 0;
        self.origin = origin;
        let path = self.origin_path.clone();
        let text = serde_json::to_vec(&self.origin).map_err(|error| FetchError::io(&path, error.into()))?;
        write_atomic(&path, |file| file.write_all(&text)).map_err(|error| match is_full(&error) {
            true => self.no_space(self.origin.total.unwrap_or(0)),
            false => FetchError::io(&path, error),
        })
    }

    fn no_space(&self, needed: u64) -> FetchError {
        let free = self.path.parent().and_then(free_space);
        FetchError::NoSpace { path: self.path.clone(), needed, free }
    }

    /// Sends one request for the missing bytes and writes the answer.
    fn attempt(
        &mut self,
        agent: &Agent,
        published: &Published,
        url: &str,
        settings: &FetchSettings,
        observe: &mut dyn FnMut(FetchEvent),
    ) -> Result<(), Failure> {
        if self.len > 0 && self.origin.total == Some(self.len) {
            return Ok(());
        }
        let mut request = agent.get(url).header("Accept-Encoding", "identity");
        if self.len > 0 && !self.can_go_on() {
            self.restart(Origin { url: url.to_owned(), ..Origin::default() })?;
        }
        if self.len > 0 {
            request = request.header("Range", format!("bytes={}-", self.len));
            if let Some(etag) = &self.origin.etag {
                request = request.header("If-Range", etag);
            }
        }
        let response = request.call().map_err(|error| refused(url, error))?;
        if !self.accept(&response, published, url)? {
            return Ok(());
        }

        let total = self.origin.total;
        if let (Some(expected), Some(found)) = (published.bytes, total)
            && expected != found
        {
            return Err(FetchError::Length { url: url.to_owned(), expected, found }.into());
        }
        if published.bytes.is_none() && total.is_some_and(|total| total > LONGEST) {
            return Err(FetchError::TooLong { url: url.to_owned(), limit: LONGEST }.into());
        }
        let missing = total.map_or(0, |total| total.saturating_sub(self.len));
        if let Some(free) = self.path.parent().and_then(free_space)
            && free < missing.saturating_add(MARGIN)
        {
            return Err(self.no_space(missing).into());
        }
        self.receive(response, total.or(published.bytes), url, settings, observe)
    }

    /// Checks the server's answer and adapts the part to it. Returns true if there is a body to read.
    fn accept(&mut self, response: &Response<Body>, published: &Published, url: &str) -> Result<bool, Failure> {
        let headers = response.headers();
        let etag = header(headers, "etag").filter(|etag| etag.starts_with('"')).map(str::to_owned);
        let range = header(headers, "content-range").and_then(content_range);
        let fresh = |etag, total| Origin { url: url.to_owned(), etag, total };
        match response.status() {
            StatusCode::OK => {
                // The whole file: there was no part, the file has changed, or the server does not support
                // ranges.
                self.restart(fresh(etag, response.body().content_length()))?;
                Ok(true)
            }
            StatusCode::PARTIAL_CONTENT => {
                let same = self.origin.etag.is_none() || etag.is_none() || self.origin.etag == etag;
                match range {
                    Some((Some(start), total))
                        if start == self.len && same && (self.origin.total.is_none() || self.origin.total == total) =>
                    {
                        self.origin.total = total;
                        Ok(true)
                    }
                    _ => {
                        self.restart(fresh(None, None))?;
                        Err(Failure::Retry("the server answered with another part than the one requested".to_owned()))
                    }
                }
            }
            StatusCode::RANGE_NOT_SATISFIABLE if self.len > 0 => {
                if matches!(range, Some((None, Some(total))) if total == self.len) {
                    return Ok(false);
                }
                self.restart(fresh(None, None))?;
                Err(Failure::Retry("the file on the server is shorter than the part already downloaded".to_owned()))
            }
            status
                if status.is_server_error()
                    || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT) =>
            {
                Err(Failure::Retry(format!("the server answered {status}")))
            }
            status => {
                let (url, page) = (url.to_owned(), published.page.clone());
                Err(FetchError::Status { url, status, page }.into())
            }
        }
    }

    /// Appends the body to the part.
    fn receive(
        &mut self,
        response: Response<Body>,
        expected: Option<u64>,
        url: &str,
        settings: &FetchSettings,
        observe: &mut dyn FnMut(FetchEvent),
    ) -> Result<(), Failure> {
        let mut reader = response.into_body().into_reader();
        let mut block = vec![0; BLOCK];
        let limit = expected.unwrap_or(LONGEST);
        let (mut since, mut len_then) = (Instant::now(), self.len);
        loop {
            observe(FetchEvent::At { done: self.len, total: expected });
            let count = match reader.read(&mut block) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::Retry(error.to_string())),
            };
            let len = self.len + count as u64;
            if len > limit && expected.is_none() {
                return Err(FetchError::TooLong { url: url.to_owned(), limit }.into());
            }
            if len > limit {
                return Err(FetchError::Length { url: url.to_owned(), expected: limit, found: len }.into());
            }
            if let Err(error) = self.file.write_all(&block[..count]) {
                return Err(Failure::Fatal(match is_full(&error) {
                    true => self.no_space(expected.map_or(count as u64, |total| total - self.len)),
                    false => FetchError::io(&self.path, error),
                }));
            }
            self.len = len;
            let elapsed = since.elapsed();
            if elapsed >= settings.stall_timeout {
                if ((len - len_then) as f64) < SLOWEST as f64 * elapsed.as_secs_f64() {
                    return Err(Failure::Retry(format!("less than {SLOWEST} bytes per second")));
                }
                (since, len_then) = (Instant::now(), len);
            }
        }
        match expected {
            Some(total) if self.len < total => {
                Err(Failure::Retry(format!("the connection ended at byte {} of {total}", self.len)))
            }
            _ => Ok(()),
        }
    }

    /// Verifies the complete part and renames it to its final name. Returns its hash.
    fn complete(self, target: &Path, published: &Published, url: &str) -> Result<String, FetchError> {
        self.file.sync_all().map_err(|error| match is_full(&error) {
            true => self.no_space(0),
            false => FetchError::io(&self.path, error),
        })?;
        let Self { path, file, origin_path, .. } = self;
        drop(file);
        let remove = |path: &Path| std::fs::remove_file(path).map_err(|error| FetchError::io(path, error));
        let found = file_sha256(&path)?;
        if let Some(expected) = known_sha256(published, target)
            && expected != found
        {
            remove(&path)?;
            remove(&origin_path)?;
            let url = url.to_owned();
            return Err(match published.sha256 {
                Some(_) => FetchError::WrongHash { url, expected, found },
                None => FetchError::OtherThanBefore { url, expected, found, record: record(target) },
            });
        }
        if published.sha256.is_none() {
            let record = record(target);
            write_atomic(&record, |file| writeln!(file, "{found}  {url}"))
                .map_err(|error| FetchError::io(&record, error))?;
        }
        std::fs::rename(&path, target).map_err(|error| FetchError::io(target, error))?;
        remove(&origin_path)?;
        Ok(found)
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Classifies the error of a request that got no answer.
fn refused(url: &str, error: ureq::Error) -> Failure {
    match error {
        ureq::Error::RequireHttpsOnly(url) => FetchError::PlainHttp { url }.into(),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::TooManyRedirects | ureq::Error::RedirectFailed => {
            FetchError::Address { url: url.to_owned(), reason: error.to_string() }.into()
        }
        error => Failure::Retry(error.to_string()),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Parses a Content-Range into first byte and total length: `bytes 5-9/10`, `bytes 5-9/*`, `bytes */10`.
fn content_range(text: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let total = match total {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    let start = match range {
        "*" => None,
        range => Some(range.split_once('-')?.0.parse().ok()?),
    };
    Some((start, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine() {
        for url in ["http://127.0.0.1:80/a", "http://localhost/a", "http://[::1]:8080/", "http://localhost"] {
            assert!(is_local(url), "{url}");
        }
        for url in
            ["http://localhost.example/a", "http://localhost:x@example/", "http://127.0.0.10/", "http://a/localhost"]
        {
            assert!(!is_local(url), "{url}");
        }
    }

    #[test]
    fn content_ranges() {
        assert_eq!(content_range("bytes 5-9/10"), Some((Some(5), Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((Some(5), None)));
        assert_eq!(content_range("bytes */10"), Some((None, Some(10))));
        for text in ["", "bytes", "bytes 5/10", "bytes 5-9", "items 5-9/10", "bytes x-9/10", "bytes 5-9/x"] {
            assert_eq!(content_range(text), None, "{text}");
        }
    }
}
