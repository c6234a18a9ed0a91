//! The engine contract over Docker's API.
//!
//! Owns: the order of calls, and what is done when an answer was lost.
//! Reads: launch specs, attempt folders.
//! Never: touches a container that is not ours.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bollard::models::{ContainerCreateBody, ContainerInspectResponse, ImageConfig};
use bollard::query_parameters::CreateContainerOptionsBuilder;
use dark_factory_executor::clock::Clock;
use dark_factory_executor::engine::{
    Capabilities, Description, Engine, EngineError, Fate, Handle, OwnedContainer, OwnedImage,
    PullProgress, Recognized, Recovered, Reopened, Workload,
};
use dark_factory_executor::error::sentence;
use dark_factory_executor::failpoint::reach;
use dark_factory_executor::host::HostView;
use dark_factory_executor::spec::{AttemptDir, LABEL_ATTEMPT, LABEL_OWNER, LaunchSpec, PullPolicy};
use dark_factory_executor::spool::{Handover, SpoolFiles, is_started, open_spool};
use dark_factory_types::{AttemptId, ImageRecord, OwnerId, Transport};
use tokio::time::timeout;

use super::attach::Reader;
use super::causes::{self, Witness};
use super::client::{CREATE, Client, Fault};
use super::container::{Container, Phase, inspect, phase};
use super::dialect::{Conflict, Dialect};
use super::endpoint::{Address, DockerEndpoint};
use super::identity::{EngineIdentity, acquaint, capabilities, engine_of, identity};
use super::logins::Logins;
use super::memory::{self, Note, Place, Whole};
use super::probe::Survey;
use super::workload::DockerWorkload;
use super::{images, listing, lower, probe, reopen};

/// How long the helper may take to ask for its spool; it gives up after the same time.
const HANDOVER: Duration = Duration::from_secs(60);
/// How often a name is tried that is taken by something that cannot be found, and the time in between.
const NAME_TRIES: u32 = 40;
const NAME_PAUSE: Duration = Duration::from_millis(250);
/// How often that is tried where the engine does not say whether it is about the name.
const UNCLEAR_TRIES: u32 = 4;

/// What a create request came to.
enum Created {
    /// The container has this id.
    Made(String),
    /// Something has the name.
    Taken,
    /// Something has the name, or it was refused, in these words.
    Unclear(String),
}

/// A Docker engine, or Podman.
#[derive(Clone)]
pub struct DockerEngine {
    client: Client,
    logins: Logins,
    host: HostView,
    clock: Arc<dyn Clock>,
    /// What was noted of the engine, and need not be asked.
    note: Arc<Mutex<Option<Note>>>,
    /// What it can do, as it was last looked at.
    found: Arc<Mutex<Option<Capabilities>>>,
}

impl fmt::Debug for DockerEngine {
    /// Leaves the host out: its environment may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerEngine")
            .field("endpoint", &self.client.endpoint())
            .finish_non_exhaustive()
    }
}

impl DockerEngine {
    /// Names the engine at `endpoint`; it is contacted when something is asked of it.
    ///
    /// `host` says what stands at the paths of a launch, `clock` what time the records of an attached container
    /// have.
    pub fn connect(endpoint: &DockerEndpoint, host: HostView, clock: Arc<dyn Clock>) -> Self {
        Self {
            client: Client::new(endpoint.clone()),
            logins: Logins::of(&host),
            host,
            clock,
            note: Arc::default(),
            found: Arc::default(),
        }
    }

    /// Asks the engine who it is.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from saying so.
    pub async fn identity(&self) -> Result<EngineIdentity, EngineError> {
        Box::pin(identity(&self.client)).await
    }

    /// Asks what the engine and its host can do, and whether it has an image; nothing is made, and nothing changes.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from saying so.
    pub async fn survey(&self, image: &str) -> Result<Survey, EngineError> {
        probe::survey(&self.client, image).await
    }

