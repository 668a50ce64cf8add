//! [`Timestamp`]: times in the form of the API.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SubsecRound, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::{Error, ErrorKind, Result};

/// A time in UTC with a precision of 100 ns, written as RFC 3339 with seven fractional digits and `Z`:
/// `2022-09-08T16:40:36.2627618Z`.
///
/// ```
/// use dicom_export::Timestamp;
///
/// let time: Timestamp = "2022-09-08T18:40:36.5+02:00".parse()?;
/// assert_eq!(time.to_string(), "2022-09-08T16:40:36.5000000Z");
/// # Ok::<_, dicom_export::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(DateTime<Utc>);

impl Timestamp {
    /// The current time of the system's clock.
    pub fn now() -> Self {
        Utc::now().into()
    }

    /// The time as chrono's type.
    pub fn to_utc(self) -> DateTime<Utc> {
        self.0
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time.trunc_subsecs(7))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // chrono represents a leap second by a nanosecond count of at least one billion.
        let ticks = self.0.timestamp_subsec_nanos() % 1_000_000_000 / 100;
        write!(f, "{}.{ticks:07}Z", self.0.format("%Y-%m-%dT%H:%M:%S"))
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    /// Parses an RFC 3339 time with any number of fractional digits and any offset.
    fn from_str(text: &str) -> Result<Self> {
        DateTime::parse_from_rfc3339(text)
            .map(|time| time.to_utc().into())
            .map_err(|cause| Error::new(ErrorKind::Invalid, "not an RFC 3339 time").with_source(cause))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}
