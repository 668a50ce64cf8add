//! [`StudyList`]: a compact list of all studies of a server.

use std::collections::BTreeMap;

use super::page::ListingCaveat;

/// The study UIDs of a server, sorted, with the number of instances where the server states it. The UIDs are stored in one
/// string, which takes the length of the UID plus 12 bytes for each study, about 50 to 75 bytes.
#[derive(Debug, Default)]
pub(super) struct StudyList {
    keys: String,
    /// The end of each key in `keys`.
    ends: Vec<usize>,
    /// [`UNKNOWN`] if the server does not state it.
    instance_counts: Vec<u32>,
    pub(super) caveat: Option<ListingCaveat>,
}

/// One study.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StudyEntry<'a> {
    /// The text in place of the Study Instance UID. It may be invalid.
    pub(super) key: &'a str,
    pub(super) instance_count: Option<u32>,
}

const UNKNOWN: u32 = u32::MAX;

impl StudyList {
    pub(super) fn new(sorted: BTreeMap<Box<str>, Option<u32>>, caveat: Option<ListingCaveat>) -> Self {
        let mut list = Self { caveat, ..Self::default() };
        for (key, instance_count) in sorted {
            list.keys.push_str(&key);
            list.ends.push(list.keys.len());
            list.instance_counts.push(instance_count.unwrap_or(UNKNOWN));
        }
        list.keys.shrink_to_fit();
        list.ends.shrink_to_fit();
        list.instance_counts.shrink_to_fit();
        list
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn get(&self, index: usize) -> Option<StudyEntry<'_>> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        let instance_count = Some(self.instance_counts[index]).filter(|count| *count != UNKNOWN);
        Some(StudyEntry { key: &self.keys[start..end], instance_count })
    }

    /// The index of the first study whose key is not less than `key`.
    pub(super) fn lower_bound(&self, key: &str) -> usize {
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

    /// The total number of instances, if the server states it for every study.
    pub(super) fn total_instances(&self) -> Option<u64> {
        let known = |count: &u32| (*count != UNKNOWN).then_some(u64::from(*count));
        self.instance_counts.iter().map(known).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn studies_are_found_by_key() {
        let keys = ["1.2", "1.2.3", "1.3", "2"];
        let list = StudyList::new(keys.iter().map(|key| (Box::from(*key), Some(2))).collect(), None);
        assert_eq!(list.len(), 4);
        for (index, key) in keys.iter().enumerate() {
            assert_eq!(list.get(index), Some(StudyEntry { key, instance_count: Some(2) }));
            assert_eq!(list.lower_bound(key), index);
        }
        assert_eq!([list.lower_bound("1"), list.lower_bound("1.2.9"), list.lower_bound("3")], [0, 2, 4]);
        assert_eq!((list.get(4), list.total_instances()), (None, Some(8)));
        let list = StudyList::new([(Box::from("1"), Some(2)), (Box::from("2"), None)].into(), None);
        assert_eq!((list.total_instances(), StudyList::default().total_instances()), (None, Some(0)));
    }
}
