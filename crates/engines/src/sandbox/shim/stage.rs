//! The first process of a sandbox, until it is the helper.
//!
//! Owns: the order in which the sandbox is made and closed.
//! Reads: the configuration; the shim's word.
//! Never: lives without its shim.

use std::convert::Infallible;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::stdio::{stdin, stdout};

use super::confine::confine;
use super::error::{Doing as _, ShimError};
use super::namespaces::Privilege;
use super::{FAILED, cgroups, keeper, namespaces, root};

/// Makes the sandbox around this process and becomes the helper; returns only if that does not work.
pub(super) fn run(folder: &Path, privilege: Privilege) -> u8 {
    // Standard output is the shim's, for one message; the helper gets another one.
    let Ok(report) = stdout().try_clone_to_owned() else {
        return FAILED;
    };
    let error = match become_init(folder, privilege) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    // A shim that is gone needs no message.
    let _told = File::from(report).write_all(error.said().as_bytes());
    FAILED
}

fn become_init(folder: &Path, privilege: Privilege) -> Result<Infallible, ShimError> {
    die_with_shim()?;
    hear(keeper::GO)?;
    let config = keeper::read_config(folder)?;
    cgroups::enter(&config.limits.cgroups)?;
    umask(Mode::from_bits_truncate(0o022));
    namespaces::complete(&config)?;
    root::enter(folder, &config, privilege)?;
    hear(keeper::JOINED)?;
    namespaces::close_groups()?;
    confine(&config, privilege)?;
    // New ids end what was agreed before.
    die_with_shim()?;
    let (program, args) = config
        .argv
        .split_first()
        .ok_or_else(|| ShimError::new("start the helper", "the configuration has no argv"))?;
    let error = Command::new(program)
        .args(args)
        .env_clear()
        .envs(&config.env)
        .current_dir(&config.workdir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .exec();
    Err(ShimError::new(
        format!("execute {program} in {}", config.workdir),
        error,
    ))
}

/// Waits for a word of the shim.
fn hear(expected: u8) -> Result<(), ShimError> {
    let doing = || "hear from the shim".to_owned();
    let mut word = [0];
    let heard = rustix::io::read(stdin(), &mut word).doing(doing)?;
    match heard == 1 && word == [expected] {
        true => Ok(()),
        false => Err(ShimError::new(doing(), "it is gone")),
    }
}

/// Has the kernel kill this process, and with it the whole sandbox, when the shim ends.
fn die_with_shim() -> Result<(), ShimError> {
    set_pdeathsig(Signal::SIGKILL).doing(|| "be killed with the shim".to_owned())?;
    // It may have ended before: then nobody has the other end of this pipe any more.
    let shim = stdin();
    let mut pipe = [PollFd::new(&shim, PollFlags::empty())];
    poll(&mut pipe, Some(&Timespec::default())).doing(|| "look for the shim".to_owned())?;
    if pipe[0].revents().intersects(PollFlags::HUP) {
        return Err(ShimError::new("live without the shim", "it has ended"));
    }
    Ok(())
}
