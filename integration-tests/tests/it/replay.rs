//! `replay`: recorded streams, as text, as the seed's lines, and as events.
//!
//! Owns: what is printed of a recording, whatever it holds.
//! Reads: the recordings and the seed's own output beside the decoder.
//! Never: needs an engine.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use integration_tests::Installation;
use serde_json::Value;

use crate::scene::eventually;
use crate::support::{Ended, Watched};

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../crates/agents/tests/data")
        .join(path)
}

/// Returns `replay` where there is no engine.
fn replay(installation: &Installation, arguments: &[&str]) -> Command {
    let mut command = installation.dark_factory();
    command
        .arg("replay")
        .args(arguments)
        .env("TZ", "UTC")
        .env("DOCKER_HOST", "unix:///nonexistent");
    command
}

/// Replays bytes from standard input.
fn replay_bytes(installation: &Installation, arguments: &[&str], bytes: &[u8]) -> Ended {
    let mut command = replay(installation, arguments);
    command
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    Ended::from(child.wait_with_output().unwrap())
}

/// Replaces times as it was done with the seed's output.
fn without_times(text: &str) -> String {
    let clean = |line: &str| {
        let is_stamped = line.len() > 11 && line.starts_with('[') && &line[9..11] == "] ";
        let line = if is_stamped {
            format!("[HH:MM:SS{}", &line[9..])
        } else {
            line.to_owned()
        };
        match line.split_once(" resets=") {
            Some((head, tail)) if head.contains("⚠ rate-limit: ") => {
                format!("{head} resets=HH:MM:SS{}", &tail[8..])
            }
            _ => line,
        }
    };
    text.split_inclusive('\n').map(clean).collect()
}

#[test]
fn every_recording_is_printed_as_the_seed_prints_it() {
    let installation = Installation::new();
    let mut compared = 0;
    for entry in fs::read_dir(data("seed-formatter")).unwrap() {
        let golden = entry.unwrap().path();
        let name = golden.file_stem().unwrap().to_str().unwrap();
        let recording = data(&format!("streams/claude/{name}.jsonl"));

        let ended = Ended::of(replay(&installation, &["--format", "seed"]).arg(recording));

        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{name}");
        assert_eq!(
            without_times(&ended.stdout),
            fs::read_to_string(&golden).unwrap(),
            "{name}"
        );
        compared += 1;
    }
    assert_eq!(compared, 52);
}

#[test]
fn a_recording_of_claude_is_recognised_and_told_as_a_story() {
    let installation = Installation::new();

    let ended = Ended::of(replay(&installation, &[]).arg(data("streams/claude/success.jsonl")));

    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    for line in [
        "I'll create hello.txt.\n",
        "→ Bash wc -l hello.txt\n",
        "  ← 2 hello.txt\n",
        "✓ done\n",
    ] {
        assert!(
            ended.stdout.contains(line),
            "{line:?} is not in {}",
            ended.stdout
        );
    }
    assert!(!ended.stdout.contains("\"type\""), "{}", ended.stdout);
}

