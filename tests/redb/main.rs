//! The redb store: opening and refusing files, and power failures.
#![allow(clippy::unwrap_used)]

mod records;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use dicom_export::store::{Checkpoint, OperationKey, OperationStore, RedbOperationStore, StorageBackend};
use dicom_export::testing::store_conformance;
use dicom_export::{ErrorKind, OperationId, OperationSpec, OperationStatus, Timestamp};
use redb::backends::InMemoryBackend;
use redb::{Database, TableDefinition};
use serde_json::json;

fn spec(number: u128) -> OperationSpec {
    let second = number % 60;
    serde_json::from_value(json!({
        "id": OperationId::from_u128(number),
        "createdTime": format!("2022-09-08T16:40:{second:02}.2627618Z"),
        "source": { "type": "identifiers", "settings": { "values": ["1.2.3", "1.2.4/5"] } },
        "destination": {
            "type": "azureblob",
            "location": "here/there",
            "settings": { "blobContainerUri": "https://here.blob.core.windows.net/there" },
            "hasSecret": true,
        },
        "errorHref": "https://here.blob.core.windows.net/there/errors.log",
        "context": { "partition": "north", "caller": null, "attributes": { "ticket": "7" } },
    }))
    .unwrap()
}

fn first() -> Checkpoint {
    Checkpoint::first("2022-09-08T16:40:36.2627618Z".parse::<Timestamp>().unwrap())
}

#[tokio::test]
async fn the_redb_store_passes_the_conformance_suite() {
    let folder = tempfile::tempdir().unwrap();
    store_conformance(&RedbOperationStore::open(folder.path().join("state.redb")).unwrap()).await;
    store_conformance(&RedbOperationStore::open_backend(|| Ok(InMemoryBackend::new())).unwrap()).await;
}

#[tokio::test]
async fn operations_survive_reopening_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let (older, newer) = (spec(1), spec(2));
    let mut checkpoint = first();
    {
        let store = RedbOperationStore::open(&path).unwrap();
        store.create(&older, &checkpoint).await.unwrap();
        store.create(&newer, &checkpoint).await.unwrap();
        checkpoint.version = 1;
        checkpoint.status = OperationStatus::Running;
        checkpoint.totals.exported = 41;
        checkpoint.version = store.save(older.id, &checkpoint).await.unwrap();
        assert_eq!(checkpoint.version, 2);
    }
    let store = RedbOperationStore::open(&path).unwrap();
    assert_eq!(*store.spec(older.id).await.unwrap(), older);
    assert_eq!(store.load(older.id).await.unwrap(), checkpoint);
    assert_eq!(store.load(newer.id).await.unwrap().version, 1);
    let newest_first = [OperationKey::from(&newer), OperationKey::from(&older)];
    assert_eq!(store.list(None, 10).await.unwrap(), newest_first);
    assert_eq!(store.list(Some(newest_first[0]), 10).await.unwrap(), newest_first[1..]);

    let files: Vec<_> = folder.path().read_dir().unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, ["state.redb"], "creating the store left other files in its folder");
}

#[tokio::test]
async fn a_file_in_use_cannot_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let store = RedbOperationStore::open(&path).unwrap();
    let error = RedbOperationStore::open(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(error.message(), "the state file is in use");

    store.create(&spec(1), &first()).await.unwrap();
    drop(store);
    RedbOperationStore::open(&path).unwrap();
}

#[tokio::test]
async fn other_files_are_refused_and_not_changed() {
    let folder = tempfile::tempdir().unwrap();

    // A DICOM file begins with 128 zeros, which must not be mistaken for an empty state file.
    let dicom = folder.path().join("image.dcm");
    let bytes = [&[0; 128][..], b"DICM", &[7; 4000]].concat();
    std::fs::write(&dicom, &bytes).unwrap();
    assert_eq!(RedbOperationStore::open(&dicom).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(std::fs::read(&dicom).unwrap(), bytes);

    let foreign = folder.path().join("foreign.redb");
    {
        let database = Database::create(&foreign).unwrap();
        let writing = database.begin_write().unwrap();
        writing.open_table(TableDefinition::<u32, u32>::new("specs")).unwrap().insert(1, 2).unwrap();
        writing.commit().unwrap();
    }
    assert_eq!(RedbOperationStore::open(&foreign).unwrap_err().kind(), ErrorKind::Invalid);

    let nowhere = folder.path().join("Doe^Jane").join("state.redb");
    let error = RedbOperationStore::open(&nowhere).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(!format!("{error} {error:?}").contains("Doe"), "{error:?}");
}

#[tokio::test]
async fn a_later_format_is_refused_and_not_changed() {
    const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    RedbOperationStore::open(&path).unwrap().create(&spec(1), &first()).await.unwrap();
    let set_format = |format| {
        let database = Database::create(&path).unwrap();
        let writing = database.begin_write().unwrap();
        writing.open_table(ABOUT).unwrap().insert("format", format).unwrap();
        writing.commit().unwrap();
    };
    set_format(2);
    assert_eq!(RedbOperationStore::open(&path).unwrap_err().kind(), ErrorKind::Unsupported);

    set_format(1);
    RedbOperationStore::open(&path).unwrap().load(spec(1).id).await.unwrap();
}

#[tokio::test]
async fn a_truncated_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    RedbOperationStore::open(&path).unwrap().create(&spec(1), &first()).await.unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(8192).unwrap();
    assert_eq!(RedbOperationStore::open(&path).unwrap_err().kind(), ErrorKind::Unreadable);
}

