//! Agents are told their limits, and what is recorded stays what the user wrote.
//!
//! Owns: the prompt.
//! Reads: what the model server was asked, the attempts' folders.
//! Never: reaches a real model.

use std::fs;

use integration_tests::{MockModel, claude_image, codex_image};
use serde_json::Value;

use crate::scene::{Scene, text};
use crate::support::Ended;

const BODY: &str = "Say hello.\n";
const HEADING: &str = "\n\n## Limits of this run\n\n";

/// Runs the real agent under the defaults, and returns the run and the prompts that the model saw.
fn seen(scene: &Scene, agent: &str, flags: &[&str]) -> (Value, Vec<String>) {
    let model = MockModel::start("text");
    let front_matter =
        "memory: 1g\ntimeout: 10m\nnetwork: {allow: [crates.io]}\nmax-requests: 40\n";
    let prompt = format!("---\nagent: {agent}\n{front_matter}---\n{BODY}");
    let prompt = scene.project.write("tasks/hello.md", &prompt);
    let (image, key, base) = match agent {
        "codex" => (codex_image(), "OPENAI_API_KEY", "OPENAI_BASE_URL"),
        _ => (claude_image(), "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"),
    };
    let mut command = scene.dark_factory(&["run", "--json", "--quiet", "--image", &image]);
    command.args(flags).arg(prompt);
    command.env(key, "k").env(base, model.local_url());
    let ended = Ended::of(&mut command);
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    let asked = model.requests();
    let turns = asked
        .iter()
        .filter_map(|request| request["human"].as_array())
        .flatten();
    let prompts = turns.filter_map(Value::as_str).map(str::to_owned).collect();
    (ended.one(), prompts)
}

fn assert_told(agent: &str, provider: &str) {
    let scene = Scene::new();

    let (run, prompts) = seen(&scene, agent, &["--pids", "300", "--cpus", "1"]);

    let told = format!(
        "{BODY}
## Limits of this run

You work unattended in a container that dark-factory made; nobody answers questions. These are its limits.

- Memory: 1 GiB, swap included. What needs more is killed, and with it perhaps the run.
- CPUs: 1.
- Processes and threads: 300 at the same time.
- Open files: 65536 in each process.
- One file: 16 GiB at most.
- Wall time: 10m from the start. Then the run is ended.
- Output of yours, standard output and standard error together: 1 GiB. Beyond it the run is ended.
- Files: the root file system is read-only. You may write to `/workspace` (the project), `/tmp` and the home \
`/home/agent`. The last two are in memory, and count against its limit, and are gone at the end.
- Network: only the API of {provider} (at the address in the environment), `crates.io` can be reached, with HTTP and \
HTTPS through the proxy that the environment names. A request for anything else gets a 403 whose text begins with \
`dark-factory:` and names the rule: do not look for a way around it, but tell the user what you needed and what the text \
says.
- Budget: 40 requests to a model. Once it is used up the run is ended."
    );
    assert!(
        prompts
            .iter()
            .any(|prompt| prompt.trim_end().ends_with(&told)),
        "{prompts:?}"
    );
    let recorded = fs::read_to_string(format!("{}/prompt.md", text(&run, "dir"))).unwrap();
    assert_eq!(recorded, BODY);
}

#[test]
fn the_real_claude_code_is_told_its_limits_behind_the_prompt() {
    assert_told("claude", "anthropic");
}

#[test]
fn the_real_codex_is_told_its_limits_behind_the_prompt() {
    assert_told("codex", "openai");
}

#[test]
fn who_is_not_to_be_told_gets_the_prompt_alone() {
    let scene = Scene::new();

    let (_, prompts) = seen(&scene, "claude", &["--tell-limits", "false"]);

    assert!(
        prompts
            .iter()
            .any(|prompt| prompt.contains(BODY.trim_end()))
    );
    assert!(
        !prompts
            .iter()
            .any(|prompt| prompt.contains("Limits of this run")),
        "{prompts:?}"
    );
}

#[test]
fn a_program_gets_the_prompt_byte_for_byte_unless_it_is_to_be_told_and_a_retry_gets_the_same() {
    let scene = Scene::new();
    let raw = |run: &Value, name: &str| {
        fs::read_to_string(format!("{}/{name}", text(run, "dir"))).unwrap()
    };
    let script = "prompt";

    let plain = Ended::of(&mut scene.run_with(&["--json", "--quiet"], script)).one();
    let flags = ["--json", "--quiet", "--tell-limits", "true"];
    let told = Ended::of(&mut scene.run_with(&flags, script)).one();
    let run = text(&told, "run_id");
    let mut retry = scene.dark_factory(&["retry", "--json", "--quiet", &run]);
    let again = Ended::of(&mut retry).one();

    let prompt = raw(&plain, "prompt.md");
    assert_eq!(raw(&plain, "raw.jsonl"), prompt);
    let given = raw(&told, "raw.jsonl");
    let section = given
        .strip_prefix(prompt.trim_end())
        .expect("the prompt is first");
    assert!(section.starts_with(HEADING), "{given}");
    assert_eq!(raw(&again, "raw.jsonl"), given);
    assert_eq!(raw(&told, "prompt.md"), prompt);
    assert_eq!(raw(&again, "prompt.md"), prompt);
}

#[test]
fn explain_shows_what_is_told_and_what_opts_out_of_it() {
    let scene = Scene::new();
    let prompt = "---\nagent: claude\nimage: i\nmemory: 1g\n---\nSay hello.\n";
    let prompt = scene.project.write("p.md", prompt);
    let explain = |flags: &[&str]| {
        let mut command = scene.dark_factory(&["explain"]);
        Ended::of(
            command
                .args(flags)
                .arg(&prompt)
                .env("ANTHROPIC_API_KEY", "k"),
        )
    };

    let shown = explain(&[]);
    let told = explain(&["--json"]).one();
    let untold = explain(&["--json", "--tell-limits=false"]).one();

    let line = "- Memory: 1 GiB, swap included.";
    assert!(
        shown
            .stdout
            .contains(&format!("# Behind the prompt\n> {}", HEADING.trim()))
            && shown.stdout.contains(&format!("\n> {line}"))
            && shown.stdout.contains("opt out: --tell-limits false"),
        "{}{}",
        shown.stdout,
        shown.stderr
    );
    assert!(
        told["told"]
            .as_str()
            .is_some_and(|told| told.contains(line))
    );
    assert_eq!(untold["told"], Value::Null);
}
