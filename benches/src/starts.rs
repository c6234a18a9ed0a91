//! Runs a second, many at a time, beside the bare Engine API.
//!
//! Owns: how many are begun at once.
//! Reads: nothing.
//! Never: starts more than the machine's engine takes well: see the measurement of the default in the docs.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use dark_factory::types::NetworkMode;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::Result;
use crate::api;
use crate::rig::Rig;
use crate::table::{Row, table};

const RUNS: u32 = 32;
const AT_ONCE: [usize; 3] = [2, 4, 8];
const ARGV: [&str; 3] = ["/bin/agent", "-e", "exit 0"];

pub(crate) async fn bench(rig: &Rig, rounds: usize) -> Result<()> {
    for at_once in AT_ONCE {
        let mut rows =
            ["supervisor in one process", "API create to remove"].map(|name| Row::new(name, 1));
        for round in 0..rounds {
            for who in [round % 2, 1 - round % 2] {
                let start = Instant::now();
                match who {
                    0 => ours(rig, at_once).await?,
                    _ => bare(rig, at_once).await?,
                }
                rows[who].push(&[f64::from(RUNS) / start.elapsed().as_secs_f64()]);
            }
        }
        let title = format!("{RUNS} runs, {at_once} at once, without network");
        print!("{}", table(&title, &["runs/s"], &rows));
    }
    Ok(())
}

async fn ours(rig: &Rig, at_once: usize) -> Result<()> {
    let supervisor = rig.supervisor(Arc::new(rig.engine()?), &rig.state())?;
    let supervisor = &supervisor;
    stream::iter(0..RUNS)
        .map(Ok)
        .try_for_each_concurrent(at_once, |number| async move {
            let mut resolved = rig.resolved(&rig.image, NetworkMode::None, &ARGV)?;
            // One open run a file.
            resolved.spec.file = format!("{}-{number}", resolved.spec.file);
            let submitted = supervisor.submit(&resolved).await?;
            let control = supervisor.control("the bench");
            supervisor
                .run(submitted, Vec::new(), &control, &|_| {})
                .await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        })
        .await?;
    Ok(fs::remove_dir_all(rig.state())?)
}

async fn bare(rig: &Rig, at_once: usize) -> Result<()> {
    let resolved = rig.resolved(&rig.image, NetworkMode::None, &ARGV)?;
    let body = api::body(rig, &resolved)?;
    stream::iter(0..RUNS)
        .map(Ok)
        .try_for_each_concurrent(at_once, |_| async {
            let created = api::create(&rig.api, body.clone()).await?;
            let id = created.id.clone();
            api::start(&rig.api, &id).await?;
            api::drain(created, |_| Ok(())).await?;
            api::wait(&rig.api, &id).await?;
            api::remove(&rig.api, &id).await
        })
        .await
}
