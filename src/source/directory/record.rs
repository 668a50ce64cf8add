//! What the index stores of a file, and its keys.

use super::entry::{EntryKind, Stamp};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Cursor, DicomIdentifier, InstanceIdentifier, ListFailure};

/// What the index stores of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    Instance { identifier: InstanceIdentifier, has_preamble: bool, stamp: Stamp },
    Unidentified { failure: ListFailure, stamp: Stamp },
    Directory { stamp: Stamp },
    Ignored { stamp: Stamp },
}

impl Record {
    /// Returns `None` for entries whose content is not known.
    pub(super) fn new(kind: &EntryKind, stamp: Stamp) -> Option<Self> {
        match kind {
            EntryKind::Instance { identifier, has_preamble, .. } => {
                Some(Self::Instance { identifier: identifier.clone(), has_preamble: *has_preamble, stamp })
            }
            EntryKind::Unidentified(failure) => Some(Self::Unidentified { failure: failure.clone(), stamp }),
            EntryKind::Directory => Some(Self::Directory { stamp }),
            EntryKind::Ignored => Some(Self::Ignored { stamp }),
            EntryKind::Duplicate | EntryKind::UnreadableFile | EntryKind::UnreadableFolder => None,
        }
    }

    pub(super) fn stamp(&self) -> Stamp {
        match self {
            Self::Instance { stamp, .. }
            | Self::Unidentified { stamp, .. }
            | Self::Directory { stamp }
            | Self::Ignored { stamp } => *stamp,
        }
    }

    pub(super) fn into_kind(self) -> EntryKind {
        match self {
            Self::Instance { identifier, has_preamble, stamp } => {
                EntryKind::Instance { identifier, size: stamp.size, has_preamble }
            }
            Self::Unidentified { failure, .. } => EntryKind::Unidentified(failure),
            Self::Directory { .. } => EntryKind::Directory,
            Self::Ignored { .. } => EntryKind::Ignored,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let (kind, text) = match self {
            Self::Instance { identifier, has_preamble: true, .. } => (b'i', identifier.to_string()),
            Self::Instance { identifier, .. } => (b'j', identifier.to_string()),
            Self::Unidentified { failure, .. } => (b'u', format!("{} {}", failure.identifier, failure.error)),
            Self::Directory { .. } => (b'd', String::new()),
            Self::Ignored { .. } => (b'-', String::new()),
        };
        let Stamp { modified, size } = self.stamp();
        [&modified.to_le_bytes()[..], &size.to_le_bytes(), &[kind], text.as_bytes()].concat()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (modified, rest) = bytes.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        let (kind, text) = rest.split_first()?;
        let stamp = Stamp { modified: u64::from_le_bytes(*modified), size: u64::from_le_bytes(*size) };
        let text = std::str::from_utf8(text).ok()?;
        Some(match kind {
            b'i' | b'j' => {
                Self::Instance { identifier: text.parse().ok()?, has_preamble: *kind == b'i', stamp }
            }
            b'u' => {
                let (known, error) = text.split_once(' ')?;
                Self::Unidentified { failure: ListFailure::new(known, error), stamp }
            }
            b'd' => Self::Directory { stamp },
            b'-' => Self::Ignored { stamp },
            _ => return None,
        })
    }

    /// Returns the key that finds the file by its identifier.
    pub(super) fn identifier_key(&self, path_key: &[u8]) -> Option<Vec<u8>> {
        let text = match self {
            Self::Instance { identifier, .. } => identifier.to_string(),
            Self::Unidentified { failure, .. } if !failure.identifier.is_empty() => {
                failure.identifier.clone()
            }
            _ => return None,
        };
        let mut parts = text.splitn(3, '/');
        let mut key = Vec::new();
        for _ in 0..3 {
            key.extend(parts.next().unwrap_or("").bytes().chain([0]));
        }
        key.extend(path_key);
        Some(key)
    }
}

/// The beginning of the keys of all files under an identifier: its UIDs, each followed by a NUL.
pub(super) fn prefix(scope: &DicomIdentifier) -> Vec<u8> {
    let uids = [Some(scope.study_instance_uid()), scope.series_instance_uid(), scope.sop_instance_uid()];
    uids.into_iter().flatten().flat_map(|uid| uid.as_str().bytes().chain([0])).collect()
}

/// Splits a key into the three UIDs, each with its NUL, and the path key.
pub(super) fn split_key(key: &[u8]) -> Result<(&[u8], &[u8])> {
    let nul = key.iter().enumerate().filter(|(_, byte)| **byte == 0).nth(2);
    nul.map(|(at, _)| key.split_at(at + 1)).ok_or_else(damaged)
}

/// Returns the first key after the entry of a cursor: `<study>/<series>/<sop instance>` for an instance,
/// `<study>/<series>//<locator>` for a file without three UIDs.
pub(super) fn first_key_after(cursor: &Cursor) -> Result<Vec<u8>> {
    let text: String = cursor.decode()?;
    let mut parts = text.splitn(4, '/');
    let mut key = Vec::new();
    for _ in 0..3 {
        key.extend(parts.next().unwrap_or("").bytes().chain([0]));
    }
    match parts.next() {
        Some(locator) => {
            let unusable = || Error::new(ErrorKind::Internal, "a stored Cursor cannot be read");
            let path = super::path::decode(locator).ok_or_else(unusable)?;
            key.extend(super::path::to_key(&path).ok_or_else(unusable)?);
            key.push(0);
        }
        // Behind all files of the instance.
        None => {
            key.pop();
            key.push(1);
        }
    }
    Ok(key)
}

pub(super) fn damaged() -> Error {
    Error::new(ErrorKind::Internal, "the index of the source is damaged")
}
