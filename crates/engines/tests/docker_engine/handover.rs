//! Supervisors that die while the helper in a container asks for its spool.

use std::time::Duration;

use dark_factory_executor::engine::{Engine, EngineError};
use dark_factory_executor::spool::{Handover, open_spool};

use super::lab::{Lab, Spool, docker, inspect, wait_for_file};

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
