//! [`ObjectStoreSource`]: other objects, unordered stores and signed URLs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dicom_export::source::{Cursor, Instance, ListRequest, Scope};
use dicom_export::testing::fixtures;
use dicom_export::{DicomIdentifier, ErrorKind, InstanceIdentifier, InstanceSource, ObjectStoreSource};
use futures::TryStreamExt;
use futures::stream::{BoxStream, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::signer::{Method, Signer, Url};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// Twelve slices.
fn archive() -> BTreeMap<InstanceIdentifier, Bytes> {
    let all =
        (1..=3).flat_map(|study| (1..=2).flat_map(move |series| (0..2).map(move |n| (study, series, n))));
    all.map(|(study, series, n)| (fixtures::instance(study, series, n), fixtures::ct_slice(study, series, n)))
        .collect()
}

async fn stored(archive: &BTreeMap<InstanceIdentifier, Bytes>) -> Arc<dyn ObjectStore> {
    let store = InMemory::new();
    for (identifier, bytes) in archive {
        store.put(&format!("{identifier}.dcm").into(), bytes.clone().into()).await.unwrap();
    }
    Arc::new(store)
}

/// Lists a scope and counts the objects that the warnings report.
async fn list_all(source: &ObjectStoreSource, scope: Scope<'_>, limit: usize) -> (Vec<Instance>, u64) {
    let (mut found, mut ignored, mut after) = (Vec::new(), 0, None::<Cursor>);
    loop {
        let page = source.list(ListRequest::new(scope, after.as_ref(), limit)).await.unwrap();
        assert!(page.warnings.iter().all(|warning| warning.code == "unidentifiedObject"));
        ignored += page.warnings.iter().map(|warning| warning.count).sum::<u64>();
        found.extend(page.instances);
        match page.next {
            Some(next) => after = Some(next),
            None => return (found, ignored),
        }
    }
}

#[tokio::test]
async fn objects_with_other_names_are_ignored_and_counted() {
    let archive = archive();
    let store = stored(&archive).await;
    let some = archive.keys().nth(7).unwrap();
    let study = some.study_instance_uid();
    let others = [
        "errors.log".to_owned(),
        format!("{study}/{}", some.series_instance_uid()),
        format!("{study}/1.2/3.4"),
        format!("{study}/1.2/3.4.DCM"),
        format!("{study}/1.2/3.4/5.6.dcm"),
        "%2F/a b/\u{e9}~#?.txt".to_owned(),
    ];
    for name in &others {
        store.put(&name.as_str().into(), "other".into()).await.unwrap();
    }
    let source = ObjectStoreSource::new(store);
    let scope = DicomIdentifier::study(study.clone());
    for limit in [1, 2, 5, 1000] {
        let (found, ignored) = list_all(&source, Scope::Everything, limit).await;
        assert!(found.iter().map(Instance::identifier).eq(archive.keys()));
        assert_eq!(ignored, others.len() as u64);
        let (found, ignored) = list_all(&source, Scope::Identifier(&scope), limit).await;
        let covered = archive.keys().filter(|instance| scope.covers(instance));
        assert!(found.iter().map(Instance::identifier).eq(covered));
        assert_eq!(ignored, others.len() as u64 - 2, "those of the study");
    }
}

#[tokio::test]
async fn keys_of_instances_without_valid_uids_are_failures() {
    let archive = archive();
    let store = stored(&archive).await;
    let some = archive.keys().nth(7).unwrap();
    let (study, series) = (some.study_instance_uid(), some.series_instance_uid());
    let long = "1".repeat(65);
    let keys = [
        (format!("{study}/{series}/x.dcm"), format!("{study}/{series}")),
        (format!("{study}/{series}/ 3.4.dcm"), format!("{study}/{series}")),
        (format!("{study}/{series}/.dcm"), format!("{study}/{series}")),
        (format!("{study}/{series}/{long}.dcm"), format!("{study}/{series}")),
        (format!("{study}/1.x/3.4.dcm"), study.to_string()),
        ("Doe^John/1.2/3.4.dcm".to_owned(), String::new()),
    ];
    for (key, _) in &keys {
        store.put(&key.as_str().into(), "other".into()).await.unwrap();
    }
    let source = ObjectStoreSource::new(store);
    for limit in [1, 2, 5, 1000] {
        let (mut found, mut failed, mut after) = (Vec::new(), Vec::new(), None::<Cursor>);
        loop {
            let page = source.list(ListRequest::new(Scope::Everything, after.as_ref(), limit)).await.unwrap();
            assert!(page.instances.len() + page.failures.len() <= limit);
            found.extend(page.instances);
            failed.extend(page.failures.into_iter().map(|failure| failure.identifier));
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert!(found.iter().map(Instance::identifier).eq(archive.keys()));
        let mut expected: Vec<_> = keys.iter().map(|(_, known)| known.clone()).collect();
        expected.sort();
        failed.sort();
        assert_eq!(failed, expected, "limit {limit}");
    }
}

/// Objects come, go and are replaced between two pages, in a source that keeps its listing and in one that starts again.
#[tokio::test]
async fn objects_that_change_during_a_listing_do_not_move_the_others() {
    for restarts in [false, true] {
        let archive = archive();
        let store = stored(&archive).await;
        let identifiers: Vec<_> = archive.keys().collect();
        let key = |at: usize| Path::from(format!("{}.dcm", identifiers[at]));
        let source = ObjectStoreSource::new(Arc::clone(&store));
        let first = source.list(ListRequest::new(Scope::Everything, None, 5)).await.unwrap();
        store.delete(&key(2)).await.unwrap();
        store.delete(&key(7)).await.unwrap();
        store.put(&key(9), "another version".into()).await.unwrap();
        store.put(&"0.1/0.2/0.3.dcm".into(), "before the cursor".into()).await.unwrap();
        let source = if restarts { ObjectStoreSource::new(Arc::clone(&store)) } else { source };
        let rest = source.list(ListRequest::new(Scope::Everything, first.next.as_ref(), 99)).await.unwrap();
        let listed: Vec<_> = rest.instances.iter().map(Instance::identifier).collect();
        // A page of the store that was requested before may still contain a deleted object.
        let expected = identifiers[5..].iter().copied().enumerate();
        assert!(expected.filter(|(at, _)| *at != 2).all(|(_, identifier)| listed.contains(&identifier)));
        assert!(listed.len() <= 7);
        for instance in first.instances.iter().chain(&rest.instances) {
            match source.open(instance).await {
                Ok(content) if instance.identifier() == identifiers[9] => {
                    assert_eq!(content.length(), Some(15))
                }
                Ok(content) => assert_eq!(content.length(), instance.size()),
                Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound),
            }
        }
    }
}

/// A page ends even if it finds no instance, so that one call does not list without limit.
#[tokio::test]
async fn many_other_objects_are_listed_in_several_pages() {
    let store = InMemory::new();
    for number in 0..45_000 {
        store.put(&format!("a/{number}.txt").into(), Bytes::new().into()).await.unwrap();
    }
    store.put(&"b/1.2/3.4.txt".into(), "no UID".into()).await.unwrap();
    store.put(&"b/1.2.dcm".into(), "no UID".into()).await.unwrap();
    let source = ObjectStoreSource::new(Arc::new(store));
    let first = source.list(ListRequest::new(Scope::Everything, None, 10)).await.unwrap();
    assert!(first.instances.is_empty() && first.next.is_some());
    assert_eq!(list_all(&source, Scope::Everything, 10).await, (Vec::new(), 45_002));
}

/// A store that lists keys in descending order.
#[derive(Debug)]
struct DescendingStore(Arc<dyn ObjectStore>);

impl fmt::Display for DescendingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DescendingStore")
    }
}

