//! The identity check: instances whose UIDs differ from the listed ones are found, and all others pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_export::source::{Instance, ListRequest, Page};
use dicom_export::testing::fixtures;
use dicom_export::{
    BlobPath, BlobSink, Content, Error, ErrorKind, ErrorLogEntry, ExportEngine, ExportSource, IdentityCheck,
    InstanceIdentifier, InstanceSource, MemorySink, MemorySource, NewOperation, Operation, OperationStatus,
    Result,
};
use futures::stream::{self, StreamExt};
use tokio::sync::Notify;

#[path = "support/hooked_sink.rs"]
mod hooked_sink;

use crate::hooked_sink::{HookedSink, SinkCall, SinkHook};

/// Returns its instances in chunks.
struct Chunked {
    inner: MemorySource,
    /// The size of a chunk in bytes; 0: instances are returned whole.
    chunk: usize,
    /// The number of opened streams that fail after their first chunk.
    failures: AtomicUsize,
}

#[async_trait]
impl InstanceSource for Chunked {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        self.inner.list(request).await
    }

    async fn open(&self, instance: &Instance) -> Result<Content> {
        let content = self.inner.open(instance).await?;
        let bytes = content.as_bytes().unwrap().clone();
        if self.chunk == 0 {
            return Ok(content);
        }
        let mut chunks: Vec<_> = bytes.chunks(self.chunk).map(|chunk| Ok(bytes.slice_ref(chunk))).collect();
        if self.failures.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
            chunks.truncate(1);
            chunks.push(Err(Error::new(ErrorKind::Unavailable, "the archive does not respond")));
        }
        Ok(Content::from_stream(Some(bytes.len() as u64), stream::iter(chunks)))
    }
}

/// Exports everything.
async fn export(check: IdentityCheck, source: impl InstanceSource, sink: impl BlobSink) -> Operation {
    let engine = ExportEngine::builder(source).identity_check(check).build().unwrap();
    let sink: Arc<dyn BlobSink> = Arc::new(sink);
    let started = engine.start(NewOperation::new(ExportSource::Everything, sink)).await.unwrap();
    let ended = engine.wait(started.operation_id).await.unwrap();
    assert_eq!(ended.status, OperationStatus::Completed, "{ended:?}");
    ended
}

/// Exports these bytes under this identifier. Returns the blob, the messages of the log, and the operation.
async fn export_one(
    check: IdentityCheck,
    listed: &InstanceIdentifier,
    bytes: &Bytes,
    chunk: usize,
) -> (Option<Bytes>, Vec<String>, Operation) {
    let inner = MemorySource::new();
    inner.insert(listed.clone(), bytes.clone());
    let sink = MemorySink::new();
    let ended = export(check, Chunked { inner, chunk, failures: AtomicUsize::new(0) }, sink.clone()).await;
    let log = sink.get(BlobPath::error_log(ended.operation_id).as_str()).unwrap();
    let lines = std::str::from_utf8(&log).unwrap().lines();
    let errors = lines.map(|line| {
        let entry: ErrorLogEntry = serde_json::from_str(line).unwrap();
        assert_eq!(entry.identifier(), listed.to_string());
        entry.error().to_owned()
    });
    let errors = errors.collect();
    (sink.get(BlobPath::instance(ended.operation_id, listed).as_str()), errors, ended)
}

/// Asserts that the bytes are exported unchanged with the check enforced.
async fn assert_passes(listed: &InstanceIdentifier, bytes: &Bytes) {
    for chunk in [0, 1000, 70_000] {
        let (blob, errors, ended) = export_one(IdentityCheck::Enforce, listed, bytes, chunk).await;
        assert_eq!(errors, Vec::<String>::new());
        assert_eq!(blob.as_ref(), Some(bytes));
        assert!(ended.warnings.is_empty());
    }
}

/// Asserts that the instance is skipped because these UIDs differ.
async fn assert_differs(listed: &InstanceIdentifier, bytes: &Bytes, by: &str) {
    for chunk in [0, 1000, 70_000] {
        let (blob, errors, ended) = export_one(IdentityCheck::Enforce, listed, bytes, chunk).await;
        let message = format!("the instance's {by} differs from the listed one");
        assert_eq!(errors, [message]);
        assert_eq!(blob, None);
        assert_eq!((ended.results.exported, ended.results.skipped), (0, 1));
    }
}

/// Replaces bytes by as many others, so that the lengths in the file remain correct.
fn replace(bytes: &Bytes, from: &[u8], to: &[u8]) -> Bytes {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|window| window == from).expect("the bytes to replace");
    let mut bytes = bytes.to_vec();
    bytes[at..at + from.len()].copy_from_slice(to);
    bytes.into()
}

