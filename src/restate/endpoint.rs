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

use crate::engine::ExportEngine;
use crate::error::Result;
use crate::restate::batch::ExportBatch;
use crate::restate::ingress::Door;
use crate::restate::operations::ExportOperation;
use crate::restate::segment::ExportSegment;
use crate::restate::specs::ExportSpec;
use crate::restate::worker::Worker;
use crate::restate::workflow::Export;

/// A connection's flow-control window. With hyper's own, the replay of a journal of some thousands of entries breaks
/// the connection: h2 takes so many small frames that nobody has read yet for an attack.
const CONNECTION_WINDOW: u32 = 64 << 20;

/// A stream's flow-control window.
const STREAM_WINDOW: u32 = 64 << 10;

/// How long results may take to leave once the last batch is done.
const LINGER: Duration = Duration::from_secs(1);

/// How long an invocation may say nothing before Restate asks it to suspend, and how long until it is cut off after
/// that. A batch of large instances takes long, and a cut one is run again from its start.
const SILENCE: Duration = Duration::from_secs(24 * 3600);
const CUT_OFF: Duration = Duration::from_secs(3600);

/// Attempts of a batch: with pauses of up to 30 s, for an hour. A batch that takes its worker down with it every time
/// ends the operation after that.
const BATCH_ATTEMPTS: u64 = 130;

/// Attempts of everything else: it waits for workers to come back, however long they are away.
const ATTEMPTS: u64 = 10_000_000;

/// The services of the export, to be served to a Restate server.
#[must_use]
pub struct Endpoint {
    services: restate_sdk::endpoint::Endpoint,
    worker: Worker,
}

/// The services of a worker process.
///
/// `engine` has the source, the destinations, the options and, for destinations with a secret, the
/// [secret store](crate::ExportEngineBuilder::secret_store) that workers and [`Client`](super::Client)s share. Its operation
/// store, lease and checkpoint interval are not used. `ingress` is the URL of Restate's ingress, where the worker
/// fetches what is to be exported and looks whether somebody has canceled it.
///
/// # Errors
/// [`Invalid`](crate::ErrorKind::Invalid) when the URL is none.
pub fn endpoint(engine: ExportEngine, ingress: &str) -> Result<Endpoint> {
    let retention = engine.inner.options.retention;
    let worker = Worker::new(engine, Door::new(ingress)?);
    let options = || {
        ServiceOptions::new()
            .inactivity_timeout(SILENCE)
            .abort_timeout(CUT_OFF)
            .journal_retention(Duration::ZERO)
            .retry_policy_initial_interval(Duration::from_millis(100))
            .retry_policy_exponentiation_factor(2.0)
            .retry_policy_max_interval(Duration::from_secs(30))
            .retry_policy_max_attempts(ATTEMPTS)
            .retry_policy_kill_on_max_attempts()
    };
    let quick = || {
        // Somebody waits for these.
        options().retry_policy_max_interval(Duration::from_secs(1))
    };
    let run = HandlerOptions::new().workflow_retention(retention);
    let batch = options().retry_policy_max_attempts(BATCH_ATTEMPTS);
    let services = restate_sdk::endpoint::Endpoint::builder()
        .bind(
            Export { worker: worker.clone() }
                .into_service_definition()
                .options(options().handler("run", run)),
        )
        .bind(ExportSegment { worker: worker.clone() }.into_service_definition().options(options()))
        .bind(ExportBatch { worker: worker.clone() }.into_service_definition().options(batch))
        .bind(ExportOperation.into_service_definition().options(quick()))
        .bind(ExportSpec.into_service_definition().options(quick()))
        .build();
    Ok(Endpoint { services, worker })
}

impl Endpoint {
    /// Serves until `stop`; then takes no more connections and lets no more batches begin, lets those under way finish
    /// for so long, and returns. What is not done by then, Restate has done by another worker.
    ///
    /// Whoever reaches the listener can have it export: it is for the Restate server alone. A connection is HTTP/2
    /// without TLS from its first byte.
    ///
    /// # Cancellation
    /// Dropping the future stops at once, and commits no partial blob.
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
                        // Answers are small and awaited.
                        _ = stream.set_nodelay(true);
                        let connection = http2::Builder::new(TokioExecutor::new())
                            .initial_stream_window_size(STREAM_WINDOW)
                            .initial_connection_window_size(CONNECTION_WINDOW)
                            .serve_connection(TokioIo::new(stream), services.clone());
                        let connection = graceful.watch(connection);
                        connections.spawn(async move {
                            if let Err(error) = connection.await {
                                tracing::debug!(%error, "a connection broke");
                            }
                        });
                    }
                    Err(error) => {
                        // Too many open files, say.
                        tracing::warn!(%error, "no connection can be taken");
                        sleep(Duration::from_millis(100)).await;
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
        // Workflows and segments wait for others; they are dropped, and go on elsewhere.
        connections.shutdown().await;
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Endpoint")
    }
}
