//! Guarantee 4: a process that exports to Azurite is killed repeatedly, at random moments.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dicom_export::store::{Checkpoint, OperationStore, RedbOperationStore};
use dicom_export::testing::fixtures;
use futures::{StreamExt, stream};
use serde_json::Value;
use tempfile::TempDir;

use crate::azurite::{Azurite, Container};
use crate::process::Export;
use crate::proxy::{Mode, Proxy};
use crate::signatures;

const KILLS: usize = 12;

/// Instances per study.
const STUDY: u32 = 50;

/// A folder of small instances, and large ones of 30 MB that are uploaded in blocks.
pub(crate) struct Generated {
    folder: TempDir,
    /// Keyed by `<study>/<series>/<instance>`.
    instances: BTreeMap<String, PathBuf>,
}

impl Generated {
    pub(crate) fn new(small: u32, large: u32) -> Self {
        let mut generated = Self { folder: TempDir::new().unwrap(), instances: BTreeMap::new() };
        for number in 0..small {
            let (study, instance) = (number / STUDY, number % STUDY);
            generated.add(study, instance, &fixtures::ct_slice(study, instance % 2, instance));
        }
        let studies = small.div_ceil(STUDY);
        for number in 0..large {
            // The first one is in the first study.
            let study = number * studies / large;
            generated.add(study, STUDY, &fixtures::multi_frame(study, STUDY % 2, STUDY, 7_400));
        }
        generated
    }

    fn add(&mut self, study: u32, instance: u32, bytes: &[u8]) {
        let path = self.root().join(format!("{study:03}/{instance:03}"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        self.instances.insert(fixtures::instance(study, instance % 2, instance).to_string(), path);
    }

    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    /// Asserts that every blob in the container belongs to this operation and has the length of its file. Returns the number
    /// of instances.
    pub(crate) async fn assert_whole(&self, container: &Container<'_>, id: &str) -> u64 {
        let results = format!("{id}/results/");
        let mut count = 0;
        for (name, length) in container.list().await {
            if name == format!("{id}/errors.log") {
                continue;
            }
            let instance = name.strip_prefix(&results).and_then(|name| name.strip_suffix(".dcm"));
            let file = instance.and_then(|instance| self.instances.get(instance));
            let file = file.unwrap_or_else(|| panic!("unexpected blob {name}"));
            assert_eq!(length, fs::metadata(file).unwrap().len(), "{name}");
            count += 1;
        }
        count
    }

    /// Asserts that the container holds every instance, byte for byte, and nothing else.
    pub(crate) async fn assert_exported(&self, container: &Container<'_>, id: &str) {
        assert_eq!(self.assert_whole(container, id).await, self.instances.len() as u64);
        let all = self.instances.iter().map(|(instance, file)| async move {
            let blob = container.get(&format!("{id}/results/{instance}.dcm")).await.unwrap();
            assert!(blob.bytes == fs::read(file).unwrap(), "{instance} has different bytes");
        });
        stream::iter(all).buffer_unordered(8).collect::<()>().await;
    }
}

/// An operation whose process is killed repeatedly.
struct KilledOperation<'a> {
    archive: &'a Generated,
    container: Container<'a>,
    proxy: Proxy,
    uri: String,
    state: PathBuf,
    identifiers: Option<PathBuf>,
    /// The requested identifiers that match nothing.
    unknown: BTreeSet<String>,
}

impl KilledOperation<'_> {
    /// The command that starts the operation, or resumes it after `kills` kills.
    fn export(&self, kills: usize) -> Export {
        let export = Export::of(self.archive.root()).to(&self.uri).arg("--state").arg(&self.state);
        match (kills, &self.identifiers) {
            (0, None) => export,
            (0, Some(file)) => export.arg("--identifiers-file").arg(file),
            _ => export.arg("--resume").arg("last"),
        }
    }

