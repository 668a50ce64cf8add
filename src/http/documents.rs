//! What goes over the wire, as types: the answers, and the schemas of the requests.

use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::http::routes::ApiVersion;
use crate::model::{Operation, OperationIssue, OperationStatus};

/// An answer of this document, which is never cached: it is about now.
pub(super) fn json(status: StatusCode, document: &impl Serialize) -> Response {
    match serde_json::to_vec(document) {
        Ok(body) => {
            let headers = [
                (CONTENT_TYPE, HeaderValue::from_static("application/json")),
                (CACHE_CONTROL, HeaderValue::from_static("no-store")),
            ];
            (status, headers, body).into_response()
        }
        // Documents of strings and numbers can always be written.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// An operation that has been accepted.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OperationReference)]
pub(super) struct ReferenceDocument {
    /// The operation's id.
    #[schema(pattern = "^[0-9a-f]{32}$", example = "df1ff476b83a4a3eaf11b1eac2e5ac56")]
    pub(super) id: String,
    /// The URL of its status.
    #[schema(format = "uri")]
    pub(super) href: String,
}

/// The status of an operation.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Operation)]
pub(super) struct OperationDocument {
    /// The operation's id.
    #[schema(pattern = "^[0-9a-f]{32}$", example = "df1ff476b83a4a3eaf11b1eac2e5ac56")]
    operation_id: String,
    /// Always `export`.
    r#type: TypeDocument,
    /// When it was accepted.
    #[schema(format = DateTime, pattern = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z$", example = "2022-09-08T16:40:36.2627618Z")]
    created_time: String,
    /// When its stored state last changed.
    #[schema(format = DateTime, pattern = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z$", example = "2022-09-08T16:41:01.2776644Z")]
    last_updated_time: String,
    /// Where it stands.
    status: StatusDocument,
    /// What it has done so far.
    results: ResultsDocument,
    /// How much of it is done, when the server can estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 100, nullable = false)]
    percent_complete: Option<u8>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<NoteDocument>,
    /// What its owner should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<NoteDocument>,
}

/// What an operation does.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = OperationType)]
enum TypeDocument {
    Export,
}

/// Where an operation stands. One that has completed is `succeeded` under `/v2`, and `completed` elsewhere.
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

/// What an operation has done so far.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ExportResults)]
struct ResultsDocument {
    /// The URL of `errors.log`, without a credential.
    #[schema(format = "uri")]
    error_href: String,
    /// Instances that are in the container.
    exported: u64,
    /// What is named in `errors.log` instead.
    skipped: u64,
}

/// A code for programs and a message for people.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OperationIssue)]
struct NoteDocument {
    code: String,
    message: String,
}

/// A page of operations, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = OperationList)]
pub(super) struct ListDocument {
    /// The operations that the caller may see. There may be fewer than asked for, even none, with more on the next page.
    pub(super) operations: Vec<OperationDocument>,
    /// Asks for the next page; absent: there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) continuation_token: Option<String>,
}

/// What is wrong with a request (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemDocument<'a> {
    /// Always `about:blank`: the status says what kind of problem it is.
    pub(super) r#type: &'a str,
    /// The status's phrase.
    pub(super) title: &'a str,
    /// The status again.
    #[schema(minimum = 400, maximum = 599)]
    pub(super) status: u16,
    /// Which problem it is, for people.
    pub(super) detail: &'a str,
    /// The JSON pointer (RFC 6901) of the property that is wrong, in the request's body.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) pointer: Option<&'a str>,
}

/// What is exported, and where to. Property names are read in any case.
#[derive(ToSchema)]
#[schema(as = ExportRequest)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used: the core reads requests")]
pub(super) struct ExportRequestSchema {
    /// Absent or `null`: everything that the server holds.
    source: Option<SourceSchema>,
    destination: DestinationSchema,
}

/// What is exported.
#[derive(ToSchema)]
#[schema(as = ExportSource)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used: the core reads requests")]
struct SourceSchema {
    r#type: SourceType,
    settings: IdentifiersSchema,
}

#[derive(ToSchema)]
#[schema(as = ExportSourceType)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "only its schema is used: the core reads requests")]
enum SourceType {
    Identifiers,
}

#[derive(ToSchema)]
#[schema(as = Identifiers)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used: the core reads requests")]
struct IdentifiersSchema {
    /// Studies, series and instances: `<study>[/<series>[/<SOP instance>]]`.
    #[schema(min_items = 1, example = json!(["1.2.3", "12.3/4.5.678", "123.456/7.8/9.1011.12"]))]
    values: Vec<IdentifierSchema>,
}

/// One to three UIDs (PS3.5 9.1) joined by `/`: a study, a series, an instance.
#[derive(ToSchema)]
#[schema(as = DicomIdentifier, pattern = r"^[0-9.]{0,63}[0-9](/[0-9.]{0,63}[0-9]){0,2}$", value_type = String)]
#[expect(dead_code, reason = "only its schema is used: the core reads requests")]
struct IdentifierSchema(String);

/// Where to.
#[derive(ToSchema)]
#[schema(as = ExportDestination)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used: the core reads requests")]
pub(super) struct DestinationSchema {
    /// A destination type of the server's: `azureblob` is the published one.
    #[schema(min_length = 1, example = "azureblob")]
    r#type: String,
    /// The settings of that type. Those of `azureblob`: `blobContainerUri`, or `connectionString` with
    /// `blobContainerName`; `useManagedIdentity`.
    #[schema(example = json!({ "blobContainerUri": "https://account.blob.core.windows.net/container", "useManagedIdentity": true }))]
    settings: Map<String, Value>,
}

/// How an operation goes on.
#[derive(ToSchema)]
#[schema(as = ResumeRequest)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct ResumeRequestSchema {
    /// The container that the operation began in, with other credentials. Absent: with those that are stored.
    destination: Option<DestinationSchema>,
}

impl OperationDocument {
    pub(super) fn new(operation: &Operation, version: ApiVersion) -> Self {
        Self {
            operation_id: operation.operation_id.to_string(),
            r#type: TypeDocument::Export,
            created_time: operation.created_time.to_string(),
            last_updated_time: operation.last_updated_time.to_string(),
            status: match (operation.status, version) {
                (OperationStatus::NotStarted, _) => StatusDocument::NotStarted,
                (OperationStatus::Running, _) => StatusDocument::Running,
                (OperationStatus::Completed, ApiVersion::V1) => StatusDocument::Completed,
                (OperationStatus::Completed, ApiVersion::V2) => StatusDocument::Succeeded,
                (OperationStatus::Failed, _) => StatusDocument::Failed,
                (OperationStatus::Canceled, _) => StatusDocument::Canceled,
                (OperationStatus::Unknown, _) => StatusDocument::Unknown,
            },
            results: ResultsDocument {
                error_href: operation.results.error_href.clone(),
                exported: operation.results.exported,
                skipped: operation.results.skipped,
            },
            percent_complete: operation.percent_complete,
            error: operation.error.as_ref().map(NoteDocument::from),
            warnings: operation.warnings.iter().map(NoteDocument::from).collect(),
        }
    }
}

impl From<&OperationIssue> for NoteDocument {
    fn from(note: &OperationIssue) -> Self {
        Self { code: note.code.clone(), message: note.message.clone() }
    }
}
