//! [`Database`]: calls to the database, and their errors.

use std::fmt;
use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::error::ErrorKind as SqlErrorKind;
use sqlx::{PgConnection, PgPool};
use tokio::time::timeout;

use crate::error::{Error, ErrorKind, Result};
use crate::store::postgres::names::Names;

/// How long a call may take, besides the wait for a connection.
const DEFAULT_CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A pool of connections, and the names of the tables.
#[derive(Clone)]
pub(super) struct Database {
    pub(super) pool: PgPool,
    pub(super) names: Names,
    pub(super) call_timeout: Duration,
}

impl Database {
    pub(super) fn new(pool: PgPool, schema: &str, table: &str) -> Self {
        let names = Names { schema: schema.to_owned(), table: table.to_owned() };
        Self { pool, names, call_timeout: DEFAULT_CALL_TIMEOUT }
    }

    /// Runs statements on a connection of the pool.
    ///
    /// # Errors
    /// As [`database_error`], and [`ErrorKind::Unavailable`] if the database does not respond in time.
    pub(super) async fn call<T, W>(&self, work: W) -> Result<T>
    where
        W: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, sqlx::Result<T>> + Send,
    {
        let mut connection = self.pool.acquire().await.map_err(database_error)?;
        match timeout(self.call_timeout, work(&mut connection)).await {
            Ok(outcome) => outcome.map_err(database_error),
            Err(_) => {
                // In the pool it would be tested first, which may take as long as TCP takes to give up.
                drop(connection.detach());
                Err(Error::new(ErrorKind::Unavailable, "the database does not respond"))
            }
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The pool's options contain the password.
        f.debug_struct("Database")
            .field("names", &self.names)
            .field("call_timeout", &self.call_timeout)
            .finish_non_exhaustive()
    }
}

/// Converts an error of the database. Whatever may pass is [`ErrorKind::Unavailable`].
pub(super) fn database_error(error: sqlx::Error) -> Error {
    let sqlx::Error::Database(database) = &error else {
        let (kind, message) = match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Protocol(_) => (ErrorKind::Unavailable, "the database cannot be reached"),
            _ => (ErrorKind::Internal, "a statement of the operation store is wrong"),
        };
        return Error::new(kind, message).with_source(error);
    };
    let code = database.code().unwrap_or_default().into_owned();
    let (kind, message) = match (code.get(..2).unwrap_or_default(), &*code) {
        // PostgreSQL, "PostgreSQL Error Codes": connections, resources, administrator, transactions that can be repeated.
        ("08" | "53" | "57" | "58", _) | (_, "40001" | "40P01" | "55P03" | "25006") => {
            (ErrorKind::Unavailable, "the database is not available")
        }
        ("54", _) => (ErrorKind::Unsupported, "the operation is too large for the database"),
        ("28", _) | (_, "42501") => (ErrorKind::Unauthorized, "the database refuses the credentials"),
        (_, "3F000" | "42P01" | "42703") => (
            ErrorKind::Internal,
            "the tables of the store do not exist or belong to another version: run its migrations",
        ),
        _ => (ErrorKind::Internal, "the database refuses a statement of the store"),
    };
    // The messages of these classes may contain values.
    let quotes_values = database.kind() != SqlErrorKind::Other || code.starts_with("22");
    let message_of_database = (!quotes_values).then(|| database.message().to_owned());
    Error::new(kind, message).with_source(DatabaseError { code, message: message_of_database })
}

/// An error that the database has returned, without stored values.
#[derive(Debug, thiserror::Error)]
struct DatabaseError {
    code: String,
    message: Option<String>,
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SQLSTATE {}", self.code)?;
        match &self.message {
            Some(message) => write!(f, ": {message}"),
            None => Ok(()),
        }
    }
}
