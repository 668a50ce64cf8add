//! The fault injection itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dicom_export::source::{Instance, InstanceSource, ListRequest, Scope};
use dicom_export::store::{MemoryOperationStore, MemorySecretStore, OperationStore, SecretStore};
use dicom_export::testing::{
    Call, FaultPlan, FaultyOperationStore, FaultySecretStore, FaultySink, FaultySource, GeneratedSource,
    NullSink, SinkTestOptions, StreamFault, fixtures, sink_conformance, source_conformance,
    store_conformance,
};
use dicom_export::{
    BlobPath, BlobSink, Content, DicomIdentifier, ErrorKind, ExportEngine, ExportSource, MemorySink,
    MemorySource, NewOperation, OperationId, OperationStatus, RetryPolicy, UploadContext,
};
use futures::{StreamExt, TryStreamExt};
use tokio::time::Instant;

/// Twenty instances, of 0 to 1900 bytes.
fn archive() -> BTreeMap<dicom_export::InstanceIdentifier, Bytes> {
    let bytes = |n: usize| (0..n * 100).map(|at| at as u8).collect();
    (0..20).map(|n| (fixtures::instance(n % 3, n % 2, n), bytes(n as usize))).collect()
}

fn slow() -> FaultPlan {
    FaultPlan::new(1).latency(Duration::from_millis(200))
}

#[tokio::test(start_paused = true)]
async fn a_plan_without_rules_keeps_every_contract() {
    let source: Arc<MemorySource> = Arc::new(archive().into_iter().collect());
    let stalling = slow().damages(1.0, [StreamFault::Stalls]);
    source_conformance(|| FaultySource::new(Arc::clone(&source), stalling.clone()), &archive()).await;
    let memory = MemorySink::new();
    let sink = FaultySink::new(memory.clone(), slow());
    sink_conformance(&sink, async |name| memory.get(name), &SinkTestOptions::default()).await;
    store_conformance(&FaultyOperationStore::new(MemoryOperationStore::new(), slow())).await;
}

#[tokio::test]
async fn the_generated_source_keeps_the_contract() {
    for source in [GeneratedSource::new(60, 1000), GeneratedSource::new(60, 3 << 20).copied()] {
        let mut expected = BTreeMap::new();
        for n in 0..60 {
            // Numbers of three series, in two studies.
            let n = n * 70;
            let id = GeneratedSource::identifier(n).unwrap();
            expected.insert(id, n);
        }
        let all = source.list(ListRequest::new(Scope::Everything, None, 1000)).await.unwrap();
        assert_eq!((all.instances.len(), all.next), (60, None));
        for instance in &all.instances {
            let bytes: Vec<Bytes> =
                source.open(instance).await.unwrap().into_stream().try_collect().await.unwrap();
            assert_eq!(bytes.concat().len() as u64, instance.size().unwrap());
        }
    }
    // The suite wants them sorted, and of several studies.
    let source = GeneratedSource::new(2_100, 3);
    let mut expected = BTreeMap::new();
    for n in 0..2_100 {
        let id = GeneratedSource::identifier(n).unwrap();
        let content = source.open(&Instance::new(id.clone())).await.unwrap();
        expected.insert(id, content.as_bytes().unwrap().clone());
    }
    source_conformance(|| source.clone(), &expected).await;
}

#[tokio::test]
async fn generated_content_is_discarded() {
    let engine = ExportEngine::builder(GeneratedSource::new(20_000, 100)).build().unwrap();
    let sink: Arc<dyn BlobSink> = Arc::new(NullSink::new());
    let study =
        DicomIdentifier::study(GeneratedSource::identifier(2_000).unwrap().study_instance_uid().clone());
    for (source, count) in
        [(ExportSource::Everything, 20_000), (ExportSource::identifiers([study]).unwrap(), 2_000)]
    {
        let id = engine.start(NewOperation::new(source, Arc::clone(&sink))).await.unwrap().operation_id;
        let ended = engine.wait(id).await.unwrap();
        assert_eq!(
            (ended.status, ended.results.exported, ended.results.skipped),
            (OperationStatus::Completed, count, 0)
        );
    }
}

/// Returns the failures of these calls, made one after the other.
async fn failures(plan: FaultPlan, order: &[u32]) -> Vec<(u32, Option<ErrorKind>)> {
    let source: MemorySource = archive().into_iter().collect();
    let source = FaultySource::new(source, plan);
    let mut found = Vec::new();
    for n in order {
        let instance = Instance::new(fixtures::instance(n % 3, n % 2, *n));
        found.push((*n, source.open(&instance).await.err().map(|error| error.kind())));
    }
    found.sort_unstable_by_key(|(n, _)| *n);
    found
}

