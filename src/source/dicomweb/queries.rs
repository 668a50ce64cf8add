//! [`Queries`]: requests the pages of QIDO-RS lists from one server.

use std::collections::HashSet;
use std::sync::Mutex;

use futures::StreamExt;

use super::client::{Client, RequestKind};
use super::json_rows::{Attributes, RowError, RowReader};
use super::query::{Query, QueryPage, Resource, Row, Way};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Uid;
use crate::sync::lock;

const DICOM_JSON: &str = "application/dicom+json";

/// The number of other resources that are queried to find out whether the server works for others.
const MAX_COMPARED: usize = 12;

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
