//! The header `Retry-After`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::error::Error;

/// The longest wait that is returned. A server may ask for any number of seconds, which overflows clocks.
const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Adds the wait of a `Retry-After` header to a transient error.
pub(crate) fn with_retry_after(error: Error, headers: &HeaderMap) -> Error {
    match retry_after(headers, Utc::now()) {
        Some(wait) if error.kind().is_transient() => error.with_retry_after(wait),
        _ => error,
    }
}

/// The wait of a `Retry-After` header, at most a day: seconds, or a date (RFC 9110 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse().map_or(MAX_WAIT, Duration::from_secs)
    } else {
        let until = DateTime::parse_from_rfc2822(text).ok()?.to_utc();
        // A date in the past asks for no wait.
        (until - now).to_std().unwrap_or_default()
    };
    Some(wait.min(MAX_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        let wait = |text: &'static str| {
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]), now)
        };
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("Fri, 02 Jan 2026 03:05:05 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(wait("Fri, 02 Jan 2026 03:03:05 GMT"), Some(Duration::ZERO));
        for beyond in
            ["86401", "18446744073709551615", "18446744073709551616", "Fri, 31 Dec 9999 23:59:59 GMT"]
        {
            assert_eq!(wait(beyond), Some(MAX_WAIT), "{beyond}");
        }
        for invalid in ["soon", "", "-1", "+1", "1.5"] {
            assert_eq!(wait(invalid), None, "{invalid}");
        }
    }
}
