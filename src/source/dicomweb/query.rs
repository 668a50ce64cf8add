//! [`Query`]: one QIDO-RS list (PS3.18 10.6), requested page by page with [`Queries`].

use std::collections::HashSet;
use std::sync::Mutex;

use chrono::NaiveDate;
use futures::StreamExt;

use super::client::{Client, RequestKind};
use super::json_rows::{Attribute, Attributes, RowError, RowReader};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Uid;
use crate::sync::lock;

const DICOM_JSON: &str = "application/dicom+json";

/// The maximum number of characters that are kept of the text in place of a UID.
const MAX_KEY_LEN: usize = 128;

/// The number of other resources that are queried to find out whether the server works for others.
const MAX_COMPARED: usize = 12;

/// The resource that a query lists (PS3.18 Table 10.6.1-2, and the metadata of PS3.18 10.4.1.1.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Resource {
    Studies,
    SeriesOf {
        study: Box<str>,
    },
    InstancesOf {
        study: Box<str>,
        series: Box<str>,
    },
    /// The series of all studies.
    AllSeries,
    /// The instances of all studies.
    AllInstances,
    /// Another way to list the instances of a study, or of one of its series.
    Alternative {
        way: Way,
        study: Box<str>,
        series: Option<Box<str>>,
    },
}

/// Other ways to list instances, for servers that cap the regular lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// `/studies/{study}/instances`.
    StudyInstances,
    /// `/instances`.
    AllInstances,
    /// `/studies/{study}/metadata` or `/studies/{study}/series/{series}/metadata`, which has no pages.
    Metadata,
}

impl Way {
    pub(super) const ALL: [Self; 3] = [Self::StudyInstances, Self::AllInstances, Self::Metadata];
}

/// A resource, and which of its rows to list.
#[derive(Debug, Clone)]
pub(super) struct Query {
    pub(super) resource: Resource,
    /// List only the row with this UID. The server may ignore it.
    pub(super) uid: Option<Box<str>>,
    /// Other matching parameters, percent-encoded.
    pub(super) matching: Option<Box<str>>,
}

/// The attributes of a row that a listing needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// The text in place of the UID, which may be invalid; `None` if there is none.
    pub(super) key: Option<Box<str>>,
    /// The series of an instance, or the study of a series, that was listed in another way.
    pub(super) parent: Option<Box<str>>,
    pub(super) counts: Counts,
    pub(super) date: Option<NaiveDate>,
}

/// The numbers of series and instances in a study or series, where the server states them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) series: Option<u32>,
    pub(super) instances: Option<u32>,
}

/// One page of a list.
#[derive(Debug, Default)]
pub(super) struct QueryPage {
    /// The rows that belong to the resource.
    pub(super) rows: Vec<Row>,
    /// The number of rows received, including those that do not belong to the resource.
    pub(super) received: usize,
    /// The number of rows without a UID.
    pub(super) unnamed: usize,
    /// The server states that it has more (PS3.18 10.6.3.1).
    pub(super) has_more: bool,
}

impl Query {
    pub(super) fn all(resource: Resource) -> Self {
        Self { resource, uid: None, matching: None }
    }

    pub(super) fn one(resource: Resource, uid: &str) -> Self {
        Self { uid: Some(uid.into()), ..Self::all(resource) }
    }

    fn parameters(&self, offset: usize, limit: usize) -> String {
        let mut parameters = String::new();
        if let Some(uid) = &self.uid {
            parameters += &format!("{}={uid}&", self.resource.keyword());
        }
        if let Some(matching) = &self.matching {
            parameters += &format!("{matching}&");
        }
        if let Resource::Alternative { way, study, series } = &self.resource {
            match way {
                Way::AllInstances => parameters += &format!("StudyInstanceUID={study}&"),
                Way::StudyInstances => {}
                Way::Metadata => return parameters,
            }
            if let Some(series) = series {
                parameters += &format!("SeriesInstanceUID={series}&");
            }
        }
        parameters + &format!("limit={limit}&offset={offset}")
    }
}

impl Resource {
    pub(super) fn series_of(study: &str) -> Self {
        Self::SeriesOf { study: study.into() }
    }

    pub(super) fn instances_of(study: &str, series: &str) -> Self {
        Self::InstancesOf { study: study.into(), series: series.into() }
    }

    fn path(&self) -> String {
        match self {
            Self::Studies => "studies".to_owned(),
            Self::SeriesOf { study } => format!("studies/{study}/series"),
            Self::InstancesOf { study, series } => format!("studies/{study}/series/{series}/instances"),
            Self::AllSeries => "series".to_owned(),
            Self::AllInstances | Self::Alternative { way: Way::AllInstances, .. } => "instances".to_owned(),
            Self::Alternative { way: Way::StudyInstances, study, .. } => format!("studies/{study}/instances"),
            Self::Alternative { way: Way::Metadata, study, series: Some(series) } => {
                format!("studies/{study}/series/{series}/metadata")
            }
            Self::Alternative { way: Way::Metadata, study, series: None } => {
                format!("studies/{study}/metadata")
            }
        }
    }

