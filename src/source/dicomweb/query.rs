//! [`Query`]: one QIDO-RS list (PS3.18 10.6) and its rows.

use chrono::NaiveDate;

use super::json_rows::{Attribute, Attributes};

/// The maximum number of characters that are kept of the text in place of a UID.
const MAX_KEY_LEN: usize = 128;

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

    pub(super) fn parameters(&self, offset: usize, limit: usize) -> String {
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

    pub(super) fn path(&self) -> String {
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
    pub(super) fn row(&self, attributes: &Attributes) -> Option<Row> {
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