    /// Returns what was noted of the engine.
    fn note(&self) -> MutexGuard<'_, Option<Note>> {
        self.note.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what was found that the engine can do.
    fn found(&self) -> MutexGuard<'_, Option<Capabilities>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what an engine can do that may be another one next time; one that takes long to say so is asked once a boot.
    async fn slow_capabilities(&self, notes: &Path) -> Result<Capabilities, EngineError> {
        let place = match (self.client.dialect(), self.client.address()) {
            (Dialect::Podman, Address::Unix(socket)) => {
                Place::of(Path::new(socket), self.clock.moment().boot)
            }
            _ => None,
        };
        let known = place.as_ref().and_then(|place| Whole::read(notes, place));
        if let Some(known) = known {
            return Ok(known.capabilities);
        }
        let found = capabilities(&self.client).await?;
        if let Some(place) = place
            && let Err(error) = Whole::write(notes, place, &found)
        {
            tracing::debug!(%error, "the engine will be asked again what it can do");
        }
        Ok(found)
    }

    /// Returns the engine's lasting id, asked for only where it is not known.
    async fn lasting_id(&self) -> Result<Option<String>, EngineError> {
        let noted = self.client.mark().and_then(|mark| {
            let note = self.note();
            note.as_ref().and_then(|note| note.identity(&mark))
        });
        match noted {
            Some(id) => Ok(Some(id)),
            None => Ok(Box::pin(identity(&self.client)).await?.id),
        }
    }

    /// Returns why a create request was refused: whoever recognized the engine did not ask whether it sees our files.
    async fn refusal(&self, name: &str, reason: String, dir: &AttemptDir) -> EngineError {
        let was_recognized = self.note().take().is_some();
        let seen = match was_recognized {
            true => probe::check(&self.client, dir.path()).await,
            false => Ok(()),
        };
        let reason = match seen {
            Err(error @ EngineError::ForeignFilesystem { .. }) => {
                if let Some(state) = dir.path().parent().and_then(Path::parent) {
                    memory::forget(state);
                }
                let advice = error.advice().map(|advice| format!(" ({advice})"));
                format!("{}{}", error.sentence(), advice.unwrap_or_default())
            }
            _ => reason,
        };
        EngineError::CreateRefused {
            name: name.to_owned(),
            reason,
        }
    }

    /// Returns the create request of an attempt.
    async fn request(
        &self,
        spec: &LaunchSpec,
        owner: &OwnerId,
        dir: &AttemptDir,
    ) -> Result<ContainerCreateBody, EngineError> {
        let image = if spec.command.is_empty() {
            let found = images::inspect(&self.client, &spec.image).await?;
            found
                .ok_or_else(|| images::missing(&spec.image))?
                .config
                .unwrap_or_default()
        } else {
            ImageConfig::default()
        };
        lower::request(spec, owner, dir, &self.host, &image).map_err(|error| {
            EngineError::CreateRefused {
                name: spec.container_name(dir.attempt()),
                reason: sentence(&error),
            }
        })
    }

    /// Sends the create request once.
    async fn create_once(
        &self,
        spec: &LaunchSpec,
        name: &str,
        mut body: ContainerCreateBody,
    ) -> Result<Created, EngineError> {
        let docker = self.client.docker().await?;
        self.client.dialect().adapt(&mut body);
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        match self
            .client
            .call(CREATE, docker.create_container(Some(options), body))
            .await
        {
            Ok(created) => {
                for warning in created.warnings {
                    tracing::warn!(container = name, %warning, "the engine warns");
                }
                Ok(Created::Made(created.id))
            }
            Err(Fault::Status { code: 404, .. }) => Err(images::missing(&spec.image)),
            Err(Fault::Status { code, message, .. })
                if self.client.dialect().conflict(code) != Conflict::No =>
            {
                Ok(match self.client.dialect().conflict(code) {
                    Conflict::Possible => Created::Unclear(message),
                    Conflict::Yes | Conflict::No => Created::Taken,
                })
            }
            Err(Fault::Status {
                code: 400..500,
                message,
                ..
            }) => Err(EngineError::CreateRefused {
                name: name.to_owned(),
                reason: message,
            }),
            // A failure of its own: it may have made the container all the same.
            Err(fault) => Err(fault.into()),
        }
    }