    /// What the list contains, for messages.
    pub(super) fn description(&self) -> String {
        match self {
            Self::Studies => "the studies".to_owned(),
            Self::AllSeries => "all series".to_owned(),
            Self::AllInstances => "all instances".to_owned(),
            Self::SeriesOf { study } => format!("the series of {study}"),
            Self::InstancesOf { study, series } | Self::Alternative { study, series: Some(series), .. } => {
                format!("the instances of {study}/{series}")
            }
            Self::Alternative { study, series: None, .. } => format!("the instances of {study}"),
        }
    }

    /// The attribute that identifies a row.
    fn keyword(&self) -> &'static str {
        match self {
            Self::Studies => "StudyInstanceUID",
            Self::SeriesOf { .. } | Self::AllSeries => "SeriesInstanceUID",
            Self::InstancesOf { .. } | Self::AllInstances | Self::Alternative { .. } => "SOPInstanceUID",
        }
    }

    /// The row, or `None` if it belongs to another resource.
    fn row(&self, attributes: &Attributes) -> Option<Row> {
        // Some servers omit the UIDs that the path contains.
        let belongs = |attribute: &Attribute, to: &str| attribute.text().is_none_or(|uid| uid == to);
        let mut counts = Counts::default();
        let (mut parent, mut date) = (None, None);
        let key = match self {
            Self::Studies => {
                counts.series = attributes.study_series.count();
                counts.instances = attributes.study_instances.count();
                let text = attributes.study_date.text();
                date = text.and_then(|text| NaiveDate::parse_from_str(text, "%Y%m%d").ok());
                &attributes.study
            }
            Self::AllSeries | Self::AllInstances => {
                parent = attributes.study.text().map(shortened);
                if *self == Self::AllSeries { &attributes.series } else { &attributes.sop }
            }
            Self::SeriesOf { study } => {
                counts.instances = attributes.series_instances.count();
                belongs(&attributes.study, study).then_some(&attributes.series)?
            }
            Self::InstancesOf { study, series } => {
                let belongs = belongs(&attributes.study, study) && belongs(&attributes.series, series);
                belongs.then_some(&attributes.sop)?
            }
            Self::Alternative { study, series, .. } => {
                let in_series = |series: &str| belongs(&attributes.series, series);
                if !belongs(&attributes.study, study) || !series.as_deref().is_none_or(in_series) {
                    return None;
                }
                parent = attributes.series.text().map(shortened).or_else(|| series.clone());
                &attributes.sop
            }
        };
        Some(Row { key: key.text().map(shortened), parent, counts, date })
    }
}

fn shortened(text: &str) -> Box<str> {
    let end = text.char_indices().nth(MAX_KEY_LEN).map_or(text.len(), |(end, _)| end);
    text[..end].into()
}

/// Sends queries to one server.
pub(super) struct Queries {
    pub(super) client: Client,
    /// The `limit` of queries.
    pub(super) page_size: usize,
    /// Lists of series, and lists of instances, that were answered: the last two of each.
    answered: Mutex<[[Option<Resource>; 2]; 2]>,
}

impl Queries {
    pub(super) fn new(client: Client, page_size: usize) -> Self {
        Self { client, page_size, answered: Mutex::default() }
    }

    /// Requests up to `limit` rows after the first `offset`.
    ///
    /// # Errors
    /// Those of the request; [`ErrorKind::Unsupported`] if the response is not DICOM JSON. The message names the list.
    pub(super) async fn page(&self, query: &Query, offset: usize, limit: usize) -> Result<QueryPage> {
        let page = self.request(query, offset, limit).await.map_err(|error| {
            let list = query.resource.description();
            let message = match offset {
                0 => format!("{error}, for the list of {list}"),
                _ => format!("{error}, for the list of {list} from row {offset}"),
            };
            let wait = error.retry_after();
            let error = Error::new(error.kind(), message).with_source(error);
            wait.into_iter().fold(error, Error::with_retry_after)
        })?;
        if page.received > 0 {
            self.record_answer(&query.resource);
        }
        Ok(page)
    }

    /// Requests all distinct rows with a UID, without checks of the paging.
    pub(super) async fn rows(&self, query: &Query) -> Result<Vec<Row>> {
        let is_paged = !matches!(query.resource, Resource::Alternative { way: Way::Metadata, .. });
        let (mut rows, mut keys, mut offset) = (Vec::new(), HashSet::new(), 0);
        loop {
            let page = self.page(query, offset, self.page_size).await?;
            let before = rows.len();
            let is_new = |row: &Row| row.key.as_ref().is_some_and(|key| keys.insert(key.clone()));
            rows.extend(page.rows.into_iter().filter(is_new));
            offset += page.received;
            if !is_paged || rows.len() == before {
                return Ok(rows);
            }
        }
    }

