//! The HTTP API as an axum [`Router`] to merge into a server.
//!
//! | route | response |
//! | --- | --- |
//! | `POST /export` | 202: the operation has started, and its destination contains an `errors.log` |
//! | `GET /operations/{id}` | 202 while it runs, 200 once it has ended |
//! | `DELETE /operations/{id}`, `POST /operations/{id}/cancel` | 202: it is being canceled; 409 once it has ended |
//! | `POST /operations/{id}/pause` | 202: it is being paused, and then `running` with `paused` in its status document; 409 once it has ended |
//! | `PATCH /operations/{id}` | 200: its `bytesPerSecond` is changed; 409 once it has ended |
//! | `POST /operations/{id}/resume` | 202: a failed or paused operation runs again, with new credentials if the body has a `destination` |
//! | `GET /operations` | 200: a page of operations, newest first, optionally with one `status` |
//!
//! [`router`] serves them under `/v1`, under `/v2` and without a version; [`partition_router`] is for a server with data
//! partitions, and [`routes`] serves them once, for a server that nests them under its own prefix. The status of a completed operation is `succeeded` under `/v2` and `completed`
//! elsewhere; `href` has the version of the request, or `/v1` if the request had none.
//!
//! A client that repeats `POST /export` with the same `Idempotency-Key` and body gets the operation that it has started,
//! as long as that is stored; another body is answered with 422. Polls get a `Retry-After` of a tenth of the operation's
//! age, from 1 to 30 seconds.
//!
//! The guide [`docs::server`](crate::docs::server) adds it to a server step by step.
//!
//! Errors are `application/problem+json` (RFC 9457); `pointer` is the JSON pointer of the property that is wrong. They
//! contain public messages only: errors of the server's store and source are logged instead.
//!
//! ```no_run
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use dicom_export::http::{self, HttpOptions};
//! use dicom_export::{ExportEngine, MemorySink, MemorySource};
//!
//! let engine = ExportEngine::builder(MemorySource::new())
//!     .destination("azureblob", MemorySink::new().provider())
//!     .build()?;
//! let app = axum::Router::new().merge(http::router(engine, HttpOptions::new()));
//! axum::serve(tokio::net::TcpListener::bind("127.0.0.1:8080").await?, app).await?;
//! # Ok(()) }
//! ```

mod authorize;
mod base_url;
mod body;
mod destinations;
mod documents;
mod idempotency;
mod openapi;
mod openapi_operations;
mod options;
mod paging;
mod problem;
mod routes;

use std::sync::Arc;

pub use axum;
use axum::Router;
pub use utoipa;

pub use self::authorize::{AllowAll, Authorize, Rejection};
pub use self::base_url::{BaseUrl, ConfiguredBaseUrl};
pub use self::documents::ApiVersion;
pub use self::openapi::{ApiDescription, openapi};
pub use self::options::HttpOptions;
pub use self::problem::{Problem, not_found};
use crate::service::ExportService;

/// The whole API: its routes under `/v1`, under `/v2`, and without a version.
///
/// The router has no fallback, so it can be merged into the server's. Nested under a prefix ([`Router::nest`]), its
/// links keep the prefix.
///
/// ```
/// # async fn run() -> dicom_export::Result<()> {
/// use axum::Router;
/// use axum::routing::get;
/// use dicom_export::http::{self, HttpOptions};
/// use dicom_export::{ExportEngine, MemorySink, MemorySource};
///
/// let engine = ExportEngine::builder(MemorySource::new())
///     .destination("azureblob", MemorySink::new().provider())
///     .build()?;
/// let app: Router = Router::new()
///     .route("/health", get(async || "ok"))
///     .merge(http::router(engine, HttpOptions::new()));
/// # Ok(()) }
/// ```
pub fn router(service: impl ExportService, options: HttpOptions) -> Router {
    routes::versioned(Arc::new(service), options)
}

/// The API of a server with data partitions, as the Medical Imaging Server for DICOM has it: exports are started with
/// `POST /partitions/{partition}/export`, and operations are read at `/operations/{id}`, without the partition. Both are
/// served under `/v1`, under `/v2` and without a version.
///
/// The name of the partition becomes the operation's [`partition`](crate::OperationContext::partition), unless
/// [`Authorize::start`] sets one. An unknown partition is answered with 400: a [`NotFound`](crate::ErrorKind::NotFound) of
/// the [`SourceProvider`](crate::SourceProvider), or a [`Rejection`] of [`Authorize::start`], which reads the path parameter
/// `partition`. Use [`routes`] for a server that reads operations under their partition.
///
/// ```
/// use dicom_export::ExportEngine;
/// use dicom_export::http::{self, HttpOptions};
///
/// fn app(engine: ExportEngine, options: HttpOptions) -> axum::Router {
///     http::partition_router(engine, options)
/// }
/// ```
pub fn partition_router(service: impl ExportService, options: HttpOptions) -> Router {
    routes::partitioned(Arc::new(service), options)
}

/// The routes once and without a version, for a server that nests them under its own prefix:
/// `.nest("/tenants/{tenant}", …)` serves `/tenants/{tenant}/export` and the other routes beside it. `version` selects
/// the status of a completed operation.
///
/// [`Authorize`] reads the prefix's path parameters with axum's extractors; the name `operation_id` is reserved. An
/// operation is visible under every prefix unless [`Authorize::view`] rejects it.
///
/// ```
/// use axum::Router;
/// use dicom_export::ExportEngine;
/// use dicom_export::http::{self, ApiVersion, HttpOptions};
///
/// fn app(engine: ExportEngine, options: HttpOptions) -> Router {
///     Router::new().nest("/tenants/{tenant}", http::routes(engine, options, ApiVersion::V1))
/// }
/// ```
pub fn routes(service: impl ExportService, options: HttpOptions, version: ApiVersion) -> Router {
    routes::nestable(Arc::new(service), options, version)
}
