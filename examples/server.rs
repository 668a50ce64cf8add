//! A server with the export API for a folder of DICOM files, a DICOMweb server or a bucket.
//!
//! ```text
//! cargo run --release --features http --example server -- --source DIR|URL --listen 127.0.0.1:8080 [--state FILE | --postgres URL] [--development] [--base-url URL] [--restate INGRESS_URL --restate-admin ADMIN_URL] [--events URL] [--metrics]
//! ```
//!
//! - With `--features http,dicomweb`, `--source http(s)://…/dicom-web` is a DICOMweb server. Its credentials are read from
//!   the environment: `DICOMWEB_USER` and `DICOMWEB_PASSWORD`, or `DICOMWEB_TOKEN`.
//! - With `--features http,redb`, `--state FILE` keeps operations in a file. Operations that have not ended when the server
//!   stops or crashes are resumed when it starts again.
//! - With `--features http,postgres`, `--postgres URL` keeps operations in a PostgreSQL database that several replicas of the
//!   server share: an operation of a replica that stops or crashes is taken over by another one. `PGPASSWORD` and
//!   `~/.pgpass` provide a password that is not in the URL. `EXPORT_SECRET_KEY`, 64 hexadecimal digits, is the key with which
//!   credentials are encrypted in the database; without it they are kept in memory, and an operation that needs one is
//!   not taken over but fails with `credentialsNeeded`.
//! - With `--features http,restate`, `--restate` and `--restate-admin` run exports on the workers of a Restate server
//!   (example `restate_worker`) instead of in this process.
//! - With `--features http,s3`, `--source s3://BUCKET/PREFIX` is a bucket, and requests may name the destination type `s3`. The
//!   variable `AWS_ENDPOINT_URL` allows the endpoint of a compatible store. With `--features http,gcs`, the same holds for
//!   `gs://BUCKET/PREFIX` and the destination type `googlecloudstorage`.
//! - `--events URL` sends a signed CloudEvent to a URL when an operation ends, until it is accepted. The environment variable
//!   `EVENTS_KEY` contains the key that is shared with the receiver, in base64.
//! - With `--features http,metrics`, `--metrics` serves metrics for Prometheus at `/metrics`.
//! - `--development` permits the storage emulator (Azurite) and S3 stores on this machine as destinations.
//!
//! `RUST_LOG` sets the log filter; the log is written to stderr. On SIGTERM or Ctrl-C the server rejects new exports,
//! finishes the batches in flight, and exits.

use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use dicom_export::http::{self, ApiDescription, BaseUrl, HttpOptions};
use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobProvider};
use dicom_export::{ExportDestination, ExportEngine, ExportService};
use tokio::net::TcpListener;

#[path = "server/cloud_events.rs"]
pub mod cloud_events;
#[path = "export/gcs.rs"]
mod gcs;
#[path = "server/logging.rs"]
mod logging;
#[path = "server/metrics.rs"]
mod metrics;
#[path = "server/postgres.rs"]
mod postgres;
#[path = "server/restate.rs"]
mod restate;
#[path = "export/s3.rs"]
mod s3;
#[path = "server/serve.rs"]
pub mod serve;
#[path = "server/shutdown.rs"]
mod shutdown;
#[path = "export/source.rs"]
mod source;
#[path = "export/state.rs"]
mod state;

/// How long batches in flight may take when the server stops.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(30);

/// How long connections may take to close after that.
const CONNECTION_GRACE: Duration = Duration::from_secs(5);

const USAGE: &str = "usage: server --source DIR|URL --listen ADDR [--state FILE | --postgres URL] [--development] \
                     [--base-url URL] [--restate INGRESS_URL --restate-admin ADMIN_URL] [--events URL] [--metrics]";

/// The command line.
#[derive(Debug)]
pub struct Settings {
    /// The folder of DICOM files, or the URL of a DICOMweb server or a bucket.
    pub source: PathBuf,
    /// The address to listen on; port 0 selects a free port.
    pub listen: SocketAddr,
    /// The file that keeps operations; without one they are lost when the process ends.
    pub state: Option<PathBuf>,
    /// The database that keeps operations.
    pub postgres: Option<String>,
    /// Whether the storage emulator and stores on this machine are permitted as destinations.
    pub development: bool,
    /// The beginning of links in responses.
    pub base_url: BaseUrl,
    /// The URLs of Restate's ingress and admin API; without them exports run in this process.
    pub restate: Option<(String, String)>,
    /// Where the ends of operations are sent.
    pub events: Option<cloud_events::CloudEvents>,
    /// Whether `/metrics` is served, with the feature `metrics`.
    pub metrics: bool,
}

