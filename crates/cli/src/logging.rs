//! Our own log, on standard error or in the daemon's file.
//!
//! Owns: the subscriber.
//! Reads: `RUST_LOG`.
//! Never: lets the engine's client print requests, which hold whole environments.

use tracing::Level;
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;

use crate::terminal::LogWriter;

/// Who reads the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Log {
    /// Somebody who waits for a command: warnings, without times.
    Terminal,
    /// Somebody who wants to know later: what was done, with times.
    Journal,
}

/// Starts logging: as its reader wants it by default, what `RUST_LOG` says otherwise, `bollard` never above INFO.
pub(crate) fn start(log: Log) {
    let level = match log {
        Log::Terminal => Level::WARN,
        Log::Journal => Level::INFO,
    };
    let filter = EnvFilter::builder()
        .with_default_directive(level.into())
        .from_env_lossy();
    let capped = filter_fn(|metadata| {
        !metadata.target().starts_with("bollard") || *metadata.level() <= Level::INFO
    });
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(|| LogWriter)
        .with_target(false);
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match log {
        Log::Terminal => layer.without_time().with_filter(filter.and(capped)).boxed(),
        Log::Journal => layer
            .with_ansi(false)
            .with_filter(filter.and(capped))
            .boxed(),
    };
    // A second start in one process, by an embedding program, leaves the first as it is.
    if tracing_subscriber::registry()
        .with(layer)
        .try_init()
        .is_err()
    {
        tracing::debug!("logging was started already");
    }
}
