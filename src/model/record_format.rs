//! [`RecordFormat`]: the format of stored specs and checkpoints.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The member `format` of a stored spec or checkpoint. A record without it has format 1.
///
/// A change that earlier versions cannot read or would read wrongly increments [`CURRENT`](Self::CURRENT). Additional
/// members do not, because readers ignore unknown members and use defaults for missing ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RecordFormat;

impl RecordFormat {
    /// The format that this version writes, and the latest that it reads.
    pub(crate) const CURRENT: u64 = 1;
}

impl Serialize for RecordFormat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(Self::CURRENT)
    }
}

impl<'de> Deserialize<'de> for RecordFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            format if format > Self::CURRENT => {
                Err(de::Error::custom(format_args!("format {format} was written by a later version")))
            }
            _ => Ok(Self),
        }
    }
}
