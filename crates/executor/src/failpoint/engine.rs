//! An engine with a fail point before and behind each of its calls.
//!
//! Owns: nothing: it passes on.
//! Reads: the fail points.
//! Never: is part of a build without the feature `failpoints`.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use dark_factory_types::{ByteSize, ImageRecord, OwnerId};

use super::reach;
use crate::engine::{
    Capabilities, Description, Engine, EngineError, EngineExit, Executed, Execution, Handle,
    OwnedContainer, OwnedImage, PullProgress, Recognized, Recovered, Reopened, Usage, Workload,
};
use crate::spec::{AttemptDir, LaunchSpec, PullPolicy, StopPolicy};

/// Reaches a point of a call; an error there is an engine that did not answer.
async fn point(call: &'static str, side: &'static str) -> Result<(), EngineError> {
    reach(["engine", call, side])
        .await
        .map_err(|error| EngineError::Unreachable {
            endpoint: "a fail point".to_owned(),
            operation: call,
            source: error.into(),
        })
}

/// Makes a call between its two points.
async fn between<T>(
    call: &'static str,
    work: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    point(call, "before").await?;
    let result = work.await;
    point(call, "after").await?;
    result
}

/// The engine.
#[derive(Debug)]
pub(crate) struct FaultyEngine(pub(crate) Arc<dyn Engine>);

/// One of its workloads.
#[derive(Debug)]
struct FaultyWorkload(Box<dyn Workload>);

fn faulty(workload: Box<dyn Workload>) -> Box<dyn Workload> {
    Box::new(FaultyWorkload(workload))
}

#[async_trait]
impl Engine for FaultyEngine {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn endpoint(&self) -> String {
        self.0.endpoint()
    }

    async fn identity(&self) -> Result<Option<String>, EngineError> {
        self.0.identity().await
    }

    async fn probe(&self, probe_dir: &Path) -> Result<Capabilities, EngineError> {
        self.0.probe(probe_dir).await
    }

    async fn recognize(&self, notes: &Path) -> Result<Recognized, EngineError> {
        self.0.recognize(notes).await
    }

    async fn check(&self, probe_dir: &Path, notes: &Path) -> Result<(), EngineError> {
        self.0.check(probe_dir, notes).await
    }

    async fn describe(&self) -> Result<Description, EngineError> {
        self.0.describe().await
    }

    async fn capabilities(&self) -> Result<Capabilities, EngineError> {
        self.0.capabilities().await
    }

    async fn ensure_image(
        &self,
        image: &str,
        policy: PullPolicy,
        progress: PullProgress<'_>,
    ) -> Result<ImageRecord, EngineError> {
        between("image", self.0.ensure_image(image, policy, progress)).await
    }

    async fn create(
        &self,
        spec: &LaunchSpec,
        owner: &OwnerId,
        dir: &AttemptDir,
    ) -> Result<Handle, EngineError> {
        between("create", self.0.create(spec, owner, dir)).await
    }

    async fn start(
        &self,
        spec: &LaunchSpec,
        handle: &Handle,
        dir: &AttemptDir,
    ) -> Result<Box<dyn Workload>, EngineError> {
        between("start", self.0.start(spec, handle, dir))
            .await
            .map(faulty)
    }

    async fn recover(&self, handle: &Handle) -> Result<Recovered, EngineError> {
        let recovered = between("recover", self.0.recover(handle)).await?;
        Ok(match recovered {
            Recovered::Created(workload) => Recovered::Created(faulty(workload)),
            Recovered::Running(workload) => Recovered::Running(faulty(workload)),
            Recovered::Exited(exit, workload) => Recovered::Exited(exit, faulty(workload)),
            Recovered::Gone => Recovered::Gone,
        })
    }

    async fn list_owned(&self, owner: &OwnerId) -> Result<Vec<OwnedContainer>, EngineError> {
        between("list", self.0.list_owned(owner)).await
    }

    async fn remove_owned(
        &self,
        owner: &OwnerId,
        container: &OwnedContainer,
    ) -> Result<(), EngineError> {
        between("remove_owned", self.0.remove_owned(owner, container)).await
    }

    async fn list_owned_images(&self, owner: &OwnerId) -> Result<Vec<OwnedImage>, EngineError> {
        self.0.list_owned_images(owner).await
    }

    async fn remove_owned_image(&self, image: &OwnedImage) -> Result<(), EngineError> {
        between("remove_owned_image", self.0.remove_owned_image(image)).await
    }

    async fn reopen(
        &self,
        spec: &LaunchSpec,
        owner: &OwnerId,
        dir: &AttemptDir,
        ended: &Handle,
        name: &str,
    ) -> Result<Reopened, EngineError> {
        self.0.reopen(spec, owner, dir, ended, name).await
    }
}

#[async_trait]
impl Workload for FaultyWorkload {
    fn handle(&self) -> &Handle {
        self.0.handle()
    }

    async fn wait(&self) -> Result<EngineExit, EngineError> {
        between("wait", self.0.wait()).await
    }

    async fn stop(&self, policy: &StopPolicy) -> Result<(), EngineError> {
        between("stop", self.0.stop(policy)).await
    }

    async fn pause(&self) -> Result<(), EngineError> {
        between("pause", self.0.pause()).await
    }

    async fn unpause(&self) -> Result<(), EngineError> {
        between("unpause", self.0.unpause()).await
    }

    async fn exec(&self, execution: &Execution) -> Result<Executed, EngineError> {
        self.0.exec(execution).await
    }

    async fn usage(&self) -> Result<Usage, EngineError> {
        self.0.usage().await
    }

    async fn disk_usage(&self) -> Result<Option<ByteSize>, EngineError> {
        self.0.disk_usage().await
    }

    async fn remove(&self) -> Result<(), EngineError> {
        between("remove", self.0.remove()).await
    }
}
