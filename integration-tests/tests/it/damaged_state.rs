//! A state folder that cannot be used: told clearly, nothing overwritten, and what runs goes on running.
//!
//! Owns: the damage, and its repair.
//! Reads: standard error; the database's file, byte for byte.
//! Never: looks into the database.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use integration_tests::{docker_group, is_root};
use serde_json::{Value, json};

use crate::bad_input::refuses;
use crate::scene::{Running, STARTED, Scene, docker, eventually, text};
use crate::support::Ended;

/// Older than anything that the daemon leaves alone for its youth.
const HOUR: Duration = Duration::from_secs(3600);

/// An ordinary user, for whom modes count.
const NOBODY: u32 = 65534;

/// A run that a dead process left, with its agent at work.
#[derive(Debug)]
struct Orphan {
    scene: Scene,
    container: String,
    database: PathBuf,
}

impl Orphan {
    fn new() -> Self {
        let scene = Scene::new();
        scene
            .run_until(
                "one",
                &format!("{STARTED}print hello\nwrite one x\nwait-file go\nexit 3"),
            )
            .crash();
        // Whoever closes the database last brings it into one file.
        let container = scene.container();
        let database = scene.installation.state_dir().join("state.db");
        assert!(!database.with_file_name("state.db-wal").exists());
        Self {
            scene,
            container,
            database,
        }
    }

    /// Checks that every command is refused with this and leaves the database as it is, and the container running.
    fn assert_refused(&self, told: &[&str]) {
        let before = fs::read(&self.database).ok();
        for command in [
            &["ps", "-a"][..],
            &["recover"],
            &["stop", "x"],
            &["inspect", "x"],
        ] {
            refuses(&mut self.scene.dark_factory(command), 5, told);
        }
        refuses(&mut self.scene.run("append starts.txt again"), 5, told);
        assert!(
            fs::read(&self.database).ok() == before,
            "the database was changed"
        );
        self.assert_runs();
    }

    fn assert_runs(&self) {
        let running = docker(&["inspect", "--format", "{{.State.Running}}", &self.container]);
        assert_eq!(running, "true\n");
    }

    /// Checks that the run is adopted and ends as its agent does.
    fn assert_adopted(&self) {
        self.scene.project.write("go", "");
        self.scene.assert_recovers("failed");
        self.scene.assert_ended("failed", b"hello\n", b"");
        self.scene.assert_started_once();
    }
}

