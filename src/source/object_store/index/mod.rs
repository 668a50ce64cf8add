//! [`ObjectIndex`]: the layout of a store whose index names the instances.

mod line;
mod reader;
mod table;

use std::sync::Arc;
use std::time::Duration;

use ::object_store::path::Path;
use ::object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::Instant;

use self::reader::{IndexReader, Reading, Version};
pub(super) use self::table::IndexedObject;
use self::table::{IndexTable, Position};
use super::error::index_error;
use crate::error::{ErrorKind, Result};
use crate::model::{Cursor, ListRequest, ListWarning, Page, Scope};

/// How long the index is used for exports by identifiers without a request that finds out whether it has changed.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// An index of a store, and its lines once they have been read.
pub(super) struct ObjectIndex {
    /// The key of the index below the prefix of the source.
    pub(super) path: Path,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    complete: Option<Complete>,
    /// A reader that was interrupted.
    reader: Option<IndexReader>,
}

struct Complete {
    version: Version,
    table: Arc<IndexTable>,
    checked: Instant,
}

/// When an index that has been read is compared with its object.
enum Check {
    Now,
    AfterInterval,
    Never,
}

#[derive(Serialize, Deserialize)]
struct IndexCursor {
    version: String,
    after: Position,
}

impl ObjectIndex {
    pub(super) fn new(path: Path) -> Self {
        Self { path, state: Mutex::default() }
    }

    /// Returns a page of a listing.
    pub(super) async fn list(
        &self,
        store: &Arc<dyn ObjectStore>,
        location: &Path,
        request: ListRequest<'_>,
    ) -> Result<Page> {
        let cursor: Option<IndexCursor> = request.after.map(Cursor::decode).transpose()?;
        let (scope, check) = match (request.scope, &cursor) {
            (Scope::Everything, None) => (None, Check::Now),
            (Scope::Everything, Some(_)) => (None, Check::Never),
            (Scope::Identifier(scope), None) => (Some(scope.clone()), Check::AfterInterval),
            (Scope::Identifier(scope), Some(_)) => (Some(scope.clone()), Check::Never),
        };
        let table = self.table(store, location, check).await?;
        let is_changed = cursor.as_ref().is_some_and(|cursor| cursor.version != table.version);
        let unidentified = if scope.is_some() { table.take_unidentified() } else { 0 };

        let found = table.page(scope, cursor.map(|cursor| cursor.after), request.limit).await?;
        let warnings = [
            (
                "duplicateInstance",
                found.repeats,
                "lines of the index name an instance that a later line names",
            ),
            ("listChanged", u64::from(is_changed), "the index has changed during the export"),
            ("unidentifiedLine", unidentified, "lines of the index have no valid UIDs"),
        ];
        let warnings = warnings.into_iter().filter(|(_, count, _)| *count > 0);
        let warnings =
            warnings.map(|(code, count, message)| ListWarning::new(code, message, count)).collect();
        let mut page = Page::last(found.instances).with_failures(found.failures).with_warnings(warnings);
        if let Some(after) = found.next {
            page.next = Some(Cursor::encode(&IndexCursor { version: table.version.clone(), after })?);
        }
        Ok(page)
    }

    /// The number of instances.
    pub(super) async fn count(&self, store: &Arc<dyn ObjectStore>, location: &Path) -> Result<u64> {
        self.table(store, location, Check::AfterInterval).await.map(|table| table.instances())
    }

    /// Returns the lines of the index, and reads them if they have not been read or if the index has changed.
    async fn table(
        &self,
        store: &Arc<dyn ObjectStore>,
        location: &Path,
        check: Check,
    ) -> Result<Arc<IndexTable>> {
        let mut state = self.state.lock().await;
        if let Some(complete) = &state.complete {
            let is_current = match check {
                Check::Now => false,
                Check::AfterInterval => complete.checked.elapsed() < CHECK_INTERVAL,
                Check::Never => true,
            };
            if is_current {
                return Ok(Arc::clone(&complete.table));
            }
        }
        if let State { complete: Some(complete), reader: None } = &mut *state {
            let version = Version::of(&store.head(location).await.map_err(index_error)?);
            if complete.version == version {
                complete.checked = Instant::now();
                return Ok(Arc::clone(&complete.table));
            }
        }
        loop {
            let reader = match state.reader.take() {
                Some(reader) => reader,
                None => IndexReader::open(store, location).await?,
            };
            let reader = state.reader.insert(reader);
            let reading = reader.read(store, location).await;
            let version = reader.version().clone();
            match reading {
                Ok(Reading::Complete(table)) => {
                    let checked = Instant::now();
                    *state = State {
                        complete: Some(Complete { version, table: Arc::clone(&table), checked }),
                        reader: None,
                    };
                    return Ok(table);
                }
                // A reader that has just been opened reads the version that it was opened with.
                Ok(Reading::Changed) => state.reader = None,
                Err(error) => {
                    if error.kind() == ErrorKind::Invalid {
                        state.reader = None;
                    }
                    return Err(error);
                }
            }
        }
    }
}
