//! The state folder on a disk that is full for a while: the agent waits, and nothing is lost.
//!
//! Owns: a small tmpfs as the state folder, and the ballast on it.
//! Reads: what `run`, `recover` and `stop` say; the attempt's folder.
//! Never: fills a disk that is anybody else's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dark_factory_init::spew;
use integration_tests::{EngineProxy, Fault};

use crate::scene::{STARTED, Scene, docker, eventually, text};
use crate::support::{Ended, Watched};

/// Size of the disk, in MiB.
const DISK: usize = 16;
/// What lies on it beside the state, in MiB. What is left holds the helper and its reserve, and less than [`PRINTED`].
const BALLAST: usize = 10;
/// What an agent prints: it is kept in the spool, as it is and as people read it.
const PRINTED: usize = 3 << 20;
/// A patience that is over at once.
const IMPATIENT: (&str, &str) = ("DARK_FACTORY_DISK_PATIENCE", "1s");
const FULL_DISK_ADVICE: &str =
    "help: the disk of the state folder is full: make room, then try again\n";
const FULL: &str = "the disk is full: the agent is paused until there is room\n";

/// A file system of its own; unmounted at the end of the test.
#[derive(Debug)]
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    /// Mounts an empty one.
    pub(crate) fn at(folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).unwrap();
        let mount = Ended::of(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o"])
                .arg(format!("size={DISK}m,mode=700"))
                .arg("dark-factory-test")
                .arg(&folder),
        );
        assert_eq!(
            mount.code, 0,
            "this test mounts a tmpfs, which needs root: {}",
            mount.stderr
        );
        Self(folder)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a container that a failed test left may still have it.
        let _unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A scene whose state folder is on a small disk with a ballast.
#[derive(Debug)]
struct SmallDisk {
    // Unmounted before its folder is removed.
    disk: Mounted,
    scene: Scene,
}

impl SmallDisk {
    fn new() -> Self {
        Self::on(Scene::new())
    }

    fn on(scene: Scene) -> Self {
        let disk = Mounted::at(scene.installation.state_dir());
        let small = Self { disk, scene };
        small.fill(BALLAST << 20);
        small
    }

    fn ballast(&self) -> PathBuf {
        self.disk.0.join("ballast")
    }

