//! The wait that an HTTP server asks for.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::error::Error;

/// Adds the wait of a `Retry-After` header to an error that passes.
pub(crate) fn with_retry_after(error: Error, headers: &HeaderMap) -> Error {
    match retry_after(headers, Utc::now()) {
        Some(wait) if error.kind().is_transient() => error.with_retry_after(wait),
        _ => error,
    }
}

/// The wait of a `Retry-After` header: seconds, or a date (RFC 9110 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let until = DateTime::parse_from_rfc2822(text).ok()?.with_timezone(&Utc);
            // A date that has passed asks for no wait.
            Some((until - now).to_std().unwrap_or_default())
        }
    }
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
        assert_eq!(wait("soon"), None);
    }
}