#[test]
fn events_are_printed_as_json_with_their_place_in_the_recording() {
    let installation = Installation::new();
    let recording = data("streams/claude/success.jsonl");
    let length = fs::metadata(&recording).unwrap().len();

    let ended = Ended::of(replay(&installation, &["--json"]).arg(recording));

    assert_eq!(ended.code, 0);
    let mut events = ended.json();
    let end = events.pop().unwrap();
    assert_eq!(end["end"]["agent"], "claude");
    assert_eq!(end["end"]["verdict"]["kind"], "report");
    assert!(end["end"]["usage"]["output_tokens"].as_u64() > Some(0));
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| event["kind"]["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds[0], "started");
    assert!(
        kinds.contains(&"text") && kinds.contains(&"tool_start"),
        "{kinds:?}"
    );
    let number = |event: &Value, field: &str| event[field].as_u64().unwrap();
    for (seq, event) in (0..).zip(&events) {
        assert_eq!(number(event, "seq"), seq);
        assert!(
            number(event, "offset") + number(event, "len") <= length,
            "{event}"
        );
    }
}

#[test]
fn a_recording_is_shown_whatever_it_holds() {
    let installation = Installation::new();
    let noise: Vec<u8> = (0..20_000_u32)
        .map(|n| u8::try_from(n.wrapping_mul(2_654_435_761) >> 24).unwrap())
        .collect();
    let recordings: [&[u8]; 7] = [
        b"",
        b"\n\n",
        b"plain text, no newline",
        &noise,
        b"{\"type\":\"result\"",
        b"{\"type\":7}\r\n[]\nnull\n",
        &[b'x'; 300_000],
    ];

    for recording in recordings {
        for arguments in [
            &[][..],
            &["--json"],
            &["--format", "text"],
            &["--format", "seed"],
        ] {
            let ended = replay_bytes(&installation, arguments, recording);

            let beginning = String::from_utf8_lossy(&recording[..recording.len().min(20)]);
            assert_eq!(ended.code, 0, "{arguments:?} of {beginning:?}");
            let told = match (arguments, recording) {
                (_, []) => "there is nothing in the recording",
                (["--format", "seed"], _) => "",
                _ => "it looks like no agent's stream",
            };
            let is_told = ended.stderr.contains(told) && told.is_empty() == ended.stderr.is_empty();
            assert!(is_told, "{arguments:?} of {beginning:?}: {}", ended.stderr);
            assert_eq!(
                ended.stdout.is_empty(),
                recording.is_empty(),
                "{arguments:?} of {beginning:?}"
            );
        }
    }
}

#[test]
fn what_could_control_a_terminal_does_not_reach_it() {
    let installation = Installation::new();
    let text = r#"{"type":"assistant","message":{"content":[{"type":"text","text":"a\u001b[31mred\u001b]0;title\u0007\u009b2J\rb"}]}}"#;
    let plain = "\x1b[2Jcleared \x07\u{9b}31m\n";

    for recording in [
        format!("{text}\n"),
        plain.to_owned(),
        format!("{text}\n{plain}"),
    ] {
        let ended = replay_bytes(&installation, &[], recording.as_bytes());

        assert_eq!(ended.code, 0);
        let control = |c: &char| c.is_control() && *c != '\n';
        assert_eq!(
            ended.stdout.chars().find(control),
            None,
            "{:?}",
            ended.stdout
        );
        assert!(
            ended.stdout.contains("red") || ended.stdout.contains("cleared"),
            "{:?}",
            ended.stdout
        );
    }
}

#[test]
fn a_recording_that_cannot_be_read_is_bad_usage() {
    let installation = Installation::new();
    let folder = installation.state_dir();
    fs::create_dir(&folder).unwrap();

    for path in ["/no/such/raw.jsonl", folder.to_str().unwrap()] {
        for arguments in [&[][..], &["--format", "seed"], &["--json"]] {
            let ended = Ended::of(replay(&installation, arguments).arg(path));

            assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{path}");
            let told = match arguments {
                ["--json"] => r#"{"error":{"code":2,"kind":"usage","message":""#,
                _ => "error: ",
            };
            let told = format!("{told}{path} cannot be read: ");
            assert!(ended.stderr.starts_with(&told), "{}", ended.stderr);
        }
    }
}

#[test]
fn the_streams_of_all_agents_are_recognised_and_another_one_can_be_named() {
    let installation = Installation::new();
    for agent in ["claude", "codex", "gemini"] {
        let recording = data(&format!("streams/{agent}/success.jsonl"));

        let ended = Ended::of(replay(&installation, &[]).arg(&recording));

        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{agent}");
        let last = ended.stdout.lines().last().unwrap();
        let expected = format!("= {agent}: reports success, ");
        assert!(last.starts_with(&expected), "{last}");
        assert!(!ended.stdout.contains("\"type\""), "{}", ended.stdout);
        let plain = Ended::of(replay(&installation, &["--agent", "command"]).arg(&recording));
        assert_eq!(
            plain.stdout,
            fs::read_to_string(&recording).unwrap().replace('\r', "␍"),
            "{agent}"
        );
    }

    let refused = Ended::of(replay(&installation, &["--agent", "cluade"]).arg("-"));
    assert_eq!(refused.code, 2);
    assert_eq!(
        refused.stderr,
        "error: there is no agent \"cluade\"; there are claude, codex, gemini, command\n"
    );
}

#[test]
fn what_is_older_than_a_time_is_left_out_where_lines_have_times() {
    let installation = Installation::new();
    let since = |time: &str, recording: &str| {
        let arguments = ["--since", time];
        Ended::of(replay(&installation, &arguments).arg(data(recording)))
    };
    let claude = "streams/claude/tool_error.jsonl";

    let all = since("2026-11-24T00:00:00Z", claude).stdout;
    let end = since("2026-11-24T17:06:39Z", claude).stdout;

    assert!(all.starts_with("● claude-opus"), "{all}");
    assert!(all.ends_with(&end) && end.len() < all.len(), "{end}");
    assert!(end.contains("✓ done"), "{end}");
    assert!(
        since("2026-11-25T00:00:00Z", claude)
            .stdout
            .starts_with("= claude: ")
    );
    let refused = since("1h", "streams/codex/success.jsonl");
    assert_eq!((refused.code, refused.stdout.as_str()), (2, ""));
    assert!(
        refused
            .stderr
            .starts_with("error: --since 1h goes by the times of lines, and "),
        "{}",
        refused.stderr
    );
    let refused = replay_bytes(&installation, &["--since", "1h"], b"");
    assert_eq!(refused.code, 2);
}

#[test]
fn a_recording_that_grows_is_followed_until_its_run_has_a_report() {
    let installation = Installation::new();
    let folder = installation.state_dir();
    fs::create_dir(&folder).unwrap();
    let whole = fs::read(data("streams/codex/success.jsonl")).unwrap();
    let (begin, rest) = whole.split_at(whole.len() / 2);
    fs::write(folder.join("launch.json"), "{\"agent\":\"codex\"}").unwrap();
    fs::write(folder.join("raw.jsonl"), begin).unwrap();
    let following = Watched::of(replay(&installation, &["--follow"]).arg(&folder));
    eventually("its beginning", || {
        following
            .stdout()
            .contains("I'll create hello.txt.")
            .then_some(())
    });

    let mut raw = fs::OpenOptions::new()
        .append(true)
        .open(folder.join("raw.jsonl"))
        .unwrap();
    raw.write_all(rest).unwrap();
    eventually("its end", || {
        following.stdout().contains("✓ done").then_some(())
    });
    fs::write(folder.join("report.json"), "{}").unwrap();

    let ended = following.ended();
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    let at_once = Ended::of(replay(&installation, &[]).arg(&folder));
    assert_eq!(ended.stdout, at_once.stdout);
}

#[test]
fn colours_are_for_terminals_unless_something_else_is_said() {
    let installation = Installation::new();
    let recording = data("streams/claude/success.jsonl");
    let colours = |arguments: &[&str], variable: (&str, &str)| {
        let mut command = replay(&installation, arguments);
        let ended = Ended::of(command.env(variable.0, variable.1).arg(&recording));
        ended.stdout.contains("\x1b[36m")
    };

    assert!(!colours(&[], ("A", "b")));
    assert!(colours(&[], ("CLICOLOR_FORCE", "1")));
    assert!(colours(&["--color", "always"], ("NO_COLOR", "1")));
    assert!(!colours(&["--color", "never"], ("CLICOLOR_FORCE", "1")));
}

#[test]
fn the_events_that_a_run_recorded_are_shown_with_the_lines_that_stand_in_its_logs() {
    let installation = Installation::new();
    let folder = installation.state_dir();
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("raw.jsonl"), "one\ntwo\n").unwrap();
    fs::write(folder.join("stderr.log"), "bad\n").unwrap();
    fs::write(folder.join("launch.json"), "{\"agent\":\"command\"}").unwrap();
    let event = |seq: u64, second: u64, stream: &str, offset: u64| {
        format!(
            "{{\"seq\":{seq},\"at\":\"2026-11-28T13:00:0{second}Z\",\"stream\":\"{stream}\",\"offset\":{offset},\"len\":3,\"kind\":{{\"type\":\"line\"}}}}\n"
        )
    };
    let events = [
        event(0, 1, "stdout", 0),
        event(1, 2, "stderr", 0),
        event(2, 3, "stdout", 4),
    ];
    fs::write(folder.join("events.jsonl"), events.concat()).unwrap();
    let shown = |arguments: &[&str], file: &Path| {
        let ended = Ended::of(replay(&installation, arguments).arg(file));
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
        ended.stdout
    };
    let recorded = folder.join("events.jsonl");

    assert_eq!(shown(&[], &recorded), "one\nstderr │ bad\ntwo\n");
    let late = ["--since", "2026-11-28T13:00:02Z"];
    assert_eq!(shown(&late, &recorded), "stderr │ bad\ntwo\n");
    assert_eq!(shown(&late, &folder), "two\n");
}
