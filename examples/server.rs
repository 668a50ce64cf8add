//! A small DICOM archive with the export API: a folder of DICOM files behind HTTP, or the export API for a DICOMweb
//! server.
//!
//! ```text
//! cargo run --release --features http --example server -- --source DIR|URL --listen 127.0.0.1:8080 [--state FILE] [--development] [--base-url URL] [--restate INGRESS_URL --restate-admin ADMIN_URL]
//! ```
//!
//! With `--features http,dicomweb`, `--source http(s)://…/dicom-web` is a DICOMweb server; `DICOMWEB_USER` and
//! `DICOMWEB_PASSWORD`, or `DICOMWEB_TOKEN`, are read from the environment. With `--features http,redb`, `--state FILE`
//! keeps operations in a file: what has not ended when the server stops, or dies, goes on when it starts again. With
//! `--features http,restate`, `--restate` and `--restate-admin` have exports run by the workers of a Restate server
//! (example `restate_worker`) instead of in this process.
//! `--development` allows the storage emulator (Azurite) as a destination. `RUST_LOG` sets what is logged, on stderr.
//! On SIGTERM or Ctrl-C the server takes no more exports, lets what is being transferred come to its end, and leaves.

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
use dicom_export::http::{self, BaseUrl, HttpOptions};
use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobProvider};
use dicom_export::{ExportDestination, ExportEngine, ExportService};
use tokio::net::TcpListener;

#[path = "server/logging.rs"]
mod logging;
#[cfg(not(feature = "restate"))]
#[path = "server/no_restate.rs"]
mod restate;
#[cfg(feature = "restate")]
#[path = "server/restate.rs"]
mod restate;
#[path = "export/source.rs"]
mod source;
#[cfg(feature = "redb")]
#[path = "export/state.rs"]
mod state;
#[cfg(not(feature = "redb"))]
#[path = "export/no_state.rs"]
mod state;
#[path = "server/stopped.rs"]
mod stopped;

/// How long batches under way may take when the server stops.
const GRACE: Duration = Duration::from_secs(30);

/// How long connections may take after that.
const LINGER: Duration = Duration::from_secs(5);

const USAGE: &str = "usage: server --source DIR|URL --listen ADDR [--state FILE] [--development] [--base-url URL] \
                     [--restate INGRESS_URL --restate-admin ADMIN_URL]";

/// What the command line says.
#[derive(Debug)]
pub struct Settings {
    /// The folder of DICOM files, or the URL of a DICOMweb server.
    pub source: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The file that keeps operations; without one they end with the process.
    pub state: Option<PathBuf>,
    /// Whether the emulator is a destination.
    pub development: bool,
    /// How links begin.
    pub base_url: BaseUrl,
    /// Restate's ingress and its admin API; without them exports run in this process.
    pub restate: Option<(String, String)>,
}

impl Settings {
    fn from_command_line() -> Result<Self, Box<dyn Error>> {
        use lexopt::prelude::*;
        let (mut source, mut listen, mut state) = (None, None, None);
        let (mut development, mut base_url) = (false, BaseUrl::Request);
        let (mut restate, mut restate_admin) = (None, None);
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("source") => source = Some(PathBuf::from(parser.value()?)),
                Long("listen") => listen = Some(parser.value()?.parse()?),
                Long("state") => state = Some(PathBuf::from(parser.value()?)),
                Long("development") => development = true,
                Long("restate") => restate = Some(parser.value()?.string()?),
                Long("restate-admin") => restate_admin = Some(parser.value()?.string()?),
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
            _ => return Err("--restate and --restate-admin go together".into()),
        };
        if restate.is_some() && state.is_some() {
            return Err("--state is for exports that run in this process".into());
        }
        Ok(Self { source, listen, state, development, base_url, restate })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    logging::to_stderr();
    let settings = Settings::from_command_line().inspect_err(|_| eprintln!("{USAGE}"))?;
    let listener = TcpListener::bind(settings.listen).await?;
    eprintln!("listening on http://{}", listener.local_addr()?);
    serve(settings, listener, stopped::stopped()).await
}

/// Serves until `stop`, and then until nothing runs.
pub async fn serve(
    settings: Settings,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Box<dyn Error>> {
    let policy = match settings.development {
        true => AzureBlobPolicy::development(),
        false => AzureBlobPolicy::new(),
    };
    let mut engine = ExportEngine::builder(source::Source::open(&settings.source, None)?.instances())
        .destination(ExportDestination::AZURE_BLOB, AzureBlobProvider::new(policy));
    if let Some(path) = &settings.state {
        engine = engine.operation_store(state::open(path)?);
    }
    let engine = engine.build()?;
    for operation in engine.resume_all().await? {
        tracing::info!(%operation, "resumed");
    }
    let service: Arc<dyn ExportService> = match &settings.restate {
        Some((ingress, admin)) => restate::client(engine.clone(), ingress, admin)?,
        None => Arc::new(engine.clone()),
    };
    let document = http::openapi();
    let app = Router::new()
        .merge(http::router(service, HttpOptions::new().base_url(settings.base_url)))
        .route("/openapi.json", get(async move || Json(document)))
        .route("/healthz", get(async || "ok"))
        .fallback(http::not_found)
        .layer(middleware::from_fn(log));

    let (drained, is_drained) = tokio::sync::oneshot::channel();
    let drain = async move {
        stop.await;
        tracing::info!("stopping");
        // New exports are answered with 503 meanwhile, and polls go on.
        engine.shutdown(GRACE).await;
        _ = drained.send(());
    };
    let serving = axum::serve(listener, app).with_graceful_shutdown(drain);
    tokio::select! {
        served = serving.into_future() => served?,
        () = async { _ = is_drained.await; tokio::time::sleep(LINGER).await } => {
            tracing::warn!("some connections were cut");
        }
    }
    Ok(())
}

/// A line for each request.
async fn log(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let begin = Instant::now();
    let response = next.run(request).await;
    tracing::info!(%method, path, status = response.status().as_u16(), took = ?begin.elapsed());
    response
}
