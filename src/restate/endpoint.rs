//! [`Endpoint`]: the services of a worker process, and how they are served.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::graceful::GracefulShutdown;
use restate_sdk::endpoint::{HandlerOptions, ServiceOptions};
use restate_sdk::hyper::HyperEndpoint;
use restate_sdk::service::IntoServiceDefinition;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::error::Result;
use crate::pipeline::ExportConfig;
use crate::restate::batch::ExportBatch;
use crate::restate::http_client::HttpClient;
use crate::restate::operations::ExportOperation;
use crate::restate::segment::ExportSegment;
use crate::restate::specs::ExportSpec;
use crate::restate::worker::Worker;
use crate::restate::workflow::Export;

/// A connection's flow-control window in bytes. With hyper's default, the replay of a journal of some thousands of entries
/// breaks the connection: h2 treats that many small unread frames as an attack.
const CONNECTION_WINDOW: u32 = 64 << 20;

/// A stream's flow-control window in bytes.
const STREAM_WINDOW: u32 = 64 << 10;

/// How long results may take to be sent after the last batch is done.
const LINGER: Duration = Duration::from_secs(1);

/// How long an invocation may be silent before Restate asks it to suspend, and how long until Restate aborts it after
/// that. A batch of large instances takes long, and an aborted one starts over.
const INACTIVITY_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
const ABORT_TIMEOUT: Duration = Duration::from_secs(3600);

/// Attempts of a batch: about an hour with pauses of up to 30 s. A batch that crashes its worker each time then fails the
/// operation.
const MAX_BATCH_ATTEMPTS: u64 = 130;

/// Attempts of everything else, which waits for workers to return, however long that takes.
const MAX_ATTEMPTS: u64 = 10_000_000;

/// The maximum pause between attempts of handlers that a caller waits for.
const MAX_INTERACTIVE_PAUSE: Duration = Duration::from_secs(1);

/// The pause after a connection could not be accepted, for example because too many files are open.
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The export services of a worker process, to be served to a Restate server.
#[must_use]
pub struct Endpoint {
    services: restate_sdk::endpoint::Endpoint,
    worker: Worker,
}

/// Creates the services of a worker process.
///
/// `config` has the source, the destinations, the options and, for destinations with a secret, the
/// [secret store](crate::ExportEngineBuilder::secret_store) that workers and [`Client`](super::Client)s share. `ingress`
/// is the URL of Restate's ingress, from which the worker fetches operations and polls for cancellations.
///
/// # Errors
/// [`Invalid`](crate::ErrorKind::Invalid) if the URL is not an http or https URL.
pub fn endpoint(config: ExportConfig, ingress: &str) -> Result<Endpoint> {
    let retention = config.options.retention;
    let worker = Worker::new(config, HttpClient::new(ingress)?);
    let options = || {
        ServiceOptions::new()
            .inactivity_timeout(INACTIVITY_TIMEOUT)
            .abort_timeout(ABORT_TIMEOUT)
            .journal_retention(Duration::ZERO)
            .retry_policy_initial_interval(Duration::from_millis(100))
            .retry_policy_exponentiation_factor(2.0)
            .retry_policy_max_interval(Duration::from_secs(30))
            .retry_policy_max_attempts(MAX_ATTEMPTS)
            .retry_policy_kill_on_max_attempts()
    };
    let interactive = || options().retry_policy_max_interval(MAX_INTERACTIVE_PAUSE);
    let run = HandlerOptions::new().workflow_retention(retention);
    let batch = options().retry_policy_max_attempts(MAX_BATCH_ATTEMPTS);
    let services = restate_sdk::endpoint::Endpoint::builder()
        .bind(
            Export { worker: worker.clone() }
                .into_service_definition()
                .options(options().handler("run", run)),
        )
        .bind(ExportSegment { worker: worker.clone() }.into_service_definition().options(options()))
        .bind(ExportBatch { worker: worker.clone() }.into_service_definition().options(batch))
        .bind(ExportOperation.into_service_definition().options(interactive()))
        .bind(ExportSpec.into_service_definition().options(interactive()))
        .build();
    Ok(Endpoint { services, worker })
}

impl Endpoint {
    /// Serves until `stop` completes. It then accepts no more connections and starts no more batches, waits at most
    /// `grace` for those in progress, and returns. Restate has another worker do the rest.
    ///
    /// Everybody who reaches the listener can start exports: it must be reachable for the Restate server only. Connections
    /// are HTTP/2 without TLS, with prior knowledge.
    ///
    /// # Cancellation
    /// Dropping the future stops at once and commits no partial blob.
    pub async fn serve(self, listener: TcpListener, grace: Duration, stop: impl Future<Output = ()> + Send) {
        let Self { services, worker } = self;
        let services = HyperEndpoint::new(services);
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        // Responses are small, and the peer waits for them.
                        _ = stream.set_nodelay(true);
                        let connection = http2::Builder::new(TokioExecutor::new())
                            .initial_stream_window_size(STREAM_WINDOW)
                            .initial_connection_window_size(CONNECTION_WINDOW)
                            .serve_connection(TokioIo::new(stream), services.clone());
                        let connection = graceful.watch(connection);
                        connections.spawn(async move {
                            if let Err(error) = connection.await {
                                tracing::debug!(%error, "a connection failed");
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        sleep(ACCEPT_RETRY_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        let closed = graceful.shutdown();
        tokio::pin!(closed);
        let drained = async {
            worker.drain(grace).await;
            sleep(LINGER).await;
        };
        tokio::select! {
            () = &mut closed => {}
            () = drained => {}
        }
        // Workflows and segments wait for other invocations; they are dropped and continue on another worker.
        connections.shutdown().await;
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Endpoint")
    }
}
