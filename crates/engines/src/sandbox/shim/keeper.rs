//! The shim: starts a sandbox, waits for its end, writes it down.
//!
//! Owns: the sandbox's lock, its record and its exit record.
//! Reads: the sandbox's configuration.
//! Never: starts a sandbox twice, or is anybody's child for long.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use dark_factory_executor::clock::{Clock as _, SystemClock};
use dark_factory_executor::state_dir::write_whole;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use serde::Serialize;

use super::super::config::{
    CONFIG_FILE, EXIT_FILE, Ended, ExitRecord, LOCK_FILE, SHIM_ARG, SHIM_FILE, SHIM_LOG,
    SandboxConfig, ShimRecord,
};
use super::error::{Doing as _, ShimError};
use super::namespaces::Privilege;
use super::{STAGE_ARG, cgroups, namespaces, process};

/// The form of the configuration.
const VERSION: u32 = 1;

/// How often, and how long each time, is waited for room on a full disk: ten minutes in all.
const FULL_DISK_TRIES: u32 = 600;
const FULL_DISK_PAUSE: Duration = Duration::from_secs(1);

/// What a stage waits for before it does anything: it is known whose it is.
pub(super) const GO: u8 = b'g';
/// What it waits for before it is closed: it is in its control groups.
pub(super) const JOINED: u8 = b'j';

/// Our own program, also if its file was replaced.
pub(super) const OWN_PROGRAM: &str = "/proc/self/exe";

/// Is the shim of a sandbox until that has ended.
///
/// Returns at once if the sandbox has a shim, or had one.
pub(super) fn keep(folder: &Path) -> Result<(), ShimError> {
    process::close_inherited_descriptors();
    // From its own folder it goes elsewhere.
    let folder = &std::fs::canonicalize(folder)
        .doing(|| format!("find the sandbox's folder {}", folder.display()))?;
    // Who leads a session already needs no other one.
    let _session = rustix::process::setsid();
    let Some(_lock) = lock(folder)? else {
        return Ok(());
    };
    if [SHIM_FILE, EXIT_FILE]
        .iter()
        .any(|name| folder.join(name).exists())
    {
        return Ok(());
    }
    detach(folder)?;

    let own = i32::try_from(std::process::id()).doing(|| "have a process id".to_owned())?;
    let mut record = ShimRecord {
        boot: SystemClock.moment().boot,
        shim: own,
        shim_started: process::started(own).doing(|| "read its own start".to_owned())?,
        init: None,
        init_started: None,
    };
    let (ended, oom_killed) = live(folder, &mut record).unwrap_or_else(|error| {
        // It is in the exit record too.
        let _said = writeln!(std::io::stderr(), "sandbox: {}", error.said());
        (Ended::NotStarted(error.said()), false)
    });
    if !folder.join(SHIM_FILE).exists() {
        write_patiently(folder, SHIM_FILE, &record)?;
    }
    let exit = ExitRecord {
        ended,
        oom_killed,
        at: SystemClock.now(),
    };
    write_patiently(folder, EXIT_FILE, &exit)
}

/// Takes the sandbox's lock; `None` if another shim has it.
fn lock(folder: &Path) -> Result<Option<File>, ShimError> {
    let path = folder.join(LOCK_FILE);
    let doing = || format!("lock {}", path.display());
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .doing(doing)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).doing(doing),
    }
}

/// Lets go of the terminal, the pipes and the working folder of whoever started this process.
fn detach(folder: &Path) -> Result<(), ShimError> {
    let path = folder.join(SHIM_LOG);
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .doing(|| format!("open {}", path.display()))?;
    let doing = || "detach from whoever started it".to_owned();
    let nothing = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .doing(doing)?;
    dup2_stdin(&nothing).doing(doing)?;
    dup2_stdout(&nothing).doing(doing)?;
    dup2_stderr(&log).doing(doing)?;
    std::env::set_current_dir("/").doing(doing)
}

