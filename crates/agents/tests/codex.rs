//! What follows from the recordings of the real Codex.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod claim;

use std::fs;
use std::path::Path;

use dark_factory_agents::{Conclusion, TextFormatter, TextStyle, Transcript, agent};
use dark_factory_types::{ErrorClass::*, Event, EventKind, EventStream, Verdict};
use jiff::Timestamp;

use claim::Claim::{self, Error, Report, Silent, Success};

fn recording(name: &str) -> String {
    let path = format!("tests/data/streams/codex/{name}.jsonl");
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn play(stdout: &str) -> (Vec<Event>, Conclusion) {
    let mut transcript = Transcript::new(agent("codex").unwrap());
    let mut events = Vec::new();
    let (at, bytes) = (Timestamp::UNIX_EPOCH, stdout.as_bytes());
    transcript.feed(EventStream::Stdout, bytes, at, &mut events);
    transcript.finish(at, &mut events);
    (events, transcript.conclusion())
}

fn shown(stdout: &str) -> String {
    let mut text = TextFormatter::new(TextStyle::default());
    let mut out = String::new();
    for event in &play(stdout).0 {
        text.write(event, &mut out);
    }
    out
}

/// Recording, claim, tokens (input, output, cache read), turns, last tool.
type Row = (&'static str, Claim, [u64; 3], u64, &'static str);

#[rustfmt::skip]
const RECORDINGS: &[Row] = &[
    ("success",              Report,            [7200, 360, 4800], 1, "shell"),
    ("docker_hardened",      Report,            [7200, 360, 4800], 1, "shell"),
    ("huge_line",            Report,            [2400, 120, 1600], 1, "file_change"),
    ("text",                 Success,           [1200, 60, 800],   1, ""),
    ("todo",                 Success,           [4800, 240, 3200], 1, "file_change"),
    ("subagent",             Success,           [2400, 120, 1600], 1, ""),
    ("unicode",              Success,           [2400, 120, 1600], 1, "shell"),
    // Both end with a report of success, `turn.completed` and exit code 0.
    ("docker_sandbox",       Error(Internal),   [7200, 360, 4800], 1, "file_change"),
    ("docker_sandbox_bwrap", Error(Internal),   [7200, 360, 4800], 1, "shell"),
    ("api_401",              Error(Auth),       [0; 3],            0, ""),
    ("api_429",              Error(RateLimit),  [0; 3],            0, ""),
    ("api_500",              Error(Overloaded), [0; 3],            0, ""),
    ("api_503",              Error(Overloaded), [0; 3],            0, ""),
    ("drop",                 Error(Overloaded), [0; 3],            0, ""),
    ("late_failure",         Error(Overloaded), [0; 3],            0, "shell"),
    ("context_overflow",     Error(Context),    [0; 3],            0, ""),
    ("sigint",               Silent,            [0; 3],            0, "shell"),
    ("sigterm",              Silent,            [0; 3],            0, "shell"),
    ("docker_stop",          Silent,            [0; 3],            0, "shell"),
];

#[test]
fn every_recording_gives_its_verdict_and_its_usage() {
    for (name, claim, tokens, turns, last_tool) in RECORDINGS {
        let conclusion = play(&recording(name)).1;

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
        assert_eq!((&found, usage.turns), (tokens, *turns), "{name}");
        assert_eq!(usage.cost_usd, None, "{name}");
        assert_eq!(
            conclusion.last_tool.as_deref().unwrap_or(""),
            *last_tool,
            "{name}"
        );
        assert!(conclusion.session_id.is_some(), "{name}");
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
fn a_run_whose_inner_sandbox_failed_says_so_instead_of_success() {
    let Verdict::Error { message, .. } = play(&recording("docker_sandbox_bwrap")).1.verdict else {
        panic!("not an error")
    };

    assert_eq!(
        message,
        "all 4 commands and changes that Codex tried failed: bwrap: No permissions to create a new namespace, likely \
         because the kernel does not allow non-privileged user namespaces. On e.g. debian this can be enabled with \
         'sysctl kernel.unprivileged_userns_clone=1'."
    );
}

#[test]
fn one_thing_that_worked_makes_failed_ones_the_models_business() {
    let failed = r#"{"type":"item.completed","item":{"id":"a","type":"file_change","changes":[],"status":"failed"}}"#;
    let worked = r#"{"type":"item.completed","item":{"id":"b","type":"command_execution","command":"ls","aggregated_output":"","exit_code":0,"status":"completed"}}"#;
    let grep = r#"{"type":"item.completed","item":{"id":"c","type":"command_execution","command":"grep x","aggregated_output":"","exit_code":1,"status":"failed"}}"#;
    let said =
        r#"{"type":"item.completed","item":{"id":"d","type":"agent_message","text":"Done."}}"#;
    let end = r#"{"type":"turn.completed","usage":{}}"#;
    let verdict = |lines: &[&str]| play(&lines.join("\n")).1.verdict;

    assert_eq!(verdict(&[failed, worked, said, end]), Verdict::Success);
    assert_eq!(verdict(&[grep, said, end]), Verdict::Success);
    assert!(matches!(
        verdict(&[failed, said, end]),
        Verdict::Error { .. }
    ));
    assert_eq!(verdict(&[end]), Verdict::Silent);
}

#[test]
fn a_missing_code_mode_host_is_not_a_success() {
    let lines = [
        r#"{"type":"item.completed","item":{"id":"a","type":"error","message":"Code Mode is unavailable: no host"}}"#,
        r#"{"type":"item.completed","item":{"id":"b","type":"agent_message","text":"Done."}}"#,
        r#"{"type":"turn.completed","usage":{}}"#,
    ];

    let verdict = play(&lines.join("\n")).1.verdict;

    let Verdict::Error { message, .. } = verdict else {
        panic!("{verdict:?}")
    };
    assert_eq!(
        message,
        "no tool of Codex can work: Code Mode is unavailable: no host"
    );
}

#[test]
fn a_web_search_does_not_make_up_for_tools_that_cannot_work() {
    let lines = [
        r#"{"type":"item.completed","item":{"id":"a","type":"error","message":"Code Mode is unavailable: no host"}}"#,
        r#"{"type":"item.completed","item":{"id":"b","type":"web_search","query":"how to"}}"#,
        r#"{"type":"item.completed","item":{"id":"c","type":"agent_message","text":"Done."}}"#,
        r#"{"type":"turn.completed","usage":{}}"#,
    ];

    let verdict = play(&lines.join("\n")).1.verdict;

    assert!(matches!(verdict, Verdict::Error { .. }), "{verdict:?}");
}

#[test]
fn what_codex_was_not_allowed_to_do_is_not_done() {
    let said =
        r#"{"type":"item.completed","item":{"id":"b","type":"agent_message","text":"Done."}}"#;
    let end = r#"{"type":"turn.completed","usage":{}}"#;

    for (declined, why) in [
        (
            r#""type":"command_execution","command":"make","aggregated_output":"","exit_code":null,"status":"declined""#,
            "declined: make",
        ),
        (
            r#""type":"command_execution","command":"make","aggregated_output":"","exit_code":-1,"status":"declined""#,
            "declined: make",
        ),
        (
            r#""type":"file_change","changes":[{"path":"a","kind":"add"}],"status":"declined""#,
            "could not add a",
        ),
    ] {
        let item = format!(r#"{{"type":"item.completed","item":{{"id":"a",{declined}}}}}"#);
        let (events, conclusion) = play(&[&item, said, end].join("\n"));

        let ok = events.iter().find_map(|event| match event.kind {
            EventKind::ToolEnd { ok, .. } => Some(ok),
            _ => None,
        });
        assert_eq!(ok, Some(false), "{declined}");
        let Verdict::Error { message, .. } = conclusion.verdict else {
            panic!("{declined}: {:?}", conclusion.verdict)
        };
        assert_eq!(
            message,
            format!("the only command or change that Codex tried failed: {why}")
        );
    }
}

#[test]
fn an_error_without_the_end_of_a_turn_is_the_verdict_until_a_turn_ends() {
    let error = r#"{"type":"error","message":"unexpected status 401 Unauthorized: no"}"#;
    let said =
        r#"{"type":"item.completed","item":{"id":"d","type":"agent_message","text":"Done."}}"#;
    let end = r#"{"type":"turn.completed","usage":{}}"#;

    assert!(matches!(
        play(error).1.verdict,
        Verdict::Error { class: Auth, .. }
    ));
    assert_eq!(
        play(&[error, said, end].join("\n")).1.verdict,
        Verdict::Success
    );
}

#[test]
fn a_run_reads_well() {
    assert_eq!(
        shown(&recording("docker_hardened")),
        r#"● session 01a20e8a-06c6-78f0-9ac9-8b334ec45101
⚠ Model metadata for `gpt-5` not found. Defaulting to fallback metadata; this can degrade performance and cause issues.
💭 I will create the file first.
I'll create hello.txt.
→ file_change add /workspace/hello.txt
Now a look at the folder.
→ shell ls -la && cat hello.txt
  ← total 12
    drwxr-xr-x 2 agent agent 4096 Nov 24 17:10 .
    drwxr-xr-x 1 root  root  4096 Nov 24 17:10 ..
    -rw-r--r-- 1 agent agent   23 Nov 24 17:10 hello.txt
    Hello, world!
    line two
→ shell sed -n 1,200p 'hello.txt'
  ← Hello, world!
    line two
→ file_change update /workspace/hello.txt
→ shell wc -l hello.txt
  ← 2 hello.txt
All the work is finished and the tests pass.
✓ done
  report: success: Created and edited hello.txt.
  1 turn · 7200 tokens in, 360 out, 4800 cached
"#
    );
}

#[test]
fn a_refused_key_reads_well() {
    assert_eq!(
        shown(&recording("api_401")),
        "\
● session 01a20e82-0dbc-7080-b5d3-5eb5fa57712a
⚠ Model metadata for `gpt-5` not found. Defaulting to fallback metadata; this can degrade performance and cause issues.
⚠ retry 1/1: 401 Unauthorized: Incorrect API key provided: test-key., url: http://127.0.0.1:39061/v1/responses
✗ credentials refused: unexpected status 401 Unauthorized: Incorrect API key provided: test-key., \
url: http://127.0.0.1:39061/v1/responses
"
    );
}
