//! The conformance suites, migrations, and what a damaged row, a wrong key or a missing table leads to.

use std::error::Error as _;
use std::time::Duration;

use dicom_export::sqlx::{self, PgPool};
use dicom_export::store::{
    Checkpoint, OperationFilter, OperationStore, PostgresOperationStore, PostgresSecretStore, SecretKey,
    SecretStore,
};
use dicom_export::testing::{secret_store_conformance, store_conformance};
use dicom_export::{ErrorKind, OperationId, OperationSpec, Secret, Timestamp};
use serde_json::json;

use crate::postgres::Postgres;

pub(crate) fn spec(number: u128) -> OperationSpec {
    serde_json::from_value(json!({
        "id": OperationId::from_u128(number),
        "createdTime": Timestamp::now(),
        "source": null,
        "errorHref": "memory:///errors.log",
        "destination": { "type": "memory", "location": "", "settings": null, "hasSecret": false },
    }))
    .unwrap()
}

async fn execute(pool: &PgPool, sql: &str) {
    sqlx::raw_sql(sql).execute(pool).await.unwrap();
}

#[tokio::test]
#[ignore = "needs PostgreSQL: tests/run.sh"]
async fn the_operation_store_passes_the_conformance_suite_under_any_name() {
    let server = Postgres::start().await;
    let pool = server.pool().await;
    let default = PostgresOperationStore::new(pool.clone());
    let odd = default.clone().with_schema("A \"schema\"").unwrap().with_table("Tables; DROP").unwrap();
    // In the same schema.
    let second = odd.clone().with_table("operation").unwrap();
    for store in [default, odd, second] {
        // Replicas that start at once.
        let migrations = (0..4).map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.migrate().await })
        });
        for migrated in futures::future::join_all(migrations).await {
            migrated.unwrap().unwrap();
        }
        store_conformance(&store).await;
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: tests/run.sh"]
async fn the_secret_store_passes_the_conformance_suite_and_stores_no_plain_text() {
    let server = Postgres::start().await;
    let pool = server.pool().await;
    let store = PostgresSecretStore::new(pool.clone(), SecretKey::new([7; 32]));
    store.migrate().await.unwrap();
    secret_store_conformance(&store).await;

    let [one, other] = [1, 2].map(OperationId::from_u128);
    store.put(one, &Secret::new("sig=hunter2")).await.unwrap();
    store.put(other, &Secret::new("sig=hunter3")).await.unwrap();
    let rows: Vec<(Vec<u8>, Vec<u8>)> =
        sqlx::query_as("SELECT nonce, ciphertext FROM dicom_export.secret").fetch_all(&pool).await.unwrap();
    assert_eq!(rows.len(), 2);
    for (nonce, ciphertext) in &rows {
        assert!(!ciphertext.windows(4).any(|window| window == b"sig="));
        assert!(nonce.len() == 24 && rows[0].0 != rows[1].0, "a nonce is used twice");
    }
    assert!(!format!("{store:?}").contains("7, 7"));

    // A new key decrypts old secrets as long as the old one is known.
    let rotated = PostgresSecretStore::new(pool.clone(), SecretKey::new([8; 32]));
    assert_eq!(rotated.get(one).await.unwrap_err().kind(), ErrorKind::Unreadable);
    let rotated = rotated.with_previous_key(SecretKey::new([7; 32]));
    assert_eq!(rotated.get(one).await.unwrap().unwrap().expose(), "sig=hunter2");
    rotated.put(one, &Secret::new("sig=hunter4")).await.unwrap();
    assert_eq!(store.get(one).await.unwrap_err().kind(), ErrorKind::Unreadable);

    // A secret cannot be given to another operation.
    execute(
        &pool,
        "UPDATE dicom_export.secret AS target SET nonce = source.nonce, ciphertext = source.ciphertext
         FROM dicom_export.secret AS source WHERE target.id <> source.id",
    )
    .await;
    assert_eq!(store.get(one).await.unwrap_err().kind(), ErrorKind::Unreadable);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: tests/run.sh"]
async fn tables_of_another_version_are_refused() {
    let server = Postgres::start().await;
    let pool = server.pool().await;
    let store = PostgresOperationStore::new(pool.clone());
    let missing = store.load(OperationId::random()).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Internal);
    assert!(missing.message().contains("migrations"), "{missing}");
    assert!(missing.source().unwrap().to_string().contains("42P01"));
    store.migrate().await.unwrap();
    store.migrate().await.unwrap();
    execute(&pool, "INSERT INTO dicom_export.operation_version (version) VALUES (99)").await;
    let refused = store.migrate().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert!(refused.message().contains("99"), "{refused}");

    // A server's role that may only use the tables.
    execute(
        &pool,
        "CREATE ROLE server LOGIN;
         GRANT USAGE ON SCHEMA dicom_export TO server;
         GRANT SELECT, INSERT, UPDATE, DELETE ON dicom_export.operation TO server;
         DELETE FROM dicom_export.operation_version WHERE version = 99;",
    )
    .await;
    let restricted = PgPool::connect_with(server.options().username("server")).await.unwrap();
    let restricted = PostgresOperationStore::new(restricted);
    store_conformance(&restricted).await;
    assert_eq!(restricted.migrate().await.unwrap_err().kind(), ErrorKind::Unauthorized);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: tests/run.sh"]
async fn guarantee_9_a_damaged_row_affects_its_operation_only() {
    let server = Postgres::start().await;
    let pool = server.pool().await;
    let store = PostgresOperationStore::new(pool.clone());
    store.migrate().await.unwrap();
    for number in 0..10 {
        let spec = spec(number);
        store.create(&spec, &Checkpoint::first(spec.created_time)).await.unwrap();
    }
    let damage = |number: u128, json: &str| {
        let id = OperationId::from_u128(number);
        format!("UPDATE dicom_export.operation SET checkpoint = '{json}' WHERE id = '{id}'")
    };
    execute(&pool, &damage(8, "{}")).await;
    execute(&pool, &damage(7, r#"{ "format": 99 }"#)).await;
    let load = async |number| store.load(OperationId::from_u128(number)).await.unwrap_err().kind();
    assert_eq!((load(8).await, load(7).await), (ErrorKind::Unreadable, ErrorKind::Unsupported));
    // The pages of a query are full in spite of the rows that are skipped.
    let (mut found, mut filter) = (Vec::new(), OperationFilter::new(3).unfinished_only());
    loop {
        let page = store.query(&filter).await.unwrap();
        found.extend(page.iter().map(|(key, _)| key.id.as_u128()));
        match page.last() {
            Some((last, _)) if page.len() == 3 => filter = filter.after(*last),
            _ => break,
        }
    }
    assert_eq!(found, [9, 6, 5, 4, 3, 2, 1, 0]);
    assert_eq!(store.list(None, 100).await.unwrap().len(), 10);
    for number in 0..10 {
        store.delete(OperationId::from_u128(number)).await.unwrap();
    }
    assert_eq!(store.list(None, 100).await.unwrap(), []);
}

/// A database that accepts connections and does not respond must not hold a caller.
#[tokio::test]
#[ignore = "needs PostgreSQL: tests/run.sh"]
async fn a_call_ends_although_the_database_hangs() {
    let server = Postgres::start().await;
    let pool = server.pool().await;
    let store = PostgresOperationStore::new(pool.clone()).with_call_timeout(Duration::from_millis(500));
    store.migrate().await.unwrap();
    let spec = spec(1);
    store.create(&spec, &Checkpoint::first(spec.created_time)).await.unwrap();
    let mut blocker = pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE dicom_export.operation").execute(&mut *blocker).await.unwrap();
    let hanging = (0..20).map(|_| store.load(spec.id));
    for outcome in futures::future::join_all(hanging).await {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    blocker.rollback().await.unwrap();
    assert_eq!(store.load(spec.id).await.unwrap().version, 1);
}
