//! Migrations: the versions of the tables.

use sqlx::{Connection, Executor, PgConnection, Row};

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
async fn lock_version(connection: &mut PgConnection, names: &Names) -> sqlx::Result<i32> {
    let lock = sqlx::query("SELECT pg_advisory_xact_lock($1, hashtext($2))");
    connection.execute(lock.bind(LOCK_CLASS).bind(names.quoted_table())).await?;
    // `IF NOT EXISTS` requires the privilege to create a schema, even if it exists.
    let has_schema = sqlx::query("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)");
    let has_schema = connection.fetch_one(has_schema.bind(names.schema.clone())).await?;
    if !has_schema.try_get::<bool, _>(0)? {
        connection.execute(&*format!("CREATE SCHEMA {}", names.quoted_schema())).await?;
    }
    let versions = names.quoted("_version");
    let create = format!(
        "CREATE TABLE IF NOT EXISTS {versions} (
            version integer PRIMARY KEY,
            migrated timestamptz NOT NULL DEFAULT now()
        )"
    );
    connection.execute(&*create).await?;
    let newest = format!("SELECT coalesce(max(version), 0) FROM {versions}");
    connection.fetch_one(&*newest).await?.try_get(0)
}

async fn apply(
    connection: &mut PgConnection,
    names: &Names,
    migration: Migration,
    version: i32,
) -> sqlx::Result<()> {
    connection.execute(&*migration(names)).await?;
    let insert = format!("INSERT INTO {} (version) VALUES ({version})", names.quoted("_version"));
    connection.execute(&*insert).await?;
    Ok(())
}
