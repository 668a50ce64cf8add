//! How many rows the calls of the operation store read, with 10,000 operations that have ended.

use std::time::Duration;

use dicom_export::sqlx::postgres::PgPoolOptions;
use dicom_export::sqlx::{self, PgPool};
use dicom_export::store::{OperationFilter, OperationStore, PostgresOperationStore};
use dicom_export::{OperationStatus, Timestamp};

use crate::postgres::Postgres;

const ENDED: i64 = 10_000;

/// Operations that have ended, one a minute until now, and five that have not: two of them have no lease. One in a hundred
/// has failed, and one in a thousand is in the partition `rare`.
const FILL: &str = r#"
    INSERT INTO dicom_export.operation
        (id, version, created, updated, status, partition, lease_expires, spec, checkpoint)
    SELECT gen_random_uuid(), 7, ticks, ticks, status, partition, lease_expires, '{}',
        jsonb_build_object(
            'version', 7, 'createdTime', at, 'status', status, 'lastUpdatedTime', at, 'errorHref', '',
            'context', jsonb_build_object('partition', partition),
            'position', '{ "scope": 0, "after": null, "found": 0, "batch": 0, "done": false }'::jsonb,
            'totals', '{ "exported": 0, "skipped": 0, "bytes": 0 }'::jsonb,
            'padding', repeat('x', 600)
        )
    FROM (
        SELECT *,
            CASE WHEN n <= $1 - 5 THEN CASE WHEN n % 100 = 0 THEN 'failed' ELSE 'completed' END
                 ELSE 'running' END AS status,
            CASE WHEN n % 1000 = 0 THEN 'rare' ELSE 'common' END AS partition,
            CASE WHEN n > $1 - 3 THEN $2 + 1000000000 END AS lease_expires,
            $2 - ($1 - n) * 600000000 AS ticks,
            to_char(now() AT TIME ZONE 'UTC' - ($1 - n) * interval '1 minute', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS at
        FROM generate_series(1, $1) AS n
    ) AS generated"#;

/// The rows and index entries of the table that were read so far, from PostgreSQL's statistics.
async fn rows_read(pool: &PgPool) -> i64 {
    sqlx::raw_sql("SELECT pg_stat_force_next_flush()").execute(pool).await.unwrap();
    sqlx::query_scalar(
        "SELECT (seq_tup_read + idx_tup_fetch
                 + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'operation'))::bigint
         FROM pg_stat_user_tables WHERE relname = 'operation'",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

#[tokio::test]
#[ignore = "needs PostgreSQL: tests/run.sh"]
async fn no_call_reads_the_operations_that_it_does_not_return() {
    let server = Postgres::start().await;
    // One connection, so that its statistics are complete.
    let pool = PgPoolOptions::new().max_connections(1).connect_with(server.options()).await.unwrap();
    let store = PostgresOperationStore::new(pool.clone());
    store.migrate().await.unwrap();
    let now = store.now().await.unwrap();
    let ticks = now.to_utc().timestamp() * 10_000_000;
    sqlx::query(FILL).bind(ENDED + 5).bind(ticks).execute(&pool).await.unwrap();
    sqlx::raw_sql("VACUUM ANALYZE dicom_export.operation").execute(&pool).await.unwrap();

    let ago = |minutes: i64| now.saturating_sub(Duration::from_secs(60 * minutes.unsigned_abs()));
    let first_page = store.list(None, 100).await.unwrap();
    let deep = {
        let all = OperationFilter::new(usize::MAX).ended_before(ago(ENDED / 2));
        store.query(&all).await.unwrap()[0].0
    };
    let page = OperationFilter::new(100);
    let failed = page.clone().status(OperationStatus::Failed);
    let searches = [
        ("a page", page.clone(), 100),
        ("a page in the middle", page.clone().after(deep), 100),
        ("the takeover scan", page.clone().unfinished_only().lease_lapsed_at(now), 2),
        ("unfinished operations", page.clone().unfinished_only(), 5),
        ("failed operations", failed.clone(), 100),
        ("the oldest failed operations", failed.after(deep), 49),
        ("a partition", page.clone().partition("rare"), 10),
        ("unfinished operations of a partition", page.clone().unfinished_only().partition("rare"), 0),
        ("expired operations", page.clone().ended_before(ago(ENDED - 5)), 10),
        (
            "expired operations if there is none",
            page.clone()
                .ended_before(Timestamp::try_from(now.to_utc() - chrono::TimeDelta::days(100)).unwrap()),
            0,
        ),
    ];
    assert_eq!(first_page.len(), 100);
    for (name, filter, expected) in searches {
        let before = rows_read(&pool).await;
        let found = store.query(&filter).await.unwrap().len();
        let read = rows_read(&pool).await - before;
        assert!((found as i64 - expected).abs() <= 1, "{name}: {found} operations were found");
        // An index entry and its row for each operation, and a few that the conditions exclude.
        assert!(read <= 2 * expected + 30, "{name}: {read} rows were read for {found} operations");

        let before = rows_read(&pool).await;
        assert_eq!(store.count(&filter).await.unwrap(), found, "{name}");
        let read = rows_read(&pool).await - before;
        assert!(read <= 2 * expected + 30, "{name}: {read} rows were read to count {found} operations");
    }
    let before = rows_read(&pool).await;
    store.list(Some(deep), 100).await.unwrap();
    assert!(rows_read(&pool).await - before <= 230);
}
