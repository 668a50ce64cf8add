//! Serves an app like `axum::serve`, and closes connections whose clients do not send the head of a request in time.

use std::future::Future;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

/// How long a client may take for the head of a request. It is also how long an idle connection is kept.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The pause after a connection could not be accepted, for example because too many files are open.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Serves until `stop` completes, and then until the responses to open requests are sent.
pub async fn serve(listener: TcpListener, app: Router, stop: impl Future<Output = ()>) {
    serve_with(listener, app, stop, HEADER_READ_TIMEOUT).await;
}

/// As [`serve`], with another timeout.
pub async fn serve_with(
    listener: TcpListener,
    app: Router,
    stop: impl Future<Output = ()>,
    header_read_timeout: Duration,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(header_read_timeout);
    let connections = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let Ok((stream, _)) =
            accepted.inspect_err(|error| tracing::warn!(%error, "cannot accept a connection"))
        else {
            tokio::time::sleep(ACCEPT_BACKOFF).await;
            continue;
        };
        let service = TowerToHyperService::new(app.clone());
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection was closed");
            }
        });
    }
    drop(listener);
    connections.shutdown().await;
}
