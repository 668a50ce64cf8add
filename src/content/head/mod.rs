//! Reads the UIDs from the head of a DICOM file.
//!
//! The parser accepts what DICOM toolkits accept, since instances are exported as they are: private transfer syntaxes,
//! File Meta Information without its group length or transfer syntax, elements out of order, a missing preamble.

mod elements;

use std::io::{self, Read, Seek};

use flate2::read::DeflateDecoder;

use self::elements::{ElementReader, Encoding, Header, Inflated, SkipRead, Stop};
use crate::model::Uid;

/// How many bytes of a file are read at most. Values that are skipped do not count if the file can be searched.
pub(crate) const MAX_HEAD: u64 = 8 << 20;

/// The longest value that is read as a UID: some files have more padding than PS3.5 9.1 allows.
const MAX_UID_VALUE: u32 = 2 * Uid::MAX_LEN as u32;

const META_GROUP: u16 = 0x0002;
const MEDIA_STORAGE_SOP_CLASS_UID: (u16, u16) = (META_GROUP, 0x0002);
const MEDIA_STORAGE_SOP_INSTANCE_UID: (u16, u16) = (META_GROUP, 0x0003);
const TRANSFER_SYNTAX_UID: (u16, u16) = (META_GROUP, 0x0010);
const SOP_INSTANCE_UID: (u16, u16) = (0x0008, 0x0018);
const STUDY_INSTANCE_UID: (u16, u16) = (0x0020, 0x000D);
const SERIES_INSTANCE_UID: (u16, u16) = (0x0020, 0x000E);

/// Media Storage Directory Storage, the SOP class of a DICOMDIR (PS3.4 B.5).
const DIRECTORY_STORAGE: &str = "1.2.840.10008.1.3.10";

/// The transfer syntaxes with a deflated data set (PS3.5 A.5 and its JPIP variants).
const DEFLATED: [&str; 3] = ["1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"];
const IMPLICIT_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2";
const EXPLICIT_BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";

/// The head of a DICOM file, as far as it could be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// Media Storage SOP Instance UID (0002,0003), of the File Meta Information (PS3.10 7.1).
    pub(crate) media_storage: UidValue,
    pub(crate) sop_instance: UidValue,
    pub(crate) study: UidValue,
    pub(crate) series: UidValue,
    /// Whether the file is a DICOMDIR.
    pub(crate) is_directory: bool,
    /// Whether the file has the preamble and prefix of PS3.10 7.1.
    pub(crate) has_preamble: bool,
}

/// The value of a UID's element.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum UidValue {
    /// The element is missing or empty, or has not been reached.
    #[default]
    Absent,
    Uid(Uid),
    /// The value is not a UID.
    Invalid,
}

/// Reads the UIDs from the first bytes of a file. The second value tells whether more bytes could add UIDs.
pub(crate) fn read_prefix(bytes: &[u8]) -> (Head, bool) {
    let mut ran_out = false;
    let head = read(RecordEnd { inner: io::Cursor::new(bytes), ran_out: &mut ran_out });
    (head.ok().flatten().unwrap_or_default(), ran_out)
}

/// Reads a file until its three UIDs have been found. Returns `None` if it is not a DICOM file.
///
/// # Errors
/// Those of the reader.
pub(crate) fn read(reader: impl Read + Seek) -> io::Result<Option<Head>> {
    let mut elements = ElementReader::new(reader, MAX_HEAD);
    // A preamble of 128 bytes, then the prefix (PS3.10 7.1).
    let start = elements.peek(132)?;
    let mut head = Head { has_preamble: start.get(128..) == Some(b"DICM"), ..Head::default() };
    if !head.has_preamble && !starts_as_data_set(&start) {
        return Ok(None);
    }
    match read_file(elements, &mut head) {
        Err(Stop::Io(cause)) => Err(cause),
        _ if !head.has_preamble && head.has_no_uid() => Ok(None),
        Ok(()) | Err(Stop::End | Stop::Malformed) => Ok(Some(head)),
    }
}

impl Head {
    fn has_no_uid(&self) -> bool {
        let all = [&self.media_storage, &self.sop_instance, &self.study, &self.series];
        all.into_iter().all(|uid| !matches!(uid, UidValue::Uid(_)))
    }
}

/// Whether bytes without a preamble can be the start of File Meta Information or of a data set.
fn starts_as_data_set(start: &[u8]) -> bool {
    let Some((tag, value)) = start.split_first_chunk::<4>() else { return false };
    let Some((length, _)) = value.split_first_chunk::<4>() else { return false };
    let group = match tag {
        [low, 0, ..] => *low,
        [0, low, ..] => *low,
        _ => return false,
    };
    let is_explicit = elements::is_vr([length[0], length[1]]);
    matches!(group, 2 | 8) && (is_explicit || u32::from_le_bytes(*length) <= 1024)
}

fn read_file<R: Read + Seek>(mut elements: ElementReader<R>, head: &mut Head) -> Result<(), Stop> {
    if head.has_preamble {
        elements.skip(132)?;
    }
    let transfer_syntax = read_meta(&mut elements, head)?;
    let transfer_syntax = transfer_syntax.as_deref();
    if transfer_syntax.is_some_and(|uid| DEFLATED.contains(&uid)) {
        let inflated = Inflated(DeflateDecoder::new(elements));
        return read_data_set(ElementReader::new(inflated, MAX_HEAD), head, None);
    }
    read_data_set(elements, head, transfer_syntax)
}

