//! The state folder: where everything that must survive us is kept.
//!
//! Owns: the folder's layout and modes, and the installed helper executable.
//! Reads: nothing else.
//! Never: is inside a tree that a container sees.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use dark_factory_types::{AttemptId, ByteSize, RunId};
use sha2::{Digest, Sha256};

use crate::spec::AttemptDir;

/// What the names of short-lived folders begin with.
const SCRATCH: &str = "scratch-";

/// What the kernel counts a file's room in, in bytes.
const BLOCK: u64 = 512;

/// The static helper executable, as bytes that whoever embeds the library brings.
#[derive(Debug, Clone, Copy)]
pub struct HelperExe {
    bytes: &'static [u8],
    /// Tells it from any other.
    digest: Option<&'static str>,
}

impl HelperExe {
    /// Takes the bytes; what tells them from others is found out each time that a state folder is opened.
    pub const fn new(bytes: &'static [u8]) -> Self {
        Self {
            bytes,
            digest: None,
        }
    }

    /// Takes the bytes with what tells them from others, which may be the name of a file.
    pub const fn with_digest(bytes: &'static [u8], digest: &'static str) -> Self {
        Self {
            bytes,
            digest: Some(digest),
        }
    }

    /// Returns the bytes.
    pub const fn bytes(&self) -> &'static [u8] {
        self.bytes
    }

    fn name(&self) -> String {
        match self.digest {
            Some(digest) => digest.to_owned(),
            None => {
                let mut digest = sha256_hex(self.bytes);
                digest.truncate(16);
                digest
            }
        }
    }
}

/// Returns the SHA-256 digest of bytes, in hex.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The state folder.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
    init: PathBuf,
}

impl StateDir {
    /// Opens the folder, making it if it is not there, and installs the helper executable in it.
    ///
    /// # Errors
    ///
    /// The operating system's error, with the path that it is about.
    pub fn open(path: &Path, helper: HelperExe) -> io::Result<Self> {
        make_private(path)?;
        let path = path
            .canonicalize()
            .map_err(|error| with_path(path, &error))?;
        make_private(&path.join("runs"))?;
        sweep(&path)?;
        let init = install(&path, helper)?;
        let state = Self { path, init };
        // SQLite would let everybody read it: it holds environments, and the folder may have been there before.
        make_private_file(&state.store())?;
        Ok(state)
    }

    /// Returns the folder, symlinks resolved.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the store's file.
    pub fn store(&self) -> PathBuf {
        self.path.join("state.db")
    }

    /// Returns the folder that has a folder for each attempt.
    pub fn runs(&self) -> PathBuf {
        self.path.join("runs")
    }

    /// Makes a folder for something short-lived.
    ///
    /// # Errors
    ///
    /// The operating system's error, with the path that it is about.
    pub fn scratch(&self) -> io::Result<Scratch> {
        Scratch::new(&self.path)
    }

    /// Makes a state folder with nothing in it inside a short-lived one; both have the same helper executable.
    ///
    /// # Errors
    ///
    /// The operating system's error, with the path that it is about.
    pub fn within(&self, scratch: &Scratch) -> io::Result<Self> {
        let state = Self {
            // Not the folder itself, which is locked: who opens a store locks the folder that it is in.
            path: scratch.path().join("state"),
            init: self.init.clone(),
        };
        make_private(&state.path)?;
        make_private(&state.runs())?;
        make_private_file(&state.store())?;
        Ok(state)
    }

    /// Returns an attempt's folder, which may not exist.
    pub fn attempt(&self, attempt: AttemptId) -> AttemptDir {
        let path = self.runs().join(attempt.to_string());
        AttemptDir::new(attempt, path, self.init.clone())
    }

    /// Returns a recorded attempt's folder; one that somebody deleted is made again, empty.
    ///
    /// # Errors
    ///
    /// The operating system's error, with the path that it is about.
    pub fn restore_attempt(&self, attempt: AttemptId) -> io::Result<AttemptDir> {
        let dir = self.attempt(attempt);
        make_private(dir.path())?;
        Ok(dir)
    }

