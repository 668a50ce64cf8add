//! The calls of Amazon S3 that an upload makes, with the bucket in the path. Nothing is stored, no signature is verified, and
//! all objects have the same ETag, which is not the MD5 of an object, as for encrypted ones.

use std::sync::atomic::Ordering::Relaxed;

use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use hyper::http::HeaderValue;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

use crate::server::{self, Reply, Server};

const BUSY: &str = r#"<?xml version="1.0"?><Error><Code>SlowDown</Code></Error>"#;
const NO_KEY: &str = r#"<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>"#;
const NO_OBJECTS: &str = r#"<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated></ListBucketResult>"#;
const NO_UPLOADS: &str = r#"<?xml version="1.0"?><ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>"#;
const CREATED: &str = r#"<?xml version="1.0"?><InitiateMultipartUploadResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><UploadId>upload</UploadId></InitiateMultipartUploadResult>"#;
const COMPLETED: &str = r#"<?xml version="1.0"?><CompleteMultipartUploadResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><ETag>"9b2cf535f27731c974343645a3985328-1"</ETag></CompleteMultipartUploadResult>"#;
/// Clients look for errors in it, not for the keys that were deleted.
const DELETED: &str = r#"<?xml version="1.0"?><DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Deleted><Key>object</Key></Deleted></DeleteResult>"#;

const HEADERS: [(&str, &str); 1] = [("x-amz-request-id", "0")];
const OBJECT_HEADERS: [(&str, &str); 3] = [
    ("x-amz-request-id", "0"),
    ("etag", "\"9b2cf535f27731c974343645a3985328-1\""),
    ("last-modified", "Sun, 22 Nov 2026 00:00:00 GMT"),
];

/// The prefix of headers with a checksum, which S3 repeats in its response.
const CHECKSUM: &str = "x-amz-checksum-";

/// The response to a rejected request.
pub fn busy() -> Reply {
    xml(StatusCode::SERVICE_UNAVAILABLE, BUSY)
}

/// The response to a request whose body had this length.
pub fn respond(server: &Server, head: &Parts, length: u64) -> Reply {
    let path = head.uri.path();
    let parameters: Vec<&str> = head
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name))
        .collect();
    let has = |name: &str| parameters.contains(&name);
    let is_bucket = path.trim_matches('/').split_once('/').is_none();
    match head.method {
        Method::PUT if is_bucket => reply(StatusCode::OK),
        Method::PUT => {
            put(server, path, has("uploadId"), length);
            stored(head)
        }
        Method::POST if has("uploads") => xml(StatusCode::OK, CREATED),
        Method::POST if has("uploadId") => {
            server.sizes.change(path, |size| size.committed = std::mem::take(&mut size.uncommitted));
            server.stats.commits.fetch_add(1, Relaxed);
            xml(StatusCode::OK, COMPLETED)
        }
        Method::POST if has("delete") => xml(StatusCode::OK, DELETED),
        Method::GET if has("uploads") => xml(StatusCode::OK, NO_UPLOADS),
        Method::GET if is_bucket => xml(StatusCode::OK, NO_OBJECTS),
        Method::HEAD if is_bucket => reply(StatusCode::OK),
        Method::HEAD => match server.sizes.get(path) {
            None => reply(StatusCode::NOT_FOUND),
            Some(size) => {
                let mut reply = server::reply(StatusCode::OK, "", &OBJECT_HEADERS);
                reply.headers_mut().insert(CONTENT_LENGTH, size.committed.into());
                reply
            }
        },
        Method::GET => xml(StatusCode::NOT_FOUND, NO_KEY),
        Method::DELETE => {
            if has("uploadId") {
                server.sizes.change(path, |size| size.uncommitted = 0);
            } else {
                server.sizes.remove(path);
            }
            reply(StatusCode::NO_CONTENT)
        }
        _ => reply(StatusCode::NOT_IMPLEMENTED),
    }
}

/// Counts an object, or a part of one.
fn put(server: &Server, path: &str, is_part: bool, length: u64) {
    server.stats.bytes.fetch_add(length, Relaxed);
    let counter = if is_part {
        server.sizes.change(path, |size| size.uncommitted += length);
        &server.stats.blocks
    } else {
        server.sizes.change(path, |size| size.committed = length);
        &server.stats.puts
    };
    counter.fetch_add(1, Relaxed);
}

/// The response to an object or a part, with the checksums of the request.
fn stored(head: &Parts) -> Reply {
    let mut reply = server::reply(StatusCode::OK, "", &OBJECT_HEADERS);
    let checksums = head.headers.iter().filter(|(name, _)| name.as_str().starts_with(CHECKSUM));
    for (name, value) in checksums {
        reply.headers_mut().insert(name.clone(), value.clone());
    }
    reply
}

fn reply(status: StatusCode) -> Reply {
    server::reply(status, "", &HEADERS)
}

fn xml(status: StatusCode, body: &'static str) -> Reply {
    let mut reply = server::reply(status, body, &HEADERS);
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    reply
}
