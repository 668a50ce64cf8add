//! [`PostgresSecretStore`]: encrypted credentials in a PostgreSQL database.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use chacha20poly1305::aead::{Aead, Generate, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use sqlx::PgPool;

use crate::error::{Error, ErrorKind, Result};
use crate::model::OperationId;
use crate::secret::Secret;
use crate::store::SecretStore;
use crate::store::postgres::database::Database;
use crate::store::postgres::migration::{Migration, migrate};
use crate::store::postgres::names::Names;
use crate::store::postgres::{DEFAULT_SCHEMA, uuid};

const MIGRATIONS: &[Migration] = &[create_table];

/// A key of 256 bits that encrypts credentials. It is erased when the last clone is dropped.
#[derive(Clone)]
pub struct SecretKey(XChaCha20Poly1305);

impl SecretKey {
    /// Creates a key from random bytes, for example from a key management service. A password is not a key.
    pub fn new(key: [u8; 32]) -> Self {
        Self(XChaCha20Poly1305::new(&key.into()))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey")
    }
}

/// The credentials of operations that have not ended, in a PostgreSQL database, encrypted with a key that the database does
/// not know. Clones share the pool. With it, any replica can take over an operation that needs credentials.
///
/// A credential is encrypted with XChaCha20-Poly1305 under a random nonce, and bound to its operation: a row that is copied
/// to another operation cannot be decrypted. The database, its backups and its log disclose when operations with
/// credentials run and about how long the credentials are, and nothing else. The database and the key together disclose
/// the credentials.
///
/// To replace the key, give every replica the new key with [`with_previous_key`](Self::with_previous_key) for the old one.
/// Once every operation that was started before has ended, remove the old one.
///
/// # Errors
/// As [`PostgresOperationStore`](crate::store::PostgresOperationStore). [`Unreadable`](ErrorKind::Unreadable) if a
/// credential was encrypted with another key or was changed.
///
/// ```no_run
/// use dicom_export::sqlx::PgPool;
/// use dicom_export::store::{PostgresOperationStore, PostgresSecretStore, SecretKey};
/// use dicom_export::{ExportEngine, MemorySource};
///
/// # async fn start(key: [u8; 32]) -> Result<(), Box<dyn std::error::Error>> {
/// let pool = PgPool::connect("postgres://exports@db.example/pacs").await?;
/// let operations = PostgresOperationStore::new(pool.clone());
/// let secrets = PostgresSecretStore::new(pool, SecretKey::new(key));
/// operations.migrate().await?;
/// secrets.migrate().await?;
/// let engine = ExportEngine::builder(MemorySource::new())
///     .operation_store(operations)
///     .secret_store(secrets)
///     .build()?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct PostgresSecretStore {
    database: Database,
    key: SecretKey,
    previous: Option<SecretKey>,
}

impl PostgresSecretStore {
    /// Creates a store on a pool of connections, whose credentials are encrypted with `key`.
    pub fn new(pool: PgPool, key: SecretKey) -> Self {
        Self { database: Database::new(pool, DEFAULT_SCHEMA, "secret"), key, previous: None }
    }

    /// Sets a key that credentials are decrypted with if they were not encrypted with the current one.
    #[must_use]
    pub fn with_previous_key(mut self, key: SecretKey) -> Self {
        self.previous = Some(key);
        self
    }

    /// Sets the schema of the tables. Default: `dicom_export`.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for an empty name, one with control characters, or one of more than 63 bytes.
    pub fn with_schema(mut self, schema: impl Into<String>) -> Result<Self> {
        self.database.names.schema = Names::check_schema(schema.into())?;
        Ok(self)
    }

    /// Sets the name of the table. A second table, for its versions, has the suffix `_version`. Default: `secret`.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for an empty name, one with control characters, or one of more than 52 bytes.
    pub fn with_table(mut self, table: impl Into<String>) -> Result<Self> {
        self.database.names.table = Names::check_table(table.into())?;
        Ok(self)
    }

    /// Sets how long a call may take, besides the wait for a connection. Default: 30 seconds.
    #[must_use]
    pub fn with_call_timeout(mut self, timeout: Duration) -> Self {
        self.database.call_timeout = timeout;
        self
    }

    /// Creates the schema and the table, or updates the table, as
    /// [`PostgresOperationStore::migrate`](crate::store::PostgresOperationStore::migrate) does.
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

    fn decrypt(&self, id: OperationId, nonce: &[u8], ciphertext: &[u8]) -> Result<Secret> {
        let damaged = || Error::new(ErrorKind::Unreadable, "the stored credential cannot be decrypted");
        let nonce = XNonce::try_from(nonce).map_err(|_| damaged())?;
        let associated = id.as_u128().to_be_bytes();
        let keys = [Some(&self.key), self.previous.as_ref()].into_iter().flatten();
        let mut decrypted =
            keys.filter_map(|key| key.0.decrypt(&nonce, Payload { msg: ciphertext, aad: &associated }).ok());
        let text = String::from_utf8(decrypted.next().ok_or_else(damaged)?).map_err(|_| damaged())?;
        Ok(Secret::new(text))
    }
}

/// Version 1 of the table.
fn create_table(names: &Names) -> String {
    format!(
        "CREATE TABLE {} (
            id uuid PRIMARY KEY,
            nonce bytea NOT NULL,
            ciphertext bytea NOT NULL
        )",
        names.quoted_table()
    )
}

#[async_trait]
impl SecretStore for PostgresSecretStore {
    async fn put(&self, id: OperationId, secret: &Secret) -> Result<()> {
        let nonce = XNonce::generate();
        let associated = id.as_u128().to_be_bytes();
        let message = Payload { msg: secret.expose().as_bytes(), aad: &associated };
        let ciphertext = self
            .key
            .0
            .encrypt(&nonce, message)
            .map_err(|_| Error::new(ErrorKind::Internal, "the credential cannot be encrypted"))?;
        let sql = format!(
            "INSERT INTO {} (id, nonce, ciphertext) VALUES ($1, $2, $3)
             ON CONFLICT (id) DO UPDATE SET nonce = excluded.nonce, ciphertext = excluded.ciphertext",
            self.table()
        );
        self.database
            .call(|connection| {
                Box::pin(async move {
                    let query = sqlx::query(&sql).bind(uuid(id)).bind(nonce.to_vec()).bind(ciphertext);
                    query.execute(connection).await
                })
            })
            .await?;
        Ok(())
    }

    async fn get(&self, id: OperationId) -> Result<Option<Secret>> {
        let sql = format!("SELECT nonce, ciphertext FROM {} WHERE id = $1", self.table());
        let row: Option<(Vec<u8>, Vec<u8>)> = self
            .database
            .call(|connection| {
                Box::pin(async move { sqlx::query_as(&sql).bind(uuid(id)).fetch_optional(connection).await })
            })
            .await?;
        row.map(|(nonce, ciphertext)| self.decrypt(id, &nonce, &ciphertext)).transpose()
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

impl fmt::Debug for PostgresSecretStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSecretStore").field("names", &self.database.names).finish_non_exhaustive()
    }
}
