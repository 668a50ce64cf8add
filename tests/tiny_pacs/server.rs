//! tiny-pacs, a DICOM server in Python, with its DICOMweb extension, on a free port and in a temporary folder.
//! `tests/run.sh` installs it.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::json;
use tempfile::TempDir;
use walkdir::WalkDir;

use crate::daemon::Daemon;

pub(crate) const TOKEN: &str = "a-token-of-the-exporter";

/// A running server. It ends with this value, and at the latest with the test process.
pub(crate) struct TinyPacs {
    _process: Daemon,
    root: String,
    http: reqwest::Client,
    folder: TempDir,
}

impl TinyPacs {
    /// Starts an empty server.
    pub(crate) fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let configuration = json!({
            "ae": { "port": 0, "dump_ds": false },
            "log": { "root": { "level": "INFO", "handlers": ["console"] } },
            "components": {
                "Database": { "on": true },
                "Devices": { "on": true },
                "PACS": { "on": true },
                // With two storages it would return each instance twice.
                "InMemoryStorage": { "on": false },
                "FileStorage": { "on": true, "storage_dir": folder.path().join("storage") },
                "HttpServer": { "on": true, "host": "127.0.0.1", "port": 0 },
                "DICOMWeb": { "on": true, "prefix": "/dicom-web", "auth": "token", "tokens": [TOKEN] },
            },
        });
        let path = folder.path().join("configuration.json");
        std::fs::write(&path, configuration.to_string()).unwrap();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.tools/venv/bin/tiny-pacs");
        let arguments = [Path::new("run"), Path::new("-c"), &path];
        // Its log goes to standard output, which Python would buffer.
        let env = [("PYTHONUNBUFFERED", "1")];
        let process = Daemon::start(&program, arguments, &env, &folder.path().join("log"));
        let address = process.wait_for_output("listening on ");
        let root = format!("{}/dicom-web", address.split(' ').next().unwrap());
        Self { _process: process, root, http: reqwest::Client::new(), folder }
    }

    /// The DICOMweb service root.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// Stores a file (STOW-RS, PS3.18 10.5). Returns whether the server accepted it.
    pub(crate) async fn store(&self, file: &[u8]) -> bool {
        let head = b"--boundary\r\nContent-Type: application/dicom\r\n\r\n";
        let body = [head, file, b"\r\n--boundary--\r\n"].concat();
        let request = self.http.post(format!("{}/studies", self.root)).bearer_auth(TOKEN);
        let content_type = r#"multipart/related; type="application/dicom"; boundary=boundary"#;
        let request = request.header("Content-Type", content_type).header("Accept", "application/dicom+json");
        match request.body(body).send().await.unwrap().status().as_u16() {
            200 => true,
            // A DICOMDIR, a file without UIDs, or one whose UIDs are stored already.
            400 | 409 => false,
            other => panic!("tiny-pacs returned {other}"),
        }
    }

    /// The files of all stored instances.
    pub(crate) fn stored(&self) -> Vec<(PathBuf, Bytes)> {
        let files = WalkDir::new(self.folder.path().join("storage")).into_iter().map(Result::unwrap);
        let files = files.filter(|entry| entry.file_type().is_file());
        files.map(|entry| (entry.path().to_owned(), std::fs::read(entry.path()).unwrap().into())).collect()
    }
}
