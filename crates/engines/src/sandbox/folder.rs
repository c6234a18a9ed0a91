//! The folder of a sandbox: how it is made, what it says, how it goes.
//!
//! Owns: the folders of all sandboxes, in one folder.
//! Reads: what shims write.
//! Never: is seen half-made or half-removed under a sandbox's name.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dark_factory_executor::clock::{Clock, SystemClock};
use dark_factory_executor::state_dir::write_durably;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::config::{
    CONFIG_FILE, EXIT_FILE, ExitRecord, SHIM_ARG, SHIM_FILE, SHIM_LOG, SandboxConfig, ShimRecord,
};
use super::process::Process;

/// What the names of folders begin with that are no sandboxes: no sandbox's name does.
const HIDDEN: char = '.';
const NEW: &str = ".new-";
const GONE: &str = ".gone-";
/// Something empty, to be mounted over what is hidden.
const EMPTY: &str = "empty";
/// For how long a folder may be one that is being made.
const MAKING: Duration = Duration::from_secs(3600);
/// The most of a shim's words that is shown.
const SHOWN: usize = 500;

/// The folder of one sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Folder {
    path: PathBuf,
}

/// Where a sandbox is in its life.
#[derive(Debug)]
pub(super) enum Phase {
    /// There is none.
    Absent,
    /// It was never started, or its shim has not written anything yet.
    Created,
    /// It runs.
    Running(Living),
    /// It ended.
    Ended(ExitRecord),
    /// It ended and nobody saw how: its shim was killed, or the machine went down.
    Lost,
}

/// The processes of a sandbox that runs.
#[derive(Debug)]
pub(super) struct Living {
    pub(super) shim: Process,
    /// The sandbox's PID 1, if it has one by now, and still.
    pub(super) init: Option<Process>,
}

impl Living {
    /// Returns whether the sandbox is made and closed: until then its PID 1 is a stage of the shim's program, with the
    /// machine's files around it.
    pub(super) fn is_made(&self) -> bool {
        let init = self.init.as_ref();
        init.is_some_and(|init| init.is_without_argument(SHIM_ARG))
    }
}

/// What came of making a sandbox.
#[derive(Debug)]
pub(super) enum Made {
    /// It was made.
    Yes,
    /// Something has its name: this sandbox, or something that is none.
    Taken(Option<Box<SandboxConfig>>),
}

impl Folder {
    /// Names the folder of a sandbox.
    pub(super) fn new(root: &Path, name: &str) -> Self {
        Self {
            path: root.join(name),
        }
    }

    /// Returns the path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns an empty folder in it.
    pub(super) fn empty(&self) -> PathBuf {
        self.path.join(EMPTY)
    }

    /// Makes the sandbox, durably.
    pub(super) fn make(&self, config: &SandboxConfig) -> io::Result<Made> {
        let root = self.path.parent().unwrap_or(Path::new("/"));
        let mut private = DirBuilder::new();
        private.mode(0o700);
        private.recursive(true).create(root)?;
        private.recursive(false);
        let new = root.join(format!("{NEW}{}", Uuid::new_v4().simple()));
        private.create(&new)?;
        let written = private
            .mode(0o755)
            .create(new.join(EMPTY))
            .and_then(|()| write_durably(&new.join(CONFIG_FILE), &serde_json::to_vec(config)?))
            .and_then(|()| fs::rename(&new, &self.path));
        match written {
            Ok(()) => {
                File::open(root)?.sync_all()?;
                Ok(Made::Yes)
            }
            Err(error) => {
                fs::remove_dir_all(&new)?;
                match error.kind() {
                    io::ErrorKind::DirectoryNotEmpty
                    | io::ErrorKind::AlreadyExists
                    | io::ErrorKind::NotADirectory => {
                        Ok(Made::Taken(self.config().ok().flatten().map(Box::new)))
                    }
                    _ => Err(error),
                }
            }
        }
    }

    /// Returns what the sandbox is, if there is one.
    pub(super) fn config(&self) -> io::Result<Option<SandboxConfig>> {
        self.read(CONFIG_FILE)
    }

    /// Returns where the sandbox is in its life.
    pub(super) fn phase(&self) -> io::Result<Phase> {
        let Some(shim) = self.read::<ShimRecord>(SHIM_FILE)? else {
            return Ok(match self.path.join(CONFIG_FILE).exists() {
                true => Phase::Created,
                false => Phase::Absent,
            });
        };
        // Process ids mean something in the boot that they are of.
        if shim.boot == SystemClock.moment().boot
            && let Some(living) = Process::find(shim.shim, shim.shim_started)?
        {
            let init = init_of(&shim)?;
            return Ok(Phase::Running(Living { shim: living, init }));
        }
        // After its writer has gone.
        Ok(match self.read::<ExitRecord>(EXIT_FILE)? {
            Some(exit) => Phase::Ended(exit),
            None => Phase::Lost,
        })
    }

    /// Returns the first process of a sandbox whose shim has gone, if it is not dead yet: it has been sent SIGKILL.
    pub(super) fn orphan(&self) -> io::Result<Option<Process>> {
        match self.read::<ShimRecord>(SHIM_FILE)? {
            Some(shim) if shim.boot == SystemClock.moment().boot => init_of(&shim),
            _ => Ok(None),
        }
    }

    /// Waits until the sandbox does not run, and returns where it is then.
    ///
    /// Cancel-safe.
    pub(super) async fn ended(&self) -> io::Result<Phase> {
        loop {
            match self.phase()? {
                Phase::Running(living) => living.shim.ended().await?,
                phase => return Ok(phase),
            }
        }
    }

    /// Returns where the shim says what it has to say.
    pub(super) fn log(&self) -> PathBuf {
        self.path.join(SHIM_LOG)
    }

    /// Returns the end of what the shim said.
    pub(super) fn last_words(&self) -> String {
        let said = fs::read(self.log()).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let said = said.trim();
        let from = said.char_indices().rev().nth(SHOWN).map_or(0, |(at, _)| at);
        said[from..].to_owned()
    }

    /// Removes the sandbox; one that is gone is no error.
    pub(super) fn remove(&self) -> io::Result<()> {
        let root = self.path.parent().unwrap_or(Path::new("/"));
        let gone = root.join(format!("{GONE}{}", Uuid::new_v4().simple()));
        match fs::rename(&self.path, &gone) {
            Ok(()) => fs::remove_dir_all(gone),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        match fs::read(self.path.join(name)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Finds the first process of a sandbox that was started in this boot.
fn init_of(shim: &ShimRecord) -> io::Result<Option<Process>> {
    match (shim.init, shim.init_started) {
        (Some(pid), Some(started)) => Process::find(pid, started),
        _ => Ok(None),
    }
}

/// Lists the sandboxes of a folder by their names, and clears away what is left of some that were being made or removed.
pub(super) fn list(root: &Path) -> io::Result<Vec<(String, Folder)>> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if !name.starts_with(HIDDEN) {
            found.push((name.clone(), Folder { path: entry.path() }));
            continue;
        }
        let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        let is_left = name.starts_with(GONE)
            || (name.starts_with(NEW) && age().is_some_and(|age| age > MAKING));
        if is_left && let Err(error) = fs::remove_dir_all(entry.path()) {
            tracing::debug!(%error, path = %entry.path().display(), "it stays for the next time");
        }
    }
    Ok(found)
}
