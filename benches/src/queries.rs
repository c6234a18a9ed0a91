//! How soon an end is seen, and what a look at a container costs.
//!
//! Owns: the moments that are compared.
//! Reads: the wall clock, which container and host share.
//! Never: polls.

use std::io::sink;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use dark_factory::executor::attempt::Progress;
use dark_factory::executor::engine::{Engine, Recovered};
use dark_factory::executor::sink::Sink;
use dark_factory::executor::store::AttemptState;
use dark_factory::types::NetworkMode;
use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::Result;
use crate::api;
use crate::measure::{measure, median, seconds, wall_seconds};
use crate::rig::Rig;
use crate::table::{Row, table};

/// The last thing that it does is to say when.
const SCRIPT: &str = "read -rt 0.3 <> <(:); echo $EPOCHREALTIME";
const LOOKS: u32 = 20;

pub(crate) async fn bench(rig: &Rig, rounds: usize) -> Result<()> {
    let mut ends = [
        "a run, to collect its output",
        "a run, with its report",
        "API wait on the same container",
    ]
    .map(|name| Row::new(name, 1));
    let mut looks =
        ["recover, of the engine contract", "docker inspect"].map(|name| Row::new(name, 1));
    for round in 0..=rounds {
        let seen = ends_seen(rig).await?;
        let looked = look(rig).await?;
        if round > 0 {
            for (row, figure) in ends
                .iter_mut()
                .zip(seen)
                .chain(looks.iter_mut().zip(looked))
            {
                row.push(&[figure]);
            }
        }
    }
    print!(
        "{}",
        table(
            "from the agent's last line to its end being seen",
            &["ms"],
            &ends
        )
    );
    print!("{}", table("a look at a container", &["ms"], &looks));
    Ok(())
}

/// The last text that was printed.
#[derive(Debug, Clone, Default)]
struct LastWords(Arc<Mutex<String>>);

impl Sink for LastWords {
    fn stdout(&mut self, bytes: &[u8], _at: Timestamp) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            String::from_utf8_lossy(bytes).into_owned();
    }
}

/// Returns the milliseconds after which the run knows of the end, has its report, and a call to wait returns.
async fn ends_seen(rig: &Rig) -> Result<[f64; 3]> {
    let supervisor = rig.supervisor(Arc::new(rig.engine()?), &rig.state())?;
    let resolved = rig.resolved(&rig.shell_image, NetworkMode::None, &["bash", "-c", SCRIPT])?;
    let submitted = supervisor.submit(&resolved).await?;
    let control = supervisor.control("the bench");
    let last = LastWords::default();
    let (tell, started) = oneshot::channel();
    let tell = Mutex::new(Some(tell));
    let progress = move |progress: Progress| {
        if let Progress::Started { container } = progress
            && let Some(tell) = tell.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            // Nobody waits for it if the bench is given up.
            let _told = tell.send(container);
        }
    };
    let waited = async {
        let container = started.await?;
        api::wait(&rig.api, &container).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(wall_seconds())
    };
    let run = supervisor.run(submitted, vec![Box::new(last.clone())], &control, &progress);
    let (report, waited) = tokio::join!(run, waited);
    let said: f64 = last
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .trim()
        .parse()?;
    let report = report?;
    let steps = supervisor.store().steps(report.attempt_id).await?;
    let seen = steps
        .iter()
        .find(|step| step.state == AttemptState::Collecting)
        .ok_or("a run that was never collected")?;
    let ends = [seconds(seen.at), seconds(report.finished_at), waited?];
    Ok(ends.map(|at| (at - said) * 1e3))
}

/// Returns the milliseconds that each way of looking at a running container takes.
async fn look(rig: &Rig) -> Result<[f64; 2]> {
    let engine = rig.engine()?;
    let supervisor = rig.supervisor(Arc::new(rig.engine()?), &rig.state())?;
    let resolved = rig.resolved(
        &rig.image,
        NetworkMode::None,
        &["/bin/agent", "-e", "sleep 1h"],
    )?;
    let submitted = supervisor.submit(&resolved).await?;
    let id = submitted.id();
    let control = supervisor.control("the bench");
    let (tell, started) = oneshot::channel();
    let tell = Mutex::new(Some(tell));
    let progress = move |progress: Progress| {
        if let Progress::Started { .. } = progress
            && let Some(tell) = tell.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            let _told = tell.send(());
        }
    };
    let looks = async {
        started.await?;
        let row = supervisor.store().attempt(id).await?.ok_or("no row")?;
        let handle = row.handle.ok_or("no handle")?;
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        for _ in 0..LOOKS {
            let start = Instant::now();
            if !matches!(engine.recover(&handle).await?, Recovered::Running(_)) {
                return Err("it does not run".into());
            }
            ours.push(start.elapsed().as_secs_f64() * 1e3);
            let mut inspect = Command::new("docker");
            inspect.args([
                "inspect",
                "--format",
                "{{.State.Running}}",
                &handle.container,
            ]);
            theirs.push(measure(&mut inspect, sink())?.wall * 1e3);
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>([median(ours), median(theirs)])
    };
    let run = supervisor.run(submitted, Vec::new(), &control, &progress);
    let (_report, looks) = tokio::join!(run, async {
        let looks = looks.await;
        control.kill();
        looks
    });
    looks
}
