//! The engine fails at one request of a run, refuses it, answers late, or in part.
//!
//! Owns: which request meets which fault, and when.
//! Reads: what a user can read.
//! Never: takes the engine away; see `faults` and `restarts`.

use std::time::Duration;

use integration_tests::{EngineProxy, Fault, Instead};
use nix::sys::signal::Signal;

use crate::faults::{SHORT, assert_short_run_ends};
use crate::scene::{Running, STARTED, Scene, text};
use crate::support::{Ended, Watched};

const CREATE: &str = "POST /containers/create?name=";
const START: &str = "POST /containers/*/start";
const WAIT: &str = "POST /containers/*/wait";
const INSPECT: &str = "GET /containers/*/json";
const KILL: &str = "POST /containers/*/kill";
const REMOVE: &str = "DELETE /containers/";

/// Lets one request of a short run meet a fault that the run gets over by itself.
fn assert_gets_over(request: &str, fault: Fault) {
    let proxy = EngineProxy::new();
    proxy.next(request, fault);

    assert_short_run_ends(&Scene::behind(&proxy));
}

/// Runs a short run behind a proxy with faults for which it is never started.
fn run_that_is_never_started(proxy: &EngineProxy) -> Ended {
    let scene = Scene::behind(proxy);

    let run = Ended::of(&mut scene.run(SHORT));

    let report = scene.assert_ended("start_failed", b"", b"");
    assert!(
        text(&report, "cause").contains("a fault of the test"),
        "{report}"
    );
    assert!(!scene.project.path().join("starts.txt").exists());
    run
}

#[test]
fn a_create_that_the_engine_fails_at_is_done_again() {
    assert_gets_over(CREATE, Fault::Answer(Instead::ServerError));
}

#[test]
fn a_create_that_the_engine_fails_at_each_time_starts_nothing() {
    let proxy = EngineProxy::new();
    for _ in 0..5 {
        proxy.next(CREATE, Fault::Answer(Instead::ServerError));
    }

    let run = run_that_is_never_started(&proxy);

    assert_eq!(run.code, 4, "{}", run.stderr);
}

#[test]
fn a_start_that_the_engine_refuses_starts_nothing() {
    let proxy = EngineProxy::new();
    proxy.next(START, Fault::Answer(Instead::Conflict));

    let run = run_that_is_never_started(&proxy);

    assert_ne!(run.code, 0, "{}", run.stderr);
}

#[test]
fn a_conflict_over_a_name_that_nothing_has_is_created_again() {
    assert_gets_over(CREATE, Fault::Answer(Instead::Conflict));
}

#[test]
fn a_start_that_the_engine_fails_at_is_done_again() {
    assert_gets_over(START, Fault::Answer(Instead::ServerError));
}

#[test]
fn an_inspection_that_the_engine_fails_at_before_the_start_is_made_again() {
    assert_gets_over(INSPECT, Fault::Answer(Instead::ServerError));
}

/// Starts a run behind a proxy, lets `meet` do something once the agent is there, and then lets it end.
fn assert_goes_on(meet: impl FnOnce(&EngineProxy)) -> Ended {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    let script = format!("{STARTED}print hello\nwrite one x\nwait-file go\nprint bye\nexit 3");
    let run = scene.run_until("one", &script);

    meet(&proxy);
    scene.project.write("go", "");
    let run = run.ended();

    assert_eq!(run.code, 1, "{}", run.stderr);
    scene.assert_ended("failed", b"hello\nbye\n", b"");
    scene.assert_started_once();
    run
}

/// Breaks the connections of a run, and waits until it waits for its container once more.
fn break_the_wait(proxy: &EngineProxy) {
    let before = proxy.count(WAIT);
    proxy.go_away();
    proxy.come_back();
    proxy.wait_until_asked(WAIT, before + 1);
}

#[test]
fn a_wait_that_the_engine_fails_at_is_asked_again() {
    assert_goes_on(|proxy| {
        proxy.next(WAIT, Fault::Answer(Instead::ServerError));
        break_the_wait(proxy);
    });
}

