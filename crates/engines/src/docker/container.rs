//! The engine's calls about one container, with what their answers mean.
//!
//! Owns: the container's id and name, and what its handle holds.
//! Reads: status codes.
//! Never: decides when a call is made.

use std::pin::pin;
use std::time::Duration;

use bollard::errors::Error as ClientError;
use bollard::models::{
    ContainerInspectResponse, ContainerState, ContainerStateStatusEnum as Status,
};
use bollard::query_parameters::{
    KillContainerOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
    WaitContainerOptionsBuilder,
};
use dark_factory_executor::engine::{EndedBy, EngineError, EngineExit, Fate, Handle, OomSeen};
use dark_factory_types::{AttemptId, ByteSize, Transport};
use futures_util::StreamExt;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::causes::{self, Witness};
use super::client::{
    ATTACH, Client, Fault, INSPECT, KILL, MEASURE, PAUSE, REMOVE, START, UNPAUSE, WAIT,
};
use super::dialect::{self, Conflict, Dialect, Preparation, Traceless};
use super::identity::missing;

/// How long to wait before an engine that did not answer is asked again.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// Version of [`HandleState`].
const HANDLE_VERSION: u32 = 1;
/// How long the engine may take to see a container as frozen or thawed, and how often it is asked.
const SETTLING: Duration = Duration::from_secs(5);
const SETTLING_PAUSE: Duration = Duration::from_millis(20);

/// What a handle holds for us.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct HandleState {
    /// The container's id.
    id: String,
    /// How its output is read, which decides how it is stopped.
    transport: Transport,
    /// The id of the engine that has it, if that has one and was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    engine: Option<String>,
}

/// One container of the engine.
#[derive(Debug, Clone)]
pub(super) struct Container {
    pub(super) client: Client,
    pub(super) id: String,
    pub(super) name: String,
    pub(super) transport: Transport,
    /// The id of the engine that has it, if it is known: what another one says of it counts for nothing.
    pub(super) engine: Option<String>,
}

/// What is needed of an inspected container to follow it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Looked {
    /// A [`ContainerState`], in the engine's own words.
    #[serde(default)]
    state: Value,
}

/// How large a container is.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Measured {
    /// The bytes of its own layer; -1 if the engine could not measure it.
    size_rw: Option<i64>,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It was never started.
    Created,
    /// It was started and has not ended.
    Running,
    /// It ended.
    Ended,
}

/// What became of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signalled {
    /// It was sent.
    Sent,
    /// There is nothing that runs.
    Ended,
}

/// Whether a container's processes go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Motion {
    Frozen,
    Free,
}

impl Container {
    /// Returns the container that a handle stands for.
    pub(super) fn of(client: &Client, handle: &Handle) -> Result<Self, EngineError> {
        let failed = |source| EngineError::Failed {
            operation: "read the container's handle".to_owned(),
            source,
        };
        if Dialect::named(&handle.engine).is_none() || handle.version != HANDLE_VERSION {
            let reason = format!("it is of {} version {}", handle.engine, handle.version);
            return Err(failed(reason.into()));
        }
        let state: HandleState =
            serde_json::from_value(handle.state.clone()).map_err(|error| failed(error.into()))?;
        Ok(Self {
            client: client.clone(),
            id: state.id,
            name: handle.container.clone(),
            transport: state.transport,
            engine: state.engine,
        })
    }

    /// Returns the container as data.
    pub(super) fn handle(&self, attempt: AttemptId) -> Handle {
        Handle {
            engine: self.client.dialect().name().to_owned(),
            attempt,
            container: self.name.clone(),
            version: HANDLE_VERSION,
            state: serde_json::json!(HandleState {
                id: self.id.clone(),
                transport: self.transport,
                engine: self.engine.clone(),
            }),
        }
    }

    /// Returns the state that the engine knows.
    pub(super) async fn state(&self) -> Result<ContainerState, EngineError> {
        let path = format!("/containers/{}/json", self.id);
        let mut found: Looked = match self.client.ask(INSPECT, &path).await {
            Ok(found) => found,
            Err(fault) => return Err(self.error(fault).await),
        };
        dialect::in_dockers_words(&mut found.state);
        let failed = |source| EngineError::Failed {
            operation: INSPECT.name.to_owned(),
            source,
        };
        let state: Option<ContainerState> =
            serde_json::from_value(found.state).map_err(|error| failed(error.into()))?;
        state
            .filter(|state| state.status.is_some())
            .ok_or_else(|| failed("its answer does not say what state the container is in".into()))
    }

