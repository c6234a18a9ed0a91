//! A daemon that runs many prompts: its memory and its file descriptors stay where they are.
//!
//! Owns: the samples, and the bounds.
//! Reads: what the kernel says of the process.
//! Never: bounds how much it needs, only that this does not grow.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use integration_tests::chaos::{Fault, How, Process};
use integration_tests::{Engine, Installation, Project};

use crate::settings::{asked_time, say, turn};

/// Prompts, unless more time was asked for: some seconds of them, because what is needed at first grows for one.
const IN_CONTAINERS: u64 = 60;
const IN_SANDBOXES: u64 = 300;
/// Prompts for each second that was asked for, of a tenth of it.
const PROMPTS_A_SECOND: u64 = 2;
/// How much more the last quarter may need than the second one.
const MORE_KIB: u64 = 4 << 10;
const MORE_DESCRIPTORS: u64 = 16;
const SAMPLE: Duration = Duration::from_millis(50);
/// How long the daemon may take until it answers.
const START: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// What the process needs at some moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    kib: u64,
    descriptors: u64,
}

#[test]
fn a_daemon_that_runs_many_prompts_needs_no_more_and_more() {
    many_prompts_need_no_more_and_more(Engine::Docker);
}

#[test]
fn a_daemon_that_runs_many_prompts_in_sandboxes_needs_no_more_and_more() {
    many_prompts_need_no_more_and_more(Engine::Sandbox);
}

fn many_prompts_need_no_more_and_more(engine: Engine) {
    let _turn = turn();
    let installation = Installation::new();
    let project = Project::unversioned();
    let least = match engine {
        Engine::Docker => IN_CONTAINERS,
        Engine::Sandbox => IN_SANDBOXES,
    };
    let count = asked_time().map_or(least, |time| {
        least.max(time.as_secs() / 10 * PROMPTS_A_SECOND)
    });
    let prompts: Vec<String> = (0..count).map(|number| format!("p{number}.md")).collect();
    for prompt in &prompts {
        fs::write(project.path().join(prompt), "Do what is said.\n").expect("a prompt");
    }
    let start = |name: &str, words: &[&str]| {
        let mut command = installation.dark_factory();
        command.args(words).current_dir(project.path());
        engine.choose(&mut command);
        Process::start(
            &mut command,
            &Fault::None,
            &installation.folder().join(name),
        )
    };
    let ended = |process: Process| process.ended(&PathBuf::new());

    let began = Instant::now();
    let daemon = start("daemon", &["daemon", "start", "--foreground"]);
    while ended(start("status", &["daemon", "status"])).how != How::Exited(0) {
        assert!(began.elapsed() < START, "the daemon does not start");
    }
    let image = engine.agent_image();
    let agent = engine.agent("spew 200k; stderr there");
    let mut run = vec!["run", "--detach", "--agent", "command"];
    run.extend(["--network", "none", "--image", &image]);
    run.extend(prompts.iter().map(String::as_str));
    run.push("--");
    run.extend(agent.iter().map(String::as_str));
    let queued = start("run", &run).ended_within(PATIENCE, &PathBuf::new(), || {});
    assert_eq!(queued.how, How::Exited(0), "{}", queued.stderr);
    let runs: Vec<&str> = queued.stdout.split_whitespace().collect();
    let wait: Vec<&str> = ["wait"].into_iter().chain(runs).collect();
    let id = daemon.id();
    let mut samples = Vec::new();
    let mut last = began;
    let waited = start("wait", &wait).ended_within(PATIENCE, &PathBuf::new(), || {
        if last.elapsed() >= SAMPLE {
            last = Instant::now();
            samples.extend(sample(id));
        }
    });
    let stopped = ended(start("stop", &["daemon", "stop"]));

    assert_eq!(waited.how, How::Exited(0), "{}", waited.stderr);
    assert_eq!(stopped.how, How::Exited(0), "{}", stopped.stderr);
    let daemon = ended(daemon);
    assert!(matches!(daemon.how, How::Exited(_)), "{}", daemon.stderr);
    let quarter = samples.len() / 4;
    let most = |samples: &[Sample]| Sample {
        kib: samples.iter().map(|one| one.kib).max().unwrap_or(0),
        descriptors: samples.iter().map(|one| one.descriptors).max().unwrap_or(0),
    };
    let early = most(&samples[quarter..2 * quarter]);
    let late = most(&samples[3 * quarter..]);
    say(&format!(
        "soak, {engine:?}: {count} prompts in {} s, {} samples; memory {} KiB, then {} KiB; file descriptors {}, then {}",
        began.elapsed().as_secs(),
        samples.len(),
        early.kib,
        late.kib,
        early.descriptors,
        late.descriptors,
    ));
    assert!(quarter > 0, "it was over before it was looked at");
    assert!(
        late.kib <= early.kib + MORE_KIB
            && late.descriptors <= early.descriptors + MORE_DESCRIPTORS,
        "it needs more and more: {early:?}, {late:?}"
    );
}

/// Asks the kernel what a process needs; `None` if it has ended meanwhile.
fn sample(id: u32) -> Option<Sample> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let descriptors = fs::read_dir(format!("/proc/{id}/fd")).ok()?.count();
    Some(Sample {
        kib: resident.split_whitespace().next()?.parse().ok()?,
        descriptors: descriptors.try_into().ok()?,
    })
}
