//! What follows from the recordings of the real Gemini CLI.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod claim;

use std::fs;
use std::path::Path;

use dark_factory_agents::{Conclusion, TextFormatter, TextStyle, Transcript, agent};
use dark_factory_types::{ErrorClass::*, Event, EventKind, EventStream, ToolClass};
use jiff::Timestamp;

use claim::Claim::{self, Error, Report, Silent, Success};

fn recording(name: &str) -> String {
    let path = format!("tests/data/streams/gemini/{name}.jsonl");
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn play(stdout: &str) -> (Vec<Event>, Conclusion) {
    let mut transcript = Transcript::new(agent("gemini").unwrap());
    let mut events = Vec::new();
    let (at, bytes) = (Timestamp::UNIX_EPOCH, stdout.as_bytes());
    transcript.feed(EventStream::Stdout, bytes, at, &mut events);
    transcript.finish(at, &mut events);
    (events, transcript.conclusion())
}

fn conclude(lines: &[&str]) -> Conclusion {
    play(&lines.join("\n")).1
}

fn shown(stdout: &str) -> String {
    let mut text = TextFormatter::new(TextStyle::default());
    let mut out = String::new();
    for event in &play(stdout).0 {
        text.write(event, &mut out);
    }
    out
}

fn texts(stdout: &str) -> Vec<String> {
    let kinds = play(stdout).0.into_iter().map(|event| event.kind);
    kinds
        .filter_map(|kind| match kind {
            EventKind::Text { text } => Some(text),
            _ => None,
        })
        .collect()
}

/// Recording, claim, tokens (input, output, cache read), last tool.
type Row = (&'static str, Claim, [u64; 3], &'static str);

#[rustfmt::skip]
const RECORDINGS: &[Row] = &[
    ("success",         Report,          [7200, 360, 4800], "run_shell_command"),
    ("text",            Success,         [1200, 60, 800],   ""),
    ("api_400_key",     Error(Auth),     [0; 3],            ""),
    ("api_403",         Error(Auth),     [0; 3],            ""),
    ("unicode_raw_ls",  Error(Internal), [0; 3],            ""),
    ("api_429",         Silent,          [0; 3],            ""),
    ("api_503",         Silent,          [0; 3],            ""),
    ("quota",           Silent,          [0; 3],            ""),
    ("sigint",          Silent,          [0; 3],            "run_shell_command"),
    ("sigint_relaunch", Silent,          [0; 3],            "run_shell_command"),
    ("sigkill",         Silent,          [0; 3],            "run_shell_command"),
    ("sigterm",         Silent,          [0; 3],            "run_shell_command"),
    ("no_auth_setting", Silent,          [0; 3],            ""),
    ("untrusted",       Silent,          [0; 3],            ""),
];

#[test]
fn every_recording_gives_its_verdict_and_its_usage() {
    for (name, claim, tokens, last_tool) in RECORDINGS {
        let stream = recording(name);
        let conclusion = play(&stream).1;

        assert!(
            claim.is(&conclusion.verdict),
            "{name}: {:?}",
            conclusion.verdict
        );
        let usage = conclusion.usage;
        let found = [
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_tokens,
        ];
        assert_eq!(&found, tokens, "{name}");
        assert_eq!(usage.cost_usd, None, "{name}");
        assert_eq!(
            conclusion.last_tool.as_deref().unwrap_or(""),
            *last_tool,
            "{name}"
        );
        let model = conclusion.model.as_deref();
        assert_eq!(model.is_some(), !stream.is_empty(), "{name}");
        assert_eq!(conclusion.session_id.is_some(), model.is_some(), "{name}");
    }
}

#[test]
fn no_recording_has_a_line_that_is_not_understood() {
    for (name, ..) in RECORDINGS {
        for event in play(&recording(name)).0 {
            assert!(
                !matches!(
                    event.kind,
                    EventKind::Unparsed { .. } | EventKind::Line { .. }
                ),
                "{name}: {event:?}"
            );
        }
    }
}

#[test]
fn a_message_in_pieces_is_one_text_and_the_prompts_echo_is_none() {
    assert_eq!(
        texts(&recording("success")),
        [
            "I'll create hello.txt.",
            "Now a look at the folder.",
            "All the work is finished and the tests pass.\n\n<!-- DARK-FACTORY-REPORT\n\
             {\"status\":\"success\",\"summary\":\"Created and edited hello.txt.\",\"blockers\":[]}\n\
             DARK-FACTORY-REPORT -->"
        ]
    );
}

#[test]
fn what_was_said_before_the_stream_was_cut_is_shown() {
    let piece = |text| {
        format!(
            r#"{{"type":"message","timestamp":"t","role":"assistant","content":"{text}","delta":true}}"#
        )
    };

    let stream = [piece("I am "), piece("about to")].join("\n") + "\n";

    assert_eq!(texts(&stream), ["I am about to"]);
    let last = play(&stream).0.pop().unwrap();
    assert_eq!(usize::try_from(last.offset).unwrap(), stream.len());
}

#[test]
fn a_long_message_is_shown_in_bounded_parts_without_losing_any() {
    let piece = "0123456789abcdef".repeat(1000);
    let line =
        format!(r#"{{"type":"message","role":"assistant","content":"{piece}","delta":true}}"#);

    let shown = texts(&[line.as_str(); 100].join("\n"));

    assert!(shown.iter().all(|text| text.len() <= 64 << 10));
    assert_eq!(shown.concat(), piece.repeat(100));
}

#[test]
fn tools_have_their_class_and_their_answer() {
    let events = play(&recording("success")).0;

    let mut calls = Vec::new();
    for event in events {
        match event.kind {
            EventKind::ToolStart { name, class, .. } => calls.push((name, class)),
            EventKind::ToolEnd { name, ok, .. } => {
                assert!(ok);
                assert_eq!(calls.last().unwrap().0, name);
            }
            _ => {}
        }
    }
    let classes: Vec<ToolClass> = calls.iter().map(|(_, class)| *class).collect();
    assert_eq!(
        classes,
        [
            ToolClass::Write,
            ToolClass::Shell,
            ToolClass::Read,
            ToolClass::Edit,
            ToolClass::Shell
        ]
    );
}

const SAID: &str =
    r#"{"type":"message","timestamp":"t","role":"assistant","content":"Done.","delta":true}"#;
const GOOD: &str = r#"{"type":"result","timestamp":"t","status":"success","stats":{}}"#;
const BAD: &str = r#"{"type":"result","timestamp":"t","status":"error","stats":{}}"#;
const LOOP: &str = r#"{"type":"error","timestamp":"t","severity":"warning","message":"Loop detected, stopping execution"}"#;
const TURNS: &str = r#"{"type":"error","timestamp":"t","severity":"error","message":"Maximum session turns exceeded"}"#;

#[test]
fn a_result_is_a_success_only_without_an_error_before_it() {
    for (lines, claim) in [
        (&[SAID, GOOD][..], Success),
        (&[GOOD], Silent),
        (&[SAID, BAD], Error(Internal)),
        (&[BAD], Error(Internal)),
        (&[SAID, LOOP, GOOD], Error(Internal)),
        (&[SAID, TURNS, GOOD], Error(MaxTurns)),
        (&[SAID, TURNS, BAD], Error(MaxTurns)),
        // It went on after a warning, but not after an error.
        (&[LOOP, SAID, GOOD], Success),
        (&[TURNS, SAID, GOOD], Error(MaxTurns)),
        (
            &[
                SAID,
                r#"{"type":"result","status":"success","error":{"message":"x"}}"#,
            ],
            Error(Internal),
        ),
        (&[SAID, r#"{"type":"result"}"#], Error(Internal)),
    ] {
        let verdict = conclude(lines).verdict;

        assert!(claim.is(&verdict), "{lines:?}: {verdict:?}");
    }
}

#[test]
fn a_report_that_came_twice_because_the_stream_broke_is_read_once() {
    let piece = |text: &str| {
        let text = serde_json::to_string(text).unwrap();
        format!(r#"{{"type":"message","role":"assistant","content":{text},"delta":true}}"#)
    };
    let whole =
        "Done.\n\n<!-- DARK-FACTORY-REPORT\n{\"status\":\"success\"}\nDARK-FACTORY-REPORT -->";

    let verdict = conclude(&[&piece(&whole[..40]), &piece(whole), GOOD]).verdict;

    assert!(Report.is(&verdict), "{verdict:?}");
}

#[test]
fn a_tool_that_failed_is_shown_with_its_error() {
    let lines = [
        r#"{"type":"tool_use","tool_name":"read_file","tool_id":"a","parameters":{"file_path":"x"}}"#,
        r#"{"type":"tool_result","tool_id":"a","status":"error","output":"File not found.","error":{"type":"file_not_found","message":"File not found: x"}}"#,
    ];

    let end = play(&lines.join("\n")).0.pop().unwrap().kind;

    let EventKind::ToolEnd {
        name, ok, output, ..
    } = end
    else {
        panic!("{end:?}")
    };
    assert_eq!(
        (name.as_str(), ok, output.as_str()),
        ("read_file", false, "File not found: x")
    );
}

#[test]
fn usage_counts_thought_as_output_and_prices_each_model() {
    let stats = r#"{"type":"result","status":"success","stats":{"total_tokens":3600,"input_tokens":3000,"output_tokens":500,"cached":1000,"input":2000,"duration_ms":5,"tool_calls":0,"models":{
        "gemini-2.5-flash":{"total_tokens":1600,"input_tokens":1000,"output_tokens":500,"cached":1000,"input":0},
        "gemini-2.5-pro":{"total_tokens":2000,"input_tokens":2000,"output_tokens":0,"cached":0,"input":2000}}}}"#;

    let usage = conclude(&[SAID, &stats.replace('\n', "")]).usage;

    assert_eq!((usage.input_tokens, usage.cache_read_tokens), (2000, 1000));
    assert_eq!((usage.output_tokens, usage.reasoning_tokens), (600, 100));
    let flash = (1000.0 * 0.03 + 600.0 * 2.5) / 1e6;
    let pro = 2000.0 * 1.25 / 1e6;
    assert!((usage.priced_usd.unwrap() - flash - pro).abs() < 1e-12);

    let unknown = stats
        .replace('\n', "")
        .replace("gemini-2.5-pro", "gemini-x");
    assert_eq!(conclude(&[SAID, &unknown]).usage.priced_usd, None);
}

#[test]
fn a_run_reads_well() {
    let shown = shown(&recording("success"));
    let (begin, rest) = shown.split_once('\n').unwrap();

    assert!(begin.contains("gemini-2.5-flash"), "{begin}");
    assert!(
        begin.contains("571f5335-6379-472a-89ff-595d666dfedd"),
        "{begin}"
    );
    assert_eq!(
        rest,
        r#"I'll create hello.txt.
→ write_file /home/agent/ws/gemini-success/hello.txt
    + Hello, world!
    + line two
Now a look at the folder.
→ run_shell_command ls -la && cat hello.txt
  ← total 12
    drwxr-xr-x  2 root root 4096 Nov 24 17:03 .
    drwxr-xr-x 63 root root 4096 Nov 24 17:03 ..
    -rw-r--r--  1 root root   23 Nov 24 17:03 hello.txt
    Hello, world!
    line two
→ read_file /home/agent/ws/gemini-success/hello.txt
→ replace /home/agent/ws/gemini-success/hello.txt
    - line two
    + line 2 (edited)
→ run_shell_command wc -l hello.txt
  ← 2 hello.txt
All the work is finished and the tests pass.
✓ done
  report: success: Created and edited hello.txt.
  1.5 s · 1 turn · $0.0032 by list prices · 7200 tokens in, 360 out, 4800 cached
"#
    );
}

#[test]
fn a_refused_key_reads_well() {
    let shown = shown(&recording("api_400_key"));

    assert!(
        shown.contains(
            "\n✗ credentials refused: API key not valid. Please pass a valid API key. (HTTP 400)\n"
        ),
        "{shown}"
    );
}
