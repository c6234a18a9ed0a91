//! What sandboxes have of a machine while they live, and nothing of when they are gone.
//!
//! Owns: how it is found.
//! Reads: the processes, the control groups and the mounts of this machine.
//! Never: ends or removes any of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// What a process is called with that is a sandbox's shim, or executes something in one.
const SHIM_ARG: &[u8] = b"__sandbox-shim";
const CGROUPS: &str = "/sys/fs/cgroup";
/// What the names of a sandbox's control groups begin with.
const GROUP: &str = "dark-factory-";
/// What the root of a sandbox is called in the list of mounts.
const ROOT: &str = " - tmpfs sandbox ";
/// How long the kernel may take to take down what was killed last.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

/// Returns what this machine has of sandboxes.
pub(crate) fn traces() -> Vec<String> {
    let mut traces = processes();
    control_groups(Path::new(CGROUPS), &mut traces);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let roots = mounts.lines().filter(|line| line.contains(ROOT));
    traces.extend(roots.map(|line| format!("mount {line}")));
    traces
}

/// Returns what has come since `before` and does not go.
pub(crate) fn left_since(before: &[String]) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut left = traces();
        left.retain(|trace| !before.contains(trace));
        if left.is_empty() || Instant::now() > deadline {
            return left;
        }
        thread::sleep(PAUSE);
    }
}

fn processes() -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let is_one = line.split(|&byte| byte == 0).any(|word| word == SHIM_ARG);
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            is_one.then(|| format!("process {}: {line}", entry.file_name().display()))
        })
        .collect()
}

fn control_groups(folder: &Path, found: &mut Vec<String>) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    // Some hierarchies have a second name, which is a link.
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut folders: Vec<PathBuf> = folders.map(|entry| entry.path()).collect();
    folders.sort();
    for folder in folders {
        let name = folder.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.starts_with(GROUP)) {
            found.push(format!("control group {}", folder.display()));
        }
        control_groups(&folder, found);
    }
}
