//! Requests that are let in, and replies.

use std::net::SocketAddr;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Response, StatusCode, header};
use serde_json::json;

use super::library::Refusal;

/// A reply with a body that is there at once.
pub(super) type Reply = Response<Full<Bytes>>;

/// Sent with every reply: nothing may be kept, framed or taken for another type.
fn always() -> [(HeaderName, HeaderValue); 5] {
    [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    ]
}

pub(super) fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().extend(always());
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}

pub(super) fn json_reply(value: &serde_json::Value) -> Reply {
    reply(StatusCode::OK, "application/json", value.to_string())
}

pub(super) fn bytes_reply(bytes: impl Into<Bytes>) -> Reply {
    reply(StatusCode::OK, "application/octet-stream", bytes)
}

/// A reply that says in a sentence what is wrong.
pub(super) fn error(status: StatusCode, sentence: &str) -> Reply {
    reply(status, "application/json", json!({ "error": sentence }).to_string())
}

impl From<Refusal> for Box<Reply> {
    fn from(refusal: Refusal) -> Self {
        Self::new(match refusal {
            Refusal::NotFound => error(StatusCode::NOT_FOUND, "there is no such thing here"),
            Refusal::Question(sentence) => error(StatusCode::UNPROCESSABLE_ENTITY, &sentence),
            Refusal::Unable(sentence) => error(StatusCode::CONFLICT, &sentence),
        })
    }
}

fn forbidden(sentence: &str) -> Box<Reply> {
    Box::new(error(StatusCode::FORBIDDEN, sentence))
}

/// Who may ask.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    pub(super) address: SocketAddr,
    /// The token that must be in the URL, unless only this machine can ask.
    pub(super) token: Option<String>,
}

impl Guard {
    /// Refuses a request that comes from another page or has no token.
    pub(super) fn check(&self, method: &Method, query: &str, headers: &HeaderMap) -> Result<(), Box<Reply>> {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let host = text(header::HOST).unwrap_or_default();
        // A name that a stranger's server answers could be pointed at this machine. Then the browser sends that name.
        if self.token.is_none() && !self.is_own_name(host) {
            return Err(forbidden("this server answers to its own address only"));
        }
        if let Some(token) = &self.token
            && !is_same(parameter(query, "t").unwrap_or_default().as_bytes(), token.as_bytes())
        {
            return Err(forbidden("the token is missing: open the address that the program printed"));
        }
        if method == Method::POST {
            let is_foreign = text(header::ORIGIN).is_some_and(|origin| origin != format!("http://{host}"));
            // A form of another page cannot send this type without being asked first.
            let is_json = text(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
            if is_foreign || !is_json {
                return Err(forbidden("questions come from this server's own page only"));
            }
        }
        Ok(())
    }

    fn is_own_name(&self, host: &str) -> bool {
        let port = self.address.port();
        let own = self.address.to_string();
        host == own || ["127.0.0.1", "localhost", "[::1]"].iter().any(|name| host == format!("{name}:{port}"))
    }
}

/// Compares in a time that does not depend on where the texts differ.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

/// Value of a parameter of a URL. Values of ours need no decoding.
pub(super) fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn other_names_are_refused() {
        let guard = Guard { address: "127.0.0.1:8000".parse().unwrap(), token: None };
        let check = |host| guard.check(&Method::GET, "", &headers(&[(header::HOST, host)])).is_ok();
        assert!(check("127.0.0.1:8000") && check("localhost:8000") && check("[::1]:8000"));
        assert!(!check("evil.example:8000") && !check("127.0.0.1") && !check("127.0.0.1:8001") && !check(""));
        assert!(guard.check(&Method::GET, "", &HeaderMap::new()).is_err());
    }

    #[test]
    fn a_token_must_be_whole() {
        let guard = Guard { address: "0.0.0.0:8000".parse().unwrap(), token: Some("abcd".to_owned()) };
        let check = |query| guard.check(&Method::GET, query, &headers(&[(header::HOST, "scanner:8000")])).is_ok();
        assert!(check("t=abcd") && check("scan=0&t=abcd"));
        assert!(
            !check("") && !check("t=") && !check("t=abc") && !check("t=abcde") && !check("t=abce") && !check("x=abcd")
        );
    }

    #[test]
    fn questions_of_other_pages_are_refused() {
        let guard = Guard { address: "127.0.0.1:8000".parse().unwrap(), token: None };
        let own = (header::HOST, "127.0.0.1:8000");
        let json = (header::CONTENT_TYPE, "application/json");
        let check = |pairs: &[_]| guard.check(&Method::POST, "", &headers(pairs)).is_ok();
        assert!(check(&[own.clone(), json.clone()]));
        assert!(check(&[own.clone(), json.clone(), (header::ORIGIN, "http://127.0.0.1:8000")]));
        assert!(!check(&[own.clone(), json, (header::ORIGIN, "http://evil.example")]));
        assert!(!check(&[own, (header::CONTENT_TYPE, "text/plain")]));
    }
}