    /// Takes the folder of an attempt that the store does not know any more out of the runs, all at once; returns where
    /// it is then, if it was there.
    ///
    /// Unless [`remove_aside`] removes it, whoever opens the state folder next sweeps it. Blocks.
    ///
    /// # Errors
    ///
    /// The operating system's error, with the path that it is about.
    pub(crate) fn put_aside(&self, attempt: AttemptId) -> io::Result<Option<PathBuf>> {
        let dir = self.attempt(attempt);
        let aside = self.path.join(format!("{SCRATCH}{attempt}"));
        match fs::rename(dir.path(), &aside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            moved => moved.map_err(|error| with_path(dir.path(), &error))?,
        }
        sync(&self.runs())?;
        Ok(Some(aside))
    }

    /// Makes a new attempt's folder with its prompt, its secrets and the record of its launch.
    ///
    /// Once it is there, a loss of power leaves secrets whole or not at all: an agent never has an empty one. A prompt is
    /// known again by its digests. That they stay takes [`sync_attempt`].
    ///
    /// # Errors
    ///
    /// The operating system's error, with the path that it is about.
    pub fn make_attempt(
        &self,
        attempt: AttemptId,
        prompt: AttemptPrompt<'_>,
        secrets: &[(String, String)],
        launch: &[u8],
    ) -> io::Result<AttemptDir> {
        let dir = self.attempt(attempt);
        make_private(dir.path())?;
        make_visible(&dir.mount())?;
        // What is mounted is removed at the end.
        if let Some(given) = prompt.given {
            write_visible(&dir.prompt(), given.as_bytes())?;
            write_visible(&dir.recorded_prompt(), prompt.written.as_bytes())?;
        } else {
            write_visible(&dir.prompt(), prompt.written.as_bytes())?;
            fs::hard_link(dir.prompt(), dir.recorded_prompt())
                .map_err(|error| with_path(&dir.recorded_prompt(), &error))?;
        }
        write_with_mode(&dir.launch_json(), launch, 0o600)?;
        if !secrets.is_empty() {
            make_visible(&dir.secrets())?;
            for (name, value) in secrets {
                let secret = dir.secrets().join(name);
                write_visible(&secret, value.as_bytes())?;
                sync(&secret)?;
            }
        }
        Ok(dir)
    }
}

/// The prompt of an attempt.
#[derive(Debug, Clone, Copy)]
pub struct AttemptPrompt<'a> {
    /// As its author wrote it; it is recorded.
    pub written: &'a str,
    /// As the agent gets it, where that is another.
    pub given: Option<&'a str>,
}

impl<'a> From<&'a str> for AttemptPrompt<'a> {
    fn from(written: &'a str) -> Self {
        Self {
            written,
            given: None,
        }
    }
}

/// A run that has a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedRun {
    /// The run.
    pub run: RunId,
    /// Whether its latest attempt has a report.
    pub is: RunIs,
}

/// Whether a run has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunIs {
    /// Its latest attempt has no report.
    Open,
    /// Its latest attempt has a report.
    Ended,
}

/// Returns at most `most` runs that have a folder in a state folder, the newest first.
///
/// Only the folders are looked at: it is quick, changes nothing, and is silent about what cannot be read. What runs
/// there are is for the store to say.
pub fn recorded_runs(state: &Path, most: usize) -> Vec<RecordedRun> {
    let entries = fs::read_dir(state.join("runs")).into_iter().flatten();
    let attempts = entries.flatten().filter_map(|entry| {
        let attempt: AttemptId = entry.file_name().to_str()?.parse().ok()?;
        let made = entry.metadata().ok()?.modified().ok()?;
        Some((made, attempt, entry.path()))
    });
    let mut attempts: Vec<(SystemTime, AttemptId, PathBuf)> = attempts.collect();
    attempts.sort_by_key(|(made, attempt, _)| Reverse((*made, *attempt)));
    let mut runs: Vec<RecordedRun> = Vec::new();
    for (_, attempt, path) in attempts {
        if runs.len() == most {
            break;
        }
        if runs.iter().any(|run| run.run == attempt.run()) {
            continue;
        }
        runs.push(RecordedRun {
            run: attempt.run(),
            is: match path.join("report.json").exists() {
                true => RunIs::Ended,
                false => RunIs::Open,
            },
        });
    }
    runs
}

