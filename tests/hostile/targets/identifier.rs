//! UIDs, identifiers, operation ids and times; and the blob path of an instance with such a name.

use dicom_export::{BlobPath, DicomIdentifier, InstanceIdentifier, OperationId, Timestamp, Uid};

pub(crate) fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(id) = text.parse::<OperationId>() {
        assert!(BlobPath::error_log(id).as_str().starts_with(|c: char| c.is_ascii_hexdigit()));
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
    }
    if let Ok(identifier) = text.parse::<DicomIdentifier>() {
        assert_eq!(identifier.to_string().parse::<DicomIdentifier>().unwrap(), identifier);
    }
    let quoted = serde_json::to_string(&*text).unwrap();
    assert_eq!(text.parse::<InstanceIdentifier>().ok(), serde_json::from_str(&quoted).ok());
    if let Ok(instance) = text.parse::<InstanceIdentifier>() {
        assert_inside(&instance);
    }
    for uid in [Uid::new(&text), Uid::from_padded(&text)].into_iter().flatten() {
        assert_inside(&InstanceIdentifier::new(uid.clone(), uid.clone(), uid));
    }
}

/// Asserts that the instance is below its operation for every interpretation of the path.
pub(crate) fn assert_inside(instance: &InstanceIdentifier) {
    let operation = OperationId::from_u128(7);
    let path = BlobPath::instance(operation, instance);
    let parts: Vec<&str> = path.as_str().split('/').collect();
    let [id, "results", study, series, sop] = parts[..] else { panic!("{path}") };
    assert_eq!(id, operation.to_string());
    for uid in [study, series, sop.strip_suffix(".dcm").unwrap()] {
        assert!(
            uid.bytes().all(|b| b.is_ascii_digit() || b == b'.')
                && uid.ends_with(|c: char| c.is_ascii_digit())
        );
        assert!(uid.len() <= Uid::MAX_LEN);
    }
    let url = url::Url::parse("https://host/container/").unwrap().join(path.as_str()).unwrap();
    assert_eq!(url.path(), format!("/container/{path}"), "a URL parser changes the path");
}
