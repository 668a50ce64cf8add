//! [`ObjectLayout::index`]: the instances of a store are in an index.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dicom_export::source::{Cursor, Instance, ListFailure, ListRequest, ObjectLayout, Scope};
use dicom_export::testing::{fixtures, source_conformance};
use dicom_export::{
    DicomIdentifier, ErrorKind, ErrorLogEntry, ExportEngine, ExportSource, InstanceIdentifier,
    InstanceSource, MemorySink, NewOperation, ObjectStoreSink, ObjectStoreSource, OperationStatus,
};
use futures::FutureExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::{Value, json};

use crate::hooked::{HookedStore, Request};

const INDEX: &str = "index.jsonl";

/// Twelve slices.
fn archive() -> BTreeMap<InstanceIdentifier, Bytes> {
    let all =
        (1..=3).flat_map(|study| (1..=2).flat_map(move |series| (0..2).map(move |n| (study, series, n))));
    all.map(|(study, series, n)| (fixtures::instance(study, series, n), fixtures::ct_slice(study, series, n)))
        .collect()
}

fn line(identifier: &InstanceIdentifier, path: &str) -> String {
    json!({ "PatientName": "Doe^John", "path": path, "identifier": identifier }).to_string() + "\n"
}

/// Stores the archive under keys that do not name the instances. Returns the lines of its index, in the reverse order of
/// identifiers.
async fn fill(store: &dyn ObjectStore) -> Vec<String> {
    let mut lines = Vec::new();
    for (at, (identifier, bytes)) in archive().into_iter().enumerate().rev() {
        let path = format!("2024/Doe John #{at}/%49M.é");
        store.put(&object_store::path::Path::parse(&path).unwrap(), bytes.into()).await.unwrap();
        lines.push(line(&identifier, &path));
    }
    lines
}

async fn put_index(store: &dyn ObjectStore, lines: &[String]) {
    store.put(&INDEX.into(), lines.concat().into()).await.unwrap();
}

fn source(store: Arc<dyn ObjectStore>) -> ObjectStoreSource {
    ObjectStoreSource::new(store).with_layout(ObjectLayout::index(INDEX).unwrap())
}

/// The archive with its index.
async fn indexed() -> (Arc<dyn ObjectStore>, Vec<String>) {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let lines = fill(&store).await;
    put_index(&store, &lines).await;
    (store, lines)
}

#[derive(Default, Debug, PartialEq)]
struct Listed {
    instances: Vec<Instance>,
    failures: Vec<ListFailure>,
    /// By code.
    warnings: BTreeMap<String, u64>,
}

impl Listed {
    fn identifiers(&self) -> Vec<String> {
        self.instances.iter().map(|instance| instance.identifier().to_string()).collect()
    }

    fn warned(&self, code: &str) -> u64 {
        self.warnings.get(code).copied().unwrap_or_default()
    }
}

async fn list(source: &ObjectStoreSource, scope: Scope<'_>, after: Option<Cursor>, limit: usize) -> Listed {
    let (mut listed, mut after) = (Listed::default(), after);
    loop {
        let page = source.list(ListRequest::new(scope, after.as_ref(), limit)).await.unwrap();
        assert!(page.instances.len() + page.failures.len() <= limit);
        listed.instances.extend(page.instances);
        listed.failures.extend(page.failures);
        for warning in page.warnings {
            *listed.warnings.entry(warning.code.into_owned()).or_default() += warning.count;
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return listed,
        }
    }
}

async fn first_page(source: &ObjectStoreSource, limit: usize) -> (Vec<String>, Option<Cursor>) {
    let page = source.list(ListRequest::new(Scope::Everything, None, limit)).await.unwrap();
    let identifiers = page.instances.iter().map(|instance| instance.identifier().to_string());
    (identifiers.collect(), page.next)
}

#[tokio::test]
async fn source_with_an_index_fulfills_its_contract() {
    let (store, _) = indexed().await;
    source_conformance(|| source(Arc::clone(&store)), &archive()).await;
    let all = source(store).estimate(&ExportSource::Everything).await.unwrap();
    assert_eq!(all, Some(12));
}

