//! Finding sandboxes again, whatever happened meanwhile to whoever began them.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use dark_factory_executor::engine::{Engine, EngineError, Recovered};
use dark_factory_executor::spec::StopPolicy;
use rustix::process::{Pid, Signal, kill_process};

use super::lab::{Lab, Spool, engine};

/// What a shell does until the test says so.
const UNTIL_GO: &str = "while ! test -e /workspace/go; do sleep 0.02; done";

/// Returns the id of a process of a sandbox: the shim, or its PID 1.
fn process(lab: &Lab, name: &str, which: &str) -> Pid {
    let record = std::fs::read(lab.root.join(name).join("shim.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let id = i32::try_from(record[which].as_i64().unwrap()).unwrap();
    Pid::from_raw(id).unwrap()
}

#[tokio::test]
async fn another_engine_finds_a_sandbox_in_every_state() {
    let lab = Lab::new();
    let (spec, dir) = (lab.shell(&format!("echo hello; {UNTIL_GO}")), lab.attempt());
    let handle = lab.create(&spec, &dir).await;

    let state = engine(&lab.root).recover(&handle).await.unwrap();
    assert!(matches!(state, Recovered::Created(_)), "{state:?}");

    drop(lab.engine.start(&spec, &handle, &dir).await.unwrap());
    let other = engine(&lab.root);
    let state = other.recover(&handle).await.unwrap();
    let Recovered::Running(workload) = state else {
        panic!("{state:?}");
    };
    assert!(other.list_owned(&lab.owner).await.unwrap()[0].is_running);
    std::fs::write(lab.project.path().join("go"), "").unwrap();
    let exit = workload.wait().await.unwrap();

    let state = engine(&lab.root).recover(&handle).await.unwrap();
    let Recovered::Exited(found, workload) = state else {
        panic!("{state:?}");
    };
    assert_eq!(found, exit);
    assert!(Spool::read(&dir).is_complete());
    workload.remove().await.unwrap();
    let state = engine(&lab.root).recover(&handle).await.unwrap();
    assert!(matches!(state, Recovered::Gone), "{state:?}");
}

/// Leaves of a file what a loss of power may; control groups, which the configuration names, go with the power, too.
fn tear(lab: &Lab, name: &str, file: &str) {
    let path = lab.root.join(name).join(file);
    if file == "config.json" {
        let config = std::fs::read(&path).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        let groups: Vec<String> =
            serde_json::from_value(config["limits"]["cgroups"].clone()).unwrap();
        for group in groups {
            match std::fs::remove_dir(group) {
                // It was never started.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                removed => removed.unwrap(),
            }
        }
    }
    std::fs::write(path, "").unwrap();
}

#[tokio::test]
async fn one_that_a_loss_of_power_has_torn_is_gone_and_can_be_made_again() {
    let lab = Lab::new();
    let (spec, dir) = (lab.spec("print hello"), lab.attempt());
    let handle = lab.create(&spec, &dir).await;

    tear(&lab, &handle.container, "config.json");

    let state = lab.engine.recover(&handle).await.unwrap();
    assert!(matches!(state, Recovered::Gone), "{state:?}");
    let again = lab.create(&spec, &dir).await;
    assert_eq!(again, handle);
    let workload = lab.engine.start(&spec, &again, &dir).await.unwrap();
    assert_eq!(workload.wait().await.unwrap().code, 0);
    tear(&lab, &handle.container, "config.json");
    assert!(lab.engine.list_owned(&lab.owner).await.unwrap().is_empty());
    assert!(!lab.root.join(&handle.container).exists());
}

#[tokio::test]
async fn one_whose_end_a_loss_of_power_took_is_gone() {
    for torn in [&["exit.json"][..], &["shim.json", "exit.json"]] {
        let lab = Lab::new();
        let (workload, _dir) = lab.start(&lab.spec("print hello")).await;
        workload.wait().await.unwrap();
        let handle = workload.handle();

        for file in torn {
            tear(&lab, &handle.container, file);
        }

        let state = lab.engine.recover(handle).await.unwrap();
        assert!(matches!(state, Recovered::Gone), "{torn:?}: {state:?}");
        assert!(!lab.root.join(&handle.container).exists());
    }
}

#[tokio::test]
async fn one_whose_start_a_loss_of_power_took_is_not_started_again_if_its_agent_ran() {
    let lab = Lab::new();
    let (spec, dir) = (lab.spec("print once"), lab.attempt());
    let handle = lab.create(&spec, &dir).await;
    let workload = lab.engine.start(&spec, &handle, &dir).await.unwrap();
    workload.wait().await.unwrap();
    let folder = lab.root.join(&handle.container);
    for file in ["shim.json", "exit.json"] {
        std::fs::remove_file(folder.join(file)).unwrap();
    }

    let state = lab.engine.recover(&handle).await.unwrap();
    let error = lab.engine.start(&spec, &handle, &dir).await.unwrap_err();

    assert!(matches!(state, Recovered::Created(_)), "{state:?}");
    assert!(matches!(error, EngineError::Handover { .. }), "{error:?}");
    assert_eq!(Spool::read(&dir).stdout(), b"once\n");
}

#[tokio::test]
async fn one_that_another_version_has_written_is_left_alone() {
    let lab = Lab::new();
    let handle = lab.create(&lab.spec("print hello"), &lab.attempt()).await;
    let path = lab.root.join(&handle.container).join("config.json");

    std::fs::write(&path, r#"{"version":7,"what":"is this?"}"#).unwrap();

    assert!(lab.engine.list_owned(&lab.owner).await.unwrap().is_empty());
    assert!(lab.engine.recover(&handle).await.is_err());
    assert!(path.exists());
}

#[tokio::test]
async fn one_whose_shim_was_killed_is_gone_with_all_that_was_in_it() {
    let lab = Lab::new();
    let script = "(while :; do echo x >> /workspace/ticks; sleep 0.02; done) & wait";
    let (workload, dir) = lab.start(&lab.shell(script)).await;
    lab.wait_for("ticks").await;
    let handle = workload.handle().clone();
    let init = process(&lab, &handle.container, "init");

    kill_process(process(&lab, &handle.container, "shim"), Signal::KILL).unwrap();

    assert!(matches!(
        workload.wait().await.unwrap_err(),
        EngineError::NoSuchContainer { .. }
    ));
    assert!(!Path::new(&format!("/proc/{}/exe", init.as_raw_nonzero())).exists());
    assert!(!Spool::read(&dir).is_complete());
    let left = lab.engine.list_owned(&lab.owner).await.unwrap();
    assert!(!left[0].is_running);
    // From then on nothing of it is listed, and nothing is left of it.
    assert!(matches!(
        lab.engine.recover(&handle).await.unwrap(),
        Recovered::Gone
    ));
    assert!(!lab.root.join(&handle.container).exists());
    lab.engine.remove_owned(&lab.owner, &left[0]).await.unwrap();
    assert!(lab.engine.list_owned(&lab.owner).await.unwrap().is_empty());
}

#[tokio::test]
async fn one_whose_shim_was_killed_while_it_was_frozen_is_gone_all_the_same() {
    let lab = Lab::new();
    let script = "write /workspace/begun; sleep 120";
    let (workload, _dir) = lab.start(&lab.spec(script)).await;
    lab.wait_for("begun").await;
    let handle = workload.handle().clone();
    let init = process(&lab, &handle.container, "init");
    workload.pause().await.unwrap();

    kill_process(process(&lab, &handle.container, "shim"), Signal::KILL).unwrap();
    let waited = workload.wait().await.unwrap_err();
    let state = lab.engine.recover(&handle).await.unwrap();

    assert!(
        matches!(waited, EngineError::NoSuchContainer { .. }),
        "{waited:?}"
    );
    assert!(matches!(state, Recovered::Gone), "{state:?}");
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", init.as_raw_nonzero()));
    // Nobody may have waited for it yet.
    assert!(stat.is_err() || stat.unwrap().contains(") Z "));
}

#[tokio::test]
async fn one_whose_first_process_was_killed_has_ended_by_that_signal() {
    let lab = Lab::new();
    let (workload, _dir) = lab
        .start(&lab.spec("write /workspace/begun; sleep 120"))
        .await;
    lab.wait_for("begun").await;

    let init = process(&lab, &workload.handle().container, "init");
    kill_process(init, Signal::KILL).unwrap();

    assert_eq!(workload.wait().await.unwrap().code, 137);
}

#[tokio::test]
async fn a_shim_that_comes_late_starts_nothing_again() {
    let lab = Lab::new();
    let (workload, dir) = lab.start(&lab.spec("print once")).await;
    workload.wait().await.unwrap();

    let late = Command::new(env!("CARGO_BIN_EXE_sandbox-shim"))
        .arg("__sandbox-shim")
        .arg(lab.root.join(&workload.handle().container))
        .stdin(Stdio::null())
        .process_group(0)
        .status()
        .unwrap();

    assert!(late.success());
    assert_eq!(Spool::read(&dir).stdout(), b"once\n");
}

#[tokio::test]
async fn a_sandbox_outlives_the_one_who_waits_for_it() {
    let lab = Lab::new();
    let (workload, dir) = lab
        .start(&lab.shell(&format!("touch begun; {UNTIL_GO}; echo to the end")))
        .await;
    lab.wait_for("begun").await;
    let handle = workload.handle().clone();

    let waiting = tokio::time::timeout(std::time::Duration::from_millis(50), workload.wait());
    assert!(waiting.await.is_err());
    drop(workload);
    std::fs::write(lab.project.path().join("go"), "").unwrap();
    let (Recovered::Running(workload) | Recovered::Exited(_, workload)) =
        lab.engine.recover(&handle).await.unwrap()
    else {
        panic!("it was left alone");
    };

    assert_eq!(workload.wait().await.unwrap().code, 0);
    assert_eq!(Spool::read(&dir).text(), "to the end\n");
    workload.stop(&StopPolicy::default()).await.unwrap();
}

/// Makes a sandbox one that a process tries, to see whether this machine makes any.
fn make_a_try_of(lab: &Lab, name: &str, process: u32, started: u64) {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let path = lab.root.join(name).join("config.json");
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["owner"] = "probe".into();
    config["labels"]["dark-factory.tried-by"] =
        format!("{} {process} {started}", boot.trim()).into();
    std::fs::write(path, config.to_string()).unwrap();
}

#[tokio::test]
async fn what_a_killed_process_was_trying_is_cleared_away_and_a_living_ones_is_not() {
    let lab = Lab::new();
    let (workload, _dir) = lab
        .start(&lab.spec("write /workspace/begun; sleep 120"))
        .await;
    lab.wait_for("begun").await;
    let dead = &workload.handle().container;
    let init = process(&lab, dead, "init");
    let living = lab.create(&lab.spec("print hello"), &lab.attempt()).await;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let started = fields.split_whitespace().nth(19).unwrap().parse().unwrap();

    // The id is a living process's by now, which was started later.
    make_a_try_of(&lab, dead, std::process::id(), started + 1);
    make_a_try_of(&lab, &living.container, std::process::id(), started);
    let owned = lab.engine.list_owned(&lab.owner).await.unwrap();

    assert!(owned.is_empty(), "{owned:?}");
    assert!(!lab.root.join(dead).exists());
    assert!(!Path::new(&format!("/proc/{}/exe", init.as_raw_nonzero())).exists());
    assert!(lab.root.join(&living.container).exists());
}
