//! Our own part of a run: what is left of it without the engine's calls.
//!
//! Owns: an engine that keeps the time of its calls.
//! Reads: nothing.
//! Never: counts the waiting for an agent.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

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

/// Nanoseconds in calls to an engine.
type Spent = Arc<AtomicU64>;

pub(crate) async fn bench(rig: &Rig, rounds: usize) -> Result<()> {
    // Where nothing is waited for, a write to it made durable is only work.
    let memory = TempDir::new_in("/dev/shm")?;
    let mut disk = Vec::new();
    let mut in_memory = Vec::new();
    let mut own_cpu = Vec::new();
    for round in 0..=rounds {
        let (on_disk, _) = ours(rig, &rig.state()).await?;
        let (without_disk, our_cpu) = ours(rig, memory.path()).await?;
        let api_cpu = bare(rig).await?;
        if round > 0 {
            disk.push(on_disk);
            in_memory.push(without_disk);
            own_cpu.push(our_cpu - api_cpu);
        }
    }
    println!(
        "\nour own part of a run outside engine calls, {rounds} rounds: {:.2} ms wall, {:.2} ms of it waiting for the \
         disk; {:.2} ms CPU more than the bare API calls (goal 1 ms each)",
        median(disk.iter().copied()),
        median(
            disk.iter()
                .zip(&in_memory)
                .map(|(disk, memory)| disk - memory)
        ),
        median(own_cpu),
    );
    Ok(())
}

/// Runs an agent that does nothing; returns milliseconds outside engine calls, and milliseconds of CPU of this process.
async fn ours(rig: &Rig, state: &Path) -> Result<(f64, f64)> {
    let spent = Spent::default();
    let engine = TimedEngine(rig.engine()?, Arc::clone(&spent));
    let supervisor = rig.supervisor(Arc::new(engine), state)?;
    let resolved = rig.resolved(
        &rig.image,
        NetworkMode::None,
        &["/bin/agent", "-e", "exit 0"],
    )?;
    let control = supervisor.control("the bench");
    let (start, before) = (Instant::now(), cpu(UsageWho::RUSAGE_SELF)?);
    supervisor.check().await?;
    let submitted = supervisor.submit(&resolved).await?;
    supervisor
        .run(submitted, Vec::new(), &control, &|_| {})
        .await?;
    let wall = start.elapsed().as_secs_f64() * 1e3;
    let cpu = (cpu(UsageWho::RUSAGE_SELF)? - before).as_secs_f64() * 1e3;
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of one run")]
    let engine = spent.load(Ordering::Relaxed) as f64 / 1e6;
    Ok((wall - engine, cpu))
}

/// Does the same by the API alone; returns milliseconds of CPU of this process.
async fn bare(rig: &Rig) -> Result<f64> {
    let resolved = rig.resolved(
        &rig.image,
        NetworkMode::None,
        &["/bin/agent", "-e", "exit 0"],
    )?;
    let body = api::body(rig, &resolved)?;
    let before = cpu(UsageWho::RUSAGE_SELF)?;
    let created = api::create(&rig.api, body).await?;
    let id = created.id.clone();
    api::start(&rig.api, &id).await?;
    api::drain(created, |_| Ok(())).await?;
    api::wait(&rig.api, &id).await?;
    api::remove(&rig.api, &id).await?;
    Ok((cpu(UsageWho::RUSAGE_SELF)? - before).as_secs_f64() * 1e3)
}

/// Adds the time of a call.
async fn timed<T>(spent: &Spent, call: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let result = call.await;
    let took = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    spent.fetch_add(took, Ordering::Relaxed);
    result
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