/// Overwrites a part of a file.
fn overwrite(path: &Path, from: usize, to: usize) {
    let mut bytes = fs::read(path).unwrap();
    let to = to.min(bytes.len());
    bytes[from..to].fill(0x5a);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_database_is_named_and_left_alone_and_its_copy_finds_the_run_again() {
    let orphan = Orphan::new();
    let good = fs::read(&orphan.database).unwrap();
    let named = format!("the state store {} is damaged", orphan.database.display());
    let copy = format!("put a copy of {} back", orphan.database.display());

    for (what, from, to) in [
        ("file is not a database", 0, 100),
        ("malformed", 100, usize::MAX),
        ("file is not a database", 0, usize::MAX),
    ] {
        fs::write(&orphan.database, &good).unwrap();
        overwrite(&orphan.database, from, to);
        orphan.assert_refused(&[&named, what, &copy, "`dark-factory recover`"]);
    }
    fs::write(&orphan.database, &good).unwrap();

    orphan.assert_adopted();
}

#[test]
fn a_copy_from_before_a_run_costs_it_neither_its_agent_nor_its_files() {
    let scene = Scene::new();
    let database = scene.installation.state_dir().join("state.db");
    assert_eq!(scene.runs(), Vec::<Value>::new());
    let before = fs::read(&database).unwrap();
    scene
        .run_until(
            "one",
            &format!("{STARTED}print hello\nwrite one x\nwait-file go\nexit 3"),
        )
        .crash();
    let (folder, container) = (scene.folder(), scene.container());
    let never_recorded = folder.with_file_name("000000000000-1");
    fs::create_dir(&never_recorded).unwrap();
    for folder in [&folder, &never_recorded] {
        let made = SystemTime::now() - HOUR;
        fs::File::open(folder).unwrap().set_modified(made).unwrap();
    }
    let orphan = Orphan {
        scene,
        container,
        database,
    };
    let scene = &orphan.scene;
    let good = fs::read(&orphan.database).unwrap();
    assert!(!orphan.database.with_file_name("state.db-wal").exists());
    fs::write(&orphan.database, before).unwrap();

    let listed = Ended::of(&mut scene.dark_factory(&["prune", "--grace", "0s", "--json"]));
    let started = Ended::of(&mut scene.dark_factory(&["daemon", "start"]));
    eventually("the daemon to clean up", || {
        (!never_recorded.exists()).then_some(())
    });
    let stopped = Ended::of(&mut scene.dark_factory(&["daemon", "stop"]));

    assert_eq!(started.code, 0, "{}", started.stderr);
    assert_eq!(stopped.code, 0, "{}", stopped.stderr);
    let stakes: Vec<(String, Value)> = listed
        .json()
        .iter()
        .map(|found| (text(found, "name"), found["at_stake"].clone()))
        .collect();
    let named = |path: &Path| path.to_str().unwrap().to_owned();
    for (name, stake) in [
        (
            orphan.container.clone(),
            "it runs, and its run's folder is there",
        ),
        (
            named(&folder),
            "the store does not know its run, which has output and may still run",
        ),
    ] {
        assert!(stakes.contains(&(name, json!(stake))), "{stakes:?}");
    }
    assert!(stakes.contains(&(named(&never_recorded), Value::Null)));
    orphan.assert_runs();
    fs::write(&orphan.database, good).unwrap();
    orphan.assert_adopted();
}

#[test]
fn an_agent_that_only_its_container_knows_goes_once_a_person_says_so() {
    let scene = Scene::new();
    let database = scene.installation.state_dir().join("state.db");
    assert_eq!(scene.runs(), Vec::<Value>::new());
    let before = fs::read(&database).unwrap();
    scene
        .run_until("one", "print hello\nwrite one x\nwait-file go")
        .crash();
    let (folder, ids) = (scene.folder(), scene.containers());
    assert_eq!(ids.len(), 1);
    fs::write(&database, before).unwrap();

    let pruned = Ended::of(&mut scene.dark_factory(&["prune", "--grace", "0s", "--apply"]));

    assert_eq!(pruned.code, 0, "{}", pruned.stderr);
    assert!(!folder.exists(), "{}", pruned.stdout);
    let filter = format!("id={}", ids[0]);
    assert_eq!(docker(&["ps", "--all", "--quiet", "--filter", &filter]), "");
}

#[test]
fn a_database_of_a_newer_version_is_left_alone() {
    let orphan = Orphan::new();
    let good = fs::read(&orphan.database).unwrap();
    // Where SQLite keeps the version that the application gives: big-endian, at byte 60.
    let mut newer = good.clone();
    newer[60..64].copy_from_slice(&9999_u32.to_be_bytes());
    fs::write(&orphan.database, newer).unwrap();

    orphan.assert_refused(&["schema version 9999", "use the newer dark-factory"]);
    fs::write(&orphan.database, good).unwrap();

    orphan.assert_adopted();
}

#[test]
fn a_write_ahead_log_whose_end_is_torn_forgets_a_step_and_no_start() {
    let scene = Scene::new();
    let run = scene.run_until(
        "one",
        &format!("{STARTED}print hello\nwrite one x\nwait-file go\nexit 3"),
    );
    eventually("the record of the start", || {
        (scene.only_run()["state"] == "running").then_some(())
    });
    run.crash();
    let log = scene.installation.state_dir().join("state.db-wal");
    let whole = fs::read(&log).unwrap();

    fs::write(&log, &whole[..whole.len() - 1]).unwrap();

    assert_eq!(scene.only_run()["state"], "starting");
    scene.project.write("go", "");
    scene.assert_recovers("failed");
    scene.assert_ended("failed", b"hello\n", b"");
    scene.assert_started_once();
}

#[test]
fn a_state_folder_that_is_mounted_read_only_is_told_and_left_alone() {
    let orphan = Orphan::new();
    let state = orphan.scene.installation.state_dir();
    let mounted = ReadOnly::mount(&state);

    orphan.assert_refused(&[
        "the state folder cannot be used",
        state.to_str().unwrap(),
        "Read-only file system",
        "--state-dir or DARK_FACTORY_STATE_DIR",
    ]);
    drop(mounted);

    orphan.assert_adopted();
}

/// A folder that is mounted over itself, read-only.
#[derive(Debug)]
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn mount(folder: &Path) -> Self {
        let mount = |options: &[&str]| {
            let ended = Ended::of(Command::new("mount").args(options).arg(folder));
            assert_eq!(
                ended.code, 0,
                "this test mounts a folder, which needs root: {}",
                ended.stderr
            );
        };
        mount(&["--bind", folder.to_str().unwrap()]);
        let mounted = Self(folder.to_owned());
        mount(&["-o", "remount,bind,ro"]);
        mounted
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        // A failed test may have left a container that still has it.
        let _unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_project_that_is_mounted_read_only_is_warned_of() {
    let scene = Scene::new();
    let mounted = ReadOnly::mount(scene.project.path());

    let ended = Ended::of(&mut scene.run_with(&["--quiet"], "write new x"));
    drop(mounted);

    assert_ne!(ended.code, 0, "{}", ended.stdout);
    assert!(
        ended
            .stderr
            .contains("warning: the project is on a mount that is read-only"),
        "{}",
        ended.stderr
    );
}

#[test]
fn files_that_cannot_be_removed_leave_their_run_to_recover() {
    let scene = Scene::new();
    let run = scene.run_until("one", "print hello\nwrite one x\nwait-file go\nexit 3");
    let folder = scene.folder();
    let mounted = ReadOnly::mount(&folder.join("mount"));
    scene.project.write("go", "");

    let ended = run.ended();
    let again = scene.recover();
    drop(mounted);

    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(again.stdout.contains("failed"), "{}", again.stdout);
    assert!(folder.join("mount").exists());
    scene.assert_recovers("failed");
    assert!(!folder.join("mount").exists());
    scene.assert_ended("failed", b"hello\n", b"");
}

#[test]
fn secrets_go_as_soon_as_the_agent_has_ended_whatever_the_engine_does() {
    let scene = Scene::new();
    let file = scene.project.write(
        "secret.md",
        "---\nsecrets: {one: 'env:ONE'}\n---\nUse it.\n",
    );
    let mut command = scene.run_file(&file, &[], "print hello; exit 3");
    command
        .env("ONE", "not-to-stay")
        .env("FAILPOINTS", "engine.remove.before=return(error)");

    let ended = Ended::of(&mut command);

    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert_eq!(scene.containers().len(), 1, "{}", ended.stderr);
    let folder = scene.folder();
    assert!(!folder.join("secrets").exists());
    scene.assert_recovers("failed");
    scene.assert_ended("failed", b"hello\n", b"");
}

#[test]
fn a_state_folder_that_this_user_may_not_write_to_is_told() {
    let scene = Scene::new();
    assert_eq!(Ended::of(&mut scene.run(STARTED)).code, 0);
    let state = scene.installation.state_dir();
    let before = fs::read(state.join("state.db")).unwrap();
    let mut command = scene.run(STARTED);
    if is_root() {
        command.uid(NOBODY).gid(docker_group());
        let mode = |path: &Path| {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        mode(&state);
        mode(state.parent().unwrap());
    } else {
        fs::set_permissions(&state, fs::Permissions::from_mode(0o555)).unwrap();
    }

    refuses(
        &mut command,
        5,
        &[
            "the state folder cannot be used",
            state.to_str().unwrap(),
            "Permission denied",
            "name a folder that you may write to",
        ],
    );

    assert!(fs::read(state.join("state.db")).unwrap() == before);
    scene.assert_started_once();
}

#[test]
fn an_attempts_folder_that_cannot_be_read_leaves_its_run_open_and_hinders_no_other() {
    let orphan = Orphan::new();
    let scene = &orphan.scene;
    let folder = scene.folder();
    let aside = folder.with_extension("aside");
    let other = scene.project.write("other.md", "Do it too.\n");
    fs::rename(&folder, &aside).unwrap();
    fs::write(&folder, "not a folder").unwrap();

    let recover = scene.recover();
    let run = Ended::of(&mut scene.run_file(&other, &[], "exit 0"));

    assert_eq!(recover.code, 5, "{}", recover.stderr);
    let name = folder.to_str().unwrap();
    for words in ["stays as it is", "the folder of attempt", name] {
        assert!(
            recover.stderr.contains(words),
            "{words:?} is missing: {}",
            recover.stderr
        );
    }
    assert_eq!(run.code, 0, "{}", run.stderr);
    orphan.assert_runs();
    assert_eq!(fs::read(&folder).unwrap(), b"not a folder");
    fs::remove_file(&folder).unwrap();
    fs::rename(&aside, &folder).unwrap();
    scene.project.write("go", "");
    scene.assert_recovers("failed");
    scene.assert_started_once();
}

#[test]
fn an_attempts_folder_without_permissions_leaves_its_run_open() {
    let scene = Scene::new();
    let script = format!("{STARTED}print hello\nwrite one x\nwait-file go\nexit 3");
    let as_nobody = |command: &mut Command| {
        if is_root() {
            command.uid(NOBODY).gid(docker_group());
        }
    };
    if is_root() {
        let root = scene.installation.state_dir();
        chown(root.parent().unwrap(), Some(NOBODY), None).unwrap();
        chown(scene.project.path(), Some(NOBODY), None).unwrap();
    }
    let mut run = scene.run(&script);
    as_nobody(&mut run);
    let run = Running::start(&mut run);
    scene.wait_for_file("one");
    let folder = scene.folder();
    let container = text(&scene.only_run(), "container");
    run.crash();

    let mode = |mode| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o000);
    let mut recover = scene.dark_factory(&["recover"]);
    as_nobody(&mut recover);
    let refused = Ended::of(&mut recover);
    mode(0o700);

    assert_eq!(refused.code, 5, "{}", refused.stderr);
    for words in ["the folder of attempt", "Permission denied"] {
        assert!(
            refused.stderr.contains(words),
            "{words:?} is missing: {}",
            refused.stderr
        );
    }
    let running = docker(&["inspect", "--format", "{{.State.Running}}", &container]);
    assert_eq!(running, "true\n");
    scene.project.write("go", "");
    let mut recover = scene.dark_factory(&["recover"]);
    as_nobody(&mut recover);
    let recover = Ended::of(&mut recover);
    assert!(
        recover.stdout.contains("failed"),
        "{}{}",
        recover.stdout,
        recover.stderr
    );
    scene.assert_started_once();
}