    async fn request(&self, query: &Query, offset: usize, limit: usize) -> Result<QueryPage> {
        let (path, parameters) = (query.resource.path(), query.parameters(offset, limit));
        let parameters = Some(&*parameters).filter(|parameters| !parameters.is_empty());
        let response = self.client.get(RequestKind::Query, &path, parameters, DICOM_JSON).await?;
        // No content: nothing matched (PS3.18 10.6.3).
        if response.status().as_u16() == 204 {
            return Ok(QueryPage::default());
        }
        let mut page = QueryPage {
            has_more: response.header("warning").is_some_and(states_more),
            ..QueryPage::default()
        };
        let is_json = response.media_type().is_json();
        response.check_encoding()?;
        let mut body = response.into_body();
        let mut reader = RowReader::default();
        while let Some(chunk) = body.next().await {
            let chunk = chunk?;
            // An empty list may be an empty body of any type.
            if !is_json && !chunk.trim_ascii().is_empty() {
                return Err(not_dicom_json());
            }
            let on_row = |attributes: Option<Attributes>| {
                page.received += 1;
                let row = attributes.and_then(|attributes| query.resource.row(&attributes));
                match row {
                    Some(row) if row.key.is_none() => page.unnamed += 1,
                    row => page.rows.extend(row),
                }
            };
            reader.push(&chunk, on_row).map_err(row_error)?;
        }
        reader.finish().map_err(row_error)?;
        Ok(page)
    }

    fn record_answer(&self, resource: &Resource) {
        let Some(level) = level(resource) else { return };
        let mut answered = lock(&self.answered);
        let [last, before] = &mut answered[level];
        if last.as_ref() != Some(resource) {
            *before = last.replace(resource.clone());
        }
    }

    /// Whether the server returns another row of a list that fails, or the same kind of list of another study or series. The
    /// server as a whole fails if it returns neither.
    pub(super) async fn works_for_others(&self, failing: &Resource) -> bool {
        if self.answers(failing, 0).await || self.answers(failing, 1).await {
            return true;
        }
        let Some(level) = level(failing) else {
            return *failing == Resource::Studies && self.lists_instances().await;
        };
        let answered = lock(&self.answered)[level].clone();
        if let Some(other) = answered.into_iter().flatten().find(|other| other != failing) {
            return self.answers(&other, 0).await;
        }
        let mut compared = 0;
        let own_study = match failing {
            Resource::InstancesOf { study, .. } => Some(study.clone()),
            _ => None,
        };
        // The damaged instance may be the one that this list fails at too.
        let studies = self.page(&Query::all(Resource::Studies), 0, MAX_COMPARED).await;
        let studies = studies.into_iter().flat_map(|page| page.rows).filter_map(|row| row.key);
        let studies = own_study.into_iter().chain(studies);
        for study in studies.filter(|study| Uid::new(study).is_ok()) {
            let series_list = Resource::series_of(&study);
            if series_list == *failing {
                continue;
            }
            if level == SERIES_LEVEL {
                compared += 1;
                if self.answers(&series_list, 0).await {
                    return true;
                }
            } else if let Ok(series) = self.page(&Query::all(series_list), 0, MAX_COMPARED).await {
                for key in series.rows.into_iter().filter_map(|row| row.key) {
                    let other = Resource::instances_of(&study, &key);
                    if other == *failing || Uid::new(&key).is_err() {
                        continue;
                    }
                    compared += 1;
                    if self.answers(&other, 0).await {
                        return true;
                    }
                    if compared >= MAX_COMPARED {
                        return false;
                    }
                }
            }
            if compared >= MAX_COMPARED {
                return false;
            }
        }
        // Without another study or series to compare, other instances show that the server works.
        compared == 0 && self.lists_instances().await
    }

    async fn lists_instances(&self) -> bool {
        self.answers(&Resource::AllInstances, 0).await || self.answers(&Resource::AllInstances, 1).await
    }

    /// Whether a list has a row at this offset.
    async fn answers(&self, resource: &Resource, offset: usize) -> bool {
        let page = self.request(&Query::all(resource.clone()), offset, 1).await;
        page.is_ok_and(|page| page.received > 0)
    }
}

const SERIES_LEVEL: usize = 0;
const INSTANCE_LEVEL: usize = 1;

fn level(resource: &Resource) -> Option<usize> {
    match resource {
        Resource::Studies | Resource::AllSeries | Resource::AllInstances => None,
        Resource::SeriesOf { .. } => Some(SERIES_LEVEL),
        Resource::InstancesOf { .. } | Resource::Alternative { .. } => Some(INSTANCE_LEVEL),
    }
}

/// Recognizes `299 <service>: There are <n> additional results that can be requested` and its variants (PS3.18 10.6.3.1).
/// Warnings about attributes that were not matched have the same number.
fn states_more(warning: &str) -> bool {
    let warning = warning.to_ascii_lowercase();
    ["additional results", "maximum", "exceeded"].iter().any(|words| warning.contains(words))
}

fn row_error(error: RowError) -> Error {
    match error {
        RowError::Truncated => Error::new(ErrorKind::Unavailable, "the server's response is truncated"),
        RowError::Malformed => not_dicom_json(),
    }
}

fn not_dicom_json() -> Error {
    Error::new(ErrorKind::Unsupported, "the server's response to a query is not DICOM JSON")
}
