//! [`IndexReader`]: reads an index from its object, and continues after an interruption.

use std::sync::Arc;

use ::object_store::path::Path;
use ::object_store::{Error as StoreError, GetOptions, GetRange, ObjectMeta, ObjectStore};
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};

use super::line::{MAX_LINE_LENGTH, TOO_LONG, parse_line};
use super::table::{IndexTable, Line};
use crate::error::{Error, ErrorKind, Result};
use crate::source::object_store::error::index_error;

/// How many lines are written at once. Each changes a page of the table, and these pages are in memory meanwhile.
const LINES_PER_WRITE: usize = 512;

/// The number of broken lines without a valid one after which the object is not an index.
const MAX_BROKEN_AT_START: u64 = 100;

/// What identifies a version of an index.
#[derive(Debug, Clone)]
pub(super) struct Version {
    etag: Option<String>,
    size: u64,
    /// In milliseconds since 1970.
    modified: i64,
}

impl Version {
    pub(super) fn of(meta: &ObjectMeta) -> Self {
        let modified = meta.last_modified.timestamp_millis();
        Self { etag: meta.e_tag.clone(), size: meta.size, modified }
    }

    /// The version as text.
    pub(super) fn to_text(&self) -> String {
        match &self.etag {
            Some(etag) => etag.clone(),
            None => format!("{}-{}", self.size, self.modified),
        }
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        match (&self.etag, &other.etag) {
            (Some(one), Some(other)) => one == other,
            _ => (self.size, self.modified) == (other.size, other.modified),
        }
    }
}

/// How reading has ended.
pub(super) enum Reading {
    Complete(Arc<IndexTable>),
    /// The object is not the version that was read before.
    Changed,
}

/// Reads one version of an index. After an error, or if a call is dropped, the next call continues.
pub(super) struct IndexReader {
    version: Version,
    table: Arc<IndexTable>,
    stream: Option<BoxStream<'static, Result<Bytes, StoreError>>>,
    /// How many bytes have been received.
    received: u64,
    /// Received bytes that have not been split into lines.
    chunk: Bytes,
    /// The beginning of a line.
    line: Vec<u8>,
    is_too_long: bool,
    /// The number of lines that have been split off.
    number: u64,
    lines: Arc<Vec<(u64, Line)>>,
    /// The number of broken lines before the first instance.
    broken_at_start: u64,
    has_instance: bool,
}

impl IndexReader {
    /// Begins to read an index.
    pub(super) async fn open(store: &Arc<dyn ObjectStore>, path: &Path) -> Result<Self> {
        let found = store.get_opts(path, GetOptions::default()).await.map_err(index_error)?;
        let version = Version::of(&found.meta);
        Ok(Self {
            table: Arc::new(IndexTable::new(version.to_text())?),
            version,
            stream: Some(found.into_stream()),
            received: 0,
            chunk: Bytes::new(),
            line: Vec::new(),
            is_too_long: false,
            number: 0,
            lines: Arc::default(),
            broken_at_start: 0,
            has_instance: false,
        })
    }

    pub(super) fn version(&self) -> &Version {
        &self.version
    }

    /// Reads the rest.
    ///
    /// # Errors
    /// The store's, and [`ErrorKind::Invalid`] for an object that is not an index.
    pub(super) async fn read(&mut self, store: &Arc<dyn ObjectStore>, path: &Path) -> Result<Reading> {
        loop {
            self.split_chunk();
            if self.broken_at_start >= MAX_BROKEN_AT_START {
                return Err(not_an_index());
            }
            if self.lines.len() >= LINES_PER_WRITE {
                self.write().await?;
                continue;
            }
            let Some(stream) = &mut self.stream else {
                if self.received == self.version.size {
                    break;
                }
                let range = (self.received > 0).then_some(GetRange::Offset(self.received));
                let options = GetOptions { range, ..GetOptions::default() };
                let found = store.get_opts(path, options).await.map_err(index_error)?;
                if Version::of(&found.meta) != self.version || found.range.start != self.received {
                    return Ok(Reading::Changed);
                }
                self.stream = Some(found.into_stream());
                continue;
            };
            match stream.next().await {
                Some(Ok(chunk)) => {
                    self.received += chunk.len() as u64;
                    self.chunk = chunk;
                }
                Some(Err(cause)) => {
                    self.stream = None;
                    return Err(index_error(cause));
                }
                None => {
                    self.stream = None;
                    if self.received != self.version.size {
                        let message = "the source's index ended before its stated length";
                        return Err(Error::new(ErrorKind::Unavailable, message));
                    }
                }
            }
        }
        if !self.line.is_empty() || self.is_too_long {
            self.end_line();
        }
        if self.broken_at_start > 0 && !self.has_instance {
            return Err(not_an_index());
        }
        self.write().await?;
        Ok(Reading::Complete(Arc::clone(&self.table)))
    }

    /// Splits the chunk into lines, as many as are written at once.
    fn split_chunk(&mut self) {
        while !self.chunk.is_empty() && self.lines.len() < LINES_PER_WRITE {
            let end = self.chunk.iter().position(|byte| *byte == b'\n');
            let part = self.chunk.split_to(end.unwrap_or(self.chunk.len()));
            if self.line.len() + part.len() > MAX_LINE_LENGTH {
                self.is_too_long = true;
                self.line = Vec::new();
            }
            if !self.is_too_long {
                self.line.extend_from_slice(&part);
            }
            if end.is_some() {
                _ = self.chunk.split_to(1);
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        self.number += 1;
        let line = match std::mem::take(&mut self.is_too_long) {
            true => Some(Line::Broken { known: String::new(), fault: TOO_LONG.into() }),
            false => {
                let text = match self.number {
                    1 => self.line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.line),
                    _ => &self.line,
                };
                parse_line(text)
            }
        };
        self.line.clear();
        match &line {
            Some(Line::Instance { .. }) => self.has_instance = true,
            Some(Line::Broken { .. }) => self.broken_at_start += u64::from(!self.has_instance),
            None => return,
        }
        let number = self.number;
        Arc::make_mut(&mut self.lines).extend(line.map(|line| (number, line)));
    }

    async fn write(&mut self) -> Result<()> {
        self.table.insert(Arc::clone(&self.lines)).await?;
        self.lines = Arc::default();
        Ok(())
    }
}

fn not_an_index() -> Error {
    let message = "the source's index does not consist of JSON objects with 'identifier' and 'path'";
    Error::new(ErrorKind::Invalid, message)
}
