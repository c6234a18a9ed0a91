//! Does it run, how many run, stop it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use dark_factory_engines::docker::seed::{
    DockerContainerChecker, DockerContainerCounter, DockerContainerStopper,
};
use dark_factory_executor::containers::{
    ContainerChecker, ContainerCounter, ContainerStopper, WaitError,
};
use dark_factory_executor::engine::EngineError;
use dark_factory_types::{OutcomeKind, StopReason};
use tokio_util::sync::CancellationToken;

use dark_factory_executor::execute::Executor as _;

use crate::lab::{docker, inspect, wait_for_file};
use crate::rig::{PROJECT_LABEL, Rig, dead_endpoint, endpoint, prompt_of};

const LABELLED: [&str; 2] = ["--label", PROJECT_LABEL];
const WAIT: &str = "wait-file /workspace/go";
/// Longer than any of these waits may take.
const LONG: Duration = Duration::from_secs(60);

fn checker() -> DockerContainerChecker {
    DockerContainerChecker::new(&endpoint())
}

#[tokio::test]
async fn a_container_runs_from_its_start_to_its_end() {
    let rig = Rig::new();
    let name = rig.foreign(&["create"], "a", &[], WAIT);
    let is_running = async || checker().is_running(&name).await.unwrap();

    let created = is_running().await;
    docker(&["start", &name]);
    let started = is_running().await;
    docker(&["pause", &name]);
    let paused = is_running().await;
    docker(&["unpause", &name]);
    rig.go();
    docker(&["wait", &name]);
    let ended = is_running().await;
    docker(&["rm", &name]);
    let removed = is_running().await;

    assert_eq!(
        [created, started, paused, ended, removed],
        [false, true, true, false, false]
    );
}

#[tokio::test]
async fn the_beginning_of_an_id_is_no_name() {
    let rig = Rig::new();
    let name = rig.running("a", &[], WAIT);
    let id = inspect(&name, "{{.Id}}");

    assert!(checker().is_running(&name).await.unwrap());
    assert!(!checker().is_running(&id[..12]).await.unwrap());
    assert!(!checker().is_running("a/../json?all=1").await.unwrap());
}

#[tokio::test]
async fn an_engine_that_does_not_answer_is_an_error_and_never_a_no() {
    let checker = DockerContainerChecker::new(&dead_endpoint());

    let is_running = checker.is_running("any").await;
    let waited = checker.wait_until_running("any", LONG).await;
    let counted = DockerContainerCounter::new(&dead_endpoint())
        .count_running()
        .await;
    let stopped = DockerContainerStopper::new(&dead_endpoint())
        .stop_container("any")
        .await;

    assert!(
        matches!(is_running, Err(EngineError::Unreachable { .. })),
        "{is_running:?}"
    );
    assert!(
        matches!(
            waited,
            Err(WaitError::Engine(EngineError::Unreachable { .. }))
        ),
        "{waited:?}"
    );
    assert!(
        matches!(counted, Err(EngineError::Unreachable { .. })),
        "{counted:?}"
    );
    assert!(
        matches!(stopped, Err(EngineError::Unreachable { .. })),
        "{stopped:?}"
    );
}

