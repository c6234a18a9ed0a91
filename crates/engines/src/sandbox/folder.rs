//! The folder of a sandbox: how it is made, what it says, how it goes.
//!
//! Owns: the folders of all sandboxes, in one folder.
//! Reads: what shims write.
//! Never: is seen half-made or half-removed under a sandbox's name, but for what a loss of power leaves of its files.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dark_factory_executor::clock::{Clock, SystemClock};
use dark_factory_executor::state_dir::{sync_all, write_whole};
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

/// What a file of the folder says. It is put in its place whole, and not synced.
#[derive(Debug)]
enum Said<T> {
    /// It is not there.
    Nothing,
    /// A loss of power left a part of it: nothing that it was about runs.
    Torn,
    Whole(T),
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

    /// Makes the sandbox, durably; other processes see it whole, and maybe before it is.
    pub(super) fn make(&self, config: &SandboxConfig) -> io::Result<Made> {
        let root = self.root();
        let mut private = DirBuilder::new();
        private.mode(0o700);
        private.recursive(true).create(root)?;
        private.recursive(false);
        let new = root.join(format!("{NEW}{}", Uuid::new_v4().simple()));
        private.create(&new)?;
        private.mode(0o755);
        let written = private
            .create(new.join(EMPTY))
            .and_then(|()| write_whole(&new.join(CONFIG_FILE), &serde_json::to_vec(config)?))
            .and_then(|()| self.take_name(&new));
        match written {
            Ok(()) => {
                self.sync()?;
                Ok(Made::Yes)
            }
            Err(error) if is_taken(&error) => {
                fs::remove_dir_all(&new)?;
                let held = self.config().ok().flatten();
                // Whoever made it may have been killed before it was safe.
                if held.is_some() {
                    self.sync()?;
                }
                Ok(Made::Taken(held.map(Box::new)))
            }
            Err(error) => {
                fs::remove_dir_all(&new)?;
                Err(error)
            }
        }
    }

    /// Brings what the sandbox is to the disk.
    fn sync(&self) -> io::Result<()> {
        sync_all(&[
            self.path.join(CONFIG_FILE),
            self.path.clone(),
            self.root().to_owned(),
        ])
    }

    /// Gives a new folder the sandbox's name; what a loss of power left of another one makes room.
    fn take_name(&self, new: &Path) -> io::Result<()> {
        match fs::rename(new, &self.path) {
            Err(error) if is_taken(&error) && self.is_torn() => {
                self.clear_torn()?;
                fs::rename(new, &self.path)
            }
            renamed => renamed,
        }
    }

    /// Returns what the sandbox is, if there is one; one that a loss of power has torn is none any more.
    pub(super) fn config(&self) -> io::Result<Option<SandboxConfig>> {
        match self.read(CONFIG_FILE)? {
            Said::Whole(config) => Ok(Some(config)),
            Said::Nothing => Ok(None),
            Said::Torn => match self.living()? {
                None => Ok(None),
                Some(_) => Err(io::Error::other(
                    "a sandbox runs of which nobody knows what it is",
                )),
            },
        }
    }

    /// Returns whether this is what a loss of power left of a sandbox.
    fn is_torn(&self) -> bool {
        matches!(self.read::<SandboxConfig>(CONFIG_FILE), Ok(Said::Torn))
            && matches!(self.living(), Ok(None))
    }

    /// Removes what a loss of power left of a sandbox.
    fn clear_torn(&self) -> io::Result<()> {
        let aside = self.aside();
        match fs::rename(&self.path, &aside.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed?,
        }
        // Somebody else may have cleared it in this moment, and have made it anew.
        match aside.is_torn() {
            true => fs::remove_dir_all(&aside.path),
            false => fs::rename(&aside.path, &self.path),
        }
    }

    /// Returns the processes of the sandbox, if its shim lives.
    fn living(&self) -> io::Result<Option<Living>> {
        match self.read(SHIM_FILE)? {
            Said::Whole(shim) => living(&shim),
            Said::Nothing | Said::Torn => Ok(None),
        }
    }

