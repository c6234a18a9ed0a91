//! Containers that were started before: ours, and the seed's.

use std::fs;
use std::time::Duration;

use dark_factory_executor::engine::EngineError;
use dark_factory_executor::error::ExecutorError;
use dark_factory_executor::execute::Executor;
use dark_factory_executor::host::HostView;
use dark_factory_types::{LogState, OutcomeKind, Transport};
use tokio_util::sync::CancellationToken;

use crate::lab::{docker, inspect, wait_for_file};
use crate::rig::{PROJECT_LABEL, Rig, prompt_of, unstamped};

const LABELLED: [&str; 2] = ["--label", PROJECT_LABEL];
/// A script for a container of ours, whose working directory is the workspace, and for one of somebody else.
const OURS: &str = "print one; write here x; wait-file go; print two; exit 4";
const FOREIGN: &str =
    "print one; write /workspace/here x; wait-file /workspace/go; print two; exit 4";

#[tokio::test]
async fn after_the_caller_went_away_both_logs_hold_the_whole_output_once() {
    let rig = Rig::new();
    rig.abandon("a", OURS).await;
    rig.go();

    let outcome = rig
        .executor
        .reattach(&rig.log("a"), &rig.name("a"), None)
        .await
        .unwrap();

    assert_eq!(outcome.kind, OutcomeKind::Failed);
    let (raw, log) = rig.log_texts("a");
    assert_eq!(
        (raw.as_str(), unstamped(&log).as_str()),
        ("one\ntwo\n", "one\ntwo")
    );
    assert!(rig.containers().is_empty());
    assert_eq!(rig.attempts().await.len(), 1);
}

#[test]
fn nothing_of_ours_goes_on_after_the_caller_went_away() {
    let rig = Rig::new();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(rig.abandon("a", OURS));
    // Without its helper there is no exit record to wait for.
    docker(&["kill", &rig.name("a")]);
    let (done, is_done) = std::sync::mpsc::channel();

    std::thread::spawn(move || {
        drop(runtime);
        done.send(()).unwrap();
    });

    assert_eq!(is_done.recv_timeout(Duration::from_secs(20)), Ok(()));
}

#[tokio::test]
async fn what_ended_while_nobody_looked_is_recovered_all_the_same() {
    let rig = Rig::new();
    rig.abandon("a", OURS).await;
    rig.go();
    docker(&["wait", &rig.name("a")]);

    let outcome = rig
        .executor
        .reattach(&rig.log("other"), &rig.name("a"), None)
        .await
        .unwrap();

    assert!(outcome.cause.contains('4'), "{}", outcome.cause);
    assert_eq!(rig.log_texts("other").0, "one\ntwo\n");
}

#[tokio::test]
async fn a_finished_attempt_has_its_logs_written_again_once() {
    let rig = Rig::new();
    let first = rig.execute("a", "print one; print two; exit 4").await;
    fs::remove_file(rig.log("a")).unwrap();

    for _ in 0..2 {
        let again = rig
            .executor
            .reattach(&rig.log("a"), &rig.name("a"), None)
            .await
            .unwrap();

        assert_eq!(again, first);
        let (raw, log) = rig.log_texts("a");
        assert_eq!(
            (raw.as_str(), unstamped(&log).as_str()),
            ("one\ntwo\n", "one\ntwo")
        );
    }
}

#[tokio::test]
async fn the_limit_counts_from_the_containers_start_and_takes_the_place_of_the_launchs() {
    let rig = Rig::new();
    let launched = rig
        .builder()
        .max_prompt_duration(Duration::from_secs(2))
        .build()
        .unwrap();
    let cancel = CancellationToken::new();
    for (prompt, limit, kind) in [
        ("a", None, OutcomeKind::Succeeded),
        (
            "b",
            Some(Duration::from_millis(2500)),
            OutcomeKind::TimedOut,
        ),
    ] {
        let (log, name) = (rig.log(prompt), rig.name(prompt));
        let (text, here) = (
            prompt_of("on-term exit 0; write here x; sleep 3s"),
            rig.project_file("here"),
        );
        tokio::select! {
            outcome = launched.execute(&text, &log, &name, &cancel) => panic!("it ended: {outcome:?}"),
            () = wait_for_file(&here) => {}
        }
        fs::remove_file(here).unwrap();

        let outcome = rig.executor.reattach(&log, &name, limit).await.unwrap();

        assert_eq!(outcome.kind, kind, "{limit:?}: {}", outcome.cause);
    }
}

