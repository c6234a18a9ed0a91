//! The namespaces of a sandbox.
//!
//! Owns: which there are, and who is who in them.
//! Reads: the configuration; the privileges of this process.
//! Never: takes the shim out of the host's mounts and network.

use std::fs;

use caps::{CapSet, Capability};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid, sethostname};

use super::super::config::{Network, SandboxConfig};
use super::error::{Doing as _, ShimError};
use super::loopback;

/// Whether this process may make namespaces by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Privilege {
    /// It may.
    Root,
    /// Only in a user namespace of its own, in which nobody else has an id.
    User,
}

impl Privilege {
    /// Returns what this process has.
    pub(super) fn own() -> Self {
        match caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_ADMIN) {
            Ok(true) => Self::Root,
            _ => Self::User,
        }
    }

    /// Returns the word for it, with which a shim tells its stage.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::User => "user",
        }
    }

    /// Returns what a word is for.
    pub(super) fn parse(word: &str) -> Option<Self> {
        let all = [Self::Root, Self::User];
        all.into_iter().find(|privilege| privilege.word() == word)
    }
}

/// Makes those of the sandbox's namespaces that its first process has to be born in; the next child is.
///
/// The user namespace, where one is needed, this process enters as well.
pub(super) fn begin(config: &SandboxConfig, privilege: Privilege) -> Result<(), ShimError> {
    if privilege == Privilege::User {
        own_user_namespace(config)?;
    }
    unshare(CloneFlags::CLONE_NEWPID).doing(|| "make a namespace of processes".to_owned())?;
    keep_privileges()
}

/// Makes the others for the first process, and enters them, except for that of control groups.
pub(super) fn complete(config: &SandboxConfig) -> Result<(), ShimError> {
    let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    if config.network == Network::Loopback {
        flags |= CloneFlags::CLONE_NEWNET;
    }
    unshare(flags).doing(|| "make namespaces".to_owned())?;
    sethostname(&config.hostname).doing(|| format!("set the host name {}", config.hostname))?;
    if config.network == Network::Loopback {
        loopback::turn_on().doing(|| "turn the loopback interface on".to_owned())?;
    }
    Ok(())
}

/// Makes that of control groups, whose root are the groups in which this process is in this moment.
pub(super) fn close_groups() -> Result<(), ShimError> {
    unshare(CloneFlags::CLONE_NEWCGROUP).doing(|| "make a namespace of control groups".to_owned())
}

/// Enters a user namespace in which this process's ids are what they are outside, and no others are anything.
fn own_user_namespace(config: &SandboxConfig) -> Result<(), ShimError> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    if (config.uid, config.gid) != (uid, gid) {
        let (wanted, wanted_group) = (config.uid, config.gid);
        return Err(ShimError::new(
            format!("run as user {wanted} and group {wanted_group}"),
            format!("without root there are only the own ones, {uid} and {gid}"),
        ));
    }
    unshare(CloneFlags::CLONE_NEWUSER)
        .doing(|| "make a user namespace, which this system may forbid".to_owned())?;
    // Without privileges outside, a group may be mapped only if nobody can leave one any more.
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{uid} {uid} 1")),
        ("gid_map", format!("{gid} {gid} 1")),
    ] {
        fs::write(format!("/proc/self/{file}"), text)
            .doing(|| format!("write {file} of the user namespace"))?;
    }
    Ok(())
}

/// Lets the next child have this process's capabilities: a user other than 0 loses those that are not ambient.
fn keep_privileges() -> Result<(), ShimError> {
    let kept = caps::read(None, CapSet::Permitted)
        .and_then(|own| caps::set(None, CapSet::Inheritable, &own).map(|()| own))
        .and_then(|own| caps::set(None, CapSet::Ambient, &own));
    kept.doing(|| "keep the capabilities for the next step".to_owned())
}
