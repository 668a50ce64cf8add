//! A connection string.

use dicom_export::SinkProvider;
use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobProvider};
use serde_json::json;

pub(crate) fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let settings = json!({ "connectionString": text, "blobContainerName": "container" });
    for (policy, development) in [(AzureBlobPolicy::new(), false), (AzureBlobPolicy::development(), true)] {
        match AzureBlobProvider::new(policy).validate(&settings) {
            Err(error) => super::assert_input_error(&error),
            Ok(checked) => super::container_uri::assert_allowed(&checked.location, development),
        }
    }
}
