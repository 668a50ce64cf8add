//! The targets for hostile input: each takes any bytes, and panics on a defect.
//!
//! They use the public API only, so the tests and the fuzzer can share them.

use std::sync::LazyLock;

use tokio::runtime::Runtime;

pub(crate) mod connection_string;
pub(crate) mod container_uri;
pub(crate) mod dicom_head;
pub(crate) mod http;
pub(crate) mod identifier;
pub(crate) mod multipart;
pub(crate) mod qido;
pub(crate) mod request;
mod server;
pub(crate) mod state_file;
pub(crate) mod stored;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
});

/// Asserts that an error has the kind `Invalid` and that its message and its pointer are short.
fn assert_input_error(error: &dicom_export::Error) {
    assert_eq!(error.kind(), dicom_export::ErrorKind::Invalid, "{error}");
    assert!(error.message().len() < 600, "{} bytes", error.message().len());
    assert!(error.pointer().is_none_or(|pointer| pointer.len() < 600), "a pointer is too long");
}
