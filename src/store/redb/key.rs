//! The keys that operations are listed by.

use chrono::DateTime;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{OperationId, OperationKey, Timestamp};

/// Creation time (seconds and nanoseconds since 1970) and id.
pub(super) type AgeKey = (i64, u32, u128);

/// Later than all keys.
pub(super) const AGE_MAX: AgeKey = (i64::MAX, u32::MAX, u128::MAX);

pub(super) fn age_of(key: OperationKey) -> AgeKey {
    let (seconds, nanoseconds, _) = first_age_at(key.created_time);
    (seconds, nanoseconds, key.id.as_u128())
}

/// The smallest key of an operation that was created at this time.
pub(super) fn first_age_at(time: Timestamp) -> AgeKey {
    let time = time.to_utc();
    (time.timestamp(), time.timestamp_subsec_nanos(), 0)
}

pub(super) fn key_of((seconds, nanoseconds, id): AgeKey) -> Result<OperationKey> {
    let time = DateTime::from_timestamp(seconds, nanoseconds).and_then(|time| time.try_into().ok());
    let damaged = || Error::new(ErrorKind::Unreadable, "the stored operation is damaged");
    Ok(OperationKey { created_time: time.ok_or_else(damaged)?, id: OperationId::from_u128(id) })
}
