//! A folder of a patient's files, with the patient's name and id in the files, and another name in their paths.

use dicom_core::{PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use dicom_export::InstanceIdentifier;
use dicom_export::dicom_object::{self, mem::InMemElement};
use dicom_export::testing::fixtures;
use tempfile::TempDir;

use crate::canary::Canaries;

/// Occurs in the files.
pub(crate) const NAME: &str = "Canarywing^Serinette";
pub(crate) const ID: &str = "PID-7741-CANARY";
/// Occurs in their paths.
pub(crate) const FOLDER: &str = "Ghostbird_Linnet_1951";

/// Everything about the patient.
pub(crate) fn canaries() -> Canaries {
    patient().with("the patient's name in a path", FOLDER)
}

/// The patient's data in the files.
pub(crate) fn patient() -> Canaries {
    Canaries::default().with("the patient's name", NAME).with("the patient's id", ID)
}

/// The bytes of an instance with the patient's data.
pub(crate) fn file(number: u32) -> Vec<u8> {
    let mut object = dicom_object::from_reader(&fixtures::ct_slice(1, 1, number)[..]).unwrap();
    object.put(InMemElement::new(tags::PATIENT_NAME, VR::PN, PrimitiveValue::from(NAME)));
    object.put(InMemElement::new(tags::PATIENT_ID, VR::LO, PrimitiveValue::from(ID)));
    let mut bytes = Vec::new();
    object.write_all(&mut bytes).unwrap();
    bytes
}

pub(crate) fn instance(number: u32) -> InstanceIdentifier {
    fixtures::instance(1, 1, number)
}

/// This number of files, a copy of one, and a truncated one.
pub(crate) fn folder(files: u32) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let patient = folder.path().join(FOLDER);
    std::fs::create_dir(&patient).unwrap();
    for number in 0..files {
        std::fs::write(patient.join(format!("{FOLDER}-{number}.dcm")), file(number)).unwrap();
    }
    std::fs::write(patient.join(format!("{FOLDER}-again.dcm")), file(0)).unwrap();
    std::fs::write(patient.join(format!("{FOLDER}-cut.dcm")), &file(0)[..300]).unwrap();
    folder
}
