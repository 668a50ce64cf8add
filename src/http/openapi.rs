//! [`openapi`]: the API's OpenAPI document, built from the types in `documents`.

use axum::http::StatusCode;
use utoipa::ToSchema;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::link::Link;
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, ParameterBuilder, ParameterIn, PathItem, Paths,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ComponentsBuilder, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{
    ContentBuilder, Header, Info, KnownFormat, License, OpenApi, OpenApiBuilder, Ref, RefOr, Required,
    Response, ResponseBuilder, Schema,
};

use crate::http::documents::{
    ExportRequestSchema, ListDocument, OperationDocument, ProblemDocument, ReferenceDocument,
    ResumeRequestSchema,
};
use crate::http::paging::{DEFAULT_LIMIT, MAX_LIMIT};

/// The pattern of an operation's id in a path: with or without dashes, in either case.
const ID_PATTERN: &str = "^[0-9a-fA-F]{32}$|^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$";

/// The error responses of every route.
const COMMON: [(StatusCode, &str); 5] = [
    (
        StatusCode::BAD_REQUEST,
        "The request is invalid; `pointer` names the property that is wrong, if there is one.",
    ),
    (StatusCode::UNAUTHORIZED, "The caller is not authenticated."),
    (StatusCode::FORBIDDEN, "The caller may not do this."),
    (StatusCode::INTERNAL_SERVER_ERROR, "The server failed."),
    (StatusCode::SERVICE_UNAVAILABLE, "The server is shutting down or cannot do this now."),
];
const NO_OPERATION: (StatusCode, &str) =
    (StatusCode::NOT_FOUND, "The operation does not exist, or the caller may not view it.");
const BUSY: (StatusCode, &str) =
    (StatusCode::TOO_MANY_REQUESTS, "The limit of running operations is reached.");
const BODY: [(StatusCode, &str); 3] = [
    (StatusCode::REQUEST_TIMEOUT, "The body was not received in time."),
    (StatusCode::PAYLOAD_TOO_LARGE, "The body is too large."),
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is not declared as JSON."),
];

/// The OpenAPI 3.1 document of [`router`](crate::http::router).
///
/// A server merges it into its own document with [`OpenApi::merge`], or under a prefix with [`OpenApi::nest`], and adds
/// its security schemes.
///
/// ```
/// let document = dicom_export::http::openapi();
/// assert!(document.paths.paths.contains_key("/v2/export"));
/// ```
pub fn openapi() -> OpenApi {
    let mut info = Info::new("DICOM export", env!("CARGO_PKG_VERSION"));
    info.description = Some(env!("CARGO_PKG_DESCRIPTION").to_owned());
    let mut license = License::new("MIT OR Apache-2.0");
    license.identifier = Some("MIT OR Apache-2.0".to_owned());
    info.license = Some(license);

    let mut paths = Paths::new();
    for (prefix, version) in [("", ""), ("/v1", "V1"), ("/v2", "V2")] {
        let operation = format!("{prefix}/operations/{{operationId}}");
        let mut at_operation = PathItem::new(HttpMethod::Get, status(version));
        at_operation.delete = Some(cancel(version));
        paths.paths.extend([
            (format!("{prefix}/export"), PathItem::new(HttpMethod::Post, export(version))),
            (format!("{prefix}/operations"), PathItem::new(HttpMethod::Get, list(version))),
            (format!("{operation}/resume"), PathItem::new(HttpMethod::Post, resume(version))),
            (operation, at_operation),
        ]);
    }

    let mut schemas: Vec<(String, RefOr<Schema>)> = Vec::new();
    add::<ExportRequestSchema>(&mut schemas);
    add::<ResumeRequestSchema>(&mut schemas);
    add::<ReferenceDocument>(&mut schemas);
    add::<OperationDocument>(&mut schemas);
    add::<ListDocument>(&mut schemas);
    add::<ProblemDocument<'_>>(&mut schemas);
    let components = ComponentsBuilder::new().schemas_from_iter(schemas).build();
    OpenApiBuilder::new().info(info).paths(paths).components(Some(components)).build()
}

fn add<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
}

fn export(version: &str) -> Operation {
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
        .request_body(Some(body.build()))
        .response("202", accepted("The export has started.", version));
    let no_source = (StatusCode::NOT_FOUND, "The archive, for example a tenant's, does not exist.");
    let conflict = (StatusCode::CONFLICT, "The state of the archive does not allow it.");
    with_problems(operation, COMMON.into_iter().chain(BODY).chain([no_source, conflict, BUSY]))
}

fn status(version: &str) -> Operation {
    let operation = OperationBuilder::new()
        .operation_id(Some(format!("getOperation{version}")))
        .summary(Some("Get the status of an operation"))
        .parameter(operation_id())
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

fn cancel(version: &str) -> Operation {
    let operation = OperationBuilder::new()
        .operation_id(Some(format!("cancelOperation{version}")))
        .summary(Some("Cancel an operation"))
        .parameter(operation_id())
        .response("202", accepted("The operation is being canceled.", version));
    let ended = (StatusCode::CONFLICT, "The operation has ended.");
    with_problems(operation, COMMON.into_iter().chain([NO_OPERATION, ended]))
}

fn resume(version: &str) -> Operation {
    let body = RequestBodyBuilder::new().required(Some(Required::False)).content(
        "application/json",
        ContentBuilder::new().schema(Some(reference::<ResumeRequestSchema>())).build(),
    );
    let operation = OperationBuilder::new()
        .operation_id(Some(format!("resumeOperation{version}")))
        .summary(Some("Resume a failed operation"))
        .description(Some(
            "With a `destination`, in the same container with new credentials; otherwise with the stored credentials.",
        ))
        .parameter(operation_id())
        .request_body(Some(body.build()))
        .response("202", accepted("The operation runs again.", version));
    let conflict = (
        StatusCode::CONFLICT,
        "The operation is running, completed or canceled, or it needs a `destination` with credentials.",
    );
    with_problems(operation, COMMON.into_iter().chain(BODY).chain([NO_OPERATION, conflict, BUSY]))
}

fn list(version: &str) -> Operation {
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
    let operation = OperationBuilder::new()
        .operation_id(Some(format!("listOperations{version}")))
        .summary(Some("List operations, newest first"))
        .parameter(query("limit", "The maximum number of operations in the page.", limit))
        .parameter(query(
            "continuationToken",
            "The token from the previous page.",
            ObjectBuilder::new().schema_type(Type::String),
        ))
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
        .link("resume", link("resumeOperation", "Resumes the operation if it has failed."))
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

fn operation_id() -> utoipa::openapi::path::Parameter {
    ParameterBuilder::new()
        .name("operationId")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some("The operation's id, with or without dashes, in either case."))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String).pattern(Some(ID_PATTERN))))
        .build()
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
