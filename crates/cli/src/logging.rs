//! Our own log, on standard error.
//!
//! Owns: the subscriber.
//! Reads: `RUST_LOG`.
//! Never: lets the engine's client print requests, which hold whole environments.

use tracing::Level;
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::terminal::LogWriter;

/// Starts logging: warnings by default, what `RUST_LOG` says otherwise, `bollard` never above INFO.
pub(crate) fn start() {
    let filter = EnvFilter::builder()
        .with_default_directive(Level::WARN.into())
        .from_env_lossy();
    let capped = filter_fn(|metadata| {
        !metadata.target().starts_with("bollard") || *metadata.level() <= Level::INFO
    });
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(|| LogWriter)
        .without_time()
        .with_target(false)
        .with_filter(filter.and(capped));
    // A second start in one process, by an embedding program, leaves the first as it is.
    if tracing_subscriber::registry()
        .with(layer)
        .try_init()
        .is_err()
    {
        tracing::debug!("logging was started already");
    }
}
