//! The statements that search for operations.

use std::fmt::Display;

use sqlx::{Postgres, QueryBuilder};

use crate::error::{Error, ErrorKind, Result};
use crate::model::{OperationId, OperationKey, OperationStatus, Timestamp};
use crate::store::OperationFilter;
use crate::store::postgres::names::Names;
use crate::store::postgres::text::escape;

/// The statuses of operations that have not ended. The partial index has the same condition.
pub(super) const UNFINISHED: &str = "status IN ('notStarted', 'running')";

/// Ended operations whose end is still to be delivered. Another partial index has the same condition.
pub(super) const END_PENDING: &str = "end_pending";

const ENDED: &str = "status IN ('completed', 'failed', 'canceled')";

/// Units of 100 ns since 1970, which is the precision of timestamps. PostgreSQL's own type has microseconds.
pub(super) fn ticks(time: Timestamp) -> i64 {
    let time = time.to_utc();
    // A timestamp is between the years 0000 and 9999, and a leap second has more than 10^9 ns.
    time.timestamp() * 10_000_000 + i64::from(time.timestamp_subsec_nanos() / 100)
}

/// Reads a key that is stored as ticks and the number of an id.
///
/// # Errors
/// [`ErrorKind::Unreadable`] if the time is not a timestamp.
pub(super) fn key((ticks, id): (i64, u128)) -> Result<OperationKey> {
    let nanoseconds = u32::try_from(ticks.rem_euclid(10_000_000) * 100).unwrap_or_default();
    let time = chrono::DateTime::from_timestamp(ticks.div_euclid(10_000_000), nanoseconds);
    let created_time = time
        .and_then(|time| Timestamp::try_from(time).ok())
        .ok_or_else(|| Error::new(ErrorKind::Unreadable, "the stored operation is damaged"))?;
    Ok(OperationKey { created_time, id: OperationId::from_u128(id) })
}

/// The statement that searches for the operations that match a filter, at most `limit`, after the row `after`. Its `head` is
/// what stands before `FROM`.
pub(super) fn search(
    head: impl Display,
    names: &Names,
    filter: &OperationFilter,
    after: Option<(i64, u128)>,
    limit: usize,
) -> QueryBuilder<'static, Postgres> {
    let mut sql = QueryBuilder::new(format!("{head} FROM {} WHERE true", names.quoted_table()));
    if filter.unfinished_only {
        sql.push(" AND ").push(UNFINISHED);
    }
    if filter.end_pending_only {
        sql.push(" AND ").push(END_PENDING);
    }
    if let Some(time) = filter.lease_lapsed_at {
        sql.push(" AND (lease_expires IS NULL OR lease_expires <= ").push_bind(ticks(time)).push(")");
    }
    if let Some(partition) = &filter.partition {
        sql.push(" AND partition = ").push_bind(escape(partition).into_owned());
    }
    match filter.status {
        // Also statuses that a later version has written.
        Some(OperationStatus::Unknown) => {
            sql.push(format_args!(" AND NOT {UNFINISHED} AND NOT {ENDED} AND status <> 'paused'"));
        }
        // Literals, so that the planner knows that an index covers them.
        Some(status) => {
            sql.push(format_args!(" AND status = '{status}'"));
        }
        None => {}
    }
    if let Some(time) = filter.ended_before {
        let time = ticks(time);
        sql.push(" AND ").push(ENDED).push(" AND created < ").push_bind(time);
        sql.push(" AND updated < ").push_bind(time);
    }
    if let Some((created, id)) = after {
        sql.push(" AND (created, id) < (").push_bind(created).push(", ");
        sql.push_bind(uuid::Uuid::from_u128(id)).push(")");
    }
    sql.push(" ORDER BY created DESC, id DESC LIMIT ");
    sql.push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
    sql
}