#[tokio::test]
async fn what_a_living_caller_waits_for_is_left_to_it() {
    let rig = Rig::new();
    let (log, name, cancel) = (rig.log("a"), rig.name("a"), CancellationToken::new());
    let prompt = prompt_of(OURS);
    let second = async {
        wait_for_file(&rig.project_file("here")).await;
        let second = rig.executor.reattach(&log, &name, None).await;
        rig.go();
        second
    };

    let (first, second) = tokio::join!(rig.executor.execute(&prompt, &log, &name, &cancel), second);

    assert!(
        matches!(second, Err(ExecutorError::AlreadyRunning { .. })),
        "{second:?}"
    );
    assert!(first.unwrap().cause.contains('4'));
    assert_eq!(rig.log_texts("a").0, "one\ntwo\n");
}

#[tokio::test]
async fn the_seeds_running_container_is_adopted_from_its_first_byte_and_left_in_place() {
    let rig = Rig::new();
    let name = rig.running("042-fix", &LABELLED, FOREIGN);
    wait_for_file(&rig.project_file("here")).await;

    let log = rig.log("a");
    let (outcome, ()) = tokio::join!(rig.executor.reattach(&log, &name, None), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        rig.go();
    });

    let outcome = outcome.unwrap();
    assert!(
        outcome.kind == OutcomeKind::Failed && outcome.cause.contains('4'),
        "{}",
        outcome.cause
    );
    let (raw, text) = rig.log_texts("a");
    assert_eq!(
        (raw.as_str(), unstamped(&text).as_str()),
        ("one\ntwo\n", "one\ntwo")
    );
    assert_eq!(inspect(&name, "{{.State.Status}}"), "exited");
    let attempts = rig.attempts().await;
    let report = attempts[0].report.as_ref().unwrap();
    assert_eq!(
        (report.transport, report.log),
        (Transport::Attach, LogState::Incomplete)
    );
    assert!(
        report.warnings[0].contains("source=logs, inexact"),
        "{:?}",
        report.warnings
    );
    let again = rig
        .executor
        .reattach(&rig.log("b"), &name, None)
        .await
        .unwrap();
    assert_eq!((again, rig.log_texts("b").0), (outcome, raw));
    assert_eq!(rig.attempts().await.len(), 1);
}

#[tokio::test]
async fn the_seeds_ended_container_is_adopted_and_never_started_again() {
    let rig = Rig::new();
    let name = rig.running(
        "a",
        &LABELLED,
        "append /workspace/starts x; print one; print-raw two; exit 4",
    );
    docker(&["wait", &name]);

    let outcome = rig
        .executor
        .reattach(&rig.log("a"), &name, None)
        .await
        .unwrap();

    assert!(
        outcome.kind == OutcomeKind::Failed && outcome.cause.contains('4'),
        "{}",
        outcome.cause
    );
    assert_eq!(rig.log_texts("a").0, "one\ntwo");
    assert_eq!(inspect(&name, "{{.State.Status}}"), "exited");
    assert_eq!(
        fs::read_to_string(rig.project_file("starts"))
            .unwrap()
            .matches('x')
            .count(),
        1
    );
}

#[tokio::test]
async fn an_adopted_container_has_no_prompt_to_run_again() {
    let rig = Rig::new();
    let name = rig.running("042-fix", &LABELLED, FOREIGN);
    rig.go();
    let adopted = rig.executor.reattach(&rig.log("a"), &name, None).await;
    assert_eq!(adopted.unwrap().kind, OutcomeKind::Failed);
    let run = rig.attempts().await[0].id.run();

    let retry = rig
        .executor
        .supervisor()
        .retry(run, &HostView::default())
        .await;

    assert!(
        matches!(retry, Err(ExecutorError::PromptNotKept { .. })),
        "{retry:?}"
    );
}

#[tokio::test]
async fn the_exit_of_a_container_that_removes_itself_is_known() {
    let rig = Rig::new();
    let name = rig.running("a", &[&LABELLED[..], &["--rm"]].concat(), FOREIGN);
    wait_for_file(&rig.project_file("here")).await;

    let log = rig.log("a");
    let (outcome, ()) = tokio::join!(rig.executor.reattach(&log, &name, None), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        rig.go();
    });

    let outcome = outcome.unwrap();
    assert!(
        outcome.kind == OutcomeKind::Failed && outcome.cause.contains('4'),
        "{}",
        outcome.cause
    );
    assert!(rig.log_texts("a").0.starts_with("one\n"));
}

