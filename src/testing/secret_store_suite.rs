//! [`secret_store_conformance`]: a conformance suite for [`SecretStore`].
#![allow(clippy::expect_used, reason = "a suite panics on a violation")]

use futures::future::join_all;

use crate::model::OperationId;
use crate::secret::Secret;
use crate::store::SecretStore;

/// Checks a store against the contract of [`SecretStore`]. The suite uses random operation ids and deletes its secrets.
///
/// # Panics
/// If the store violates the contract.
///
/// ```
/// use dicom_export::store::MemorySecretStore;
/// use dicom_export::testing::secret_store_conformance;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// secret_store_conformance(&MemorySecretStore::new()).await;
/// # }
/// ```
pub async fn secret_store_conformance(store: &dyn SecretStore) {
    let [one, other] = [OperationId::random(), OperationId::random()];
    assert_eq!(get(store, one).await, None, "get of an unknown operation returned a secret");
    store.delete(one).await.expect("deleting an unknown secret succeeds");

    // A token, JSON, any characters, and as long as a certificate chain.
    let texts = [
        "",
        "sv=2025-01-05&sig=%2B%2F%3D",
        "{\"key\": \"ü\\n\0\u{1F511}\"}",
        &"0123456789abcdef".repeat(2048),
    ];
    for text in texts {
        // The second put repeats the first one, as after a lost response.
        for _ in 0..2 {
            store.put(one, &Secret::new(text)).await.expect("put succeeds");
            assert_eq!(
                get(store, one).await.as_deref(),
                Some(text),
                "get returned another secret than was put"
            );
        }
    }
    store.put(other, &Secret::new("other")).await.expect("put succeeds");
    assert_eq!(
        get(store, one).await.as_deref(),
        Some(texts[3]),
        "put changed the secret of another operation"
    );
    for _ in 0..2 {
        store.delete(one).await.expect("delete succeeds");
        assert_eq!(get(store, one).await, None, "a deleted secret is still returned");
    }
    assert_eq!(
        get(store, other).await.as_deref(),
        Some("other"),
        "delete removed the secret of another operation"
    );
    store.put(one, &Secret::new("again")).await.expect("put succeeds after delete");
    assert_eq!(get(store, one).await.as_deref(), Some("again"), "get after a second put");
    store.delete(one).await.expect("delete succeeds");
    store.delete(other).await.expect("delete succeeds");

    let ids: Vec<_> = (0..16).map(|_| OperationId::random()).collect();
    let put_and_get = ids.iter().map(|id| async move {
        store.put(*id, &Secret::new(id.to_string())).await.expect("concurrent puts succeed");
        get(store, *id).await
    });
    for (id, found) in ids.iter().zip(join_all(put_and_get).await) {
        assert_eq!(found, Some(id.to_string()), "concurrent calls were mixed");
        store.delete(*id).await.expect("delete succeeds");
    }
}

async fn get(store: &dyn SecretStore, id: OperationId) -> Option<String> {
    let secret = store.get(id).await.expect("get succeeds");
    secret.map(|secret| secret.expose().to_owned())
}
