//! [`openapi`]: the API's OpenAPI document, built from the types in `documents`.

use utoipa::ToSchema;
use utoipa::openapi::path::{HttpMethod, Parameter, ParameterBuilder, ParameterIn, PathItem, Paths};
use utoipa::openapi::schema::{ComponentsBuilder, ObjectBuilder, Type};
use utoipa::openapi::{Info, License, OpenApi, OpenApiBuilder, RefOr, Required, Schema};

use crate::http::destinations::destination_schema;
use crate::http::documents::{
    DestinationSchema, ExportRequestSchema, ListDocument, OperationDocument, ProblemDocument,
    ReferenceDocument, ResumeRequestSchema, UpdateSchema,
};
use crate::http::openapi_operations::{cancel, export, list, pause, resume, status, update};
use crate::sink::DestinationType;

/// The pattern of an operation's id in a path: with or without dashes, in either case.
const ID_PATTERN: &str = "^[0-9a-fA-F]{32}$|^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$";

/// The pattern of a partition's name.
const PARTITION_PATTERN: &str = "^[A-Za-z0-9._-]{1,64}$";

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
