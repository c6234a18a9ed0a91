//! The fallback transport.

use std::time::Duration;

use dark_factory_executor::engine::{Engine, EngineError};
use dark_factory_executor::spec::{LaunchSpec, StopPolicy};
use dark_factory_spool::End;

use super::lab::{Lab, Spool, docker, engine, inspect, wait_for_file};

#[tokio::test]
async fn attached_output_is_exact_and_complete() {
    let lab = Lab::new();
    let spec = lab.attached("bytes 00ff80c30d0a; stderr oops; spew 8m 100; exit 3");

    let (exit, spool) = lab.run(&spec).await;

    assert_eq!(exit.code, 3);
    assert!(spool.is_complete());
    assert_eq!((spool.starts, spool.gaps.len()), (1, 0));
    assert_eq!(spool.exit.as_ref().unwrap().end, End::Code(3));
    assert_eq!(&spool.stdout()[..6], [0x00, 0xff, 0x80, 0xc3, 0x0d, 0x0a]);
    assert_eq!(spool.stdout().len(), 6 + (8 << 20));
    assert_eq!(spool.stderr(), "oops\n");
}

#[tokio::test]
async fn nothing_of_ours_runs_in_an_attached_container() {
    let lab = Lab::new();
    let handle = lab
        .create(&lab.attached("print hello"), &lab.attempt())
        .await;

    assert_eq!(
        inspect(&handle.container, "{{.Path}} {{.Args}}"),
        "/bin/agent [-e print hello]"
    );
}

#[tokio::test]
async fn a_container_that_goes_on_without_us_is_read_from_the_log_with_a_gap() {
    let lab = Lab::new();
    let dir = lab.attempt();
    let spec = lab.attached(
        "print one; write /workspace/begun; wait-file /workspace/go; print two; stderr three; exit 4",
    );
    let handle = lab.create(&spec, &dir).await;
    let workload = lab.engine.start(&spec, &handle, &dir).await.unwrap();
    wait_for_file(&lab.project.path().join("begun")).await;
    drop(workload);
    std::fs::write(lab.project.path().join("go"), "").unwrap();

    let other = engine("unix:///var/run/docker.sock");
    let workload = other.start(&spec, &handle, &dir).await.unwrap();
    let exit = workload.wait().await.unwrap();

    assert_eq!(exit.code, 4);
    let spool = Spool::read(&dir);
    assert_eq!(
        (spool.text().as_str(), spool.stderr().as_str()),
        ("one\ntwo\n", "three\n")
    );
    assert_eq!(spool.starts, 1);
    assert!(
        spool
            .gaps
            .iter()
            .all(|gap| gap.contains("source=logs, inexact")),
        "{:?}",
        spool.gaps
    );
    assert_eq!(spool.gaps.len(), 2);
    assert!(spool.is_complete());
}

#[tokio::test]
async fn output_has_one_reader_at_a_time() {
    let lab = Lab::new();
    let (spec, dir) = (lab.attached("print one; sleep 120"), lab.attempt());
    let handle = lab.create(&spec, &dir).await;
    let _first = lab.engine.start(&spec, &handle, &dir).await.unwrap();

    let error = lab.engine.start(&spec, &handle, &dir).await.unwrap_err();

    assert!(matches!(error, EngineError::Local { .. }), "{error:?}");
}

#[tokio::test]
async fn what_an_ended_container_printed_without_us_is_read_from_the_log_once() {
    let lab = Lab::new();
    let (spec, dir) = (lab.attached("print one; exit 4"), lab.attempt());
    let handle = lab.create(&spec, &dir).await;
    docker(&["start", &handle.container]);
    docker(&["wait", &handle.container]);

    for _ in 0..2 {
        let workload = lab.engine.start(&spec, &handle, &dir).await.unwrap();
        assert_eq!(workload.wait().await.unwrap().code, 4);
    }

    let spool = Spool::read(&dir);
    assert_eq!(
        (spool.starts, spool.text().as_str(), spool.gaps.len()),
        (1, "one\n", 2)
    );
    assert!(spool.is_complete());
}

#[tokio::test]
async fn a_command_that_cannot_be_executed_never_started() {
    let lab = Lab::new();
    let (spec, dir) = (
        LaunchSpec {
            command: vec!["/nowhere".to_owned()],
            ..lab.attached("")
        },
        lab.attempt(),
    );
    let handle = lab.create(&spec, &dir).await;

    let error = lab.engine.start(&spec, &handle, &dir).await.unwrap_err();

    assert!(
        matches!(error, EngineError::StartRefused { .. }),
        "{error:?}"
    );
    assert_eq!(Spool::read(&dir).starts, 0);
}

#[tokio::test]
async fn a_stubborn_attached_agent_is_killed_by_the_engine() {
    let lab = Lab::new();
    let spec = lab.attached("ignore-term; print mine; write /workspace/begun; sleep 120");
    let (workload, dir) = lab.start(&spec).await;
    wait_for_file(&lab.project.path().join("begun")).await;

    workload
        .stop(&StopPolicy {
            grace: Duration::from_secs(1),
            ..StopPolicy::default()
        })
        .await
        .unwrap();

    assert_eq!(workload.wait().await.unwrap().code, 137);
    let spool = Spool::read(&dir);
    assert!(spool.is_complete());
    assert_eq!(spool.text(), "mine\n");
}
