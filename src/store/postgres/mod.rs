//! [`PostgresOperationStore`] and [`PostgresSecretStore`]: operations and credentials in a PostgreSQL database.

mod database;
mod migration;
mod names;
mod secrets;
mod statement;
mod text;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::DateTime;
use sqlx::PgPool;
use uuid::Uuid;

use self::database::Database;
use self::migration::{Migration, migrate};
use self::names::Names;
pub use self::secrets::{PostgresSecretStore, SecretKey};
use self::statement::{END_PENDING, UNFINISHED, key, search, ticks};
use self::text::{escape, escape_json, unescape_json};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Checkpoint, OperationId, OperationKey, OperationSpec, Timestamp};
use crate::store::record::{decode, encode};
use crate::store::{OperationFilter, OperationStore, log_skipped};

/// The schema of the tables, unless another one is set.
const DEFAULT_SCHEMA: &str = "dicom_export";

const MIGRATIONS: &[Migration] = &[create_table];

/// Operations in a PostgreSQL database, for several replicas of a server. Clones share the pool.
///
/// [`migrate`](Self::migrate) creates and updates the table. Specs and checkpoints are `jsonb` documents; what operations
/// are searched by is in columns with indexes, so that a page of a listing, the search for operations to take over, and the
/// deletion of expired ones read as many rows as they return. Leases are compared with the clock of the database, so the
/// clocks of the replicas need not agree.
///
/// The database contains no credentials. Of patients' data it contains what requests name: identifiers, and the cursors of
/// the source.
///
/// # Errors
/// [`Unavailable`](ErrorKind::Unavailable) if the database cannot be reached, does not respond in time, or restarts;
/// [`Unauthorized`](ErrorKind::Unauthorized) if it refuses the credentials or a privilege is missing;
/// [`Internal`](ErrorKind::Internal) if the tables are missing.
///
/// ```no_run
/// use dicom_export::sqlx::PgPool;
/// use dicom_export::store::PostgresOperationStore;
/// use dicom_export::{ExportEngine, MemorySource};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = PgPool::connect("postgres://exports@db.example/pacs").await?;
/// let store = PostgresOperationStore::new(pool).with_schema("exports")?;
/// store.migrate().await?;
/// let engine = ExportEngine::builder(MemorySource::new()).operation_store(store).build()?;
/// // Starts the search for operations to take over.
/// engine.resume_all().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct PostgresOperationStore {
    database: Database,
}

impl PostgresOperationStore {
    /// Creates a store on a pool of connections, which the host may use for other purposes too. An engine uses one
    /// connection per call; five are enough for hundreds of operations.
    ///
    /// Calls wait for a connection for the pool's `acquire_timeout`.
    pub fn new(pool: PgPool) -> Self {
        Self { database: Database::new(pool, DEFAULT_SCHEMA, "operation") }
    }

    /// Sets the schema of the tables. Default: `dicom_export`.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for an empty name, one with control characters, or one of more than 63 bytes.
    pub fn with_schema(mut self, schema: impl Into<String>) -> Result<Self> {
        self.database.names.schema = Names::check_schema(schema.into())?;
        Ok(self)
    }

    /// Sets the name of the table. A second table, for its versions, has the suffix `_version`. Default: `operation`.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for an empty name, one with control characters, or one of more than 52 bytes.
    pub fn with_table(mut self, table: impl Into<String>) -> Result<Self> {
        self.database.names.table = Names::check_table(table.into())?;
        Ok(self)
    }

    /// Sets how long a call may take, besides the wait for a connection. After that it fails with
    /// [`Unavailable`](ErrorKind::Unavailable), and its connection is closed. Default: 30 seconds.
    #[must_use]
    pub fn with_call_timeout(mut self, timeout: Duration) -> Self {
        self.database.call_timeout = timeout;
        self
    }

    /// Creates the schema and the table, or updates the table to this version of the crate, in one transaction.
    ///
    /// Call it when the server starts, on every replica: one migrates, the others wait. It needs the privilege to create
    /// the schema, or to create tables in it; a deployment can also call it once with another role, and grant the server's
    /// role `SELECT`, `INSERT`, `UPDATE` and `DELETE` on the table.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) if a later version of this crate has migrated the table; otherwise see the
    /// type.
    pub async fn migrate(&self) -> Result<()> {
        migrate(&self.database, MIGRATIONS).await
    }

    fn table(&self) -> String {
        self.database.names.quoted_table()
    }

    /// Loads a column of an operation that contains a document, with the operation's version.
    async fn load_document(&self, id: OperationId, column: &str) -> Result<(i64, String)> {
        let sql = format!("SELECT version, {column}::text FROM {} WHERE id = $1", self.table());
        let row: Option<(i64, String)> = self
            .database
            .call(|connection| {
                Box::pin(async move { sqlx::query_as(&sql).bind(uuid(id)).fetch_optional(connection).await })
            })
            .await?;
        let (version, json) = row.ok_or_else(not_found)?;
        Ok((version, unescape_json(json)))
    }
}