#[async_trait]
impl ObjectStore for DescendingStore {
    async fn put_opts(&self, to: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.0.put_opts(to, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(from, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let all = self.0.list(prefix).try_collect::<Vec<_>>();
        let descending =
            futures::TryFutureExt::map_ok(all, |all| futures::stream::iter(all.into_iter().rev().map(Ok)));
        futures::TryFutureExt::try_flatten_stream(descending).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

/// Resuming a listing after a key would miss instances in such a store.
#[tokio::test]
async fn a_store_that_lists_in_another_order_is_refused() {
    let source = ObjectStoreSource::new(Arc::new(DescendingStore(stored(&archive()).await)));
    let refused = source.list(ListRequest::new(Scope::Everything, None, 10)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
}

/// Signs URLs without a key.
#[derive(Debug)]
struct TestSigner;

#[async_trait]
impl Signer for TestSigner {
    async fn signed_url(&self, method: Method, path: &Path, expires_in: Duration) -> Result<Url> {
        let seconds = expires_in.as_secs();
        Ok(Url::parse(&format!("https://host/{path}?method={method}&for={seconds}&sig=secret")).unwrap())
    }
}

#[tokio::test]
async fn signed_urls_name_the_listed_version() {
    let archive = archive();
    let store = stored(&archive).await;
    let (empty, unsigned) = ("1.2/3.4/5.6", ObjectStoreSource::new(Arc::clone(&store)));
    store.put(&format!("{empty}.dcm").into(), Bytes::new().into()).await.unwrap();
    let source = unsigned.clone().with_signer(Arc::new(TestSigner));
    let short = source.clone().url_validity(Duration::from_secs(60));
    assert!(!format!("{source:?}").contains("TestSigner") && !format!("{source:?}").contains("InMemory"));
    let (found, _) = list_all(&source, Scope::Everything, 1000).await;
    assert_eq!(found.len(), archive.len() + 1);
    for instance in found {
        assert!(unsigned.copy_url(&instance).await.unwrap().is_none());
        let name = instance.identifier().to_string();
        let copy = source.copy_url(&instance).await.unwrap();
        if name == empty {
            assert!(copy.is_none());
            continue;
        }
        let meta = store.head(&format!("{name}.dcm").into()).await.unwrap();
        let copy = copy.unwrap();
        let url = |seconds| format!("https://host/{name}.dcm?method=GET&for={seconds}&sig=secret");
        assert_eq!(copy.expose_url(), url(3600));
        assert_eq!((copy.length(), copy.etag()), (meta.size, meta.e_tag.as_deref()));
        assert_eq!(short.copy_url(&instance).await.unwrap().unwrap().expose_url(), url(60));
        // Without the listed ETag, the object could have been replaced.
        let bare = Instance::new(instance.identifier().clone()).with_size(meta.size);
        assert!(source.copy_url(&bare).await.unwrap().is_none());
    }
}