/// Sets a transfer syntax that is not registered.
fn private(bytes: &Bytes) -> Bytes {
    replace(bytes, b"1.2.840.10008.1.2.1\0", b"1.2.840.99999.1.2.1\0")
}

#[tokio::test]
async fn an_instance_with_the_listed_uids_passes() {
    let listed = fixtures::instance(1, 2, 3);
    assert_passes(&listed, &fixtures::ct_slice(1, 2, 3)).await;
    assert_passes(&listed, &fixtures::multi_frame(1, 2, 3, 100)).await;
    assert_passes(&listed, &fixtures::deflated(fixtures::ct_slice_object(1, 2, 3))).await;
    let mut implicit = fixtures::ct_slice_object(1, 2, 3);
    implicit.update_meta(|meta| meta.transfer_syntax = "1.2.840.10008.1.2".to_owned());
    assert_passes(&listed, &fixtures::part10(&implicit)).await;
}

#[tokio::test]
async fn each_uid_that_differs_is_named() {
    let (study, series) = (fixtures::study_uid(1), fixtures::series_uid(1, 2));
    let listed = |study, series, sop| InstanceIdentifier::new(study, series, sop);
    let sop = || fixtures::instance_uid(1, 2, 3);
    let both = "SOP Instance UID, Media Storage SOP Instance UID";
    for bytes in [fixtures::ct_slice(1, 2, 3), fixtures::deflated(fixtures::ct_slice_object(1, 2, 3))] {
        assert_differs(&listed(fixtures::study_uid(9), series.clone(), sop()), &bytes, "Study Instance UID")
            .await;
        assert_differs(
            &listed(study.clone(), fixtures::series_uid(1, 9), sop()),
            &bytes,
            "Series Instance UID",
        )
        .await;
        let other = listed(study.clone(), series.clone(), fixtures::instance_uid(1, 2, 9));
        assert_differs(&other, &bytes, both).await;
    }
    // The File Meta Information belongs to another instance than the data set.
    let uid = sop().to_string();
    let other = format!("{}{}", &uid[..uid.len() - 1], if uid.ends_with('7') { '8' } else { '7' });
    let meta = replace(&fixtures::ct_slice(1, 2, 3), uid.as_bytes(), other.as_bytes());
    assert_differs(&fixtures::instance(1, 2, 3), &meta, "Media Storage SOP Instance UID").await;
    // An invalid UID differs too.
    let letters =
        replace(&fixtures::ct_slice(1, 2, 3), study.as_str().as_bytes(), &vec![b'x'; study.as_str().len()]);
    assert_differs(&fixtures::instance(1, 2, 3), &letters, "Study Instance UID").await;
}

#[tokio::test]
async fn with_warn_the_instance_is_exported_and_counted() {
    let (listed, bytes) = (fixtures::instance(1, 2, 9), fixtures::ct_slice(1, 2, 3));
    for chunk in [0, 500] {
        let (blob, errors, ended) = export_one(IdentityCheck::Warn, &listed, &bytes, chunk).await;
        assert_eq!((blob.as_ref(), errors.len()), (Some(&bytes), 0));
        assert_eq!((ended.results.exported, ended.results.skipped), (1, 0));
        let [warning] = &*ended.warnings else { panic!("{:?}", ended.warnings) };
        assert_eq!(warning.code, "identityMismatch");
        assert_eq!(warning.message, "instances whose UIDs differ from the listed ones: 1");
    }
    let (blob, errors, ended) = export_one(IdentityCheck::Off, &listed, &bytes, 0).await;
    assert_eq!((blob, errors.len(), ended.warnings.len()), (Some(bytes), 0, 0));
}

#[tokio::test]
async fn padding_is_ignored() {
    let mut odd = fixtures::ct_slice_object(1, 2, 3);
    odd.put(DataElement::new(tags::STUDY_INSTANCE_UID, VR::UI, PrimitiveValue::from("1.2.345")));
    let bytes = fixtures::part10(&odd);
    let study = "1.2.345".parse().unwrap();
    let listed = InstanceIdentifier::new(study, fixtures::series_uid(1, 2), fixtures::instance_uid(1, 2, 3));
    assert_passes(&listed, &bytes).await;
    assert_passes(&listed, &replace(&bytes, b"1.2.345\0", b"1.2.345 ")).await;
    assert_differs(&listed, &replace(&bytes, b"1.2.345\0", b"1.2.3456"), "Study Instance UID").await;
}

