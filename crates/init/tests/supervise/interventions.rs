//! What was done to the agent before it ended, as the exit record says it.
//!
//! Owns: nothing.

use std::fs;
use std::process::Command;

use dark_factory_init::spew;
use dark_factory_spool::{End, Intervention, KILL_EVERYTHING_NAMED, KILL_EVERYTHING_SIGNAL};

use crate::supervisor::{Launch, Running, patiently, script, shell};

const SIGUSR1: i32 = 10;
const SIGTERM: i32 = 15;
const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;
const SIGURG: i32 = 23;
const SIGWINCH: i32 = 28;
/// Most that is recorded beyond a limit: one read, and what two pipes hold.
const BEYOND: u64 = 3 << 18;

fn limited(bytes: u64, text: &str) -> Launch {
    Launch::with_options(&["--log-limit", &bytes.to_string()], &shell(text))
}

/// Waits for the agent to say its PID.
fn agents_pid(running: &Running) -> String {
    let output = running.wait_for_output("\n");
    output.trim().strip_prefix("pid ").unwrap().to_owned()
}

#[test]
fn an_end_of_its_own_is_nobodys_doing_though_leftovers_are_killed() {
    let recorded = Launch::new(&script("fork sleep 60; exit 3")).run();

    assert_eq!(recorded.exit().end, End::Code(3));
    assert_eq!(recorded.exit().leftovers, 1);
    assert_eq!(recorded.exit().intervention, None);
}

#[test]
fn a_signal_that_was_passed_on_is_named_however_the_agent_takes_it() {
    let running = Launch::new(&script("on-term exit 9; print ready; sleep 60")).start();
    running.wait_for_output("ready");

    running.signal(SIGTERM);
    let recorded = running.finish();

    assert_eq!(recorded.exit().end, End::Code(9));
    assert_eq!(
        recorded.exit().intervention,
        Some(Intervention::Signal(SIGTERM))
    );
}

#[test]
fn the_signal_before_a_kill_is_the_first_intervention() {
    let running = Launch::new(&script("ignore-term; print ready; sleep 60")).start();
    running.wait_for_output("ready");

    running.signal(SIGTERM);
    running.wait_until_signals_are_taken();
    running.signal(KILL_EVERYTHING_SIGNAL);
    let recorded = running.finish();

    assert_eq!(recorded.exit().end, End::Signal(9));
    assert_eq!(
        recorded.exit().intervention,
        Some(Intervention::Signal(SIGTERM))
    );
}

#[test]
fn a_kill_of_everything_is_an_intervention_by_either_signal() {
    for signal in [KILL_EVERYTHING_SIGNAL, KILL_EVERYTHING_NAMED] {
        let running = Launch::new(&script("print ready; sleep 60")).start();
        running.wait_for_output("ready");

        running.signal(signal);

        assert_eq!(
            running.finish().exit().intervention,
            Some(Intervention::Kill)
        );
    }
}

#[test]
fn signals_that_end_nothing_are_passed_on_and_not_named() {
    let running = Launch::new(&shell(
        "trap 'echo seen' WINCH; echo ready; while :; do sleep 0.05; done",
    ))
    .start();
    running.wait_for_output("ready");

    for signal in [SIGCONT, SIGURG, SIGWINCH] {
        running.signal(signal);
    }
    running.wait_for_output("seen");
    running.signal(SIGUSR1);
    let recorded = running.finish();

    assert_eq!(
        recorded.exit().intervention,
        Some(Intervention::Signal(SIGUSR1))
    );
}

#[test]
fn a_signal_that_asks_for_nothing_is_no_intervention_but_is_recorded() {
    let running = Launch::new(&shell(
        "trap 'echo seen' USR1; echo ready; while [ ! -e go ]; do sleep 0.05; done; exit 3",
    ))
    .start();
    running.wait_for_output("ready");

    running.signal(SIGUSR1);
    running.wait_for_output("seen");
    running.signal(SIGTERM);
    let recorded = running.finish();

    let exit = recorded.exit();
    assert_eq!(exit.intervention, Some(Intervention::Signal(SIGTERM)));
    assert!(exit.has_signal(SIGUSR1) && exit.has_signal(SIGTERM));
    assert!(!exit.has_signal(SIGWINCH));
}

#[test]
fn a_signal_that_comes_after_the_end_is_no_intervention() {
    let running = Launch::new(&shell("echo pid $$; exec sleep 60")).start();
    let pid = agents_pid(&running);

    // The helper finds both waiting, and the signal before the news of the end.
    running.signal(SIGSTOP);
    let killed = Command::new("sh")
        .args(["-c", &format!("kill -9 {pid}")])
        .status()
        .unwrap();
    patiently("the agent is a zombie", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.contains("State:\tZ").then_some(())
    });
    running.signal(SIGTERM);
    running.signal(SIGCONT);
    let recorded = running.finish();

    assert!(killed.success());
    assert_eq!(recorded.exit().end, End::Signal(9));
    assert_eq!(recorded.exit().intervention, None);
}

#[test]
fn an_agent_that_prints_more_than_it_may_is_killed_and_its_record_is_complete() {
    let limit = 1 << 20;

    let recorded = limited(limit, "sleep 60 & \"$1\" agent -e 'spew 64m'; sleep 60").run();

    let exit = recorded.exit();
    assert_eq!(exit.end, End::Signal(9));
    assert_eq!(exit.intervention, Some(Intervention::LogLimit));
    assert_eq!(exit.eof, [true, true]);
    assert!(exit.leftovers >= 1, "{}", exit.leftovers);
    assert!((limit + 1..=limit + BEYOND).contains(&exit.totals[0]));
    assert!(spew(64 << 20, 80).starts_with(recorded.stdout()));
}

#[test]
fn the_limit_counts_both_streams_together() {
    let recorded = limited(
        1 << 20,
        "\"$1\" agent -e 'spew 600k'; \"$1\" agent -e 'spew 600k' >&2; sleep 60",
    )
    .run();

    let exit = recorded.exit();
    assert_eq!(exit.intervention, Some(Intervention::LogLimit));
    assert_eq!(exit.totals[0], 600 << 10);
    assert!(exit.totals[1] > 424 << 10);
}

#[test]
fn an_agent_that_prints_just_what_it_may_ends_by_itself() {
    let recorded = limited(1 << 20, "\"$1\" agent -e 'spew 1m'; sleep 0.2; exit 4").run();

    assert_eq!(recorded.exit().end, End::Code(4));
    assert_eq!(recorded.exit().intervention, None);
    assert_eq!(recorded.exit().totals, [1 << 20, 0]);
}
