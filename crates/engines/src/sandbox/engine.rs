//! The engine contract over folders and shims.
//!
//! Owns: the order in which a sandbox is made, started and found again.
//! Reads: launch specs, attempt folders.
//! Never: touches a sandbox that is not ours.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dark_factory_executor::clock::Clock;
use dark_factory_executor::engine::{
    Capabilities, Description, Engine, EngineError, Handle, OwnedContainer, OwnedImage,
    PullProgress, Recognized, Recovered, Reopened, Workload,
};
use dark_factory_executor::failpoint::reach;
use dark_factory_executor::host::HostView;
use dark_factory_executor::spec::{AttemptDir, LaunchSpec, PullPolicy};
use dark_factory_executor::spool::{Handover, SpoolFiles, is_started, open_spool};
use dark_factory_types::{ImageRecord, OwnerId};
use tokio::process::Child;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::config::{Ended, SandboxConfig};
use super::folder::{self, Folder, Made, Phase};
use super::images::Images;
use super::lower::{self, Surroundings};
use super::shim_command::ShimCommand;
use super::workload::{Sandbox, SandboxWorkload};
use super::{limits, probe, reopen, tries};

/// The engine's name, as handles hold it.
pub(super) const ENGINE: &str = "sandbox";
/// Version of a handle's state, which is empty: the name says where the folder is.
const HANDLE_VERSION: u32 = 1;
/// How long the helper may take to ask for its spool; it gives up after the same time.
const HANDOVER: Duration = Duration::from_secs(60);
/// How often, and how long each time, is waited for a shim that another process started to say who it is.
const TRIES: u32 = 250;
const PAUSE: Duration = Duration::from_millis(20);

/// The engine that is no daemon: sandboxes of this machine's kernel, each a folder and a shim.
#[derive(Clone)]
pub struct SandboxEngine {
    root: PathBuf,
    shim: ShimCommand,
    host: HostView,
    clock: Arc<dyn Clock>,
    /// What sandboxes can do on this machine, if that was found out already.
    known: Option<Arc<Capabilities>>,
}

impl fmt::Debug for SandboxEngine {
    /// Leaves the host out: its environment may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SandboxEngine")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl SandboxEngine {
    /// Names the engine whose sandboxes are in the folder `root`, which need not be there; `shim` is the program that
    /// lives with each of them.
    ///
    /// `host` says what stands at the paths of a launch, `clock` when something was made.
    pub fn new(root: PathBuf, shim: ShimCommand, host: HostView, clock: Arc<dyn Clock>) -> Self {
        Self {
            root,
            shim,
            host,
            clock,
            known: None,
        }
    }

    /// Takes what [`Self::abilities`] has just said as still so, instead of finding it out again.
    #[must_use]
    pub fn knowing(mut self, abilities: Capabilities) -> Self {
        self.known = Some(Arc::new(abilities));
        self
    }

    fn abilities_now(&self) -> Capabilities {
        match &self.known {
            Some(known) => known.as_ref().clone(),
            None => probe::capabilities(),
        }
    }

    /// Returns what sandboxes can do on this machine: which limits are kept is found out by making control groups, which
    /// are gone at once.
    pub fn abilities() -> Capabilities {
        probe::capabilities()
    }

    /// Returns how sandboxes work on this machine, as pairs of a name and a value.
    pub fn facts() -> Vec<(&'static str, String)> {
        probe::facts(&limits::kept())
    }

    /// Returns what would let more limits be kept on this machine, for people.
    pub fn limits_advice() -> String {
        limits::advice()
    }

    /// Returns what the sandbox of an attempt would be, and makes nothing.
    ///
    /// An image that is an archive is shown as the root file system that it is unpacked to when it is first used; what it
    /// says of itself is not read.
    ///
    /// # Errors
    ///
    /// [`EngineError::CreateRefused`] or [`EngineError::Pull`], as [`Engine::create`] would return them.
    pub fn preview(
        &self,
        spec: &LaunchSpec,
        owner: &OwnerId,
        dir: &AttemptDir,
    ) -> Result<SandboxConfig, EngineError> {
        let image = self.images().preview(&spec.image)?;
        self.lowered(spec, owner, dir, image)
    }

