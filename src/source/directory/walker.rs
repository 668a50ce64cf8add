//! [`Walker`]: lists all instances of a folder tree, page by page.

use std::collections::HashSet;
use std::hash::Hasher;
use std::path::PathBuf;
use std::sync::Mutex;

use siphasher::sip128::{Hasher128, SipHasher13};
use uuid::Uuid;

use super::path;
use super::read_ahead::ReadAhead;
use super::report::DirectoryReport;
use super::scan::{Entry, EntryKind, Scan, Tree};
use crate::error::{Error, ErrorKind, Result};
use crate::model::InstanceIdentifier;
use crate::model::{Cursor, Instance, Locator, Page};
use crate::sync::lock;

/// How many walkers are kept for their next page: one for each operation that exports everything.
const MAX_WALKERS: usize = 8;

/// A walk that has listed everything up to a cursor.
pub(super) struct Walker {
    scan: Scan,
    read_ahead: ReadAhead,
    seen: SeenInstances,
    /// Files up to this path were listed by an earlier walker: they are read for their identifiers only.
    skip_until: Option<PathBuf>,
}

impl Walker {
    /// Creates a walker that continues after a cursor, or starts at the first file.
    pub(super) fn new(tree: &Tree, read_ahead: &ReadAhead, after: Option<&Cursor>) -> Result<Self> {
        let unusable = || Error::new(ErrorKind::Internal, "a stored Cursor cannot be read");
        let skip_until =
            after.map(|cursor| path::decode(cursor.as_str()).ok_or_else(unusable)).transpose()?;
        let read_ahead = read_ahead.clone();
        Ok(Self { scan: tree.scan(), read_ahead, seen: SeenInstances::new(), skip_until })
    }

    /// Whether the walker cannot continue and has to be replaced.
    pub(super) fn is_lost(&self) -> bool {
        self.scan.is_lost()
    }

    /// Returns the next page and a report of the files left out of it. An error does not change the walker's position.
    pub(super) async fn page(&mut self, limit: usize) -> Result<(Page, DirectoryReport)> {
        self.skip_listed().await?;
        let mut taken = Vec::new();
        let mut report = DirectoryReport::default();
        let mut found = 0;
        let mut ended = false;
        while found < limit {
            let entry = match self.scan.next().await {
                Ok(Some(entry)) => entry,
                Ok(None) => {
                    ended = true;
                    break;
                }
                Err(error) => {
                    self.put_back_all(taken);
                    return Err(error);
                }
            };
            let mut is_new = false;
            match &entry.kind {
                EntryKind::Instance { identifier, .. } if self.seen.insert(identifier) => is_new = true,
                EntryKind::Instance { .. } => report.duplicates += 1,
                EntryKind::Unidentified => report.unidentified += 1,
                EntryKind::UnreadableFile => report.unreadable_files += 1,
                EntryKind::UnreadableFolder => report.unreadable_folders += 1,
                EntryKind::Ignored => {}
            }
            found += usize::from(is_new);
            taken.push((entry, is_new));
        }
        let mut instances = Vec::new();
        for (entry, is_new) in taken {
            let EntryKind::Instance { identifier, size, locator } = entry.kind else { continue };
            if is_new {
                instances.push(Instance::new(identifier).with_size(size).with_locator(Locator::new(locator)));
            } else {
                self.read_ahead.take(&locator);
            }
        }
        let page = match instances.last() {
            Some(last) if !ended => {
                let next = Cursor::new(last.locator().as_str());
                Page::more(instances, next)
            }
            _ => Page::last(instances),
        };
        Ok((page.with_warnings(report.warnings()), report))
    }

    /// Reads the files that an earlier walker listed, so that later files of the same instances are recognized.
    async fn skip_listed(&mut self) -> Result<()> {
        while let Some(cursor) = &self.skip_until {
            match self.scan.next().await? {
                Some(entry) if entry.path <= *cursor => {
                    if let EntryKind::Instance { identifier, .. } = &entry.kind {
                        self.seen.insert(identifier);
                    }
                }
                Some(entry) => {
                    self.scan.put_back(entry);
                    self.skip_until = None;
                }
                None => self.skip_until = None,
            }
        }
        self.scan.enable_read_ahead(self.read_ahead.clone());
        Ok(())
    }

    fn put_back_all(&mut self, taken: Vec<(Entry, bool)>) {
        for (entry, is_new) in taken.into_iter().rev() {
            if let (EntryKind::Instance { identifier, .. }, true) = (&entry.kind, is_new) {
                self.seen.remove(identifier);
            }
            self.scan.put_back(entry);
        }
    }
}

/// The identifiers of the instances listed so far, as 128-bit hashes with a random key: 20 to 40 bytes each.
struct SeenInstances {
    key: [u8; 16],
    hashes: HashSet<u128>,
}

impl SeenInstances {
    fn new() -> Self {
        Self { key: Uuid::new_v4().into_bytes(), hashes: HashSet::new() }
    }

    fn hash(&self, identifier: &InstanceIdentifier) -> u128 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        for uid in
            [identifier.study_instance_uid(), identifier.series_instance_uid(), identifier.sop_instance_uid()]
        {
            hasher.write(uid.as_str().as_bytes());
            hasher.write_u8(b'/');
        }
        hasher.finish128().as_u128()
    }

    /// Adds an identifier. Returns whether it is new.
    fn insert(&mut self, identifier: &InstanceIdentifier) -> bool {
        let hash = self.hash(identifier);
        self.hashes.insert(hash)
    }

    fn remove(&mut self, identifier: &InstanceIdentifier) {
        let hash = self.hash(identifier);
        self.hashes.remove(&hash);
    }
}

/// Walkers between two pages, the oldest first, each with the cursor of its next page.
#[derive(Default)]
pub(super) struct Walkers(Mutex<Vec<(Option<Cursor>, Walker)>>);

impl Walkers {
    /// Takes the walker that continues after this cursor.
    pub(super) fn take(&self, after: Option<&Cursor>) -> Option<Walker> {
        let mut kept = lock(&self.0);
        let at = kept.iter().position(|(cursor, _)| cursor.as_ref() == after)?;
        Some(kept.remove(at).1)
    }

    /// Keeps a walker that continues after this cursor.
    pub(super) fn keep(&self, after: Option<Cursor>, walker: Walker) {
        let mut kept = lock(&self.0);
        if kept.len() == MAX_WALKERS {
            kept.remove(0);
        }
        kept.push((after, walker));
    }
}
