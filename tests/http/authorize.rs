//! Authorization: a bearer token names a tenant, and each tenant has a path prefix.

use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::{FromRequestParts, Path};
use axum::http::StatusCode as Status;
use axum::http::header::{AUTHORIZATION, HeaderValue};
use axum::http::request::Parts;
use dicom_export::http::{self, ApiVersion, Authorize, HttpOptions, Rejection};
use dicom_export::{ExportDestination, ExportRequest, OperationContext, OperationRecord};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::Deserialize;
use serde_json::json;

use crate::support::{GatedSink, Server, archive, azure_destination, engine, export_everything, export_of};

struct Tenants;

#[derive(Clone)]
struct Caller {
    tenant: String,
    reads_only: bool,
}

#[derive(Deserialize)]
struct Prefix {
    partition: String,
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        let rejection = |detail| Rejection::unauthenticated(HeaderValue::from_static("Bearer"), detail);
        let token = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        match token.and_then(|token| token.strip_prefix("Bearer ")).map(|token| token.split_once('.')) {
            Some(Some((tenant, rights))) => {
                Ok(Self { tenant: tenant.to_owned(), reads_only: rights == "read" })
            }
            Some(None) => Err(rejection("the bearer token is invalid")),
            None => Err(rejection("a bearer token is required")),
        }
    }
}

fn caller(parts: &Parts) -> Result<Caller, Rejection> {
    parts.extensions.get().cloned().ok_or_else(|| Rejection::unavailable("the caller is not known"))
}

#[async_trait]
impl Authorize for Tenants {
    async fn authenticate(&self, parts: &mut Parts) -> Result<(), Rejection> {
        let caller = Caller::from_request_parts(parts, &()).await?;
        let Path(prefix) = Path::<Prefix>::from_request_parts(parts, &())
            .await
            .map_err(|_| Rejection::forbidden("no partition"))?;
        if prefix.partition != caller.tenant {
            return Err(Rejection::forbidden("another tenant's partition"));
        }
        parts.extensions.insert(caller);
        Ok(())
    }

    async fn start(
        &self,
        parts: &mut Parts,
        _: &ExportRequest,
        location: &str,
    ) -> Result<OperationContext, Rejection> {
        let caller = caller(parts)?;
        if caller.reads_only {
            return Err(Rejection::forbidden("the token may only read"));
        }
        if location == "https://other.example/export" {
            return Err(Rejection::forbidden("the tenant may not use this destination"));
        }
        Ok(OperationContext::default().with_partition(caller.tenant).with_caller("me"))
    }

    async fn view(&self, parts: &mut Parts, record: &OperationRecord) -> Result<(), Rejection> {
        match record.context.partition == Some(caller(parts)?.tenant) {
            true => Ok(()),
            false => Err(Rejection::forbidden("the operation belongs to another tenant")),
        }
    }

    async fn cancel(&self, parts: &mut Parts, _: &OperationRecord) -> Result<(), Rejection> {
        match caller(parts)?.reads_only {
            true => Err(Rejection::forbidden("the token may only read")),
            false => Ok(()),
        }
    }

    async fn resume(
        &self,
        parts: &mut Parts,
        record: &OperationRecord,
        destination: Option<&ExportDestination>,
    ) -> Result<(), Rejection> {
        if destination.is_some() {
            return Err(Rejection::forbidden("the tenant may not change the destination"));
        }
        self.cancel(parts, record).await
    }
}

async fn serve(sink: &GatedSink) -> Server {
    let engine = engine(archive(3), sink.clone());
    let routes = http::routes(engine, HttpOptions::new().authorize(Tenants), ApiVersion::V1);
    Server::serve(Router::new().nest("/v1/partitions/{partition}", routes)).await
}

fn with(request: RequestBuilder, token: &str) -> RequestBuilder {
    request.bearer_auth(token)
}

#[tokio::test]
async fn a_request_without_a_token_is_401_before_anything_is_read() {
    let mut server = serve(&GatedSink::new(true)).await;
    server.prefix = "/v1/partitions/north".to_owned();
    let path = |rest: &str| format!("/v1/partitions/north{rest}");
    // The body is not read, and the operation is not looked up.
    let unread =
        server.request(Method::POST, &path("/export")).header("content-type", "text/plain").body("no");
    let response = server.send(unread).await;
    assert_eq!(response.assert_problem(401), "a bearer token is required");
    assert_eq!(response.header("www-authenticate"), "Bearer");
    for rest in ["/operations", "/operations/1", "/operations/00000000000000000000000000000000"] {
        server.get(&path(rest)).await.assert_problem(401);
    }
    let other = with(server.request(Method::POST, &path("/export")).json(&export_everything()), "south.all");
    assert_eq!(server.send(other).await.assert_problem(403), "another tenant's partition");
}

