//! Identifies a file by its head.

use std::io::{self, Read, Seek};

use crate::content::head::{self, Head, UidValue};
use crate::model::{InstanceIdentifier, ListFailure};

/// What a file is according to its head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FileType {
    Instance {
        identifier: InstanceIdentifier,
        /// Whether it has the preamble and prefix of PS3.10 7.1.
        has_preamble: bool,
    },
    /// A DICOM file without three valid UIDs.
    Unidentified(ListFailure),
    /// A DICOMDIR.
    Directory,
    /// Not a DICOM file.
    Other,
}

/// Reads a file in small pieces up to its last UID.
///
/// # Errors
/// Those of the reader.
pub(super) fn identify(reader: impl Read + Seek) -> io::Result<FileType> {
    let Some(head) = head::read(reader)? else { return Ok(FileType::Other) };
    let Head { study, series, sop_instance, has_preamble, is_directory, .. } = head;
    Ok(match (study, series, sop_instance) {
        (UidValue::Uid(study), UidValue::Uid(series), UidValue::Uid(sop_instance)) => {
            let identifier = InstanceIdentifier::new(study, series, sop_instance);
            FileType::Instance { identifier, has_preamble }
        }
        _ if is_directory => FileType::Directory,
        (study, series, sop_instance) => FileType::Unidentified(list_failure(&study, &series, &sop_instance)),
    })
}

/// Names the first UID that cannot be used, and those that are known.
fn list_failure(study: &UidValue, series: &UidValue, sop_instance: &UidValue) -> ListFailure {
    let mut known = Vec::new();
    let all =
        [(study, "Study Instance UID"), (series, "Series Instance UID"), (sop_instance, "SOP Instance UID")];
    for (value, name) in all {
        let mut error = match value {
            UidValue::Uid(uid) => {
                known.push(uid.as_str());
                continue;
            }
            UidValue::Absent => format!("a DICOM file has no {name}"),
            UidValue::Invalid => format!("a DICOM file's {name} is invalid"),
        };
        if let UidValue::Uid(uid) = sop_instance {
            error += &format!("; its SOP Instance UID is {uid}");
        }
        return ListFailure::new(known.join("/"), error);
    }
    ListFailure::new(known.join("/"), "a DICOM file cannot be identified")
}
