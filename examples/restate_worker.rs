//! A worker for exports that run on a Restate server. It reads a folder of DICOM files or a DICOMweb server, which all
//! workers and the server with the HTTP API can access.
//!
//! ```text
//! cargo run --release --features restate --example restate_worker -- --source DIR|URL --listen ADDR [--restate INGRESS_URL] [--development] [--concurrency N] [--batch-size N]
//! ```
//!
//! `--restate` is the URL of Restate's ingress (default: `http://127.0.0.1:8080`). `--listen` is bound with SO_REUSEPORT, so
//! that several workers on one machine can share a port. Register the address once:
//! `curl ADMIN_URL/deployments --json '{"uri": "http://ADDR/"}'`. `docs/restate.md` describes the set-up.
//! `--development` permits the storage emulator (Azurite) as a destination. `RUST_LOG` sets the log filter; the log is
//! written to stderr. On SIGTERM or Ctrl-C the worker begins no more batches, finishes those in flight, and exits.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobProvider};
use dicom_export::{Concurrency, ExportDestination, ExportEngine, restate};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

#[path = "export/gcs.rs"]
mod gcs;
#[path = "server/logging.rs"]
mod logging;
#[path = "export/s3.rs"]
mod s3;
#[path = "server/shutdown.rs"]
mod shutdown;
#[path = "export/source.rs"]
mod source;

/// How long batches in flight may take when the worker stops.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(30);

const USAGE: &str = "usage: restate_worker --source DIR|URL --listen ADDR [--restate INGRESS_URL] [--development] \
                     [--concurrency N] [--batch-size N]";

/// The command line.
struct Settings {
    source: PathBuf,
    listen: SocketAddr,
    ingress: String,
    development: bool,
    concurrency: Option<usize>,
    batch_size: Option<usize>,
}

impl Settings {
    fn from_command_line() -> Result<Self, Box<dyn Error>> {
        use lexopt::prelude::*;
        let (mut source, mut listen, mut ingress) = (None, None, "http://127.0.0.1:8080".to_owned());
        let (mut development, mut concurrency, mut batch_size) = (false, None, None);
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("source") => source = Some(PathBuf::from(parser.value()?)),
                Long("listen") => listen = Some(parser.value()?.parse()?),
                Long("restate") => ingress = parser.value()?.string()?,
                Long("development") => development = true,
                Long("concurrency") => concurrency = Some(parser.value()?.parse()?),
                Long("batch-size") => batch_size = Some(parser.value()?.parse()?),
                Short('h') | Long("help") => {
                    eprintln!("{USAGE}");
                    std::process::exit(0);
                }
                _ => return Err(argument.unexpected().into()),
            }
        }
        let source = source.ok_or("--source is missing")?;
        let listen = listen.ok_or("--listen is missing")?;
        Ok(Self { source, listen, ingress, development, concurrency, batch_size })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    logging::to_stderr("info");
    let settings = Settings::from_command_line().inspect_err(|_| eprintln!("{USAGE}"))?;
    let policy = match settings.development {
        true => AzureBlobPolicy::development(),
        false => AzureBlobPolicy::new(),
    };
    // No read-ahead: one worker lists the instances that another one exports.
    let options = source::SourceOptions {
        read_ahead: Some(0),
        development: settings.development,
        ..Default::default()
    };
    let source = source::Source::open(&settings.source, options)?;
    let mut engine = ExportEngine::builder(source.instances())
        .destination(ExportDestination::AZURE_BLOB, AzureBlobProvider::new(policy));
    engine = s3::register(gcs::register(engine), settings.development, None)?;
    if let Some(requests) = settings.concurrency {
        engine = engine.concurrency(Concurrency::Fixed(requests));
    }
    if let Some(instances) = settings.batch_size {
        engine = engine.batch_size(instances);
    }
    let endpoint = restate::endpoint(engine.build_config()?, &settings.ingress)?;
    let listener = bind(settings.listen)?;
    eprintln!("listening on http://{}", listener.local_addr()?);
    endpoint.serve(listener, SHUTDOWN_GRACE, shutdown::signal()).await;
    Ok(())
}

/// Binds a listener that shares its port with other workers; the system distributes connections over them.
fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}
