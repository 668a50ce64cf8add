//! [`Timestamp`]: times in the form of the API.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Datelike, SubsecRound, TimeDelta, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::{Error, ErrorKind, Result};

/// The years that RFC 3339 can express.
const YEARS: RangeInclusive<i32> = 0..=9999;

/// 0000-01-01T00:00:00Z, in seconds since 1970.
const FIRST: i64 = -62_167_219_200;

/// 9999-12-31T23:59:59Z, in seconds since 1970. The last moment has 9,999,999 ticks of 100 ns more.
const LAST: i64 = 253_402_300_799;

/// A time in UTC with a precision of 100 ns, written as RFC 3339 with seven fractional digits and `Z`:
/// `2022-09-08T16:40:36.2627618Z`. The year is between 0000 and 9999, so every timestamp can be written and read back.
///
/// ```
/// use dicom_export::Timestamp;
///
/// let time: Timestamp = "2022-09-08T18:40:36.5+02:00".parse()?;
/// assert_eq!(time.to_string(), "2022-09-08T16:40:36.5000000Z");
/// // A year that RFC 3339 cannot express is an error.
/// assert!("9999-12-31T23:59:59-01:00".parse::<Timestamp>().is_err());
/// # Ok::<_, dicom_export::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(DateTime<Utc>);

impl Timestamp {
    /// The current time of the system's clock.
    pub fn now() -> Self {
        Self::clamp(Utc::now())
    }

    /// This time and `duration`, or the last moment of the year 9999 if that is earlier.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        let delta = TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX);
        Self::clamp(self.0.checked_add_signed(delta).unwrap_or(DateTime::<Utc>::MAX_UTC))
    }

    /// This time without `duration`, or the first moment of the year 0000 if that is later.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        let delta = TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX);
        Self::clamp(self.0.checked_sub_signed(delta).unwrap_or(DateTime::<Utc>::MIN_UTC))
    }

    fn clamp(time: DateTime<Utc>) -> Self {
        let limit = match time.year() {
            year if year < *YEARS.start() => DateTime::from_timestamp(FIRST, 0),
            year if year > *YEARS.end() => DateTime::from_timestamp(LAST, 999_999_900),
            _ => None,
        };
        Self(limit.unwrap_or(time).trunc_subsecs(7))
    }

    /// The time as chrono's type.
    pub fn to_utc(self) -> DateTime<Utc> {
        self.0
    }
}

impl TryFrom<DateTime<Utc>> for Timestamp {
    type Error = Error;

    /// # Errors
    /// [`ErrorKind::Invalid`] for a year outside of 0000 to 9999.
    fn try_from(time: DateTime<Utc>) -> Result<Self> {
        match YEARS.contains(&time.year()) {
            true => Ok(Self(time.trunc_subsecs(7))),
            false => Err(Error::new(ErrorKind::Invalid, "the year of the time is not between 0000 and 9999")),
        }
    }
}

impl From<Timestamp> for DateTime<Utc> {
    fn from(time: Timestamp) -> Self {
        time.0
    }
}

impl TryFrom<&str> for Timestamp {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self> {
        text.parse()
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
            .map_err(|cause| Error::new(ErrorKind::Invalid, "not an RFC 3339 time").with_source(cause))?
            .to_utc()
            .try_into()
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