#[tokio::test]
async fn an_adopted_container_can_be_left_and_followed_again() {
    let rig = Rig::new();
    let name = rig.running("a", &LABELLED, FOREIGN);
    wait_for_file(&rig.project_file("here")).await;
    let log = rig.log("a");
    let left = tokio::time::timeout(
        Duration::from_secs(1),
        rig.executor.reattach(&log, &name, None),
    )
    .await;
    rig.go();
    docker(&["wait", &name]);

    let outcome = rig.executor.reattach(&log, &name, None).await.unwrap();

    assert!(left.is_err(), "{left:?}");
    assert!(outcome.cause.contains('4'), "{}", outcome.cause);
    assert_eq!(rig.log_texts("a").0, "one\ntwo\n");
    assert_eq!(rig.attempts().await.len(), 1);
    assert_eq!(inspect(&name, "{{.State.Status}}"), "exited");
}

#[tokio::test]
async fn an_adopted_container_whose_time_is_up_is_stopped() {
    let rig = Rig::new();
    let name = rig.running(
        "a",
        &LABELLED,
        "on-term exit 0; write /workspace/here x; wait-file /none",
    );
    wait_for_file(&rig.project_file("here")).await;

    let outcome = rig
        .executor
        .reattach(&rig.log("a"), &name, Some(Duration::from_millis(1)))
        .await
        .unwrap();

    assert_eq!(outcome.kind, OutcomeKind::TimedOut, "{}", outcome.cause);
    assert_eq!(inspect(&name, "{{.State.Status}}"), "exited");
}

#[tokio::test]
async fn an_adopted_container_is_removed_only_if_the_caller_says_so() {
    let rig = Rig::new();
    let name = rig.running(
        "a",
        &LABELLED,
        "on-term exit 0; write /workspace/here x; wait-file /none",
    );
    wait_for_file(&rig.project_file("here")).await;
    let log = rig.log("a");
    let left = tokio::time::timeout(
        Duration::from_secs(1),
        rig.executor.reattach(&log, &name, None),
    )
    .await;

    rig.executor.stop_and_remove_container(&name).await.unwrap();

    assert!(left.is_err(), "{left:?}");
    assert!(rig.containers().is_empty());
    assert_eq!(
        rig.attempts().await[0].report.as_ref().unwrap().outcome,
        OutcomeKind::Cancelled
    );
}

#[tokio::test]
async fn what_cannot_be_followed_is_refused_and_the_logs_are_not_touched() {
    let rig = Rig::new();
    let log = rig.log("a");
    fs::write(&log, "evidence").unwrap();
    let created = rig.foreign(&["create"], "created", &LABELLED, FOREIGN);
    let terminal = rig.running("terminal", &[&LABELLED[..], &["--tty"]].concat(), FOREIGN);
    let strangers = rig.running("strangers", &[], FOREIGN);
    let reattach = async |name: &str| rig.executor.reattach(&log, name, None).await.unwrap_err();

    for name in [&created, &terminal] {
        let error = reattach(name).await;
        assert!(
            matches!(error, ExecutorError::NotFollowable { .. }),
            "{error:?}"
        );
    }
    let refused = reattach(&strangers).await;
    let absent = reattach(&rig.name("never")).await;

    assert!(
        matches!(refused, ExecutorError::Engine(EngineError::NotOurs { .. })),
        "{refused:?}"
    );
    assert!(
        matches!(
            absent,
            ExecutorError::Engine(EngineError::NoSuchContainer { .. })
        ),
        "{absent:?}"
    );
    assert_eq!(inspect(&created, "{{.State.Status}}"), "created");
    assert_eq!(fs::read_to_string(&log).unwrap(), "evidence");
    assert!(rig.attempts().await.is_empty());
}

#[tokio::test]
async fn a_log_that_cannot_be_made_adopts_nothing() {
    let rig = Rig::new();
    let name = rig.running("a", &LABELLED, FOREIGN);
    fs::write(rig.logs.path().join("file"), "").unwrap();

    let error = rig
        .executor
        .reattach(&rig.logs.path().join("file/a.log"), &name, None)
        .await
        .unwrap_err();

    assert!(
        error
            .to_string()
            .contains("prepare log file for reattach: create log directory"),
        "{error}"
    );
    assert!(rig.attempts().await.is_empty());
}