#[tokio::test]
async fn index_and_paths_are_below_the_prefix() {
    let (outer, inner) = (Arc::new(InMemory::new()), InMemory::new());
    let lines = fill(&inner).await;
    put_index(&inner, &lines).await;
    let mut objects = inner.list(None);
    while let Some(meta) = futures::TryStreamExt::try_next(&mut objects).await.unwrap() {
        let bytes = inner.get(&meta.location).await.unwrap().bytes().await.unwrap();
        let below = object_store::path::Path::parse(format!("a/b/{}", meta.location)).unwrap();
        outer.put(&below, bytes.into()).await.unwrap();
    }
    let with_prefix = || source(Arc::clone(&outer) as _).with_prefix("a/b").unwrap();
    source_conformance(with_prefix, &archive()).await;
}

#[tokio::test]
async fn of_several_lines_for_an_instance_the_last_one_counts() {
    let (store, mut lines) = indexed().await;
    let (first, second) = (fixtures::instance(1, 1, 0), fixtures::instance(2, 1, 0));
    lines.insert(0, line(&first, "old"));
    lines.push(line(&second, "newer"));
    lines.push(line(&second, "newest"));
    store.put(&"newest".into(), "new bytes".into()).await.unwrap();
    put_index(&store, &lines).await;
    let source = source(store);
    for limit in [1, 5, 100] {
        let all = list(&source, Scope::Everything, None, limit).await;
        assert_eq!((all.instances.len(), all.warned("duplicateInstance")), (12, 3));
        for (instance, length) in [(&first, archive()[&first].len() as u64), (&second, 9)] {
            let listed = all.instances.iter().find(|listed| listed.identifier() == instance).unwrap();
            assert_eq!(source.open(listed).await.unwrap().length(), Some(length));
        }
        let scope = DicomIdentifier::from(&second);
        let one = list(&source, Scope::Identifier(&scope), None, limit).await;
        assert_eq!((one.instances.len(), one.warned("duplicateInstance")), (1, 2));
    }
    assert_eq!(source.estimate(&ExportSource::Everything).await.unwrap(), Some(12));
}

#[tokio::test]
async fn broken_lines_are_failures_with_their_number() {
    let (store, mut lines) = indexed().await;
    let some = fixtures::instance(1, 2, 0);
    let study = some.study_instance_uid().clone();
    lines[0].insert(0, '\u{feff}');
    lines[1] = lines[1].replace('\n', "\r\n");
    lines.push("\n".to_owned()); // line 13
    lines.push("Doe^John\n".to_owned());
    lines.push(format!("{{\"identifier\":\"{study}/x/1.2\",\"path\":\"Doe^John\"}}\n"));
    lines.push(line(&some, "Doe^John/../x"));
    lines.push(format!("{}\n", "Doe^John".repeat(10_000)));
    lines.push(line(&some, "Doe^John").trim_end_matches(['}', '\n']).to_owned());
    put_index(&store, &lines).await;

    let source = source(Arc::clone(&store));
    let failure = |known: &str, line: u64, fault: &str| {
        ListFailure::new(known, format!("line {line} of the source's index {fault}"))
    };
    let of_study = vec![
        failure(study.as_str(), 15, "has no valid identifier of an instance"),
        failure(&some.to_string(), 16, "has no valid path"),
    ];
    let mut of_all = vec![
        failure("", 14, "is not a JSON object with the strings 'identifier' and 'path'"),
        failure("", 17, "is longer than 64 KiB"),
        failure("", 18, "is not a JSON object with the strings 'identifier' and 'path'"),
    ];
    of_all.extend(of_study.clone());
    for limit in [1, 2, 5, 100] {
        let all = list(&source, Scope::Everything, None, limit).await;
        assert_eq!((all.instances.len(), &all.failures), (12, &of_all));
        assert!(all.warnings.is_empty());
    }
    // It is not known whether the others belong to a study, so that they are reported once.
    let scope = DicomIdentifier::study(study);
    for unidentified in [3, 0] {
        let one = list(&source, Scope::Identifier(&scope), None, 2).await;
        assert_eq!((one.instances.len(), &one.failures), (4, &of_study));
        assert_eq!(one.warned("unidentifiedLine"), unidentified);
    }

    let sink = MemorySink::new();
    let engine = ExportEngine::builder(source).batch_size(3).build().unwrap();
    let id =
        engine.start(NewOperation::new(ExportSource::Everything, sink.clone())).await.unwrap().operation_id;
    let ended = engine.wait(id).await.unwrap();
    assert_eq!(ended.status, OperationStatus::Completed);
    assert_eq!((ended.results.exported, ended.results.skipped), (12, 5));
    let log = sink.get(&format!("{id}/errors.log")).unwrap();
    let log = std::str::from_utf8(&log).unwrap();
    assert!(!log.contains("Doe"), "{log}");
    let logged: Vec<ErrorLogEntry> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(logged.iter().map(ErrorLogEntry::error).eq(of_all.iter().map(|failure| failure.error.as_str())));
    for (identifier, bytes) in archive() {
        assert!(sink.get(&format!("{id}/results/{identifier}.dcm")).unwrap() == bytes);
    }
}

