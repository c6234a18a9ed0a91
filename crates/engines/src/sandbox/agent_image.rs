//! Images for agents in sandboxes: the agent's own files, to be mounted on a base.
//!
//! A base is this machine's own system, a folder, or an archive, and is looked up again for each sandbox; an image has the
//! files out of the wheel, and the name of its base.
//!
//! Owns: how an image is made, tried and removed.
//! Reads: wheels, the user's cache.
//! Never: executes an agent's files outside a sandbox.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{self, BufReader, BufWriter, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use dark_factory_executor::engine::{EngineError, Executed, Execution};
use dark_factory_executor::spec::HARDENED_HOME;
use dark_factory_types::{AttemptId, ByteSize, OwnerId, RunId};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use rustix::process::{getgid, getuid};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::config::{Network, SandboxConfig, SandboxLimits, Tmpfs};
use super::engine::SandboxEngine;
use super::exec::exec;
use super::folder::{self, Phase};
use super::image_list;
use super::image_store::{AgentNote, Hold, ImageNote, ImageStore, NewImage};
use super::images::{self, AGENT_FILES, HOST, Images};
use super::lower::{CONFIG_VERSION, Image, environment};
use super::unpack::{self, architecture};
use crate::agent_image::{
    AgentImageError, AgentImageRequest, Base, BuildProgress, BuiltImage, Extent, Files,
    ListedImage, REVISION, Rebuild, Recipe, Source, digest, expected, require_room,
    unless_cancelled, version,
};

/// Room that an agent's files take.
const ROOM: ByteSize = ByteSize(1 << 30);
/// The owner of the sandboxes in which agents are tried, which nobody else is.
const OWNER: &str = "image";
/// Who tries an agent for root.
const NOBODY: u32 = 65534;
/// What is there while an agent is tried, for no longer than that may take.
const IDLE: [&str; 3] = ["/bin/sh", "-c", "exec sleep 300"];
/// Whether an agent will find what it needs, and starts: a base without glibc, or for another machine, shows now.
const TRIAL: &str = "command -v git >/dev/null 2>&1 || { echo 'there is no git in it'; exit 1; }\n\
                     exec \"$1\" --version </dev/null";
/// How long that may take, and what of its words is read.
const PATIENCE: Duration = Duration::from_secs(120);
const WORDS: usize = 4096;
/// Room for what an agent writes when it is started.
const TMPFS: ByteSize = ByteSize(256 << 20);
const TMPFS_FILES: u64 = 65536;

/// The agents' images of the embedded sandbox, and the archives that were unpacked for it.
#[derive(Debug, Clone)]
pub struct SandboxImages {
    engine: SandboxEngine,
    images: Images,
}

impl SandboxImages {
    /// Names the images of an engine.
    pub fn new(engine: SandboxEngine) -> Self {
        Self {
            images: engine.images(),
            engine,
        }
    }

    /// Returns whether there is an image of this name.
    ///
    /// # Errors
    ///
    /// [`AgentImageError::Local`] if that cannot be read.
    pub fn has_image(&self, name: &str) -> Result<bool, AgentImageError> {
        let found = self.store().named(&images::with_tag(name));
        Ok(found.map_err(reading)?.is_some())
    }