    /// Measures the container's own layer.
    pub(super) async fn written(&self) -> Result<Option<ByteSize>, EngineError> {
        let path = format!("/containers/{}/json?size=1", self.id);
        let measured: Measured = match self.client.ask(MEASURE, &path).await {
            Ok(measured) => measured,
            Err(fault) => return Err(self.error(fault).await),
        };
        match measured.size_rw.map(u64::try_from) {
            None => Ok(None),
            Some(Ok(size)) => Ok(Some(ByteSize(size))),
            Some(Err(_)) => Err(EngineError::Failed {
                operation: MEASURE.name.to_owned(),
                source: "it could not read the container's layer".into(),
            }),
        }
    }

    /// Starts the container; one that was started already is no error.
    pub(super) async fn start(&self) -> Result<(), EngineError> {
        let docker = self.client.docker().await?;
        let start = docker.start_container(&self.id, None::<StartContainerOptions>);
        match self.client.call(START, start).await {
            Ok(()) => Ok(()),
            Err(fault @ Fault::Status { code: 404, .. }) => Err(self.error(fault).await),
            Err(Fault::Status {
                code: 400..500,
                message,
                ..
            }) => Err(self.start_refused(message)),
            Err(Fault::Status {
                code,
                operation,
                message,
            }) => {
                // The runtime's failures come as the server's own: what it left behind says whether it ran.
                let state = self.state().await?;
                match phase(&state) {
                    Phase::Running | Phase::Ended => Ok(()),
                    Phase::Created
                        if state
                            .error
                            .as_deref()
                            .is_some_and(|error| !error.is_empty()) =>
                    {
                        Err(self.start_refused(message))
                    }
                    Phase::Created => match self.client.dialect().traceless_start() {
                        Traceless::Refused => Err(self.start_refused(message)),
                        Traceless::Unknown => Err(Fault::Status {
                            code,
                            operation,
                            message,
                        }
                        .into()),
                    },
                }
            }
            Err(Fault::Other(error)) => Err(error),
        }
    }

    /// Returns why a container that was not started yet cannot be attached to.
    pub(super) async fn unattached(&self, fault: Fault) -> EngineError {
        match fault {
            Fault::Status { code, message, .. }
                if self.client.dialect().preparation(code) == Preparation::MayHaveFailed =>
            {
                match self.state().await {
                    Ok(state) if phase(&state) == Phase::Created => self.start_refused(message),
                    Ok(_) => EngineError::Failed {
                        operation: ATTACH.name.to_owned(),
                        source: message.into(),
                    },
                    Err(error) => error,
                }
            }
            fault => self.error(fault).await,
        }
    }

    /// Waits until the container does not run, and returns the exit code; one that never ran has code 0.
    ///
    /// A wait is silent for as long as the container runs, and so is an engine that froze, or that is at the other
    /// end of a broken network. So every now and then the engine is asked on a connection of its own: it answers, or
    /// it cannot be reached. What it answers counts also where the wait missed it, or has not looked for it yet.
    ///
    /// Cancel-safe.
    pub(super) async fn ended(&self) -> Result<i64, EngineError> {
        Ok(self.end().await?.code)
    }

    /// Does the same, and keeps what a look has seen.
    async fn end(&self) -> Result<End, EngineError> {
        let mut waiting = pin!(self.wait("not-running"));
        let dialect = self.client.dialect();
        let mut silence = dialect.next_look(None);
        loop {
            tokio::select! {
                biased;
                ended = &mut waiting => return ended.map(End::told),
                () = sleep(silence) => silence = dialect.next_look(Some(silence)),
            }
            let state = tokio::select! {
                biased;
                ended = &mut waiting => return ended.map(End::told),
                state = self.state() => state?,
            };
            if phase(&state) == Phase::Ended {
                return Ok(End {
                    code: state.exit_code.unwrap_or_default(),
                    seen: Some(state),
                });
            }
        }
    }

    /// Waits until the container does not run, also through times in which the engine does not answer.
    ///
    /// Cancel-safe.
    pub(super) async fn ended_at_last(&self) -> Result<i64, EngineError> {
        loop {
            match self.ended().await {
                Err(error) if error.fate() == Fate::Unknown => sleep(RETRY).await,
                ended => return ended,
            }
        }
    }

