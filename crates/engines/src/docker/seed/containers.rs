//! Containers by name: does it run, how many run, stop it.
//!
//! Owns: the wait for a start.
//! Reads: the engine's events, inspections and lists.
//! Never: takes silence of the engine for an answer.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use bollard::query_parameters::EventsOptionsBuilder;
use dark_factory_executor::containers::{
    ContainerChecker, ContainerCounter, ContainerStopper, WaitError,
};
use dark_factory_executor::engine::{EngineError, Workload};
use dark_factory_executor::spec::LABEL_PROJECT;
use dark_factory_executor::store::StoreError;
use dark_factory_executor::supervisor::Supervisor;
use dark_factory_types::StopReason;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{sleep, timeout};

use super::executor::known;
use super::found::find;
use crate::docker::client::{Client, Operation};
use crate::docker::container::Phase;
use crate::docker::endpoint::DockerEndpoint;
use crate::docker::listing::{self, Which};

/// Who stops, as causes name it.
pub(super) const CALLER: &str = "the caller";

const EVENTS: Operation = Operation {
    name: "tell its events",
    deadline: Duration::MAX,
};
/// How long to wait before a stream of events that ended is asked for again.
const RETRY: Duration = Duration::from_secs(1);

/// Says whether a container of a Docker engine runs; the twin of the seed's `NewDockerContainerChecker`.
///
/// The seed's needs a clock, since it asks every two seconds; this one is told by the engine.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::collections::BTreeMap;
/// use std::time::Duration;
///
/// use dark_factory_engines::docker::DockerEndpoint;
/// use dark_factory_engines::docker::seed::DockerContainerChecker;
/// use dark_factory_executor::containers::ContainerChecker;
///
/// let checker = DockerContainerChecker::new(&DockerEndpoint::resolve(None, &BTreeMap::new())?);
/// if !checker.is_running("p-042-fix").await? {
///     checker.wait_until_running("p-042-fix", Duration::from_secs(30)).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct DockerContainerChecker {
    client: Client,
}

impl DockerContainerChecker {
    /// Makes a checker for the engine at `endpoint`, which is contacted when something is asked.
    pub fn new(endpoint: &DockerEndpoint) -> Self {
        Self {
            client: Client::new(endpoint.clone()),
        }
    }

    async fn wait(&self, name: &str) -> Result<(), WaitError> {
        let docker = self.client.docker().await?;
        let filters = HashMap::from([
            ("type", vec!["container"]),
            ("container", vec![name]),
            ("event", vec!["start", "die"]),
        ]);
        loop {
            // The few events that the engine still has come again, so that none falls between this and what is
            // inspected; nothing is read out of them.
            let options = EventsOptionsBuilder::default()
                .since("1")
                .filters(&filters)
                .build();
            let mut events = docker.events(Some(options));
            // The request is sent when the first event is asked for.
            let mut first = events.next().now_or_never();
            loop {
                if self.has_started(name).await? {
                    return Ok(());
                }
                let next = match first.take() {
                    Some(next) => next,
                    None => events.next().await,
                };
                match next {
                    Some(Ok(_)) => while let Some(Some(Ok(_))) = events.next().now_or_never() {},
                    Some(Err(error)) => {
                        return Err(EngineError::from(self.client.fault(EVENTS, error)).into());
                    }
                    None => break,
                }
            }
            sleep(RETRY).await;
        }
    }

    async fn has_started(&self, name: &str) -> Result<bool, WaitError> {
        match find(&self.client, name).await? {
            Some(found) if found.is_running() => Ok(true),
            Some(found) if found.phase() == Phase::Ended => Err(WaitError::Ended {
                name: name.to_owned(),
                code: found.exit_code(),
            }),
            Some(_) | None => Ok(false),
        }
    }
}

#[async_trait]
impl ContainerChecker for DockerContainerChecker {
    async fn is_running(&self, name: &str) -> Result<bool, EngineError> {
        Ok(find(&self.client, name)
            .await?
            .is_some_and(|found| found.is_running()))
    }