    /// Makes an agent's image.
    ///
    /// It gets its names last, so a build that fails changes nothing that had them. `cancel` ends it early.
    ///
    /// # Errors
    ///
    /// [`AgentImageError`]; nothing of the build is left but the wheel in the cache.
    pub async fn build(
        &self,
        request: &AgentImageRequest,
        cancel: &CancellationToken,
        progress: BuildProgress<'_>,
    ) -> Result<BuiltImage, AgentImageError> {
        let recipe = request.recipe;
        let latest = request.image()?;
        let base = base(&request.base)?;
        let arch = architecture();
        let files = unless_cancelled(cancel, Files::find(request, arch)).await?;
        let base_digest = self.base_digest(&base, request.created).await?;
        let made_of = digest(&[
            &REVISION.to_string(),
            recipe.agent,
            files.digest(),
            &base_digest,
        ]);
        let before = self.store().named(&latest).map_err(reading)?;
        if let (Rebuild::IfOutdated, Some(before)) = (request.rebuild, before)
            && let Some(agent) = before.note.agent
            && agent.recipe == made_of
        {
            return Ok(built(recipe, agent, vec![latest], Freshness::Known));
        }
        let hold = self.hold().await?;
        require_room(
            self.store().path(),
            ROOM,
            "the image",
            "name another state folder with --state-dir",
        )?;
        let provided = files.provide(request, arch, &mut *progress);
        let source = unless_cancelled(cancel, provided).await?;
        let mut agent = AgentNote {
            agent: recipe.agent.to_owned(),
            version: String::new(),
            base,
            source: source.name(),
            recipe: made_of,
        };
        progress(&format!("unpacking {}", recipe.title));
        let new = self.store().begin(&hold).map_err(making)?;
        let (new, bytes) = fill(recipe, source, new).await?;
        if cancel.is_cancelled() {
            return Err(AgentImageError::Interrupted);
        }
        progress(&format!("starting {} once", recipe.title));
        let image = self.images.held(&agent.base, &hold, request.created)?;
        let image = images::with_agent(image, &new.files());
        agent.version = self.try_agent(recipe, image, request, cancel).await?;
        let note = ImageNote {
            bytes,
            made: Some(request.created),
            agent: Some(agent.clone()),
            ..ImageNote::default()
        };
        let mut names = vec![latest];
        if request.tag.is_none() {
            names.push(format!("{}:{}", recipe.repository(), agent.version));
        }
        self.keep(new, recipe, note, names.clone(), hold).await?;
        self.tidy(request.created).await;
        Ok(built(recipe, agent, names, Freshness::New))
    }

    /// Lists the images: those of agents under each of their names, and unpacked archives.
    ///
    /// # Errors
    ///
    /// [`AgentImageError::Local`] if they cannot be read.
    pub fn list(&self) -> Result<Vec<ListedImage>, AgentImageError> {
        let stored = self.store().list().map_err(reading)?;
        let mut listed: Vec<ListedImage> =
            stored.into_iter().flat_map(image_list::listed).collect();
        listed.sort_by(|one, other| one.reference.cmp(&other.reference));
        Ok(listed)
    }

    /// Removes the images of an agent, one by its name, or an unpacked archive by its path or id; returns the names that
    /// are gone. Waits until nobody makes an image.
    ///
    /// # Errors
    ///
    /// [`AgentImageError::NoSuchImage`], [`AgentImageError::InUse`] while a sandbox is made of it, or
    /// [`AgentImageError::Local`].
    pub async fn remove(&self, name: &str) -> Result<Vec<String>, AgentImageError> {
        let (store, name) = (self.store().clone(), name.to_owned());
        spawn_blocking(move || image_list::remove(&store, &name))
            .await
            .map_err(|error| making(error.into()))?
    }

    fn store(&self) -> &ImageStore {
        &self.images.store
    }

    async fn hold(&self) -> Result<Hold, AgentImageError> {
        let store = self.store().clone();
        let held = spawn_blocking(move || store.hold()).await;
        held.map_err(io::Error::from).flatten().map_err(making)
    }

    /// Makes sure that a base is there, and returns what tells it from others.
    async fn base_digest(&self, base: &str, now: Timestamp) -> Result<String, AgentImageError> {
        let (images, reference) = (self.images.clone(), base.to_owned());
        let ensured = spawn_blocking(move || images.ensure(&reference, now)).await;
        let ensured = ensured.map_err(|error| making(error.into()))?;
        let record = ensured.map_err(|source| AgentImageError::Base {
            image: base.to_owned(),
            source,
        })?;
        Ok(record.digest)
    }

    /// Starts an agent once, as a run would; returns its version.
    async fn try_agent(
        &self,
        recipe: &'static Recipe,
        image: Image,
        request: &AgentImageRequest,
        cancel: &CancellationToken,
    ) -> Result<String, AgentImageError> {
        let unfit = |reason: String| AgentImageError::Unfit {
            title: recipe.title,
            base: match &request.base {
                Base::Image(base) => base.clone(),
                Base::Automatic | Base::Debootstrap => HOST.to_owned(),
            },
            reason,
        };
        let name = format!("{OWNER}-{}", Uuid::new_v4().simple());
        let launched = self
            .engine
            .launch_idle(&name, trial(image, request.created));
        let sandbox = launched.await.map_err(|error| match error {
            EngineError::StartRefused { reason, .. } => {
                unfit(format!("/bin/sh cannot be started: {reason}"))
            }
            error => error.into(),
        })?;
        let said = async {
            let words = ["/bin/sh", "-c", TRIAL, "trial", recipe.agent];
            let execution = Execution {
                argv: words.map(str::to_owned).to_vec(),
                env: BTreeMap::new(),
                terminal: None,
            };
            let executed = exec(&sandbox.shim, &sandbox.folder, &execution)?;
            match timeout(PATIENCE, said(executed)).await {
                Ok(said) => said,
                Err(_) => Ok((
                    -1,
                    format!("--version did not end within {} s", PATIENCE.as_secs()),
                )),
            }
        };
        let said = unless_cancelled(cancel, async { Ok(said.await?) }).await;
        sandbox.kill_to_the_end().await?;
        sandbox.remove().await?;
        let (code, said) = said?;
        match version(&said) {
            Some(version) if code == 0 => Ok(version.to_owned()),
            None if code == 0 => Err(unfit(format!("--version prints no version: {said}"))),
            _ => Err(unfit(said)),
        }
    }