#[tokio::test]
async fn the_seed_decides_and_the_order_of_calls_does_not() {
    let plan =
        |seed| FaultPlan::new(seed).fails([Call::Open], 0.5, [ErrorKind::Throttled, ErrorKind::Internal]);
    let forth: Vec<_> = (0..20).collect();
    let back: Vec<_> = (0..20).rev().collect();
    let first = failures(plan(1), &forth).await;
    assert_eq!(first, failures(plan(1), &back).await);
    assert_ne!(first, failures(plan(2), &forth).await);
    let failed = first.iter().filter(|(_, kind)| kind.is_some()).count();
    assert!((4..=16).contains(&failed), "{failed} of 20");
}

#[tokio::test]
async fn some_faults_are_lasting_and_others_transient() {
    let plan = FaultPlan::new(3)
        .permanent_failures([Call::Open], 0.3, [ErrorKind::Unreadable])
        .fails([Call::Open], 1.0, [ErrorKind::Unavailable])
        .passes_after(2);
    let all: Vec<_> = (0..20).collect();
    let mut rounds = Vec::new();
    for _ in 0..3 {
        rounds.push(failures(plan.clone(), &all).await);
    }
    assert_eq!(rounds[0], rounds[1]);
    let bad =
        |round: &[(u32, Option<ErrorKind>)], kind| round.iter().filter(|(_, found)| *found == kind).count();
    let lasting = bad(&rounds[0], Some(ErrorKind::Unreadable));
    assert!((1..=12).contains(&lasting), "{lasting}");
    assert_eq!(bad(&rounds[0], Some(ErrorKind::Unavailable)), 20 - lasting);
    assert_eq!(
        (bad(&rounds[2], Some(ErrorKind::Unreadable)), bad(&rounds[2], None)),
        (lasting, 20 - lasting)
    );
    assert_eq!(plan.faults() as usize, 2 * 20 + lasting);
    plan.down(ErrorKind::Unauthorized);
    assert_eq!(bad(&failures(plan.clone(), &all).await, Some(ErrorKind::Unauthorized)), 20);
    plan.heal();
    assert_eq!(failures(plan, &all).await, rounds[2]);
}

/// Returns the stated length of a damaged content, its bytes, and the error at its end.
async fn damaged(
    fault: StreamFault,
    content: fn(Bytes) -> Content,
    seed: u64,
) -> (Option<u64>, Vec<u8>, Option<ErrorKind>) {
    struct One(fn(Bytes) -> Content);
    #[async_trait::async_trait]
    impl InstanceSource for One {
        async fn list(&self, _: ListRequest<'_>) -> dicom_export::Result<dicom_export::source::Page> {
            Ok(dicom_export::source::Page::default())
        }
        async fn open(&self, _: &Instance) -> dicom_export::Result<Content> {
            Ok(self.0(whole().into()))
        }
    }
    let source = FaultySource::new(One(content), FaultPlan::new(seed).damages(1.0, [fault]));
    let content = source.open(&Instance::new(fixtures::instance(1, 1, 1))).await.unwrap();
    let (length, mut stream, mut bytes) = (content.length(), content.into_stream(), Vec::new());
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(piece) => bytes.extend_from_slice(&piece),
            Err(error) => return (length, bytes, Some(error.kind())),
        }
    }
    (length, bytes, None)
}

fn whole() -> Vec<u8> {
    (0..1000).map(|at| at as u8).collect()
}

