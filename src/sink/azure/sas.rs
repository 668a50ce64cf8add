//! Shared access signatures: query strings that grant access, and are therefore secrets.

use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use object_store::azure::split_sas;
use secrecy::{ExposeSecret, SecretString};
use url::form_urlencoded;

use crate::error::{Error, Result};
use crate::model::Timestamp;

/// The longest SAS that is accepted, in bytes. A usual one has 300; it becomes part of a URL, which may have 64 KiB.
const MAX_SAS_BYTES: usize = 8 << 10;

/// Parses a SAS, with or without its `?`; `at` is the pointer of the property, for errors.
pub(super) fn parse_sas(text: &str, at: &str) -> Result<SecretString> {
    let sas = text.strip_prefix('?').unwrap_or(text);
    if sas.contains('#') {
        return Err(Error::invalid(at, format!("'{at}' has a fragment")));
    }
    let mut pairs = sas.split('&').filter(|pair| !pair.is_empty());
    let well_formed = sas.len() <= MAX_SAS_BYTES
        && sas.bytes().all(|b| b.is_ascii_graphic())
        && pairs.clone().all(|pair| pair.contains('='))
        // A lossy decoder writes this where the bytes are not UTF-8.
        && !form_urlencoded::parse(sas.as_bytes()).any(|(_, value)| value.contains('\u{fffd}'));
    // A query without a signature is not a SAS, but the caller expects it to have an effect.
    let signed = pairs.any(|pair| {
        matches!(pair.split_once('='), Some((name, value))
        if name.eq_ignore_ascii_case("sig") && !value.is_empty())
    });
    if !well_formed || !signed {
        return Err(Error::invalid(at, format!("'{at}' has a query that is not a SAS")));
    }
    Ok(SecretString::from(sas))
}

/// The names and values of a SAS that was stored; `None` if it cannot be sent.
pub(super) fn sas_pairs(sas: &SecretString) -> Option<Vec<(String, String)>> {
    let sas = sas.expose_secret();
    // The error would quote the SAS.
    if sas.len() <= MAX_SAS_BYTES { split_sas(sas).ok() } else { None }
}

/// When a SAS expires: its `se` field, a UTC date, or a time to the minute, second or better ("Create a service SAS", Azure
/// Blob Storage REST API). `None` if it has no readable expiry, for example with a stored access policy.
pub(super) fn sas_expiry(sas: &SecretString) -> Option<Timestamp> {
    let (_, expiry) = form_urlencoded::parse(sas.expose_secret().as_bytes())
        .find(|(name, _)| name.eq_ignore_ascii_case("se"))?;
    if let Ok(time) = expiry.parse() {
        return Some(time);
    }
    let minute = NaiveDateTime::parse_from_str(&expiry, "%Y-%m-%dT%H:%MZ");
    let time = minute.or_else(|_| {
        NaiveDate::parse_from_str(&expiry, "%Y-%m-%d").map(|date| date.and_time(NaiveTime::MIN))
    });
    time.ok()?.and_utc().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_expiry_in_every_published_form() {
        let expiry = |sas: &str| sas_expiry(&SecretString::from(sas)).map(|time| time.to_string());
        let full = Some("2026-07-01T10:30:05.0000000Z".to_owned());
        assert_eq!(expiry("sv=2022-11-02&se=2026-07-01T10%3A30%3A05Z&sp=w&sig=x"), full);
        assert_eq!(expiry("sig=x&se=2026-07-01T10:30:05Z"), full);
        assert_eq!(expiry("se=2026-07-01T10%3A30Z&sig=x").as_deref(), Some("2026-07-01T10:30:00.0000000Z"));
        assert_eq!(expiry("se=2026-07-01&sig=x").as_deref(), Some("2026-07-01T00:00:00.0000000Z"));
        assert_eq!(expiry("si=policy&sig=x"), None);
        assert_eq!(expiry("se=tomorrow&sig=x"), None);
    }
}
