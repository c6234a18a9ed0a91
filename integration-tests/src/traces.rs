//! What a private engine could leave on the machine: processes, cgroups, its folder.
//!
//! Owns: finding them, and their removal.
//! Reads: `/proc`, the hierarchies of cgroups.
//! Never: ends a process.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How long the kernel may take to let go of processes that were killed.
const PATIENCE: Duration = Duration::from_secs(30);
const GLANCE: Duration = Duration::from_millis(5);

/// What an engine could leave on the machine.
#[derive(Debug)]
pub struct Traces {
    folder: PathBuf,
    cgroup: String,
    /// Each process with the time of its start: numbers are used again.
    processes: Vec<(u32, String)>,
}

impl Traces {
    /// Finds them; an engine's processes are those in its network, and what these have started.
    pub(crate) fn of(folder: &Path, cgroup: &str, network: &Path) -> Self {
        let mut processes = Vec::new();
        for entry in fs::read_dir("/proc").expect("processes").flatten() {
            let found = fs::read_link(entry.path().join("ns/net"));
            if found.is_ok_and(|found| found == network)
                && let Some(process) = entry.file_name().to_str().and_then(|n| n.parse().ok())
            {
                add_with_children(process, &mut processes);
            }
        }
        Self {
            folder: folder.to_owned(),
            cgroup: cgroup.to_owned(),
            processes,
        }
    }

    /// Waits for the end of the processes, and removes the rest; returns what stays.
    pub(crate) fn clear(&self) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // A cgroup is busy until the kernel has let go of its processes.
            cgroups(&self.cgroup)
                .iter()
                .for_each(|it| remove_cgroup(it));
            // What cannot be removed is among what is left.
            let _removed = fs::remove_dir_all(&self.folder);
            let left = self.left();
            if left.is_empty() || Instant::now() > deadline {
                return left;
            }
            thread::sleep(GLANCE);
        }
    }

    /// Returns those that are on the machine now.
    pub fn left(&self) -> Vec<String> {
        let folder = self.folder.exists().then(|| self.folder.clone());
        let paths = folder.into_iter().chain(cgroups(&self.cgroup));
        let processes = self
            .processes
            .iter()
            .filter(|(process, started)| start_time(*process).as_ref() == Some(started));
        paths
            .map(|path| path.display().to_string())
            .chain(processes.map(|(process, _)| format!("process {process}")))
            .collect()
    }
}

/// Returns the processes that a process has started and not buried.
pub(crate) fn children(process: u32) -> Vec<u32> {
    let mut children = Vec::new();
    let tasks = fs::read_dir(format!("/proc/{process}/task"));
    for task in tasks.into_iter().flatten().flatten() {
        let list = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children.extend(
            list.split_whitespace()
                .filter_map(|it| it.parse::<u32>().ok()),
        );
    }
    children
}

/// Adds a process and all that it has started: a container's are in a network of their own.
fn add_with_children(process: u32, all: &mut Vec<(u32, String)>) {
    if all.iter().any(|(known, _)| *known == process) {
        return;
    }
    if let Some(started) = start_time(process) {
        all.push((process, started));
        for child in children(process) {
            add_with_children(child, all);
        }
    }
}

/// Returns when a process was started, in the kernel's ticks; `None` if it is gone.
fn start_time(process: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name before it may hold anything; the 22nd field is the 20th after the name.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19).map(str::to_owned)
}

/// Returns an engine's folders in every hierarchy of cgroups.
fn cgroups(name: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten();
    std::iter::once(root.to_owned())
        .chain(
            hierarchies
                .map(|it| it.path())
                .filter(|it| !it.is_symlink()),
        )
        .map(|hierarchy| hierarchy.join(name))
        .filter(|folder| folder.is_dir())
        .collect()
}

/// Removes a cgroup with the ones in it; files in them are the kernel's.
fn remove_cgroup(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    // One that is busy is found by whoever looks for what is left.
    let _removed = fs::remove_dir(folder);
}
