//! A container's life: created, started, waited for, stopped, found again, removed.

use std::time::{Duration, Instant};

use dark_factory_executor::clock::SystemClock;
use dark_factory_executor::engine::{Engine, EngineError, OomSeen, OwnedContainer, Recovered};
use dark_factory_executor::spec::{LaunchSpec, Limits, StopPolicy};
use dark_factory_executor::spool::{Handover, SpoolWriter, open_spool};
use dark_factory_spool::End;
use dark_factory_types::ByteSize;

use super::lab::{Lab, Spool, docker, engine, inspect, wait_for_file};

/// A script that says when it has begun, and then goes on for too long.
fn endless(before: &str) -> String {
    format!("{before}; write /workspace/begun; sleep 120")
}

fn grace(seconds: u64) -> StopPolicy {
    StopPolicy {
        grace: Duration::from_secs(seconds),
        ..StopPolicy::default()
    }
}

#[tokio::test]
async fn a_container_goes_from_create_to_remove_and_its_output_is_in_the_spool() {
    let lab = Lab::new();
    let spec = lab.spec("print hello; stderr oops; prompt");
    let dir = lab.attempt();

    let handle = lab.create(&spec, &dir).await;
    let workload = lab.engine.start(&spec, &handle, &dir).await.unwrap();
    let exit = workload.wait().await.unwrap();
    let again = workload.wait().await.unwrap();

    assert_eq!(
        (exit.code, exit.oom_killed, &exit.error),
        (0, OomSeen::No, &None)
    );
    assert_eq!(exit, again);
    let spool = Spool::read(&dir);
    assert_eq!(spool.text(), "hello\nthe prompt\n");
    assert_eq!(spool.stderr(), "oops\n");
    assert!(spool.is_complete());
    workload.remove().await.unwrap();
    workload.remove().await.unwrap();
    assert!(matches!(
        lab.engine.recover(&handle).await.unwrap(),
        Recovered::Gone
    ));
    assert!(matches!(
        workload.wait().await.unwrap_err(),
        EngineError::NoSuchContainer { .. }
    ));
}

#[tokio::test]
async fn the_exit_code_is_the_agents() {
    let lab = Lab::new();

    let (exit, spool) = lab.run(&lab.spec("print last words; exit 3")).await;

    assert_eq!(exit.code, 3);
    assert_eq!(spool.exit.unwrap().end, End::Code(3));
}

#[tokio::test]
async fn creating_twice_is_one_container() {
    let lab = Lab::new();
    let (spec, dir) = (lab.spec("print hello"), lab.attempt());

    let first = lab.create(&spec, &dir).await;
    let second = lab.create(&spec, &dir).await;

    assert_eq!(first, second);
    let mut owned = lab.engine.list_owned(&lab.owner).await.unwrap();
    assert!(
        owned
            .iter_mut()
            .all(|container| container.created_at.take().is_some())
    );
    let id = inspect(&first.container, "{{.Id}}");
    assert_eq!(
        owned,
        [OwnedContainer {
            name: first.container,
            id,
            attempt: Some(dir.attempt()),
            created_at: None,
            is_running: false,
        }]
    );
}

#[tokio::test]
async fn a_name_that_something_else_has_is_refused_and_its_holder_left_alone() {
    let lab = Lab::new();
    let name = format!("{}-holder", lab.owner);
    let label = format!("dark-factory.owner={}", lab.owner);
    docker(&[
        "create",
        "--name",
        &name,
        "--label",
        &label,
        &lab.image,
        "/bin/agent",
    ]);
    let before = inspect(&name, "{{json .}}");
    let spec = LaunchSpec {
        container: Some(name.clone()),
        ..lab.spec("print hello")
    };

    let error = lab
        .engine
        .create(&spec, &lab.owner, &lab.attempt())
        .await
        .unwrap_err();

    assert!(
        matches!(&error, EngineError::NameTaken { name: taken, .. } if *taken == name),
        "{error:?}"
    );
    assert_eq!(inspect(&name, "{{json .}}"), before);
}

#[tokio::test]
async fn starting_twice_is_one_run() {
    let lab = Lab::new();
    let (spec, dir) = (lab.spec("print hello; sleep 1"), lab.attempt());
    let handle = lab.create(&spec, &dir).await;

    lab.engine.start(&spec, &handle, &dir).await.unwrap();
    let workload = lab.engine.start(&spec, &handle, &dir).await.unwrap();
    workload.wait().await.unwrap();
    let ended = lab.engine.start(&spec, &handle, &dir).await.unwrap();

    assert_eq!(ended.wait().await.unwrap().code, 0);
    let spool = Spool::read(&dir);
    assert_eq!((spool.starts, spool.text().as_str()), (1, "hello\n"));
    assert_eq!(
        inspect(&handle.container, "{{.RestartCount}} {{.State.Status}}"),
        "0 exited"
    );
}