#[tokio::test]
async fn the_data_set_of_a_private_transfer_syntax_is_compared_too() {
    let bytes = private(&fixtures::ct_slice(1, 2, 3));
    assert_passes(&fixtures::instance(1, 2, 3), &bytes).await;
    let sop = fixtures::instance_uid(1, 2, 3);
    let elsewhere = InstanceIdentifier::new(fixtures::study_uid(9), fixtures::series_uid(9, 9), sop);
    assert_differs(&elsewhere, &bytes, "Study Instance UID, Series Instance UID").await;
}

#[tokio::test]
async fn an_instance_that_cannot_be_parsed_passes() {
    let listed = fixtures::instance(1, 2, 9);
    for bytes in [&b""[..], b"DICM", b"not a DICOM file, and rather short", &[0; 5000], &[0xff; 400_000]] {
        assert_passes(&listed, &Bytes::from_static(bytes)).await;
    }
    let whole = fixtures::ct_slice(1, 2, 3);
    assert_passes(&listed, &whole.slice(..140)).await;
    let mut garbage = whole[..400].to_vec();
    garbage.extend([0xab; 300_000]);
    assert_passes(&fixtures::instance(1, 2, 3), &garbage.into()).await;
}

/// The UIDs of the data set follow after 300 KiB, which is beyond the limit.
#[tokio::test]
async fn uids_beyond_the_limit_are_not_compared() {
    let mut late = fixtures::ct_slice_object(1, 2, 3);
    late.put(DataElement::new(Tag(0x0009, 0x0010), VR::LO, PrimitiveValue::from("A VENDOR")));
    let value = PrimitiveValue::from(vec![7_u8; 300 << 10]);
    late.put(DataElement::new(Tag(0x0009, 0x1001), VR::OB, value));
    let sop = fixtures::instance_uid(1, 2, 3);
    let elsewhere = InstanceIdentifier::new(fixtures::study_uid(9), fixtures::series_uid(9, 9), sop);
    assert_passes(&elsewhere, &fixtures::part10(&late)).await;
    assert_differs(
        &fixtures::instance(1, 2, 9),
        &fixtures::part10(&late),
        "SOP Instance UID, Media Storage SOP Instance UID",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_error_while_the_head_is_read_is_retried_as_a_source_failure() {
    let inner = MemorySource::new();
    inner.insert(fixtures::instance(1, 2, 3), fixtures::ct_slice(1, 2, 3));
    let sink = MemorySink::new();
    let source = Chunked { inner, chunk: 150, failures: AtomicUsize::new(3) };
    let ended = export(IdentityCheck::Enforce, source, sink.clone()).await;
    assert_eq!((ended.results.exported, ended.results.skipped), (1, 0));
    let path = BlobPath::instance(ended.operation_id, &fixtures::instance(1, 2, 3));
    assert_eq!(sink.get(path.as_str()), Some(fixtures::ct_slice(1, 2, 3)));
}

/// Returns the head of an instance, and the rest once its upload has started.
struct PausedSource(Arc<Notify>);

#[async_trait]
impl InstanceSource for PausedSource {
    async fn list(&self, _: ListRequest<'_>) -> Result<Page> {
        Ok(Page::last(vec![Instance::new(fixtures::instance(1, 2, 3))]))
    }

    async fn open(&self, _: &Instance) -> Result<Content> {
        let bytes = fixtures::multi_frame(1, 2, 3, 200);
        let (head, begun) = (bytes.slice(..1500), Arc::clone(&self.0));
        let rest = stream::once(async move {
            begun.notified().await;
            Ok(bytes.slice(1500..))
        });
        Ok(Content::from_stream(None, stream::iter([Ok(head)]).chain(rest)))
    }
}

/// Signals the start of an upload.
struct NotifyUpload(Arc<Notify>);

#[async_trait]
impl SinkHook for NotifyUpload {
    async fn before(&self, call: SinkCall<'_>) -> Result<()> {
        if let SinkCall::Put(..) = call {
            self.0.notify_one();
        }
        Ok(())
    }
}

#[tokio::test]
async fn the_upload_starts_before_the_whole_instance_has_been_read() {
    let begun = Arc::new(Notify::new());
    let sink = HookedSink::with_hook(NotifyUpload(Arc::clone(&begun)));
    let container = sink.inner.clone();
    let exporting = export(IdentityCheck::Enforce, PausedSource(begun), sink);
    let ended = tokio::time::timeout(Duration::from_secs(30), exporting)
        .await
        .expect("the upload waits for the whole instance");
    assert_eq!(ended.results.exported, 1);
    let path = BlobPath::instance(ended.operation_id, &fixtures::instance(1, 2, 3));
    assert_eq!(container.get(path.as_str()), Some(fixtures::multi_frame(1, 2, 3, 200)));
}
