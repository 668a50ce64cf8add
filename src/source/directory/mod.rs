//! [`DirectorySource`]: a folder tree of DICOM files.

mod ahead;
mod head;
mod index;
mod path;
mod report;
mod scan;
mod walker;

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Mutex;

use async_trait::async_trait;
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;

use self::ahead::ReadAhead;
use self::index::{Index, IndexBuilder};
pub use self::report::DirectoryReport;
use self::scan::{Scan, Tree};
use self::walker::{Walker, Walkers};
use crate::content::Content;
use crate::error::{Error, ErrorKind, Result};
use crate::model::ExportSource;
use crate::model::{Cursor, Instance, ListRequest, Page, Scope};
use crate::model::{DicomIdentifier, InstanceIdentifier};
use crate::source::InstanceSource;
use crate::sync::lock;

/// A folder tree of DICOM Part 10 files under any names.
///
/// A file with `DICM` at byte 128 is a DICOM file (PS3.10 7.1); anything else is passed over. Its three UIDs are read
/// from its head, and what follows them may be damaged: the file is exported as it is. Where two files hold the same
/// three UIDs, the first in path order counts. What is passed over is told by [`report`](Self::report), by the
/// warnings of the pages, and to `tracing`; it is not skipped in the sense of
/// [`ExportResults`](crate::ExportResults).
///
/// # Everything
/// The tree is listed in path order: folder by folder, the names in a folder compared as bytes. A cursor is the path of
/// the last instance handed out. Between two pages the walk and a hash of every identity so far are kept (20 to 40
/// bytes an instance, for at most eight listings); a cursor from another process costs reading the heads before it again.
/// A small file is read once, when it is listed, and exported as it was then ([`read_ahead`](Self::read_ahead)).
///
/// # Identifiers
/// The first listing of an identifier reads the whole tree and builds an index in memory, of about 150 bytes an
/// instance. It is built once: files added later are not found through this value, and deleted ones are
/// [`NotFound`](ErrorKind::NotFound) when they are opened.
///
/// # Unmounted folders
/// A file that is not there while the root is missing or empty is [`Unavailable`](ErrorKind::Unavailable) and not
/// `NotFound`: an archive whose disk went away is no archive of lost instances.
pub struct DirectorySource {
    tree: Tree,
    ahead: ReadAhead,
    walkers: Walkers,
    index: OnceCell<Index>,
    /// A scan for the index that met with trouble, to go on with.
    unfinished: Mutex<Option<(Scan, IndexBuilder)>>,
    /// What the scan for the index passed over, until a page has said it.
    unsaid: Mutex<DirectoryReport>,
    report: Mutex<DirectoryReport>,
}