#[tokio::test]
async fn object_that_is_not_an_index_is_an_error() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let missing = source(Arc::clone(&store));
    let request = ListRequest::new(Scope::Everything, None, 10);
    let error = missing.list(request).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::NotFound, "the source's index does not exist"));

    for lines in [1, 150] {
        let mut csv = vec!["1.2,3.4,5.6,Doe^John\n".to_owned(); lines];
        // A valid line so late does not make it an index.
        csv.extend((lines > 100).then(|| line(&fixtures::instance(1, 1, 0), "path")));
        put_index(&store, &csv).await;
        for _ in 0..2 {
            let error = missing.list(request).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.message().ends_with("JSON objects with 'identifier' and 'path'"), "{error}");
        }
    }
    // The same source finds the index that replaces it.
    let lines = fill(&store).await;
    put_index(&store, &lines).await;
    assert_eq!(list(&missing, Scope::Everything, None, 5).await.instances.len(), 12);

    put_index(&store, &[]).await;
    assert_eq!(list(&missing, Scope::Everything, None, 5).await, Listed::default());
    for key in ["", "/", "a//b", "../a"] {
        assert_eq!(ObjectLayout::index(key).unwrap_err().kind(), ErrorKind::Invalid, "{key}");
    }
}

/// An interrupted read does not begin again, so that an index of any length is read in the end.
#[tokio::test]
async fn interrupted_read_continues_where_it_ended() {
    let store = HookedStore::new(|_, _| async { Ok(()) }.boxed());
    let mut lines = fill(&store).await;
    let many: Vec<InstanceIdentifier> =
        (0..3000).map(|n| format!("1.9/1.9.{}/1.9.1.{n}", n % 7).parse().unwrap()).collect();
    lines.extend(many.iter().map(|identifier| line(identifier, "path")));
    put_index(&store, &lines).await;
    let length = lines.concat().len();

    let gets = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&gets);
    let breaking = store.with_read_limit(50_000).with_hook(move |request, _| {
        counted.fetch_add(usize::from(request == Request::Get), Ordering::SeqCst);
        async { Ok(()) }.boxed()
    });
    let source = source(Arc::new(breaking));
    let request = ListRequest::new(Scope::Everything, None, 10_000);
    let mut failed = 0;
    let page = loop {
        match source.list(request).await {
            Ok(page) => break page,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable),
        }
        failed += 1;
    };
    assert_eq!(failed, length / 50_000);
    assert_eq!(gets.load(Ordering::SeqCst), failed + 1);
    assert_eq!((page.instances.len(), page.failures.len(), page.warnings.len()), (3012, 0, 0));
    assert_eq!(source.estimate(&ExportSource::Everything).await.unwrap(), Some(3012));
}

/// As another process does after a restart.
#[tokio::test]
async fn index_that_changes_between_two_pages_is_reported() {
    let (store, mut lines) = indexed().await;
    let identifiers: Vec<_> = archive().into_keys().map(|identifier| identifier.to_string()).collect();
    let (first, next) = first_page(&source(Arc::clone(&store)), 5).await;
    assert_eq!(first, identifiers[..5]);

    let unchanged = list(&source(Arc::clone(&store)), Scope::Everything, next.clone(), 4).await;
    assert_eq!((unchanged.identifiers(), unchanged.warnings.len()), (identifiers[5..].to_vec(), 0));

    lines.reverse();
    lines.remove(7);
    lines.push(line(&"9.9/9.9/9.9".parse().unwrap(), "new"));
    put_index(&store, &lines).await;
    let changed = list(&source(store), Scope::Everything, next, 4).await;
    let mut expected = identifiers[5..].to_vec();
    expected.remove(2);
    expected.push("9.9/9.9/9.9".to_owned());
    assert_eq!(changed.identifiers(), expected);
    assert_eq!(changed.warned("listChanged"), 1);
}

