//! [`ElementReader`]: reads the elements of a data set one after another (PS3.5 7), with bounded memory.

use std::io::{self, Read, Seek};

/// The value representations with a 32-bit length (PS3.5 7.1.2).
const LONG_VRS: [&[u8; 2]; 13] =
    [b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"];

/// The value representations with a 16-bit length.
const SHORT_VRS: [&[u8; 2]; 21] = [
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL",
    b"SS", b"ST", b"TM", b"UI", b"UL", b"US",
];

const ITEM_GROUP: u16 = 0xFFFE;
const ITEM: u16 = 0xE000;
const ITEM_DELIMITATION: u16 = 0xE00D;
const SEQUENCE_DELIMITATION: u16 = 0xE0DD;

/// Whether these two bytes are a value representation of PS3.5 6.2.
pub(super) fn is_vr(bytes: [u8; 2]) -> bool {
    LONG_VRS.contains(&&bytes) || SHORT_VRS.contains(&&bytes)
}

/// Why reading stopped before everything was found.
#[derive(Debug)]
pub(super) enum Stop {
    /// The file ends, or its head is longer than the limit.
    End,
    /// The bytes are not a data set.
    Malformed,
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(cause: io::Error) -> Self {
        match cause.kind() {
            io::ErrorKind::UnexpectedEof => Self::End,
            _ => Self::Io(cause),
        }
    }
}

/// A reader that can skip bytes.
pub(super) trait SkipRead: Read {
    fn skip(&mut self, count: u64) -> io::Result<()>;
}

impl<R: Read + Seek> SkipRead for R {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        self.seek_relative(i64::try_from(count).unwrap_or(i64::MAX))
    }
}

/// An inflated data set, without [`Seek`].
pub(super) struct Inflated<R>(pub(super) R);

impl<R: Read> Read for Inflated<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|cause| match cause.kind() {
            // The deflated data is damaged: it ends here.
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => io::ErrorKind::UnexpectedEof.into(),
            _ => cause,
        })
    }
}

impl<R: Read> SkipRead for Inflated<R> {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        match io::copy(&mut self.by_ref().take(count), &mut io::sink())? {
            skipped if skipped < count => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// How elements are encoded (PS3.5 7.1, 7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Encoding {
    /// Whether elements have a value representation.
    pub(super) explicit: bool,
    pub(super) big_endian: bool,
}

impl Encoding {
    pub(super) const EXPLICIT_LITTLE_ENDIAN: Self = Self { explicit: true, big_endian: false };
    const IMPLICIT_LITTLE_ENDIAN: Self = Self { explicit: false, big_endian: false };

    fn u16(self, bytes: [u8; 2]) -> u16 {
        if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    fn u32(self, bytes: [u8; 4]) -> u32 {
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }
}

/// The tag, value representation and length of an element.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) tag: (u16, u16),
    /// `None`: the length is undefined.
    pub(super) length: Option<u32>,
    is_unknown_vr: bool,
}

/// Reads elements. It holds a few hundred bytes, whatever the elements contain.
pub(super) struct ElementReader<R> {
    reader: R,
    pub(super) encoding: Encoding,
    /// Bytes that were peeked at, the first at the end.
    peeked: Vec<u8>,
    /// How many bytes may still be read.
    left: u64,
    position: u64,
}

impl<R: Read> ElementReader<R> {
    pub(super) fn new(reader: R, limit: u64) -> Self {
        let encoding = Encoding::EXPLICIT_LITTLE_ENDIAN;
        Self { reader, encoding, peeked: Vec::new(), left: limit, position: 0 }
    }

    /// How many bytes have been read or skipped.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Returns the next bytes without consuming them, fewer than `count` at the end.
    pub(super) fn peek(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        let (mut filled, before) = (0, self.position);
        while filled < count {
            match self.read(&mut bytes[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(cause),
            }
        }
        bytes.truncate(filled);
        self.peeked.extend(bytes.iter().rev());
        self.position = before;
        Ok(bytes)
    }
}

impl<R: Read> Read for ElementReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = if self.peeked.is_empty() {
            let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            let read = self.reader.read(&mut buffer[..most])?;
            self.left -= read as u64;
            read
        } else {
            let read = buffer.len().min(self.peeked.len());
            buffer
                .iter_mut()
                .zip(self.peeked.drain(self.peeked.len() - read..).rev())
                .for_each(|(to, from)| *to = from);
            read
        };
        self.position += read as u64;
        Ok(read)
    }
}

