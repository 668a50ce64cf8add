//! [`DirectorySink`]: URLs, interrupted appends and missing folders.

use std::path::PathBuf;

use dicom_export::sink::LogKey;
use dicom_export::testing::fixtures::instance;
use dicom_export::{BlobPath, BlobSink, DirectorySink, OperationId, RetryPolicy, UploadContext};

use futures::StreamExt;

use super::*;

fn upload(buffer_limit: u64) -> UploadContext {
    UploadContext::new(buffer_limit, RetryPolicy::none(), 1)
}

#[tokio::test]
async fn urls_are_file_urls() {
    let folder = TempDir::new().unwrap();
    let sink = DirectorySink::open(folder.path().join("with space ü")).unwrap();
    let path = BlobPath::instance(OperationId::random(), &instance(1, 1, 1));
    let url = url::Url::parse(&sink.url(&path)).unwrap();
    assert_eq!(url.scheme(), "file");
    sink.put(&path, Content::from_bytes(slice(1)), &upload(1 << 20)).await.unwrap();
    assert_eq!(fs::read(url.to_file_path().unwrap()).unwrap(), slice(1));
}

/// A process that is killed while it appends leaves an incomplete line.
#[tokio::test]
async fn an_incomplete_line_at_the_end_of_a_log_is_removed() {
    let folder = TempDir::new().unwrap();
    let sink = DirectorySink::open(folder.path()).unwrap();
    let log = BlobPath::error_log(OperationId::random());
    let file = folder.path().join(log.as_str());
    for (before, kept) in [
        ("".to_owned(), ""),
        ("one\n".to_owned(), "one\n"),
        ("one\ntw".to_owned(), "one\n"),
        ("on".to_owned(), ""),
        (format!("one\n{}", "x".repeat(200_000)), "one\n"),
    ] {
        write(&file, before.as_bytes());
        sink.prepare(&log).await.unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), before, "prepare changed the log");
        sink.append(&log, LogKey::new(0, 1), "three\n".into()).await.unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("{kept}three\n"));
    }
}

#[tokio::test]
async fn a_path_that_is_not_a_folder_is_refused() {
    let folder = folder([("file", slice(1))]);
    let refused = DirectorySink::open(folder.path().join("file/below")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(!refused.to_string().contains("below"), "the error contains a path: {refused}");
    let refused = DirectorySink::open(folder.path().join("file")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
}

/// If the root's disk was unmounted, a new root would be a folder on another disk.
#[tokio::test]
async fn a_deleted_root_is_not_created_again() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("mount");
    let sink = DirectorySink::open(&root).unwrap();
    fs::remove_dir(&root).unwrap();
    let operation = OperationId::random();
    let path = BlobPath::instance(operation, &instance(1, 1, 1));
    let put = sink.put(&path, Content::from_bytes(slice(1)), &upload(1 << 20)).await;
    assert_eq!(put.unwrap_err().kind(), ErrorKind::NotFound);
    let prepared = sink.prepare(&BlobPath::error_log(operation)).await;
    assert_eq!(prepared.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!root.exists());
}

#[tokio::test]
async fn small_chunks_and_buffers_are_written_completely() {
    let folder = TempDir::new().unwrap();
    let sink = DirectorySink::open(folder.path()).unwrap();
    let path = BlobPath::instance(OperationId::random(), &instance(1, 1, 1));
    let bytes = slice(1);
    for buffer_limit in [0, 1, 1000] {
        let chunks: Vec<_> = bytes.chunks(10).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        let content = Content::from_stream(None, futures::stream::iter(chunks));
        let stored = sink.put(&path, content, &upload(buffer_limit)).await.unwrap();
        assert_eq!(stored.size, bytes.len() as u64);
        assert_eq!(fs::read(folder.path().join(path.as_str())).unwrap(), bytes);
    }
}

/// The files of interrupted writes below a folder.
fn partial_files(root: &Path) -> Vec<PathBuf> {
    let files = walkdir::WalkDir::new(root).into_iter().map(|entry| entry.unwrap().into_path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "part")).collect()
}

/// Leaves the file of an interrupted write, as a process does that is killed during a `put`.
async fn interrupt_a_write(sink: &DirectorySink, operation: OperationId, root: &Path) -> PathBuf {
    let (read, was_read) = tokio::sync::oneshot::channel();
    let chunks = futures::stream::once(async { Ok(slice(1)) }).chain(futures::stream::once(async {
        let _ = read.send(());
        std::future::pending().await
    }));
    let (path, upload) = (BlobPath::instance(operation, &instance(1, 1, 1)), upload(100));
    let put = sink.put(&path, Content::from_stream(None, chunks), &upload);
    tokio::pin!(put);
    tokio::select! {
        outcome = &mut put => panic!("put returned: {outcome:?}"),
        read = was_read => read.unwrap(),
    }
    // The file of the put that is still in progress is deleted when the put is dropped.
    let leftover = loop {
        if let [partial] = &*partial_files(root) {
            break partial.with_file_name(format!(".{:032x}.part", 7));
        }
        tokio::task::yield_now().await;
    };
    write(&leftover, &slice(1));
    leftover
}

#[tokio::test]
async fn files_of_interrupted_writes_are_removed() {
    let folder = TempDir::new().unwrap();
    let sink = DirectorySink::open(folder.path()).unwrap();
    let operation = OperationId::random();
    let log = BlobPath::error_log(operation);
    sink.prepare(&log).await.unwrap();
    let leftover = interrupt_a_write(&sink, operation, folder.path()).await;
    sink.prepare(&log).await.unwrap();
    assert!(!leftover.exists(), "a file of an interrupted write remains after prepare");
    // An operation that is resumed without a destination is not prepared again.
    let leftover = interrupt_a_write(&sink, operation, folder.path()).await;
    sink.finish(&log).await.unwrap();
    assert!(!leftover.exists(), "a file of an interrupted write remains after finish");
}

#[tokio::test]
async fn files_of_interrupted_writes_are_not_listed() {
    let folder = TempDir::new().unwrap();
    let sink = DirectorySink::open(folder.path()).unwrap();
    let operation = OperationId::random();
    interrupt_a_write(&sink, operation, folder.path()).await;
    let path = BlobPath::instance(operation, &instance(1, 1, 2));
    sink.put(&path, Content::from_bytes(slice(2)), &upload(1 << 20)).await.unwrap();
    let source = DirectorySource::open(folder.path()).unwrap();
    let page = source.list(ListRequest::new(Scope::Everything, None, 10)).await.unwrap();
    let listed: Vec<_> = page.instances.iter().map(Instance::identifier).collect();
    assert_eq!((listed, page.failures.len()), (vec![&instance(1, 1, 2)], 0));
}
