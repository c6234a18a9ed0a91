//! What an agent writes and how a prompt file is called, against terminals and shells of people.
//!
//! Owns: text that drives a terminal, and names that a shell would obey.
//! Reads: everything that people read of a run.
//! Never: looks into the byte-exact logs, which have it all.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use integration_tests::agent_image;

use crate::pty::Pty;
use crate::scene::Scene;
use crate::support::{Ended, for_claude};

/// A title, a cleared screen, a clipboard, a C1 introducer, a text that runs backwards, a line over another.
const DRIVING: &str = "\\e]0;owned\x07\\e[2J\\e]52;c;b3duZWQ=\x07\u{9b}31m\u{202e}over\r\x08\x7f";

/// Checks that no character of a text makes a terminal do something.
fn assert_quiet(what: &str, text: &str) {
    let drives = |char: &char| {
        matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            || (char.is_control() && !matches!(char, '\n' | '\t'))
    };
    let found: Vec<char> = text.chars().filter(drives).collect();
    assert!(found.is_empty(), "{what} has {found:?}: {text:?}");
}

/// Returns what a command writes to a terminal.
fn on_terminal(command: &Command) -> String {
    let pty = Pty::open(80, 24);
    let mut child = pty.start(command);
    let Pty { mut keyboard, line } = pty;
    drop(line);
    let (mut written, mut bytes) = (Vec::new(), [0; 4096]);
    // It ends with an error once nobody has the terminal any more.
    while let Ok(count @ 1..) = keyboard.read(&mut bytes) {
        written.extend(&bytes[..count]);
    }
    assert!(child.wait().unwrap().success());
    String::from_utf8_lossy(&written).into_owned()
}

#[test]
fn nothing_that_an_agent_writes_drives_a_terminal() {
    let scene = Scene::new();
    let script = format!(
        "begin\nsay \"I {DRIVING} say\"\nthinking \"I {DRIVING} think\"\nstderr \"{DRIVING} complains\"\n\
         write \"name-{DRIVING}.txt\" \"{DRIVING}\"\nread \"name-{DRIVING}.txt\"\nprint \"no JSON {DRIVING}\"\n\
         result failed \"It {DRIVING} failed\""
    );
    let text = for_claude("env: {ANTHROPIC_API_KEY: x}\n", &script);
    let file = scene.project.write("terminal.md", text);
    let mut run = scene.dark_factory(&["run", "--network", "none", "--image", &agent_image()]);

    let run = Ended::of(run.arg(file));

    assert!(run.stdout.contains("owned"), "{}{}", run.stdout, run.stderr);
    assert_quiet("run", &run.stdout);
    assert_quiet("run's standard error", &run.stderr);
    let id = scene.only_run()["run_id"].as_str().unwrap().to_owned();
    let folder = scene.folder();
    for arguments in [
        &["logs", &id][..],
        &["inspect", &id],
        &["ps", "-a"],
        &["replay", &folder.display().to_string()],
    ] {
        let said = Ended::of(&mut scene.dark_factory(arguments));
        assert_eq!(said.code, 0, "{arguments:?}: {}", said.stderr);
        assert_quiet(&arguments.join(" "), &said.stdout);
        assert_quiet(&arguments.join(" "), &said.stderr);
    }
    // Those are exact in a pipe and a file, and not before somebody's eyes.
    for flag in ["--raw", "--stderr"] {
        let exact = Ended::of(&mut scene.dark_factory(&["logs", flag, &id]));
        assert!(
            exact.stdout.contains('\u{202e}'),
            "{flag}: {}",
            exact.stdout
        );
        let shown = on_terminal(&scene.dark_factory(&["logs", flag, &id]));
        assert!(shown.contains("owned"), "{flag}: {shown}");
        // The terminal itself puts a return before each newline.
        assert_quiet(flag, &shown.replace("\r\n", "\n"));
    }
    for name in ["run.log", "report.md", "changes.stat"] {
        let text = fs::read_to_string(folder.join(name)).unwrap();
        assert!(text.contains("owned"), "{name}: {text}");
        assert_quiet(name, &text);
    }
}

/// Returns the docker command line that `explain` shows.
fn docker_line(scene: &Scene, file: &Path) -> String {
    let mut explain = scene.dark_factory(&["explain", "--agent", "command"]);
    explain.args(["--image", &agent_image()]).arg(file);
    let explained = Ended::of(&mut explain);
    assert_eq!(explained.code, 0, "{}", explained.stderr);
    let line = explained
        .stdout
        .split_once("# The same container by the command line\n");
    let (_, line) = line.unwrap_or_else(|| panic!("no line in {}", explained.stdout));
    line.to_owned()
}

#[test]
fn a_prompt_file_that_is_named_to_break_a_shell_is_a_name() {
    let scene = Scene::new();
    let names = [
        "$(touch owned).md",
        "`touch owned`.md",
        "a; touch owned;.md",
        "a'\" & touch owned.md",
        "| touch owned.md",
        "-rf.md",
        "..md",
        "%s%n{{.ID}}.md",
        "a\nb.md",
        "\u{1b}]0;owned\u{7}.md",
    ];
    let files = names.map(|name| scene.project.write(name, format!("I am {name:?}.\n")));
    let paths: Vec<&Path> = files.iter().map(AsRef::as_ref).collect();
    let image = agent_image();
    let argv = ["/bin/agent", "-e", "prompt\nls /workspace"];

    let run = Ended::of(&mut scene.run_files(&image, &["--jobs", "4"], &paths, &argv));

    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert_quiet("run", &run.stdout);
    assert_quiet("run's standard error", &run.stderr);
    let runs = scene.runs();
    assert_eq!(runs.len(), names.len());
    let mut prompts: Vec<String> = runs
        .iter()
        .map(|run| {
            let raw = fs::read_to_string(format!("{}/raw.jsonl", run["dir"].as_str().unwrap()));
            let raw = raw.unwrap();
            assert!(!raw.lines().any(|line| line == "owned"), "{raw}");
            raw.lines().next().unwrap_or_default().to_owned()
        })
        .collect();
    let mut expected = names.map(|name| format!("I am {name:?}.")).to_vec();
    prompts.sort();
    expected.sort();
    assert_eq!(prompts, expected);
    let listed = Ended::of(&mut scene.dark_factory(&["ps", "-a"]));
    assert_quiet("ps", &listed.stdout);
    for file in &paths {
        let line = docker_line(&scene, file);
        let mut shell = Command::new("sh");
        // The line is obeyed up to docker itself.
        shell.args(["-c", &format!("docker() {{ :; }}\n{line}")]);
        let shell = Ended::of(shell.current_dir(scene.project.path()));
        assert_eq!(shell.code, 0, "{line}: {}", shell.stderr);
        assert!(!scene.project.path().join("owned").exists(), "{line}");
    }
}
