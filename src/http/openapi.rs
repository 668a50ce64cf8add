//! [`openapi`]: the API's OpenAPI document, built from the types in `documents`.

use axum::http::StatusCode;
use utoipa::ToSchema;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::link::Link;
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn, PathItem, Paths,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ComponentsBuilder, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{
    ContentBuilder, Header, Info, KnownFormat, License, OpenApi, OpenApiBuilder, Ref, RefOr, Required,
    Response, ResponseBuilder, Schema,
};

use crate::http::destinations::destination_schema;
use crate::http::documents::{
    DestinationSchema, ExportRequestSchema, ListDocument, OperationDocument, ProblemDocument,
    ReferenceDocument, ResumeRequestSchema, UpdateSchema,
};
use crate::http::idempotency::MAX_KEY_LEN;
use crate::http::paging::{DEFAULT_LIMIT, MAX_LIMIT, STATUSES};
use crate::sink::DestinationType;

/// The pattern of an operation's id in a path: with or without dashes, in either case.
const ID_PATTERN: &str = "^[0-9a-fA-F]{32}$|^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$";

/// The pattern of a partition's name.
const PARTITION_PATTERN: &str = "^[A-Za-z0-9._-]{1,64}$";

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

/// The OpenAPI 3.1 document of [`router`](crate::http::router); [`ApiDescription`] describes other routers.
///
/// A server merges it into its own document with [`OpenApi::merge`] and adds its security schemes.
///
/// ```
/// let document = dicom_export::http::openapi();
/// assert!(document.paths.paths.contains_key("/v2/export"));
/// ```
pub fn openapi() -> OpenApi {
    ApiDescription::router().build()
}

/// Describes the API as a server mounts it.
///
/// ```
/// use dicom_export::http::ApiDescription;
///
/// # use dicom_export::{ExportEngine, ExportService, MemorySink, MemorySource};
/// # let engine = ExportEngine::builder(MemorySource::new()).destination("archive", MemorySink::new().provider()).build()?;
/// let document = ApiDescription::routes()
///     .nest("/tenants/{tenant}")
///     .destination_types(engine.destination_types())
///     .build();
/// let path = &document.paths.paths["/tenants/{tenant}/operations"];
/// let parameters = path.get.as_ref().and_then(|operation| operation.parameters.as_ref());
/// assert_eq!(parameters.map(Vec::len), Some(4)); // tenant, limit, continuationToken, status
/// # Ok::<_, dicom_export::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct ApiDescription {
    prefix: String,
    /// The path of each version, and the suffix of its operation ids.
    versions: &'static [(&'static str, &'static str)],
    is_partitioned: bool,
    destination_types: Vec<DestinationType>,
}

impl ApiDescription {
    const VERSIONS: [(&str, &str); 3] = [("", ""), ("/v1", "V1"), ("/v2", "V2")];

    fn new(versions: &'static [(&'static str, &'static str)], is_partitioned: bool) -> Self {
        Self { prefix: String::new(), versions, is_partitioned, destination_types: Vec::new() }
    }

    /// Describes [`http::router`](crate::http::router).
    pub fn router() -> Self {
        Self::new(&Self::VERSIONS, false)
    }

    /// Describes [`http::partition_router`](crate::http::partition_router).
    pub fn partition_router() -> Self {
        Self::new(&Self::VERSIONS, true)
    }

    /// Describes [`http::routes`](crate::http::routes).
    pub fn routes() -> Self {
        Self::new(&Self::VERSIONS[..1], false)
    }

    /// Puts the routes under a path, as [`Router::nest`](axum::Router::nest) does. Its parameters, `{name}`, are described
    /// as strings.
    pub fn nest(mut self, path: &str) -> Self {
        self.prefix.insert_str(0, path.trim_end_matches('/'));
        self
    }

    /// Sets the destination types that the server supports, usually those of its service:
    /// [`ExportService::destination_types`](crate::ExportService::destination_types). A destination is then one of several
    /// schemas, which `type` selects. Default: any text, with any settings.
    ///
    /// Names of settings are read in any case; a schema has them as they are documented.
    pub fn destination_types<T: Into<DestinationType>>(mut self, types: impl IntoIterator<Item = T>) -> Self {
        self.destination_types = types.into_iter().map(Into::into).collect();
        self
    }