/// A folder for something short-lived, gone with its value; if its maker dies before, whoever opens the state folder
/// next removes it.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _lock: File,
}

/// Removes a folder that [`StateDir::put_aside`] returned, and returns how much room that makes; blocks.
pub(crate) fn remove_aside(folder: &Path) -> io::Result<ByteSize> {
    let size = size_of(folder).unwrap_or_default();
    match fs::remove_dir_all(folder) {
        // Another process has swept it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(ByteSize(size)),
        removed => removed
            .map(|()| ByteSize(size))
            .map_err(|error| with_path(folder, &error)),
    }
}

impl Scratch {
    fn new(state: &Path) -> io::Result<Self> {
        loop {
            let path = tempfile::Builder::new()
                .prefix(SCRATCH)
                .tempdir_in(state)?
                .keep();
            // Whoever sweeps may have had it before we locked it.
            if let Ok(lock) = File::open(&path)
                && lock.try_lock().is_ok()
                && path.exists()
            {
                return Ok(Self { path, _lock: lock });
            }
        }
    }

    /// Returns the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::debug!(%error, "a short-lived folder stays until the next command");
        }
    }
}

/// Removes the short-lived folders of dead processes.
fn sweep(state: &Path) -> io::Result<()> {
    for entry in fs::read_dir(state)? {
        let entry = entry?;
        let is_scratch = entry.file_name().to_string_lossy().starts_with(SCRATCH);
        // One that cannot be opened is gone; one that is locked has a living maker.
        if is_scratch
            && let Ok(folder) = File::open(entry.path())
            && folder.try_lock().is_ok()
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::debug!(%error, "a dead process's short-lived folder stays");
        }
    }
    Ok(())
}

/// Writes a file whole or not at all, also if the power is lost: temporary file, sync, rename, sync of the folder.
///
/// One writer at a time, as for [`write_whole`].
///
/// # Errors
///
/// The operating system's error, with the path that it is about.
pub fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_added_extension("new");
    write_with_mode(&temporary, bytes, 0o600)?;
    sync(&temporary)?;
    rename(&temporary, path)?;
    sync(path.parent().unwrap_or(Path::new(".")))
}

/// Writes a file whole or not at all, as far as processes see: temporary file, rename. That a loss of power leaves it
/// whole takes a [`sync_all`].
///
/// One writer at a time: the temporary file has always the same name, so that one that a dead writer left is used by
/// the next.
///
/// # Errors
///
/// The operating system's error, with the path that it is about.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_added_extension("new");
    write_with_mode(&temporary, bytes, 0o600)?;
    rename(&temporary, path)
}

/// Makes an attempt's new folder safe from a loss of power, as far as that was not done; what is gone is none of it.
/// Blocks.
///
/// # Errors
///
/// The operating system's error, with the path that it is about.
pub fn sync_attempt(dir: &AttemptDir) -> io::Result<()> {
    // From the inside out: a name is worth something only once what it names is there.
    let inside = [
        dir.prompt(),
        dir.recorded_prompt(),
        dir.launch_json(),
        dir.secrets(),
        dir.mount(),
    ];
    for path in inside {
        match sync(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            synced => synced?,
        }
    }
    sync(dir.path())?;
    dir.path().parent().map_or(Ok(()), sync)
}

/// Brings files and folders to the disk, in this order.
///
/// # Errors
///
/// The operating system's error, with the path that it is about.
pub fn sync_all(paths: &[PathBuf]) -> io::Result<()> {
    paths.iter().try_for_each(|path| sync(path))
}

fn write_with_mode(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let write = || {
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(bytes)?;
        file.set_permissions(Permissions::from_mode(mode))
    };
    write().map_err(|error| with_path(path, &error))
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to).map_err(|error| with_path(to, &error))
}

fn install(state: &Path, helper: HelperExe) -> io::Result<PathBuf> {
    let folder = state.join("init");
    make_private(&folder)?;
    let path = folder.join(helper.name());
    if fs::metadata(&path).is_ok_and(|found| found.len() == helper.bytes.len() as u64) {
        return Ok(path);
    }
    // Several processes may be here at once, each with a file of its own.
    let scratch = Scratch::new(state)?;
    let written = scratch.path().join("init");
    write_with_mode(&written, helper.bytes, 0o555)?;
    // Before it has the name that others rely on.
    sync(&written)?;
    rename(&written, &path)?;
    sync(&folder)?;
    Ok(path)
}