#[tokio::test]
async fn a_command_that_cannot_be_executed_is_in_the_spool() {
    let lab = Lab::new();
    let spec = LaunchSpec {
        command: vec!["/no/such/agent".to_owned()],
        ..lab.spec("")
    };

    let (exit, spool) = lab.run(&spec).await;

    assert_eq!(exit.code, 127);
    assert_eq!(spool.exec_failed.unwrap().program, "/no/such/agent");
}

#[tokio::test]
async fn a_stop_gives_the_agent_time_to_leave() {
    let lab = Lab::new();
    let (workload, dir) = lab.start(&lab.spec(&endless("on-term exit 7"))).await;
    wait_for_file(&lab.project.path().join("begun")).await;

    workload.stop(&grace(30)).await.unwrap();

    assert_eq!(workload.wait().await.unwrap().code, 7);
    assert_eq!(Spool::read(&dir).exit.unwrap().end, End::Code(7));
    workload.stop(&grace(30)).await.unwrap();
}

#[tokio::test]
async fn a_stubborn_agent_is_killed_and_its_record_is_whole() {
    let lab = Lab::new();
    let (workload, dir) = lab
        .start(&lab.spec(&endless("ignore-term; print mine")))
        .await;
    wait_for_file(&lab.project.path().join("begun")).await;
    let begun = Instant::now();

    workload.stop(&grace(1)).await.unwrap();

    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    workload.wait().await.unwrap();
    let spool = Spool::read(&dir);
    assert!(spool.is_complete());
    assert_eq!(spool.text(), "mine\n");
    assert_eq!(spool.exit.unwrap().end, End::Signal(9));
}

#[tokio::test]
async fn without_grace_a_stop_kills_at_once() {
    let lab = Lab::new();
    let (workload, dir) = lab.start(&lab.spec(&endless("on-term exit 7"))).await;
    wait_for_file(&lab.project.path().join("begun")).await;

    workload.stop(&StopPolicy::kill()).await.unwrap();

    assert_eq!(Spool::read(&dir).exit.unwrap().end, End::Signal(9));
}

#[tokio::test]
async fn a_container_killed_from_outside_has_no_exit_record() {
    let lab = Lab::new();
    let (workload, dir) = lab.start(&lab.spec(&endless("print hello"))).await;
    wait_for_file(&lab.project.path().join("begun")).await;

    docker(&["kill", &workload.handle().container]);

    assert_eq!(workload.wait().await.unwrap().code, 137);
    let spool = Spool::read(&dir);
    assert_eq!(
        (spool.text().as_str(), spool.exit.is_none()),
        ("hello\n", true)
    );
}

#[tokio::test]
async fn an_agent_without_enough_memory_is_seen() {
    let lab = Lab::new();
    let limits = Limits {
        memory: Some(ByteSize(32 << 20)),
        ..Limits::default()
    };
    let spec = LaunchSpec {
        limits,
        ..lab.spec("allocate 256m")
    };

    let (exit, spool) = lab.run(&spec).await;

    let record = spool.exit.unwrap();
    assert_eq!(record.end, End::Signal(9));
    assert!(
        exit.oom_killed == OomSeen::Yes || record.oom_kills > Some(0),
        "{exit:?} {record:?}"
    );
}

#[tokio::test]
async fn another_process_finds_each_state_from_the_handle() {
    let lab = Lab::new();
    let (spec, dir) = (lab.spec(&endless("on-term exit 7")), lab.attempt());
    let handle = lab.create(&spec, &dir).await;
    let handle = serde_json::from_value(serde_json::to_value(handle).unwrap()).unwrap();
    let other = engine("unix:///var/run/docker.sock");

    let Recovered::Created(_) = other.recover(&handle).await.unwrap() else {
        panic!("not created")
    };

    lab.engine.start(&spec, &handle, &dir).await.unwrap();
    wait_for_file(&lab.project.path().join("begun")).await;
    let Recovered::Running(workload) = other.recover(&handle).await.unwrap() else {
        panic!("not running")
    };

    workload.stop(&grace(30)).await.unwrap();
    let Recovered::Exited(exit, workload) = other.recover(&handle).await.unwrap() else {
        panic!("not exited")
    };
    assert_eq!(exit.code, 7);

    workload.remove().await.unwrap();
    assert!(matches!(
        other.recover(&handle).await.unwrap(),
        Recovered::Gone
    ));
}

#[tokio::test]
async fn a_created_container_can_be_removed() {
    let lab = Lab::new();
    let (spec, dir) = (lab.spec("print hello"), lab.attempt());
    let handle = lab.create(&spec, &dir).await;
    let Recovered::Created(workload) = lab.engine.recover(&handle).await.unwrap() else {
        panic!("not created")
    };

    workload.stop(&StopPolicy::default()).await.unwrap();
    workload.remove().await.unwrap();

    assert_eq!(lab.engine.list_owned(&lab.owner).await.unwrap(), []);
}

