//! The head of a DICOM file: the UIDs in it.

use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use dicom_core::header::Header;
use dicom_core::{Length, Tag};
use dicom_dictionary_std::{tags, uids};
use dicom_encoding::transfer_syntax::{Codec, TransferSyntaxIndex};
use dicom_parser::dataset::LazyDataToken;
use dicom_parser::dataset::lazy_read::LazyDataSetReader;
use dicom_parser::{DynStatefulDecoder, StatefulDecode};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

use crate::model::Uid;

/// The UIDs of a head, as far as it could be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Uids {
    /// Media Storage SOP Instance UID (0002,0003), of the file meta group (PS3.10 7.1).
    pub(crate) media_storage: Value,
    pub(crate) sop_instance: Value,
    pub(crate) study: Value,
    pub(crate) series: Value,
}

/// What a UID's element holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Value {
    /// Nothing, or it has not been come to.
    #[default]
    Absent,
    Uid(Uid),
    /// Something that is no UID.
    NoUid,
}

/// Reads what the first bytes of a file give of its UIDs, as [`read`] does, and whether more bytes would give more.
pub(crate) fn read_uids(head: &[u8]) -> (Uids, bool) {
    let mut ran_out = false;
    let read = read(NoteEnd { head, ran_out: &mut ran_out });
    (read.unwrap_or_default(), ran_out)
}

/// Reads a file up to its Series Instance UID (0020,000E), the last of the three in the order of tags (PS3.5 7.1), and
/// nothing behind it: what follows may be damaged or missing. `None`: it is no DICOM file. It is read in small pieces.
pub(crate) fn read(mut reader: impl Read) -> Option<Uids> {
    // A preamble of 128 bytes, then the prefix (PS3.10 7.1).
    let mut start = [0; 132];
    if reader.read_exact(&mut start).is_err() || !start.ends_with(b"DICM") {
        return None;
    }
    let mut uids = Uids::default();
    // A damaged file must not end whatever reads it, whatever it makes the parser do.
    let _ = catch_unwind(AssertUnwindSafe(|| read_all(reader, &mut uids)));
    Some(uids)
}

// Values that are not needed are skipped and not read, in both: a damaged length must not allocate what it claims.

/// Reads the file meta group (PS3.10 7.1) to its end, and gives the Transfer Syntax UID.
fn read_meta(reader: &mut dyn Read, uids: &mut Uids) -> Option<String> {
    let syntax = TransferSyntaxRegistry.get(uids::EXPLICIT_VR_LITTLE_ENDIAN)?;
    let mut group = DynStatefulDecoder::new_with_ts(reader, syntax, 0).ok()?;
    let first = group.decode_header().ok()?;
    if first.tag() != tags::FILE_META_INFORMATION_GROUP_LENGTH || first.len != Length(4) {
        return None;
    }
    let length = group.read_value(&first).ok()?.uint32().ok()?;
    let end = group.position() + u64::from(length);
    let mut found = None;
    while group.position() < end {
        let header = group.decode_header().ok()?;
        match header.tag() {
            tags::TRANSFER_SYNTAX_UID => found = Some(read_uid(&mut group, header.len.get()?)?),
            tags::MEDIA_STORAGE_SOP_INSTANCE_UID => {
                uids.media_storage = read_uid(&mut group, header.len.get()?)?;
            }
            _ => group.skip_bytes(header.len.get()?).ok()?,
        }
    }
    match found? {
        Value::Uid(uid) => Some(uid.as_str().to_owned()),
        _ => None,
    }
}

/// Reads as far as it gets; `None` is one end like another.
fn read_all(mut reader: impl Read, uids: &mut Uids) -> Option<()> {
    let syntax = read_meta(&mut reader, uids)?;
    let syntax = TransferSyntaxRegistry.get(&syntax)?;
    let reader: Box<dyn Read + '_> = match syntax.codec() {
        Codec::Dataset(Some(adapter)) => Box::new(adapter.adapt_reader(Box::new(reader)).take(INFLATED)),
        Codec::Dataset(None) => return None,
        Codec::None | Codec::EncapsulatedPixelData(..) => Box::new(reader),
    };
    let mut set = LazyDataSetReader::new(DynStatefulDecoder::new_with_ts(reader, syntax, 0).ok()?);
    let mut depth = 0_u32;
    while let Some(token) = set.advance() {
        match token.ok()? {
            LazyDataToken::SequenceStart { .. } | LazyDataToken::PixelSequenceStart => depth += 1,
            LazyDataToken::SequenceEnd => depth = depth.checked_sub(1)?,
            LazyDataToken::LazyValue { header, mut decoder } if depth == 0 => {
                let uid = match header.tag() {
                    tags::SOP_INSTANCE_UID => &mut uids.sop_instance,
                    tags::STUDY_INSTANCE_UID => &mut uids.study,
                    tags::SERIES_INSTANCE_UID => &mut uids.series,
                    tag if tag > LAST => return None,
                    _ => {
                        decoder.skip_bytes(header.len.get()?).ok()?;
                        continue;
                    }
                };
                *uid = read_uid(&mut decoder, header.len.get()?)?;
                if [&uids.study, &uids.series, &uids.sop_instance]
                    .into_iter()
                    .all(|uid| *uid != Value::Absent)
                {
                    return Some(());
                }
            }
            token => token.skip().ok()?,
        }
    }
    None
}

/// No UID is looked for behind it.
const LAST: Tag = tags::SERIES_INSTANCE_UID;

/// A deflated data set is not read further than this: a few bytes can stand for very many.
const INFLATED: u64 = 16 << 20;

/// A UID's value, without its padding (PS3.5 9.1). One that is much too long is none; some padding is let pass. `None`:
/// the file ends in it.
fn read_uid(decoder: &mut impl StatefulDecode, length: u32) -> Option<Value> {
    if length as usize > 2 * Uid::MAX_LEN {
        decoder.skip_bytes(length).ok()?;
        return Some(Value::NoUid);
    }
    let mut value = Vec::new();
    decoder.read_to_vec(length, &mut value).ok()?;
    // It reads what there is: half a UID would pass for one.
    if value.len() != length as usize {
        return None;
    }
    let padding = |byte: &u8| matches!(byte, b' ' | b'\0');
    Some(match std::str::from_utf8(&value).ok().and_then(|value| Uid::from_padded(value).ok()) {
        Some(uid) => Value::Uid(uid),
        None if value.iter().all(padding) => Value::Absent,
        None => Value::NoUid,
    })
}

/// Reads from memory, and notes that more was wanted.
struct NoteEnd<'a> {
    head: &'a [u8],
    ran_out: &'a mut bool,
}

impl Read for NoteEnd<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.head.read(buffer)?;
        *self.ran_out |= read == 0 && !buffer.is_empty();
        Ok(read)
    }
}
