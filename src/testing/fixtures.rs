//! Small, valid DICOM instances.
//!
//! Patients, studies, series and instances are identified by numbers, from which UIDs under `2.25` are derived (PS3.5
//! B.2). The same numbers produce the same bytes, and different numbers produce different UIDs.

use std::io::Write;

use bytes::Bytes;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{DefaultDicomObject, FileMetaTableBuilder, InMemDicomObject};
use uuid::Builder;

use crate::model::{DicomIdentifier, InstanceIdentifier, Uid};

/// Rows and columns of a [`ct_slice`].
const CT_SIZE: u16 = 32;

/// Rows and columns of a frame of [`multi_frame`].
const FRAME_SIZE: u16 = 64;

/// The level that a UID identifies. It is part of the UID, so that the UIDs of a study and its first series differ.
#[derive(Clone, Copy)]
enum Kind {
    Study = 1,
    Series = 2,
    Instance = 3,
    FrameOfReference = 4,
}

/// `2.25.` and a version 8 UUID (RFC 9562 5.8) that contains these numbers.
#[allow(clippy::expect_used, reason = "the UID has at most 44 digits and dots")]
fn uid(kind: Kind, study: u32, series: u32, instance: u32) -> Uid {
    let mut bytes = [0; 16];
    // The UUID's version and variant take the upper bits of bytes 6 and 8.
    bytes[0] = kind as u8;
    bytes[1..5].copy_from_slice(&study.to_be_bytes());
    bytes[5] = series.to_be_bytes()[0];
    bytes[7] = series.to_be_bytes()[1];
    bytes[9] = series.to_be_bytes()[2];
    bytes[10] = series.to_be_bytes()[3];
    bytes[12..].copy_from_slice(&instance.to_be_bytes());
    let number = Builder::from_custom_bytes(bytes).into_uuid().as_u128();
    Uid::new(&format!("2.25.{number}")).expect("a valid UID")
}

/// The Study Instance UID of a study.
pub fn study_uid(study: u32) -> Uid {
    uid(Kind::Study, study, 0, 0)
}

/// The Series Instance UID of a series.
pub fn series_uid(study: u32, series: u32) -> Uid {
    uid(Kind::Series, study, series, 0)
}

/// The SOP Instance UID of an instance.
pub fn instance_uid(study: u32, series: u32, instance: u32) -> Uid {
    uid(Kind::Instance, study, series, instance)
}

/// The study, series and SOP instance UIDs of an instance.
pub fn instance(study: u32, series: u32, instance: u32) -> InstanceIdentifier {
    InstanceIdentifier::new(
        study_uid(study),
        series_uid(study, series),
        instance_uid(study, series, instance),
    )
}

/// The identifier of all instances of a study.
pub fn study_identifier(study: u32) -> DicomIdentifier {
    DicomIdentifier::study(study_uid(study))
}

/// The identifier of all instances of a series.
pub fn series_identifier(study: u32, series: u32) -> DicomIdentifier {
    DicomIdentifier::series(study_uid(study), series_uid(study, series))
}

/// A CT slice (PS3.3 A.3) of 32 × 32 pixels as a Part 10 file of about 3 KiB, Explicit VR Little Endian.
///
/// The slices of a series share a frame of reference, are 2 mm apart, and have different pixels.
///
/// ```
/// use dicom_export::testing::fixtures;
///
/// let slice = fixtures::ct_slice(1, 1, 5);
/// assert_eq!(&slice[128..132], b"DICM");
/// assert_eq!(slice, fixtures::ct_slice(1, 1, 5));
/// ```
pub fn ct_slice(study: u32, series: u32, instance: u32) -> Bytes {
    part10(&ct_slice_object(study, series, instance))
}

/// A [`ct_slice`] as a data set.
pub fn ct_slice_object(study: u32, series: u32, instance: u32) -> DefaultDicomObject {
    let mut slice = general(uids::CT_IMAGE_STORAGE, "CT", study, series, instance);
    slice.put_str(tags::IMAGE_TYPE, VR::CS, r"ORIGINAL\PRIMARY\AXIAL");
    slice.put_str(tags::PATIENT_POSITION, VR::CS, "HFS");
    slice.put_str(
        tags::FRAME_OF_REFERENCE_UID,
        VR::UI,
        uid(Kind::FrameOfReference, study, series, 0).as_str(),
    );
    slice.put_str(tags::POSITION_REFERENCE_INDICATOR, VR::LO, "");
    slice.put_str(tags::ACQUISITION_NUMBER, VR::IS, "1");
    slice.put_str(tags::KVP, VR::DS, "120");
    slice.put_str(tags::SLICE_THICKNESS, VR::DS, "2");
    slice.put_str(tags::PIXEL_SPACING, VR::DS, r"0.5\0.5");
    slice.put_str(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, r"1\0\0\0\1\0");
    slice.put_str(tags::IMAGE_POSITION_PATIENT, VR::DS, format!(r"-8\-8\{}", u64::from(instance) * 2));
    slice.put_str(tags::RESCALE_INTERCEPT, VR::DS, "-1024");
    slice.put_str(tags::RESCALE_SLOPE, VR::DS, "1");
    slice.put_str(tags::RESCALE_TYPE, VR::LO, "HU");
    pixels(&mut slice, CT_SIZE, 16, 12);
    // A sphere of water in air, whose radius grows along the series.
    let radius = i64::from(4 + instance % 10);
    let stored = (0..CT_SIZE).flat_map(|y| (0..CT_SIZE).map(move |x| (i64::from(x) - 16, i64::from(y) - 16)));
    let stored = stored.map(|(x, y)| if x * x + y * y <= radius * radius { 1024_u16 } else { 24 });
    slice.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(stored.collect())));
    with_meta(slice)
}

