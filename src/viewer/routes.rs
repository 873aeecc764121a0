//! What is served under which path. Paths are names of functions, never of files.

use hyper::{Method, StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::answers;
use super::export::{Asked, EXPORT_POINTS, page};
use super::http::{Reply, bytes_reply, error, json_reply, parameter, reply};
use super::library::{Library, Refusal};
use super::page::PAGE;

/// Most points in a reply.
const MOST_POINTS: usize = 1 << 20;
/// Most answers in an exported page.
const MOST_ASKED: usize = 100;
/// Every path, and how it is asked for.
const ROUTES: [(&str, Method); 9] = [
    ("/", Method::GET),
    ("/api/list", Method::GET),
    ("/api/scan", Method::GET),
    ("/api/points", Method::GET),
    ("/api/objects", Method::GET),
    ("/api/sheet", Method::GET),
    ("/api/query", Method::POST),
    ("/api/labels", Method::POST),
    ("/api/export", Method::POST),
];

#[derive(Deserialize)]
struct Query {
    scan: usize,
    words: String,
}

#[derive(Deserialize)]
struct Labels {
    scan: usize,
    words: Vec<String>,
}

#[derive(Deserialize)]
struct Export {
    scan: usize,
    asked: Vec<Asked>,
}

/// Answers a request.
pub(super) fn answer(library: &Library, method: &Method, path: &str, query: &str, body: &[u8]) -> Reply {
    match ROUTES.iter().find(|(own, _)| *own == path) {
        None => *Box::<Reply>::from(Refusal::NotFound),
        Some((_, own)) if own != method => {
            let mut reply = error(StatusCode::METHOD_NOT_ALLOWED, "this is asked for in another way");
            reply
                .headers_mut()
                .insert(header::ALLOW, own.as_str().parse().unwrap_or(header::HeaderValue::from_static("")));
            reply
        }
        Some(_) => routed(library, path, query, body).unwrap_or_else(|refusal| *refusal),
    }
}

fn routed(library: &Library, path: &str, query: &str, body: &[u8]) -> Result<Reply, Box<Reply>> {
    let number = |name: &str| parameter(query, name).and_then(|text| text.parse::<usize>().ok());
    let index = || number("scan").ok_or(Refusal::NotFound);
    Ok(match path {
        "/api/list" => json_reply(&library.list()),
        "/api/scan" => json_reply(&library.scan(index()?)?.scan.describe()),
        "/api/points" => {
            let (Some(from), Some(count)) = (number("from"), number("count")) else {
                return Err(Refusal::NotFound.into());
            };
            let end = from.checked_add(count).filter(|_| count <= MOST_POINTS).ok_or(Refusal::NotFound)?;
            bytes_reply(library.scan(index()?)?.scan.points(from, end).ok_or(Refusal::NotFound)?)
        }
        "/api/objects" => bytes_reply(library.scan(index()?)?.objects().to_vec()),
        "/api/sheet" => reply(StatusCode::OK, "image/png", library.sheet(index()?)?),
        "/api/query" => {
            let Query { scan, words } = parsed(body)?;
            let open = library.scan(scan)?;
            bytes_reply(answers::answer(&open.scan, &library.ask(&open, &words)?))
        }
        "/api/labels" => {
            let Labels { scan, words } = parsed(body)?;
            let open = library.scan(scan)?;
            let (words, found) = library.label(&open, &words)?;
            bytes_reply(answers::labels(&open.scan, &words, &found))
        }
        "/api/export" => {
            let Export { scan, asked } = parsed(body)?;
            if asked.len() > MOST_ASKED {
                return Err(Refusal::Question(format!("{} answers, at most {MOST_ASKED}", asked.len())).into());
            }
            let open = library.scan(scan)?;
            reply(StatusCode::OK, "text/html; charset=utf-8", page(library, scan, &open, &asked, EXPORT_POINTS)?)
        }
        _ => reply(StatusCode::OK, "text/html; charset=utf-8", PAGE),
    })
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, Box<Reply>> {
    serde_json::from_slice(body)
        .map_err(|cause| Box::new(error(StatusCode::BAD_REQUEST, &format!("not a question: {cause}"))))
}
