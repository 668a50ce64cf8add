//! [`StudyList`]: a compact list of all studies of a server.

use super::page::ListingCaveat;
use super::query::Counts;

/// The study UIDs of a server, sorted, with the numbers of series and instances where the server states them. The UIDs are
/// stored in one string. A study takes the length of its UID plus 16 bytes, about 55 to 80 bytes.
#[derive(Debug, Default)]
pub(super) struct StudyList {
    keys: String,
    /// The end of each key in `keys`.
    ends: Vec<usize>,
    /// The numbers of series and instances; [`UNKNOWN`] if the server does not state one.
    counts: Vec<[u32; 2]>,
    pub(super) caveat: Option<ListingCaveat>,
}

/// One study.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StudyEntry<'a> {
    /// The text in place of the Study Instance UID. It may be invalid.
    pub(super) key: &'a str,
    pub(super) counts: Counts,
}

const UNKNOWN: u32 = u32::MAX;

impl StudyList {
    /// Creates a list from sorted rows.
    pub(super) fn new(
        sorted: impl Iterator<Item = (Box<str>, Counts)>,
        caveat: Option<ListingCaveat>,
    ) -> Self {
        let mut list = Self { caveat, ..Self::default() };
        for (key, counts) in sorted {
            list.keys.push_str(&key);
            list.ends.push(list.keys.len());
            list.counts.push([counts.series, counts.instances].map(|count| count.unwrap_or(UNKNOWN)));
        }
        list.keys.shrink_to_fit();
        list.ends.shrink_to_fit();
        list.counts.shrink_to_fit();
        list
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn get(&self, index: usize) -> Option<StudyEntry<'_>> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        let [series, instances] =
            self.counts[index].map(|count| Some(count).filter(|count| *count != UNKNOWN));
        Some(StudyEntry { key: &self.keys[start..end], counts: Counts { series, instances } })
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
        let known = |[_, count]: &[u32; 2]| (*count != UNKNOWN).then_some(u64::from(*count));
        self.counts.iter().map(known).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn studies_are_found_by_key() {
        let keys = ["1.2", "1.2.3", "1.3", "2"];
        let counts = Counts { series: None, instances: Some(2) };
        let list = StudyList::new(keys.iter().map(|key| (Box::from(*key), counts)), None);
        assert_eq!(list.len(), 4);
        for (index, key) in keys.iter().enumerate() {
            assert_eq!(list.get(index), Some(StudyEntry { key, counts }));
            assert_eq!(list.lower_bound(key), index);
        }
        assert_eq!([list.lower_bound("1"), list.lower_bound("1.2.9"), list.lower_bound("3")], [0, 2, 4]);
        assert_eq!((list.get(4), list.total_instances()), (None, Some(8)));
        let rows = [(Box::from("1"), counts), (Box::from("2"), Counts::default())];
        let list = StudyList::new(rows.into_iter(), None);
        assert_eq!((list.total_instances(), StudyList::default().total_instances()), (None, Some(0)));
    }
}