impl DirectorySource {
    /// The tree below this folder; a symbolic link to one is followed. It looks at the folder, and no further.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) when it is not there, [`Invalid`](ErrorKind::Invalid) when it is no folder,
    /// [`Unreadable`](ErrorKind::Unreadable) or [`Unavailable`](ErrorKind::Unavailable) when it cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let checked = std::path::absolute(path).and_then(|root| fs::read_dir(&root).map(|_| root));
        let root = checked.map_err(|cause| {
            let (kind, message) = match cause.kind() {
                io::ErrorKind::NotFound => (ErrorKind::NotFound, "the source's folder is not there"),
                io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput => {
                    (ErrorKind::Invalid, "the source is no folder")
                }
                io::ErrorKind::PermissionDenied => {
                    (ErrorKind::Unreadable, "the source's folder may not be read")
                }
                _ => (ErrorKind::Unavailable, "the source's folder cannot be read"),
            };
            Error::new(kind, message).with_source(cause)
        })?;
        Ok(Self {
            tree: Tree { root: root.into(), follow_links: false },
            ahead: ReadAhead::new(ahead::DEFAULT),
            walkers: Walkers::default(),
            index: OnceCell::new(),
            unfinished: Mutex::default(),
            unsaid: Mutex::default(),
            report: Mutex::default(),
        })
    }

    /// Whether symbolic links below the root are followed; they are not, by default, and so passed over. A link to a
    /// folder above it is never followed. Instances that links lead to are listed under the path through the link.
    pub fn follow_links(mut self, follow: bool) -> Self {
        self.tree.follow_links = follow;
        self
    }

    /// How many bytes of small files, of up to 64 KiB each, are kept from when they are listed until they are opened,
    /// beside the engine's byte budget. Default: 16 MiB, for all listings of everything together; files that find no
    /// room are read again when they are opened. With 0 all are, which takes twice as long for files of 20 kB.
    pub fn read_ahead(mut self, bytes: u64) -> Self {
        self.ahead = ReadAhead::new(bytes);
        self
    }

    /// What has been passed over since this value was made.
    ///
    /// Listing everything counts page by page: a listing that goes on after a cursor counts what comes after the
    /// cursor, and two listings count twice. The index for identifiers counts the whole tree once, when it is built.
    pub fn report(&self) -> DirectoryReport {
        *lock(&self.report)
    }

    async fn everything(&self, after: Option<&Cursor>, limit: usize) -> Result<Page> {
        let mut walker = match self.walkers.take(after) {
            Some(walker) => walker,
            None => Walker::new(&self.tree, &self.ahead, after)?,
        };
        match walker.page(limit).await {
            Ok((page, passed_over)) => {
                if let Some(next) = &page.next {
                    self.walkers.keep(Some(next.clone()), walker);
                }
                passed_over.trace();
                *lock(&self.report) += passed_over;
                Ok(page)
            }
            Err(error) => {
                if !walker.is_lost() {
                    self.walkers.keep(after.cloned(), walker);
                }
                Err(error)
            }
        }
    }

    async fn identified(
        &self,
        scope: &DicomIdentifier,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page> {
        let after: Option<InstanceIdentifier> = after.map(Cursor::decode).transpose()?;
        let index = self.index().await?;
        let all = index.range(scope, after.as_ref());
        let some = all.start..all.end.min(all.start.saturating_add(limit));
        let mut warned = std::mem::take(&mut *lock(&self.unsaid));
        warned.duplicates = index.duplicates(some.clone());
        let more = some.end < all.end;
        let instances = index.instances(some);
        let page = match instances.last() {
            Some(last) if more => {
                let next = Cursor::encode(last.identifier())?;
                Page::more(instances, next)
            }
            _ => Page::last(instances),
        };
        Ok(page.with_warnings(warned.warnings()))
    }

    /// The index; the first call builds it, and those that come meanwhile wait for it.
    async fn index(&self) -> Result<&Index> {
        self.index
            .get_or_try_init(|| async {
                let unfinished = lock(&self.unfinished).take();
                let (mut scan, mut builder) =
                    unfinished.unwrap_or_else(|| (self.tree.scan(), IndexBuilder::default()));
                loop {
                    match scan.next().await {
                        Ok(Some(entry)) => builder.add(entry)?,
                        Ok(None) => break,
                        Err(error) => {
                            if !scan.is_lost() {
                                *lock(&self.unfinished) = Some((scan, builder));
                            }
                            return Err(error);
                        }
                    }
                }
                let finished = spawn_blocking(|| builder.finish()).await;
                let (index, passed_over) = finished.map_err(|cause| {
                    Error::new(ErrorKind::Internal, "the index cannot be built").with_source(cause)
                })?;
                passed_over.trace();
                *lock(&self.report) += passed_over;
                *lock(&self.unsaid) = passed_over;
                Ok(index)
            })
            .await
    }
}

impl fmt::Debug for DirectorySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectorySource")
            .field("follow_links", &self.tree.follow_links)
            .field("report", &self.report())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl InstanceSource for DirectorySource {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        match request.scope {
            Scope::Everything => self.everything(request.after, request.limit).await,
            Scope::Identifier(scope) => self.identified(scope, request.after, request.limit).await,
        }
    }

    async fn open(&self, instance: &Instance) -> Result<Content> {
        if let Some(bytes) = instance.take_read_ahead() {
            return Ok(Content::from_bytes(bytes));
        }
        // A locator may come from elsewhere: one that is no path below the root names nothing here.
        let Some(path) = path::decode(instance.locator().as_str()) else {
            return Err(Error::new(ErrorKind::NotFound, "the locator is none of this source"));
        };
        match Content::from_file(self.tree.root.join(path)).await {
            Err(gone) if gone.kind() == ErrorKind::NotFound => {
                let tree = self.tree.clone();
                let root = spawn_blocking(move || tree.check_root()).await;
                root.map_err(|cause| {
                    Error::new(ErrorKind::Internal, "a reading thread stopped").with_source(cause)
                })??;
                Err(gone)
            }
            outcome => outcome,
        }
    }

    /// Nothing for everything; for identifiers what the index says, once it is built.
    async fn estimate(&self, source: &ExportSource) -> Result<Option<u64>> {
        let ExportSource::Identifiers(identifiers) = source else { return Ok(None) };
        let index = self.index().await?;
        let mut count = 0;
        for identifier in identifiers.as_slice() {
            count += index.range(identifier, None).len() as u64;
            // A million of them take a second or two.
            tokio::task::consume_budget().await;
        }
        Ok(Some(count))
    }
}