/// Reads what a sandbox is to be.
pub(super) fn read_config(folder: &Path) -> Result<SandboxConfig, ShimError> {
    let path = folder.join(CONFIG_FILE);
    let doing = || format!("read {}", path.display());
    let text = std::fs::read(&path).doing(doing)?;
    let config: SandboxConfig = serde_json::from_slice(&text).doing(doing)?;
    if config.version != VERSION {
        let other = format!(
            "its form is {}, and {VERSION} is known here",
            config.version
        );
        return Err(ShimError::new(doing(), other));
    }
    Ok(config)
}

/// Writes what nobody else knows: on a full disk it waits for room.
fn write_patiently(folder: &Path, name: &str, value: &impl Serialize) -> Result<(), ShimError> {
    let mut tries = FULL_DISK_TRIES;
    loop {
        match write(folder, name, value) {
            Err(error) if tries > 0 && error.is_full_disk() => tries -= 1,
            written => return written,
        }
        std::thread::sleep(FULL_DISK_PAUSE);
    }
}

fn write(folder: &Path, name: &str, value: &impl Serialize) -> Result<(), ShimError> {
    let path = folder.join(name);
    let doing = || format!("write {}", path.display());
    let text = serde_json::to_vec(value).doing(doing)?;
    write_whole(&path, &text).doing(doing)
}

/// Starts the sandbox, and returns how it ended, and whether the kernel killed something in it for lack of memory.
fn live(folder: &Path, record: &mut ShimRecord) -> Result<(Ended, bool), ShimError> {
    let config = &read_config(folder)?;
    let groups = &config.limits.cgroups;
    let oom_kills = cgroups::oom_kills(groups);
    let privilege = Privilege::own();
    namespaces::begin(config, privilege)?;
    let mut stage = spawn_stage(folder, privilege)?;
    let running = begin(folder, config, record, &mut stage);
    if running.is_err() {
        // It waits for a word that never comes, or did not hear it.
        let _killed = stage.kill();
    }
    let status = stage
        .wait()
        .doing(|| "wait for the sandbox's end".to_owned())?;
    running?;
    Ok((ended(status), cgroups::oom_kills(groups) > oom_kills))
}

fn spawn_stage(folder: &Path, privilege: Privilege) -> Result<Child, ShimError> {
    Command::new(OWN_PROGRAM)
        .arg(SHIM_ARG)
        .arg(STAGE_ARG)
        .arg(privilege.word())
        .arg(folder)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .doing(|| "start a process in the new namespaces".to_owned())
}

/// Lets the sandbox's first process go on once it is known who it is; returns once it is the helper.
fn begin(
    folder: &Path,
    config: &SandboxConfig,
    record: &mut ShimRecord,
    stage: &mut Child,
) -> Result<(), ShimError> {
    let init = i32::try_from(stage.id()).doing(|| "have a process id".to_owned())?;
    record.init_started = Some(
        process::started(init).doing(|| "read the start of the sandbox's process".to_owned())?,
    );
    record.init = Some(init);
    write(folder, SHIM_FILE, record)?;

    let (Some(mut words), Some(mut report)) = (stage.stdin.take(), stage.stdout.take()) else {
        return Err(ShimError::new("talk to the sandbox's process", "no pipes"));
    };
    let told = words.write_all(&[GO]);
    // Meanwhile the root is made.
    let joined = cgroups::bring(&config.limits.cgroups, stage.id());
    // That it ended before it heard anything more shows in what it says, or in how it ended.
    if joined.is_err() && !matches!(stage.try_wait(), Ok(Some(_))) {
        return joined;
    }
    let _deaf = words.write_all(&[JOINED]);
    let mut said = String::new();
    let heard = report.read_to_string(&mut said);
    match (said.is_empty(), told.and(heard)) {
        (true, Ok(_)) => Ok(()),
        (true, Err(error)) => Err(ShimError::new("start the sandbox's process", error)),
        (false, _) => Err(ShimError::new("make the sandbox", said)),
    }
}

fn ended(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Code(code),
        (None, Some(signal)) => Ended::Signal(signal),
        (None, None) => Ended::NotStarted(format!("its end is unknown: {status}")),
    }
}
