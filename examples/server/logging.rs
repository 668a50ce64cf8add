//! The log of an example.

use std::io::IsTerminal;

/// Logs to stderr, with the filter in `RUST_LOG` or, without one, with this filter.
pub(crate) fn to_stderr(default: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| default.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