#[tokio::test(start_paused = true)]
async fn damaged_contents_are_detectable() {
    let in_one: fn(Bytes) -> Content = Content::from_bytes;
    let in_pieces: fn(Bytes) -> Content = |bytes| {
        let pieces: Vec<_> = bytes.chunks(100).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        Content::from_stream(Some(bytes.len() as u64), futures::stream::iter(pieces))
    };
    let unknown: fn(Bytes) -> Content =
        |bytes| Content::from_stream(None, Content::from_bytes(bytes).into_stream());
    let whole = whole();
    for seed in 0..20 {
        for content in [in_one, in_pieces] {
            for fault in StreamFault::ALL {
                let began = Instant::now();
                let (length, bytes, end) = damaged(fault, content, seed).await;
                assert_eq!(length, Some(1000), "{fault:?}: the stated length is the original one");
                match fault {
                    StreamFault::Unavailable | StreamFault::Unreadable => {
                        let kind = if fault == StreamFault::Unavailable {
                            ErrorKind::Unavailable
                        } else {
                            ErrorKind::Unreadable
                        };
                        assert!(end == Some(kind) && bytes.len() < 1000 && whole.starts_with(&bytes));
                    }
                    StreamFault::Truncated => {
                        assert!(end.is_none() && bytes.len() < 1000 && whole.starts_with(&bytes))
                    }
                    StreamFault::Repeats => {
                        let more = bytes.len() - 1000;
                        let twice_up_to =
                            |at: usize| bytes[..at] == whole[..at] && bytes[at..] == whole[at - more..];
                        assert!(end.is_none() && more > 0 && (more..=1000).any(twice_up_to));
                    }
                    StreamFault::Overlong => {
                        assert!(end.is_none() && bytes.len() > 1000 && bytes.starts_with(&whole))
                    }
                    _ => assert!(
                        end.is_none() && bytes == whole && began.elapsed() > Duration::from_millis(100)
                    ),
                }
            }
        }
        for fault in [StreamFault::Truncated, StreamFault::Repeats, StreamFault::Overlong] {
            let (length, _, end) = damaged(fault, unknown, seed).await;
            assert_eq!(
                (length, end),
                (None, Some(ErrorKind::Unavailable)),
                "{fault:?} could not be detected"
            );
        }
    }
}

#[tokio::test]
async fn a_response_can_be_lost_after_the_call_succeeded() {
    let plan =
        FaultPlan::new(1).lost_responses(Call::SINK.into_iter().chain(Call::STORE).chain(Call::SECRETS), 1.0);
    let id = OperationId::random();
    let (log, blob) = (BlobPath::error_log(id), BlobPath::instance(id, &fixtures::instance(1, 1, 1)));
    let memory = MemorySink::new();
    let sink = FaultySink::new(memory.clone(), plan.clone());
    let lost = Some(ErrorKind::Unavailable);
    assert_eq!(sink.prepare(&log).await.err().map(|error| error.kind()), lost);
    let upload = UploadContext::new(1 << 20, RetryPolicy::none(), 1);
    let put = sink.put(&blob, Content::from_bytes("bytes"), &upload).await;
    assert_eq!(put.err().map(|error| error.kind()), lost);
    let appended = sink.append(&log, dicom_export::sink::LogKey::new(0, 0), "{}\n".into()).await;
    assert_eq!(appended.err().map(|error| error.kind()), lost);
    assert_eq!(memory.get(blob.as_str()).unwrap(), "bytes");
    assert_eq!(memory.get(log.as_str()).unwrap(), "{}\n");

    let kept = MemorySecretStore::new();
    let secrets = FaultySecretStore::new(kept.clone(), plan);
    let put = secrets.put(id, &dicom_export::sink::Secret::new("a")).await;
    assert_eq!(put.err().map(|error| error.kind()), lost);
    assert!(kept.get(id).await.unwrap().is_some());
    assert_eq!(secrets.get(id).await.err().map(|error| error.kind()), lost);
}

#[tokio::test(start_paused = true)]
async fn an_engine_waits_at_least_as_long_as_a_throttling_destination_asks() {
    let plan = FaultPlan::new(5).throttles([Call::Put], 1.0, Duration::from_secs(20)).passes_after(2);
    let engine = ExportEngine::builder(GeneratedSource::new(1, 10)).build().unwrap();
    let sink: Arc<dyn BlobSink> = Arc::new(FaultySink::new(NullSink::new(), plan.clone()));
    let new = NewOperation::new(ExportSource::Everything, sink).with_id(OperationId::from_u128(7));
    let began = Instant::now();
    let id = engine.start(new).await.unwrap().operation_id;
    assert_eq!(engine.wait(id).await.unwrap().status, OperationStatus::Completed);
    assert_eq!(plan.faults(), 2);
    assert!(began.elapsed() > Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_operation_is_stored_although_the_stores_response_is_lost() {
    let kept = MemoryOperationStore::new();
    let plan = FaultPlan::new(1).lost_responses([Call::Create], 1.0);
    let engine = ExportEngine::builder(MemorySource::new())
        .operation_store(Arc::new(FaultyOperationStore::new(kept.clone(), plan)))
        .retry(RetryPolicy::none())
        .build()
        .unwrap();
    let sink: Arc<dyn BlobSink> = Arc::new(MemorySink::new());
    let new = NewOperation::new(ExportSource::Everything, sink);
    assert_eq!(engine.create(new).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(kept.list(None, 10).await.unwrap().len(), 1);
}