#[test]
fn an_inspection_that_the_engine_fails_at_after_the_end_is_asked_again() {
    assert_goes_on(|proxy| proxy.next(INSPECT, Fault::Answer(Instead::ServerError)));
}

#[test]
fn a_container_that_is_said_to_be_gone_after_its_end_has_its_recorded_end() {
    assert_goes_on(|proxy| proxy.next(INSPECT, Fault::Answer(Instead::NotFound)));
}

#[test]
fn a_wait_whose_reply_is_cut_anywhere_is_asked_again() {
    for cut in [Fault::CutHead(40), Fault::CutBody(12)] {
        assert_goes_on(|proxy| {
            proxy.next(WAIT, cut);
            break_the_wait(proxy);
        });
    }
}

#[test]
fn a_wait_that_is_half_closed_is_asked_again() {
    for fault in [Fault::CloseRequest, Fault::CloseReply] {
        assert_goes_on(|proxy| {
            proxy.next(WAIT, fault);
            break_the_wait(proxy);
        });
    }
}

#[test]
fn a_start_that_is_half_closed_is_no_second_start() {
    assert_gets_over(START, Fault::CloseRequest);
    assert_gets_over(START, Fault::CloseReply);
}

#[test]
fn an_inspection_whose_reply_is_cut_is_made_again() {
    for cut in [Fault::CutHead(40), Fault::CutBody(1000)] {
        assert_gets_over(INSPECT, cut);
    }
}

#[test]
fn a_slow_engine_is_waited_for_aloud() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    proxy.next(CREATE, Fault::DelayReply(Duration::from_secs(4)));
    proxy.next(START, Fault::DelayRequest(Duration::from_millis(300)));

    let run = Ended::of(&mut scene.run(SHORT));

    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(
        run.stderr
            .contains("waiting for the container engine to create the container"),
        "{}",
        run.stderr
    );
    scene.assert_ended("failed", b"hello\n", b"");
    scene.assert_started_once();
}

#[test]
fn a_kill_that_the_engine_fails_at_is_sent_again() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    let script = format!("{STARTED}print hello\nwrite one x\nsleep 1h");
    let run = Watched::of(&mut scene.run(&script));
    scene.wait_for_file("one");

    proxy.next(KILL, Fault::Answer(Instead::ServerError));
    run.signal(Signal::SIGINT);
    run.ended();

    assert!(proxy.count(KILL) >= 2);
    scene.assert_ended("cancelled", b"hello\n", b"");
    scene.assert_started_once();
}

#[test]
fn a_removal_that_the_engine_fails_at_is_left_to_recover() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    proxy.next(REMOVE, Fault::Answer(Instead::ServerError));

    let run = Ended::of(&mut scene.run(SHORT));
    let left = scene.containers();
    let recover = scene.recover();

    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(
        run.stderr.contains("`dark-factory recover` removes it"),
        "{}",
        run.stderr
    );
    assert_eq!((left.len(), recover.code), (1, 0), "{}", recover.stderr);
    scene.assert_ended("failed", b"hello\n", b"");
    scene.assert_started_once();
}

#[test]
fn a_living_container_that_a_wait_says_is_gone_is_looked_for_and_followed_on() {
    assert_goes_on(|proxy| {
        proxy.next(WAIT, Fault::Answer(Instead::NotFound));
        break_the_wait(proxy);
    });
}

#[test]
fn a_living_container_that_recover_is_told_is_gone_is_looked_for_and_followed_on() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    let script = format!("{STARTED}print hello\nwrite one x\nwait-file go\nprint bye");
    scene.run_until("one", &script).crash();

    proxy.next(INSPECT, Fault::Answer(Instead::NotFound));
    let recover = Running::start(&mut scene.dark_factory(&["recover"]));
    proxy.wait_until_asked(INSPECT, proxy.count(INSPECT) + 1);
    scene.project.write("go", "");
    let recover = recover.ended();

    assert_eq!(recover.code, 0, "{}{}", recover.stdout, recover.stderr);
    scene.assert_ended("succeeded", b"hello\nbye\n", b"");
    scene.assert_started_once();
}