    async fn wait_until_running(&self, name: &str, limit: Duration) -> Result<(), WaitError> {
        match timeout(limit, self.wait(name)).await {
            Ok(result) => result,
            Err(_) => Err(WaitError::Timeout {
                name: name.to_owned(),
                timeout: limit,
            }),
        }
    }
}

/// Counts the running containers of a Docker engine; the twin of the seed's `NewDockerContainerCounter`.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::collections::BTreeMap;
///
/// use dark_factory_engines::docker::DockerEndpoint;
/// use dark_factory_engines::docker::seed::DockerContainerCounter;
/// use dark_factory_executor::containers::ContainerCounter;
///
/// let counter = DockerContainerCounter::new(&DockerEndpoint::resolve(None, &BTreeMap::new())?);
/// let slots_left = 4_usize.saturating_sub(counter.count_running().await?);
/// # let _ = slots_left;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct DockerContainerCounter {
    client: Client,
}

impl DockerContainerCounter {
    /// Makes a counter for the engine at `endpoint`, which is contacted when something is asked.
    pub fn new(endpoint: &DockerEndpoint) -> Self {
        Self {
            client: Client::new(endpoint.clone()),
        }
    }
}

#[async_trait]
impl ContainerCounter for DockerContainerCounter {
    async fn count_running(&self) -> Result<usize, EngineError> {
        let label = ("label", LABEL_PROJECT);
        let running = listing::containers(&self.client, Which::Running, label);
        Ok(running.await?.len())
    }
}

/// Stops a container of a Docker engine; the twin of the seed's `NewDockerContainerStopper`.
///
/// It is stopped as a workload is: the signal, the grace (10 s, unless it was launched with another), the helper's
/// kill where the helper is in it, the engine's kill.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::collections::BTreeMap;
///
/// use dark_factory_engines::docker::DockerEndpoint;
/// use dark_factory_engines::docker::seed::DockerContainerStopper;
/// use dark_factory_executor::containers::ContainerStopper;
///
/// let stopper = DockerContainerStopper::new(&DockerEndpoint::resolve(None, &BTreeMap::new())?);
/// stopper.stop_container("p-042-fix").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct DockerContainerStopper {
    client: Client,
    supervisor: Option<Supervisor>,
}

impl DockerContainerStopper {
    /// Makes a stopper for the engine at `endpoint`, which is contacted when something is asked.
    ///
    /// It records nothing: an attempt whose container it stops ends as killed from outside.
    pub fn new(endpoint: &DockerEndpoint) -> Self {
        Self {
            client: Client::new(endpoint.clone()),
            supervisor: None,
        }
    }

    /// Records the stop with the attempt that has the container before anything is done, so that it ends as cancelled.
    #[must_use]
    pub fn recording_in(self, supervisor: Supervisor) -> Self {
        Self {
            supervisor: Some(supervisor),
            ..self
        }
    }
}

#[async_trait]
impl ContainerStopper for DockerContainerStopper {
    async fn stop_container(&self, name: &str) -> Result<(), EngineError> {
        let Some(found) = find(&self.client, name).await? else {
            return Ok(());
        };
        found.check_ours()?;
        let mut policy = found.stop_policy();
        if let Some(supervisor) = &self.supervisor {
            let unrecorded = |error: StoreError| EngineError::Failed {
                operation: "stop the container, because the stop cannot be recorded".to_owned(),
                source: error.into(),
            };
            let store = supervisor.store();
            if let Some(attempt) = known(store, &found, name).await.map_err(unrecorded)? {
                let reason = StopReason::Cancelled {
                    by: CALLER.to_owned(),
                };
                store
                    .request_stop(attempt.id, reason, None)
                    .await
                    .map_err(unrecorded)?;
                let now = supervisor.clock().now();
                store
                    .begin_stop(attempt.id, now)
                    .await
                    .map_err(unrecorded)?;
                policy = attempt.spec.stop;
            }
        }
        found.workload().stop(&policy).await
    }
}