/// Reads the File Meta Information (PS3.10 7.1), if there is any, and returns the Transfer Syntax UID.
fn read_meta<R: SkipRead>(elements: &mut ElementReader<R>, head: &mut Head) -> Result<Option<String>, Stop> {
    let mut transfer_syntax = None;
    elements.encoding = guess_encoding(&elements.peek(6)?, None);
    let mut end = None;
    loop {
        // The group ends at the first tag of another group: its length is missing or wrong in some files. Compressed
        // data can look like a tag, so there the length counts.
        let is_deflated = transfer_syntax.as_deref().is_some_and(|uid| DEFLATED.contains(&uid));
        let is_end = is_deflated && end.is_some_and(|end| elements.position() >= end);
        if is_end || elements.peek_group()? != META_GROUP {
            return Ok(transfer_syntax);
        }
        let header = elements.header()?;
        match header.tag {
            (META_GROUP, 0) if header.length == Some(4) => {
                let length = elements.value(4)?;
                let length = length.try_into().map_or(0, u32::from_le_bytes);
                end = Some(elements.position() + u64::from(length));
            }
            TRANSFER_SYNTAX_UID => {
                if let UidValue::Uid(uid) = read_uid(elements, &header)? {
                    transfer_syntax = Some(uid.as_str().to_owned());
                }
            }
            MEDIA_STORAGE_SOP_CLASS_UID => {
                let class = read_uid(elements, &header)?;
                head.is_directory = matches!(class, UidValue::Uid(uid) if uid.as_str() == DIRECTORY_STORAGE);
            }
            MEDIA_STORAGE_SOP_INSTANCE_UID => head.media_storage = read_uid(elements, &header)?,
            _ => elements.skip_value(&header)?,
        }
    }
}

/// Reads a data set until all UIDs have been found.
fn read_data_set<R: SkipRead>(
    mut elements: ElementReader<R>,
    head: &mut Head,
    transfer_syntax: Option<&str>,
) -> Result<(), Stop> {
    elements.encoding = guess_encoding(&elements.peek(6)?, transfer_syntax);
    loop {
        let header = elements.header()?;
        let uid = match header.tag {
            SOP_INSTANCE_UID => &mut head.sop_instance,
            STUDY_INSTANCE_UID => &mut head.study,
            SERIES_INSTANCE_UID => &mut head.series,
            _ => {
                elements.skip_value(&header)?;
                continue;
            }
        };
        let value = read_uid(&mut elements, &header)?;
        // Of elements that occur twice, toolkits use the first.
        if *uid == UidValue::Absent {
            *uid = value;
        }
        if [&head.study, &head.series, &head.sop_instance].into_iter().all(|uid| *uid != UidValue::Absent) {
            return Ok(());
        }
    }
}

/// Guesses the encoding of a data set from its first element, since the transfer syntax may be missing, private or
/// wrong. A registered transfer syntax decides where the bytes leave it open.
fn guess_encoding(start: &[u8], transfer_syntax: Option<&str>) -> Encoding {
    let &[g0, g1, _, _, v0, v1] = start else { return Encoding::EXPLICIT_LITTLE_ENDIAN };
    let is_letters = v0.is_ascii_uppercase() && v1.is_ascii_uppercase();
    let explicit = match transfer_syntax {
        None | Some(IMPLICIT_LITTLE_ENDIAN) => elements::is_vr([v0, v1]),
        Some(_) => is_letters,
    };
    let big_endian = match transfer_syntax {
        Some(EXPLICIT_BIG_ENDIAN) => true,
        Some(uid) if uid.starts_with("1.2.840.10008.") => false,
        // Data sets start with a low group number.
        _ => u16::from_le_bytes([g0, g1]) > 0xFF && u16::from_be_bytes([g0, g1]) <= 0xFF,
    };
    Encoding { explicit, big_endian }
}

/// Reads a UID without its padding.
fn read_uid<R: SkipRead>(elements: &mut ElementReader<R>, header: &Header) -> Result<UidValue, Stop> {
    let Some(length) = header.length.filter(|length| *length <= MAX_UID_VALUE) else {
        elements.skip_value(header)?;
        return Ok(UidValue::Invalid);
    };
    let value = elements.value(length)?;
    let padding = |byte: &u8| matches!(byte, b' ' | b'\0');
    Ok(match std::str::from_utf8(&value).ok().and_then(|value| Uid::from_padded(value).ok()) {
        Some(uid) => UidValue::Uid(uid),
        None if value.iter().all(padding) => UidValue::Absent,
        None => UidValue::Invalid,
    })
}

/// Records whether a reader was read to its end.
struct RecordEnd<'a, R> {
    inner: R,
    ran_out: &'a mut bool,
}

impl<R: Read> Read for RecordEnd<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        *self.ran_out |= read == 0 && !buffer.is_empty();
        Ok(read)
    }
}

impl<R: Seek> Seek for RecordEnd<'_, R> {
    fn seek(&mut self, position: io::SeekFrom) -> io::Result<u64> {
        self.inner.seek(position)
    }

    fn seek_relative(&mut self, offset: i64) -> io::Result<()> {
        self.inner.seek_relative(offset)
    }
}
