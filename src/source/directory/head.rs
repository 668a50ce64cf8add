//! What a file is by its head, and whose trouble it is if that cannot be read.

use std::io::{self, Read};

use crate::content::head::{self, Uids, Value};
use crate::model::InstanceIdentifier;

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

/// Reads a file as far as its UIDs go, in small pieces, and nothing behind them.
///
/// # Errors
/// Those of the reader only.
pub(super) fn read_head(reader: impl Read) -> io::Result<Head> {
    let mut fault = None;
    let read = head::read(NoteFault { reader, fault: &mut fault });
    match (read.map(identifier), fault) {
        (Some(Some(identifier)), _) => Ok(Head::Instance(identifier)),
        (_, Some(fault)) => Err(fault),
        (Some(None), None) => Ok(Head::Unidentified),
        (None, None) => Ok(Head::Other),
    }
}

/// `None`: one of the three is missing.
fn identifier(uids: Uids) -> Option<InstanceIdentifier> {
    match (uids.study, uids.series, uids.sop_instance) {
        (Value::Uid(study), Value::Uid(series), Value::Uid(sop)) => {
            Some(InstanceIdentifier::new(study, series, sop))
        }
        _ => None,
    }
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
