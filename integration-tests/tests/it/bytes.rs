//! What the agent prints reaches `raw.jsonl` and `stderr.log` byte for byte, whatever it is and whoever reads along.
//!
//! Owns: the hardest inputs: noise, a huge line, split characters, much at once, a terminal that is stuck.
//! Reads: the process's peak memory.
//! Never: looks at what a line means.

use std::fs;

use dark_factory_init::{long_line, spew};
use integration_tests::{EngineProxy, Fault, agent_image, claude_image};

use crate::scene::{Running, Scene, docker, eventually};
use crate::support::Ended;

/// Every byte value, line ends of all kinds, and no newline at the end.
fn noise() -> Vec<u8> {
    let mut noise: Vec<u8> = (0..=255).collect();
    noise.extend_from_slice(b"\r\n\r\0\n\n\xc3\x28\xf0\x9f\r\n{\"type\":\0}\n");
    // A generator that is not a good one makes noise that is good enough.
    let mut seed: u32 = 1;
    noise.extend((0..300_000).map(|_| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed.to_be_bytes()[0]
    }));
    noise.extend_from_slice(b"no newline\r");
    noise
}

/// Runs a shell script in an image that has a shell, and returns how it ended.
fn run_shell(scene: &Scene, script: &str) -> Ended {
    Ended::of(&mut scene.run_argv(&claude_image(), &["--quiet"], &["/bin/sh", "-c", script]))
}

#[test]
fn binary_noise_on_both_streams_is_kept() {
    let scene = Scene::new();
    let noise = noise();
    scene.project.write("noise", &noise);
    let backwards: Vec<u8> = noise.iter().rev().copied().collect();
    scene.project.write("esion", &backwards);

    let run = run_shell(&scene, "cat noise; cat esion >&2");

    assert_eq!(run.code, 0, "{}", run.stderr);
    scene.assert_ended("succeeded", &noise, &backwards);
}

#[test]
fn twenty_megabytes_on_each_stream_at_once_are_kept() {
    let scene = Scene::new();
    let (out, err) = (spew(20 << 20, 1 << 10), spew(20 << 20, 100));
    scene.project.write("out", &out);
    scene.project.write("err", &err);

    let run = run_shell(&scene, "cat err >&2 & cat out; wait");

    assert_eq!(run.code, 0, "{}", run.stderr);
    scene.assert_ended("succeeded", &out, &err);
}

#[test]
fn a_line_of_64_mebibytes_is_kept_in_little_memory() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    // Everything has been read then, and the process is still there.
    proxy.next("DELETE /containers/", Fault::HoldRequest);

    let run = Running::start(&mut scene.run("line 64m\nprint end"));
    proxy.wait_until_held();
    let peak = peak_memory_kib(run.id());
    proxy.release();
    let run = run.ended();

    assert_eq!(run.code, 0, "{}", run.stderr);
    scene.assert_ended(
        "succeeded",
        &[long_line(64 << 20), b"end\n".to_vec()].concat(),
        b"",
    );
    assert!(peak < 80 << 10, "the peak was {peak} KiB");
}

/// Returns the most memory that a living process ever had resident, in KiB.
fn peak_memory_kib(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the process lives");
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    peak.and_then(|peak| peak.parse().ok())
        .expect("the kernel tells the peak")
}

#[test]
fn a_character_that_is_printed_in_two_pieces_is_whole() {
    let scene = Scene::new();
    let script = "print-raw 'price: '\nbytes e2\nsleep 100ms\nbytes 82\nsleep 100ms\nbytes ac\nprint ' 5'\n\
                  print-raw 'cut: '\nbytes f09fa6";

    let run = Ended::of(&mut scene.run(script));

    assert_eq!(run.code, 0, "{}", run.stderr);
    scene.assert_ended(
        "succeeded",
        b"price: \xe2\x82\xac 5\ncut: \xf0\x9f\xa6",
        b"",
    );
    let log = fs::read_to_string(scene.folder().join("run.log")).expect("the log is UTF-8");
    assert!(log.contains("price: \u{20ac} 5"), "{log}");
    assert!(run.stdout.contains("price: \u{20ac} 5"), "{}", run.stdout);
}

#[test]
fn a_terminal_that_takes_nothing_costs_neither_the_run_nor_memory() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    proxy.next("DELETE /containers/", Fault::HoldRequest);

    // Nobody reads its pipe meanwhile.
    let run = Running::start(&mut scene.run("spew 50m 100k\nprint end"));
    proxy.wait_until_held();
    let peak = peak_memory_kib(run.id());
    proxy.release();
    let run = eventually_ended(run);

    assert_eq!(run.code, 0, "{}", run.stderr);
    let expected = [spew(50 << 20, 100 << 10), b"end\n".to_vec()].concat();
    let report = scene.assert_ended("succeeded", &expected, b"");
    assert!(
        report["warnings"]
            .to_string()
            .contains("the terminal was too slow"),
        "{report}"
    );
    assert!(peak < 64 << 10, "the peak was {peak} KiB");
}

#[test]
fn a_terminal_that_takes_nothing_holds_the_next_file_up_no_more_than_the_first() {
    let scene = Scene::new();
    let second = scene.project.write("second.md", "The second.\n");
    let argv = ["/bin/agent", "-e", "spew 1m\nappend ends.txt x"];
    let mut run = scene.run_files(&agent_image(), &[], &[&scene.prompt, &second], &argv);

    let run = eventually_ended(Running::start(&mut run));

    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(scene.project.read("ends.txt"), "xx");
}

#[test]
fn a_caller_that_reads_no_standard_error_does_not_switch_the_time_limit_off() {
    let scene = Scene::new();
    let script = "spew 5m\nwrite one x\nsleep 1h";

    // With --json the agent's words go to standard error, and so does the notice that the time is up.
    let run = Running::start(&mut scene.run_with(&["--json", "--timeout", "2s"], script));
    let run = eventually_ended(run);

    assert_eq!(run.code, 124);
    assert_eq!(run.json()[0]["outcome"], "timed_out", "{}", run.stdout);
    scene.assert_ended("timed_out", &spew(5 << 20, 80), b"");
}

/// Waits for a process's end without reading what it prints, then reads it.
fn eventually_ended(mut run: Running) -> Ended {
    eventually("the process to end", || run.has_ended().then_some(()));
    run.ended()
}

#[test]
fn the_engines_own_log_shows_the_output_while_the_agent_runs() {
    let scene = Scene::new();
    let run = scene.run_until("one", "print hello\nwrite one x\nwait-file go");

    let log = eventually("the log", || {
        Some(docker(&["logs", &scene.container()])).filter(|log| !log.is_empty())
    });
    scene.project.write("go", "");
    let run = run.ended();

    assert_eq!((run.code, log.as_str()), (0, "hello\n"), "{}", run.stderr);
    scene.assert_ended("succeeded", b"hello\n", b"");
}