    /// Waits until the container is gone.
    pub(super) async fn removed(&self) -> Result<(), EngineError> {
        match self.wait("removed").await {
            Ok(_) | Err(EngineError::NoSuchContainer { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Waits until the container has ended, and says how.
    ///
    /// Cancel-safe.
    pub(super) async fn exit(&self, witness: Witness) -> Result<EngineExit, EngineError> {
        let End { code, seen } = self.end().await?;
        let state = async {
            match seen {
                Some(state) => Ok(state),
                None => self.state().await,
            }
        };
        let (state, remembered) = tokio::join!(state, causes::remembered(&self.client, &self.id));
        match state {
            Ok(state) if phase(&state) == Phase::Ended => {
                Ok(causes::exit(&self.client, &self.id, &state, remembered, witness).await)
            }
            // Whoever removed it did so after the engine had told the code; and a start that comes late, from a process
            // that died meanwhile, begins nothing of the attempt's.
            Err(EngineError::NoSuchContainer { .. }) => Ok(exit_of(code)),
            Ok(state) if has_ended_before(&state) => Ok(exit_of(code)),
            Ok(state) => Err(EngineError::Failed {
                operation: WAIT.name.to_owned(),
                source: format!("it says that it ended, and that it is {:?}", state.status).into(),
            }),
            Err(error) => Err(error),
        }
    }

    /// Sends a signal to the container's first process.
    pub(super) async fn kill(&self, signal: &str) -> Result<Signalled, EngineError> {
        let docker = self.client.docker().await?;
        let options = KillContainerOptionsBuilder::default()
            .signal(signal)
            .build();
        match self
            .client
            .call(KILL, docker.kill_container(&self.id, Some(options)))
            .await
        {
            Ok(()) => Ok(Signalled::Sent),
            Err(fault) => self.unsignalled(fault).await,
        }
    }

    /// Returns why a signal was not sent, or the error.
    async fn unsignalled(&self, fault: Fault) -> Result<Signalled, EngineError> {
        let conflict = match &fault {
            Fault::Status { code, .. } => self.client.dialect().conflict(*code),
            Fault::Other(_) => Conflict::No,
        };
        let error = match conflict {
            Conflict::Yes => return Ok(Signalled::Ended),
            Conflict::No => self.error(fault).await,
            Conflict::Possible => match self.settled_phase().await {
                Ok(Phase::Created | Phase::Ended) => return Ok(Signalled::Ended),
                Ok(Phase::Running) => fault.into(),
                Err(error) => error,
            },
        };
        match error {
            EngineError::NoSuchContainer { .. } => Ok(Signalled::Ended),
            error => Err(error),
        }
    }

    /// Returns where a container is that refused a signal: what has just ended may be said to run a moment longer.
    async fn settled_phase(&self) -> Result<Phase, EngineError> {
        let begun = Instant::now();
        loop {
            let phase = phase(&self.state().await?);
            if phase != Phase::Running || begun.elapsed() > SETTLING {
                return Ok(phase);
            }
            sleep(SETTLING_PAUSE).await;
        }
    }

    /// Sends a signal to the container's first process, and sees to it that the process can take it.
    ///
    /// A frozen process takes no signal. The engine thaws a container for some signals, depending on its stop signal.
    pub(super) async fn kill_thawed(&self, signal: &str) -> Result<Signalled, EngineError> {
        if self.kill(signal).await? == Signalled::Ended {
            return Ok(Signalled::Ended);
        }
        match self.unpause().await {
            // A signal may have ended it before the engine was asked.
            Ok(()) | Err(EngineError::NoSuchContainer { .. }) => Ok(Signalled::Sent),
            Err(error) => Err(error),
        }
    }

    /// Kills the container and waits for its end; one that does not run is no error.
    pub(super) async fn kill_to_the_end(&self) -> Result<(), EngineError> {
        if self.kill_thawed("SIGKILL").await? == Signalled::Ended {
            return Ok(());
        }
        match timeout(KILL.deadline, self.ended()).await {
            Ok(Ok(_) | Err(EngineError::NoSuchContainer { .. })) => Ok(()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(self.outlives_kill()),
        }
    }

    /// Returns the error for a container that runs on after it was killed.
    pub(super) fn outlives_kill(&self) -> EngineError {
        EngineError::Failed {
            operation: format!("kill container {}", self.name),
            source: "it was sent SIGKILL and still runs".into(),
        }
    }

    /// Freezes the container's processes; one that is frozen is no error.
    pub(super) async fn pause(&self) -> Result<(), EngineError> {
        self.settle(Motion::Frozen).await
    }

    /// Lets the container's processes go on; one that is not frozen is no error.
    pub(super) async fn unpause(&self) -> Result<(), EngineError> {
        self.settle(Motion::Free).await
    }

    /// Freezes or thaws the container, until the engine says that it is so.
    ///
    /// An engine's idea of a container follows what it did by some milliseconds. Until then it would refuse to thaw
    /// what it has just frozen, and the other way round; and whether a refusal means "it is so already" or "not now"
    /// is seen by the state alone.
    async fn settle(&self, wanted: Motion) -> Result<(), EngineError> {
        let begun = Instant::now();
        let mut asked = self.set(wanted).await;
        loop {
            if let Err(Fault::Other(_)) = asked {
                return asked.map_err(EngineError::from);
            }
            let state = self.state().await?;
            let motion = if state.paused == Some(true) {
                Motion::Frozen
            } else {
                Motion::Free
            };
            match phase(&state) {
                Phase::Created | Phase::Ended => return Err(self.gone()),
                Phase::Running if motion == wanted => return Ok(()),
                Phase::Running => {}
            }
            let is_late = begun.elapsed() > SETTLING;
            match asked {
                Err(fault) if is_late => return Err(self.error(fault).await),
                Err(_) => {
                    sleep(SETTLING_PAUSE).await;
                    asked = self.set(wanted).await;
                }
                Ok(()) if is_late => {
                    return Err(EngineError::Failed {
                        operation: format!("freeze or thaw container {}", self.name),
                        source: format!("it did so, and says that it is not {wanted:?}").into(),
                    });
                }
                Ok(()) => sleep(SETTLING_PAUSE).await,
            }
        }
    }

    async fn set(&self, wanted: Motion) -> Result<(), Fault> {
        let docker = self.client.docker().await?;
        match wanted {
            Motion::Frozen => {
                let pause = docker.pause_container(&self.id);
                self.client.call(PAUSE, pause).await
            }
            Motion::Free => {
                let unpause = docker.unpause_container(&self.id);
                self.client.call(UNPAUSE, unpause).await
            }
        }
    }

    /// Removes the ended container with its anonymous volumes; one that is gone is no error.
    pub(super) async fn remove(&self) -> Result<(), EngineError> {
        let docker = self.client.docker().await?;
        let options = RemoveContainerOptionsBuilder::default()
            .force(false)
            .v(true)
            .build();
        let fault = match self
            .client
            .call(REMOVE, docker.remove_container(&self.id, Some(options)))
            .await
        {
            Ok(()) => return Ok(()),
            Err(fault) => fault,
        };
        let dialect = self.client.dialect();
        if !matches!(&fault, Fault::Status { code, .. } if dialect.conflict(*code) != Conflict::No)
        {
            return match self.error(fault).await {
                EngineError::NoSuchContainer { .. } => Ok(()),
                error => Err(error),
            };
        }
        // Somebody else is removing it, or it runs.
        match self.state().await {
            Err(EngineError::NoSuchContainer { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(state) if state.status == Some(Status::REMOVING) => {
                match timeout(REMOVE.deadline, self.removed()).await {
                    Ok(removed) => removed,
                    Err(elapsed) => Err(self.client.unreachable(REMOVE, elapsed)),
                }
            }
            Ok(_) => Err(fault.into()),
        }
    }

    /// Returns the error for a container that does not run (any more).
    fn gone(&self) -> EngineError {
        EngineError::NoSuchContainer {
            name: self.name.clone(),
        }
    }

    /// Returns the error for a container whose helper did not take its spool.
    pub(super) fn untaken(&self, reason: String) -> EngineError {
        EngineError::Handover {
            name: self.name.clone(),
            reason,
        }
    }

    /// Returns what a fault means for this container.
    ///
    /// That there is no such container counts only from the engine that had it.
    pub(super) async fn error(&self, fault: Fault) -> EngineError {
        match fault {
            Fault::Status { code: 404, .. } => {
                missing(&self.client, &self.name, self.engine.as_deref()).await
            }
            fault => fault.into(),
        }
    }

    async fn wait(&self, condition: &str) -> Result<i64, EngineError> {
        let docker = self.client.docker().await?;
        let options = WaitContainerOptionsBuilder::default()
            .condition(condition)
            .build();
        match docker.wait_container(&self.id, Some(options)).next().await {
            // One engine says 0 of what never ran, another one -1.
            Some(Ok(ended)) => Ok(ended.status_code.max(0)),
            // The client takes an exit code that is not 0 for an error.
            Some(Err(ClientError::DockerContainerWaitError { code, .. })) => Ok(code),
            Some(Err(error)) => Err(self.error(self.client.fault(WAIT, error)).await),
            None => Err(self.client.cut(WAIT)),
        }
    }

    fn start_refused(&self, reason: String) -> EngineError {
        EngineError::StartRefused {
            name: self.name.clone(),
            reason,
        }
    }
}

/// The end of a container.
#[derive(Debug)]
struct End {
    code: i64,
    /// The state that it had then, where it was looked at.
    seen: Option<ContainerState>,
}

impl End {
    /// The end that a wait was told.
    fn told(code: i64) -> Self {
        Self { code, seen: None }
    }
}

/// Asks the engine about a container, by id or name.
pub(super) async fn inspect(
    client: &Client,
    name: &str,
) -> Result<ContainerInspectResponse, Fault> {
    let path = format!("/containers/{name}/json");
    let mut found: Value = client.ask(INSPECT, &path).await?;
    if let Some(state) = found.get_mut("State") {
        dialect::in_dockers_words(state);
    }
    serde_json::from_value(found).map_err(|error| {
        Fault::Other(EngineError::Failed {
            operation: INSPECT.name.to_owned(),
            source: error.into(),
        })
    })
}

/// Returns the exit of which nothing but the code is known.
fn exit_of(code: i64) -> EngineExit {
    EngineExit {
        code,
        oom_killed: OomSeen::No,
        error: None,
        ended_by: EndedBy::Unknown,
    }
}

/// Returns whether a container has ended once, whatever it does now: engines keep that time when it is started again.
fn has_ended_before(state: &ContainerState) -> bool {
    let finished = state.finished_at.as_deref().unwrap_or_default();
    let finished: Option<Timestamp> = finished.parse().ok();
    finished.is_some_and(|at| at > Timestamp::UNIX_EPOCH)
}

/// Returns where in its life a container with this state is.
pub(super) fn phase(state: &ContainerState) -> Phase {
    match state.status {
        Some(Status::CREATED) => Phase::Created,
        Some(Status::EXITED | Status::DEAD | Status::REMOVING) => Phase::Ended,
        // What is not known to have ended is left alone.
        Some(
            Status::RUNNING
            | Status::PAUSED
            | Status::RESTARTING
            | Status::STOPPING
            | Status::EMPTY,
        )
        | None => Phase::Running,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dark_factory_types::RunId;

    use super::super::endpoint::DockerEndpoint;
    use super::*;

    #[test]
    fn what_was_started_again_has_ended_before() {
        let state = |finished_at: Option<&str>| ContainerState {
            status: Some(Status::RUNNING),
            finished_at: finished_at.map(str::to_owned),
            ..ContainerState::default()
        };

        assert!(has_ended_before(&state(Some("2026-11-28T14:23:01.5Z"))));
        assert!(!has_ended_before(&state(Some("0001-01-01T00:00:00Z"))));
        assert!(!has_ended_before(&state(None)));
    }

    #[test]
    fn a_handle_keeps_its_engine_and_an_older_one_has_none() {
        let endpoint = DockerEndpoint::resolve(Some("unix:///s"), &BTreeMap::new()).unwrap();
        let container = Container {
            client: Client::new(endpoint),
            id: "abc".to_owned(),
            name: "c".to_owned(),
            transport: Transport::Spool,
            engine: Some("E /data".to_owned()),
        };
        let handle = container.handle(RunId::from_random_bits(1).attempt(1));
        let older = Handle {
            state: serde_json::json!({ "id": "abc", "transport": "spool" }),
            ..handle.clone()
        };

        let read = |handle| Container::of(&container.client, handle).unwrap().engine;
        assert_eq!(read(&handle), container.engine);
        assert_eq!(read(&older), None);
    }
}