    /// Returns the id of the container that has the name if it is this attempt's; `None` if nothing has it.
    async fn holder(
        &self,
        name: &str,
        owner: &OwnerId,
        attempt: AttemptId,
    ) -> Result<Option<String>, EngineError> {
        let found = match inspect(&self.client, name).await {
            Ok(found) => found,
            Err(Fault::Status { code: 404, .. }) => return Ok(None),
            Err(fault) => return Err(fault.into()),
        };
        // The engine also takes a name for the beginning of an id; then nothing has the name.
        if found
            .name
            .as_deref()
            .map(|name| name.trim_start_matches('/'))
            != Some(name)
        {
            return Ok(None);
        }
        match &found.id {
            Some(id) if is_of(&found, owner, attempt) => Ok(Some(id.clone())),
            _ => Err(EngineError::NameTaken {
                name: name.to_owned(),
                holder: describe(&found),
            }),
        }
    }

    /// Makes the container of an attempt, or finds the one that an earlier call made, and returns its id.
    async fn create_or_find(
        &self,
        spec: &LaunchSpec,
        owner: &OwnerId,
        dir: &AttemptDir,
        name: &str,
    ) -> Result<String, EngineError> {
        let body = self.request(spec, owner, dir).await?;
        // A holder of the name may vanish while we look at it: then the name is free. Or it is being made, by a call of a
        // process that is dead by now: then it has a name before it can be found.
        for tried in 1..=NAME_TRIES {
            let lost = match self.create_once(spec, name, body.clone()).await {
                Ok(Created::Made(id)) => return Ok(id),
                Ok(Created::Taken) => None,
                // Nothing that can be found has had the name for a while: it is refused for another reason.
                Ok(Created::Unclear(reason)) if tried == UNCLEAR_TRIES => {
                    return match self.holder(name, owner, dir.attempt()).await? {
                        Some(id) => Ok(id),
                        None => Err(Box::pin(self.refusal(name, reason, dir)).await),
                    };
                }
                Ok(Created::Unclear(_)) => None,
                Err(error) if error.fate() == Fate::Unknown => Some(error),
                Err(EngineError::CreateRefused { reason, .. }) => {
                    return Err(Box::pin(self.refusal(name, reason, dir)).await);
                }
                Err(error) => return Err(error),
            };
            match (self.holder(name, owner, dir.attempt()).await, lost) {
                (Ok(Some(id)), _) => return Ok(id),
                (Err(error @ EngineError::NameTaken { .. }), _) | (Err(error), None) => {
                    return Err(error);
                }
                (_, Some(lost)) => return Err(lost),
                (Ok(None), None) => tokio::time::sleep(NAME_PAUSE).await,
            }
        }
        Err(EngineError::Failed {
            operation: format!("create container {name}"),
            source: "its name is taken by something that cannot be found".into(),
        })
    }

    async fn start_spool(
        &self,
        container: Container,
        handle: &Handle,
        dir: &AttemptDir,
    ) -> Result<Box<dyn Workload>, EngineError> {
        let spool = open_spool(dir).map_err(|source| local("opening the output spool", source))?;
        let state = container.state().await?;
        let phase = phase(&state);
        // After the state: the spool of a container that has ended is all there is.
        let was_started =
            is_started(dir).map_err(|source| local("reading the output spool", source))?;
        match (phase, was_started) {
            // Started once more it would be another run; and one that took its spool needs nothing of us.
            (Phase::Running, true) => return Ok(DockerWorkload::running(container, handle, None)),
            (Phase::Ended, true) => return Ok(DockerWorkload::found(container, handle, None)),
            (Phase::Ended, false) => {
                let code = state.exit_code.unwrap_or_default();
                return Err(container.untaken(format!("it ended before with code {code}")));
            }
            // An engine that was killed during a start may forget it; the agent must not run once more.
            (Phase::Created, true) => {
                return Err(container.untaken(
                    "the spool shows that its agent ran, and the engine says that it was never started".to_owned(),
                ));
            }
            (Phase::Created | Phase::Running, false) => {}
        }
        self.hand_over(container, phase, handle, dir, &spool).await
    }