    /// Returns what a sandbox is, on an image that is there.
    fn lowered(
        &self,
        spec: &LaunchSpec,
        owner: &OwnerId,
        dir: &AttemptDir,
        image: lower::Image,
    ) -> Result<SandboxConfig, EngineError> {
        let name = spec.container_name(dir.attempt());
        let around = Surroundings {
            host: &self.host,
            image,
            only_user: probe::only_user(),
            limits: limits::plan(&spec.limits),
            empty: self.sandbox(&name).folder.empty(),
            now: self.clock.now(),
        };
        let config = lower::config(spec, owner, dir, around);
        config.map_err(|refusal| EngineError::CreateRefused {
            name,
            reason: refusal.to_string(),
        })
    }

    /// Returns what sandboxes can be made of.
    pub(super) fn images(&self) -> Images {
        Images::new(&self.root)
    }

    /// Returns the folder of the sandboxes.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the sandbox of a name.
    pub(super) fn sandbox(&self, name: &str) -> Sandbox {
        Sandbox {
            name: name.to_owned(),
            folder: Folder::new(&self.root, name),
            shim: self.shim.clone(),
        }
    }

    /// Returns the sandboxes of an owner.
    pub(super) fn owned_by(&self, owner: &str) -> Result<Vec<Sandbox>, EngineError> {
        let listed = folder::list(&self.root);
        let listed = listed.map_err(|source| local("listing sandboxes", source))?;
        // One that goes while it is looked at is not there; and what cannot be read is not known to be somebody's.
        let is_owned = |folder: &Folder| {
            let config = folder.config().ok().flatten();
            config.is_some_and(|config| config.owner.0 == owner)
        };
        let owned = listed.into_iter().filter(|(_, folder)| is_owned(folder));
        Ok(owned.map(|(name, _)| self.sandbox(&name)).collect())
    }

    /// Returns the sandbox that a handle stands for, and whether its folder is (still) that sandbox's.
    fn held(&self, handle: &Handle) -> Result<(Sandbox, bool), EngineError> {
        if handle.engine != ENGINE || handle.version != HANDLE_VERSION {
            return Err(EngineError::Failed {
                operation: "read the sandbox's handle".to_owned(),
                source: format!("it is of {} version {}", handle.engine, handle.version).into(),
            });
        }
        refuse_name(&handle.container)?;
        let sandbox = self.sandbox(&handle.container);
        let found = sandbox.folder.config();
        let found = found.map_err(sandbox.local("looking at"))?;
        let is_it = found.is_some_and(|config| config.attempt == handle.attempt);
        Ok((sandbox, is_it))
    }

    /// Makes a sandbox, or finds the one that an earlier call made.
    async fn make(&self, name: &str, config: SandboxConfig) -> Result<(), EngineError> {
        let sandbox = self.sandbox(name);
        let folder = sandbox.folder.clone();
        let (attempt, owner) = (config.attempt, config.owner.clone());
        let made = blocking(move || folder.make(&config)).await;
        match made.map_err(sandbox.local("making"))? {
            Made::Yes => Ok(()),
            Made::Taken(Some(held)) if held.attempt == attempt && held.owner == owner => Ok(()),
            Made::Taken(held) => Err(EngineError::NameTaken {
                name: name.to_owned(),
                holder: match held {
                    Some(held) => format!("a sandbox of attempt {}", held.attempt),
                    None => sandbox.folder.path().display().to_string(),
                },
            }),
        }
    }

    /// Starts a sandbox whose agent was not executed, if it does not run, and gives it its spool.
    async fn hand_over(
        &self,
        sandbox: &Sandbox,
        phase: Phase,
        dir: &AttemptDir,
        spool: &SpoolFiles,
    ) -> Result<(), EngineError> {
        let listening = |source| local("listening for the sandbox", source);
        let handover = Handover::listen(dir).map_err(listening)?;
        reach(["spool", "listening", "after"])
            .await
            .map_err(|error| listening(io::Error::other(error)))?;
        let shim = match phase {
            Phase::Running(_) => None,
            _ => Some(self.spawn(sandbox)?),
        };
        let raced = async {
            tokio::select! {
                biased;
                handed = handover.hand_over(spool) => {
                    handed.map_err(|error| untaken(sandbox, error.to_string()))
                }
                ended = ended_early(sandbox, shim) => Err(ended?),
            }
        };
        match timeout(HANDOVER, raced).await {
            Ok(result) => result,
            Err(_) => Err(untaken(
                sandbox,
                format!("it did not ask for it within {} s", HANDOVER.as_secs()),
            )),
        }
    }

