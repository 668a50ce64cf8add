//! Shared access signatures: query strings that grant access, and are therefore secrets.

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};
use url::form_urlencoded;

use crate::model::Timestamp;

/// The longest SAS that is accepted, in bytes. A usual one has 300; it becomes part of a URL, which may have 64 KiB.
const MAX_SAS_BYTES: usize = 8 << 10;

/// The fields of a service, account and user delegation SAS for blobs ("Create a service SAS", "Create an account SAS",
/// "Create a user delegation SAS", Azure Blob Storage REST API).
const FIELDS: [&str; 31] = [
    "sv", "ss", "srt", "sr", "sdd", "st", "se", "sp", "sip", "spr", "si", "ses", "sig", // common
    "rscc", "rscd", "rsce", "rscl", "rsct", // headers of responses
    "skoid", "sktid", "skt", "ske", "sks", "skv", "skdutid", "sduoid", "saoid", "suoid",
    "scid", // user delegation
    "srh", "srq", // signed headers and parameters
];

/// The decoded fields of a SAS. No `Debug`: they are secret.
pub(super) struct SasFields(Vec<(String, String)>);

impl SasFields {
    /// Parses a SAS without its `?`. Every parameter is sent with every request, so those of the REST API, which would
    /// change the requests, are errors in any case and encoding.
    ///
    /// # Errors
    /// What is wrong with it, as the predicate of a sentence.
    pub(super) fn parse(sas: &str) -> Result<Self, &'static str> {
        if sas.contains('#') {
            return Err("has a fragment");
        }
        let mut pairs = sas.split('&').filter(|pair| !pair.is_empty());
        let well_formed = sas.len() <= MAX_SAS_BYTES
            && sas.bytes().all(|b| b.is_ascii_graphic())
            && pairs.all(|pair| pair.contains('='));
        if !well_formed {
            return Err("is not a SAS");
        }
        // A plus sign stands for itself: tools leave it in signatures.
        let fields = form_urlencoded::parse(sas.replace('+', "%2B").as_bytes()).into_owned().collect();
        let fields = Self(fields);
        for (index, (name, value)) in fields.0.iter().enumerate() {
            if !FIELDS.iter().any(|field| field.eq_ignore_ascii_case(name)) {
                return Err("has a parameter that is not a SAS field");
            }
            if fields.0[..index].iter().any(|(earlier, _)| earlier.eq_ignore_ascii_case(name)) {
                return Err("has a repeated field");
            }
            // The decoder replaces what is not UTF-8.
            if value.contains(|c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER) {
                return Err("is not a SAS");
            }
        }
        if fields.get("sig").is_none_or(str::is_empty) {
            return Err("is not a SAS");
        }
        fields.expiry()?;
        Ok(fields)
    }

    /// When the SAS expires: its `se` field, a UTC date, or a time to the minute, second or better. `None` if it has no
    /// readable expiry, for example with a stored access policy.
    ///
    /// # Errors
    /// If the expiry is not a [`Timestamp`].
    pub(super) fn expiry(&self) -> Result<Option<Timestamp>, &'static str> {
        let Some(text) = self.get("se") else { return Ok(None) };
        let exact = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
        let minute = || NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%MZ").map(|time| time.and_utc());
        let date = || {
            NaiveDate::parse_from_str(text, "%Y-%m-%d").map(|date| date.and_time(NaiveTime::MIN).and_utc())
        };
        match exact.or_else(|_| minute()).or_else(|_| date()) {
            Ok(time) => Timestamp::try_from(time)
                .map(Some)
                .map_err(|_| "has an expiry outside the years 0000 to 9999"),
            Err(_) => Ok(None),
        }
    }

    pub(super) fn into_pairs(self) -> Vec<(String, String)> {
        self.0
    }

    fn get(&self, field: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(field))?;
        Some(value)
    }
}
