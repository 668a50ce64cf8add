//! The routes and their handlers.

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, OriginalUri, RawPathParams, Request, State};
use axum::http::header::{HeaderValue, LOCATION, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use tracing::Instrument;

use crate::engine::{ExportService, NewOperation, OperationRecord, Target};
use crate::error::Result;
use crate::http::authorize::{Reason, Rejection};
use crate::http::body;
use crate::http::documents::{ListDocument, OperationDocument, ReferenceDocument, json};
use crate::http::options::HttpOptions;
use crate::http::paging::{Paging, token};
use crate::http::problem::{Problem, method_not_allowed};
use crate::http::running::{Running, is_running, key};
use crate::model::ExportRequest;
use crate::model::OperationId;

/// The path parameter with an operation's id.
const ID: &str = "operation_id";

/// How many operations one request for a listing looks at, at most, to find those that its caller may see.
const LOOKED_AT: usize = 2000;

/// A version of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ApiVersion {
    /// A completed operation is `completed`.
    V1,
    /// A completed operation is `succeeded`.
    V2,
}

/// The API as it stands at one place.
#[derive(Clone)]
pub(super) struct Mount {
    api: Arc<Api>,
    version: ApiVersion,
    /// What links have before the route, besides what the request had.
    link_version: &'static str,
}

struct Api {
    service: Arc<dyn ExportService>,
    options: HttpOptions,
    running: Running,
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
            .with_detail("this server exports what a 'source' names, not everything")
            .with_pointer("/source"));
    }
    let context = api.options.authorize.start(&mut parts, &request).await?;
    let id = OperationId::random();
    let slot = api.running.enter(&*api.service, id).await?;
    let new = NewOperation::from(request).with_id(id).with_context(context);
    let service = Arc::clone(&api.service);
    // The place is kept until the operation has started, also when the client does not wait for it.
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
    let record = mount.seen(&mut parts).await?;
    let document = OperationDocument::new(&record.operation, mount.version);
    if !is_running(&record) {
        return Ok(json(StatusCode::OK, &document));
    }
    let links = mount.links(&parts)?;
    Ok(links.running(json(StatusCode::ACCEPTED, &document), record.operation.operation_id))
}

async fn cancel(State(mount): State<Mount>, request: Request) -> Result<Response, Problem> {
    let mut parts = request.into_parts().0;
    let record = mount.seen(&mut parts).await?;
    let links = mount.links(&parts)?;
    mount.api.options.authorize.cancel(&mut parts, &record).await?;
    let id = record.operation.operation_id;
    mount.api.service.cancel(id).await?;
    Ok(links.accepted(id))
}

async fn resume(State(mount): State<Mount>, request: Request) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let record = mount.seen(&mut parts).await?;
    let api = &mount.api;
    let links = mount.links(&parts)?;
    let destination = match body::read_optional(&parts, body, &api.options).await? {
        Some(bytes) => body::parse(bytes, body::resumption).await?,
        None => None,
    };
    api.options.authorize.resume(&mut parts, &record, destination.as_ref()).await?;
    let id = record.operation.operation_id;
    let slot = api.running.enter(&*api.service, id).await?;
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
    let mut looked_at = 0;
    'pages: loop {
        let page = service.list(after, limit).await?;
        if page.is_empty() {
            break;
        }
        for record in &page {
            if document.operations.len() == limit || looked_at == LOOKED_AT {
                document.continuation_token = after.map(token);
                break 'pages;
            }
            looked_at += 1;
            after = Some(key(record));
            match options.authorize.view(&mut parts, record).await {
                Ok(()) => document.operations.push(OperationDocument::new(&record.operation, mount.version)),
                Err(refusal) => hidden(refusal)?,
            }
        }
    }
    Ok(json(StatusCode::OK, &document))
}

/// Runs something to its end although the client may hang up.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::spawn(work.in_current_span()).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR)),
    }
}

/// What a refused look is taken for: not being there, unless it cannot be told.
fn hidden(refusal: Rejection) -> Result<(), Problem> {
    match refusal.reason {
        Reason::Unavailable => Err(refusal.into()),
        Reason::Unauthenticated(_) | Reason::Forbidden => Ok(()),
    }
}

impl Api {
    fn new(service: Arc<dyn ExportService>, options: HttpOptions) -> Arc<Self> {
        let running = Running::new(options.max_running);
        Arc::new(Self { service, options, running })
    }
}

impl Mount {
    /// The operation that a request names, if its caller may see it.
    async fn seen(&self, parts: &mut Parts) -> Result<OperationRecord, Problem> {
        let Api { service, options, .. } = &*self.api;
        options.authorize.authenticate(parts).await?;
        let id = operation_id(parts).await.ok_or_else(Problem::no_such_operation)?;
        let record = service.operation(id).await?;
        match options.authorize.view(parts, &record).await {
            Ok(()) => Ok(record),
            Err(refusal) => {
                hidden(refusal)?;
                Err(Problem::no_such_operation())
            }
        }
    }

    fn links(&self, parts: &Parts) -> Result<Links, Problem> {
        let base = self.api.options.base_url.of(parts)?;
        // What the server nested this router under.
        let original =
            parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |OriginalUri(uri)| uri).path();
        let prefix = original.strip_suffix(parts.uri.path()).unwrap_or_default();
        Ok(Links(format!("{base}{prefix}{}", self.link_version)))
    }
}

async fn operation_id(parts: &mut Parts) -> Option<OperationId> {
    let params = RawPathParams::from_request_parts(parts, &()).await.ok()?;
    params.iter().find(|(name, _)| *name == ID).and_then(|(_, value)| value.parse().ok())
}

/// Where an answer's links lead: the URL before the route.
struct Links(String);

impl Links {
    fn operation(&self, id: OperationId) -> String {
        format!("{}/operations/{id}", self.0)
    }

    /// 202: the operation is to be watched.
    fn accepted(&self, id: OperationId) -> Response {
        let document = ReferenceDocument { id: id.to_string(), href: self.operation(id) };
        self.running(json(StatusCode::ACCEPTED, &document), id)
    }

    fn running(&self, mut response: Response, id: OperationId) -> Response {
        let headers: &mut HeaderMap = response.headers_mut();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        // A URL whose parts have been checked is a header's value.
        if let Ok(location) = HeaderValue::try_from(self.operation(id)) {
            headers.insert(LOCATION, location);
        }
        response
    }
}