#[tokio::test(start_paused = true)]
async fn new_listing_reads_a_changed_index_again() {
    let gets = Arc::new(AtomicUsize::new(0));
    let hooked = HookedStore::new(|_, _| async { Ok(()) }.boxed());
    let mut lines = fill(&hooked).await;
    put_index(&hooked, &lines).await;
    let counted = Arc::clone(&gets);
    let source = source(Arc::new(hooked.with_hook(move |request, _| {
        counted.fetch_add(usize::from(request == Request::Get), Ordering::SeqCst);
        async { Ok(()) }.boxed()
    })));
    let (_, next) = first_page(&source, 5).await;
    assert_eq!(gets.load(Ordering::SeqCst), 1);
    // An index that has not changed is not read again.
    first_page(&source, 5).await;
    assert_eq!(gets.load(Ordering::SeqCst), 2);

    let new: InstanceIdentifier = "9.9/9.9/9.9".parse().unwrap();
    let scope = DicomIdentifier::from(&new);
    lines.push(line(&new, "new"));
    put_index(&hooked, &lines).await;
    // Identifiers are listed without a request, for a while.
    assert!(list(&source, Scope::Identifier(&scope), None, 5).await.instances.is_empty());
    assert_eq!(gets.load(Ordering::SeqCst), 2);
    // A listing that has begun goes on in the version that it has begun with.
    let rest = list(&source, Scope::Everything, next, 5).await;
    assert_eq!((rest.instances.len(), rest.warnings.len()), (7, 0));
    tokio::time::advance(Duration::from_secs(31)).await;
    assert_eq!(list(&source, Scope::Identifier(&scope), None, 5).await.instances.len(), 1);
    assert_eq!(list(&source, Scope::Everything, None, 5).await.instances.len(), 13);
}

#[tokio::test]
async fn index_that_changes_while_it_is_read_is_read_again() {
    let store = HookedStore::new(|_, _| async { Ok(()) }.boxed());
    let mut lines = fill(&store).await;
    put_index(&store, &lines).await;
    let length = lines.concat().len();
    let source = source(Arc::new(store.with_read_limit(length / 2 + 1)));
    let request = ListRequest::new(Scope::Everything, None, 100);
    assert_eq!(source.list(request).await.unwrap_err().kind(), ErrorKind::Unavailable);
    // It has the same length, and other instances.
    lines.iter_mut().for_each(|line| *line = line.replace("\"identifier\":\"1", "\"identifier\":\"2"));
    put_index(&store, &lines).await;
    assert_eq!(source.list(request).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let page = source.list(request).await.unwrap();
    assert_eq!(page.instances.len(), 12);
    assert!(page.instances.iter().all(|instance| instance.identifier().to_string().starts_with('2')));
}

#[tokio::test]
async fn manifest_of_an_export_is_an_index() {
    let (store, _) = indexed().await;
    let exported: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let sink = ObjectStoreSink::new(Arc::clone(&exported), "memory:///");
    let engine = ExportEngine::builder(source(store)).manifest(true).build().unwrap();
    let id = engine.start(NewOperation::new(ExportSource::Everything, sink)).await.unwrap().operation_id;
    engine.wait(id).await.unwrap();

    let layout = ObjectLayout::index(&format!("{id}/manifest.jsonl")).unwrap();
    let again = || ObjectStoreSource::new(Arc::clone(&exported)).with_layout(layout.clone());
    source_conformance(again, &archive()).await;
    let all = list(&again(), Scope::Everything, None, 100).await;
    assert!(
        all.instances
            .iter()
            .all(|instance| instance.size() == Some(archive()[instance.identifier()].len() as u64))
    );
    let debug = format!("{:?} {:?}", again(), layout);
    assert!(!debug.contains(&id.to_string()), "{debug}");
}

#[tokio::test]
async fn locator_of_another_layout_is_refused() {
    let (store, _) = indexed().await;
    let instance = Instance::new(fixtures::instance(1, 1, 0));
    let error = source(Arc::clone(&store)).open(&instance).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    let listed: Value =
        serde_json::to_value(&list(&source(store), Scope::Everything, None, 9).await.instances[0]).unwrap();
    assert!(listed["locator"].as_str().unwrap().contains("2024"));
}
