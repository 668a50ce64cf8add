//! [`DirectorySource`]: a folder tree of DICOM files.

mod head;
mod index;
#[cfg_attr(unix, path = "open_unix.rs")]
#[cfg_attr(not(unix), path = "open_portable.rs")]
mod opener;
mod path;
mod read_ahead;
mod report;
mod scan;
mod seen;
mod tree;
mod walk;
mod walker;

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Mutex;

use async_trait::async_trait;
use tokio::sync::OnceCell;

use self::index::{Index, IndexBuilder};
use self::read_ahead::ReadAhead;
pub use self::report::{DirectoryReport, SkippedPath};
use self::scan::Scan;
use self::tree::Tree;
use self::walker::{Walker, Walkers};
use crate::content::{Content, read_error};
use crate::error::{Error, ErrorKind, Result};
use crate::model::ExportSource;
use crate::model::{Cursor, Instance, ListRequest, Page, Scope};
use crate::model::{DicomIdentifier, InstanceIdentifier};
use crate::source::InstanceSource;
use crate::sync::{blocking, lock};

/// A folder tree of DICOM files. File names do not matter.
///
/// A file with `DICM` at byte 128 is a DICOM file (PS3.10 7.1). A file that starts with a data set, without this preamble,
/// is listed if it has three UIDs; other files are ignored. The UIDs are read from the head of the file; what follows them
/// may be damaged. Files are exported as they are, whatever their transfer syntax. If two files have the same three UIDs,
/// the first in path order is listed.
///
/// DICOM files without three valid UIDs, and files and folders that cannot be read, are skipped: they have a line in
/// `errors.log`, without their path. [`report`](Self::report) names their paths and counts what else is left out; so do
/// the warnings of the pages, and a `tracing` event.
///
/// ```
/// use std::sync::Arc;
/// use dicom_export::{BlobSink, DirectorySink, DirectorySource, ExportEngine, ExportSource, NewOperation};
/// # let folder = tempfile::tempdir()?;
/// # let (archive, container) = (folder.path().join("archive"), folder.path().join("container"));
/// # std::fs::create_dir(&archive)?;
/// # tokio::runtime::Runtime::new()?.block_on(async {
///
/// let source = DirectorySource::open(archive)?;
/// let sink: Arc<dyn BlobSink> = Arc::new(DirectorySink::open(container)?);
/// let engine = ExportEngine::builder(source).build()?;
/// let started = engine.start(NewOperation::new(ExportSource::Everything, sink)).await?;
/// let ended = engine.wait(started.operation_id).await?;
/// println!("{} exported, {} skipped", ended.results.exported, ended.results.skipped);
/// # Ok::<_, dicom_export::Error>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// # Listing everything
/// The tree is listed in path order: folder by folder, the names in a folder compared as bytes. A cursor is the path of
/// the last listed entry. Between two pages the source keeps the walk and a hash of every listed identifier; the hashes of
/// more than 229,376 instances are in a temporary file, and folders with very many files are read in parts, so that a
/// listing holds at most 16 MiB. Continuing after a cursor of another process reads the heads of the files before it again.
/// A small file is read once, when it is listed, and exported as it was then ([`read_ahead`](Self::read_ahead)).
///
/// Symbolic links are not followed unless [`follow_links`](Self::follow_links) is set, neither when a file is listed nor
/// when it is opened, and only regular files are read.
///
/// # Listing identifiers
/// The first listing of an identifier reads the heads of all files and builds an index in memory, about 150 bytes an
/// instance. The index is built once: files that are added later are not found through this value, and opening a deleted
/// file fails with [`NotFound`](ErrorKind::NotFound).
///
/// # Unmounted folders
/// If a file does not exist and the root is missing or empty too, the error is [`Unavailable`](ErrorKind::Unavailable)
/// instead of `NotFound`: the file system is probably not mounted.
pub struct DirectorySource {
    tree: Tree,
    read_ahead: ReadAhead,
    walkers: Walkers,
    index: OnceCell<Index>,
    /// A scan for the index that was interrupted by an error, to be continued.
    interrupted_scan: Mutex<Option<(Scan, IndexBuilder)>>,
    /// The warnings of the index that no page has returned yet.
    pending_warnings: Mutex<DirectoryReport>,
    report: Mutex<DirectoryReport>,
}

