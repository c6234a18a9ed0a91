//! A hundred runs at once, whose supervisors die together.
//!
//! Owns: the project that they share, and the counting.
//! Reads: `ps`, the attempts' folders.
//! Never: measures how long it takes; see `cargo xtask bench`.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use integration_tests::chaos::{Ended, Fault, How, Process};
use integration_tests::engine_api::our_containers;
use integration_tests::sandboxes::sandboxes;
use integration_tests::{Engine, Installation, Project};
use serde_json::Value;

use crate::settings::turn;

const RUNS: usize = 100;
/// Each of them has half of the runs, because one may have 64 at a time.
const SUPERVISORS: usize = 2;
/// So many agents have begun when they die; the others are somewhere before that.
const BEGUN: usize = 70;
/// How long any of it may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(300);
const SCRIPT: &str = "append starts.txt \"started\\n\"\nprint hello\nwait-file go\nprint goodbye";

#[test]
fn a_hundred_runs_whose_supervisors_are_killed_all_end_once() {
    all_end_once(Engine::Docker);
}

#[test]
fn a_hundred_sandboxes_whose_supervisors_are_killed_all_end_once() {
    all_end_once(Engine::Sandbox);
}

fn all_end_once(engine: Engine) {
    let _turn = turn();
    let installation = Installation::new();
    let project = Project::unversioned();
    let begun = || {
        let starts = fs::read_to_string(project.path().join("starts.txt"));
        starts.unwrap_or_default().lines().count()
    };
    let start = |name: &str, words: &[String]| {
        let mut command = installation.dark_factory();
        command.args(words).current_dir(project.path());
        engine.choose(&mut command);
        Process::start(
            &mut command,
            &Fault::None,
            &installation.folder().join(name),
        )
    };
    let ended = |process: Process| process.ended_within(PATIENCE, &PathBuf::new(), || {});

    let prompts: Vec<String> = (0..RUNS)
        .map(|number| format!("prompt-{number:03}.md"))
        .collect();
    for prompt in &prompts {
        project.write(prompt, "Do what is said.\n");
    }
    let supervisors: Vec<Process> = prompts
        .chunks(RUNS / SUPERVISORS)
        .enumerate()
        .map(|(number, prompts)| start(&format!("run-{number}"), &run(engine, prompts)))
        .collect();
    let deadline = Instant::now() + PATIENCE;
    while begun() < BEGUN {
        assert!(Instant::now() < deadline, "the agents do not begin");
        thread::sleep(Duration::from_millis(5));
    }
    for mut supervisor in supervisors {
        supervisor.kill();
    }
    project.write("go", "");
    let recovered: Ended = ended(start("recover", &["recover".to_owned()]));
    let again = ended(start("again", &["recover".to_owned()]));
    let listed = ended(start("ps", &["ps", "-a", "--json"].map(str::to_owned)));

    assert_eq!(recovered.how, How::Exited(0), "{}", recovered.stderr);
    assert_eq!(again.stdout, "nothing to recover\n", "{}", again.stderr);
    let runs: Vec<Value> = listed
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line is JSON"))
        .collect();
    assert_eq!(runs.len(), RUNS);
    for run in &runs {
        assert_eq!(run["outcome"], "succeeded", "{run}");
        let raw = PathBuf::from(run["dir"].as_str().expect("a folder")).join("raw.jsonl");
        assert_eq!(
            fs::read(raw).expect("there is a log"),
            b"hello\ngoodbye\n",
            "{run}"
        );
    }
    assert_eq!(begun(), RUNS, "each agent is started once");
    let state = installation.state_dir();
    assert!(
        our_containers()
            .iter()
            .all(|container| !container.uses(&state))
    );
    assert!(sandboxes(&state).is_empty());
}

/// Returns the words of a `run` of several prompts at once.
fn run(engine: Engine, prompts: &[String]) -> Vec<String> {
    let jobs = prompts.len().to_string();
    let image = engine.agent_image();
    let before = ["run", "--quiet", "--agent", "command", "--network", "none"];
    let flags = ["--image", &image, "--jobs", &jobs];
    let words = before
        .into_iter()
        .chain(flags)
        .chain(prompts.iter().map(String::as_str))
        .chain(["--"]);
    let words = words.map(str::to_owned);
    words.chain(engine.agent(SCRIPT)).collect()
}