    /// Makes the image one that is kept, and names it.
    async fn keep(
        &self,
        new: NewImage,
        recipe: &'static Recipe,
        note: ImageNote,
        names: Vec<String>,
        hold: Hold,
    ) -> Result<(), AgentImageError> {
        let store = self.store().clone();
        let kept = spawn_blocking(move || {
            let id = format!("{}-{}", recipe.agent, Uuid::new_v4().simple());
            let kept = store.keep(&new, &id, &note, &hold)?;
            names
                .iter()
                .try_for_each(|name| store.name(&kept, name, &hold))
        });
        let kept = kept.await.map_err(io::Error::from).flatten();
        kept.map_err(making)
    }

    /// Removes what earlier builds have left: the image that had the names, and sandboxes whose builder was killed.
    async fn tidy(&self, now: Timestamp) {
        let store = self.store().clone();
        let pruned = spawn_blocking(move || store.prune(now)).await;
        if let Err(error) = pruned.map_err(io::Error::from).flatten() {
            tracing::debug!(%error, "older images stay for the next time");
        }
        let Ok(sandboxes) = folder::list(self.engine.root()) else {
            return;
        };
        for (name, folder) in sandboxes {
            let is_ours = |config: SandboxConfig| config.owner.0 == OWNER;
            let has_ended = matches!(folder.phase(), Ok(Phase::Ended(_) | Phase::Lost));
            if has_ended
                && folder
                    .config()
                    .is_ok_and(|found| found.is_some_and(is_ours))
            {
                let removed = self.engine.sandbox(&name).remove().await;
                if let Err(error) = removed {
                    tracing::debug!(%error, "it stays for the next time");
                }
            }
        }
    }
}

/// Whether an image was made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Freshness {
    New,
    Known,
}

fn built(
    recipe: &'static Recipe,
    agent: AgentNote,
    references: Vec<String>,
    freshness: Freshness,
) -> BuiltImage {
    BuiltImage {
        agent: recipe.agent,
        agent_version: agent.version,
        references,
        id: format!("sha256:{}", agent.recipe),
        built: freshness == Freshness::New,
    }
}

/// Returns the reference of a base.
fn base(base: &Base) -> Result<String, AgentImageError> {
    match base {
        Base::Automatic => Ok(HOST.to_owned()),
        Base::Image(reference) if reference == HOST || Path::new(reference).is_absolute() => {
            Ok(reference.clone())
        }
        Base::Image(reference) => Err(AgentImageError::SandboxBase {
            base: reference.clone(),
        }),
        Base::Debootstrap => Err(AgentImageError::SandboxBase {
            base: "debootstrap".to_owned(),
        }),
    }
}

/// Unpacks an agent's files; returns how many bytes they have.
async fn fill(
    recipe: &'static Recipe,
    source: Source,
    new: NewImage,
) -> Result<(NewImage, u64), AgentImageError> {
    let path = source.path().to_owned();
    let filled = spawn_blocking(move || {
        let bytes = unpack_agent(recipe, &source, &new.files());
        (new, bytes)
    });
    let (new, bytes) = filled.await.map_err(|error| making(error.into()))?;
    match bytes {
        Ok(bytes) => Ok((new, bytes)),
        Err(Unfilled::Read(error)) => Err(AgentImageError::Source {
            path,
            agent: recipe.agent,
            reason: format!("it cannot be unpacked: {error}"),
            expected: expected(recipe, None),
        }),
        Err(Unfilled::Written(error)) => Err(making(error)),
    }
}

