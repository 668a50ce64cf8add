//! The operations of the OpenAPI document: their parameters, bodies and responses.

use axum::http::StatusCode;
use utoipa::ToSchema;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::link::Link;
use utoipa::openapi::path::{Operation, OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{ContentBuilder, Header, KnownFormat, Ref, Required, Response, ResponseBuilder};

use crate::http::documents::{
    ExportRequestSchema, ListDocument, OperationDocument, ProblemDocument, ReferenceDocument,
    ResumeRequestSchema, UpdateSchema,
};
use crate::http::idempotency::MAX_KEY_LEN;
use crate::http::paging::{DEFAULT_LIMIT, MAX_LIMIT, STATUSES};

/// The error responses of every route.
const COMMON: [(StatusCode, &str); 6] = [
    (
        StatusCode::BAD_REQUEST,
        "The request is invalid; `pointer` names the property that is wrong, if there is one.",
    ),
    (StatusCode::UNAUTHORIZED, "The caller is not authenticated."),
    (StatusCode::FORBIDDEN, "The caller may not do this."),
    (StatusCode::TOO_MANY_REQUESTS, "A quota of the caller, or the limit of running operations, is reached."),
    (StatusCode::INTERNAL_SERVER_ERROR, "The server failed."),
    (StatusCode::SERVICE_UNAVAILABLE, "The server is shutting down or cannot do this now."),
];
const NO_OPERATION: (StatusCode, &str) =
    (StatusCode::NOT_FOUND, "The operation does not exist, or the caller may not view it.");
const BODY: [(StatusCode, &str); 3] = [
    (StatusCode::REQUEST_TIMEOUT, "The body was not received in time."),
    (StatusCode::PAYLOAD_TOO_LARGE, "The body is too large."),
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is not declared as JSON."),
];

pub(super) fn export(version: &str, is_partitioned: bool) -> Operation {
    let key = ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "A repetition of the request with the same key gets the operation that it has started, as long as that is \
             stored.",
        ))
        .schema(Some(
            ObjectBuilder::new()
                .schema_type(Type::String)
                .pattern(Some("^[!-~]+$"))
                .min_length(Some(1))
                .max_length(Some(MAX_KEY_LEN)),
        ))
        .build();
    let body = RequestBodyBuilder::new().required(Some(Required::True)).content(
        "application/json",
        ContentBuilder::new().schema(Some(reference::<ExportRequestSchema>())).build(),
    );
    let operation = OperationBuilder::new()
        .operation_id(Some(format!("export{version}")))
        .summary(Some("Start an export"))
        .description(Some(
            "The response is sent after the destination has been tested: it contains an empty errors.log. Instances are \
             written to `<operation id>/results/<study>/<series>/<SOP instance>.dcm`. Property names are \
             case-insensitive, and `sources` is read as `source`.",
        ))
        .parameter(key)
        .request_body(Some(body.build()))
        .response("202", accepted("The export has started.", version));
    // In a partitioned API, an unknown partition is a 400.
    let missing = (!is_partitioned)
        .then_some((StatusCode::NOT_FOUND, "The archive, for example a tenant's, does not exist."));
    let reused =
        (StatusCode::UNPROCESSABLE_ENTITY, "The `Idempotency-Key` was used for a request with another body.");
    let conflict = (StatusCode::CONFLICT, "The state of the archive does not allow it.");
    with_problems(operation, COMMON.into_iter().chain(BODY).chain(missing).chain([conflict, reused]))
}

pub(super) fn status(version: &str) -> Operation {
    let operation = OperationBuilder::new()
        .operation_id(Some(format!("getOperation{version}")))
        .summary(Some("Get the status of an operation"))
        .response("200", success::<OperationDocument>("The operation has ended.").build())
        .response(
            "202",
            success::<OperationDocument>("The operation is running or about to run.")
                .header("Location", location())
                .header("Retry-After", retry_after())
                .build(),
        );
    with_problems(operation, COMMON.into_iter().chain([NO_OPERATION]))
}

pub(super) fn update(version: &str) -> Operation {
    let body = RequestBodyBuilder::new()
        .required(Some(Required::True))
        .content("application/json", ContentBuilder::new().schema(Some(reference::<UpdateSchema>())).build());
    let operation = OperationBuilder::new()
        .operation_id(Some(format!("updateOperation{version}")))
        .summary(Some("Limit the bytes per second of an operation"))
        .request_body(Some(body.build()))
        .response("200", success::<OperationDocument>("The operation is changed.").build());
    let ended = (StatusCode::CONFLICT, "The operation has ended, or the server does not limit operations.");
    with_problems(operation, COMMON.into_iter().chain(BODY).chain([NO_OPERATION, ended]))
}