    /// Makes what a sandbox's limits need, and starts its shim.
    fn spawn(&self, sandbox: &Sandbox) -> Result<Child, EngineError> {
        let config = sandbox.config()?;
        limits::prepare(&config.limits).map_err(|error| EngineError::StartRefused {
            name: sandbox.name.clone(),
            reason: format!("its limits cannot be set: {error}"),
        })?;
        self.shim
            .spawn(&sandbox.folder)
            .map_err(sandbox.local("starting the shim of"))
    }

    /// Starts a sandbox that needs no spool, and waits until it runs.
    pub(super) async fn start_idle(&self, sandbox: &Sandbox) -> Result<(), EngineError> {
        let mut shim = self.spawn(sandbox)?;
        let mut ended = pin!(shim.wait());
        loop {
            match sandbox.phase()? {
                Phase::Running(living) if living.is_made() => return Ok(()),
                Phase::Running(_) | Phase::Created => {}
                phase => return Err(refusal(sandbox, &phase)),
            }
            tokio::select! {
                biased;
                ended = &mut ended => {
                    ended.map_err(sandbox.local("waiting for the shim of"))?;
                    return Err(refusal(sandbox, &sandbox.phase()?));
                }
                () = sleep(PAUSE) => {}
            }
        }
    }

    /// Makes a sandbox of a name, starts it and returns it.
    pub(super) async fn launch_idle(
        &self,
        name: &str,
        config: SandboxConfig,
    ) -> Result<Sandbox, EngineError> {
        self.make(name, config).await?;
        let sandbox = self.sandbox(name);
        if let Err(error) = self.start_idle(&sandbox).await {
            sandbox.kill_to_the_end().await?;
            sandbox.remove().await?;
            return Err(error);
        }
        Ok(sandbox)
    }
}

/// Waits until a sandbox has ended though its helper did not take its spool, and returns what to say of it.
async fn ended_early(sandbox: &Sandbox, shim: Option<Child>) -> Result<EngineError, EngineError> {
    if let Some(mut shim) = shim {
        let waited = shim.wait().await;
        waited.map_err(sandbox.local("waiting for the shim of"))?;
    }
    // Ours may have left because another one has the sandbox, which says so within a moment.
    for _ in 0..TRIES {
        match sandbox.ended().await? {
            Phase::Created => sleep(PAUSE).await,
            phase => return Ok(refusal(sandbox, &phase)),
        }
    }
    Ok(refusal(sandbox, &Phase::Created))
}

/// Returns the error for a sandbox whose agent was never executed.
fn refusal(sandbox: &Sandbox, phase: &Phase) -> EngineError {
    match phase {
        Phase::Absent => sandbox.gone(),
        Phase::Ended(record) => match &record.ended {
            Ended::NotStarted(reason) => EngineError::StartRefused {
                name: sandbox.name.clone(),
                reason: reason.clone(),
            },
            Ended::Code(code) => untaken(sandbox, format!("it ended with code {code} before that")),
            Ended::Signal(signal) => {
                untaken(sandbox, format!("signal {signal} ended it before that"))
            }
        },
        Phase::Lost => untaken(sandbox, "its shim was killed before that".to_owned()),
        Phase::Created | Phase::Running(_) => EngineError::StartRefused {
            name: sandbox.name.clone(),
            reason: format!("its shim ended at once: {}", sandbox.folder.last_words()),
        },
    }
}

/// Returns the error for a sandbox whose helper did not take its spool.
fn untaken(sandbox: &Sandbox, reason: String) -> EngineError {
    EngineError::Handover {
        name: sandbox.name.clone(),
        reason,
    }
}

fn local(operation: &str, source: io::Error) -> EngineError {
    EngineError::Local {
        operation: operation.to_owned(),
        source,
    }
}

