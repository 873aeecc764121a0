//! The server: takes connections and lets requests in.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::ViewerError;
use super::http::{Guard, Reply, error};
use super::library::Library;
use super::routes;

/// Largest body of a request: many long words.
const MOST_BODY: usize = 256 << 10;
/// Time for the headers of a request. A connection that sends nothing is closed after it.
const HEADERS_IN: Duration = Duration::from_secs(30);
/// Requests that are answered at once. Others wait.
const AT_ONCE: usize = 8;
/// Pause after a connection could not be taken, as without free file handles.
const PAUSE: Duration = Duration::from_millis(100);
/// Random bytes of a token.
const TOKEN_BYTES: usize = 16;

/// Where a server listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// The address; `None` for this machine alone. With an address, a token is asked for.
    pub host: Option<IpAddr>,
    /// The port; 0 for a free one.
    pub port: u16,
}

/// A server that listens, and does not answer yet.
pub struct Server {
    listener: TcpListener,
    guard: Guard,
    library: Arc<Library>,
}

impl Server {
    /// Listens.
    ///
    /// # Errors
    /// [`ViewerError::PortInUse`], [`ViewerError::Listen`], [`ViewerError::NoToken`].
    pub fn bind(binding: Binding, library: Library) -> Result<Self, ViewerError> {
        let address = SocketAddr::new(binding.host.unwrap_or(Ipv4Addr::LOCALHOST.into()), binding.port);
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => ViewerError::PortInUse { address },
            _ => ViewerError::Listen { address, source },
        };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let token = binding.host.map(|_| token()).transpose()?;
        Ok(Self { listener, guard: Guard { address, token }, library: Arc::new(library) })
    }

    /// The address for a browser, with the token.
    #[must_use]
    pub fn url(&self) -> String {
        let token = self.guard.token.as_ref().map_or(String::new(), |token| format!("?t={token}"));
        format!("http://{}/{token}", self.guard.address)
    }

    /// Answers until the program ends.
    ///
    /// # Errors
    /// [`ViewerError::Listen`] if the system lets no server run.
    pub fn run(self) -> Result<Infallible, ViewerError> {
        let Self { listener, guard, library } = self;
        let failed = |source| ViewerError::Listen { address: guard.address, source };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(AT_ONCE)
            .build()
            .map_err(failed)?;
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let (guard, library) = (guard.clone(), library.clone());
                        tokio::spawn(async move {
                            let service = service_fn(|request| served(request, &guard, library.clone()));
                            let served = http1::Builder::new()
                                .timer(TokioTimer::new())
                                .header_read_timeout(HEADERS_IN)
                                .serve_connection(TokioIo::new(stream), service);
                            // A closed tab ends its connections. That is no fault.
                            if let Err(error) = served.await {
                                log::debug!("a connection ended: {error}");
                            }
                        });
                    }
                    Err(error) => {
                        log::warn!("a connection could not be taken: {error}");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        })
    }
}

/// Answers a request that is let in.
async fn served(request: Request<Incoming>, guard: &Guard, library: Arc<Library>) -> Result<Reply, Infallible> {
    let (head, body) = request.into_parts();
    let query = head.uri.query().unwrap_or_default().to_owned();
    if let Err(refused) = guard.check(&head.method, &query, &head.headers) {
        return Ok(*refused);
    }
    let Ok(body) = Limited::new(body, MOST_BODY).collect().await else {
        return Ok(error(StatusCode::PAYLOAD_TOO_LARGE, &format!("more than {MOST_BODY} bytes make no question")));
    };
    let (method, path, body) = (head.method, head.uri.path().to_owned(), body.to_bytes());
    let answered = tokio::task::spawn_blocking(move || routes::answer(&library, &method, &path, &query, &body));
    Ok(answered.await.unwrap_or_else(|_| error(StatusCode::INTERNAL_SERVER_ERROR, "this question cannot be answered")))
}

/// A token that nobody can guess.
fn token() -> Result<String, ViewerError> {
    let mut bytes = [0; TOKEN_BYTES];
    getrandom::fill(&mut bytes).map_err(|_| ViewerError::NoToken)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ() {
        let tokens = [token().unwrap(), token().unwrap()];
        assert!(tokens[0] != tokens[1] && tokens.iter().all(|token| token.len() == 32));
    }
}
