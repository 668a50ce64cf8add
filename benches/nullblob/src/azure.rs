//! The calls of Azure Blob Storage. Nothing is stored, but the responses are those that a client expects.

use std::sync::atomic::Ordering::Relaxed;

use hyper::header::CONTENT_LENGTH;
use hyper::http::HeaderValue;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

use crate::checksums::Checksums;
use crate::server::{self, Reply, Server};

const BUSY: &str = r#"<?xml version="1.0"?><Error><Code>ServerBusy</Code></Error>"#;
const NO_BLOBS: &str =
    r#"<?xml version="1.0"?><EnumerationResults><Blobs></Blobs><NextMarker/></EnumerationResults>"#;

const HEADERS: [(&str, &str); 7] = [
    ("etag", "\"0x8D000000000\""),
    ("last-modified", "Sun, 22 Nov 2026 00:00:00 GMT"),
    ("x-ms-request-id", "0"),
    ("x-ms-version", "2023-11-03"),
    ("x-ms-request-server-encrypted", "true"),
    ("x-ms-blob-append-offset", "0"),
    ("x-ms-blob-committed-block-count", "1"),
];

/// The response to a rejected request.
pub fn busy() -> Reply {
    reply(StatusCode::SERVICE_UNAVAILABLE, BUSY)
}

/// The response to a request whose body had this length and these checksums.
pub fn respond(server: &Server, head: &Parts, length: u64, checksums: Checksums) -> Reply {
    let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
    match head.method {
        Method::PUT => {
            count(server, path, query, head.headers.contains_key("x-ms-copy-source"), length);
            checksums.apply(reply(StatusCode::CREATED, ""))
        }
        Method::GET | Method::HEAD if query.contains("comp=list") => reply(StatusCode::OK, NO_BLOBS),
        Method::GET | Method::HEAD if query.contains("restype=container") => reply(StatusCode::OK, ""),
        Method::GET | Method::HEAD => match server.sizes.get(path) {
            None => reply(StatusCode::NOT_FOUND, ""),
            Some(size) => {
                let mut reply = reply(StatusCode::OK, "");
                reply.headers_mut().insert(CONTENT_LENGTH, size.committed.into());
                reply.headers_mut().insert("x-ms-blob-type", HeaderValue::from_static("BlockBlob"));
                reply
            }
        },
        Method::DELETE => reply(StatusCode::ACCEPTED, ""),
        _ => reply(StatusCode::OK, ""),
    }
}

fn count(server: &Server, path: &str, query: &str, copied: bool, length: u64) {
    let (stats, sizes) = (&server.stats, &server.sizes);
    stats.bytes.fetch_add(length, Relaxed);
    let counter = if query.contains("comp=blocklist") {
        sizes.change(path, |size| size.committed = std::mem::take(&mut size.uncommitted));
        &stats.commits
    } else if copied {
        &stats.copies
    } else if query.contains("comp=block") {
        sizes.change(path, |size| size.uncommitted += length);
        &stats.blocks
    } else if query.contains("comp=appendblock") {
        sizes.change(path, |size| size.committed += length);
        &stats.appends
    } else if query.contains("restype=container") {
        return;
    } else {
        sizes.change(path, |size| size.committed = length);
        &stats.puts
    };
    counter.fetch_add(1, Relaxed);
}

fn reply(status: StatusCode, body: &'static str) -> Reply {
    server::reply(status, body, &HEADERS)
}
