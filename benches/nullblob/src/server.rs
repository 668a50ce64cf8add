//! The server: it counts requests, reads their bodies, and rejects or delays them as the limits say.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::RETRY_AFTER;
use hyper::http::HeaderValue;
use hyper::{Method, Request, Response, StatusCode};

use crate::checksums::Checksums;
use crate::limits::{Limits, Rejection};
use crate::stats::Stats;
use crate::{azure, s3};

pub type Reply = Response<Full<Bytes>>;

/// The store whose calls the server responds to.
#[derive(Clone, Copy)]
pub enum Store {
    Azure,
    S3,
}

pub struct Server {
    pub stats: Stats,
    store: Store,
    limits: Limits,
    pub sizes: Sizes,
}

impl Server {
    pub fn new(store: Store) -> Self {
        Self { stats: Stats::default(), store, limits: Limits::default(), sizes: Sizes::default() }
    }

    pub async fn respond(&self, request: Request<Incoming>) -> Result<Reply, Infallible> {
        let query = request.uri().query().unwrap_or_default();
        Ok(match request.uri().path() {
            "/stats" => {
                self.sizes.clear();
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
            _ => self.store_call(request).await,
        })
    }

    async fn store_call(&self, request: Request<Incoming>) -> Reply {
        let (head, body) = request.into_parts();
        let in_flight = self.stats.begin();
        let is_write = matches!(head.method, Method::PUT | Method::POST);
        let rejection = if is_write { self.limits.reject(in_flight) } else { None };
        // The body of a rejected request is read as well: closing the connection would cost the client more than a real store.
        let mut checksums = self.limits.checksums();
        let length = drain(body, &mut checksums).await;
        let latency = self.limits.latency();
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        self.stats.end();
        if let Some(rejection) = rejection {
            self.stats.rejected.fetch_add(1, Relaxed);
            let mut reply = match self.store {
                Store::Azure => azure::busy(),
                Store::S3 => s3::busy(),
            };
            if rejection == Rejection::RetryAfter {
                reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            return reply;
        }
        match self.store {
            Store::Azure => azure::respond(self, &head, length, checksums),
            Store::S3 => s3::respond(self, &head, length),
        }
    }
}

/// The lengths of blobs, which some clients query after the upload.
#[derive(Default)]
pub struct Sizes(Mutex<HashMap<String, Size>>);

#[derive(Default, Clone, Copy)]
pub struct Size {
    pub uncommitted: u64,
    pub committed: u64,
}

impl Sizes {
    pub fn change(&self, path: &str, change: impl FnOnce(&mut Size)) {
        change(self.lock().entry(path.to_owned()).or_default());
    }

    pub fn get(&self, path: &str) -> Option<Size> {
        self.lock().get(path).copied()
    }

    pub fn remove(&self, path: &str) {
        self.lock().remove(path);
    }

    fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Size>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

/// A response with a constant body and constant headers.
pub fn reply(status: StatusCode, body: &'static str, headers: &[(&'static str, &'static str)]) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *reply.status_mut() = status;
    for (name, value) in headers {
        reply.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    reply
}
