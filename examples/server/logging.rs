//! What a server says while it runs.

use std::io::IsTerminal;

/// Logs to stderr what `RUST_LOG` asks for, or else what is of level `info` and above.
pub(crate) fn to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
