//! Replicas whose clocks differ from the database's.

use std::time::Duration;

use dicom_export::sqlx::postgres::PgPoolOptions;
use dicom_export::sqlx::{self, PgPool};
use dicom_export::store::{OperationStore, PostgresOperationStore};
use dicom_export::{ErrorKind, ExportEngine, OperationStatus, Timestamp};
use tokio::time::{sleep, timeout};

use crate::outage::{Shared, archive, export_everything, gated_sink};
use crate::postgres::Postgres;

const LEASE: Duration = Duration::from_secs(3);

/// Connections whose database has another time than this process: PostgreSQL finds a function of this name in the schema
/// `skewed` first.
async fn skewed_pool(server: &Postgres, offset: &str) -> PgPool {
    let admin = server.pool().await;
    let function = format!(
        "DROP SCHEMA IF EXISTS skewed CASCADE;
         CREATE SCHEMA skewed;
         CREATE FUNCTION skewed.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
             AS $$ SELECT pg_catalog.clock_timestamp() + interval '{offset}' $$;"
    );
    sqlx::raw_sql(&function).execute(&admin).await.unwrap();
    let options = server.options().options([("search_path", "skewed,pg_catalog")]);
    PgPoolOptions::new().max_connections(8).connect_with(options).await.unwrap()
}

/// With the clock of a replica that is ahead of the database's, every lease has lapsed, and a running operation is taken over.
/// With one that is behind, the operations of a killed replica stay without a runner.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: tests/run.sh"]
async fn guarantee_9_leases_follow_the_clock_of_the_database() {
    let server = Postgres::start().await;
    let hour = chrono::TimeDelta::hours(1);
    for (offset, expected) in [("1 hour", hour), ("-1 hour", -hour)] {
        let store = PostgresOperationStore::new(skewed_pool(&server, offset).await);
        store.migrate().await.unwrap();
        let difference = store.now().await.unwrap().to_utc() - Timestamp::now().to_utc();
        assert!((difference - expected).abs() < chrono::TimeDelta::minutes(10), "{difference}");

        let (archive, sink) = (archive(500), gated_sink(100));
        let engine = || {
            ExportEngine::builder(std::sync::Arc::clone(&archive))
                .destination("shared", Shared(sink.clone()))
                .operation_store(store.clone())
                .lease_duration(LEASE)
                .takeover_interval(Some(Duration::from_millis(100)))
                .build()
                .unwrap()
        };
        let (first, second) = (engine(), engine());
        let operation = first.create(export_everything()).await.unwrap();
        let id = operation.operation_id;
        // A run that is dropped is a process that is killed.
        let running = {
            let first = first.clone();
            tokio::spawn(async move { first.run(id).await })
        };
        let holder = async || store.load(id).await.unwrap().lease.map(|lease| lease.holder);
        while holder().await.is_none() {
            sleep(Duration::from_millis(10)).await;
        }
        let (first_holder, deadline) = (holder().await, store.now().await.unwrap().saturating_add(2 * LEASE));
        // The operation is held, for longer than a lease.
        while store.now().await.unwrap() < deadline {
            assert_eq!(second.resume_all().await.unwrap(), []);
            assert_eq!(second.resume(id, None).await.unwrap_err().kind(), ErrorKind::Conflict);
            assert_eq!(holder().await, first_holder, "a running operation was taken over with {offset}");
            sleep(Duration::from_millis(100)).await;
        }
        running.abort();
        sink.hook.0.add_permits(10_000);
        let ended = timeout(10 * LEASE, second.wait(id)).await.expect("the lease lapses").unwrap();
        assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 500), "{offset}");
        second.shutdown(Duration::ZERO).await;
        first.shutdown(Duration::ZERO).await;
    }
}