    /// Returns where the sandbox is in its life.
    ///
    /// After a loss of power it may be [`Phase::Created`] though it ran: its shim's record was not on the disk.
    pub(super) fn phase(&self) -> io::Result<Phase> {
        match self.read(SHIM_FILE)? {
            Said::Nothing => {
                return Ok(match self.config()? {
                    Some(_) => Phase::Created,
                    None => Phase::Absent,
                });
            }
            Said::Whole(shim) => {
                if let Some(living) = living(&shim)? {
                    return Ok(Phase::Running(living));
                }
            }
            Said::Torn => {}
        }
        // After its writer has gone.
        Ok(match self.read::<ExitRecord>(EXIT_FILE)? {
            Said::Whole(exit) => Phase::Ended(exit),
            Said::Nothing | Said::Torn => Phase::Lost,
        })
    }

    /// Returns the first process of a sandbox whose shim has gone, if it is not dead yet: it has been sent SIGKILL.
    pub(super) fn orphan(&self) -> io::Result<Option<Process>> {
        match self.read::<ShimRecord>(SHIM_FILE)? {
            Said::Whole(shim) if shim.boot == SystemClock.moment().boot => init_of(&shim),
            Said::Whole(_) | Said::Nothing | Said::Torn => Ok(None),
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
        let gone = self.aside();
        match fs::rename(&self.path, &gone.path) {
            Ok(()) => fs::remove_dir_all(gone.path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Returns where what is to go is put aside, under no sandbox's name.
    fn aside(&self) -> Self {
        Self::new(self.root(), &format!("{GONE}{}", Uuid::new_v4().simple()))
    }

    /// Returns the folder of all sandboxes.
    fn root(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<Said<T>> {
        let text = match fs::read(self.path.join(name)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Said::Nothing),
            Err(error) => return Err(error),
        };
        match serde_json::from_slice(&text) {
            Ok(said) => Ok(Said::Whole(said)),
            // What another version of ours has written is JSON.
            Err(error) if error.is_syntax() || error.is_eof() => Ok(Said::Torn),
            Err(error) => Err(error.into()),
        }
    }
}

/// Returns whether a folder was not renamed because something has the name.
fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::DirectoryNotEmpty
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::NotADirectory
    )
}

/// Finds the processes of a sandbox, if its shim lives.
fn living(shim: &ShimRecord) -> io::Result<Option<Living>> {
    // Process ids mean something in the boot that they are of.
    if shim.boot != SystemClock.moment().boot {
        return Ok(None);
    }
    let Some(found) = Process::find(shim.shim, shim.shim_started)? else {
        return Ok(None);
    };
    let init = init_of(shim)?;
    Ok(Some(Living { shim: found, init }))
}

/// Finds the first process of a sandbox that was started in this boot.
fn init_of(shim: &ShimRecord) -> io::Result<Option<Process>> {
    match (shim.init, shim.init_started) {
        (Some(pid), Some(started)) => Process::find(pid, started),
        _ => Ok(None),
    }
}

/// Lists the sandboxes of a folder by their names, and clears away what is left of some that were being made or removed,
/// or that a loss of power has torn.
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
            let folder = Folder { path: entry.path() };
            match folder.is_torn() {
                true => note_left(folder.clear_torn(), &entry.path()),
                false => found.push((name, folder)),
            }
            continue;
        }
        let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        let is_left = name.starts_with(GONE)
            || (name.starts_with(NEW) && age().is_some_and(|age| age > MAKING));
        if is_left {
            note_left(fs::remove_dir_all(entry.path()), &entry.path());
        }
    }
    Ok(found)
}

fn note_left(removed: io::Result<()>, path: &Path) {
    if let Err(error) = removed {
        tracing::debug!(%error, path = %path.display(), "it stays for the next time");
    }
}
