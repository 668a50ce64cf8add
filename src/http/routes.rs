//! The routes and their handlers.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, OriginalUri, RawPathParams, Request, State};
use axum::http::header::{HeaderValue, LOCATION, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};

use crate::error::ErrorKind;
use crate::http::authorize::Rejection;
use crate::http::body::{self, BodyMemory};
use crate::http::documents::{ApiVersion, ListDocument, OperationDocument, ReferenceDocument, json};
use crate::http::idempotency::IdempotencyKey;
use crate::http::options::HttpOptions;
use crate::http::paging::{Paging, token};
use crate::http::problem::{Problem, method_not_allowed};
use crate::model::{
    ExportDestination, ExportRequest, OperationId, OperationKey, OperationStatus, OperationUpdate, Timestamp,
};
use crate::service::{ExportService, NewOperation, OperationRecord, Target};
use crate::store::OperationFilter;
use crate::sync::detached;

/// The path parameter for an operation's id.
const ID_PARAMETER: &str = "operation_id";

/// The path parameter for a partition's name.
const PARTITION_PARAMETER: &str = "partition";

/// How many operations one request for a page examines at most.
const MAX_EXAMINED: usize = 2000;

/// The smallest `Retry-After` of a poll.
const MIN_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The largest `Retry-After` of a poll.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(30);

/// The API under one prefix.
#[derive(Clone)]
pub(super) struct Mount {
    api: Arc<Api>,
    version: ApiVersion,
    /// The path segment that links have after the request's prefix.
    link_version: &'static str,
}

struct Api {
    service: Arc<dyn ExportService>,
    options: HttpOptions,
    memory: BodyMemory,
}

pub(super) fn versioned(service: Arc<dyn ExportService>, options: HttpOptions) -> Router {
    at_versions(&Api::new(service, options), |mount| with_state(start().merge(operations()), mount))
}

pub(super) fn partitioned(service: Arc<dyn ExportService>, options: HttpOptions) -> Router {
    at_versions(&Api::new(service, options), |mount| {
        let start = Router::new().route("/partitions/{partition}/export", post(export_partition));
        with_state(start.merge(operations()), mount)
    })
}

pub(super) fn nestable(service: Arc<dyn ExportService>, options: HttpOptions, version: ApiVersion) -> Router {
    let mount = Mount { api: Api::new(service, options), version, link_version: "" };
    with_state(start().merge(operations()), mount)
}

fn at_versions(api: &Arc<Api>, routes: impl Fn(Mount) -> Router) -> Router {
    let at = |version, link_version| routes(Mount { api: Arc::clone(api), version, link_version });
    at(ApiVersion::V1, "/v1").nest("/v1", at(ApiVersion::V1, "")).nest("/v2", at(ApiVersion::V2, ""))
}

fn with_state(routes: Router<Mount>, mount: Mount) -> Router {
    routes.method_not_allowed_fallback(method_not_allowed).with_state(mount)
}

fn start() -> Router<Mount> {
    Router::new().route("/export", post(export))
}

fn operations() -> Router<Mount> {
    Router::new()
        .route("/operations", get(list))
        .route("/operations/{operation_id}", get(status).patch(update).delete(cancel))
        .route("/operations/{operation_id}/cancel", post(cancel))
        .route("/operations/{operation_id}/pause", post(pause))
        .route("/operations/{operation_id}/resume", post(resume))
}

async fn export(State(mount): State<Mount>, request: Request) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    mount.api.options.authorize.authenticate(&mut parts).await?;
    mount.start(parts, body, None).await
}

async fn export_partition(State(mount): State<Mount>, request: Request) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    mount.api.options.authorize.authenticate(&mut parts).await?;
    let partition = path_parameter(&mut parts, PARTITION_PARAMETER).await;
    match partition.filter(|name| is_partition_name(name)) {
        Some(partition) => mount.start(parts, body, Some(partition)).await,
        None => Err(Problem::new(StatusCode::BAD_REQUEST)
            .with_detail("a partition name must be 1 to 64 letters, digits, '.', '-' and '_'")),
    }
}

/// Whether this can be the name of a partition (Medical Imaging Server for DICOM, "Data partitions").
fn is_partition_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
}

async fn status(State(mount): State<Mount>, request: Request) -> Result<Response, Problem> {
    let mut parts = request.into_parts().0;
    let record = mount.visible(&mut parts).await?;
    let (id, is_running) = (record.operation.operation_id, is_running(&record));
    let interval = poll_interval(record.operation.created_time);
    let document = OperationDocument::new(record.operation, mount.version);
    match is_running {
        true => Ok(mount.links(&parts)?.poll(json(StatusCode::ACCEPTED, &document), id, interval)),
        false => Ok(json(StatusCode::OK, &document)),
    }
}

