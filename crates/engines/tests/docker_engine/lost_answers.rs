//! Answers that never arrive, though the engine did what it was asked for.

use std::time::Duration;

use dark_factory_executor::engine::{Engine, EngineError, Handle, Recovered};
use dark_factory_executor::spec::LaunchSpec;
use dark_factory_spool::End;

use super::lab::{Lab, Spool, docker, inspect, wait_for_file};
use super::proxy::{Mishap, Proxy};

#[tokio::test]
async fn a_container_whose_create_was_not_answered_is_found_again() {
    let lab = Lab::new();
    let (spec, dir) = (lab.spec("print hello"), lab.attempt());
    let proxy = Proxy::new([Mishap::LoseAnswer("/containers/create")]);

    let handle = proxy
        .engine()
        .create(&spec, &lab.owner, &dir)
        .await
        .unwrap();

    assert_eq!(lab.create(&spec, &dir).await, handle);
    assert_eq!(lab.engine.list_owned(&lab.owner).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_name_that_begins_an_id_is_not_taken_by_that_container() {
    let lab = Lab::new();
    let other = lab.create(&lab.spec("print hello"), &lab.attempt()).await;
    let spec = LaunchSpec {
        container: Some(inspect(&other.container, "{{.Id}}")[..12].to_owned()),
        ..lab.spec("print hello")
    };
    let dir = lab.attempt();
    let proxy = Proxy::new([Mishap::LoseRequest("/containers/create")]);

    // Nothing was created: the engine's answer about the name is about the other container.
    let lost = proxy.engine().create(&spec, &lab.owner, &dir).await;
    let created = lab.engine.create(&spec, &lab.owner, &dir).await.unwrap();

    assert!(
        matches!(lost, Err(EngineError::Unreachable { .. })),
        "{lost:?}"
    );
    assert_ne!(created, other);
    // Its name would confuse the removal of both.
    docker(&["rm", &created.container]);
}

#[tokio::test]
async fn a_start_that_was_not_answered_is_a_run_if_the_spool_was_taken() {
    let lab = Lab::new();
    let (spec, dir) = (lab.spec("print hello; exit 3"), lab.attempt());
    let handle = lab.create(&spec, &dir).await;
    let proxy = Proxy::new([Mishap::LoseAnswer("/start")]);

    // Which of the two comes first, the helper or the lost answer, is the engine's choice.
    let workload = match proxy.engine().start(&spec, &handle, &dir).await {
        Ok(workload) => workload,
        Err(EngineError::Unreachable { .. }) => {
            lab.engine.start(&spec, &handle, &dir).await.unwrap()
        }
        Err(error) => panic!("{error:?}"),
    };

    assert_eq!(workload.wait().await.unwrap().code, 3);
    let spool = Spool::read(&dir);
    assert_eq!((spool.starts, spool.text().as_str()), (1, "hello\n"));
    assert!(spool.is_complete());
}

#[tokio::test]
async fn a_wait_that_was_not_answered_says_nothing_about_the_container() {
    let lab = Lab::new();
    let (workload, _dir) = lab.start(&lab.spec("sleep 1; exit 3")).await;
    let proxy = Proxy::new([Mishap::LoseAnswer("/wait")]);
    let Recovered::Running(unlucky) = proxy.engine().recover(workload.handle()).await.unwrap()
    else {
        panic!("not running")
    };

    let error = unlucky.wait().await.unwrap_err();

    assert!(
        matches!(error, EngineError::Unreachable { .. }),
        "{error:?}"
    );
    assert_eq!(workload.wait().await.unwrap().code, 3);
}

/// Runs an attached agent whose connection breaks after its first line and before the rest; `end` is how it ends.
async fn run_whose_attach_breaks(lab: &Lab, end: &str) -> (Handle, Spool) {
    let spec = lab.attached(&format!(
        "print one; write /workspace/begun; wait-file /workspace/go; print two; stderr three; {end}"
    ));
    let dir = lab.attempt();
    let handle = lab.create(&spec, &dir).await;
    let proxy = Proxy::new([Mishap::Cut("/attach")]);
    let workload = proxy.engine().start(&spec, &handle, &dir).await.unwrap();
    wait_for_file(&lab.project.path().join("begun")).await;

    proxy.cut();
    std::fs::write(lab.project.path().join("go"), "").unwrap();
    let exit = workload.wait().await.unwrap();

    assert_eq!(exit.code, 4);
    let spool = Spool::read(&dir);
    assert_eq!(
        (spool.text().as_str(), spool.stderr().as_str()),
        ("one\ntwo\n", "three\n")
    );
    assert_eq!(spool.gaps.len(), 2);
    (handle, spool)
}

#[tokio::test]
async fn a_broken_attach_is_a_gap_and_the_rest_comes_from_the_log() {
    let lab = Lab::new();

    let (handle, spool) = run_whose_attach_breaks(&lab, "sleep 4; exit 4").await;

    assert_eq!(spool.exit.as_ref().unwrap().end, End::Code(4));
    assert_eq!(inspect(&handle.container, "{{.State.ExitCode}}"), "4");
}

#[tokio::test]
async fn an_attach_that_breaks_just_before_the_end_is_a_gap_too() {
    let lab = Lab::new();

    let (_handle, spool) = run_whose_attach_breaks(&lab, "exit 4").await;

    assert!(spool.is_complete());
}

#[tokio::test]
async fn a_log_that_an_engine_in_trouble_does_not_give_is_asked_for_again() {
    let lab = Lab::new();
    let spec = lab
        .attached("print one; write /workspace/begun; wait-file /workspace/go; print two; exit 4");
    let dir = lab.attempt();
    let handle = lab.create(&spec, &dir).await;
    let proxy = Proxy::new([Mishap::Cut("/attach"), Mishap::Fail("/logs", 3)]);
    let workload = proxy.engine().start(&spec, &handle, &dir).await.unwrap();
    wait_for_file(&lab.project.path().join("begun")).await;

    proxy.cut();
    std::fs::write(lab.project.path().join("go"), "").unwrap();
    let exit = workload.wait().await.unwrap();

    assert_eq!(exit.code, 4);
    let spool = Spool::read(&dir);
    assert_eq!(spool.text(), "one\ntwo\n");
    assert!(spool.is_complete());
}

#[tokio::test]
async fn an_engine_that_takes_a_wait_and_never_answers_again_is_unreachable() {
    let lab = Lab::new();
    let (workload, _dir) = lab.start(&lab.spec("sleep 120")).await;
    let proxy = Proxy::new([Mishap::Freeze("/wait")]);
    let Recovered::Running(frozen) = proxy.engine().recover(workload.handle()).await.unwrap()
    else {
        panic!("not running")
    };

    let waited = tokio::time::timeout(Duration::from_secs(60), frozen.wait()).await;

    let error = waited.unwrap().unwrap_err();
    assert!(
        matches!(error, EngineError::Unreachable { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_wait_whose_connection_went_silent_still_tells_the_end() {
    let lab = Lab::new();
    let (workload, _dir) = lab.start(&lab.spec("sleep 1; exit 3")).await;
    let proxy = Proxy::new([Mishap::Mute("/wait")]);
    let Recovered::Running(muted) = proxy.engine().recover(workload.handle()).await.unwrap() else {
        panic!("not running")
    };

    let waited = tokio::time::timeout(Duration::from_secs(60), muted.wait()).await;

    assert_eq!(waited.unwrap().unwrap().code, 3);
}
