//! [`query`]: one page of a QIDO-RS list (PS3.18 10.6).

use futures::StreamExt;
use serde::Deserialize;
use serde_json::Value;

use super::client::{Client, RequestKind};
use crate::error::{Error, ErrorKind, Result};

const DICOM_JSON: &str = "application/dicom+json";

/// The maximum length of a response in bytes. A page of a few hundred rows has about a megabyte; a server that ignores
/// `limit` and has tens of thousands of rows reaches this.
const MAX_RESPONSE_LEN: usize = 64 << 20;

/// The maximum number of characters that are kept of the text in place of a UID.
const MAX_KEY_LEN: usize = 128;

/// The resource that a query lists (PS3.18 Table 10.6.1-2); only those that every server has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Resource {
    Studies,
    SeriesOf { study: Box<str> },
    InstancesOf { study: Box<str>, series: Box<str> },
}

/// The attributes of a row that a listing needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// The text in place of the UID, which may be invalid; `None` if there is none.
    pub(super) key: Option<Box<str>>,
    /// The number of instances in it, if the server states it.
    pub(super) instance_count: Option<u32>,
}

/// One page of a list.
#[derive(Debug, Default)]
pub(super) struct QueryPage {
    /// The rows that belong to the resource.
    pub(super) rows: Vec<Row>,
    /// The number of rows received, including those that do not belong to the resource.
    pub(super) received: usize,
    /// The server states that it has more (PS3.18 10.6.3.1).
    pub(super) has_more: bool,
}

impl Resource {
    fn path(&self) -> String {
        match self {
            Self::Studies => "studies".to_owned(),
            Self::SeriesOf { study } => format!("studies/{study}/series"),
            Self::InstancesOf { study, series } => format!("studies/{study}/series/{series}/instances"),
        }
    }

    /// The attribute that identifies a row.
    fn keyword(&self) -> &'static str {
        match self {
            Self::Studies => "StudyInstanceUID",
            Self::SeriesOf { .. } => "SeriesInstanceUID",
            Self::InstancesOf { .. } => "SOPInstanceUID",
        }
    }

    /// The row, or `None` if it belongs to another resource.
    fn row(&self, attributes: &Attributes) -> Option<Row> {
        let belongs = |attribute: &Option<Attribute>, to: &str| {
            // Some servers omit the UIDs that the path contains.
            attribute.as_ref().and_then(Attribute::text).is_none_or(|uid| uid == to)
        };
        let (key, instance_count) = match self {
            Self::Studies => (&attributes.study, &attributes.study_instances),
            Self::SeriesOf { study } => belongs(&attributes.study, study)
                .then_some((&attributes.series, &attributes.series_instances))?,
            Self::InstancesOf { study, series } => {
                let belongs = belongs(&attributes.study, study) && belongs(&attributes.series, series);
                belongs.then_some((&attributes.sop, &None))?
            }
        };
        let key = key.as_ref().and_then(Attribute::text).map(|text| {
            let end = text.char_indices().nth(MAX_KEY_LEN).map_or(text.len(), |(end, _)| end);
            text[..end].into()
        });
        Some(Row { key, instance_count: instance_count.as_ref().and_then(Attribute::number) })
    }
}

/// Requests up to `limit` rows after the first `offset`; with `uid`, only the row with this UID.
///
/// # Errors
/// Those of the request; [`ErrorKind::Unsupported`] if the response is not DICOM JSON.
pub(super) async fn query(
    client: &Client,
    resource: &Resource,
    uid: Option<&str>,
    offset: usize,
    limit: usize,
) -> Result<QueryPage> {
    let mut parameters = format!("limit={limit}&offset={offset}");
    if let Some(uid) = uid {
        parameters = format!("{}={uid}&{parameters}", resource.keyword());
    }
    let response = client.get(RequestKind::Query, &resource.path(), Some(&parameters), DICOM_JSON).await?;
    // No content: nothing matched (PS3.18 10.6.3).
    if response.status().as_u16() == 204 {
        return Ok(QueryPage::default());
    }
    let has_more = response.header("warning").is_some_and(states_more);
    let media_type = response.media_type();
    response.check_encoding()?;
    let mut body = response.into_body();
    let mut json = Vec::new();
    while let Some(chunk) = body.next().await {
        json.extend_from_slice(&chunk?);
        if json.len() > MAX_RESPONSE_LEN {
            return Err(unsupported("the server ignores the limit of a query, and its response is too long"));
        }
    }
    drop(body);
    // Some servers return an empty body for an empty list.
    if json.iter().all(u8::is_ascii_whitespace) {
        return Ok(QueryPage::default());
    }
    if !media_type.is_json() {
        return Err(unsupported("the server's response to a query is not DICOM JSON"));
    }
    let found: Vec<Attributes> = serde_json::from_slice(&json).map_err(|cause| match cause.is_eof() {
        true => Error::new(ErrorKind::Unavailable, "the server's response is truncated"),
        // serde_json's message could quote patient data.
        false => unsupported("the server's response to a query is not DICOM JSON"),
    })?;
    let received = found.len();
    let rows = found.iter().filter_map(|attributes| resource.row(attributes)).collect();
    Ok(QueryPage { rows, received, has_more })
}

/// Recognizes `299 <service>: There are <n> additional results that can be requested` and its variants (PS3.18 10.6.3.1).
/// Warnings about attributes that were not matched have the same number.
fn states_more(warning: &str) -> bool {
    let warning = warning.to_ascii_lowercase();
    ["additional results", "maximum", "exceeded"].iter().any(|words| warning.contains(words))
}

fn unsupported(message: &'static str) -> Error {
    Error::new(ErrorKind::Unsupported, message)
}

/// The attributes of one DICOM JSON data set (PS3.18 F.2) that a listing needs. Patient attributes are not read.
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
    /// The text without padding (PS3.5 9.1); `None` if there is none.
    fn text(&self) -> Option<&str> {
        let text = self.value.as_ref()?.first()?.as_str()?.trim_matches([' ', '\0']);
        (!text.is_empty()).then_some(text)
    }

    /// An integer string is a JSON number or string (PS3.18 F.2.3).
    fn number(&self) -> Option<u32> {
        match self.value.as_ref()?.first()? {
            Value::Number(number) => number.as_u64()?.try_into().ok(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        }
    }
}