fn refuse_name(name: &str) -> Result<(), EngineError> {
    lower::check_name(name).map_err(|error| EngineError::CreateRefused {
        name: name.to_owned(),
        reason: error.to_string(),
    })
}

/// Does what may take a while on a disk without keeping anybody else waiting.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

#[async_trait]
impl Engine for SandboxEngine {
    fn name(&self) -> &'static str {
        ENGINE
    }

    fn endpoint(&self) -> String {
        ENGINE.to_owned()
    }

    async fn identity(&self) -> Result<Option<String>, EngineError> {
        Ok(Some(format!("{ENGINE} {}", self.root.display())))
    }

    async fn probe(&self, _probe_dir: &Path) -> Result<Capabilities, EngineError> {
        probe::try_one(self, self.clock.now()).await?;
        Ok(self.abilities_now())
    }

    async fn recognize(&self, notes: &Path) -> Result<Recognized, EngineError> {
        Ok(probe::recognize(notes))
    }

    async fn check(&self, _probe_dir: &Path, notes: &Path) -> Result<(), EngineError> {
        probe::try_one(self, self.clock.now()).await?;
        probe::note(notes);
        Ok(())
    }

    async fn describe(&self) -> Result<Description, EngineError> {
        let capabilities = self.abilities_now();
        Ok(Description {
            facts: probe::facts(&capabilities.limits),
            capabilities,
            data_dir: Some(self.root.clone()),
            time: Some(self.clock.now()),
        })
    }

    async fn capabilities(&self) -> Result<Capabilities, EngineError> {
        Ok(self.abilities_now())
    }

    async fn ensure_image(
        &self,
        image: &str,
        _policy: PullPolicy,
        _progress: PullProgress<'_>,
    ) -> Result<ImageRecord, EngineError> {
        let (images, reference, now) = (self.images(), image.to_owned(), self.clock.now());
        spawn_blocking(move || images.ensure(&reference, now))
            .await
            .map_err(|error| local("reading the image", io::Error::other(error)))?
    }

    async fn create(
        &self,
        spec: &LaunchSpec,
        owner: &OwnerId,
        dir: &AttemptDir,
    ) -> Result<Handle, EngineError> {
        let name = spec.container_name(dir.attempt());
        refuse_name(&name)?;
        let (images, reference, now) = (self.images(), spec.image.clone(), self.clock.now());
        // Until the sandbox is made, nothing says that the image is used.
        let held = spawn_blocking(move || images.image(&reference, now))
            .await
            .map_err(|error| local("reading the image", io::Error::other(error)))??;
        let config = self.lowered(spec, owner, dir, held.image.clone())?;
        self.make(&name, config).await?;
        drop(held);
        Ok(Handle {
            engine: ENGINE.to_owned(),
            attempt: dir.attempt(),
            container: name,
            version: HANDLE_VERSION,
            state: serde_json::json!({}),
        })
    }

    async fn start(
        &self,
        _spec: &LaunchSpec,
        handle: &Handle,
        dir: &AttemptDir,
    ) -> Result<Box<dyn Workload>, EngineError> {
        let (sandbox, is_it) = self.held(handle)?;
        if !is_it {
            return Err(sandbox.gone());
        }
        let spool = open_spool(dir).map_err(|source| local("opening the output spool", source))?;
        let phase = sandbox.phase()?;
        // After the phase: the spool of a sandbox that has ended is all there is.
        let was_started =
            is_started(dir).map_err(|source| local("reading the output spool", source))?;
        match (phase, was_started) {
            // Started once more it would be another run; and one that took its spool needs nothing of us.
            (Phase::Running(_) | Phase::Ended(_) | Phase::Lost, true) => {}
            (Phase::Absent, _) => return Err(sandbox.gone()),
            (Phase::Created, true) => {
                return Err(untaken(
                    &sandbox,
                    "the spool shows that its agent ran, and there is no trace of its shim"
                        .to_owned(),
                ));
            }
            (phase @ (Phase::Ended(_) | Phase::Lost), false) => {
                return Err(refusal(&sandbox, &phase));
            }
            (phase @ (Phase::Created | Phase::Running(_)), false) => {
                match Box::pin(self.hand_over(&sandbox, phase, dir, &spool)).await {
                    // A helper that an earlier supervisor gave the spool, just before that one ended, asks nobody again.
                    Err(EngineError::Handover { .. }) if is_started(dir).unwrap_or(false) => {}
                    result => result?,
                }
            }
        }
        Ok(SandboxWorkload::new(sandbox, handle))
    }

    async fn recover(&self, handle: &Handle) -> Result<Recovered, EngineError> {
        let (sandbox, is_it) = self.held(handle)?;
        if !is_it {
            return Ok(Recovered::Gone);
        }
        let phase = match sandbox.phase()? {
            // What nobody saw the end of is gone once nothing of it is left: nobody can say more of it, and what is
            // listed is not gone.
            Phase::Lost => {
                sandbox.ended().await?;
                sandbox.remove().await?;
                Phase::Absent
            }
            phase => phase,
        };
        let exit = match &phase {
            Phase::Ended(record) => Some(sandbox.exit(record)),
            _ => None,
        };
        let workload = SandboxWorkload::new(sandbox, handle);
        Ok(match (phase, exit) {
            (Phase::Created, _) => Recovered::Created(workload),
            (Phase::Running(_), _) => Recovered::Running(workload),
            (_, Some(exit)) => Recovered::Exited(exit, workload),
            _ => Recovered::Gone,
        })
    }

    async fn list_owned(&self, owner: &OwnerId) -> Result<Vec<OwnedContainer>, EngineError> {
        tries::clear(self).await?;
        let mut owned = Vec::new();
        for sandbox in self.owned_by(&owner.0)? {
            let Ok(config) = sandbox.config() else {
                continue;
            };
            owned.push(OwnedContainer {
                id: sandbox.name.clone(),
                attempt: Some(config.attempt),
                created_at: Some(config.created_at),
                is_running: !matches!(
                    sandbox.folder.phase(),
                    Ok(Phase::Absent | Phase::Created | Phase::Ended(_) | Phase::Lost)
                ),
                name: sandbox.name,
            });
        }
        Ok(owned)
    }

    async fn remove_owned(
        &self,
        owner: &OwnerId,
        container: &OwnedContainer,
    ) -> Result<(), EngineError> {
        refuse_name(&container.id)?;
        let sandbox = self.sandbox(&container.id);
        let found = sandbox.folder.config();
        match found.map_err(sandbox.local("looking at"))? {
            None if !sandbox.folder.path().exists() => return Ok(()),
            None => {
                return Err(EngineError::NotOurs {
                    name: container.name.clone(),
                });
            }
            Some(config) if config.owner != *owner => {
                return Err(EngineError::NotOurs {
                    name: container.name.clone(),
                });
            }
            // Another one has its name by now.
            Some(config) if container.attempt.is_some_and(|it| it != config.attempt) => {
                return Ok(());
            }
            Some(_) => {}
        }
        sandbox.kill_to_the_end().await?;
        sandbox.remove().await
    }

    async fn list_owned_images(&self, _owner: &OwnerId) -> Result<Vec<OwnedImage>, EngineError> {
        // Nothing that a sandbox wrote is outside of what was mounted.
        Ok(Vec::new())
    }

    async fn remove_owned_image(&self, _image: &OwnedImage) -> Result<(), EngineError> {
        Ok(())
    }

    async fn reopen(
        &self,
        spec: &LaunchSpec,
        owner: &OwnerId,
        dir: &AttemptDir,
        ended: &Handle,
        name: &str,
    ) -> Result<Reopened, EngineError> {
        refuse_name(name)?;
        let (kept, is_it) = self.held(ended)?;
        if !is_it {
            return Err(kept.gone());
        }
        let copy = reopen::config(kept.config()?, spec, dir, self.clock.now());
        let sandbox = self.launch_idle(name, copy).await?;
        let handle = Handle {
            container: name.to_owned(),
            ..ended.clone()
        };
        tracing::debug!(sandbox = name, %owner, "a copy runs");
        Ok(Reopened {
            container: OwnedContainer {
                name: name.to_owned(),
                id: name.to_owned(),
                attempt: Some(ended.attempt),
                created_at: None,
                is_running: true,
            },
            workload: SandboxWorkload::new(sandbox, &handle),
        })
    }
}