    /// Starts a container whose agent was not executed, if it does not run, and gives it its spool.
    async fn hand_over(
        &self,
        container: Container,
        phase: Phase,
        handle: &Handle,
        dir: &AttemptDir,
        spool: &SpoolFiles,
    ) -> Result<Box<dyn Workload>, EngineError> {
        match Box::pin(hand_over(&container, phase, dir, spool)).await {
            // A helper that an earlier supervisor gave the spool, just before that one ended, asks nobody again.
            Err(EngineError::Handover { .. }) if is_started(dir).unwrap_or(false) => {}
            result => result?,
        }
        Ok(DockerWorkload::running(container, handle, None))
    }

    async fn start_attached(
        &self,
        container: Container,
        handle: &Handle,
        dir: &AttemptDir,
    ) -> Result<Box<dyn Workload>, EngineError> {
        let phase = phase(&container.state().await?);
        if phase != Phase::Created {
            let reader = Reader::resume(&container, dir, &self.clock).await?;
            return Ok(if phase == Phase::Running {
                DockerWorkload::running(container, handle, reader)
            } else {
                DockerWorkload::found(container, handle, reader)
            });
        }
        let (reader, started) = Reader::attach(&container, dir, &self.clock).await?;
        container.start().await?;
        started.tell();
        Ok(DockerWorkload::running(container, handle, Some(reader)))
    }
}