/// A Multi-frame Grayscale Byte Secondary Capture (PS3.3 A.8.3) as a Part 10 file, Explicit VR Little Endian, with at least
/// one frame of 4 KiB.
pub fn multi_frame(study: u32, series: u32, instance: u32, frames: u32) -> Bytes {
    part10(&multi_frame_object(study, series, instance, frames))
}

/// A [`multi_frame`] as a data set.
pub fn multi_frame_object(study: u32, series: u32, instance: u32, frames: u32) -> DefaultDicomObject {
    let frames = frames.max(1);
    let class = uids::MULTI_FRAME_GRAYSCALE_BYTE_SECONDARY_CAPTURE_IMAGE_STORAGE;
    let mut image = general(class, "OT", study, series, instance);
    image.put_str(tags::CONVERSION_TYPE, VR::CS, "SYN");
    image.put_str(tags::BURNED_IN_ANNOTATION, VR::CS, "NO");
    image.put_str(tags::PATIENT_ORIENTATION, VR::CS, "");
    image.put_str(tags::PRESENTATION_LUT_SHAPE, VR::CS, "IDENTITY");
    image.put_str(tags::RESCALE_INTERCEPT, VR::DS, "0");
    image.put_str(tags::RESCALE_SLOPE, VR::DS, "1");
    image.put_str(tags::RESCALE_TYPE, VR::LO, "US");
    image.put_str(tags::NUMBER_OF_FRAMES, VR::IS, frames.to_string());
    image.put_str(tags::FRAME_TIME, VR::DS, "40");
    let pointer = PrimitiveValue::Tags(vec![tags::FRAME_TIME].into());
    image.put(DataElement::new(tags::FRAME_INCREMENT_POINTER, VR::AT, pointer));
    pixels(&mut image, FRAME_SIZE, 8, 8);
    let frame = |number: u32| (0..u32::from(FRAME_SIZE).pow(2)).map(move |at| (at ^ number) as u8);
    let stored: Vec<u8> = (0..frames).flat_map(frame).collect();
    image.put(DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::from(stored)));
    with_meta(image)
}

/// The modules that all instances have: patient, study, series, equipment and SOP common (PS3.3 C.7, C.12.1).
fn general(class: &str, modality: &str, study: u32, series: u32, instance: u32) -> InMemDicomObject {
    let mut set = InMemDicomObject::new_empty();
    set.put_str(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192");
    set.put_str(tags::SOP_CLASS_UID, VR::UI, class);
    set.put_str(tags::SOP_INSTANCE_UID, VR::UI, instance_uid(study, series, instance).as_str());
    set.put_str(tags::STUDY_DATE, VR::DA, "20240229");
    set.put_str(tags::STUDY_TIME, VR::TM, "120000");
    set.put_str(tags::ACCESSION_NUMBER, VR::SH, "");
    set.put_str(tags::MODALITY, VR::CS, modality);
    set.put_str(tags::MANUFACTURER, VR::LO, "");
    set.put_str(tags::REFERRING_PHYSICIAN_NAME, VR::PN, "");
    set.put_str(tags::PATIENT_NAME, VR::PN, format!("Fixture^{study}"));
    set.put_str(tags::PATIENT_ID, VR::LO, format!("FIXTURE-{study}"));
    set.put_str(tags::PATIENT_BIRTH_DATE, VR::DA, "");
    set.put_str(tags::PATIENT_SEX, VR::CS, "O");
    set.put_str(tags::STUDY_INSTANCE_UID, VR::UI, study_uid(study).as_str());
    set.put_str(tags::SERIES_INSTANCE_UID, VR::UI, series_uid(study, series).as_str());
    set.put_str(tags::STUDY_ID, VR::SH, study.to_string());
    set.put_str(tags::SERIES_NUMBER, VR::IS, (series & i32::MAX as u32).to_string());
    set.put_str(tags::INSTANCE_NUMBER, VR::IS, (instance & i32::MAX as u32).to_string());
    set
}

/// The image pixel module (PS3.3 C.7.6.3) without pixel data.
fn pixels(set: &mut InMemDicomObject, size: u16, allocated: u16, stored: u16) {
    set.put_str(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2");
    let mut put = |tag: Tag, value: u16| {
        set.put(DataElement::new(tag, VR::US, PrimitiveValue::from(value)));
    };
    put(tags::SAMPLES_PER_PIXEL, 1);
    put(tags::ROWS, size);
    put(tags::COLUMNS, size);
    put(tags::BITS_ALLOCATED, allocated);
    put(tags::BITS_STORED, stored);
    put(tags::HIGH_BIT, stored - 1);
    put(tags::PIXEL_REPRESENTATION, 0);
}

#[allow(clippy::expect_used, reason = "the SOP class and instance UIDs are present")]
fn with_meta(set: InMemDicomObject) -> DefaultDicomObject {
    let meta = FileMetaTableBuilder::new().transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN);
    set.with_meta(meta).expect("a valid file meta group")
}

/// Encodes a data set as a Part 10 file (PS3.10 7).
///
/// # Panics
/// If the data set cannot be encoded in its transfer syntax.
#[allow(clippy::expect_used, reason = "documented")]
pub fn part10(object: &DefaultDicomObject) -> Bytes {
    let mut bytes = Vec::new();
    object.write_all(&mut bytes as &mut dyn Write).expect("a data set that can be encoded");
    bytes.into()
}

/// Encodes a data set as a Part 10 file with Deflated Explicit VR Little Endian (PS3.5 A.5).
///
/// # Panics
/// As [`part10`].
pub fn deflated(mut object: DefaultDicomObject) -> Bytes {
    object.update_meta(|meta| meta.transfer_syntax = uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN.to_owned());
    part10(&object)
}
