//! Our own part of a run: what is left of it without the engine's calls.
//!
//! Owns: an engine that keeps the time of its calls, and when its container was started.
//! Reads: nothing.
//! Never: counts the waiting for an agent.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use dark_factory::executor::engine::{
    Capabilities, Description, Engine, EngineError, EngineExit, Executed, Execution, Handle,
    OwnedContainer, OwnedImage, PullProgress, Recognized, Recovered, Reopened, Usage, Workload,
};
use dark_factory::executor::spec::{AttemptDir, LaunchSpec, PullPolicy, StopPolicy};
use dark_factory::types::{ByteSize, ImageRecord, NetworkMode, OwnerId};
use nix::sys::resource::UsageWho;
use tempfile::TempDir;

use crate::Result;
use crate::api;
use crate::measure::{cpu, median};
use crate::rig::Rig;

/// What an engine's calls took.
#[derive(Debug, Default)]
struct Calls {
    /// Nanoseconds in them.
    nanos: AtomicU64,
    /// Nanoseconds of CPU that this process used meanwhile.
    cpu_nanos: AtomicU64,
    /// What had been spent when the container was started.
    started: OnceLock<Moment>,
}

type Spent = Arc<Calls>;

impl Calls {
    fn spent(&self) -> Milliseconds {
        Milliseconds {
            wall: millis(&self.nanos),
            cpu: millis(&self.cpu_nanos),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of one run")]
fn millis(nanos: &AtomicU64) -> f64 {
    nanos.load(Ordering::Relaxed) as f64 / 1e6
}

#[derive(Debug, Clone, Copy)]
struct Moment {
    at: Instant,
    cpu: Duration,
    /// In calls to the engine until then.
    in_calls: Milliseconds,
}

/// Milliseconds of this process, of time and of CPU.
#[derive(Debug, Clone, Copy, Default)]
struct Milliseconds {
    wall: f64,
    cpu: f64,
}

/// A part of a run: outside of engine calls, and its CPU with them.
#[derive(Debug, Clone, Copy)]
struct Part {
    outside: Milliseconds,
    cpu: f64,
}

impl Part {
    fn between(from: Moment, to: Moment) -> Self {
        let cpu = (to.cpu - from.cpu).as_secs_f64() * 1e3;
        Self {
            outside: Milliseconds {
                wall: (to.at - from.at).as_secs_f64() * 1e3
                    - (to.in_calls.wall - from.in_calls.wall),
                cpu: cpu - (to.in_calls.cpu - from.in_calls.cpu),
            },
            cpu,
        }
    }
}

fn moment(in_calls: Milliseconds) -> Result<Moment> {
    Ok(Moment {
        at: Instant::now(),
        cpu: cpu(UsageWho::RUSAGE_SELF)?,
        in_calls,
    })
}

pub(crate) async fn bench(rig: &Rig, rounds: usize) -> Result<()> {
    // Where nothing is waited for, a write to it made durable is only work.
    let memory = TempDir::new_in("/dev/shm")?;
    let mut parts =
        ["launch, to the started container", "whole run"].map(|what| (what, Vec::new()));
    for round in 0..=rounds {
        let on_disk = ours(rig, &rig.state()).await?;
        let without_disk = ours(rig, memory.path()).await?;
        let api = bare(rig).await?;
        for (place, (_, rows)) in parts.iter_mut().enumerate() {
            // The first round warms up.
            if round > 0 {
                let [on_disk, without_disk] = [on_disk[place], without_disk[place]];
                rows.push([
                    on_disk.outside.wall,
                    on_disk.outside.wall - without_disk.outside.wall,
                    without_disk.outside.cpu,
                    without_disk.cpu - api[place].cpu,
                ]);
            }
        }
    }
    println!("\nour own part outside engine calls, {rounds} rounds (goal of a launch: 1 ms each)");
    for (what, rows) in parts {
        let [wall, disk, cpu, more] =
            [0, 1, 2, 3].map(|column| median(rows.iter().map(|row| row[column])));
        println!(
            "  {what}: {wall:.2} ms wall, {disk:.2} ms of it waiting for the disk; {cpu:.2} ms CPU; with its calls, {more:.2} ms \
             CPU more than the bare API calls"
        );
    }
    Ok(())
}

/// Runs an agent that does nothing; returns the launch's part and the whole run's.
async fn ours(rig: &Rig, state: &Path) -> Result<[Part; 2]> {
    let spent = Spent::default();
    let engine = TimedEngine(rig.engine()?, Arc::clone(&spent));
    let supervisor = rig.supervisor(Arc::new(engine), state)?;
    let resolved = rig.resolved(
        &rig.image,
        NetworkMode::None,
        &["/bin/agent", "-e", "exit 0"],
    )?;
    let control = supervisor.control("the bench");
    let begin = moment(Milliseconds::default())?;
    supervisor.check().await?;
    let submitted = supervisor.submit(&resolved).await?;
    supervisor
        .run(submitted, Vec::new(), &control, &|_| {})
        .await?;
    let end = moment(spent.spent())?;
    let started = *spent.started.get().ok_or("the container was not started")?;
    Ok([Part::between(begin, started), Part::between(begin, end)])
}

/// Does the same by the API alone.
async fn bare(rig: &Rig) -> Result<[Part; 2]> {
    let resolved = rig.resolved(
        &rig.image,
        NetworkMode::None,
        &["/bin/agent", "-e", "exit 0"],
    )?;
    let body = api::body(rig, &resolved)?;
    let begin = moment(Milliseconds::default())?;
    let created = api::create(&rig.api, body).await?;
    let id = created.id.clone();
    api::start(&rig.api, &id).await?;
    let started = moment(Milliseconds::default())?;
    api::drain(created, |_| Ok(())).await?;
    api::wait(&rig.api, &id).await?;
    api::remove(&rig.api, &id).await?;
    let end = moment(Milliseconds::default())?;
    Ok([Part::between(begin, started), Part::between(begin, end)])
}

/// Adds the time of a call. What of ours is done beside one counts as done by it: nobody waits for that.
async fn timed<T>(spent: &Spent, call: impl Future<Output = T>) -> T {
    let (start, cpu_before) = (Instant::now(), own_cpu());
    let result = call.await;
    for (total, took) in [
        (&spent.nanos, start.elapsed()),
        (&spent.cpu_nanos, own_cpu().saturating_sub(cpu_before)),
    ] {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        total.fetch_add(took, Ordering::Relaxed);
    }
    result
}

/// Returns the CPU time of this process; none where the kernel does not say.
fn own_cpu() -> Duration {
    cpu(UsageWho::RUSAGE_SELF).unwrap_or_default()
}

#[derive(Debug)]
struct TimedEngine<E>(E, Spent);

#[derive(Debug)]
struct TimedWorkload(Box<dyn Workload>, Spent);

#[async_trait]
impl<E: Engine> Engine for TimedEngine<E> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn endpoint(&self) -> String {
        self.0.endpoint()
    }

    async fn identity(&self) -> std::result::Result<Option<String>, EngineError> {
        timed(&self.1, self.0.identity()).await
    }

    async fn describe(&self) -> std::result::Result<Description, EngineError> {
        timed(&self.1, self.0.describe()).await
    }

    async fn probe(&self, probe_dir: &Path) -> std::result::Result<Capabilities, EngineError> {
        timed(&self.1, self.0.probe(probe_dir)).await
    }

    async fn recognize(&self, notes: &Path) -> std::result::Result<Recognized, EngineError> {
        timed(&self.1, self.0.recognize(notes)).await
    }

    async fn check(&self, probe_dir: &Path, notes: &Path) -> std::result::Result<(), EngineError> {
        timed(&self.1, self.0.check(probe_dir, notes)).await
    }

    async fn capabilities(&self) -> std::result::Result<Capabilities, EngineError> {
        timed(&self.1, self.0.capabilities()).await
    }

    async fn ensure_image(
        &self,
        image: &str,
        policy: PullPolicy,
        progress: PullProgress<'_>,
    ) -> std::result::Result<ImageRecord, EngineError> {
        timed(&self.1, self.0.ensure_image(image, policy, progress)).await
    }

    async fn create(
        &self,
        spec: &LaunchSpec,
        owner: &OwnerId,
        dir: &AttemptDir,
    ) -> std::result::Result<Handle, EngineError> {
        timed(&self.1, self.0.create(spec, owner, dir)).await
    }

    async fn start(
        &self,
        spec: &LaunchSpec,
        handle: &Handle,
        dir: &AttemptDir,
    ) -> std::result::Result<Box<dyn Workload>, EngineError> {
        let workload = timed(&self.1, self.0.start(spec, handle, dir)).await?;
        if let Ok(started) = moment(self.1.spent()) {
            self.1.started.get_or_init(|| started);
        }
        Ok(Box::new(TimedWorkload(workload, Arc::clone(&self.1))))
    }

    async fn recover(&self, handle: &Handle) -> std::result::Result<Recovered, EngineError> {
        timed(&self.1, self.0.recover(handle)).await
    }

    async fn reopen(
        &self,
        spec: &LaunchSpec,
        owner: &OwnerId,
        dir: &AttemptDir,
        kept: &Handle,
        name: &str,
    ) -> std::result::Result<Reopened, EngineError> {
        timed(&self.1, self.0.reopen(spec, owner, dir, kept, name)).await
    }

    async fn list_owned(
        &self,
        owner: &OwnerId,
    ) -> std::result::Result<Vec<OwnedContainer>, EngineError> {
        timed(&self.1, self.0.list_owned(owner)).await
    }

    async fn list_owned_images(
        &self,
        owner: &OwnerId,
    ) -> std::result::Result<Vec<OwnedImage>, EngineError> {
        timed(&self.1, self.0.list_owned_images(owner)).await
    }

    async fn remove_owned_image(&self, image: &OwnedImage) -> std::result::Result<(), EngineError> {
        timed(&self.1, self.0.remove_owned_image(image)).await
    }

    async fn remove_owned(
        &self,
        owner: &OwnerId,
        container: &OwnedContainer,
    ) -> std::result::Result<(), EngineError> {
        timed(&self.1, self.0.remove_owned(owner, container)).await
    }
}

#[async_trait]
impl Workload for TimedWorkload {
    fn handle(&self) -> &Handle {
        self.0.handle()
    }

    async fn wait(&self) -> std::result::Result<EngineExit, EngineError> {
        timed(&self.1, self.0.wait()).await
    }

    async fn stop(&self, policy: &StopPolicy) -> std::result::Result<(), EngineError> {
        timed(&self.1, self.0.stop(policy)).await
    }

    async fn pause(&self) -> std::result::Result<(), EngineError> {
        timed(&self.1, self.0.pause()).await
    }

    async fn unpause(&self) -> std::result::Result<(), EngineError> {
        timed(&self.1, self.0.unpause()).await
    }

    async fn remove(&self) -> std::result::Result<(), EngineError> {
        timed(&self.1, self.0.remove()).await
    }

    async fn exec(&self, execution: &Execution) -> std::result::Result<Executed, EngineError> {
        timed(&self.1, self.0.exec(execution)).await
    }

    async fn usage(&self) -> std::result::Result<Usage, EngineError> {
        timed(&self.1, self.0.usage()).await
    }

    async fn disk_usage(&self) -> std::result::Result<Option<ByteSize>, EngineError> {
        timed(&self.1, self.0.disk_usage()).await
    }
}
