//! The head of a DICOM file: whether it is one, and its identity.

use std::io::{self, BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use dicom_core::header::Header;
use dicom_core::{Length, Tag};
use dicom_dictionary_std::{tags, uids};
use dicom_encoding::transfer_syntax::{Codec, TransferSyntaxIndex};
use dicom_parser::dataset::LazyDataToken;
use dicom_parser::dataset::lazy_read::LazyDataSetReader;
use dicom_parser::{DynStatefulDecoder, StatefulDecode};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

use crate::identifier::{InstanceIdentifier, Uid};

/// What the beginning of a file says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Head {
    /// A DICOM file with its three UIDs.
    Instance(InstanceIdentifier),
    /// A DICOM file whose UIDs cannot be read, or that has none: a DICOMDIR, say.
    Unidentified,
    /// No DICOM file.
    Other,
}

/// Reads a file up to its Series Instance UID (0020,000E), the last of the three in the order of tags (PS3.5 7.1), and
/// nothing behind it: what follows may be damaged or missing.
///
/// # Errors
/// Those of the reader only.
pub(super) fn read_head(reader: impl Read) -> io::Result<Head> {
    let mut reader = BufReader::new(reader);
    // A preamble of 128 bytes, then the prefix (PS3.10 7.1).
    let mut start = [0; 132];
    match reader.read_exact(&mut start) {
        Ok(()) if start.ends_with(b"DICM") => {}
        Ok(()) => return Ok(Head::Other),
        Err(short) if short.kind() == io::ErrorKind::UnexpectedEof => return Ok(Head::Other),
        Err(cause) => return Err(cause),
    }
    let mut fault = None;
    let noted = NoteFault { reader, fault: &mut fault };
    // A damaged file must not end the listing, whatever it makes the parser do.
    let uids = catch_unwind(AssertUnwindSafe(|| read_uids(noted))).unwrap_or_default();
    match (uids, fault) {
        (Some(identifier), _) => Ok(Head::Instance(identifier)),
        (None, Some(fault)) => Err(fault),
        (None, None) => Ok(Head::Unidentified),
    }
}

// Values that are not needed are skipped and not read, in both: a damaged length must not allocate what it claims.

/// Reads the file meta group (PS3.10 7.1) to its end, and gives the Transfer Syntax UID.
fn read_transfer_syntax(reader: &mut dyn Read) -> Option<String> {
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
            _ => group.skip_bytes(header.len.get()?).ok()?,
        }
    }
    found.map(|uid| uid.as_str().to_owned())
}

fn read_uids(mut reader: impl Read) -> Option<InstanceIdentifier> {
    let syntax = read_transfer_syntax(&mut reader)?;
    let syntax = TransferSyntaxRegistry.get(&syntax)?;
    let reader: Box<dyn Read + '_> = match syntax.codec() {
        Codec::Dataset(Some(adapter)) => adapter.adapt_reader(Box::new(reader)),
        Codec::Dataset(None) => return None,
        Codec::None | Codec::EncapsulatedPixelData(..) => Box::new(reader),
    };
    let mut set = LazyDataSetReader::new(DynStatefulDecoder::new_with_ts(reader, syntax, 0).ok()?);
    let (mut study, mut series, mut sop) = (None, None, None);
    let mut depth = 0_u32;
    while let Some(token) = set.advance() {
        match token.ok()? {
            LazyDataToken::SequenceStart { .. } | LazyDataToken::PixelSequenceStart => depth += 1,
            LazyDataToken::SequenceEnd => depth = depth.checked_sub(1)?,
            LazyDataToken::LazyValue { header, mut decoder } if depth == 0 => {
                let uid = match header.tag() {
                    tags::SOP_INSTANCE_UID => &mut sop,
                    tags::STUDY_INSTANCE_UID => &mut study,
                    tags::SERIES_INSTANCE_UID => &mut series,
                    tag if tag > LAST => return None,
                    _ => {
                        decoder.skip_bytes(header.len.get()?).ok()?;
                        continue;
                    }
                };
                *uid = Some(read_uid(&mut decoder, header.len.get()?)?);
                if let (Some(study), Some(series), Some(sop)) = (&study, &series, &sop) {
                    return Some(InstanceIdentifier::new(study.clone(), series.clone(), sop.clone()));
                }
            }
            token => token.skip().ok()?,
        }
    }
    None
}

/// No UID is looked for behind it.
const LAST: Tag = tags::SERIES_INSTANCE_UID;

/// A UID's value, without its padding (PS3.5 9.1). One that is much too long is none; some padding is let pass.
fn read_uid(decoder: &mut impl StatefulDecode, length: u32) -> Option<Uid> {
    if length as usize > 2 * Uid::MAX_LEN {
        return None;
    }
    let mut value = Vec::new();
    decoder.read_to_vec(length, &mut value).ok()?;
    // It reads what there is: half a UID would pass for one.
    if value.len() != length as usize {
        return None;
    }
    Uid::from_padded(std::str::from_utf8(&value).ok()?).ok()
}

/// Remembers the first failure of a reader: the parser's own errors bury it.
struct NoteFault<'f, R> {
    reader: R,
    fault: &'f mut Option<io::Error>,
}

impl<R: Read> Read for NoteFault<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|cause| {
            let kind = cause.kind();
            if kind != io::ErrorKind::Interrupted {
                self.fault.get_or_insert(cause);
            }
            kind.into()
        })
    }
}
