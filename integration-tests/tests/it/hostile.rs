//! A hostile agent: what it tries from inside of a container of the hardened profile, and the evidence that it failed.
//!
//! Owns: how an attack is run, and how what it says of each attempt is read.
//! Reads: what the attacks print; what the host has of the run afterwards.
//! Never: repeats the attacks on a run's own record, which are the scripted agent's; see `tamper`.
//!
//! An attack is a script in Perl, which the Debian of the agents' images has: system calls and sockets need no other
//! program there. It prints a line for each attempt: the system's own words for why it failed, or `SUCCEEDED`.
//! The same attacks are made in the embedded sandbox, on the machine's own system folders, by `sandbox`.

mod bombs;
mod git;
mod kernel;
mod network;
mod sandbox;
mod secrets;
mod text;
mod workspace;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::scene::Scene;

/// What every attack begins with.
const PRELUDE: &str = include_str!("hostile/attempts.pl");

/// Returns a `run` of an attack, without its network.
fn attack(scene: &Scene, script: &str, flags: &[&str], arguments: &[&str]) -> Command {
    let path = scene
        .project
        .write("attack.pl", format!("{PRELUDE}\n{script}"));
    assert!(path.exists());
    let image = scene.tools_image();
    let mut run = scene.dark_factory(&["run", "--agent", "command", "--image", &image]);
    run.args(flags).arg(&scene.prompt);
    run.args(["--", "perl", "attack.pl"]).args(arguments);
    run
}

/// What an attack said of its attempts, by name.
struct Attempts(BTreeMap<String, String>);

impl Attempts {
    /// Reads what the scene's one run has printed.
    fn of(scene: &Scene) -> Self {
        let raw = fs::read_to_string(scene.folder().join("raw.jsonl")).unwrap();
        let line = |line: &str| {
            let (name, evidence) = line.split_once(": ").unwrap_or((line, ""));
            (name.to_owned(), evidence.to_owned())
        };
        Self(raw.lines().map(line).collect())
    }

    /// Checks that an attempt failed in one of these ways: its evidence begins so.
    fn assert_failed(&mut self, name: &str, evidence: &[&str]) {
        let found = self.0.remove(name);
        let said = found.unwrap_or_else(|| panic!("{name} was not tried"));
        assert!(
            evidence.iter().any(|words| said.starts_with(words)),
            "{name}: {said}"
        );
    }

    /// Checks that several attempts failed in one of these ways.
    fn assert_all_failed(&mut self, names: &[&str], evidence: &[&str]) {
        for name in names {
            self.assert_failed(name, evidence);
        }
    }

    /// Checks that of all files of the host that are there, only the workspace can be written to.
    fn assert_only_the_workspace_is_writable(&mut self) {
        self.assert_failed("mount /workspace", &["writable"]);
        let names = self.0.keys().filter(|name| name.starts_with("mount /"));
        let mounts: Vec<String> = names.cloned().collect();
        for mount in mounts {
            self.assert_failed(&mount, &["read-only"]);
        }
    }

    /// Checks that there was no attempt but those that were asked about.
    fn assert_no_more(self) {
        assert!(self.0.is_empty(), "nobody asked about {:#?}", self.0);
    }
}

/// Returns the files below a folder that hold these bytes; links are not followed.
fn files_with(folder: &Path, bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = path.symlink_metadata().unwrap().file_type();
        if kind.is_dir() {
            found.extend(files_with(&path, bytes));
        } else if kind.is_file() {
            let content = fs::read(&path).unwrap();
            if content.windows(bytes.len()).any(|part| part == bytes) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}
