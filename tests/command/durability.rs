//! Guarantee 4 on the real thing: a process that exports to Azurite is killed at random moments, again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

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

/// Instances a study.
const STUDY: u32 = 50;

/// Small instances, and large ones of 30 MB that are uploaded in blocks.
pub(crate) struct Generated {
    folder: TempDir,
    /// By `<study>/<series>/<instance>`.
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
            // One of them early.
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

    /// Every blob in the container is of this operation, and as long as its file.
    pub(crate) async fn assert_whole(&self, container: &Container<'_>, id: &str) -> u64 {
        let results = format!("{id}/results/");
        let mut count = 0;
        for (name, length) in container.list().await {
            if name == format!("{id}/errors.log") {
                continue;
            }
            let instance = name.strip_prefix(&results).and_then(|name| name.strip_suffix(".dcm"));
            let file = instance.and_then(|instance| self.instances.get(instance));
            let file = file.unwrap_or_else(|| panic!("{name} does not belong here"));
            assert_eq!(length, fs::metadata(file).unwrap().len(), "{name}");
            count += 1;
        }
        count
    }

    /// Every instance is there, byte for byte, and nothing else.
    pub(crate) async fn assert_exported(&self, container: &Container<'_>, id: &str) {
        assert_eq!(self.assert_whole(container, id).await, self.instances.len() as u64);
        let all = self.instances.iter().map(|(instance, file)| async move {
            let blob = container.get(&format!("{id}/results/{instance}.dcm")).await.unwrap();
            assert!(blob.bytes == fs::read(file).unwrap(), "{instance} has other bytes");
        });
        stream::iter(all).buffer_unordered(8).collect::<()>().await;
    }
}

/// An operation that is killed again and again.
struct Lives<'a> {
    archive: &'a Generated,
    container: Container<'a>,
    proxy: Proxy,
    uri: String,
    state: PathBuf,
    identifiers: Option<PathBuf>,
    /// Of the exports asked for, those that are skipped.
    unknown: BTreeSet<String>,
}

impl Lives<'_> {
    fn export(&self, life: usize) -> Export {
        let export = Export::of(self.archive.root()).to(&self.uri).arg("--state").arg(&self.state);
        match (life, &self.identifiers) {
            (0, None) => export,
            (0, Some(file)) => export.arg("--identifiers-file").arg(file),
            _ => export.arg("--resume").arg("last"),
        }
    }

    /// The checkpoint as the killed process left it.
    async fn checkpoint(&self) -> (String, Checkpoint) {
        for secret in signatures(&self.uri) {
            let state = fs::read(&self.state).unwrap();
            let found = state.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "the signature is in the state file");
        }
        let store = RedbOperationStore::open(&self.state).unwrap();
        let operations = store.list(None, 10).await.unwrap();
        assert_eq!(operations.len(), 1);
        let id = operations[0].id;
        (id.to_string(), store.load(id).await.unwrap())
    }

    /// Every line is whole, and each that is skipped is named.
    async fn assert_logged(&self, id: &str) {
        let log = self.container.get(&format!("{id}/errors.log")).await.unwrap().bytes;
        let log = std::str::from_utf8(&log).unwrap();
        assert!(log.is_empty() || log.ends_with('\n'), "the last line is cut");
        let named: BTreeSet<_> = log
            .lines()
            .map(|line| {
                serde_json::from_str::<Value>(line).unwrap()["identifier"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(named, self.unknown);
    }

    async fn survives(self) {
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let instances = self.archive.instances.len() as u64;
        let (mut killed, mut counted, mut began) = (0, 0, None);
        let (before, ended) = loop {
            let before = self.proxy.requests().len();
            let running = self.export(killed).start();
            if killed == KILLS {
                break (before, running.outcome().await);
            }
            // The log is tried, then the operation is stored, then the instances are put.
            let left = (instances - counted) as usize;
            let is_long = killed % 4 == 1;
            let moment = match is_long {
                // It stands still at its end until a checkpoint is due, however quick the machine is.
                true => left / 2 + random.usize(..left / 4),
                false => 2 + random.usize(..left / 4),
            };
            if is_long {
                self.proxy.set_mode(Mode::HoldAfter(before + moment));
            }
            self.proxy.wait_for_requests(before + moment).await;
            let pause = random.u64(..20_000) + if is_long { 1_200_000 } else { 0 };
            tokio::time::sleep(Duration::from_micros(pause)).await;
            assert!(!running.has_ended(), "it is killed in the midst of it");
            running.signal("-KILL");
            let outcome = running.outcome().await;
            assert_eq!((outcome.code, &*outcome.stdout), (None, ""), "{outcome:?}");
            self.proxy.set_mode(Mode::Forward);
            killed += 1;

            let (id, checkpoint) = self.checkpoint().await;
            assert!(!checkpoint.status.is_ended());
            let created = began.get_or_insert((id.clone(), checkpoint.created_time));
            assert_eq!((&id, checkpoint.created_time), (&created.0, created.1));
            assert!(counted <= checkpoint.totals.exported);
            counted = checkpoint.totals.exported;
            // What is counted is there, and what is there is whole.
            let there = self.archive.assert_whole(&self.container, &id).await;
            assert!(counted <= there, "counted {counted} of {there}");
            eprintln!("killed after {moment} requests: {counted} counted of {there} in the container");
        };
        assert!(counted > 0, "no life got as far as a checkpoint");
        // What the checkpoint had passed was not put again.
        assert_eq!(put(&self.proxy.requests()[before..]).len() as u64, instances - counted);
        let document = ended.ended(if self.unknown.is_empty() { 0 } else { 3 }, "completed");
        let id = document["operationId"].as_str().unwrap();
        let (created_id, created_time) = began.unwrap();
        assert_eq!((id, &document["createdTime"]), (&*created_id, &created_time.to_string().into()));
        assert_eq!(document["results"]["exported"], instances);
        assert_eq!(document["results"]["skipped"], self.unknown.len());
        self.archive.assert_exported(&self.container, id).await;
        self.assert_logged(id).await;
    }
}

/// Which instances requests were about.
fn put(requests: &[String]) -> BTreeSet<&str> {
    requests.iter().filter_map(|request| request.strip_suffix(".dcm")).collect()
}

async fn lives<'a>(
    archive: &'a Generated,
    folder: &TempDir,
    identifiers: Option<(&str, BTreeSet<String>)>,
) -> Lives<'a> {
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
    Lives { archive, container, proxy, uri, state: folder.path().join("state"), identifiers, unknown }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite: tests/run.sh"]
async fn guarantee_4_an_export_of_everything_survives_a_dozen_kills() {
    let (archive, folder) = (Generated::new(2_500, 2), TempDir::new().unwrap());
    lives(&archive, &folder, None).await.survives().await;
}

/// With unknown ones between them, whose lines may be repeated and are never lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite: tests/run.sh"]
async fn guarantee_4_an_export_of_identifiers_survives_a_dozen_kills() {
    let (archive, folder) = (Generated::new(2_000, 2), TempDir::new().unwrap());
    let unknown = |study: u32| fixtures::study_uid(study + 1_000).to_string();
    let text =
        (0..2_000 / STUDY).map(|study| format!("{}\n{}\n", unknown(study), fixtures::study_uid(study)));
    let text: String = text.collect();
    let unknown = (0..2_000 / STUDY).map(unknown).collect();
    lives(&archive, &folder, Some((&text, unknown))).await.survives().await;
}
