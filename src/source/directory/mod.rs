//! [`DirectorySource`]: a folder tree of DICOM files.

mod entry;
mod head;
mod head_reader;
mod index;
mod index_scan;
mod index_writer;
mod names;
#[cfg_attr(unix, path = "open_unix.rs")]
#[cfg_attr(not(unix), path = "open_portable.rs")]
mod opener;
mod path;
mod read_ahead;
mod record;
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
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::OnceCell;

use self::index::Index;
use self::index_scan::IndexScan;
use self::read_ahead::ReadAhead;
pub use self::report::{DirectoryReport, SkippedPath};
use self::tree::Tree;
use self::walker::{Walker, Walkers};
use crate::content::{Content, read_error};
use crate::error::{Error, ErrorKind, Result};
use crate::model::DicomIdentifier;
use crate::model::ExportSource;
use crate::model::{Cursor, Instance, ListRequest, Page, Scope};
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
/// more than 229,376 instances are in a temporary file, and so are the names of a folder with very many files, so
/// that a listing holds at most 16 MiB. Continuing after a cursor of another process reads the heads of the files before it again.
/// A small file is read once, when it is listed, and exported as it was then ([`read_ahead`](Self::read_ahead)).
///
/// Symbolic links are not followed unless [`follow_links`](Self::follow_links) is set, neither when a file is listed nor
/// when it is opened, and only regular files are read.
///
/// # Listing identifiers
/// The first listing of an identifier reads the heads of all files and builds an index, about 500 bytes a file: in a
/// temporary file, or in the file of [`with_index`](Self::with_index), where it remains. It is built once for each value of
/// this type: files that are added later are not found through this value, and opening a deleted file fails with
/// [`NotFound`](ErrorKind::NotFound). A DICOM file without three valid UIDs is listed as a failure under the UIDs that it
/// has; the warnings `unidentifiedFile`, `unreadableFile` and `unreadableFolder` count what may belong to any identifier.
///
/// # Unmounted folders
/// If a file does not exist and the root is missing or empty too, the error is [`Unavailable`](ErrorKind::Unavailable)
/// instead of `NotFound`: the file system is probably not mounted.
pub struct DirectorySource {
    tree: Tree,
    read_ahead: ReadAhead,
    walkers: Walkers,
    /// The persistent index, if there is one.
    index: Option<Arc<Index>>,
    /// The index after all files have been compared with it.
    complete_index: OnceCell<Arc<Index>>,
    /// The scan for the index that was interrupted by an error, to be continued.
    interrupted_scan: Mutex<Option<IndexScan>>,
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
            index: None,
            complete_index: OnceCell::new(),
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

    /// Keeps an index of the files in a file of its own, which is created if it does not exist. Default: none.
    ///
    /// The index stores for each file its modification time, its size and its UIDs. Listings do not read the head of a file
    /// again while its time and size stay the same. This makes resumptions, and exports by identifier, start faster. The
    /// index contains paths; protect it like the files. Call this after [`follow_links`](Self::follow_links).
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) if another process uses the index; sources in one process share it.
    /// [`Invalid`](ErrorKind::Invalid) and [`Unavailable`](ErrorKind::Unavailable) if the file cannot be used.
    pub fn with_index(mut self, file: impl AsRef<Path>) -> Result<Self> {
        self.index = Some(Index::open(file.as_ref(), &self.tree)?);
        Ok(self)
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
            None => Walker::new(&self.tree, &self.read_ahead, self.index.as_ref(), after)?,
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
        let index = Arc::clone(self.complete_index().await?);
        let (scope, after) = (scope.clone(), after.cloned());
        let entries = blocking(move || index.page(&scope, after.as_ref(), limit)).await?;
        let pending = std::mem::take(&mut *lock(&self.pending_warnings));
        let mut warnings = pending.uncertain_warnings();
        let report = DirectoryReport {
            duplicates: entries.duplicates,
            without_preamble: entries.without_preamble,
            ..DirectoryReport::default()
        };
        warnings.extend(report.warnings());
        let mut page = Page::last(entries.instances).with_failures(entries.failures).with_warnings(warnings);
        page.next = entries.next;
        Ok(page)
    }

    /// Returns the index of all files. The first call builds it; concurrent calls wait for it.
    async fn complete_index(&self) -> Result<&Arc<Index>> {
        self.complete_index
            .get_or_try_init(|| async {
                let interrupted = lock(&self.interrupted_scan).take();
                let mut scan = match interrupted {
                    Some(scan) => scan,
                    None => IndexScan::new(&self.tree, self.index.clone()).await?,
                };
                if let Err(error) = scan.run().await {
                    if !scan.is_lost() {
                        *lock(&self.interrupted_scan) = Some(scan);
                    }
                    return Err(error);
                }
                let (index, left_out) = scan.finish();
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
        let index = Arc::clone(self.complete_index().await?);
        let identifiers = identifiers.clone();
        blocking(move || {
            identifiers.iter().try_fold(0, |sum, identifier| Ok(sum + index.count(&identifier)?))
        })
        .await
        .map(Some)
    }
}
