//! [`GeneratedSource`]: instances that are made up as they are asked for.

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

/// Instances that come in one piece, and the pieces of larger ones.
const CHUNK: u64 = 1 << 20;

/// Instances differ in where they begin in one pattern, of this length beyond a chunk.
const PATTERN: u64 = 8191;

const IN_A_SERIES: u64 = 500;
const SERIES_IN_A_STUDY: u64 = 4;

/// What the UIDs begin with; a study's goes on with 1 and its number, a series' with 2, an instance's with 3.
const ROOT: &str = "1.2.826.0.1.3680043.10.999";

/// So many instances of one size, made up as they are listed and opened: it holds a megabyte, however many there are.
///
/// Five hundred make a series and two thousand a study, so that scopes of every size can be asked for. The bytes are a
/// pattern that differs from one instance to the next and is no DICOM file: it is for measuring and for tests that do
/// not look inside.
#[derive(Clone)]
pub struct GeneratedSource {
    count: u64,
    size: u64,
    pattern: Bytes,
    copied: bool,
}

impl GeneratedSource {
    /// So many instances of so many bytes each.
    pub fn new(count: u64, size: u64) -> Self {
        let length = size.min(CHUNK) + PATTERN;
        let pattern = (0..length).map(|at| (at % PATTERN).wrapping_mul(0x9e37_79b9).to_le_bytes()[1]);
        Self { count, size, pattern: pattern.collect(), copied: false }
    }

    /// Every piece is memory of its own, as a file's would be: for measuring memory. Otherwise they all are views of the
    /// same megabyte.
    pub fn copied(mut self) -> Self {
        self.copied = true;
        self
    }

    /// The instance of this number, from 0.
    ///
    /// # Errors
    /// None in practice: the UIDs are valid.
    pub fn identifier(number: u64) -> Result<InstanceIdentifier> {
        let series = number / IN_A_SERIES;
        Ok(InstanceIdentifier::new(
            Uid::new(&format!("{ROOT}.1.{}", series / SERIES_IN_A_STUDY))?,
            Uid::new(&format!("{ROOT}.2.{series}"))?,
            Uid::new(&format!("{ROOT}.3.{number}"))?,
        ))
    }

    /// The numbers of what lies under an identifier, and maybe others besides.
    fn near(identifier: &DicomIdentifier) -> Option<std::ops::Range<u64>> {
        let (study, series) = (identifier.study_instance_uid(), identifier.series_instance_uid());
        let (number, each) = match (series, identifier.sop_instance_uid()) {
            (_, Some(sop)) => (number(sop, ".3.")?, 1),
            (Some(series), None) => (number(series, ".2.")?, IN_A_SERIES),
            (None, None) => (number(study, ".1.")?, IN_A_SERIES * SERIES_IN_A_STUDY),
        };
        let from = number.checked_mul(each)?;
        Some(from..from.saturating_add(each))
    }
}

/// What a UID of this kind ends with.
fn number(uid: &Uid, kind: &str) -> Option<u64> {
    uid.as_str().strip_prefix(ROOT)?.strip_prefix(kind)?.parse().ok()
}

/// As a file is read.
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
                let near = Self::near(identifier).unwrap_or(0..0);
                // UIDs that do not belong together find nothing.
                match near.start < self.count && identifier.covers(&Self::identifier(near.start)?) {
                    true => near.start..near.end.min(self.count),
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
            let in_series = found / IN_A_SERIES;
            *found < self.count
                && number(series, ".2.") == Some(in_series)
                && number(study, ".1.") == Some(in_series / SERIES_IN_A_STUDY)
        });
        let Some(number) = number else {
            return Err(Error::new(ErrorKind::NotFound, "there is no such instance"));
        };
        let begin = number.wrapping_mul(31) % PATTERN;
        let (pattern, copied, size) = (self.pattern.clone(), self.copied, self.size);
        let piece = move |length: u64| {
            let bytes = pattern.slice(begin as usize..(begin + length) as usize);
            if copied { copy(&bytes) } else { bytes }
        };
        if size <= CHUNK {
            return Ok(Content::from_bytes(piece(size)));
        }
        let mut left = size;
        let pieces = std::iter::from_fn(move || {
            let length = left.min(CHUNK);
            left -= length;
            (length > 0).then(|| Ok(piece(length)))
        });
        Ok(Content::from_stream(Some(size), stream::iter(pieces)))
    }

    async fn estimate(&self, source: &ExportSource) -> Result<Option<u64>> {
        Ok(source.is_everything().then_some(self.count))
    }
}
