//! The blob calls. Nothing is stored, but the responses are those that a client expects.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::http::HeaderValue;
use hyper::{Method, Request, Response, StatusCode};

use crate::checksums::Checksums;
use crate::limits::{Limits, Rejection};
use crate::stats::Stats;

pub type Reply = Response<Full<Bytes>>;

const BUSY: &str = r#"<?xml version="1.0"?><Error><Code>ServerBusy</Code></Error>"#;
const NO_BLOBS: &str =
    r#"<?xml version="1.0"?><EnumerationResults><Blobs></Blobs><NextMarker/></EnumerationResults>"#;

#[derive(Default)]
pub struct Server {
    pub stats: Stats,
    limits: Limits,
    sizes: Mutex<HashMap<String, Size>>,
}

/// The length of a blob, which some clients query after the upload.
#[derive(Default)]
struct Size {
    uncommitted: u64,
    committed: u64,
}

impl Server {
    pub async fn respond(&self, request: Request<Incoming>) -> Result<Reply, Infallible> {
        let query = request.uri().query().unwrap_or_default();
        Ok(match request.uri().path() {
            "/stats" => {
                self.sizes().clear();
                Response::new(Full::from(self.stats.take()))
            }
            "/limits" => match self.limits.set(query) {
                Ok(()) => Response::new(Full::default()),
                Err(message) => {
                    let mut reply = Response::new(Full::from(message));
                    *reply.status_mut() = StatusCode::BAD_REQUEST;
                    reply
                }
            },
            _ => self.blob_call(request).await,
        })
    }

    async fn blob_call(&self, request: Request<Incoming>) -> Reply {
        let (head, body) = request.into_parts();
        let in_flight = self.stats.begin();
        let rejection = if head.method == Method::PUT { self.limits.reject(in_flight) } else { None };
        // The body of a rejected request is read as well: closing the connection would cost the client more than at Azure.
        let mut checksums = self.limits.checksums();
        let length = drain(body, &mut checksums).await;
        let latency = self.limits.latency();
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        self.stats.end();
        if let Some(rejection) = rejection {
            self.stats.rejected.fetch_add(1, Relaxed);
            let mut reply = reply(StatusCode::SERVICE_UNAVAILABLE, BUSY);
            if rejection == Rejection::RetryAfter {
                reply.headers_mut().insert("retry-after", HeaderValue::from_static("1"));
            }
            return reply;
        }
        let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
        match head.method {
            Method::PUT => {
                self.count(path, query, head.headers.contains_key("x-ms-copy-source"), length);
                checksums.apply(reply(StatusCode::CREATED, ""))
            }
            Method::GET | Method::HEAD if query.contains("comp=list") => reply(StatusCode::OK, NO_BLOBS),
            Method::GET | Method::HEAD if query.contains("restype=container") => reply(StatusCode::OK, ""),
            Method::GET | Method::HEAD => match self.sizes().get(path) {
                None => reply(StatusCode::NOT_FOUND, ""),
                Some(size) => {
                    let mut reply = reply(StatusCode::OK, "");
                    reply.headers_mut().insert("content-length", size.committed.into());
                    reply.headers_mut().insert("x-ms-blob-type", HeaderValue::from_static("BlockBlob"));
                    reply
                }
            },
            Method::DELETE => reply(StatusCode::ACCEPTED, ""),
            _ => reply(StatusCode::OK, ""),
        }
    }

    fn count(&self, path: &str, query: &str, copied: bool, length: u64) {
        let stats = &self.stats;
        stats.bytes.fetch_add(length, Relaxed);
        let counter = if query.contains("comp=blocklist") {
            self.size(path, |size| size.committed = std::mem::take(&mut size.uncommitted));
            &stats.commits
        } else if copied {
            &stats.copies
        } else if query.contains("comp=block") {
            self.size(path, |size| size.uncommitted += length);
            &stats.blocks
        } else if query.contains("comp=appendblock") {
            self.size(path, |size| size.committed += length);
            &stats.appends
        } else if query.contains("restype=container") {
            return;
        } else {
            self.size(path, |size| size.committed = length);
            &stats.puts
        };
        counter.fetch_add(1, Relaxed);
    }

    fn size(&self, path: &str, change: impl FnOnce(&mut Size)) {
        change(self.sizes().entry(path.to_owned()).or_default());
    }

    fn sizes(&self) -> MutexGuard<'_, HashMap<String, Size>> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a body to its end and returns its length.
async fn drain(mut body: Incoming, checksums: &mut Checksums) -> u64 {
    let mut length = 0;
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref() {
            length += data.len() as u64;
            checksums.add(data);
        }
    }
    length
}

fn reply(status: StatusCode, body: &'static str) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *reply.status_mut() = status;
    for (name, value) in [
        ("etag", "\"0x8D000000000\""),
        ("last-modified", "Sun, 22 Nov 2026 00:00:00 GMT"),
        ("x-ms-request-id", "0"),
        ("x-ms-version", "2023-11-03"),
        ("x-ms-request-server-encrypted", "true"),
        ("x-ms-blob-append-offset", "0"),
        ("x-ms-blob-committed-block-count", "1"),
    ] {
        reply.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    reply
}
