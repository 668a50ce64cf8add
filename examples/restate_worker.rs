//! A worker of exports that run on a Restate server: it reads a folder of DICOM files, or a DICOMweb server, that all
//! workers and the server with the HTTP API see alike.
//!
//! ```text
//! cargo run --release --features restate --example restate_worker -- --source DIR|URL --listen ADDR [--restate INGRESS_URL] [--development] [--concurrency N] [--batch-size N]
//! ```
//!
//! `--restate` is the URL of Restate's ingress; without it, the one on this machine's usual port. `--listen` is bound
//! with SO_REUSEPORT, so that several workers share a port on one machine. Whoever operates Restate registers that
//! address: `curl ADMIN_URL/deployments --json '{"uri": "http://ADDR/"}'`. `docs/restate.md` has the rest.
//! `--development` allows the storage emulator (Azurite) as a destination. `RUST_LOG` sets what is logged, on stderr.
//! On SIGTERM or Ctrl-C the worker lets the batches that it is at come to their end, begins none, and leaves.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobProvider};
use dicom_export::{Concurrency, ExportDestination, ExportEngine, restate};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

#[path = "server/logging.rs"]
mod logging;
#[path = "export/source.rs"]
mod source;
#[path = "server/stopped.rs"]
mod stopped;

/// How long batches under way may take when the worker stops.
const GRACE: Duration = Duration::from_secs(30);

const USAGE: &str = "usage: restate_worker --source DIR|URL --listen ADDR [--restate INGRESS_URL] [--development] \
                     [--concurrency N] [--batch-size N]";

/// What the command line says.
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
    logging::to_stderr();
    let settings = Settings::from_command_line().inspect_err(|_| eprintln!("{USAGE}"))?;
    let policy = match settings.development {
        true => AzureBlobPolicy::development(),
        false => AzureBlobPolicy::new(),
    };
    // What one worker lists another exports: nothing is read ahead.
    let source = source::Source::open(&settings.source, Some(0))?;
    let mut engine = ExportEngine::builder(source.instances())
        .destination(ExportDestination::AZURE_BLOB, AzureBlobProvider::new(policy));
    if let Some(requests) = settings.concurrency {
        engine = engine.concurrency(Concurrency::Fixed(requests));
    }
    if let Some(instances) = settings.batch_size {
        engine = engine.batch_size(instances);
    }
    let endpoint = restate::endpoint(engine.build()?, &settings.ingress)?;
    let listener = bind(settings.listen)?;
    eprintln!("listening on http://{}", listener.local_addr()?);
    endpoint.serve(listener, GRACE, stopped::stopped()).await;
    Ok(())
}

/// A listener that shares its port with others like it; the system spreads connections over them.
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
