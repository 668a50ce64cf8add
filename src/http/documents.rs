//! The documents in responses and their schemas, and the schemas of request bodies.

use std::num::NonZeroU64;

use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::model::{
    ExportResults, Operation, OperationId, OperationIssue, OperationStatus, OperationType, Timestamp,
};

/// A version of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ApiVersion {
    /// The status of a completed operation is `completed`.
    V1,
    /// The status of a completed operation is `succeeded`.
    V2,
}

/// A JSON response that is not cached.
pub(super) fn json(status: StatusCode, document: &impl Serialize) -> Response {
    match serde_json::to_vec(document) {
        Ok(body) => {
            let headers = [
                (CONTENT_TYPE, HeaderValue::from_static("application/json")),
                (CACHE_CONTROL, HeaderValue::from_static("no-store")),
            ];
            (status, headers, body).into_response()
        }
        // Writing a document of strings and numbers does not fail.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// An accepted operation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OperationReference)]
pub(super) struct ReferenceDocument {
    /// The operation's id.
    #[schema(value_type = String, pattern = "^[0-9a-f]{32}$", example = "df1ff476b83a4a3eaf11b1eac2e5ac56")]
    pub(super) id: OperationId,
    /// The URL of the operation's status.
    #[schema(format = "uri")]
    pub(super) href: String,
}

/// The status of an operation.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Operation)]
pub(super) struct OperationDocument {
    /// The operation's id.
    #[schema(value_type = String, pattern = "^[0-9a-f]{32}$", example = "df1ff476b83a4a3eaf11b1eac2e5ac56")]
    operation_id: OperationId,
    /// Always `export`.
    r#type: OperationType,
    /// When the operation was accepted.
    #[schema(value_type = String, format = DateTime, example = "2022-09-08T16:40:36.2627618Z")]
    created_time: Timestamp,
    /// When the stored state of the operation last changed. It advances while the operation is held, also without progress.
    #[schema(value_type = String, format = DateTime, example = "2022-09-08T16:41:01.2776644Z")]
    last_updated_time: Timestamp,
    /// When the operation last made progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, nullable = false, example = "2022-09-08T16:41:00.9120336Z")]
    last_progress_time: Option<Timestamp>,
    /// The size of the exported instances in bytes.
    #[schema(required = false)]
    bytes: u64,
    /// The name of the server process that runs the operation, or ran it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    runner: Option<String>,
    /// The state of the operation.
    status: StatusDocument,
    /// Whether the running operation is paused: it continues when it is resumed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    paused: bool,
    /// The limit on the bytes of instances that the operation transfers per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = u64, required = false, minimum = 1)]
    bytes_per_second: Option<NonZeroU64>,
    /// What the operation has done so far.
    results: ExportResults,
    /// How much of the export is done, if the server can estimate it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 100, nullable = false)]
    percent_complete: Option<u8>,
    /// Why the operation failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<OperationIssue>,
    /// What the owner of the operation should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<OperationIssue>,
}

/// The state of an operation. A completed operation is `succeeded` under `/v2`, and `completed` elsewhere.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = OperationStatus)]
enum StatusDocument {
    NotStarted,
    Running,
    Completed,
    Succeeded,
    Failed,
    Canceled,
    Unknown,
}

impl StatusDocument {
    fn new(status: OperationStatus, version: ApiVersion) -> Self {
        match status {
            OperationStatus::NotStarted => Self::NotStarted,
            // The published API has no status for it.
            OperationStatus::Running | OperationStatus::Paused => Self::Running,
            OperationStatus::Completed => match version {
                ApiVersion::V1 => Self::Completed,
                ApiVersion::V2 => Self::Succeeded,
            },
            OperationStatus::Failed => Self::Failed,
            OperationStatus::Canceled => Self::Canceled,
            OperationStatus::Unknown => Self::Unknown,
        }
    }
}

impl OperationDocument {
    pub(super) fn new(operation: Operation, version: ApiVersion) -> Self {
        Self {
            operation_id: operation.operation_id,
            r#type: operation.r#type,
            created_time: operation.created_time,
            last_updated_time: operation.last_updated_time,
            last_progress_time: operation.last_progress_time,
            bytes: operation.bytes,
            runner: operation.runner,
            paused: operation.status == OperationStatus::Paused,
            bytes_per_second: operation.bytes_per_second,
            status: StatusDocument::new(operation.status, version),
            results: operation.results,
            percent_complete: operation.percent_complete,
            error: operation.error,
            warnings: operation.warnings,
        }
    }
}

/// A page of operations, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = OperationList)]
pub(super) struct ListDocument {
    /// Operations that the caller may view. There may be fewer than requested, even none, before the last page.
    pub(super) operations: Vec<OperationDocument>,
    /// The token that requests the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) continuation_token: Option<String>,
}

/// What is wrong with a request (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemDocument<'a> {
    /// Always `about:blank`: the status is the kind of problem.
    pub(super) r#type: &'a str,
    /// The status's reason phrase.
    pub(super) title: &'a str,
    /// The status code.
    #[schema(minimum = 400, maximum = 599)]
    pub(super) status: u16,
    /// A description for people.
    pub(super) detail: &'a str,
    /// The JSON pointer (RFC 6901) of the property in the request body that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) pointer: Option<&'a str>,
}

/// What to export, and its destination. Property names are case-insensitive.
#[derive(ToSchema)]
#[schema(as = ExportRequest)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used: `model::ExportRequest` reads requests")]
pub(super) struct ExportRequestSchema {
    /// Absent or `null`: everything that the server holds.
    source: Option<SourceSchema>,
    destination: DestinationSchema,
}

/// What to export.
#[derive(ToSchema)]
#[schema(as = ExportSource)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used: `model::ExportSource` reads sources")]
struct SourceSchema {
    r#type: SourceType,
    settings: IdentifiersSchema,
}

#[derive(ToSchema)]
#[schema(as = ExportSourceType)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "only its schema is used: `model::ExportSource` reads sources")]
enum SourceType {
    Identifiers,
}

#[derive(ToSchema)]
#[schema(as = Identifiers)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used: `model::ExportSource` reads sources")]
struct IdentifiersSchema {
    /// Studies, series and instances: `<study>[/<series>[/<SOP instance>]]`.
    #[schema(min_items = 1, example = json!(["1.2.3", "12.3/4.5.678", "123.456/7.8/9.1011.12"]))]
    values: Vec<IdentifierSchema>,
}

/// One to three UIDs (PS3.5 9.1) joined by `/`: a study, a series or an instance.
#[derive(ToSchema)]
#[schema(as = DicomIdentifier, pattern = r"^[0-9.]{0,63}[0-9](/[0-9.]{0,63}[0-9]){0,2}$", value_type = String)]
#[expect(dead_code, reason = "only its schema is used: `model::DicomIdentifier` reads identifiers")]
struct IdentifierSchema(String);

/// The destination of an export.
#[derive(ToSchema)]
#[schema(as = ExportDestination)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used: `model::ExportDestination` reads destinations")]
pub(super) struct DestinationSchema {
    /// A destination type of the server. The published type is `azureblob`.
    #[schema(min_length = 1, example = "azureblob")]
    r#type: String,
    /// The settings of that type, at most 64 KiB. Those of `azureblob`: `blobContainerUri`, or `connectionString` with
    /// `blobContainerName`; `useManagedIdentity`.
    #[schema(example = json!({ "blobContainerUri": "https://account.blob.core.windows.net/container", "useManagedIdentity": true }))]
    settings: Map<String, Value>,
}

/// A change to an operation, as a merge patch (RFC 7396). Property names are case-insensitive.
#[derive(ToSchema)]
#[schema(as = OperationUpdate)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(dead_code, reason = "only its schema is used: `UpdateReader` reads these requests")]
pub(super) struct UpdateSchema {
    /// The limit on the bytes of instances that the operation transfers per second. `null` removes the limit.
    #[schema(minimum = 1, example = 25_000_000)]
    bytes_per_second: Option<u64>,
}

/// How to resume an operation.
#[derive(ToSchema)]
#[schema(as = ResumeRequest)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used: `model::ExportDestination` reads these requests")]
pub(super) struct ResumeRequestSchema {
    /// The container that the operation started in, with new credentials. Absent: with the stored credentials.
    destination: Option<DestinationSchema>,
}
