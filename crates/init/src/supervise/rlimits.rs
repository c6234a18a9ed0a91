//! What each process of the agent may have at most.
//!
//! Owns: the limits of the agent and of all that it starts.
//! Reads: our own limits: nobody gets more than they allow.
//! Never: keeps a limit for longer than a spawn takes: the files of the streams are as large as the output.

use nix::errno::Errno;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// Runs `spawn` while this process has the limits, which the child inherits and may not raise.
///
/// # Errors
///
/// Those of `spawn`, and of the kernel if it does not take a limit.
pub(super) fn spawn_within(
    limits: &[(Resource, u64)],
    spawn: impl FnOnce() -> Result<Pid, Errno>,
) -> Result<Pid, Errno> {
    let limits: Vec<(Resource, Rlimit, Option<u64>)> = limits
        .iter()
        .map(|(resource, limit)| {
            let own = getrlimit(*resource);
            let most = own.maximum.map_or(*limit, |own| own.min(*limit));
            (*resource, own, Some(most))
        })
        .collect();
    for (resource, own, most) in &limits {
        let lent = Rlimit {
            current: *most,
            maximum: own.maximum,
        };
        setrlimit(*resource, lent).map_err(errno)?;
    }
    let spawned = spawn();
    for (resource, own, _) in &limits {
        setrlimit(*resource, *own).map_err(errno)?;
    }
    let child = spawned?;
    for (resource, _, most) in &limits {
        let kept = Rlimit {
            current: *most,
            maximum: *most,
        };
        match prlimit(Some(child), *resource, kept) {
            // One that has ended already does nothing more.
            Ok(_) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(errno(error)),
        }
    }
    Ok(child)
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}