/// Version 1 of the table.
///
/// `created`, `updated` and `lease_expires` are units of 100 ns since 1970. A save that only advances an operation changes no
/// indexed column, so PostgreSQL updates the row in place if its page has room (`fillfactor`).
fn create_table(names: &Names) -> String {
    let table = names.quoted_table();
    let [listed, unfinished, pending, partition, status] =
        ["_listed", "_unfinished", "_pending", "_partition", "_status"]
            .map(|suffix| names.quoted_index(suffix));
    format!(
        "CREATE TABLE {table} (
            id uuid PRIMARY KEY,
            version bigint NOT NULL,
            created bigint NOT NULL,
            updated bigint NOT NULL,
            status text NOT NULL,
            partition text,
            lease_expires bigint,
            end_pending boolean NOT NULL DEFAULT false,
            spec jsonb NOT NULL,
            checkpoint jsonb NOT NULL
        ) WITH (fillfactor = 50);
        CREATE INDEX {listed} ON {table} (created, id);
        CREATE INDEX {unfinished} ON {table} (created, id) WHERE {UNFINISHED};
        CREATE INDEX {pending} ON {table} (created, id) WHERE {END_PENDING};
        CREATE INDEX {partition} ON {table} (partition, created, id);
        CREATE INDEX {status} ON {table} (status, created, id);"
    )
}

#[async_trait]
impl OperationStore for PostgresOperationStore {
    async fn create(&self, spec: &OperationSpec, checkpoint: &Checkpoint) -> Result<()> {
        let sql = format!(
            "INSERT INTO {}
                (id, version, created, updated, status, partition, lease_expires, end_pending, spec, checkpoint)
             VALUES ($1, 1, $2, $3, $4, $5, $6, $7, $8::jsonb, $9::jsonb) ON CONFLICT (id) DO NOTHING",
            self.table()
        );
        let columns = Columns::of(checkpoint);
        let (id, created, spec) = (uuid(spec.id), ticks(spec.created_time), document(spec)?);
        let checkpoint = document(&Checkpoint { version: 1, ..checkpoint.clone() })?;
        let inserted = self
            .database
            .call(|connection| {
                Box::pin(async move {
                    let query = sqlx::query(&sql).bind(id).bind(created).bind(columns.updated);
                    let query =
                        query.bind(columns.status).bind(columns.partition).bind(columns.lease_expires);
                    let query = query.bind(columns.end_pending).bind(spec).bind(checkpoint);
                    query.execute(connection).await
                })
            })
            .await?;
        match inserted.rows_affected() {
            0 => Err(Error::new(ErrorKind::Conflict, "the operation already exists")),
            _ => Ok(()),
        }
    }

    async fn spec(&self, id: OperationId) -> Result<Arc<OperationSpec>> {
        let (_, json) = self.load_document(id, "spec").await?;
        decode(json.as_bytes()).map(Arc::new)
    }

    async fn load(&self, id: OperationId) -> Result<Checkpoint> {
        let (version, json) = self.load_document(id, "checkpoint").await?;
        Ok(Checkpoint { version: version.cast_unsigned(), ..decode(json.as_bytes())? })
    }

