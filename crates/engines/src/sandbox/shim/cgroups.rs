//! The control groups that the engine made for a sandbox.
//!
//! Owns: how a process joins them, and where they count what was killed for lack of memory.
//! Reads: their files.
//! Never: makes, limits or removes one.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::{Doing as _, ShimError};

/// The file with the ids of a group's processes.
const MEMBERS: &str = "cgroup.procs";
/// The file with the ids of a group's threads, in the first version alone.
const THREADS: &str = "tasks";
/// The thread that writes it.
const MYSELF: &str = "0";
/// Where each version of control groups counts out-of-memory kills.
const OOM_COUNTERS: [&str; 2] = ["memory.events", "memory.oom_control"];

/// Puts a process into those of the groups that it cannot enter by itself, which takes milliseconds: the kernel first
/// keeps every process of the machine from starting others.
pub(super) fn bring(groups: &[PathBuf], pid: u32) -> Result<(), ShimError> {
    let brought = groups.iter().filter(|group| !has_threads(group));
    put(brought, MEMBERS, &pid.to_string())
}

/// Enters the other groups, as a process with one thread can at once.
pub(super) fn enter(groups: &[PathBuf]) -> Result<(), ShimError> {
    let entered = groups.iter().filter(|group| has_threads(group));
    put(entered, THREADS, MYSELF)
}

/// Returns whether a group is of the first version, where it holds threads and not processes.
fn has_threads(group: &Path) -> bool {
    group.join(THREADS).exists()
}

fn put<'a>(
    groups: impl Iterator<Item = &'a PathBuf>,
    file: &str,
    who: &str,
) -> Result<(), ShimError> {
    for group in groups {
        fs::write(group.join(file), who)
            .doing(|| format!("join the control group {}", group.display()))?;
    }
    Ok(())
}

/// Returns how many processes of the groups the kernel has killed for lack of memory.
pub(super) fn oom_kills(groups: &[PathBuf]) -> u64 {
    let counters = groups
        .iter()
        .flat_map(|group| OOM_COUNTERS.map(|name| group.join(name)));
    counters
        .filter_map(|counter| parse_oom_kills(&fs::read_to_string(counter).ok()?))
        .sum()
}

fn parse_oom_kills(text: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        (key == "oom_kill").then(|| value.trim().parse().ok())?
    })
}

/// Returns where a group's folder is in a sandbox, as in a container: programs look there for their limits.
pub(super) fn target(group: &Path) -> Option<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    if group.join("cgroup.controllers").exists() {
        return Some(root.to_owned());
    }
    // In the first version the controller's hierarchy is the first folder below.
    let controller = group.strip_prefix(root).ok()?.components().next()?;
    Some(root.join(controller))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kill_count_is_found_by_its_whole_name() {
        let first = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        let second = "low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\noom_group_kill 0\n";

        assert_eq!(parse_oom_kills(first), Some(3));
        assert_eq!(parse_oom_kills(second), Some(1));
        assert_eq!(parse_oom_kills("low 0\n"), None);
    }

    #[test]
    fn a_group_of_the_first_version_is_where_its_controller_is() {
        let group = Path::new("/sys/fs/cgroup/memory/no/such/group");

        let target = target(group);

        assert_eq!(target.as_deref(), Some(Path::new("/sys/fs/cgroup/memory")));
    }
}
