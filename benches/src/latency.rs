//! From an agent's write of a line to its being seen, beside a bare attach.
//!
//! Owns: the agent, which prints the time at which it prints.
//! Reads: the wall clock, which container and host share.
//! Never: sets the clock.

use std::sync::{Arc, Mutex, PoisonError};

use dark_factory::executor::sink::Sink;
use dark_factory::types::NetworkMode;
use jiff::Timestamp;

use crate::Result;
use crate::api;
use crate::measure::{quantile, wall_seconds};
use crate::rig::Rig;
use crate::table::{Row, table};

/// A line each 5 ms, without starting a process for it.
const SCRIPT: &str = "exec {pause}<> <(:); for ((i = 0; i < 400; i++)); do echo $EPOCHREALTIME; \
                      read -rt 0.005 -u $pause || :; done";
const HEADINGS: [&str; 3] = ["p50 us", "p90 us", "p99 us"];

pub(crate) async fn bench(rig: &Rig, rounds: usize) -> Result<()> {
    let mut rows = ["a sink of a run", "API attach, log driver none"]
        .map(|name| Row::new(name, HEADINGS.len()));
    for round in 0..=rounds {
        for who in [round % 2, 1 - round % 2] {
            let latencies = match who {
                0 => ours(rig).await?,
                _ => attach(rig).await?,
            };
            if round > 0 {
                let at = |part| quantile(latencies.iter().copied(), part);
                rows[who].push(&[at(0.5), at(0.9), at(0.99)]);
            }
        }
    }
    print!("{}", table("latency of a line", &HEADINGS, &rows));
    Ok(())
}

/// Microseconds since each line of some output was printed.
#[derive(Debug, Clone, Default)]
struct Latencies(Arc<Mutex<Vec<f64>>>);

impl Latencies {
    fn take(&self, bytes: &[u8]) {
        let now = wall_seconds();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for line in String::from_utf8_lossy(bytes).lines() {
            if let Ok(at) = line.parse::<f64>() {
                all.push((now - at) * 1e6);
            }
        }
    }

    fn all(&self) -> Vec<f64> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Sink for Latencies {
    fn stdout(&mut self, bytes: &[u8], _at: Timestamp) {
        self.take(bytes);
    }
}

async fn ours(rig: &Rig) -> Result<Vec<f64>> {
    let supervisor = rig.supervisor(Arc::new(rig.engine()?), &rig.state())?;
    let resolved = rig.resolved(&rig.shell_image, NetworkMode::None, &["bash", "-c", SCRIPT])?;
    let latencies = Latencies::default();
    let submitted = supervisor.submit(&resolved).await?;
    let control = supervisor.control("the bench");
    supervisor
        .run(
            submitted,
            vec![Box::new(latencies.clone())],
            &control,
            &|_| {},
        )
        .await?;
    Ok(latencies.all())
}

async fn attach(rig: &Rig) -> Result<Vec<f64>> {
    let resolved = rig.resolved(&rig.shell_image, NetworkMode::None, &["bash", "-c", SCRIPT])?;
    let created = api::create(&rig.api, api::body(rig, &resolved)?).await?;
    let id = created.id.clone();
    api::start(&rig.api, &id).await?;
    let latencies = Latencies::default();
    api::drain(created, |piece| {
        latencies.take(piece);
        Ok(())
    })
    .await?;
    api::remove(&rig.api, &id).await?;
    Ok(latencies.all())
}
