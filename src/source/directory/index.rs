//! [`Index`]: finds the files of a study, a series or an instance.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::report::DirectoryReport;
use super::scan::{Entry, EntryKind};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{DicomIdentifier, InstanceIdentifier, Uid};
use crate::model::{Instance, Locator};

/// The instances of a tree in the order of their identifiers.
///
/// Memory: 48 bytes for each instance, its SOP Instance UID with 16 more, and its file name, together about 150 bytes.
/// Studies, series and folders are stored once.
pub(super) struct Index {
    /// Study and series, sorted.
    series: Vec<(Uid, Uid)>,
    /// Sorted by series and SOP Instance UID.
    files: Vec<FileEntry>,
    folders: Vec<Box<str>>,
    /// The number of further files of an instance, by its position in `files`.
    duplicates: BTreeMap<usize, u64>,
}

struct FileEntry {
    sop: Uid,
    name: Box<str>,
    size: u64,
    series: u32,
    folder: u32,
}

impl Index {
    /// Returns the positions of the instances under an identifier that come after another instance.
    pub(super) fn range(&self, scope: &DicomIdentifier, after: Option<&InstanceIdentifier>) -> Range<usize> {
        let first = scope.first_possible();
        let start = match after {
            Some(after) => self.files.partition_point(|file| self.key(file) <= key(after)),
            None => self.files.partition_point(|file| self.key(file) < key(&first)),
        };
        let rest = &self.files[start..];
        let (study, series, sop) = key(&first);
        let covered = rest.partition_point(|file| {
            let (in_study, in_series, in_sop) = self.key(file);
            match (scope.series_instance_uid(), scope.sop_instance_uid()) {
                (None, _) => in_study <= study,
                (Some(_), None) => (in_study, in_series) <= (study, series),
                (Some(_), Some(_)) => (in_study, in_series, in_sop) <= (study, series, sop),
            }
        });
        start..start + covered
    }

    /// Returns the instances at these positions.
    pub(super) fn instances(&self, range: Range<usize>) -> Vec<Instance> {
        self.files[range]
            .iter()
            .map(|file| {
                let (study, series) = &self.series[file.series as usize];
                let folder = &self.folders[file.folder as usize];
                let locator = match folder.is_empty() {
                    true => file.name.to_string(),
                    false => format!("{folder}/{}", file.name),
                };
                Instance::new(InstanceIdentifier::new(study.clone(), series.clone(), file.sop.clone()))
                    .with_size(file.size)
                    .with_locator(Locator::new(locator))
            })
            .collect()
    }

    /// Returns the number of further files of the instances at these positions.
    pub(super) fn duplicates(&self, range: Range<usize>) -> u64 {
        self.duplicates.range(range).map(|(_, count)| count).sum()
    }

    fn key<'a>(&'a self, file: &'a FileEntry) -> (&'a Uid, &'a Uid, &'a Uid) {
        let (study, series) = &self.series[file.series as usize];
        (study, series, &file.sop)
    }
}

fn key(identifier: &InstanceIdentifier) -> (&Uid, &Uid, &Uid) {
    (identifier.study_instance_uid(), identifier.series_instance_uid(), identifier.sop_instance_uid())
}

/// Builds an index from entries in path order.
#[derive(Default)]
pub(super) struct IndexBuilder {
    series: HashMap<(Uid, Uid), u32>,
    folders: HashMap<Box<str>, u32>,
    files: Vec<FileEntry>,
    report: DirectoryReport,
}

impl IndexBuilder {
    pub(super) fn add(&mut self, entry: Entry) -> Result<()> {
        self.report.add(&entry);
        if let EntryKind::Instance { identifier, size, .. } = entry.kind {
            let (folder, name) = entry.locator.rsplit_once('/').unwrap_or(("", &entry.locator));
            let of = (identifier.study_instance_uid().clone(), identifier.series_instance_uid().clone());
            let series = number(&mut self.series, of)?;
            let folder = match self.folders.get(folder) {
                Some(known) => *known,
                None => number(&mut self.folders, folder.into())?,
            };
            let sop = identifier.sop_instance_uid().clone();
            self.files.push(FileEntry { sop, name: name.into(), size, series, folder });
        }
        Ok(())
    }

    /// Returns the index and a report of the files left out of it. It sorts, so it must not run on an async thread.
    pub(super) fn finish(self) -> (Index, DirectoryReport) {
        let Self { series, folders, mut files, mut report } = self;
        let mut series: Vec<_> = series.into_iter().collect();
        series.sort_unstable();
        // Maps the numbers in order of appearance to those in the order of UIDs.
        let mut sorted = vec![0; series.len()];
        for (at, (_, number)) in (0..).zip(&series) {
            sorted[*number as usize] = at;
        }
        for file in &mut files {
            file.series = sorted[file.series as usize];
        }
        // Stable: of the files of one instance the first in path order remains the first.
        files.sort_by(|a, b| a.series.cmp(&b.series).then_with(|| a.sop.cmp(&b.sop)));
        let mut duplicates = BTreeMap::new();
        let mut kept = 0;
        files.dedup_by(|file, first| {
            let repeated = file.series == first.series && file.sop == first.sop;
            match repeated {
                true => *duplicates.entry(kept).or_default() += 1,
                false => kept += 1,
            }
            repeated
        });
        files.shrink_to_fit();
        report.duplicates = duplicates.values().sum();
        let mut names = vec![Box::default(); folders.len()];
        for (folder, number) in folders {
            names[number as usize] = folder;
        }
        let series = series.into_iter().map(|(uids, _)| uids).collect();
        (Index { series, files, folders: names, duplicates }, report)
    }
}

/// Returns the number of a value in the order of appearance.
fn number<K: std::hash::Hash + Eq>(known: &mut HashMap<K, u32>, value: K) -> Result<u32> {
    let next = u32::try_from(known.len())
        .map_err(|_| Error::new(ErrorKind::Internal, "the source has too many series or folders"))?;
    Ok(*known.entry(value).or_insert(next))
}
