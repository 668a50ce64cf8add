//! The fixtures of the `testing` feature are DICOM that the library reads back.

use dicom_dictionary_std::tags;
use dicom_export::testing::fixtures;
use dicom_object::from_reader;

#[test]
fn a_ct_slice_reads_back() {
    let bytes = fixtures::ct_slice(1, 2, 3);
    assert_eq!(&bytes[128..132], b"DICM");
    let slice = from_reader(&bytes[..]).unwrap();
    let text = |tag| slice.element(tag).unwrap().to_str().unwrap().into_owned();
    let identifier = fixtures::instance(1, 2, 3);
    assert_eq!(
        text(tags::STUDY_INSTANCE_UID).trim_end_matches('\0'),
        identifier.study_instance_uid().as_str()
    );
    assert_eq!(
        text(tags::SERIES_INSTANCE_UID).trim_end_matches('\0'),
        identifier.series_instance_uid().as_str()
    );
    assert_eq!(text(tags::SOP_INSTANCE_UID).trim_end_matches('\0'), identifier.sop_instance_uid().as_str());
    assert_eq!(slice.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap().len(), 32 * 32 * 2);
    assert_eq!(bytes, fixtures::ct_slice(1, 2, 3), "the same numbers make the same bytes");
}

#[test]
fn a_multi_frame_instance_reads_back() {
    let bytes = fixtures::multi_frame(7, 1, 1, 5);
    let image = from_reader(&bytes[..]).unwrap();
    assert_eq!(image.element(tags::NUMBER_OF_FRAMES).unwrap().to_int::<u32>().unwrap(), 5);
    assert_eq!(image.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap().len(), 5 * 64 * 64);
}

#[test]
fn numbers_that_differ_make_uids_that_differ() {
    let mut seen = std::collections::HashSet::new();
    for number in [0, 1, 2, 255, 256, 65_536, 16_777_216, u32::MAX] {
        assert!(seen.insert(fixtures::study_uid(number)));
        for series in [0, 1, 256, 65_536, u32::MAX] {
            assert!(seen.insert(fixtures::series_uid(number, series)));
            for instance in [0, 1, 256, 65_536, u32::MAX] {
                assert!(seen.insert(fixtures::instance_uid(number, series, instance)));
            }
        }
    }
}
