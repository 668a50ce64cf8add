//! The HTTP API as an axum [`Router`], to be merged into a server.
//!
//! | route | answer |
//! | --- | --- |
//! | `POST /export` | 202: the operation has started, and its destination holds an `errors.log` |
//! | `GET /operations/{id}` | 202 while it runs, 200 once it has ended |
//! | `DELETE /operations/{id}` | 202: it winds down; 409 once it has ended |
//! | `POST /operations/{id}/resume` | 202: a failed operation goes on, with other credentials if the body has a `destination` |
//! | `GET /operations` | 200: a page of operations, newest first |
//!
//! [`router`] has them under `/v1`, under `/v2` and without a version; [`routes`] has them once, for a server that nests
//! them under a prefix of its own. A completed operation is `succeeded` under `/v2` and `completed` elsewhere; `href`
//! keeps the version of the request, and is under `/v1` where it had none.
//!
//! The guide [`docs::server`](crate::docs::server) adds it to a server step by step.
//!
//! Errors are `application/problem+json` (RFC 9457); one that is a property's fault has its JSON pointer in `pointer`.
//! They hold public messages only: what a store or a source says of its own troubles goes to the log.
//!
//! ```no_run
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use dicom_export::http::{self, HttpOptions};
//! use dicom_export::{ExportEngine, MemorySink, MemorySource};
//!
//! let engine = ExportEngine::builder(MemorySource::new())
//!     .destination("azureblob", MemorySink::new().provider())
//!     .build()?;
//! let app = axum::Router::new().merge(http::router(Arc::new(engine), HttpOptions::new()));
//! axum::serve(tokio::net::TcpListener::bind("127.0.0.1:8080").await?, app).await?;
//! # Ok(()) }
//! ```

mod authorize;
mod base_url;
mod body;
mod documents;
mod openapi;
mod options;
mod paging;
mod problem;
mod routes;
mod running;

use std::sync::Arc;

pub use axum;
use axum::Router;
pub use utoipa;

pub use self::authorize::{AllowAll, Authorize, Rejection};
pub use self::base_url::{BaseUrl, ConfiguredBaseUrl};
pub use self::openapi::openapi;
pub use self::options::HttpOptions;
pub use self::problem::{Problem, not_found};
pub use self::routes::ApiVersion;
use crate::engine::ExportService;

/// The whole API: its routes under `/v1`, under `/v2`, and without a version.
///
/// It has no fallback, so that it can be merged: paths that are not its own are the server's. Under a prefix of the
/// server's ([`Router::nest`]) its links keep the prefix.
pub fn router(service: Arc<dyn ExportService>, options: HttpOptions) -> Router {
    routes::versioned(service, options)
}

/// The routes once and without a version, for a server that nests them under its own prefix: with
/// `.nest("/v1/partitions/{partition}", …)` there is `/v1/partitions/{partition}/export`, and links are beside it.
/// `version` decides how a completed operation is called.
///
/// An [`Authorize`] finds the prefix's parameters with axum's extractors; the name `operation_id` is taken. An
/// operation is found under every prefix unless that `Authorize` refuses to show it.
pub fn routes(service: Arc<dyn ExportService>, options: HttpOptions, version: ApiVersion) -> Router {
    routes::nestable(service, options, version)
}
