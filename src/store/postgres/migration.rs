//! Migrations: the versions of the tables.

use sqlx::{Connection, PgConnection, Postgres, Transaction};

use crate::error::{Error, ErrorKind, Result};
use crate::store::postgres::database::{Database, database_error};
use crate::store::postgres::names::Names;

/// The first key of the advisory locks that migrations take. The second one is a hash of the table's name.
const LOCK_CLASS: i32 = 0x6478_7074;

/// The statements of a migration.
pub(super) type Migration = fn(&Names) -> String;

/// Brings the table of a store to the newest version. The nth migration leads to version n. All run in one transaction, and
/// one process at a time.
///
/// # Errors
/// [`ErrorKind::Unsupported`] if a later version of this crate has migrated the table; otherwise as
/// [`database_error`].
pub(super) async fn migrate(database: &Database, migrations: &[Migration]) -> Result<()> {
    let mut connection = database.pool.acquire().await.map_err(database_error)?;
    let mut transaction = connection.begin().await.map_err(database_error)?;
    let stored = lock_version(&mut transaction, &database.names).await.map_err(database_error)?;
    let newest = migrations.len();
    let Some(pending) = usize::try_from(stored).ok().and_then(|stored| migrations.get(stored..)) else {
        let message =
            format!("the tables of the store have version {stored}, and this version knows {newest}");
        return Err(Error::new(ErrorKind::Unsupported, message));
    };
    for (migration, version) in pending.iter().zip(stored + 1..) {
        apply(&mut transaction, &database.names, *migration, version).await.map_err(database_error)?;
    }
    transaction.commit().await.map_err(database_error)
}

/// Waits for other migrations of the table, and returns the table's version.
async fn lock_version(transaction: &mut Transaction<'_, Postgres>, names: &Names) -> sqlx::Result<i32> {
    let connection: &mut PgConnection = transaction;
    sqlx::query("SELECT pg_advisory_xact_lock($1, hashtext($2))")
        .bind(LOCK_CLASS)
        .bind(names.quoted_table())
        .execute(&mut *connection)
        .await?;
    // `IF NOT EXISTS` requires the privilege to create a schema, even if it exists.
    let has_schema: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)")
        .bind(&names.schema)
        .fetch_one(&mut *connection)
        .await?;
    if !has_schema {
        sqlx::raw_sql(&format!("CREATE SCHEMA {}", names.quoted_schema())).execute(&mut *connection).await?;
    }
    let versions = names.quoted("_version");
    let create = format!(
        "CREATE TABLE IF NOT EXISTS {versions} (
            version integer PRIMARY KEY,
            migrated timestamptz NOT NULL DEFAULT now()
        )"
    );
    sqlx::raw_sql(&create).execute(&mut *connection).await?;
    let newest = format!("SELECT coalesce(max(version), 0) FROM {versions}");
    sqlx::query_scalar(&newest).fetch_one(connection).await
}

async fn apply(
    connection: &mut PgConnection,
    names: &Names,
    migration: Migration,
    version: i32,
) -> sqlx::Result<()> {
    sqlx::raw_sql(&migration(names)).execute(&mut *connection).await?;
    let insert = format!("INSERT INTO {} (version) VALUES ($1)", names.quoted("_version"));
    sqlx::query(&insert).bind(version).execute(connection).await?;
    Ok(())
}