impl DirectorySource {
    /// Creates a source for the tree below this folder, which may be a symbolic link. It reads nothing below the folder.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the folder does not exist, [`Invalid`](ErrorKind::Invalid) if it is not a
    /// folder, [`Unreadable`](ErrorKind::Unreadable) or [`Unavailable`](ErrorKind::Unavailable) if it cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let checked = std::path::absolute(path).and_then(|root| fs::read_dir(&root).map(|_| root));
        let root = checked.map_err(|cause| {
            let (kind, message) = match cause.kind() {
                io::ErrorKind::NotFound => (ErrorKind::NotFound, "the source's folder does not exist"),
                io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput => {
                    (ErrorKind::Invalid, "the source is not a folder")
                }
                io::ErrorKind::PermissionDenied => {
                    (ErrorKind::Unreadable, "permission to read the source's folder is denied")
                }
                _ => (ErrorKind::Unavailable, "the source's folder cannot be read"),
            };
            Error::new(kind, message).with_source(cause)
        })?;
        Ok(Self {
            tree: Tree { root: root.into(), follow_links: false },
            read_ahead: ReadAhead::with_capacity(read_ahead::DEFAULT_CAPACITY),
            walkers: Walkers::default(),
            index: OnceCell::new(),
            interrupted_scan: Mutex::default(),
            pending_warnings: Mutex::default(),
            report: Mutex::default(),
        })
    }

    /// Sets whether symbolic links below the root are followed. Default: `false`, they are ignored.
    ///
    /// A link to a folder that contains it is never followed. Instances behind a link are listed under the path through
    /// the link.
    #[must_use]
    pub fn follow_links(mut self, follow: bool) -> Self {
        self.tree.follow_links = follow;
        self
    }

    /// Sets how many bytes of small files (up to 64 KiB each) are cached from the listing until they are opened, in
    /// addition to the engine's memory budget. Default: 16 MiB, shared by all listings of everything.
    ///
    /// Files that do not fit are read again when they are opened. With 0 that applies to all files, and files of 20 kB
    /// take twice as long.
    #[must_use]
    pub fn read_ahead(mut self, bytes: u64) -> Self {
        self.read_ahead = ReadAhead::with_capacity(bytes);
        self
    }

    /// Returns the number of files and folders that were left out since this value was created.
    ///
    /// Listing everything counts page by page: a listing that continues after a cursor counts what follows the cursor,
    /// and two listings count twice. The index for identifiers counts the whole tree once, when it is built.
    pub fn report(&self) -> DirectoryReport {
        lock(&self.report).clone()
    }

    async fn everything(&self, after: Option<&Cursor>, limit: usize) -> Result<Page> {
        let mut walker = match self.walkers.take(after) {
            Some(walker) => walker,
            None => Walker::new(&self.tree, &self.read_ahead, after)?,
        };
        match walker.page(limit).await {
            Ok((page, left_out)) => {
                if let Some(next) = &page.next {
                    self.walkers.keep(Some(next.clone()), walker).await;
                }
                left_out.trace();
                lock(&self.report).merge(&left_out);
                Ok(page)
            }
            Err(error) => {
                if !walker.is_lost() {
                    self.walkers.keep(after.cloned(), walker).await;
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
        let mut warnings = std::mem::take(&mut *lock(&self.pending_warnings));
        warnings.duplicates = index.duplicates(some.clone());
        let more = some.end < all.end;
        let instances = index.instances(some);
        let page = match instances.last() {
            Some(last) if more => {
                let next = Cursor::encode(last.identifier())?;
                Page::more(instances, next)
            }
            _ => Page::last(instances),
        };
        let mut all = warnings.warnings();
        all.extend(warnings.uncertain_warnings());
        Ok(page.with_warnings(all))
    }

    /// Returns the index. The first call builds it; concurrent calls wait for it.
    async fn index(&self) -> Result<&Index> {
        self.index
            .get_or_try_init(|| async {
                let interrupted = lock(&self.interrupted_scan).take();
                let (mut scan, mut builder) =
                    interrupted.unwrap_or_else(|| (Scan::new(&self.tree), IndexBuilder::default()));
                loop {
                    match scan.next().await {
                        Ok(Some(entry)) => builder.add(entry)?,
                        Ok(None) => break,
                        Err(error) => {
                            if !scan.is_lost() {
                                *lock(&self.interrupted_scan) = Some((scan, builder));
                            }
                            return Err(error);
                        }
                    }
                }
                let (index, left_out) = blocking(|| Ok(builder.finish())).await?;
                left_out.trace();
                lock(&self.report).merge(&left_out);
                *lock(&self.pending_warnings) = left_out;
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
        let locator = instance.locator().as_str();
        if let Some(bytes) = self.read_ahead.take(locator) {
            return Ok(Content::from_bytes(bytes));
        }
        let Some(path) = path::decode(locator) else {
            return Err(Error::new(ErrorKind::NotFound, "the locator does not belong to this source"));
        };
        let tree = self.tree.clone();
        blocking(move || {
            let opened = tree.opener().open(&path).map_err(read_error).and_then(Content::from_open_file);
            match opened {
                Err(missing) if missing.kind() == ErrorKind::NotFound => {
                    tree.check_root()?;
                    Err(missing)
                }
                outcome => outcome,
            }
        })
        .await
    }

    /// Returns `None` for everything. For identifiers it builds the index and counts in it.
    async fn estimate(&self, source: &ExportSource) -> Result<Option<u64>> {
        let ExportSource::Identifiers(identifiers) = source else { return Ok(None) };
        let index = self.index().await?;
        let mut count = 0;
        for identifier in identifiers.iter() {
            count += index.range(&identifier, None).len() as u64;
            // A million identifiers take a second or two.
            tokio::task::consume_budget().await;
        }
        Ok(Some(count))
    }
}
