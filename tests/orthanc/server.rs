//! Orthanc, a DICOM server, with its DICOMweb plugin, on a free port and in a temporary folder. `tests/run.sh` installs it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dicom_export::InstanceIdentifier;
use futures::stream::{self, StreamExt, TryStreamExt};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::port::Port;

pub(crate) const USER: &str = "exporter";
pub(crate) const PASSWORD: &str = "a pass-wörd: with a colon";

const PROGRAM: &str = "/usr/sbin/Orthanc";
const PLUGIN: &str = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so";

/// Runs the command in its arguments until its standard input ends, which is when the process that started it ends.
const LEASH: &str = r#""$@" </dev/null & trap 'kill $!; wait' EXIT; trap exit HUP INT TERM; cat >/dev/null"#;

/// A running server. It ends when this value is dropped or the test process ends.
pub(crate) struct Orthanc {
    process: Child,
    port: Port,
    http: Client,
    folder: TempDir,
}

fn spawn(folder: &Path) -> Child {
    let log = std::fs::File::create(folder.join("log")).unwrap();
    Command::new("sh")
        .args(["-c", LEASH, "sh", PROGRAM])
        .arg(folder.join("orthanc.json"))
        .stdin(Stdio::piped())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Orthanc {
    /// Starts an empty server with one user.
    pub(crate) async fn start() -> Self {
        Self::start_with(json!({})).await
    }

    /// Starts an empty server with these options in addition.
    pub(crate) async fn start_with(options: Value) -> Self {
        assert!(
            Path::new(PROGRAM).exists() && Path::new(PLUGIN).exists(),
            "run tests/run.sh: it installs Orthanc"
        );
        let folder = TempDir::new().unwrap();
        let port = Port::reserve();
        let mut configuration = json!({
            "StorageDirectory": folder.path().join("storage"),
            "IndexDirectory": folder.path().join("storage"),
            "HttpPort": port.number(),
            "RemoteAccessAllowed": false,
            "AuthenticationEnabled": true,
            "RegisteredUsers": { USER: PASSWORD },
            "DicomServerEnabled": false,
            "SaveJobs": false,
            "Plugins": [PLUGIN],
            "DicomWeb": { "Enable": true, "Root": "/dicom-web/" },
        });
        configuration.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        std::fs::write(folder.path().join("orthanc.json"), configuration.to_string()).unwrap();
        let process = spawn(folder.path());
        // Orthanc closes idle connections after a second, perhaps when one is about to be reused.
        let http = Client::builder().pool_max_idle_per_host(0).build().unwrap();
        let orthanc = Self { process, port, http, folder };
        orthanc.wait().await;
        orthanc
    }

    async fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.get("system").send().await.is_err() {
            let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "Orthanc does not respond: {}", log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops the server, replaces the stored file of an instance, or deletes it, and starts the server again, which then
    /// has nothing in its caches.
    pub(crate) async fn damage(&mut self, instance: &InstanceIdentifier, content: Option<&[u8]>) {
        drop(self.process.stdin.take());
        self.process.wait().unwrap();
        let uid = instance.sop_instance_uid().as_str().as_bytes();
        let files = walkdir::WalkDir::new(self.folder.path().join("storage"));
        let files = files.into_iter().map(Result::unwrap).filter(|entry| entry.file_type().is_file());
        let mut files = files.map(|entry| (entry.path().to_owned(), std::fs::read(entry.path()).unwrap()));
        let is_dicom = |bytes: &[u8]| bytes.get(128..132) == Some(b"DICM");
        let (path, _) = files
            .find(|(_, bytes)| is_dicom(bytes) && bytes.windows(uid.len()).any(|window| window == uid))
            .unwrap();
        match content {
            Some(content) => std::fs::write(path, content).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
        self.process = spawn(self.folder.path());
        self.wait().await;
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    /// The DICOMweb service root.
    pub(crate) fn root(&self) -> String {
        format!("http://127.0.0.1:{}/dicom-web", self.port.number())
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port.number())
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(self.url(path)).basic_auth(USER, Some(PASSWORD))
    }

    async fn json(&self, path: &str) -> Value {
        let response = self.get(path).send().await.unwrap().error_for_status().unwrap();
        response.json().await.unwrap()
    }

    /// Stores a file. Returns whether Orthanc accepted it.
    pub(crate) async fn store(&self, file: Bytes) -> bool {
        let request = self.http.post(self.url("instances")).basic_auth(USER, Some(PASSWORD)).body(file);
        match request.send().await.unwrap().status() {
            StatusCode::OK => true,
            // A DICOMDIR, a file without UIDs, an empty one.
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => false,
            other => panic!("Orthanc returned {other}"),
        }
    }

    /// All stored instances by Orthanc's REST API, with their bytes. Second, the instances that are stored for several
    /// patients, which DICOMweb cannot return.
    pub(crate) async fn everything(&self) -> (BTreeMap<InstanceIdentifier, Bytes>, Vec<InstanceIdentifier>) {
        let ids: Vec<String> = serde_json::from_value(self.json("instances").await).unwrap();
        let read = |id: String| async move {
            let tags = self.json(&format!("instances/{id}/tags?simplify")).await;
            let uid = |name: &str| tags[name].as_str().unwrap().to_owned();
            let names = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"].map(uid).join("/");
            let file = self.get(&format!("instances/{id}/file")).send().await?.error_for_status()?;
            Ok::<_, reqwest::Error>((names.parse::<InstanceIdentifier>().unwrap(), file.bytes().await?))
        };
        let files: Vec<_> = stream::iter(ids).map(read).buffer_unordered(8).try_collect().await.unwrap();
        let (mut stored, mut ambiguous) = (BTreeMap::new(), Vec::new());
        for (identifier, bytes) in files {
            if stored.insert(identifier.clone(), bytes).is_some() {
                ambiguous.push(identifier);
            }
        }
        stored.retain(|identifier, _| !ambiguous.contains(identifier));
        (stored, ambiguous)
    }

    /// Deletes every instance with this SOP Instance UID.
    pub(crate) async fn delete(&self, instance: &InstanceIdentifier) {
        let uid = instance.sop_instance_uid().as_str().to_owned();
        let found = self.http.post(self.url("tools/lookup")).basic_auth(USER, Some(PASSWORD)).body(uid);
        let found: Value = found.send().await.unwrap().json().await.unwrap();
        for one in found.as_array().unwrap() {
            let url = self.url(&format!("instances/{}", one["ID"].as_str().unwrap()));
            let request = self.http.delete(url).basic_auth(USER, Some(PASSWORD));
            assert!(request.send().await.unwrap().status().is_success());
        }
    }
}

impl Drop for Orthanc {
    fn drop(&mut self) {
        // Ends the shell, which ends Orthanc.
        drop(self.process.stdin.take());
        _ = self.process.wait();
    }
}
