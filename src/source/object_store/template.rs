//! [`KeyTemplate`]: keys that name instances by a template.

use std::ops::RangeInclusive;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{DicomIdentifier, InstanceIdentifier, Uid};

/// The number of identifiers of an instance: study, series, SOP instance.
const LEVELS: RangeInclusive<usize> = 0..=2;

/// A template with the placeholders `{study}`, `{series}` and `{instance}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyTemplate {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// A UID, by its level: 0 is the study.
    Uid(usize),
}

/// What a key is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Key {
    Instance(InstanceIdentifier),
    /// The key has the form of an instance's, and not three valid UIDs. Those of the study and the series, as far as they are
    /// valid.
    Invalid(String),
    Other,
}

impl Default for KeyTemplate {
    /// The layout that exports write: `{study}/{series}/{instance}.dcm`.
    fn default() -> Self {
        let text = |text: &str| Part::Text(text.to_owned());
        Self { parts: vec![Part::Uid(0), text("/"), Part::Uid(1), text("/"), Part::Uid(2), text(".dcm")] }
    }
}

impl KeyTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) if the text is not a template.
    pub(super) fn parse(template: &str) -> Result<Self> {
        let invalid = |message: &'static str| Error::new(ErrorKind::Invalid, message);
        let (mut parts, mut rest) = (Vec::new(), template);
        while let Some((text, after)) = rest.split_once('{') {
            if !text.is_empty() {
                parts.push(Part::Text(text.to_owned()));
            }
            let (name, after) =
                after.split_once('}').ok_or_else(|| invalid("the template has an open brace"))?;
            parts.push(Part::Uid(match name {
                "study" => 0,
                "series" => 1,
                "instance" => 2,
                _ => return Err(invalid("the template has an unknown placeholder")),
            }));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        let count = |level| parts.iter().filter(|part| **part == Part::Uid(level)).count();
        if !LEVELS.into_iter().all(|level| count(level) == 1) {
            return Err(invalid("the template must contain {study}, {series} and {instance} once each"));
        }
        let is_ambiguous = parts.windows(2).any(|pair| match pair {
            [Part::Uid(_), Part::Uid(_)] => true,
            [Part::Uid(_), Part::Text(text)] => text.bytes().all(|b| b.is_ascii_digit() || b == b'.'),
            _ => false,
        });
        if is_ambiguous {
            return Err(invalid("the template does not separate its placeholders"));
        }
        if template.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(invalid("the template has an empty segment or a dot segment"));
        }
        Ok(Self { parts })
    }

    /// The key of an instance.
    pub(super) fn key(&self, instance: &InstanceIdentifier) -> String {
        let uids =
            [instance.study_instance_uid(), instance.series_instance_uid(), instance.sop_instance_uid()];
        let parts = self.parts.iter().map(|part| match part {
            Part::Text(text) => text.as_str(),
            Part::Uid(level) => uids[*level].as_str(),
        });
        parts.collect()
    }

    /// The folder that contains all keys of an identifier.
    pub(super) fn folder(&self, scope: &DicomIdentifier) -> String {
        let uids = [Some(scope.study_instance_uid()), scope.series_instance_uid(), scope.sop_instance_uid()];
        let mut known = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => known.push_str(text),
                Part::Uid(level) => match uids[*level] {
                    Some(uid) => known.push_str(uid.as_str()),
                    None => break,
                },
            }
        }
        known.rsplit_once('/').map(|(folder, _)| folder.to_owned()).unwrap_or_default()
    }

    /// What a key is.
    pub(super) fn identify(&self, key: &str) -> Key {
        let Some(uids) = self.split(key) else { return Key::Other };
        let [study, series, instance] = uids.map(Uid::new);
        match (study, series, instance) {
            (Ok(study), Ok(series), Ok(sop)) => Key::Instance(InstanceIdentifier::new(study, series, sop)),
            (Ok(study), Ok(series), Err(_)) => Key::Invalid(format!("{study}/{series}")),
            (Ok(study), Err(_), _) => Key::Invalid(study.to_string()),
            (Err(_), ..) => Key::Invalid(String::new()),
        }
    }

    /// The texts at the placeholders, by their levels.
    fn split<'a>(&self, key: &'a str) -> Option<[&'a str; 3]> {
        let (mut uids, mut rest) = ([""; 3], key);
        let mut parts = self.parts.iter().peekable();
        while let Some(part) = parts.next() {
            match (part, parts.peek()) {
                (Part::Text(text), _) => rest = rest.strip_prefix(text.as_str())?,
                (Part::Uid(level), Some(Part::Text(text))) => {
                    // The text at the end is at the end of the key: a UID may contain it.
                    let is_last = parts.clone().nth(1).is_none();
                    let end = if is_last {
                        rest.strip_suffix(text.as_str())?.len()
                    } else {
                        rest.find(text.as_str())?
                    };
                    (uids[*level], rest) = rest.split_at(end);
                }
                (Part::Uid(level), _) => (uids[*level], rest) = (rest, ""),
            }
        }
        // A segment of the key is not part of a UID.
        let is_whole = rest.is_empty() && uids.iter().all(|uid| !uid.contains('/'));
        is_whole.then_some(uids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> InstanceIdentifier {
        "1.2/3.4/5.6".parse().unwrap()
    }

    #[test]
    fn key_of_an_instance_is_identified() {
        for text in [
            "{study}/{series}/{instance}.dcm",
            "{study}/{series}/{instance}",
            "studies/{study}/series/{series}/instances/{instance}",
            "{instance}/{series}/{study}",
            "a-{series}_{study}/{instance}.DCM",
        ] {
            let template = KeyTemplate::parse(text).unwrap();
            let key = template.key(&instance());
            assert_eq!(template.identify(&key), Key::Instance(instance()), "{text}");
            assert_eq!(template.identify(&format!("{key}/x")), Key::Other, "{text}");
            assert_eq!(template.identify(&format!("x/{key}")), Key::Other, "{text}");
        }
        assert_eq!(KeyTemplate::parse("{study}/{series}/{instance}.dcm").unwrap(), KeyTemplate::default());
    }

    #[test]
    fn key_without_valid_uids_is_invalid() {
        let template = KeyTemplate::default();
        assert_eq!(template.identify("1.2/3.4/x.dcm"), Key::Invalid("1.2/3.4".to_owned()));
        assert_eq!(template.identify("1.2/x/5.6.dcm"), Key::Invalid("1.2".to_owned()));
        assert_eq!(template.identify("x/3.4/5.6.dcm"), Key::Invalid(String::new()));
        assert_eq!(template.identify("1.2/3.4.dcm"), Key::Other);
        assert_eq!(template.identify("1.2/3.4/5.6.jpg"), Key::Other);
    }

    #[test]
    fn folder_is_as_deep_as_the_identifier_allows() {
        let template = KeyTemplate::parse("studies/{study}/series/{series}/{instance}").unwrap();
        let folder = |identifier: &str| template.folder(&identifier.parse().unwrap());
        assert_eq!(folder("1.2"), "studies/1.2/series");
        assert_eq!(folder("1.2/3.4"), "studies/1.2/series/3.4");
        let template = KeyTemplate::parse("{instance}_{study}_{series}").unwrap();
        assert_eq!(template.folder(&"1.2".parse().unwrap()), "");
    }

    #[test]
    fn ambiguous_templates_are_refused() {
        for text in [
            "",
            "{study}/{series}",
            "{study}/{series}/{instance}/{study}",
            "{study}{series}/{instance}",
            "{study}.{series}/{instance}",
            "{study}/{series}/{instance}.1",
            "{study}/{series}/{instance",
            "{study}/{series}/{sop}/{instance}",
            "/{study}/{series}/{instance}",
            "{study}//{series}/{instance}",
            "../{study}/{series}/{instance}",
        ] {
            let error = KeyTemplate::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{text}");
        }
    }
}