/// Which side of an unpacking failed.
enum Unfilled {
    Read(io::Error),
    Written(io::Error),
}

/// Unpacks an agent's files into a folder as they are read. Blocks.
fn unpack_agent(recipe: &Recipe, source: &Source, folder: &Path) -> Result<u64, Unfilled> {
    let (reader, writer) = io::pipe().map_err(Unfilled::Written)?;
    let (read, written) = std::thread::scope(|scope| {
        let reading = scope.spawn(move || {
            let mut output = BufWriter::new(writer);
            source.write_archive(&mut output)?;
            output.flush()
        });
        let written = unpack::unpack_archive(BufReader::new(reader), folder);
        (reading.join(), written)
    });
    let read = read.unwrap_or_else(|_| Err(io::Error::other("its reader panicked")));
    match (read, written) {
        // It could not go on because nobody took it any more.
        (Err(error), Ok(_)) => Err(Unfilled::Read(error)),
        (Err(error), Err(_)) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Unfilled::Read(error))
        }
        (_, Err(error)) => Err(Unfilled::Written(error)),
        (Ok(()), Ok(bytes)) => match link(recipe, folder) {
            Ok(()) => Ok(bytes),
            Err(error) => Err(Unfilled::Written(error)),
        },
    }
}

/// Makes an agent whose files stand in a folder of their own be found.
fn link(recipe: &Recipe, folder: &Path) -> io::Result<()> {
    if recipe.extent == Extent::Executable {
        return Ok(());
    }
    let bin = folder.join(AGENT_FILES).join("bin");
    let to = Path::new(recipe.target).strip_prefix(AGENT_FILES);
    let to = to.map_err(io::Error::other)?.join(recipe.executable);
    fs::create_dir_all(&bin)?;
    // Whatever the umask is, it is for the sandbox's user.
    fs::set_permissions(&bin, Permissions::from_mode(0o755))?;
    symlink(images::agent_folder().join(to), bin.join(recipe.agent))
}

/// Returns the sandbox in which an image is tried, confined as a run is.
fn trial(image: Image, now: Timestamp) -> SandboxConfig {
    let (uid, gid) = match getuid().is_root() {
        true => (NOBODY, NOBODY),
        false => (getuid().as_raw(), getgid().as_raw()),
    };
    let (bits, _) = Uuid::new_v4().as_u64_pair();
    let attempt: AttemptId = RunId::from_random_bits(bits).attempt(1);
    let tmpfs = |target: &str, mode| Tmpfs {
        target: target.into(),
        size: TMPFS,
        files: TMPFS_FILES,
        mode,
    };
    let home = BTreeMap::from([("HOME".to_owned(), HARDENED_HOME.to_owned())]);
    let env = environment(&image, home);
    SandboxConfig {
        version: CONFIG_VERSION,
        attempt,
        owner: OwnerId(OWNER.to_owned()),
        created_at: now,
        labels: BTreeMap::new(),
        root: image.root,
        binds: image.binds,
        tmpfs: vec![tmpfs("/tmp", 0o1777), tmpfs(HARDENED_HOME, 0o700)],
        argv: IDLE.map(str::to_owned).to_vec(),
        env,
        workdir: "/".to_owned(),
        hostname: OWNER.to_owned(),
        uid,
        gid,
        network: Network::Loopback,
        limits: SandboxLimits::default(),
    }
}

/// Returns a program's exit code and the end of what it said.
async fn said(executed: Executed) -> Result<(i64, String), EngineError> {
    // It must not wait for input.
    drop(executed.input);
    let mut output = executed.output;
    let mut words = Vec::new();
    while let Some(piece) = output.next().await {
        let (_, bytes) = piece.map_err(|source| EngineError::Local {
            operation: "reading what the agent says".to_owned(),
            source,
        })?;
        words.extend_from_slice(&bytes);
        let over = words.len().saturating_sub(WORDS);
        words.drain(..over);
    }
    let code = executed.program.exit_code().await?;
    let words = String::from_utf8_lossy(&words);
    Ok((code, words.trim().replace('\n', "; ")))
}

pub(super) fn making(source: io::Error) -> AgentImageError {
    AgentImageError::local("the folder of images cannot be written", source)
}

pub(super) fn reading(source: io::Error) -> AgentImageError {
    AgentImageError::local("the folder of images cannot be read", source)
}
