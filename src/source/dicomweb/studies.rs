//! [`Studies`]: every study of a server, in few bytes.

use std::collections::BTreeMap;

use super::search::Doubt;

/// The study UIDs of a server, sorted, with the number of instances where the server states it. They are held in one
/// text: the UID's own length and 12 bytes each, some 50 to 75 in all.
#[derive(Debug, Default)]
pub(super) struct Studies {
    text: String,
    /// Where each UID ends in the text.
    ends: Vec<usize>,
    /// `u32::MAX`: not stated.
    instances: Vec<u32>,
    /// Why some may be missing.
    pub(super) doubt: Option<Doubt>,
}

/// One study.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Study<'a> {
    /// What stands in place of its UID, which need not be one.
    pub(super) key: &'a str,
    pub(super) instances: Option<u32>,
}

const NOT_STATED: u32 = u32::MAX;

impl Studies {
    pub(super) fn new(sorted: BTreeMap<Box<str>, Option<u32>>, doubt: Option<Doubt>) -> Self {
        let mut studies = Self { doubt, ..Self::default() };
        for (key, instances) in sorted {
            studies.text.push_str(&key);
            studies.ends.push(studies.text.len());
            studies.instances.push(instances.unwrap_or(NOT_STATED));
        }
        studies.text.shrink_to_fit();
        studies.ends.shrink_to_fit();
        studies.instances.shrink_to_fit();
        studies
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn get(&self, at: usize) -> Option<Study<'_>> {
        let end = *self.ends.get(at)?;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        let instances = Some(self.instances[at]).filter(|count| *count != NOT_STATED);
        Some(Study { key: &self.text[start..end], instances })
    }

    /// The first study that does not sort before this key.
    pub(super) fn position(&self, key: &str) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle).is_some_and(|study| study.key < key) {
                low = middle + 1
            } else {
                high = middle
            }
        }
        low
    }

    /// How many instances there are, if the server states it of every study.
    pub(super) fn total(&self) -> Option<u64> {
        let stated = |count: &u32| (*count != NOT_STATED).then_some(u64::from(*count));
        self.instances.iter().map(stated).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn studies_are_found_by_their_keys() {
        let keys = ["1.2", "1.2.3", "1.3", "2"];
        let studies: Studies =
            Studies::new(keys.iter().map(|key| (Box::from(*key), Some(2))).collect(), None);
        assert_eq!(studies.len(), 4);
        for (at, key) in keys.iter().enumerate() {
            assert_eq!(studies.get(at), Some(Study { key, instances: Some(2) }));
            assert_eq!(studies.position(key), at);
        }
        assert_eq!([studies.position("1"), studies.position("1.2.9"), studies.position("3")], [0, 2, 4]);
        assert_eq!((studies.get(4), studies.total()), (None, Some(8)));
        let studies = Studies::new([(Box::from("1"), Some(2)), (Box::from("2"), None)].into(), None);
        assert_eq!((studies.total(), Studies::default().total()), (None, Some(0)));
    }
}