pub(super) fn pause(version: &str) -> Operation {
    let operation = OperationBuilder::new()
        .operation_id(Some(format!("pauseOperation{version}")))
        .summary(Some("Pause an operation"))
        .description(Some(
            "The operation stops within seconds, and then has `paused` in its status document. It stays paused until it is \
             resumed or canceled.",
        ))
        .response("202", accepted("The operation is being paused, or is paused already.", version));
    let ended = (StatusCode::CONFLICT, "The operation has ended, or the server does not pause operations.");
    with_problems(operation, COMMON.into_iter().chain([NO_OPERATION, ended]))
}

pub(super) fn cancel(id: &str, version: &str) -> Operation {
    let operation = OperationBuilder::new()
        .operation_id(Some(format!("{id}{version}")))
        .summary(Some("Cancel an operation"))
        .response("202", accepted("The operation is being canceled.", version));
    let ended = (StatusCode::CONFLICT, "The operation has ended.");
    with_problems(operation, COMMON.into_iter().chain([NO_OPERATION, ended]))
}

pub(super) fn resume(version: &str) -> Operation {
    let body = RequestBodyBuilder::new().required(Some(Required::False)).content(
        "application/json",
        ContentBuilder::new().schema(Some(reference::<ResumeRequestSchema>())).build(),
    );
    let operation = OperationBuilder::new()
        .operation_id(Some(format!("resumeOperation{version}")))
        .summary(Some("Resume a failed or paused operation"))
        .description(Some(
            "With a `destination`, in the same container with new credentials; otherwise with the stored credentials.",
        ))
        .request_body(Some(body.build()))
        .response("202", accepted("The operation runs again.", version));
    let conflict = (
        StatusCode::CONFLICT,
        "The operation is running, completed or canceled, or it needs a `destination` with credentials.",
    );
    with_problems(operation, COMMON.into_iter().chain(BODY).chain([NO_OPERATION, conflict]))
}

pub(super) fn list(version: &str) -> Operation {
    let limit = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(1))
        .maximum(Some(MAX_LIMIT))
        .default(Some(DEFAULT_LIMIT.into()));
    let query = |name: &str, description: &str, schema: ObjectBuilder| {
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Query)
            .required(Required::False)
            .description(Some(description))
            .schema(Some(schema))
            .build()
    };
    let statuses =
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(STATUSES.map(|(name, _)| name)));
    let operation = OperationBuilder::new()
        .operation_id(Some(format!("listOperations{version}")))
        .summary(Some("List operations, newest first"))
        .parameter(query("limit", "The maximum number of operations in the page.", limit))
        .parameter(query(
            "continuationToken",
            "The token from the previous page.",
            ObjectBuilder::new().schema_type(Type::String),
        ))
        .parameter(query("status", "Only operations with this status.", statuses))
        .response("200", success::<ListDocument>("A page of operations that the caller may view.").build());
    with_problems(operation, COMMON)
}

/// A 202 whose body and `Location` refer to the operation.
fn accepted(description: &str, version: &str) -> Response {
    let link = |operation: &str, description: &str| {
        let link = Link::builder().operation_id(format!("{operation}{version}"));
        link.parameter("operationId", "$response.body#/id").description(description).build()
    };
    success::<ReferenceDocument>(description)
        .header("Location", location())
        .header("Retry-After", retry_after())
        .link("status", link("getOperation", "Gets the status of the operation."))
        .link("cancel", link("cancelOperation", "Cancels the operation."))
        .link("pause", link("pauseOperation", "Pauses the operation."))
        .link("resume", link("resumeOperation", "Resumes the operation if it has failed or is paused."))
        .build()
}

fn success<T: ToSchema>(description: &str) -> ResponseBuilder {
    let content = ContentBuilder::new().schema(Some(reference::<T>())).build();
    ResponseBuilder::new().description(description).content("application/json", content)
}

fn with_problems(
    operation: OperationBuilder,
    problems: impl IntoIterator<Item = (StatusCode, &'static str)>,
) -> Operation {
    let add = |operation: OperationBuilder, (status, description): (StatusCode, &str)| {
        let content = ContentBuilder::new().schema(Some(reference::<ProblemDocument<'_>>())).build();
        let problem =
            ResponseBuilder::new().description(description).content("application/problem+json", content);
        let problem = match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                problem.header("Retry-After", retry_after())
            }
            StatusCode::UNAUTHORIZED => problem
                .header("WWW-Authenticate", Header::new(ObjectBuilder::new().schema_type(Type::String))),
            _ => problem,
        };
        operation.response(status.as_str(), problem.build())
    };
    problems.into_iter().fold(operation, add).build()
}

fn location() -> Header {
    let uri =
        ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::Custom("uri".to_owned())));
    HeaderBuilder::new().schema(Some(uri)).description(Some("The URL of the operation's status.")).build()
}

fn retry_after() -> Header {
    let seconds = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .minimum(Some(0));
    HeaderBuilder::new().schema(Some(seconds)).description(Some("The number of seconds to wait.")).build()
}

fn reference<T: ToSchema>() -> Ref {
    Ref::from_schema_name(T::name())
}