    /// The checkpoint that the killed process left.
    async fn checkpoint(&self) -> (String, Checkpoint) {
        for secret in signatures(&self.uri) {
            let state = fs::read(&self.state).unwrap();
            let found = state.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "the signature is in the state file");
        }
        read_checkpoint(&self.state).await.unwrap()
    }

    /// Waits until a process that is still running has saved a checkpoint with exported instances.
    async fn wait_for_checkpoint(&self) {
        let folder = TempDir::new().unwrap();
        let copy = folder.path().join("state");
        let deadline = Instant::now() + Duration::from_secs(120);
        while Instant::now() < deadline {
            // The process has locked the file, and may write to it while it is copied.
            fs::copy(&self.state, &copy).unwrap();
            match read_checkpoint(&copy).await {
                Ok((_, checkpoint)) if checkpoint.totals.exported > 0 => return,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        panic!("no checkpoint was saved");
    }

    /// Asserts that every line of the log is whole, and that the skipped identifiers are named.
    async fn assert_logged(&self, id: &str) {
        let log = self.container.get(&format!("{id}/errors.log")).await.unwrap().bytes;
        let log = std::str::from_utf8(&log).unwrap();
        assert!(log.is_empty() || log.ends_with('\n'), "the last line is incomplete");
        let named: BTreeSet<_> = log
            .lines()
            .map(|line| {
                serde_json::from_str::<Value>(line).unwrap()["identifier"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(named, self.unknown);
    }

    async fn assert_survives(self) {
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let instances = self.archive.instances.len() as u64;
        let (mut killed, mut counted, mut created) = (0, 0, None);
        let (before, ended) = loop {
            let before = self.proxy.requests().len();
            let mut running = self.export(killed).start();
            if killed == KILLS {
                break (before, running.outcome().await);
            }
            // Every fourth process exports at least half of the remaining instances. The proxy then holds its requests, so
            // that it does not end before it is killed.
            let remaining = (instances - counted) as usize;
            let is_long = killed % 4 == 1;
            let (moment, held) = match is_long {
                true => {
                    let moment = remaining / 2 + random.usize(..remaining / 4);
                    (moment, moment)
                }
                false => {
                    let moment = 2 + random.usize(..remaining / 4);
                    (moment, moment + remaining / 8)
                }
            };
            self.proxy.set_mode(Mode::HoldAfter(before + held));
            running.until(self.proxy.wait_for_requests(before + moment)).await;
            if is_long && counted == 0 {
                running.until(self.wait_for_checkpoint()).await;
            }
            tokio::time::sleep(Duration::from_micros(random.u64(..20_000))).await;
            assert!(!running.has_ended(), "the process ended before it was killed");
            running.signal("-KILL");
            let outcome = running.outcome().await;
            assert_eq!((outcome.code, &*outcome.stdout), (None, ""), "{outcome:?}");
            self.proxy.set_mode(Mode::Forward);
            killed += 1;

            let (id, checkpoint) = self.checkpoint().await;
            assert!(!checkpoint.status.is_ended());
            let created = created.get_or_insert((id.clone(), checkpoint.created_time));
            assert_eq!((&id, checkpoint.created_time), (&created.0, created.1));
            assert!(counted <= checkpoint.totals.exported);
            counted = checkpoint.totals.exported;
            // Counted instances are in the container, and every blob in it is whole.
            let blobs = self.archive.assert_whole(&self.container, &id).await;
            assert!(counted <= blobs, "{counted} counted, {blobs} in the container");
            eprintln!("killed after {moment} requests: {counted} counted, {blobs} in the container");
        };
        assert!(counted > 0, "no process has saved a checkpoint with exported instances");
        // The last process exports only what the checkpoint had not counted.
        assert_eq!(instances_in(&self.proxy.requests()[before..]).len() as u64, instances - counted);
        let document = ended.assert_ended(if self.unknown.is_empty() { 0 } else { 3 }, "completed");
        let id = document["operationId"].as_str().unwrap();
        let (created_id, created_time) = created.unwrap();
        assert_eq!((id, &document["createdTime"]), (&*created_id, &created_time.to_string().into()));
        assert_eq!(document["results"]["exported"], instances);
        assert_eq!(document["results"]["skipped"], self.unknown.len());
        self.archive.assert_exported(&self.container, id).await;
        self.assert_logged(id).await;
    }
}

/// The id and the checkpoint of the only operation in a state file.
async fn read_checkpoint(state: &Path) -> dicom_export::Result<(String, Checkpoint)> {
    let store = RedbOperationStore::open(state)?;
    let operations = store.list(None, 10).await?;
    assert_eq!(operations.len(), 1);
    let id = operations[0].id;
    Ok((id.to_string(), store.load(id).await?))
}

/// The instances that were uploaded.
fn instances_in(requests: &[String]) -> BTreeSet<&str> {
    requests.iter().filter_map(|request| request.strip_suffix(".dcm")).collect()
}

async fn operation<'a>(
    archive: &'a Generated,
    folder: &TempDir,
    identifiers: Option<(&str, BTreeSet<String>)>,
) -> KilledOperation<'a> {
    let azurite = Azurite::shared();
    let container = azurite.container().await;
    let proxy = Proxy::start(azurite.port()).await;
    let uri = proxy.through(&container.sas_url("w"));
    let (identifiers, unknown) = match identifiers {
        None => (None, BTreeSet::new()),
        Some((text, unknown)) => {
            let file = folder.path().join("identifiers");
            fs::write(&file, text).unwrap();
            (Some(file), unknown)
        }
    };
    KilledOperation {
        archive,
        container,
        proxy,
        uri,
        state: folder.path().join("state"),
        identifiers,
        unknown,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite: tests/run.sh"]
async fn guarantee_4_an_export_of_everything_survives_twelve_kills() {
    let (archive, folder) = (Generated::new(2_500, 2), TempDir::new().unwrap());
    operation(&archive, &folder, None).await.assert_survives().await;
}

/// Half of the identifiers match nothing. Their lines may be repeated but are never lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite: tests/run.sh"]
async fn guarantee_4_an_export_of_identifiers_survives_twelve_kills() {
    let (archive, folder) = (Generated::new(2_000, 2), TempDir::new().unwrap());
    let unknown = |study: u32| fixtures::study_uid(study + 1_000).to_string();
    let text =
        (0..2_000 / STUDY).map(|study| format!("{}\n{}\n", unknown(study), fixtures::study_uid(study)));
    let text: String = text.collect();
    let unknown = (0..2_000 / STUDY).map(unknown).collect();
    operation(&archive, &folder, Some((&text, unknown))).await.assert_survives().await;
}
