//! `GET /metrics`: metrics for Prometheus, with the feature `metrics`.

use axum::Router;

/// The upper bounds of the buckets of durations, in seconds.
#[cfg(feature = "metrics")]
const BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0];

/// Installs the recorder and adds the route.
///
/// # Errors
/// Fails if a recorder is installed already.
#[cfg(feature = "metrics")]
pub(crate) fn serve(app: Router) -> Result<Router, Box<dyn std::error::Error>> {
    use metrics_exporter_prometheus::PrometheusBuilder;

    let handle = PrometheusBuilder::new().set_buckets(&BUCKETS)?.install_recorder()?;
    let upkeep = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
            upkeep.run_upkeep();
        }
    });
    let render = async move || ([("content-type", "text/plain; version=0.0.4")], handle.render());
    Ok(app.route("/metrics", axum::routing::get(render)))
}

#[cfg(not(feature = "metrics"))]
pub(crate) fn serve(app: Router) -> Result<Router, Box<dyn std::error::Error>> {
    Ok(app)
}
