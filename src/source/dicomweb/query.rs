//! One QIDO-RS query (PS3.18 10.6) with its answer: [`rows`].

use futures::StreamExt;
use serde::Deserialize;
use serde_json::Value;

use super::client::{Client, Kind};
use crate::error::{Error, ErrorKind, Result};

const DICOM_JSON: &str = "application/dicom+json";

/// A page of a few hundred rows has a megabyte or so. This much comes from a server that heeds no `limit` and has
/// tens of thousands of rows.
const LONGEST_ANSWER: usize = 64 << 20;

/// The longest text that is kept of what stands in place of a UID.
const LONGEST_KEY: usize = 128;

/// What a query is for: the resources of PS3.18 Table 10.6.1-2 that every server has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Studies,
    SeriesOf { study: Box<str> },
    InstancesOf { study: Box<str>, series: Box<str> },
}

/// One row of an answer, as far as a listing needs it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// What stands in place of the UID, which need not be one; `None`: nothing does.
    pub(super) key: Option<Box<str>>,
    /// How many instances lie under it, if the server says so.
    pub(super) instances: Option<u32>,
}

/// A page of an answer.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// Those that belong to the target.
    pub(super) rows: Vec<Row>,
    /// How many rows came, with those that do not belong.
    pub(super) received: usize,
    /// The server says that it has more (PS3.18 10.6.3.1).
    pub(super) more: bool,
}

impl Target {
    fn path(&self) -> String {
        match self {
            Self::Studies => "studies".to_owned(),
            Self::SeriesOf { study } => format!("studies/{study}/series"),
            Self::InstancesOf { study, series } => format!("studies/{study}/series/{series}/instances"),
        }
    }

    /// The attribute that names a row.
    fn keyword(&self) -> &'static str {
        match self {
            Self::Studies => "StudyInstanceUID",
            Self::SeriesOf { .. } => "SeriesInstanceUID",
            Self::InstancesOf { .. } => "SOPInstanceUID",
        }
    }

    /// The row's own attributes; `None`: it belongs elsewhere.
    fn row(&self, attributes: &Attributes) -> Option<Row> {
        let belongs = |attribute: &Option<Attribute>, to: &str| {
            // Servers leave the UIDs out that stand in the path.
            attribute.as_ref().and_then(Attribute::text).is_none_or(|uid| uid == to)
        };
        let (key, instances) = match self {
            Self::Studies => (&attributes.study, &attributes.study_instances),
            Self::SeriesOf { study } => belongs(&attributes.study, study)
                .then_some((&attributes.series, &attributes.series_instances))?,
            Self::InstancesOf { study, series } => {
                let ours = belongs(&attributes.study, study) && belongs(&attributes.series, series);
                ours.then_some((&attributes.sop, &None))?
            }
        };
        let key = key.as_ref().and_then(Attribute::text).map(|text| {
            let end = text.char_indices().nth(LONGEST_KEY).map_or(text.len(), |(end, _)| end);
            text[..end].into()
        });
        Some(Row { key, instances: instances.as_ref().and_then(Attribute::number) })
    }
}

/// Asks for up to `limit` rows after the first `offset`; `only`: the one with this UID.
///
/// # Errors
/// Those of the request; [`ErrorKind::Unsupported`] when the answer is no DICOM JSON.
pub(super) async fn rows(
    client: &Client,
    target: &Target,
    only: Option<&str>,
    offset: usize,
    limit: usize,
) -> Result<Rows> {
    let mut query = format!("limit={limit}&offset={offset}");
    if let Some(uid) = only {
        query = format!("{}={uid}&{query}", target.keyword());
    }
    let answer = client.get(Kind::Listing, &target.path(), Some(&query), DICOM_JSON).await?;
    // No content: nothing matched (PS3.18 10.6.3).
    if answer.status().as_u16() == 204 {
        return Ok(Rows::default());
    }
    let more = answer.header("warning").is_some_and(says_more);
    let media_type = answer.media_type();
    answer.check_encoding()?;
    let mut body = answer.into_body();
    let mut json = Vec::new();
    while let Some(chunk) = body.next().await {
        json.extend_from_slice(&chunk?);
        if json.len() > LONGEST_ANSWER {
            return Err(unusable("the server's list is too long: it heeds no limit"));
        }
    }
    drop(body);
    // Some answer an empty list with nothing at all.
    if json.iter().all(u8::is_ascii_whitespace) {
        return Ok(Rows::default());
    }
    if !media_type.is_json() {
        return Err(unusable("the server answered a query with something that is no DICOM JSON"));
    }
    let found: Vec<Attributes> = serde_json::from_slice(&json).map_err(|cause| match cause.is_eof() {
        true => Error::new(ErrorKind::Unavailable, "the server's answer ends too early"),
        // serde_json's message could quote patient data.
        false => unusable("the server answered a query with something that is no DICOM JSON"),
    })?;
    let received = found.len();
    let rows = found.iter().filter_map(|attributes| target.row(attributes)).collect();
    Ok(Rows { rows, received, more })
}

/// `299 <service>: There are <n> additional results that can be requested` and the like (PS3.18 10.6.3.1); other
/// warnings, of attributes that were not matched, have the same number.
fn says_more(warning: &str) -> bool {
    let warning = warning.to_ascii_lowercase();
    ["additional results", "maximum", "exceeded"].iter().any(|words| warning.contains(words))
}

fn unusable(message: &'static str) -> Error {
    Error::new(ErrorKind::Unsupported, message)
}

/// The attributes of interest in one data set of DICOM JSON (PS3.18 F.2); patients' ones are passed over unread.
#[derive(Deserialize)]
struct Attributes {
    #[serde(rename = "0020000D", alias = "0020000d", default)]
    study: Option<Attribute>,
    #[serde(rename = "0020000E", alias = "0020000e", default)]
    series: Option<Attribute>,
    #[serde(rename = "00080018", default)]
    sop: Option<Attribute>,
    /// Number of Study Related Instances (0020,1208).
    #[serde(rename = "00201208", default)]
    study_instances: Option<Attribute>,
    /// Number of Series Related Instances (0020,1209).
    #[serde(rename = "00201209", default)]
    series_instances: Option<Attribute>,
}

#[derive(Deserialize)]
struct Attribute {
    #[serde(rename = "Value", default)]
    value: Option<Vec<Value>>,
}

impl Attribute {
    /// Its text without padding (PS3.5 9.1); `None` when it has none.
    fn text(&self) -> Option<&str> {
        let text = self.value.as_ref()?.first()?.as_str()?.trim_matches([' ', '\0']);
        (!text.is_empty()).then_some(text)
    }

    /// An integer string is a number or a text (PS3.18 F.2.3).
    fn number(&self) -> Option<u32> {
        match self.value.as_ref()?.first()? {
            Value::Number(number) => number.as_u64()?.try_into().ok(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        }
    }
}
