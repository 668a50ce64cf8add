//! `--postgres`: operations in a database.

use std::error::Error;

use dicom_export::ExportEngineBuilder;

type BoxError = Box<dyn Error>;

#[cfg(feature = "postgres")]
pub(crate) async fn keep_operations(
    engine: ExportEngineBuilder,
    url: &str,
) -> Result<ExportEngineBuilder, BoxError> {
    use std::time::Duration;

    use dicom_export::sqlx::postgres::PgPoolOptions;
    use dicom_export::store::{PostgresOperationStore, PostgresSecretStore};

    // The engine retries a call that gets no connection.
    let pool = PgPoolOptions::new().acquire_timeout(Duration::from_secs(5)).connect(url).await?;
    let operations = PostgresOperationStore::new(pool.clone());
    operations.migrate().await?;
    let engine = engine.operation_store(operations);
    let Some(key) = secret_key()? else {
        tracing::warn!("credentials are kept in memory: EXPORT_SECRET_KEY is not set");
        return Ok(engine);
    };
    let secrets = PostgresSecretStore::new(pool, key);
    secrets.migrate().await?;
    Ok(engine.secret_store(secrets))
}

/// The key in `EXPORT_SECRET_KEY`.
#[cfg(feature = "postgres")]
fn secret_key() -> Result<Option<dicom_export::store::SecretKey>, BoxError> {
    let Some(text) = std::env::var_os("EXPORT_SECRET_KEY") else { return Ok(None) };
    let digits = text.to_str().map(dicom_export::Secret::new).filter(|text| text.expose().len() == 64);
    let number = |half: Option<&str>| u128::from_str_radix(half?, 16).ok().map(u128::to_be_bytes);
    let halves = digits.and_then(|digits| {
        let digits = digits.expose();
        Some([number(digits.get(..32))?, number(digits.get(32..))?])
    });
    let [first, second] = halves.ok_or("EXPORT_SECRET_KEY must have 64 hexadecimal digits")?;
    let mut key = [0; 32];
    key[..16].copy_from_slice(&first);
    key[16..].copy_from_slice(&second);
    Ok(Some(dicom_export::store::SecretKey::new(key)))
}

#[cfg(not(feature = "postgres"))]
pub(crate) async fn keep_operations(
    _: ExportEngineBuilder,
    _: &str,
) -> Result<ExportEngineBuilder, BoxError> {
    Err("--postgres requires a build with --features postgres".into())
}
