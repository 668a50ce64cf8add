//! Identifies a file by its head.

use std::io::{self, Read};

use crate::content::head::{self, Uids, Value};
use crate::model::InstanceIdentifier;

/// What a file is according to its head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Head {
    /// A DICOM file with its three UIDs.
    Instance(InstanceIdentifier),
    /// A DICOM file without readable UIDs, such as a DICOMDIR.
    Unidentified,
    /// Not a DICOM file.
    Other,
}

/// Reads a file in small pieces up to its last UID.
///
/// # Errors
/// Those of the reader.
pub(super) fn read_head(reader: impl Read) -> io::Result<Head> {
    let mut fault = None;
    let read = head::read(FaultRecorder { reader, fault: &mut fault });
    match (read.map(identifier), fault) {
        (Some(Some(identifier)), _) => Ok(Head::Instance(identifier)),
        (_, Some(fault)) => Err(fault),
        (Some(None), None) => Ok(Head::Unidentified),
        (None, None) => Ok(Head::Other),
    }
}

/// Returns `None` if one of the three UIDs is missing or invalid.
fn identifier(uids: Uids) -> Option<InstanceIdentifier> {
    match (uids.study, uids.series, uids.sop_instance) {
        (Value::Uid(study), Value::Uid(series), Value::Uid(sop)) => {
            Some(InstanceIdentifier::new(study, series, sop))
        }
        _ => None,
    }
}

/// Records the first error of a reader, which the parser's errors do not contain.
struct FaultRecorder<'f, R> {
    reader: R,
    fault: &'f mut Option<io::Error>,
}

impl<R: Read> Read for FaultRecorder<'_, R> {
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
