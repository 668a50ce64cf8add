//! A damaged state file. The input is a list of changes of four bytes each: three for a position and one for the new
//! byte. Position 0xffffff truncates the file to the byte's share of 256 of its length.

use std::sync::LazyLock;

use dicom_export::store::{Checkpoint, OperationStore, RedbOperationStore, StorageBackend};
use dicom_export::{OperationId, OperationSpec, Timestamp};
use redb::backends::InMemoryBackend;
use serde_json::json;

/// A file with two operations in it, as bytes.
static WHOLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let store = RedbOperationStore::open(&path).unwrap();
    super::RUNTIME.block_on(async {
        for number in 1..3 {
            let mut checkpoint = Checkpoint::first(Timestamp::now());
            store.create(&spec(number), &checkpoint).await.unwrap();
            checkpoint.version = 1;
            checkpoint.totals.exported = 7;
            store.save(OperationId::from_u128(number), &checkpoint).await.unwrap();
        }
    });
    drop(store);
    std::fs::read(path).unwrap()
});

fn spec(number: u128) -> OperationSpec {
    let spec = json!({
        "id": OperationId::from_u128(number), "createdTime": Timestamp::now(), "errorHref": "https://host/errors.log",
        "source": { "type": "identifiers", "settings": { "values": ["1.2.3", "1.2.4/5"] } },
        "destination": { "type": "azureblob", "location": "here", "settings": {}, "hasSecret": false, "expires": null },
        "context": { "partition": null, "caller": null, "attributes": {} },
    });
    serde_json::from_value(spec).unwrap()
}

pub(crate) fn run(input: &[u8]) {
    let mut bytes = WHOLE.clone();
    for change in input.chunks_exact(4).take(4096) {
        let (position, value) = (u32::from_be_bytes([0, change[0], change[1], change[2]]), change[3]);
        match usize::try_from(position).unwrap() {
            0xff_ffff => bytes.truncate(bytes.len() / 256 * usize::from(value)),
            _ if bytes.is_empty() => break,
            position => {
                let position = position % bytes.len();
                bytes[position] = value;
            }
        }
    }
    let opened = RedbOperationStore::open_backend(move || {
        let backend = InMemoryBackend::new();
        backend.set_len(bytes.len() as u64)?;
        backend.write(0, &bytes)?;
        Ok(backend)
    });
    let Ok(store) = opened else { return };
    super::RUNTIME.block_on(async {
        // Every call returns, with a result or an error.
        let _ = store.list(None, 10).await;
        for number in 1..3 {
            let id = OperationId::from_u128(number);
            let _ = store.spec(id).await;
            if let Ok(checkpoint) = store.load(id).await {
                let _ = store.save(id, &checkpoint).await;
            }
            let _ = store.delete(id).await;
        }
    });
}