#[tokio::test]
async fn a_running_container_is_not_removed() {
    let lab = Lab::new();
    let (workload, _dir) = lab.start(&lab.spec("sleep 120")).await;

    let error = workload.remove().await.unwrap_err();

    assert!(matches!(error, EngineError::Failed { .. }), "{error:?}");
    assert_eq!(
        inspect(&workload.handle().container, "{{.State.Running}}"),
        "true"
    );
}

#[tokio::test]
async fn a_container_whose_supervisor_died_before_the_handover_gets_its_spool_from_the_next() {
    let lab = Lab::new();
    let (spec, dir) = (lab.spec("print hello"), lab.attempt());
    let handle = lab.create(&spec, &dir).await;
    docker(&["start", &handle.container]);

    let workload = lab.engine.start(&spec, &handle, &dir).await.unwrap();

    assert_eq!(workload.wait().await.unwrap().code, 0);
    let spool = Spool::read(&dir);
    assert!(spool.is_complete());
    assert_eq!((spool.starts, spool.text().as_str()), (1, "hello\n"));
}

#[tokio::test]
async fn a_container_that_ended_before_it_took_its_spool_is_not_started_again() {
    let lab = Lab::new();
    let (spec, dir) = (lab.spec("print hello"), lab.attempt());
    let handle = lab.create(&spec, &dir).await;
    docker(&["start", &handle.container]);
    docker(&["kill", &handle.container]);
    docker(&["wait", &handle.container]);

    let error = lab.engine.start(&spec, &handle, &dir).await.unwrap_err();

    assert!(matches!(error, EngineError::Handover { .. }), "{error:?}");
    assert_eq!(inspect(&handle.container, "{{.State.Status}}"), "exited");
}

#[tokio::test]
async fn a_container_that_dies_instead_of_taking_its_spool_is_told_at_once() {
    let lab = Lab::new();
    let (spec, dir) = (lab.spec("print hello"), lab.attempt());
    let handle = lab.create(&spec, &dir).await;
    let container = handle.container.clone();
    docker(&["start", &container]);
    docker(&["pause", &container]);

    let start = async {
        let error = lab.engine.start(&spec, &handle, &dir).await.unwrap_err();
        assert!(
            matches!(&error, EngineError::Handover { reason, .. } if reason.contains("137")),
            "{error:?}"
        );
    };
    let kill = async {
        wait_for_file(&dir.mount().join("socket")).await;
        tokio::task::spawn_blocking(move || docker(&["kill", &container]))
            .await
            .unwrap();
    };
    tokio::join!(tokio::time::timeout(Duration::from_secs(30), start), kill)
        .0
        .unwrap();
}

#[tokio::test]
async fn a_helper_that_was_about_to_start_the_agent_when_its_supervisor_died_runs_it_once() {
    let lab = Lab::new();
    let (spec, dir) = (lab.spec("print hello"), lab.attempt());
    let handle = lab.create(&spec, &dir).await;
    let container = handle.container.clone();
    let first = Handover::listen(&dir).unwrap();
    docker(&["start", &container]);
    // It connects many times a second; then it waits for what nobody has sent yet.
    tokio::time::sleep(Duration::from_secs(1)).await;
    docker(&["pause", &container]);
    first.hand_over(&open_spool(&dir).unwrap()).await.unwrap();
    drop(first);

    let start = lab.engine.start(&spec, &handle, &dir);
    let unpause = async {
        wait_for_file(&dir.mount().join("socket")).await;
        tokio::task::spawn_blocking(move || docker(&["unpause", &container]))
            .await
            .unwrap();
    };
    let workload = tokio::join!(start, unpause).0.unwrap();

    assert_eq!(workload.wait().await.unwrap().code, 0);
    let spool = Spool::read(&dir);
    assert!(spool.is_complete());
    assert_eq!((spool.starts, spool.text().as_str()), (1, "hello\n"));
}

#[tokio::test]
async fn an_agent_that_ran_is_not_started_again_by_an_engine_that_forgot_it() {
    let lab = Lab::new();
    let (spec, dir) = (lab.spec("print hello"), lab.attempt());
    let handle = lab.create(&spec, &dir).await;
    SpoolWriter::open(&dir)
        .unwrap()
        .start(&SystemClock)
        .unwrap();

    let error = lab.engine.start(&spec, &handle, &dir).await.unwrap_err();

    assert!(matches!(error, EngineError::Handover { .. }), "{error:?}");
    assert_eq!(inspect(&handle.container, "{{.State.Status}}"), "created");
}