#[async_trait]
impl Engine for DockerEngine {
    fn name(&self) -> &'static str {
        self.client.dialect().name()
    }

    fn endpoint(&self) -> String {
        self.client.endpoint()
    }

    async fn identity(&self) -> Result<Option<String>, EngineError> {
        Ok(Self::identity(self).await?.id)
    }

    async fn probe(&self, probe_dir: &Path) -> Result<Capabilities, EngineError> {
        probe::probe(&self.client, probe_dir).await
    }

    async fn recognize(&self, notes: &Path) -> Result<Recognized, EngineError> {
        self.client.docker().await?;
        let note = self.client.mark().and_then(|mark| Note::read(notes, &mark));
        let recognized = match note {
            Some(_) => Recognized::Yes,
            None => Recognized::No,
        };
        *self.found() = note.as_ref().map(|note| note.capabilities.clone());
        *self.note() = note;
        Ok(recognized)
    }

    async fn check(&self, probe_dir: &Path, notes: &Path) -> Result<(), EngineError> {
        // Before it is asked: whoever answers later is not the one that is noted.
        self.client.docker().await?;
        let Some(mark) = self.client.mark() else {
            let ((), capabilities) = tokio::try_join!(
                probe::check(&self.client, probe_dir),
                Box::pin(self.slow_capabilities(notes))
            )?;
            *self.found() = Some(capabilities);
            return Ok(());
        };
        let ((), (identity, capabilities)) = tokio::try_join!(
            probe::check(&self.client, probe_dir),
            Box::pin(acquaint(&self.client))
        )?;
        *self.found() = Some(capabilities.clone());
        let note = Note::new(mark, notes, identity.id, capabilities);
        if let Some(Err(error)) = note.as_ref().map(|note| note.write(notes)) {
            tracing::debug!(%error, "the engine will be asked again");
        }
        *self.note() = note;
        Ok(())
    }

    async fn describe(&self) -> Result<Description, EngineError> {
        probe::describe(&self.client).await
    }

    async fn capabilities(&self) -> Result<Capabilities, EngineError> {
        let found = self.found().clone();
        match found {
            Some(capabilities) => Ok(capabilities),
            None => Box::pin(capabilities(&self.client)).await,
        }
    }

    async fn ensure_image(
        &self,
        image: &str,
        policy: PullPolicy,
        progress: PullProgress<'_>,
    ) -> Result<ImageRecord, EngineError> {
        images::ensure(&self.client, &self.logins, image, policy, progress).await
    }

    async fn create(
        &self,
        spec: &LaunchSpec,
        owner: &OwnerId,
        dir: &AttemptDir,
    ) -> Result<Handle, EngineError> {
        let attempt = dir.attempt();
        let name = spec.container_name(attempt);
        let made = self.create_or_find(spec, owner, dir, &name);
        self.client.docker().await?;
        let (id, engine) = match self.client.dialect() {
            // Who it is takes it as long as making the container, and is not needed before there is one.
            Dialect::Docker => tokio::try_join!(made, self.lasting_id())?,
            Dialect::Podman => {
                let id = made.await?;
                let engine = engine_of(&self.client, &id).await?;
                (id, engine)
            }
        };
        let container = Container {
            client: self.client.clone(),
            id,
            name,
            transport: spec.transport,
            engine,
        };
        Ok(container.handle(attempt))
    }

    async fn start(
        &self,
        _spec: &LaunchSpec,
        handle: &Handle,
        dir: &AttemptDir,
    ) -> Result<Box<dyn Workload>, EngineError> {
        let container = Container::of(&self.client, handle)?;
        match container.transport {
            Transport::Spool => self.start_spool(container, handle, dir).await,
            Transport::Attach => self.start_attached(container, handle, dir).await,
        }
    }

    async fn recover(&self, handle: &Handle) -> Result<Recovered, EngineError> {
        let container = Container::of(&self.client, handle)?;
        let state = match container.state().await {
            Ok(state) => state,
            Err(EngineError::NoSuchContainer { .. }) => return Ok(Recovered::Gone),
            Err(error) => return Err(error),
        };
        Ok(match phase(&state) {
            Phase::Created => Recovered::Created(DockerWorkload::found(container, handle, None)),
            Phase::Running => Recovered::Running(DockerWorkload::running(container, handle, None)),
            Phase::Ended => {
                let remembered = causes::remembered(&self.client, &container.id).await;
                let absent = Witness::Absent;
                let exit =
                    causes::exit(&self.client, &container.id, &state, remembered, absent).await;
                Recovered::Exited(exit, DockerWorkload::found(container, handle, None))
            }
        })
    }

    async fn list_owned(&self, owner: &OwnerId) -> Result<Vec<OwnedContainer>, EngineError> {
        listing::owned(&self.client, owner).await
    }

    async fn remove_owned(
        &self,
        owner: &OwnerId,
        container: &OwnedContainer,
    ) -> Result<(), EngineError> {
        let found = match inspect(&self.client, &container.id).await {
            Ok(found) => found,
            Err(Fault::Status { code: 404, .. }) => return Ok(()),
            Err(fault) => return Err(fault.into()),
        };
        // Whatever else the engine finds by this id is not the container that was listed.
        if found.id.as_ref() != Some(&container.id) {
            return Ok(());
        }
        if label(&found, LABEL_OWNER) != Some(&owner.to_string()) {
            return Err(EngineError::NotOurs {
                name: container.name.clone(),
            });
        }
        let container = Container {
            client: self.client.clone(),
            id: container.id.clone(),
            name: container.name.clone(),
            transport: Transport::Spool,
            engine: None,
        };
        container.kill_to_the_end().await?;
        container.remove().await?;
        let image = found.config.and_then(|config| config.image);
        reopen::remove_image(&self.client, &image.unwrap_or_default()).await
    }

    async fn list_owned_images(&self, owner: &OwnerId) -> Result<Vec<OwnedImage>, EngineError> {
        reopen::unused_images(&self.client, owner).await
    }

    async fn remove_owned_image(&self, image: &OwnedImage) -> Result<(), EngineError> {
        reopen::remove_unused_image(&self.client, image).await
    }

    async fn reopen(
        &self,
        spec: &LaunchSpec,
        owner: &OwnerId,
        dir: &AttemptDir,
        ended: &Handle,
        name: &str,
    ) -> Result<Reopened, EngineError> {
        let kept = Container::of(&self.client, ended)?;
        let image = reopen::image(&kept, name).await?;
        let made = async {
            let body = reopen::request(spec, owner, dir, &self.host, name, &image)?;
            match self.create_once(spec, name, body).await? {
                Created::Made(id) => Ok(id),
                Created::Taken => Err(EngineError::NameTaken {
                    name: name.to_owned(),
                    holder: "unknown id".to_owned(),
                }),
                Created::Unclear(reason) => Err(EngineError::CreateRefused {
                    name: name.to_owned(),
                    reason,
                }),
            }
        };
        let id = match made.await {
            Ok(id) => id,
            Err(error) => {
                reopen::remove_image(&self.client, &image).await?;
                return Err(error);
            }
        };
        let copy = Container {
            id: id.clone(),
            name: name.to_owned(),
            ..kept
        };
        let container = OwnedContainer {
            name: name.to_owned(),
            id,
            attempt: Some(ended.attempt),
            created_at: None,
            is_running: true,
        };
        if let Err(error) = copy.start().await {
            self.remove_owned(owner, &container).await?;
            return Err(error);
        }
        let handle = copy.handle(ended.attempt);
        Ok(Reopened {
            container,
            workload: DockerWorkload::running(copy, &handle, None),
        })
    }
}