#[tokio::test]
async fn a_container_that_is_made_and_started_later_is_waited_for() {
    let rig = Rig::new();
    let name = rig.name("a");
    let checker = checker();
    let mut waiting = std::pin::pin!(checker.wait_until_running(&name, LONG));

    let early = tokio::time::timeout(Duration::from_millis(500), &mut waiting).await;
    rig.foreign(&["create"], "a", &[], WAIT);
    let created = tokio::time::timeout(Duration::from_millis(500), &mut waiting).await;
    docker(&["start", &name]);
    let begun = Instant::now();
    waiting.await.unwrap();

    assert!(early.is_err() && created.is_err(), "{early:?} {created:?}");
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_container_that_runs_is_not_waited_for() {
    let rig = Rig::new();
    let name = rig.running("a", &[], WAIT);

    checker().wait_until_running(&name, LONG).await.unwrap();
}

#[tokio::test]
async fn a_container_that_ended_is_an_error_at_once() {
    let rig = Rig::new();
    let name = rig.running("a", &[], "exit 7");
    docker(&["wait", &name]);

    let waited = checker().wait_until_running(&name, LONG).await;

    assert!(
        matches!(waited, Err(WaitError::Ended { code: 7, .. })),
        "{waited:?}"
    );
}

#[tokio::test]
async fn a_container_that_never_comes_is_waited_for_until_the_timeout() {
    let rig = Rig::new();
    let (name, limit) = (rig.name("never"), Duration::from_millis(700));
    let begun = Instant::now();

    let waited = checker()
        .wait_until_running(&name, limit)
        .await
        .unwrap_err();

    assert!(begun.elapsed() >= limit);
    assert_eq!(
        waited.to_string(),
        format!("container {name} did not start within 700ms")
    );
}

#[tokio::test]
async fn running_containers_with_a_project_label_are_counted_and_no_others() {
    let rig = Rig::new();
    let labelled = rig.running("a", &LABELLED, WAIT);
    let unnamed = rig.running("b", &["--label", "dark-factory.project="], WAIT);
    let others = rig.running("c", &["--label", "dark-factory.projects=x"], WAIT);
    let created = rig.foreign(&["create"], "d", &LABELLED, WAIT);
    let list = || {
        let format = "{{.Label \"dark-factory.project\"}} {{.Names}}";
        let listed = docker(&[
            "ps",
            "--format",
            format,
            "--filter",
            "label=dark-factory.project",
        ]);
        listed.lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let counter = DockerContainerCounter::new(&endpoint());

    // Others use the engine too, so only a moment counts in which they did not.
    let counted = async {
        loop {
            let before = list();
            let counted = counter.count_running().await.unwrap();
            if counted == before.len() && before == list() {
                return before;
            }
        }
    };
    let counted = tokio::time::timeout(LONG, counted).await.unwrap();

    let is_counted = |name: &String| counted.iter().any(|line| line.ends_with(name.as_str()));
    assert!(is_counted(&labelled) && is_counted(&unnamed), "{counted:?}");
    assert!(!is_counted(&others) && !is_counted(&created), "{counted:?}");
}

#[tokio::test]
async fn a_container_of_somebody_else_is_not_stopped() {
    let rig = Rig::new();
    let name = rig.running("a", &["--label", "other=1"], WAIT);

    let stopped = DockerContainerStopper::new(&endpoint())
        .stop_container(&name)
        .await;

    assert!(
        matches!(stopped, Err(EngineError::NotOurs { .. })),
        "{stopped:?}"
    );
    assert!(checker().is_running(&name).await.unwrap());
}

#[tokio::test]
async fn the_seeds_container_is_stopped_by_its_own_signal_and_stays() {
    let rig = Rig::new();
    let options = [&LABELLED[..], &["--stop-signal", "SIGTERM"]].concat();
    let name = rig.running(
        "a",
        &options,
        "on-term exit 5; write /workspace/here x; wait-file /workspace/go",
    );
    wait_for_file(&rig.project_file("here")).await;

    DockerContainerStopper::new(&endpoint())
        .stop_container(&name)
        .await
        .unwrap();

    assert_eq!(
        inspect(&name, "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 5"
    );
}

#[tokio::test]
async fn what_does_not_run_is_stopped_already() {
    let rig = Rig::new();
    let created = rig.foreign(&["create"], "a", &LABELLED, WAIT);
    let ended = rig.running("b", &LABELLED, "exit 0");
    docker(&["wait", &ended]);
    let stopper = DockerContainerStopper::new(&endpoint());

    for name in [
        created.as_str(),
        ended.as_str(),
        &rig.name("never"),
        "-no/name",
    ] {
        stopper.stop_container(name).await.unwrap();
    }

    assert_eq!(inspect(&created, "{{.State.Status}}"), "created");
}

#[tokio::test]
async fn a_recorded_stop_makes_the_outcome_cancelled() {
    let rig = Rig::new();
    let name = rig.name("a");
    let (log, cancel) = (rig.log("a"), CancellationToken::new());
    let prompt = prompt_of("write /workspace/here x; wait-file /workspace/go");
    let stopper =
        DockerContainerStopper::new(&endpoint()).recording_in(rig.executor.supervisor().clone());

    let stop = async {
        wait_for_file(&rig.project_file("here")).await;
        stopper.stop_container(&name).await
    };
    let (outcome, stopped) =
        tokio::join!(rig.executor.execute(&prompt, &log, &name, &cancel), stop);

    stopped.unwrap();
    assert_eq!(outcome.unwrap().kind, OutcomeKind::Cancelled);
    let attempts = rig.attempts().await;
    assert_eq!(
        attempts[0].stop.as_ref().map(|stop| stop.reason.clone()),
        Some(StopReason::Cancelled {
            by: "the caller".to_owned()
        })
    );
}