    /// Builds the document.
    pub fn build(&self) -> OpenApi {
        let mut info = Info::new("DICOM export", env!("CARGO_PKG_VERSION"));
        info.description = Some(env!("CARGO_PKG_DESCRIPTION").to_owned());
        let mut license = License::new("MIT OR Apache-2.0");
        license.identifier = Some("MIT OR Apache-2.0".to_owned());
        info.license = Some(license);

        let mut paths = Paths::new();
        for (path, version) in self.versions {
            let prefix = format!("{}{path}", self.prefix);
            let mut insert = |path: String, mut item: PathItem| {
                for operation in
                    [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete].into_iter().flatten()
                {
                    let own = operation.parameters.take().unwrap_or_default();
                    let all: Vec<_> = path_parameters(&path).into_iter().map(RefOr::T).chain(own).collect();
                    operation.parameters = (!all.is_empty()).then_some(all);
                }
                paths.paths.insert(path, item);
            };
            let start = match self.is_partitioned {
                true => format!("{prefix}/partitions/{{partition}}/export"),
                false => format!("{prefix}/export"),
            };
            let operation = format!("{prefix}/operations/{{operationId}}");
            let mut at_operation = PathItem::new(HttpMethod::Get, status(version));
            at_operation.patch = Some(update(version));
            at_operation.delete = Some(cancel("cancelOperation", version));
            insert(start, PathItem::new(HttpMethod::Post, export(version, self.is_partitioned)));
            insert(format!("{prefix}/operations"), PathItem::new(HttpMethod::Get, list(version)));
            insert(
                format!("{operation}/cancel"),
                PathItem::new(HttpMethod::Post, cancel("postCancelOperation", version)),
            );
            insert(format!("{operation}/pause"), PathItem::new(HttpMethod::Post, pause(version)));
            insert(format!("{operation}/resume"), PathItem::new(HttpMethod::Post, resume(version)));
            insert(operation, at_operation);
        }

        let mut schemas: Vec<(String, RefOr<Schema>)> = Vec::new();
        add::<ExportRequestSchema>(&mut schemas);
        add::<ResumeRequestSchema>(&mut schemas);
        add::<UpdateSchema>(&mut schemas);
        add::<ReferenceDocument>(&mut schemas);
        add::<OperationDocument>(&mut schemas);
        add::<ListDocument>(&mut schemas);
        add::<ProblemDocument<'_>>(&mut schemas);
        if !self.destination_types.is_empty() {
            let (destination, variants) = destination_schema(&self.destination_types);
            schemas.retain(|(name, _)| *name != DestinationSchema::name());
            schemas.push((DestinationSchema::name().into_owned(), destination.into()));
            schemas.extend(variants);
        }
        let components = ComponentsBuilder::new().schemas_from_iter(schemas).build();
        OpenApiBuilder::new().info(info).paths(paths).components(Some(components)).build()
    }
}

/// The parameters in a path template.
fn path_parameters(path: &str) -> Vec<Parameter> {
    let names = path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    let parameter = |name: &str| {
        let text = ObjectBuilder::new().schema_type(Type::String);
        let (description, schema) = match name {
            "operationId" => (
                "The operation's id, with or without dashes, in either case.",
                text.pattern(Some(ID_PATTERN)),
            ),
            "partition" => ("The name of the partition.", text.pattern(Some(PARTITION_PATTERN))),
            _ => ("A parameter of the server's path.", text.min_length(Some(1))),
        };
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .description(Some(description))
            .schema(Some(schema))
            .build()
    };
    names.map(parameter).collect()
}

fn add<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
}

fn export(version: &str, is_partitioned: bool) -> Operation {
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

fn status(version: &str) -> Operation {
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

fn update(version: &str) -> Operation {
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

fn pause(version: &str) -> Operation {
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

fn cancel(id: &str, version: &str) -> Operation {
    let operation = OperationBuilder::new()
        .operation_id(Some(format!("{id}{version}")))
        .summary(Some("Cancel an operation"))
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