#[tokio::test]
async fn a_tenant_sees_only_its_own_operations() {
    let sink = GatedSink::new(false);
    let mut server = serve(&sink).await;
    let mut ids = Vec::new();
    for tenant in ["north", "south", "north", "south"] {
        server.prefix = format!("/v1/partitions/{tenant}");
        let path = format!("{}/export", server.prefix);
        let request = server.request(Method::POST, &path).json(&export_of(json!(["1.2.0"])));
        let response = server.send(with(request, &format!("{tenant}.all"))).await;
        assert_eq!(response.status, StatusCode::ACCEPTED, "{response:?}");
        ids.push(response.body["id"].as_str().unwrap().to_owned());
    }
    server.prefix = "/v1/partitions/north".to_owned();
    let ask = |method: Method, rest: String| {
        let request = server.request(method, &format!("/v1/partitions/north{rest}"));
        server.send(with(request, "north.all"))
    };
    assert_eq!(ask(Method::GET, format!("/operations/{}", ids[0])).await.status, StatusCode::ACCEPTED);
    // The response for another tenant's operation is that for an unknown one.
    let unknown = ask(Method::GET, "/operations/00000000000000000000000000000000".to_owned()).await;
    let routes = [
        (Method::GET, ""),
        (Method::DELETE, ""),
        (Method::PATCH, ""),
        (Method::POST, "/cancel"),
        (Method::POST, "/pause"),
        (Method::POST, "/resume"),
    ];
    for (method, rest) in routes {
        let hidden = ask(method, format!("/operations/{}{rest}", ids[1])).await;
        hidden.assert_problem(404);
        assert_eq!(hidden.body, unknown.body);
    }
    // A listing fills its pages with visible operations.
    let page = ask(Method::GET, "/operations?limit=1".to_owned()).await.body;
    assert_eq!(page["operations"][0]["operationId"], ids[2]);
    let token = page["continuationToken"].as_str().unwrap();
    let page = ask(Method::GET, format!("/operations?limit=1&continuationToken={token}")).await.body;
    assert_eq!(page["operations"][0]["operationId"], ids[0]);

    let read_only = |method: Method, rest: &str, body: serde_json::Value| {
        let request = server.request(method, &format!("/v1/partitions/north{rest}")).json(&body);
        server.send(with(request, "north.read"))
    };
    let operation = format!("/operations/{}", ids[0]);
    assert_eq!(read_only(Method::GET, &operation, json!({})).await.status, StatusCode::ACCEPTED);
    read_only(Method::DELETE, &operation, json!({})).await.assert_problem(403);
    for rest in ["/cancel", "/pause", "/resume"] {
        read_only(Method::POST, &format!("{operation}{rest}"), json!({})).await.assert_problem(403);
    }
    read_only(Method::PATCH, &operation, json!({ "bytesPerSecond": 1 })).await.assert_problem(403);
    let rejected = read_only(Method::POST, "/export", export_everything()).await;
    assert_eq!(rejected.assert_problem(403), "the token may only read");
    // A check of the settings would not find the second spelling.
    for name in ["blobContainerUri", "BLOBCONTAINERURI"] {
        let settings = json!({ name: "https://other.example/export" });
        let elsewhere = json!({ "destination": { "type": "azureblob", "settings": settings } });
        let request = server.request(Method::POST, "/v1/partitions/north/export").json(&elsewhere);
        let rejected = server.send(with(request, "north.all")).await;
        assert_eq!(rejected.assert_problem(403), "the tenant may not use this destination");
    }
    let request = server.request(Method::POST, &format!("/v1/partitions/north{operation}/resume"));
    let request = request.json(&json!({ "destination": azure_destination() }));
    assert_eq!(
        server.send(with(request, "north.all")).await.assert_problem(403),
        "the tenant may not change the destination"
    );
}

#[tokio::test]
async fn a_decision_that_cannot_be_made_is_503() {
    struct Down;
    #[async_trait]
    impl Authorize for Down {
        async fn start(
            &self,
            _: &mut Parts,
            _: &ExportRequest,
            _: &str,
        ) -> Result<OperationContext, Rejection> {
            Ok(OperationContext::default())
        }

        async fn view(&self, _: &mut Parts, _: &OperationRecord) -> Result<(), Rejection> {
            Err(Rejection::unavailable("the directory does not respond"))
        }
    }
    let server =
        Server::start(&engine(archive(3), GatedSink::new(true)), HttpOptions::new().authorize(Down)).await;
    let id = server.export("/v1/export", &export_everything()).await;
    for path in [format!("/v1/operations/{id}"), "/v1/operations".to_owned()] {
        let response = server.get(&path).await;
        assert_eq!(response.assert_problem(503), "the directory does not respond");
        assert_eq!(response.header("retry-after"), "5");
    }
}

/// Rejects starts with this rejection, and views with another.
struct Rejecting(Rejection, Rejection);

#[async_trait]
impl Authorize for Rejecting {
    async fn start(
        &self,
        _: &mut Parts,
        request: &ExportRequest,
        _: &str,
    ) -> Result<OperationContext, Rejection> {
        match request.source().is_everything() {
            true => Ok(OperationContext::default()),
            false => Err(self.0.clone()),
        }
    }

    async fn view(&self, _: &mut Parts, _: &OperationRecord) -> Result<(), Rejection> {
        Err(self.1.clone())
    }
}

#[tokio::test]
async fn a_rejection_has_any_4xx_status_and_headers() {
    let quota = Rejection::too_many_requests(Duration::from_millis(59_001), "five exports run already");
    let cases = [
        (quota.clone(), 429, Some("60")),
        (Rejection::new(Status::CONFLICT, "not now"), 409, None),
        (Rejection::new(Status::BAD_REQUEST, "no such tenant"), 400, None),
        // Not a rejection.
        (Rejection::new(Status::OK, "secret"), 500, None),
    ];
    for (rejection, status, retry_after) in cases {
        let authorize = Rejecting(rejection, quota.clone());
        let options = HttpOptions::new().authorize(authorize);
        let server = Server::start(&engine(archive(3), GatedSink::new(true)), options).await;
        let rejected = server.post("/v1/export", &export_of(json!(["1.2.0"]))).await;
        assert_ne!(rejected.assert_problem(status), "secret");
        assert_eq!(rejected.headers.get("retry-after").map(|value| value.to_str().unwrap()), retry_after);
        // A quota is not hidden as an unknown operation.
        let id = server.export("/v1/export", &export_everything()).await;
        let limited = server.get(&format!("/v1/operations/{id}")).await;
        assert_eq!(
            (limited.assert_problem(429), limited.header("retry-after")),
            ("five exports run already", "60")
        );
    }
}