impl<R: SkipRead> ElementReader<R> {
    /// Returns the group of the next element without consuming it.
    pub(super) fn peek_group(&mut self) -> Result<u16, Stop> {
        let group = self.peek(2)?.try_into().map_err(|_| Stop::End)?;
        Ok(self.encoding.u16(group))
    }

    /// Reads the header of the next element.
    pub(super) fn header(&mut self) -> Result<Header, Stop> {
        let tag = (self.u16()?, self.u16()?);
        let (mut is_unknown_vr, mut length) = (false, None);
        if self.encoding.explicit && tag.0 != ITEM_GROUP {
            let vr = self.array()?;
            is_unknown_vr = vr == *b"UN";
            // Value representations that are added to the standard have a 32-bit length. What is not two letters comes
            // from software that wrote a 16-bit length.
            let is_short = SHORT_VRS.contains(&&vr) || !vr.iter().all(u8::is_ascii_uppercase);
            if is_short {
                length = Some(u32::from(self.u16()?));
            } else {
                self.skip(2)?;
            }
        }
        let length = match length {
            Some(length) => Some(length),
            None => Some(self.u32()?).filter(|length| *length != u32::MAX),
        };
        Ok(Header { tag, length, is_unknown_vr })
    }

    /// Reads a value of a few bytes.
    pub(super) fn value(&mut self, length: u32) -> Result<Vec<u8>, Stop> {
        let mut value = vec![0; length as usize];
        self.read_exact(&mut value)?;
        Ok(value)
    }

    /// Skips a value; one of undefined length with everything nested in it.
    pub(super) fn skip_value(&mut self, header: &Header) -> Result<(), Stop> {
        match header.length {
            Some(length) => self.skip(length.into()),
            None => {
                let outer = self.encoding;
                // Such a value is a sequence in implicit VR little endian (PS3.5 6.2.2).
                if header.is_unknown_vr {
                    self.encoding = Encoding::IMPLICIT_LITTLE_ENDIAN;
                }
                let skipped = self.skip_nested();
                self.encoding = outer;
                skipped
            }
        }
    }

    /// Skips to the end of a sequence of undefined length. Nesting takes no memory besides what changes the encoding.
    fn skip_nested(&mut self) -> Result<(), Stop> {
        let mut depth = 1_u64;
        // The encoding outside, and the depth at which it applies again.
        let mut implicit_above = None;
        while depth > 0 {
            let header = self.header()?;
            match (header.tag, header.length) {
                ((ITEM_GROUP, ITEM_DELIMITATION | SEQUENCE_DELIMITATION), _) => depth -= 1,
                ((ITEM_GROUP, element), _) if element != ITEM => return Err(Stop::Malformed),
                (_, Some(length)) => self.skip(length.into())?,
                (_, None) => {
                    if header.is_unknown_vr && implicit_above.is_none() {
                        implicit_above = Some((self.encoding, depth));
                        self.encoding = Encoding::IMPLICIT_LITTLE_ENDIAN;
                    }
                    depth += 1;
                }
            }
            if let Some((outer, _)) = implicit_above.take_if(|(_, above)| depth == *above) {
                self.encoding = outer;
            }
        }
        Ok(())
    }

    /// Skips bytes.
    pub(super) fn skip(&mut self, count: u64) -> Result<(), Stop> {
        let peeked = self.peeked.len().min(usize::try_from(count).unwrap_or(usize::MAX));
        self.peeked.truncate(self.peeked.len() - peeked);
        self.reader.skip(count - peeked as u64)?;
        self.position += count;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn u16(&mut self) -> Result<u16, Stop> {
        let bytes = self.array()?;
        Ok(self.encoding.u16(bytes))
    }

    fn u32(&mut self) -> Result<u32, Stop> {
        let bytes = self.array()?;
        Ok(self.encoding.u32(bytes))
    }
}