    async fn save(&self, id: OperationId, checkpoint: &Checkpoint) -> Result<u64> {
        // One row, also if nothing was updated, so that a missing operation differs from a conflict.
        let table = self.table();
        let sql = format!(
            "WITH saved AS (
                UPDATE {table} SET version = version + 1, updated = $3, status = $4, partition = $5,
                    lease_expires = $6, end_pending = $7, checkpoint = $8::jsonb
                WHERE id = $1 AND version = $2 RETURNING version
             )
             SELECT (SELECT version FROM saved), EXISTS (SELECT FROM {table} WHERE id = $1)"
        );
        let columns = Columns::of(checkpoint);
        // A version that is too large for the column is stored nowhere.
        let expected = i64::try_from(checkpoint.version).unwrap_or(-1);
        let next = Checkpoint { version: checkpoint.version.saturating_add(1), ..checkpoint.clone() };
        let json = document(&next)?;
        let (version, exists): (Option<i64>, bool) = self
            .database
            .call(|connection| {
                Box::pin(async move {
                    let query = sqlx::query_as(&sql).bind(uuid(id)).bind(expected).bind(columns.updated);
                    let query =
                        query.bind(columns.status).bind(columns.partition).bind(columns.lease_expires);
                    query.bind(columns.end_pending).bind(json).fetch_one(connection).await
                })
            })
            .await?;
        match (version, exists) {
            (Some(version), _) => Ok(version.cast_unsigned()),
            (None, true) => Err(Error::new(ErrorKind::Conflict, "the operation was changed concurrently")),
            (None, false) => Err(not_found()),
        }
    }

    async fn list(&self, after: Option<OperationKey>, limit: usize) -> Result<Vec<OperationKey>> {
        let (mut keys, mut after) = (Vec::new(), after.map(position));
        let all = OperationFilter::new(limit);
        loop {
            let requested = limit - keys.len();
            let mut search = search("SELECT created, id", &self.database.names, &all, after, requested);
            let rows: Vec<(i64, Uuid)> = self
                .database
                .call(|connection| {
                    Box::pin(async move { search.build_query_as().fetch_all(connection).await })
                })
                .await?;
            let is_last = rows.len() < requested;
            for (created, id) in rows {
                after = Some((created, id.as_u128()));
                match key((created, id.as_u128())) {
                    Ok(key) => keys.push(key),
                    Err(error) => log_skipped(OperationId::from_u128(id.as_u128()), &error),
                }
            }
            if is_last || keys.len() >= limit {
                return Ok(keys);
            }
        }
    }

    async fn query(&self, filter: &OperationFilter) -> Result<Vec<(OperationKey, Checkpoint)>> {
        const HEAD: &str = "SELECT created, id, version, checkpoint::text";
        let (mut found, mut after) = (Vec::new(), filter.after.map(position));
        loop {
            let requested = filter.limit - found.len();
            let mut search = search(HEAD, &self.database.names, filter, after, requested);
            let rows: Vec<(i64, Uuid, i64, String)> = self
                .database
                .call(|connection| {
                    Box::pin(async move { search.build_query_as().fetch_all(connection).await })
                })
                .await?;
            let is_last = rows.len() < requested;
            for (created, id, version, json) in rows {
                let row = (created, id.as_u128());
                after = Some(row);
                let decoded = key(row).and_then(|key| Ok((key, decode(unescape_json(json).as_bytes())?)));
                match decoded {
                    Ok((key, checkpoint)) => {
                        found.push((key, Checkpoint { version: version.cast_unsigned(), ..checkpoint }));
                    }
                    Err(error) => log_skipped(OperationId::from_u128(row.1), &error),
                }
            }
            if is_last || found.len() >= filter.limit {
                return Ok(found);
            }
        }
    }

    async fn count(&self, filter: &OperationFilter) -> Result<usize> {
        const HEAD: &str = "SELECT count(*) FROM (SELECT";
        let after = filter.after.map(position);
        let mut count = search(HEAD, &self.database.names, filter, after, filter.limit);
        count.push(") AS matching");
        let count: i64 = self
            .database
            .call(|connection| {
                Box::pin(async move { count.build_query_scalar().fetch_one(connection).await })
            })
            .await?;
        Ok(usize::try_from(count).unwrap_or_default())
    }

    async fn now(&self) -> Result<Timestamp> {
        // Not `now()`, which is the time of the transaction's start.
        let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
        let microseconds: i64 = self
            .database
            .call(|connection| Box::pin(async { sqlx::query_scalar(sql).fetch_one(connection).await }))
            .await?;
        let time = DateTime::from_timestamp_micros(microseconds).and_then(|time| time.try_into().ok());
        time.ok_or_else(|| Error::new(ErrorKind::Internal, "the clock of the database is wrong"))
    }

    async fn delete(&self, id: OperationId) -> Result<()> {
        let sql = format!("DELETE FROM {} WHERE id = $1", self.table());
        self.database
            .call(|connection| {
                Box::pin(async move { sqlx::query(&sql).bind(uuid(id)).execute(connection).await })
            })
            .await?;
        Ok(())
    }
}

impl fmt::Debug for PostgresOperationStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOperationStore").field("names", &self.database.names).finish_non_exhaustive()
    }
}

/// What operations are searched by, besides the creation time and the id.
struct Columns {
    updated: i64,
    status: &'static str,
    partition: Option<String>,
    lease_expires: Option<i64>,
    end_pending: bool,
}

impl Columns {
    fn of(checkpoint: &Checkpoint) -> Self {
        Self {
            updated: ticks(checkpoint.last_updated_time),
            status: checkpoint.status.as_str(),
            partition: checkpoint.context.partition.as_deref().map(|name| escape(name).into_owned()),
            lease_expires: checkpoint.lease.as_ref().map(|lease| ticks(lease.expires)),
            end_pending: checkpoint.end_pending,
        }
    }
}

fn uuid(id: OperationId) -> Uuid {
    Uuid::from_u128(id.as_u128())
}

/// The position of an operation in the order of the listing.
fn position(key: OperationKey) -> (i64, u128) {
    (ticks(key.created_time), key.id.as_u128())
}

/// A record as a document that PostgreSQL can store.
fn document(record: &impl serde::Serialize) -> Result<String> {
    encode(record).map(escape_json)
}

fn not_found() -> Error {
    Error::new(ErrorKind::NotFound, "the operation does not exist")
}
