//! Who ended a container, and why.

use std::process::Command;

use dark_factory_executor::clock::{Clock, SystemClock};
use dark_factory_executor::engine::{EndedBy, Engine, OomSeen, Recovered, Workload};
use dark_factory_executor::spec::{LaunchSpec, Limits, StopPolicy};
use dark_factory_types::ByteSize;

use super::lab::{Lab, docker, engine, inspect, wait_for_file};

/// Starts a container whose agent leaves with code 7 when it is told to, and waits until it would.
async fn begun(lab: &Lab) -> Box<dyn Workload> {
    let spec = lab.spec("on-term exit 7; write /workspace/begun; sleep 120");
    let (workload, _dir) = lab.start(&spec).await;
    wait_for_file(&lab.project.path().join("begun")).await;
    workload
}

#[tokio::test]
async fn a_container_that_ends_by_itself_was_ended_by_nobody() {
    let lab = Lab::new();

    for (script, code) in [("print hello", 0), ("exit 3", 3), ("exit 137", 137)] {
        let (exit, _spool) = lab.run(&lab.spec(script)).await;

        assert_eq!(
            (exit.code, exit.ended_by),
            (code, EndedBy::Unknown),
            "{script}"
        );
    }
}

#[tokio::test]
async fn a_kill_from_outside_is_a_request() {
    let lab = Lab::new();
    let workload = begun(&lab).await;

    docker(&["kill", &workload.handle().container]);
    let exit = workload.wait().await.unwrap();

    assert_eq!(
        (exit.code, exit.ended_by),
        (137, EndedBy::Request { signal: 9 })
    );
}

#[tokio::test]
async fn a_stop_from_outside_is_a_request_also_if_the_agent_leaves_by_itself() {
    let lab = Lab::new();
    let workload = begun(&lab).await;

    docker(&["stop", &workload.handle().container]);
    let exit = workload.wait().await.unwrap();

    assert_eq!(
        (exit.code, exit.ended_by),
        (7, EndedBy::Request { signal: 15 })
    );
}

#[tokio::test]
async fn our_own_stop_is_a_request_too() {
    let lab = Lab::new();
    let workload = begun(&lab).await;

    workload.stop(&StopPolicy::default()).await.unwrap();

    let exit = workload.wait().await.unwrap();
    assert_eq!(
        (exit.code, exit.ended_by),
        (7, EndedBy::Request { signal: 15 })
    );
}

#[tokio::test]
async fn a_signal_that_went_past_the_engine_is_nobodys() {
    let lab = Lab::new();
    let workload = begun(&lab).await;
    let pid = inspect(&workload.handle().container, "{{.State.Pid}}");

    let killed = Command::new("kill").args(["-9", &pid]).status().unwrap();
    assert!(killed.success());
    let exit = workload.wait().await.unwrap();

    assert_eq!((exit.code, exit.ended_by), (137, EndedBy::Unknown));
}

#[tokio::test]
async fn whoever_comes_later_is_told_the_same() {
    let lab = Lab::new();
    let workload = begun(&lab).await;
    docker(&["kill", &workload.handle().container]);
    let exit = workload.wait().await.unwrap();

    let other = engine("unix:///var/run/docker.sock");
    let Recovered::Exited(found, workload) = other.recover(workload.handle()).await.unwrap() else {
        panic!("not exited")
    };

    assert_eq!(found, exit);
    assert_eq!(workload.wait().await.unwrap(), exit);
}

#[tokio::test]
async fn a_kill_is_a_request_also_where_the_engine_has_forgotten_the_start() {
    let lab = Lab::new();
    let workload = begun(&lab).await;
    // An engine remembers 256 events.
    for _ in 0..130 {
        workload.pause().await.unwrap();
        workload.unpause().await.unwrap();
    }

    docker(&["kill", &workload.handle().container]);
    let exit = workload.wait().await.unwrap();

    assert_eq!(
        (exit.code, exit.ended_by),
        (137, EndedBy::Request { signal: 9 })
    );
}

#[tokio::test]
async fn lack_of_memory_is_seen_if_the_engine_has_it_in_its_state_or_in_its_events() {
    let lab = Lab::new();
    let spec = LaunchSpec {
        limits: Limits {
            memory: Some(ByteSize(32 << 20)),
            ..Limits::default()
        },
        ..lab.spec("allocate 256m")
    };
    let (workload, _dir) = lab.start(&spec).await;

    let exit = workload.wait().await.unwrap();

    let container = &workload.handle().container;
    let events = docker(&[
        "events",
        "--since=0",
        &format!("--until={}", SystemClock.now().as_second()),
        "--filter=event=oom",
        &format!("--filter=container={container}"),
    ]);
    let known = inspect(container, "{{.State.OOMKilled}}") == "true" || !events.is_empty();
    assert_eq!(exit.oom_killed == OomSeen::Yes, known, "{exit:?} {events}");
    assert_eq!(exit.ended_by, EndedBy::Unknown);
}
