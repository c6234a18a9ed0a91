//! What a process of a sandbox may not do any more.
//!
//! Owns: giving up ids, capabilities and system calls, in the only order in which that works.
//! Reads: the configuration.
//! Never: can be undone.

use caps::CapSet;
use nix::sys::prctl::set_no_new_privs;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::super::config::{SandboxConfig, SandboxLimits};
use super::error::{Doing as _, ShimError};
use super::namespaces::Privilege;
use super::{landlock, seccomp};

/// Confines this process, and all that it starts, as the sandbox's user is.
///
/// To be called in the sandbox's root. A parent-death signal is lost by it, as always when ids change.
pub(super) fn confine(config: &SandboxConfig, privilege: Privilege) -> Result<(), ShimError> {
    umask(Mode::from_bits_truncate(0o022));
    limit(&config.limits)?;
    give_up_privileges(config, privilege)?;
    landlock::restrict(config)?;
    seccomp::restrict()
}

fn limit(limits: &SandboxLimits) -> Result<(), ShimError> {
    let wanted = [
        (Resource::Data, limits.data.map(|data| data.0)),
        (Resource::Nproc, limits.processes),
    ];
    for (resource, most) in wanted {
        let Some(most) = most else { continue };
        // Nobody gets more than we have.
        let most = getrlimit(resource)
            .maximum
            .map_or(most, |own| own.min(most));
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, limit).doing(|| format!("limit {resource:?} to {most}"))?;
    }
    Ok(())
}

fn give_up_privileges(config: &SandboxConfig, privilege: Privilege) -> Result<(), ShimError> {
    let capabilities = || "give the capabilities up".to_owned();
    // These two need a capability, so they come first.
    caps::clear(None, CapSet::Ambient).doing(capabilities)?;
    caps::clear(None, CapSet::Bounding).doing(capabilities)?;
    if privilege == Privilege::Root {
        let (uid, gid) = (Uid::from_raw(config.uid), Gid::from_raw(config.gid));
        let ids = || format!("become user {uid} and group {gid}");
        setgroups(&[gid]).doing(ids)?;
        setresgid(gid, gid, gid).doing(ids)?;
        setresuid(uid, uid, uid).doing(ids)?;
    }
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        caps::clear(None, set).doing(capabilities)?;
    }
    set_no_new_privs().doing(|| "forbid new privileges".to_owned())
}
