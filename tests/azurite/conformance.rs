//! The Azure sink holds to the contract of its trait.

use dicom_export::testing::{SinkTestOptions, sink_conformance};

use crate::azurite::Azurite;
use crate::{MIB, sink};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite: tests/run.sh"]
async fn azure_blob_sink() {
    let container = Azurite::shared().container().await;
    let read = async |name: &str| container.get(name).await.map(|blob| blob.bytes);
    let quirks = SinkTestOptions::default().lengths([4 * MIB, 8 * MIB + 2, 24 * MIB]);
    sink_conformance(&sink(&container.sas_url("w")), read, &quirks).await;
}