#[tokio::test]
async fn one_of_several_concurrent_saves_succeeds() {
    let store = RedbOperationStore::open_backend(|| Ok(InMemoryBackend::new())).unwrap();
    let spec = spec(1);
    store.create(&spec, &first()).await.unwrap();
    let mut checkpoint = first();
    checkpoint.version = 1;
    let saves = futures::future::join_all((0..16).map(|_| store.save(spec.id, &checkpoint))).await;
    assert_eq!(saves.iter().filter(|save| matches!(save, Ok(2))).count(), 1);
    assert_eq!(
        saves.iter().filter(|save| matches!(save, Err(lost) if lost.kind() == ErrorKind::Conflict)).count(),
        15
    );
}

/// A disk whose writes fail while it is full.
#[derive(Debug, Clone, Default)]
struct Disk {
    content: Arc<InMemoryBackend>,
    full: Arc<AtomicBool>,
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.content.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.content.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.content.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.content.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.content.write(offset, data)
    }
}

/// After a failed write, redb refuses all calls until the file is opened again. A server whose disk was full for a minute
/// must not need a restart.
#[tokio::test]
async fn writes_succeed_again_after_the_disk_was_full() {
    let disk = Disk::default();
    let content = disk.clone();
    let store = RedbOperationStore::open_backend(move || Ok(content.clone())).unwrap();
    let spec = spec(1);
    store.create(&spec, &first()).await.unwrap();
    let mut checkpoint = store.load(spec.id).await.unwrap();
    checkpoint.totals.exported = 5;

    disk.full.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        let error = store.save(spec.id, &checkpoint).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    }
    disk.full.store(false, Ordering::SeqCst);
    assert_eq!(store.save(spec.id, &checkpoint).await.unwrap(), 2);
    assert_eq!(store.load(spec.id).await.unwrap().totals.exported, 5);
}

/// The operations after the calls that have returned, each with the count in its checkpoint.
type Confirmed = BTreeMap<u128, u64>;

/// A backend that records all changes in a journal.
#[derive(Debug, Clone, Default)]
struct Recorder {
    live: Arc<InMemoryBackend>,
    journal: Arc<Mutex<Vec<Step>>>,
}

#[derive(Debug)]
enum Step {
    Write(u64, Vec<u8>),
    Resize(u64),
    Sync,
}

impl Recorder {
    fn steps(&self) -> usize {
        self.journal.lock().unwrap().len()
    }

    fn record(&self, step: Step) {
        self.journal.lock().unwrap().push(step);
    }
}

impl StorageBackend for Recorder {
    fn len(&self) -> io::Result<u64> {
        self.live.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.live.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.record(Step::Resize(len));
        self.live.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.record(Step::Sync);
        self.live.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.record(Step::Write(offset, data.to_vec()));
        self.live.write(offset, data)
    }
}

/// Which of the steps since the last sync are on the disk after a power failure.
#[derive(Debug, Clone, Copy)]
enum Unsynced {
    Lost,
    Kept,
    /// Some of them, and some only up to a sector, as a disk's cache may leave them.
    Some(u64),
}

fn apply(disk: &mut Vec<u8>, step: &Step) {
    match step {
        Step::Resize(len) => disk.resize(usize::try_from(*len).unwrap(), 0),
        Step::Write(offset, data) => {
            let start = usize::try_from(*offset).unwrap();
            let end = start + data.len();
            disk.resize(disk.len().max(end), 0);
            disk[start..end].copy_from_slice(data);
        }
        Step::Sync => {}
    }
}

