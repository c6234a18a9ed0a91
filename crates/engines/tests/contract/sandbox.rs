//! The contract, kept by the embedded sandbox, as whoever runs the tests; and, where that is root, as an ordinary user too.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dark_factory_engines::sandbox::{SandboxEngine, ShimCommand};
use dark_factory_executor::clock::SystemClock;
use dark_factory_executor::engine::Engine;
use dark_factory_executor::host::HostView;
use dark_factory_types::OwnerId;
use rustix::process::{Pid, Signal, getgid, getuid, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::lab::{Lab, helper};
use crate::nobody::passes_for_nobody;
use crate::site::folder;

/// A folder of sandboxes, and a root file system with nothing but the scripted agent.
#[derive(Debug)]
struct Sandbox {
    sandboxes: TempDir,
    image: TempDir,
}

impl Sandbox {
    fn new() -> Self {
        let (sandboxes, image) = (folder("df-sandboxes-"), folder("df-image-"));
        let bin = image.path().join("bin");
        fs::create_dir(&bin).unwrap();
        fs::copy(helper(), bin.join("agent")).unwrap();
        for path in [image.path(), &bin, &bin.join("agent")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self { sandboxes, image }
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.sandboxes.path().join(name)
    }

    /// Returns what a file of a sandbox says, if it is there.
    fn said(&self, name: &str, file: &str) -> Option<Value> {
        let text = fs::read(self.folder(name).join(file)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Returns the sandbox's first process, as the host numbers it.
    fn first_process(&self, name: &str) -> i32 {
        let number = self.said(name, "shim.json").unwrap()["init"].as_i64();
        i32::try_from(number.unwrap()).unwrap()
    }

    /// Returns the names of the sandboxes of an owner.
    fn owned(&self, owner: &OwnerId) -> Vec<String> {
        let Ok(folders) = fs::read_dir(self.sandboxes.path()) else {
            return Vec::new();
        };
        folders
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| {
                let config = self.said(name, "config.json");
                config.is_some_and(|config| config["owner"] == owner.0.as_str())
            })
            .collect()
    }
}

impl Lab for Sandbox {
    fn engine(&self) -> Arc<dyn Engine> {
        Arc::new(SandboxEngine::new(
            self.sandboxes.path().to_owned(),
            ShimCommand::new(env!("CARGO_BIN_EXE_sandbox-shim").into(), Vec::new()),
            HostView {
                cwd: "/".into(),
                ..HostView::default()
            },
            Arc::new(SystemClock),
        ))
    }

    fn documented_as(&self) -> String {
        match getuid().is_root() {
            true => "sandbox".to_owned(),
            false => "sandbox, by a user".to_owned(),
        }
    }

    fn image(&self) -> String {
        self.image.path().to_str().unwrap().to_owned()
    }

    fn missing_image(&self) -> String {
        "/no/such/image.tar".to_owned()
    }

    /// An ordinary user can be nobody else.
    fn user(&self) -> (u32, u32) {
        if getuid().is_root() {
            (1000, 1000)
        } else {
            (getuid().as_raw(), getgid().as_raw())
        }
    }

    fn make_foreign(&self, name: &str, labels: &BTreeMap<String, String>) -> String {
        fs::create_dir(self.folder(name)).unwrap();
        let labels = serde_json::to_vec(labels).unwrap();
        fs::write(self.folder(name).join("labels.json"), labels).unwrap();
        name.to_owned()
    }

    fn remove_foreign(&self, name: &str) {
        fs::remove_dir_all(self.folder(name)).unwrap();
    }

    fn describe(&self, name: &str) -> Option<String> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.folder(name))
            .ok()?
            .flatten()
            .map(|entry| entry.path())
            .collect();
        files.sort();
        let text = |file: &PathBuf| fs::read_to_string(file).unwrap_or_default();
        let described = files
            .iter()
            .map(|file| format!("{}: {}\n", file.display(), text(file)));
        Some(described.collect())
    }

    fn labels(&self, name: &str) -> BTreeMap<String, String> {
        let config = self.said(name, "config.json").unwrap();
        serde_json::from_value(config["labels"].clone()).unwrap()
    }

    /// What a freezer of the first version holds is in the state `D`, what a signal stopped in `T`; of a group of the
    /// second version its file tells.
    fn is_frozen(&self, name: &str) -> bool {
        let process = Path::new("/proc").join(self.first_process(name).to_string());
        let status = fs::read_to_string(process.join("status")).unwrap_or_default();
        let is_held = status
            .lines()
            .any(|line| line.starts_with("State:\tT") || line.starts_with("State:\tD"));
        let config = self.said(name, "config.json").unwrap();
        let groups: Vec<PathBuf> =
            serde_json::from_value(config["limits"]["cgroups"].clone()).unwrap();
        let is_told = |file: &str, text: &str| {
            groups.iter().any(|group| {
                let told = fs::read_to_string(group.join(file)).unwrap_or_default();
                told.lines().any(|line| line == text)
            })
        };
        is_held || is_told("cgroup.events", "frozen 1") || is_told("freezer.state", "FROZEN")
    }

    fn kill(&self, name: &str) {
        let process = Pid::from_raw(self.first_process(name)).unwrap();
        kill_process(process, Signal::KILL).unwrap();
    }

    fn leftovers(&self, owner: &OwnerId) -> Vec<String> {
        let here = self.sandboxes.path().to_str().unwrap();
        let processes = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .map(|entry| entry.path().join("cmdline"))
            .filter(|line| {
                let line = fs::read(line).unwrap_or_default();
                String::from_utf8_lossy(&line).contains(here)
            });
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mounts = mounts.lines().filter(|line| line.contains(here));
        self.owned(owner)
            .into_iter()
            .map(|name| format!("sandbox {name}"))
            .chain(processes.map(|process| format!("process {}", process.display())))
            .chain(mounts.map(|mount| format!("mount {mount}")))
            .collect()
    }

    fn clear(&self, owner: &OwnerId) {
        for name in self.owned(owner) {
            let shim = self.said(&name, "shim.json").unwrap_or_default();
            let number = shim["shim"].as_i64().and_then(|it| i32::try_from(it).ok());
            if let Some(shim) = number.and_then(Pid::from_raw) {
                // The test has failed already; everything in it dies with its shim.
                let _killed = kill_process(shim, Signal::KILL);
            }
        }
    }
}

contract!(Sandbox::new());

#[test]
fn an_ordinary_user_has_the_whole_contract_too() {
    passes_for_nobody(&["sandbox::"]);
}
