//! [`openapi`]: the API as an OpenAPI document, made of the types in `documents`.

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
use crate::http::paging::{DEFAULT_LIMIT, LARGEST_LIMIT};

/// What an operation's id looks like in a path: with or without dashes, in either case.
const ID: &str = "^[0-9a-fA-F]{32}$|^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$";

/// What every route answers when it cannot do its work.
const ANYWHERE: [(StatusCode, &str); 5] = [
    (StatusCode::BAD_REQUEST, "The request is wrong; `pointer` names the property, if it is one's fault."),
    (StatusCode::UNAUTHORIZED, "The server does not know who asks."),
    (StatusCode::FORBIDDEN, "The server does not allow it."),
    (StatusCode::INTERNAL_SERVER_ERROR, "The server failed."),
    (StatusCode::SERVICE_UNAVAILABLE, "The server is shutting down, or cannot do it at the moment."),
];
const NO_OPERATION: (StatusCode, &str) =
    (StatusCode::NOT_FOUND, "There is no such operation, or the caller may not see it.");
const BUSY: (StatusCode, &str) =
    (StatusCode::TOO_MANY_REQUESTS, "As many operations run as the server allows.");
const BODY: [(StatusCode, &str); 3] = [
    (StatusCode::REQUEST_TIMEOUT, "The body did not come in time."),
    (StatusCode::PAYLOAD_TOO_LARGE, "The body is too large."),
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is not said to be JSON."),
];

/// The API that [`router`](crate::http::router) serves, as an OpenAPI 3.1 document.
///
/// A server merges it into its own document with [`OpenApi::merge`], below a prefix with [`OpenApi::nest`]; what its
/// clients authenticate with is for it to add.
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
            "The answer comes once the destination has been tried: it holds an empty errors.log. Instances land in \
             `<operation id>/results/<study>/<series>/<SOP instance>.dcm`. Property names are read in any case, and \
             `sources` as `source`.",
        ))
        .request_body(Some(body.build()))
        .response("202", accepted("The export has started.", version));
    let no_source = (StatusCode::NOT_FOUND, "The server has no such archive: a tenant's, say.");
    let refused = (StatusCode::CONFLICT, "The state of the server's archive does not allow it.");
    problems(operation, ANYWHERE.into_iter().chain(BODY).chain([no_source, refused, BUSY]))
}

fn status(version: &str) -> Operation {
    let operation = OperationBuilder::new()
        .operation_id(Some(format!("getOperation{version}")))
        .summary(Some("See where an operation stands"))
        .parameter(operation_id())
        .response("200", answer::<OperationDocument>("It has ended.").build())
        .response(
            "202",
            answer::<OperationDocument>("It is running, or about to.")
                .header("Location", location())
                .header("Retry-After", retry_after())
                .build(),
        );
    problems(operation, ANYWHERE.into_iter().chain([NO_OPERATION]))
}

fn cancel(version: &str) -> Operation {
    let operation = OperationBuilder::new()
        .operation_id(Some(format!("cancelOperation{version}")))
        .summary(Some("Cancel an operation"))
        .parameter(operation_id())
        .response("202", accepted("It winds down; its status says when it has ended.", version));
    let ended = (StatusCode::CONFLICT, "It has ended.");
    problems(operation, ANYWHERE.into_iter().chain([NO_OPERATION, ended]))
}

fn resume(version: &str) -> Operation {
    let body = RequestBodyBuilder::new().required(Some(Required::False)).content(
        "application/json",
        ContentBuilder::new().schema(Some(reference::<ResumeRequestSchema>())).build(),
    );
    let operation = OperationBuilder::new()
        .operation_id(Some(format!("resumeOperation{version}")))
        .summary(Some("Go on with a failed operation"))
        .description(Some(
            "With a `destination`, in the same container with other credentials; without, with those that are stored.",
        ))
        .parameter(operation_id())
        .request_body(Some(body.build()))
        .response("202", accepted("It goes on.", version));
    let stuck = (
        StatusCode::CONFLICT,
        "It runs, or has completed or been canceled; or it needs a `destination` with credentials.",
    );
    problems(operation, ANYWHERE.into_iter().chain(BODY).chain([NO_OPERATION, stuck, BUSY]))
}

fn list(version: &str) -> Operation {
    let limit = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(1))
        .maximum(Some(LARGEST_LIMIT))
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
        .parameter(query("limit", "How many at most.", limit))
        .parameter(query(
            "continuationToken",
            "The one of the page before, as it was given.",
            ObjectBuilder::new().schema_type(Type::String),
        ))
        .response("200", answer::<ListDocument>("A page of the operations that the caller may see.").build());
    problems(operation, ANYWHERE)
}

/// A 202 whose body and `Location` lead to the operation.
fn accepted(description: &str, version: &str) -> Response {
    let link = |operation: &str, description: &str| {
        let link = Link::builder().operation_id(format!("{operation}{version}"));
        link.parameter("operationId", "$response.body#/id").description(description).build()
    };
    answer::<ReferenceDocument>(description)
        .header("Location", location())
        .header("Retry-After", retry_after())
        .link("status", link("getOperation", "Where the operation stands."))
        .link("cancel", link("cancelOperation", "Cancels the operation."))
        .link("resume", link("resumeOperation", "Goes on with the operation when it has failed."))
        .build()
}

fn answer<T: ToSchema>(description: &str) -> ResponseBuilder {
    let content = ContentBuilder::new().schema(Some(reference::<T>())).build();
    ResponseBuilder::new().description(description).content("application/json", content)
}

fn problems(
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
        .schema(Some(ObjectBuilder::new().schema_type(Type::String).pattern(Some(ID))))
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
    HeaderBuilder::new().schema(Some(seconds)).description(Some("How many seconds to wait.")).build()
}

fn reference<T: ToSchema>() -> Ref {
    Ref::from_schema_name(T::name())
}