/// The content of the disk after a power failure.
fn power_failure(synced: &[u8], unsynced: &[Step], kept: Unsynced) -> Vec<u8> {
    let mut disk = synced.to_vec();
    match kept {
        Unsynced::Lost => {}
        Unsynced::Kept => unsynced.iter().for_each(|step| apply(&mut disk, step)),
        Unsynced::Some(seed) => {
            let mut random = fastrand::Rng::with_seed(seed);
            for step in unsynced {
                match step {
                    Step::Write(offset, data) if random.bool() => {
                        let sectors = random.usize(..=data.len() / 512);
                        let whole = if random.bool() { data.len() } else { sectors * 512 };
                        apply(&mut disk, &Step::Write(*offset, data[..whole].to_vec()));
                    }
                    Step::Resize(_) if random.bool() => apply(&mut disk, step),
                    _ => {}
                }
            }
        }
    }
    disk
}

/// Opens the disk after a power failure. It must contain the operations before the call that was in progress (`confirmed`)
/// or after it (`next`).
async fn check(disk: &[u8], confirmed: &Confirmed, next: &Confirmed) {
    let disk = disk.to_vec();
    let open = move || {
        let backend = InMemoryBackend::new();
        backend.set_len(disk.len() as u64)?;
        backend.write(0, &disk)?;
        Ok(backend)
    };
    let store = RedbOperationStore::open_backend(open).unwrap();
    let mut found = Confirmed::new();
    let mut newest = None;
    for key in store.list(None, usize::MAX).await.unwrap() {
        let number = key.id.as_u128();
        assert_eq!(*store.spec(key.id).await.unwrap(), spec(number));
        let checkpoint = store.load(key.id).await.unwrap();
        assert_eq!(
            checkpoint.version,
            checkpoint.totals.exported + 1,
            "the version and the checkpoint are of different saves"
        );
        found.insert(number, checkpoint.totals.exported);
        newest.get_or_insert((key.id, checkpoint));
    }
    if let Some((id, checkpoint)) = newest {
        assert_eq!(
            store.save(id, &checkpoint).await.unwrap(),
            checkpoint.version + 1,
            "the operation cannot be saved"
        );
    }
    assert!(found == *confirmed || found == *next, "found {found:?}, confirmed {confirmed:?}, next {next:?}");
    let deleted: BTreeSet<_> =
        confirmed.keys().chain(next.keys()).filter(|number| !found.contains_key(number)).collect();
    for number in deleted {
        let error = store.load(OperationId::from_u128(*number)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}

/// A power failure after each write, resize and sync of a sequence of calls. The changes of all calls that had returned
/// survive, and the call in progress is either complete or has no effect.
#[tokio::test]
async fn guarantee_4_a_power_cut_at_any_write_loses_nothing_that_was_confirmed() {
    let recorder = Recorder::default();
    let recording = recorder.clone();
    let store = RedbOperationStore::open_backend(move || Ok(recording.clone())).unwrap();

    // The length of the journal and the confirmed operations after each call.
    let mut history = vec![(recorder.steps(), Confirmed::new())];
    let mut confirmed = Confirmed::new();
    for round in 0..4 {
        for number in round * 3..round * 3 + 3 {
            store.create(&spec(number), &first()).await.unwrap();
            confirmed.insert(number, 0);
            history.push((recorder.steps(), confirmed.clone()));
        }
        for (&number, exported) in &mut confirmed.clone() {
            let id = OperationId::from_u128(number);
            let mut checkpoint = store.load(id).await.unwrap();
            *exported += 1;
            checkpoint.totals.exported = *exported;
            store.save(id, &checkpoint).await.unwrap();
            confirmed.insert(number, *exported);
            history.push((recorder.steps(), confirmed.clone()));
        }
        store.delete(OperationId::from_u128(round * 3)).await.unwrap();
        confirmed.remove(&(round * 3));
        history.push((recorder.steps(), confirmed.clone()));
    }

    let journal = std::mem::take(&mut *recorder.journal.lock().unwrap());
    let (opened, _) = history[0];
    let last = history[history.len() - 1].0;
    let (mut synced, mut since) = (Vec::new(), 0);
    let mut failures = 0;
    for step in 0..last {
        if matches!(journal[step], Step::Sync) {
            journal[since..step].iter().for_each(|step| apply(&mut synced, step));
            since = step;
        }
        // Nothing was confirmed before the store was open.
        let after = step + 1;
        if after < opened {
            continue;
        }
        let calls = history.partition_point(|(steps, _)| *steps <= after);
        let confirmed = &history[calls - 1].1;
        let next = history.get(calls).map_or(confirmed, |(_, next)| next);
        for kept in [
            Unsynced::Lost,
            Unsynced::Kept,
            Unsynced::Some(2 * after as u64),
            Unsynced::Some(2 * after as u64 + 1),
        ] {
            let disk = power_failure(&synced, &journal[since..after], kept);
            check(&disk, confirmed, next).await;
            failures += 1;
        }
    }
    assert!(failures > 400, "only {failures} power failures");
}