impl Settings {
    fn from_command_line() -> Result<Self, Box<dyn Error>> {
        use lexopt::prelude::*;
        let (mut source, mut listen, mut state, mut postgres) = (None, None, None, None);
        let (mut development, mut metrics, mut base_url) = (false, false, BaseUrl::Request);
        let (mut restate, mut restate_admin, mut events) = (None, None, None);
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("source") => source = Some(PathBuf::from(parser.value()?)),
                Long("listen") => listen = Some(parser.value()?.parse()?),
                Long("state") => state = Some(PathBuf::from(parser.value()?)),
                Long("postgres") => postgres = Some(parser.value()?.string()?),
                Long("development") => development = true,
                Long("restate") => restate = Some(parser.value()?.string()?),
                Long("restate-admin") => restate_admin = Some(parser.value()?.string()?),
                Long("events") => {
                    let url = parser.value()?.string()?;
                    events = Some(cloud_events::CloudEvents::with_key_from_env(&url, "urn:dicom-export")?);
                }
                Long("metrics") => metrics = true,
                Long("base-url") => base_url = BaseUrl::configured(&parser.value()?.string()?)?,
                Short('h') | Long("help") => {
                    eprintln!("{USAGE}");
                    std::process::exit(0);
                }
                _ => return Err(argument.unexpected().into()),
            }
        }
        let source = source.ok_or("--source is missing")?;
        let listen = listen.ok_or("--listen is missing")?;
        let restate = match (restate, restate_admin) {
            (Some(ingress), Some(admin)) => Some((ingress, admin)),
            (None, None) => None,
            _ => return Err("--restate and --restate-admin must be used together".into()),
        };
        if [restate.is_some(), state.is_some(), postgres.is_some()].into_iter().filter(|set| *set).count() > 1
        {
            return Err("--state, --postgres and --restate cannot be combined".into());
        }
        Ok(Self { source, listen, state, postgres, development, base_url, restate, events, metrics })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    logging::to_stderr("info");
    let settings = Settings::from_command_line().inspect_err(|_| eprintln!("{USAGE}"))?;
    let listener = TcpListener::bind(settings.listen).await?;
    eprintln!("listening on http://{}", listener.local_addr()?);
    serve(settings, listener, shutdown::signal()).await
}

/// Serves until `stop` completes and the operations have stopped.
pub async fn serve(
    settings: Settings,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Box<dyn Error>> {
    let policy = match settings.development {
        true => AzureBlobPolicy::development(),
        false => AzureBlobPolicy::new(),
    };
    let options = source::SourceOptions { development: settings.development, ..Default::default() };
    let source = source::Source::open(&settings.source, options)?;
    let mut engine = ExportEngine::builder(source.instances())
        .destination(ExportDestination::AZURE_BLOB, AzureBlobProvider::new(policy));
    engine = s3::register(gcs::register(engine), settings.development, None)?;
    if let Some(path) = &settings.state {
        engine = engine.operation_store(state::open(path)?);
    }
    if let Some(url) = &settings.postgres {
        engine = postgres::keep_operations(engine, url).await?;
    }
    if let Some(events) = settings.events {
        engine = engine.observer(events);
    }
    let engine = engine.build()?;
    for operation in engine.resume_all().await? {
        tracing::info!(%operation, "resumed");
    }
    let service: Arc<dyn ExportService> = match &settings.restate {
        Some((ingress, admin)) => restate::client(engine.config().clone(), ingress, admin)?,
        None => Arc::new(engine.clone()),
    };
    let document = ApiDescription::router().destination_types(service.destination_types()).build();
    let app = Router::new()
        .merge(http::router(service, HttpOptions::new().base_url(settings.base_url)))
        .route("/openapi.json", get(async move || Json(document)))
        .route("/healthz", get(async || "ok"));
    let app = match settings.metrics {
        true => metrics::serve(app)?,
        false => app,
    };
    let app = app.fallback(http::not_found).layer(middleware::from_fn(log));

    let (drained, is_drained) = tokio::sync::oneshot::channel();
    let drain = async move {
        stop.await;
        tracing::info!("stopping");
        // In the meantime new exports are rejected with 503, and polls succeed.
        engine.shutdown(SHUTDOWN_GRACE).await;
        _ = drained.send(());
    };
    tokio::select! {
        () = serve::serve(listener, app, drain) => {}
        () = async { _ = is_drained.await; tokio::time::sleep(CONNECTION_GRACE).await } => {
            tracing::warn!("closed the remaining connections");
        }
    }
    Ok(())
}

/// Logs each request.
async fn log(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let begin = Instant::now();
    let response = next.run(request).await;
    tracing::info!(%method, path, status = response.status().as_u16(), took = ?begin.elapsed());
    response
}