fn make_private_file(path: &Path) -> io::Result<()> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map(drop)
        .map_err(|error| with_path(path, &error))
}

fn make_private(path: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| with_path(path, &error))
}

/// Makes a folder that any user id in a container can read; its private parent keeps the host out.
fn make_visible(path: &Path) -> io::Result<()> {
    fs::create_dir(path)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o755)))
        .map_err(|error| with_path(path, &error))
}

fn write_visible(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.set_permissions(Permissions::from_mode(0o444))
    };
    write().map_err(|error| with_path(path, &error))
}

/// Returns how many bytes a folder takes on the disk, each file counted once.
fn size_of(folder: &Path) -> io::Result<u64> {
    let mut seen = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    let mut size = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                folders.push(entry.path());
            }
            if seen.insert(metadata.ino()) {
                size += metadata.blocks() * BLOCK;
            }
        }
    }
    Ok(size)
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|error| with_path(path, &error))
}

fn with_path(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_folder_that_anybody_may_read_does_not_open_the_store_to_them() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();

        let state = StateDir::open(folder.path(), HelperExe::new(b"helper")).unwrap();

        assert_eq!(mode(&state.store()), 0o600);
    }

    #[test]
    fn what_a_dead_process_left_is_swept_and_what_a_living_one_uses_stays() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path(), HelperExe::new(b"helper")).unwrap();
        let scratch = state.scratch().unwrap();
        let dead = folder.path().join("scratch-dead");
        fs::create_dir_all(dead.join("probe")).unwrap();

        StateDir::open(folder.path(), HelperExe::new(b"helper")).unwrap();

        assert!(!dead.exists());
        assert!(scratch.path().exists());
        let used = scratch.path().to_owned();
        drop(scratch);
        assert!(!used.exists());
    }

    #[test]
    fn what_is_recorded_is_the_prompt_as_it_was_written_whatever_the_agent_gets() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path(), HelperExe::new(b"helper")).unwrap();
        let read = |path: PathBuf| fs::read_to_string(path).unwrap();
        let made = |number, prompt: AttemptPrompt<'_>| {
            let attempt = RunId::from_random_bits(1).attempt(number);
            state.make_attempt(attempt, prompt, &[], b"{}").unwrap()
        };

        let same = made(1, "do it\n".into());
        let other = made(
            2,
            AttemptPrompt {
                written: "do it\n",
                given: Some("do it\n\nlimits\n"),
            },
        );

        for dir in [&same, &other] {
            assert_eq!(read(dir.recorded_prompt()), "do it\n");
            assert_eq!(mode(&dir.prompt()), 0o444);
            assert_eq!(mode(&dir.recorded_prompt()), 0o444);
        }
        assert_eq!(read(same.prompt()), "do it\n");
        assert_eq!(read(other.prompt()), "do it\n\nlimits\n");
    }

    #[test]
    fn a_temporary_file_that_a_dead_writer_left_is_used_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("report.json.new"), "half of a longer re").unwrap();

        write_whole(&folder.path().join("report.json"), b"whole").unwrap();

        let names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["report.json"]);
        assert_eq!(
            fs::read(folder.path().join("report.json")).unwrap(),
            b"whole"
        );
    }

    #[test]
    fn a_helper_that_brings_its_digest_is_installed_under_it() {
        let folder = tempfile::tempdir().unwrap();

        let state = StateDir::open(folder.path(), HelperExe::with_digest(b"helper", "v1")).unwrap();

        assert_eq!(state.init.file_name().unwrap(), "v1");
        assert_eq!(fs::read(&state.init).unwrap(), b"helper");
    }

    #[test]
    fn the_helper_can_be_executed_by_any_user() {
        let folder = tempfile::tempdir().unwrap();

        let state = StateDir::open(folder.path(), HelperExe::new(b"helper")).unwrap();

        assert_eq!(mode(&state.init), 0o555);
    }
}
