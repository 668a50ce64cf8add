//! The query of `GET /operations`, and its continuation token.

use axum::extract::Query;
use axum::http::StatusCode;
use axum::http::Uri;
use serde::Deserialize;

use crate::http::problem::Problem;
use crate::model::{OperationId, OperationKey, OperationStatus, Timestamp};

/// The page size if the client does not state one.
pub(super) const DEFAULT_LIMIT: usize = 100;

/// The largest page size.
pub(super) const MAX_LIMIT: usize = 1000;

/// The names of statuses in both versions of the API.
pub(super) const STATUSES: [(&str, OperationStatus); 8] = [
    ("notStarted", OperationStatus::NotStarted),
    ("running", OperationStatus::Running),
    ("paused", OperationStatus::Paused),
    ("completed", OperationStatus::Completed),
    ("succeeded", OperationStatus::Completed),
    ("failed", OperationStatus::Failed),
    ("canceled", OperationStatus::Canceled),
    ("unknown", OperationStatus::Unknown),
];

/// The page that a client requests.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Paging {
    pub(super) limit: usize,
    pub(super) after: Option<OperationKey>,
    /// Only operations with this status.
    pub(super) status: Option<OperationStatus>,
}

impl Paging {
    /// Reads a request's query and ignores unknown parameters.
    pub(super) fn read(uri: &Uri) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Parameters {
            limit: Option<String>,
            continuation_token: Option<String>,
            status: Option<String>,
        }
        let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST).with_detail(detail);
        let Query(parameters) = Query::<Parameters>::try_from_uri(uri).map_err(|_| {
            bad("'limit', 'continuationToken' and 'status' can be given once each".to_owned())
        })?;
        let limit = match parameters.limit {
            None => DEFAULT_LIMIT,
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=MAX_LIMIT).contains(limit))
                .ok_or_else(|| bad(format!("'limit' must be a whole number from 1 to {MAX_LIMIT}")))?,
        };
        let after = match parameters.continuation_token {
            None => None,
            Some(token) => Some(
                from_token(&token)
                    .ok_or_else(|| bad("'continuationToken' was not issued by this server".to_owned()))?,
            ),
        };
        let status =
            parameters.status.map(|text| status(&text).ok_or_else(|| bad(status_error()))).transpose()?;
        Ok(Self { limit, after, status })
    }
}

/// A status by its name in either version of the API, in any case.
fn status(name: &str) -> Option<OperationStatus> {
    STATUSES.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, status)| status)
}

fn status_error() -> String {
    format!("'status' must be one of {}", STATUSES.map(|(name, _)| name).join(", "))
}

/// A position in the listing as text for a URL: the time in units of 100 ns, which is its precision, and the id.
pub(super) fn token(key: OperationKey) -> String {
    let time = key.created_time.to_utc();
    let ticks = i128::from(time.timestamp()) * 10_000_000 + i128::from(time.timestamp_subsec_nanos() / 100);
    format!("{ticks}.{}", key.id)
}

fn from_token(token: &str) -> Option<OperationKey> {
    let (ticks, id) = token.split_once('.')?;
    let ticks: i128 = ticks.parse().ok()?;
    let seconds = i64::try_from(ticks.div_euclid(10_000_000)).ok()?;
    let nanoseconds = u32::try_from(ticks.rem_euclid(10_000_000) * 100).ok()?;
    let created_time = Timestamp::try_from(chrono::DateTime::from_timestamp(seconds, nanoseconds)?).ok()?;
    Some(OperationKey { created_time, id: id.parse::<OperationId>().ok()? })
}
