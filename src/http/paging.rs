//! The query of a listing, and the token that continues one.

use axum::extract::Query;
use axum::http::StatusCode;
use axum::http::Uri;
use serde::Deserialize;

use crate::http::problem::Problem;
use crate::model::OperationId;
use crate::model::OperationKey;
use crate::model::Timestamp;

/// The page size, unless the client asks for another.
pub(super) const DEFAULT_LIMIT: usize = 100;

/// The largest page.
pub(super) const LARGEST_LIMIT: usize = 1000;

/// What a client asks of a listing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Paging {
    pub(super) limit: usize,
    pub(super) after: Option<OperationKey>,
}

impl Paging {
    /// Reads a request's query; names that are not known are left to others.
    pub(super) fn read(uri: &Uri) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Stated {
            limit: Option<String>,
            continuation_token: Option<String>,
        }
        let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST).with_detail(detail);
        let Query(stated) = Query::<Stated>::try_from_uri(uri)
            .map_err(|_| bad("'limit' and 'continuationToken' are given once each".to_owned()))?;
        let limit = match stated.limit {
            None => DEFAULT_LIMIT,
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=LARGEST_LIMIT).contains(limit))
                .ok_or_else(|| bad(format!("'limit' is a whole number from 1 to {LARGEST_LIMIT}")))?,
        };
        let after = match stated.continuation_token {
            None => None,
            Some(token) => Some(
                from_token(&token)
                    .ok_or_else(|| bad("'continuationToken' is not one of this server's".to_owned()))?,
            ),
        };
        Ok(Self { limit, after })
    }
}

/// A place in the listing as text for a URL: the time in units of 100 ns, which is how exactly it is kept, and the id.
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
    let created_time: Timestamp = chrono::DateTime::from_timestamp(seconds, nanoseconds)?.into();
    Some(OperationKey { created_time, id: id.parse::<OperationId>().ok()? })
}