async fn cancel(State(mount): State<Mount>, request: Request) -> Result<Response, Problem> {
    let mut parts = request.into_parts().0;
    let record = mount.visible(&mut parts).await?;
    let links = mount.links(&parts)?;
    mount.api.options.authorize.cancel(&mut parts, &record).await?;
    let id = record.operation.operation_id;
    mount.api.service.cancel(id).await?;
    Ok(links.accepted(id))
}

async fn pause(State(mount): State<Mount>, request: Request) -> Result<Response, Problem> {
    let mut parts = request.into_parts().0;
    let record = mount.visible(&mut parts).await?;
    let links = mount.links(&parts)?;
    mount.api.options.authorize.pause(&mut parts, &record).await?;
    let id = record.operation.operation_id;
    mount.api.service.pause(id).await?;
    Ok(links.accepted(id))
}

/// Changes the limit of an operation, and responds with its status document.
async fn update(State(mount): State<Mount>, request: Request) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let mut record = mount.visible(&mut parts).await?;
    let Api { service, options, memory } = &*mount.api;
    let body = body::read(&parts, body, options, memory).await?;
    let update = body::parse(body, OperationUpdate::from_json).await?;
    if let Some(bytes) = update.bytes_per_second {
        options.authorize.limit(&mut parts, &record, bytes).await?;
        let id = record.operation.operation_id;
        service.set_bytes_per_second(id, bytes.map_or(0, NonZeroU64::get)).await?;
        record = service.operation(id).await?;
    }
    Ok(json(StatusCode::OK, &OperationDocument::new(record.operation, mount.version)))
}

async fn resume(State(mount): State<Mount>, request: Request) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let record = mount.visible(&mut parts).await?;
    let api = &mount.api;
    let links = mount.links(&parts)?;
    let destination = match body::read_optional(&parts, body, &api.options, &api.memory).await? {
        Some(body) => body::parse(body, ExportDestination::from_resumption).await?,
        None => None,
    };
    api.options.authorize.resume(&mut parts, &record, destination.as_ref()).await?;
    let id = record.operation.operation_id;
    let service = Arc::clone(&api.service);
    detached(async move { service.resume(id, destination.map(Target::from)).await }).await?;
    Ok(links.accepted(id))
}

async fn list(State(mount): State<Mount>, request: Request) -> Result<Response, Problem> {
    let mut parts = request.into_parts().0;
    let Api { service, options, .. } = &*mount.api;
    options.authorize.authenticate(&mut parts).await?;
    let Paging { limit, after, status } = Paging::read(&parts.uri)?;
    let mut filter = OperationFilter::new(limit);
    (filter.after, filter.status) = (after, status);
    let mut document = ListDocument { operations: Vec::new(), continuation_token: None };
    let mut examined = 0;
    'pages: loop {
        let page = service.list(&filter).await?;
        if page.is_empty() {
            break;
        }
        for record in page {
            if document.operations.len() == limit || examined == MAX_EXAMINED {
                document.continuation_token = filter.after.map(token);
                break 'pages;
            }
            examined += 1;
            filter.after = Some(key(&record));
            match options.authorize.view(&mut parts, &record).await {
                Ok(()) => document.operations.push(OperationDocument::new(record.operation, mount.version)),
                Err(rejection) => hide(rejection)?,
            }
        }
    }
    Ok(json(StatusCode::OK, &document))
}

/// Hides an operation that the caller may not view; fails if that could not be decided.
fn hide(rejection: Rejection) -> Result<(), Problem> {
    match rejection.status() {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Ok(()),
        _ => Err(rejection.into()),
    }
}

impl Api {
    fn new(service: Arc<dyn ExportService>, options: HttpOptions) -> Arc<Self> {
        let memory = BodyMemory::new(options.body_memory);
        Arc::new(Self { service, options, memory })
    }
}

