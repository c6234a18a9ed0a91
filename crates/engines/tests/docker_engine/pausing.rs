//! Freezing a container, and stopping a frozen one.

use std::time::Duration;

use dark_factory_executor::engine::{Engine, EngineError, Recovered, Workload};
use dark_factory_executor::spec::{LaunchSpec, StopPolicy};
use dark_factory_spool::End;

use super::lab::{Lab, Spool, docker, inspect, wait_for_file};

fn is_paused(workload: &dyn Workload) -> bool {
    inspect(&workload.handle().container, "{{.State.Paused}}") == "true"
}

fn grace(seconds: u64) -> StopPolicy {
    StopPolicy {
        grace: Duration::from_secs(seconds),
        ..StopPolicy::default()
    }
}

#[tokio::test]
async fn a_container_is_frozen_and_goes_on_however_often_it_is_told() {
    let lab = Lab::new();
    let spec = lab.spec("write /workspace/begun; wait-file /workspace/go; print hello");
    let (workload, dir) = lab.start(&spec).await;
    wait_for_file(&lab.project.path().join("begun")).await;

    for _ in 0..2 {
        workload.pause().await.unwrap();
        assert!(is_paused(workload.as_ref()));
    }
    for _ in 0..2 {
        workload.unpause().await.unwrap();
        assert!(!is_paused(workload.as_ref()));
    }

    std::fs::write(lab.project.path().join("go"), "").unwrap();
    assert_eq!(workload.wait().await.unwrap().code, 0);
    assert_eq!(Spool::read(&dir).text(), "hello\n");
}

#[tokio::test]
async fn what_has_ended_or_never_ran_cannot_be_frozen() {
    let lab = Lab::new();
    let (ended, _dir) = lab.start(&lab.spec("print hello")).await;
    ended.wait().await.unwrap();
    let handle = lab.create(&lab.spec("print hello"), &lab.attempt()).await;
    let Recovered::Created(created) = lab.engine.recover(&handle).await.unwrap() else {
        panic!("not created")
    };
    let (removed, _dir) = lab.start(&lab.spec("print hello")).await;
    removed.wait().await.unwrap();
    removed.remove().await.unwrap();

    for workload in [ended, created, removed] {
        for result in [workload.pause().await, workload.unpause().await] {
            assert!(
                matches!(result, Err(EngineError::NoSuchContainer { .. })),
                "{result:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_frozen_agent_gets_its_time_to_leave_when_it_is_stopped() {
    let lab = Lab::new();
    let spec = lab.spec("on-term exit 7; write /workspace/begun; sleep 120");
    let (workload, dir) = lab.start(&spec).await;
    wait_for_file(&lab.project.path().join("begun")).await;
    workload.pause().await.unwrap();

    workload.stop(&grace(30)).await.unwrap();

    assert_eq!(workload.wait().await.unwrap().code, 7);
    assert_eq!(Spool::read(&dir).exit.unwrap().end, End::Code(7));
}

#[tokio::test]
async fn a_frozen_agent_is_thawed_for_a_signal_that_the_engine_does_not_thaw_it_for() {
    let lab = Lab::new();
    // The engine thaws only for the container's own stop signal and SIGKILL.
    let spec = LaunchSpec {
        stop: StopPolicy {
            signal: "SIGINT".to_owned(),
            ..StopPolicy::default()
        },
        ..lab.spec("on-term exit 7; write /workspace/begun; sleep 120")
    };
    let (workload, dir) = lab.start(&spec).await;
    wait_for_file(&lab.project.path().join("begun")).await;
    workload.pause().await.unwrap();

    workload.stop(&grace(30)).await.unwrap();

    assert_eq!(Spool::read(&dir).exit.unwrap().end, End::Code(7));
}

#[tokio::test]
async fn a_frozen_stubborn_agent_is_killed_and_its_record_is_whole() {
    let lab = Lab::new();
    let spec = lab.spec("ignore-term; print mine; write /workspace/begun; sleep 120");
    let (workload, dir) = lab.start(&spec).await;
    wait_for_file(&lab.project.path().join("begun")).await;
    docker(&["pause", &workload.handle().container]);

    workload.stop(&StopPolicy::kill()).await.unwrap();

    let spool = Spool::read(&dir);
    assert!(spool.is_complete());
    assert_eq!(spool.text(), "mine\n");
    assert_eq!(spool.exit.unwrap().end, End::Signal(9));
}
