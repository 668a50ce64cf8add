//! [`Walker`]: lists all instances of a folder tree, page by page.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::entry::EntryKind;
use super::index::Index;
use super::path;
use super::read_ahead::ReadAhead;
use super::report::DirectoryReport;
use super::scan::Scan;
use super::tree::Tree;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Cursor, Instance, Locator, Page};
use crate::sync::lock;

/// How many walkers are kept for their next page; more than operations are likely to run at once.
const MAX_WALKERS: usize = 256;

/// How many of them are kept as they are, for speed. The others hold little memory.
const MAX_READY: usize = 8;

/// A walk that has listed everything up to a cursor.
pub(super) struct Walker {
    scan: Scan,
    read_ahead: ReadAhead,
    /// Files up to this path were listed by an earlier walker: they are read for their identifiers only.
    skip_until: Option<PathBuf>,
}

impl Walker {
    /// Creates a walker that continues after a cursor, or starts at the first file.
    pub(super) fn new(
        tree: &Tree,
        read_ahead: &ReadAhead,
        index: Option<&Arc<Index>>,
        after: Option<&Cursor>,
    ) -> Result<Self> {
        let unusable = || Error::new(ErrorKind::Internal, "a stored Cursor cannot be read");
        let skip_until =
            after.map(|cursor| path::decode(cursor.as_str()).ok_or_else(unusable)).transpose()?;
        let mut scan = Scan::without_duplicates(tree);
        if let Some(index) = index {
            scan = scan.with_index(Arc::clone(index), false);
        }
        Ok(Self { scan, read_ahead: read_ahead.clone(), skip_until })
    }

    /// Whether the walker cannot continue and has to be replaced.
    pub(super) fn is_lost(&self) -> bool {
        self.scan.is_lost()
    }

    /// Returns the next page and a report of the files left out of it. An error does not change the walker's position.
    pub(super) async fn page(&mut self, limit: usize) -> Result<(Page, DirectoryReport)> {
        self.skip_listed().await?;
        let mut entries = Vec::new();
        let mut listed = 0;
        let ended = loop {
            if listed == limit {
                break false;
            }
            match self.scan.next().await {
                Ok(Some(entry)) => {
                    listed += usize::from(entry.is_listed());
                    entries.push(entry);
                }
                Ok(None) => break true,
                Err(error) => {
                    entries.into_iter().rev().for_each(|entry| self.scan.put_back(entry));
                    return Err(error);
                }
            }
        };
        let mut report = DirectoryReport::default();
        let (mut instances, mut failures) = (Vec::new(), Vec::new());
        let last = entries.iter().rfind(|entry| entry.is_listed());
        let next = last.filter(|_| !ended).map(|entry| Cursor::new(&*entry.locator));
        for entry in entries {
            failures.extend(report.add(&entry));
            if let EntryKind::Instance { identifier, size, .. } = entry.kind {
                let locator = Locator::new(entry.locator);
                instances.push(Instance::new(identifier).with_size(size).with_locator(locator));
            }
        }
        let mut page = Page::last(instances).with_failures(failures).with_warnings(report.warnings());
        page.next = next;
        Ok((page, report))
    }

    /// Reads the files that an earlier walker listed, so that later files of the same instances are recognized.
    async fn skip_listed(&mut self) -> Result<()> {
        while let Some(cursor) = &self.skip_until {
            match self.scan.next().await? {
                Some(entry) if entry.path <= *cursor => {}
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
}

/// Walkers between two pages, the oldest first.
#[derive(Default)]
pub(super) struct Walkers(Mutex<Vec<KeptWalker>>);

struct KeptWalker {
    /// The cursor of its next page.
    after: Option<Cursor>,
    walker: Walker,
    is_shrunk: bool,
}

impl Walkers {
    /// Takes the walker that continues after this cursor.
    pub(super) fn take(&self, after: Option<&Cursor>) -> Option<Walker> {
        let mut kept = lock(&self.0);
        let at = kept.iter().position(|kept| kept.after.as_ref() == after)?;
        Some(kept.remove(at).walker)
    }

    /// Keeps a walker that continues after this cursor.
    pub(super) async fn keep(&self, after: Option<Cursor>, walker: Walker) {
        let oldest_ready = {
            let mut kept = lock(&self.0);
            kept.push(KeptWalker { after, walker, is_shrunk: false });
            if kept.len() > MAX_WALKERS {
                kept.remove(0);
            }
            let ready = kept.iter().filter(|kept| !kept.is_shrunk).count();
            let oldest = kept.iter().position(|kept| !kept.is_shrunk).filter(|_| ready > MAX_READY);
            oldest.map(|at| kept.remove(at))
        };
        if let Some(KeptWalker { after, mut walker, .. }) = oldest_ready
            && walker.scan.shrink().await.is_ok()
        {
            lock(&self.0).insert(0, KeptWalker { after, walker, is_shrunk: true });
        }
    }
}
