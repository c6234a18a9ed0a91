//! The few questions that tests put to the embedded sandbox itself: to its folders and its processes.
//!
//! Owns: how the processes of a sandbox are found, and killed.
//! Reads: what engine and shim write; `/proc`.
//! Never: asks the product: what it says here is what the machine holds.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// The folder of a state folder in which its sandboxes are.
const FOLDER: &str = "sandboxes";
/// What a process is called with that is a sandbox's shim, or executes something in one.
const SHIM_ARG: &[u8] = b"__sandbox-shim";

/// A sandbox of some installation, ended or not.
#[derive(Debug, Clone)]
pub struct SeenSandbox {
    folder: PathBuf,
}

/// A process of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The process that it lives and dies with.
    Shim,
    /// Its first process, which is the helper.
    Helper,
}

/// What a loss of power leaves of a file that was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Nothing at all.
    Nothing,
    /// A file with nothing in it.
    Name,
}

/// Returns every sandbox of a state folder, ended ones included.
///
/// # Panics
///
/// If the folder cannot be read.
pub fn sandboxes(state_dir: &Path) -> Vec<SeenSandbox> {
    let Ok(entries) = fs::read_dir(state_dir.join(FOLDER)) else {
        return Vec::new();
    };
    let folders = entries.map(|entry| entry.expect("a folder of sandboxes").path());
    // What is hidden are images, and what was being made when somebody was killed.
    let is_hidden = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default();
        name.as_bytes().starts_with(b".")
    };
    folders
        .filter(|path| !is_hidden(path))
        .map(|folder| SeenSandbox { folder })
        .collect()
}

/// Returns the processes, by id, that are shims below a folder or execute something in a sandbox there.
///
/// # Panics
///
/// Without `/proc`.
pub fn shims_below(folder: &Path) -> Vec<i32> {
    let processes = fs::read_dir("/proc").expect("the list of processes");
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|&byte| byte == 0).collect();
        let is_below = |word: &&[u8]| word.starts_with(folder.as_os_str().as_bytes());
        words.contains(&SHIM_ARG) && words.iter().any(is_below)
    })
    .collect()
}

impl SeenSandbox {
    /// Returns its name.
    ///
    /// # Panics
    ///
    /// If that is no text.
    pub fn name(&self) -> &str {
        let name = self.folder.file_name().and_then(|name| name.to_str());
        name.expect("a sandbox's name is text")
    }

    /// Returns the attempt that it is of, if it is whole.
    pub fn attempt(&self) -> Option<String> {
        Some(self.read("config.json")?["attempt"].as_str()?.to_owned())
    }

    /// Returns all that it says of itself: its files, one after the other.
    pub fn told(&self) -> String {
        ["config.json", "shim.json", "exit.json", "shim.log"]
            .iter()
            .filter_map(|name| fs::read_to_string(self.folder.join(name)).ok())
            .collect()
    }

    /// Returns the id of one of its processes, if that lives.
    pub fn process(&self, part: Part) -> Option<i32> {
        let record = self.read("shim.json")?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        if record["boot"] != boot.trim() {
            return None;
        }
        let (pid, started) = match part {
            Part::Shim => (&record["shim"], &record["shim_started"]),
            Part::Helper => (&record["init"], &record["init_started"]),
        };
        let pid = i32::try_from(pid.as_i64()?).ok()?;
        (started_at(pid)? == started.as_u64()?).then_some(pid)
    }

    /// Kills one of its processes with SIGKILL; returns whether it lived.
    pub fn kill(&self, part: Part) -> bool {
        let Some(pid) = self.process(part) else {
            return false;
        };
        kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok()
    }

    /// Changes what its shim has written of itself.
    ///
    /// # Panics
    ///
    /// If it has written nothing.
    pub fn change_record(&self, change: impl FnOnce(&mut Value)) {
        let mut record = self.read("shim.json").expect("a shim has written");
        change(&mut record);
        fs::write(self.folder.join("shim.json"), record.to_string()).expect("a file of the test's");
    }

    /// Leaves of one of its files what a loss of power may: its name, or not even that. Nothing of it may run any more.
    ///
    /// # Panics
    ///
    /// If it is not there.
    pub fn lose(&self, name: &str, left: Left) {
        // They go with the power, too, and nobody else knows them.
        if name == "config.json" {
            let config = self.read(name).expect("what the sandbox is");
            let groups = config["limits"]["cgroups"].as_array().into_iter().flatten();
            for group in groups.filter_map(Value::as_str) {
                fs::remove_dir(group).expect("a control group with nothing in it");
            }
        }
        let path = self.folder.join(name);
        let lost = match left {
            Left::Nothing => fs::remove_file(path),
            Left::Name => fs::File::options()
                .write(true)
                .truncate(true)
                .open(path)
                .map(drop),
        };
        lost.expect("a file of the sandbox's");
    }

    fn read(&self, name: &str) -> Option<Value> {
        serde_json::from_slice(&fs::read(self.folder.join(name)).ok()?).ok()
    }
}

/// Returns when a process was started, in ticks since the boot; `None` if it has ended.
pub fn started_at(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // One that nobody has waited for yet does nothing any more.
    let has_ended = matches!(fields.first(), Some(&("Z" | "X")));
    if has_ended {
        return None;
    }
    fields.get(19)?.parse().ok()
}
