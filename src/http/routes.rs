//! The routes and their handlers.

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, OriginalUri, RawPathParams, Request, State};
use axum::http::header::{HeaderValue, LOCATION, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};

use crate::error::ErrorKind;
use crate::http::authorize::{Reason, Rejection};
use crate::http::body;
use crate::http::documents::{ApiVersion, ListDocument, OperationDocument, ReferenceDocument, json};
use crate::http::options::HttpOptions;
use crate::http::paging::{Paging, token};
use crate::http::problem::{Problem, method_not_allowed};
use crate::http::running_limit::{RunningLimit, is_running, key};
use crate::model::{ExportDestination, ExportRequest, OperationId};
use crate::service::{ExportService, NewOperation, OperationRecord, Target};
use crate::sync::detached;

/// The path parameter for an operation's id.
const ID_PARAMETER: &str = "operation_id";

/// How many operations one request for a page examines at most.
const MAX_EXAMINED: usize = 2000;

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
    running: RunningLimit,
}

pub(super) fn versioned(service: Arc<dyn ExportService>, options: HttpOptions) -> Router {
    let api = Api::new(service, options);
    let at = |version, link_version| table(Mount { api: Arc::clone(&api), version, link_version });
    at(ApiVersion::V1, "/v1").nest("/v1", at(ApiVersion::V1, "")).nest("/v2", at(ApiVersion::V2, ""))
}

pub(super) fn nestable(service: Arc<dyn ExportService>, options: HttpOptions, version: ApiVersion) -> Router {
    table(Mount { api: Api::new(service, options), version, link_version: "" })
}

fn table(mount: Mount) -> Router {
    Router::new()
        .route("/export", post(export))
        .route("/operations", get(list))
        .route("/operations/{operation_id}", get(status).delete(cancel))
        .route("/operations/{operation_id}/resume", post(resume))
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(mount)
}

async fn export(State(mount): State<Mount>, request: Request) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let api = &mount.api;
    api.options.authorize.authenticate(&mut parts).await?;
    let links = mount.links(&parts)?;
    let bytes = body::read(&parts, body, &api.options).await?;
    let request = body::parse(bytes, ExportRequest::from_json).await?;
    if request.source().is_everything() && !api.options.export_all {
        return Err(Problem::new(StatusCode::FORBIDDEN)
            .with_detail("'/source' is missing: this server does not export everything")
            .with_pointer("/source"));
    }
    let context = api.options.authorize.start(&mut parts, &request).await?;
    let id = OperationId::random();
    let slot = api.running.acquire(&*api.service, id).await?;
    let new = NewOperation::from(request).with_id(id).with_context(context);
    let service = Arc::clone(&api.service);
    // The operation starts, and keeps its slot until then, even if the client disconnects.
    let started = detached(async move {
        let started = service.start(new).await;
        drop(slot);
        started
    });
    started.await?;
    Ok(links.accepted(id))
}

async fn status(State(mount): State<Mount>, request: Request) -> Result<Response, Problem> {
    let mut parts = request.into_parts().0;
    let record = mount.visible(&mut parts).await?;
    let (id, is_running) = (record.operation.operation_id, is_running(&record));
    let document = OperationDocument::new(record.operation, mount.version);
    match is_running {
        true => Ok(mount.links(&parts)?.poll(json(StatusCode::ACCEPTED, &document), id)),
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

async fn resume(State(mount): State<Mount>, request: Request) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let record = mount.visible(&mut parts).await?;
    let api = &mount.api;
    let links = mount.links(&parts)?;
    let destination = match body::read_optional(&parts, body, &api.options).await? {
        Some(bytes) => body::parse(bytes, ExportDestination::from_resumption).await?,
        None => None,
    };
    api.options.authorize.resume(&mut parts, &record, destination.as_ref()).await?;
    let id = record.operation.operation_id;
    let slot = api.running.acquire(&*api.service, id).await?;
    let service = Arc::clone(&api.service);
    let resumed = detached(async move {
        let resumed = service.resume(id, destination.map(Target::from)).await;
        drop(slot);
        resumed
    });
    resumed.await?;
    Ok(links.accepted(id))
}

async fn list(State(mount): State<Mount>, request: Request) -> Result<Response, Problem> {
    let mut parts = request.into_parts().0;
    let Api { service, options, .. } = &*mount.api;
    options.authorize.authenticate(&mut parts).await?;
    let Paging { limit, mut after } = Paging::read(&parts.uri)?;
    let mut document = ListDocument { operations: Vec::new(), continuation_token: None };
    let mut examined = 0;
    'pages: loop {
        let page = service.list(after, limit).await?;
        if page.is_empty() {
            break;
        }
        for record in page {
            if document.operations.len() == limit || examined == MAX_EXAMINED {
                document.continuation_token = after.map(token);
                break 'pages;
            }
            examined += 1;
            after = Some(key(&record));
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
    match rejection.reason {
        Reason::Unavailable => Err(rejection.into()),
        Reason::Unauthenticated(_) | Reason::Forbidden => Ok(()),
    }
}

impl Api {
    fn new(service: Arc<dyn ExportService>, options: HttpOptions) -> Arc<Self> {
        let running = RunningLimit::new(options.max_running);
        Arc::new(Self { service, options, running })
    }
}

impl Mount {
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
    let params = RawPathParams::from_request_parts(parts, &()).await.ok()?;
    params.iter().find(|(name, _)| *name == ID_PARAMETER).and_then(|(_, value)| value.parse().ok())
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
        self.poll(json(StatusCode::ACCEPTED, &document), id)
    }

    /// Adds the headers that tell a client where and when to poll.
    fn poll(&self, mut response: Response, id: OperationId) -> Response {
        let headers: &mut HeaderMap = response.headers_mut();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        // The parts of the URL have been parsed, so it is a valid header value.
        if let Ok(location) = HeaderValue::try_from(self.operation(id)) {
            headers.insert(LOCATION, location);
        }
        response
    }
}