    fn fill(&self, size: usize) {
        fs::write(self.ballast(), vec![1; size]).unwrap();
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    /// Waits until it is recorded that the agent runs, so that no step is left for the store to write.
    fn wait_until_running(&self) {
        eventually("a running agent", || {
            let runs = self.scene.runs();
            runs.first().filter(|run| run["state"] == "running")?;
            Some(())
        });
    }

    /// Starts a run that prints more than there is room for, and waits until it says so.
    fn run_until_full(&self, patience: Option<(&str, &str)>) -> Watched {
        let script = format!("{STARTED}wait-file go\nspew {PRINTED}\nstderr words\nexit 3");
        let run = Watched::of(self.scene.run(&script).envs(patience));
        self.wait_until_running();
        self.scene.project.write("go", "");
        eventually("a full disk", || run.stderr().contains(FULL).then_some(()));
        run
    }

    /// Checks that the run has ended as its agent did, with every byte.
    fn assert_whole(&self) {
        self.scene
            .assert_ended("failed", &spew(PRINTED as u64, 80), b"words\n");
        self.scene.assert_started_once();
    }
}

fn is_running(container: &str) -> bool {
    docker(&["inspect", "--format", "{{.State.Running}}", container]) == "true\n"
}

#[test]
fn a_run_on_a_full_disk_waits_for_room_and_loses_nothing() {
    let small = SmallDisk::new();
    let run = small.run_until_full(None);
    assert!(is_running(&small.scene.container()));

    small.make_room();
    let run = run.ended();

    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(
        run.stderr.contains("there is room on the disk again\n"),
        "{}",
        run.stderr
    );
    small.assert_whole();
}

#[test]
fn a_disk_that_stays_full_ends_the_command_with_6_and_leaves_the_container_to_a_recovery() {
    let small = SmallDisk::new();

    let run = small.run_until_full(Some(IMPATIENT)).ended();
    let open = small.scene.only_run();
    let again = Ended::of(small.scene.dark_factory(&["recover"]).envs([IMPATIENT]));
    let alive = is_running(&small.scene.container());
    small.make_room();

    assert_eq!(run.code, 6, "{}", run.stderr);
    for words in [
        "the disk was full for 1s",
        "its agent paused",
        "make room on the disk",
        "`dark-factory recover`",
    ] {
        assert!(
            run.stderr.contains(words),
            "{words:?} is missing: {}",
            run.stderr
        );
    }
    assert_eq!(again.code, 6, "{}", again.stderr);
    assert!(again.stderr.contains("make room"), "{}", again.stderr);
    assert_eq!(
        (&open["state"], &open["supervised"]),
        (&"running".into(), &false.into()),
        "{open}"
    );
    assert!(alive);
    small.scene.assert_recovers("failed");
    small.assert_whole();
}

#[test]
fn a_stop_on_a_full_disk_says_so_and_works_once_there_is_room() {
    let small = SmallDisk::new();
    let run = small.run_until_full(None);
    let id = text(&small.scene.only_run(), "run_id");
    let container = small.scene.container();
    fill_up(&small.disk.0);

    let refused = Ended::of(&mut small.scene.dark_factory(&["stop", &id]));
    let alive = is_running(&container);
    small.make_room();
    let stop = Ended::of(&mut small.scene.dark_factory(&["stop", &id]));
    let run = run.ended();

    assert_eq!(refused.code, 6, "{}", refused.stderr);
    assert!(
        refused.stderr.contains(FULL_DISK_ADVICE),
        "{}",
        refused.stderr
    );
    assert!(alive);
    assert_eq!(stop.code, 0, "{}", stop.stderr);
    // With the room its agent may have ended by itself before it was stopped.
    let outcome = text(&small.scene.only_run(), "outcome");
    assert_eq!(run.code, if outcome == "cancelled" { 130 } else { 1 });
    let folder = small.scene.folder();
    let raw = fs::read(folder.join("raw.jsonl")).unwrap();
    assert!(spew(PRINTED as u64, 80).starts_with(&raw));
    let stderr = fs::read(folder.join("stderr.log")).unwrap();
    small.scene.assert_ended(&outcome, &raw, &stderr);
}

#[test]
fn a_disk_that_is_full_before_a_run_begins_is_told_and_nothing_is_left() {
    let small = SmallDisk::new();
    assert_eq!(small.scene.recover().code, 0);
    fill_up(&small.disk.0);

    let run = Ended::of(small.scene.run(STARTED).envs([IMPATIENT]));
    fs::remove_file(small.disk.0.join("the-rest")).unwrap();

    assert_eq!(run.code, 6, "{}", run.stderr);
    assert!(run.stderr.contains(FULL_DISK_ADVICE), "{}", run.stderr);
    assert!(small.scene.runs().is_empty());
    let left = fs::read_dir(small.disk.0.join("runs")).unwrap().count();
    assert_eq!(left, 0, "folders of runs that were never recorded");
    assert!(!small.scene.project.path().join("starts.txt").exists());
    assert_eq!(Ended::of(&mut small.scene.run(STARTED)).code, 0);
    small.scene.assert_started_once();
}

#[test]
fn a_run_that_finds_no_room_beside_another_is_told_and_the_other_goes_on() {
    let small = SmallDisk::new();
    let other = small.scene.project.write("other.md", "Do it too.\n");
    let script = format!("{STARTED}print hello\nwait-file go\nexit 3");
    let first = Watched::of(&mut small.scene.run(&script));
    small.wait_until_running();
    fill_up(&small.disk.0);

    let mut second = small.scene.run_file(&other, &[], "append starts.txt again");
    let second = Ended::of(second.envs([IMPATIENT]));
    fs::remove_file(small.disk.0.join("the-rest")).unwrap();
    small.scene.project.write("go", "");
    let first = first.ended();

    assert_eq!(second.code, 6, "{}", second.stderr);
    assert!(
        second.stderr.contains(FULL_DISK_ADVICE),
        "{}",
        second.stderr
    );
    assert_eq!(first.code, 1, "{}", first.stderr);
    small.scene.assert_ended("failed", b"hello\n", b"");
    small.scene.assert_started_once();
    let left = fs::read_dir(small.disk.0.join("runs")).unwrap().count();
    assert_eq!(left, 1, "a folder of a run that was never recorded is left");
}

#[test]
fn a_step_that_the_store_of_a_full_disk_cannot_take_waits_for_room() {
    let proxy = EngineProxy::new();
    let small = SmallDisk::on(Scene::behind(&proxy));
    let script = format!("{STARTED}print hello\nexit 3");
    proxy.next("POST /containers/create?name=", Fault::HoldRequest);
    let run = Watched::of(&mut small.scene.run(&script));
    proxy.wait_until_held();
    fill_up(&small.disk.0);

    // That the container is there is recorded before it is started.
    proxy.release();
    eventually("word of the full disk", || {
        run.stderr().contains(FULL).then_some(())
    });
    let started = small.scene.project.path().join("starts.txt").exists();
    fs::remove_file(small.disk.0.join("the-rest")).unwrap();
    let run = run.ended();

    assert!(!started, "it was started without a record");
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert_eq!(run.stderr.matches(FULL).count(), 1, "{}", run.stderr);
    small.scene.assert_ended("failed", b"hello\n", b"");
    small.scene.assert_started_once();
}

#[test]
fn a_patch_that_a_full_disk_has_no_room_for_waits_for_it() {
    let small = SmallDisk::new();
    let project = small.scene.project.path();
    let init = Command::new("git")
        .arg("init")
        .arg("--quiet")
        .arg(project)
        .status();
    assert!(init.unwrap().success());
    let run = Watched::of(&mut small.scene.run("wait-file go\nexit 3"));
    small.wait_until_running();
    let mut noise = vec![0; 3 << 20];
    fill_with_noise(&mut noise);
    fs::write(project.join("noise"), noise).unwrap();
    fill_up(&small.disk.0);
    let rest = fs::File::options()
        .write(true)
        .open(small.disk.0.join("the-rest"))
        .unwrap();
    let length = rest.metadata().unwrap().len();
    rest.set_len(length - (256 << 10)).unwrap();

    small.scene.project.write("go", "");
    eventually("word of the full disk", || {
        run.stderr().contains(FULL).then_some(())
    });
    small.make_room();
    let run = run.ended();

    assert_eq!(run.code, 1, "{}", run.stderr);
    let report = fs::read_to_string(small.scene.folder().join("report.json")).unwrap();
    assert!(report.contains("changes.patch"), "{report}");
    assert!(small.scene.folder().join("changes.patch").exists());
}

fn fill_with_noise(noise: &mut [u8]) {
    use std::io::Read;
    let mut random = fs::File::open("/dev/urandom").unwrap();
    random.read_exact(noise).unwrap();
}

/// Writes until there is no room for a single byte more.
fn fill_up(disk: &Path) {
    use std::io::Write;
    let mut rest = fs::File::create(disk.join("the-rest")).unwrap();
    for size in [1 << 16, 1 << 12, 1] {
        while rest.write(&vec![1; size]).is_ok_and(|written| written > 0) {}
    }
}
