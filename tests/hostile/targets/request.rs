//! A request's body.

use dicom_export::ExportRequest;

pub(crate) fn run(input: &[u8]) {
    match ExportRequest::from_json(input) {
        Err(error) => super::assert_input_error(&error),
        Ok(request) => {
            let written = serde_json::to_vec(&request).unwrap();
            let again = ExportRequest::from_json(&written).unwrap();
            // The settings are not compared: serde_json may change the last digits of floating-point numbers.
            assert_eq!(again.source(), request.source());
            assert_eq!(again.destination().kind(), request.destination().kind());
        }
    }
}