/// Starts a container unless that was done, and gives its helper the spool.
async fn hand_over(
    container: &Container,
    phase: Phase,
    dir: &AttemptDir,
    spool: &SpoolFiles,
) -> Result<(), EngineError> {
    let handover =
        Handover::listen(dir).map_err(|source| local("listening for the container", source))?;
    reach(["spool", "listening", "after"])
        .await
        .map_err(|error| local("listening for the container", std::io::Error::other(error)))?;
    let mut handed = pin!(handover.hand_over(spool));
    if phase == Phase::Created {
        let mut start = pin!(container.start());
        // The helper may be there before the engine's answer is.
        tokio::select! {
            biased;
            result = &mut handed => {
                result.map_err(|error| container.untaken(error.to_string()))?;
                // Whatever the answer is, the container was started: its end will tell the rest.
                if let Err(error) = start.await {
                    tracing::warn!(container = %container.name, error = %error.sentence(), "the container runs");
                }
                return Ok(());
            }
            started = &mut start => started?,
        }
    }
    await_handover(handed, container).await
}

/// Waits until the helper has its spool, or cannot get it any more.
async fn await_handover(
    handed: impl Future<Output = std::io::Result<()>>,
    container: &Container,
) -> Result<(), EngineError> {
    let raced = async {
        tokio::select! {
            biased;
            handed = handed => handed.map_err(|error| container.untaken(error.to_string())),
            ended = container.ended_at_last() => match ended {
                Ok(code) => Err(container.untaken(format!("it ended with code {code} before that"))),
                Err(error) => Err(error),
            },
        }
    };
    match timeout(HANDOVER, raced).await {
        Ok(result) => result,
        Err(_) => Err(container.untaken(format!(
            "it did not ask for it within {} s",
            HANDOVER.as_secs()
        ))),
    }
}

/// Returns whether a container was made for this attempt by this installation.
fn is_of(found: &ContainerInspectResponse, owner: &OwnerId, attempt: AttemptId) -> bool {
    let is = |name: &str, value: &str| label(found, name).is_some_and(|found| found == value);
    is(LABEL_OWNER, &owner.to_string()) && is(LABEL_ATTEMPT, &attempt.to_string())
}

fn label<'a>(found: &'a ContainerInspectResponse, name: &str) -> Option<&'a str> {
    found
        .config
        .as_ref()?
        .labels
        .as_ref()?
        .get(name)
        .map(String::as_str)
}

/// Says what is known of a container that is not ours.
fn describe(found: &ContainerInspectResponse) -> String {
    let id: String = found
        .id
        .as_deref()
        .unwrap_or("unknown id")
        .chars()
        .take(12)
        .collect();
    let image = found
        .config
        .as_ref()
        .and_then(|config| config.image.as_deref())
        .unwrap_or("unknown");
    match label(found, LABEL_ATTEMPT) {
        Some(attempt) => format!("{id}, attempt {attempt} of image {image}"),
        None => format!("{id}, image {image}"),
    }
}

fn local(operation: &str, source: std::io::Error) -> EngineError {
    EngineError::Local {
        operation: operation.to_owned(),
        source,
    }
}
