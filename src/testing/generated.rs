//! [`GeneratedSource`]: instances that are generated on demand.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream;

use crate::content::Content;
use crate::content::buffer::Buffer;
use crate::error::{Error, ErrorKind, Result};
use crate::model::ExportSource;
use crate::model::{Cursor, Instance, ListRequest, Page, Scope};
use crate::model::{DicomIdentifier, InstanceIdentifier, Uid};
use crate::source::InstanceSource;

/// The size of a chunk. Smaller instances are in one chunk.
const CHUNK_SIZE: u64 = 1 << 20;

/// The period of the pattern that instances are cut from. Each instance begins at another offset.
const PATTERN_LENGTH: u64 = 8191;

const INSTANCES_PER_SERIES: u64 = 500;
const SERIES_PER_STUDY: u64 = 4;

/// The root of the UIDs, followed by `.1.` and the number of a study, `.2.` and the number of a series, or `.3.` and the
/// number of an instance.
const UID_ROOT: &str = "1.2.826.0.1.3680043.10.999";

/// Instances of one size that are generated when they are listed and opened. The source takes about 1 MiB of memory,
/// regardless of their number.
///
/// A series has 500 instances and a study 2,000, so that requests can name scopes of each level. The bytes are a pattern
/// that differs between instances; they are not a DICOM file. The source is for benchmarks, and for tests that do not
/// parse instances.
///
/// ```
/// use dicom_export::testing::{GeneratedSource, NullSink};
/// use dicom_export::{ExportEngine, ExportSource, NewOperation};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> dicom_export::Result<()> {
/// let engine = ExportEngine::builder(GeneratedSource::new(10_000, 512)).build()?;
/// let operation = engine.start(NewOperation::new(ExportSource::Everything, NullSink::new())).await?;
/// assert_eq!(engine.wait(operation.operation_id).await?.results.exported, 10_000);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct GeneratedSource {
    count: u64,
    size: u64,
    pattern: Bytes,
    copied: bool,
}

impl GeneratedSource {
    /// Creates a source of `count` instances of `size` bytes each.
    pub fn new(count: u64, size: u64) -> Self {
        let length = size.min(CHUNK_SIZE) + PATTERN_LENGTH;
        let pattern = (0..length).map(|at| (at % PATTERN_LENGTH).wrapping_mul(0x9e37_79b9).to_le_bytes()[1]);
        Self { count, size, pattern: pattern.collect(), copied: false }
    }

    /// Gives each chunk its own memory, like the chunks of a file, for measuring memory. By default, all chunks are views of
    /// the same memory.
    #[must_use]
    pub fn copied(mut self) -> Self {
        self.copied = true;
        self
    }

    /// The identifier of the instance with this number, counted from 0.
    ///
    /// # Errors
    /// Never in practice, because the UIDs are valid.
    pub fn identifier(number: u64) -> Result<InstanceIdentifier> {
        let series = number / INSTANCES_PER_SERIES;
        Ok(InstanceIdentifier::new(
            Uid::new(&format!("{UID_ROOT}.1.{}", series / SERIES_PER_STUDY))?,
            Uid::new(&format!("{UID_ROOT}.2.{series}"))?,
            Uid::new(&format!("{UID_ROOT}.3.{number}"))?,
        ))
    }

    /// A range of numbers that includes the instances of an identifier. The caller checks that the identifier's UIDs belong
    /// together.
    fn candidates(identifier: &DicomIdentifier) -> Option<std::ops::Range<u64>> {
        let (study, series) = (identifier.study_instance_uid(), identifier.series_instance_uid());
        let (number, count) = match (series, identifier.sop_instance_uid()) {
            (_, Some(sop)) => (number(sop, ".3.")?, 1),
            (Some(series), None) => (number(series, ".2.")?, INSTANCES_PER_SERIES),
            (None, None) => (number(study, ".1.")?, INSTANCES_PER_SERIES * SERIES_PER_STUDY),
        };
        let from = number.checked_mul(count)?;
        Some(from..from.saturating_add(count))
    }
}

/// The number in a UID of this level.
fn number(uid: &Uid, level: &str) -> Option<u64> {
    uid.as_str().strip_prefix(UID_ROOT)?.strip_prefix(level)?.parse().ok()
}

/// Copies bytes into a buffer from the pool, as reading a file does.
fn copy(bytes: &[u8]) -> Bytes {
    let mut buffer = Buffer::with_capacity(bytes.len());
    buffer.unfilled()[..bytes.len()].copy_from_slice(bytes);
    buffer.advance(bytes.len());
    buffer.into_bytes()
}

impl std::fmt::Debug for GeneratedSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { count, size, .. } = self;
        f.debug_struct("GeneratedSource").field("count", count).field("size", size).finish_non_exhaustive()
    }
}

#[async_trait]
impl InstanceSource for GeneratedSource {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        let range = match request.scope {
            Scope::Everything => 0..self.count,
            Scope::Identifier(identifier) => {
                let candidates = Self::candidates(identifier).unwrap_or(0..0);
                let start = candidates.start;
                match start < self.count && identifier.covers(&Self::identifier(start)?) {
                    true => start..candidates.end.min(self.count),
                    false => 0..0,
                }
            }
        };
        let from = request.after.map(Cursor::decode::<u64>).transpose()?.unwrap_or(range.start);
        let to = from.saturating_add(request.limit as u64).min(range.end);
        let mut instances = Vec::with_capacity(to.saturating_sub(from) as usize);
        for number in from..to {
            instances.push(Instance::new(Self::identifier(number)?).with_size(self.size));
        }
        Ok(match to >= range.end {
            true => Page::last(instances),
            false => Page::more(instances, Cursor::encode(&to)?),
        })
    }

    async fn open(&self, instance: &Instance) -> Result<Content> {
        let identifier = instance.identifier();
        let (study, series) = (identifier.study_instance_uid(), identifier.series_instance_uid());
        let number = number(identifier.sop_instance_uid(), ".3.").filter(|found| {
            let in_series = found / INSTANCES_PER_SERIES;
            *found < self.count
                && number(series, ".2.") == Some(in_series)
                && number(study, ".1.") == Some(in_series / SERIES_PER_STUDY)
        });
        let Some(number) = number else {
            return Err(Error::new(ErrorKind::NotFound, "the instance does not exist"));
        };
        let start = number.wrapping_mul(31) % PATTERN_LENGTH;
        let (pattern, copied, size) = (self.pattern.clone(), self.copied, self.size);
        let chunk = move |length: u64| {
            let bytes = pattern.slice(start as usize..(start + length) as usize);
            if copied { copy(&bytes) } else { bytes }
        };
        if size <= CHUNK_SIZE {
            return Ok(Content::from_bytes(chunk(size)));
        }
        let mut remaining = size;
        let chunks = std::iter::from_fn(move || {
            let length = remaining.min(CHUNK_SIZE);
            remaining -= length;
            (length > 0).then(|| Ok(chunk(length)))
        });
        Ok(Content::from_stream(Some(size), stream::iter(chunks)))
    }

    async fn estimate(&self, source: &ExportSource) -> Result<Option<u64>> {
        Ok(source.is_everything().then_some(self.count))
    }
}