impl Mount {
    /// Starts an export for an authenticated request.
    async fn start(
        &self,
        mut parts: Parts,
        body: Body,
        partition: Option<String>,
    ) -> Result<Response, Problem> {
        let Api { service, options, memory } = &*self.api;
        let links = self.links(&parts)?;
        let key = IdempotencyKey::read(&parts.headers)?;
        let body = body::read(&parts, body, options, memory).await?;
        let digest = key.as_ref().map(|key| key.request_digest(&body));
        let request = body::parse(body, ExportRequest::from_json).await?;
        if request.source().is_everything() && !options.export_all {
            return Err(Problem::new(StatusCode::FORBIDDEN)
                .with_detail("'/source' is missing: this server does not export everything")
                .with_pointer("/source"));
        }
        let location = service.location(request.destination())?;
        let mut context = options.authorize.start(&mut parts, &request, &location).await?;
        let is_partitioned = partition.is_some();
        context.partition = context.partition.or(partition);
        context.request_digest = digest.clone();
        let id = key.map_or_else(OperationId::random, |key| key.operation_id(&context));
        if digest.is_some() && self.is_repeated(id, &digest).await? {
            return Ok(links.accepted(id));
        }
        let new = NewOperation::from(request).with_id(id).with_context(context);
        let service = Arc::clone(service);
        // The operation starts even if the client disconnects.
        match detached(async move { service.start(new).await }).await {
            Ok(_) => Ok(links.accepted(id)),
            // Another request with this key was faster.
            Err(error)
                if error.kind() == ErrorKind::Conflict
                    && digest.is_some()
                    && self.is_repeated(id, &digest).await? =>
            {
                Ok(links.accepted(id))
            }
            Err(error) if error.kind() == ErrorKind::NotFound && is_partitioned => {
                Err(Problem::new(StatusCode::BAD_REQUEST).with_detail(error.message().to_owned()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the operation was started by the same request as this one.
    async fn is_repeated(&self, id: OperationId, digest: &Option<String>) -> Result<bool, Problem> {
        match self.api.service.operation(id).await {
            Ok(record) if record.context.request_digest == *digest => Ok(true),
            Ok(_) => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY)
                .with_detail("the 'Idempotency-Key' was used for a request with another body")),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The operation in a request's path, if the caller may view it.
    async fn visible(&self, parts: &mut Parts) -> Result<OperationRecord, Problem> {
        let Api { service, options, .. } = &*self.api;
        options.authorize.authenticate(parts).await?;
        let id = operation_id(parts).await.ok_or_else(Problem::no_such_operation)?;
        let record = match service.operation(id).await {
            Ok(record) => record,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(Problem::no_such_operation()),
            Err(error) => return Err(error.into()),
        };
        match options.authorize.view(parts, &record).await {
            Ok(()) => Ok(record),
            Err(rejection) => {
                hide(rejection)?;
                Err(Problem::no_such_operation())
            }
        }
    }

    fn links(&self, parts: &Parts) -> Result<Links, Problem> {
        let base = self.api.options.base_url.of(parts)?;
        // The original path includes the prefix that this router is nested under.
        let original =
            parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |OriginalUri(uri)| uri).path();
        let prefix = original.strip_suffix(parts.uri.path()).unwrap_or_default();
        Ok(Links(format!("{base}{prefix}{}", self.link_version)))
    }
}

async fn operation_id(parts: &mut Parts) -> Option<OperationId> {
    path_parameter(parts, ID_PARAMETER).await?.parse().ok()
}

async fn path_parameter(parts: &mut Parts, name: &str) -> Option<String> {
    let parameters = RawPathParams::from_request_parts(parts, &()).await.ok()?;
    parameters.iter().find(|(other, _)| *other == name).map(|(_, value)| value.to_owned())
}

/// Whether the operation has been accepted and has not ended.
fn is_running(record: &OperationRecord) -> bool {
    let status = record.operation.status;
    status.is_running() || status == OperationStatus::Paused
}

fn key(record: &OperationRecord) -> OperationKey {
    OperationKey { created_time: record.operation.created_time, id: record.operation.operation_id }
}

/// How long a client should wait between polls: a tenth of the operation's age, from 1 s to [`MAX_POLL_INTERVAL`].
fn poll_interval(created: Timestamp) -> Duration {
    let age = (Timestamp::now().to_utc() - created.to_utc()).to_std().unwrap_or_default();
    (age / 10).clamp(MIN_POLL_INTERVAL, MAX_POLL_INTERVAL)
}

/// The URL before the route, for the links of a response.
struct Links(String);

impl Links {
    fn operation(&self, id: OperationId) -> String {
        format!("{}/operations/{id}", self.0)
    }

    /// 202 with the operation's id and URL.
    fn accepted(&self, id: OperationId) -> Response {
        let document = ReferenceDocument { id, href: self.operation(id) };
        self.poll(json(StatusCode::ACCEPTED, &document), id, MIN_POLL_INTERVAL)
    }

    /// Adds the headers that tell a client where and when to poll.
    fn poll(&self, mut response: Response, id: OperationId, interval: Duration) -> Response {
        let headers: &mut HeaderMap = response.headers_mut();
        headers.insert(RETRY_AFTER, interval.as_secs().into());
        // The parts of the URL have been parsed, so it is a valid header value.
        if let Ok(location) = HeaderValue::try_from(self.operation(id)) {
            headers.insert(LOCATION, location);
        }
        response
    }
}
