//! What becomes of a run: its stream and its end together, through `Outcome::decide`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use dark_factory_agents::{AGENT_NAMES, Agent, Transcript, agent};
use dark_factory_types::OutcomeKind::{self, *};
use dark_factory_types::{EventStream, Exit, ExitSource, ExitStatus, Oom, Outcome, Verdict};
use jiff::Timestamp;
use serde::Deserialize;

/// How a recorded run ended.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ended {
    code: Option<i32>,
    signal: Option<i32>,
    #[serde(default)]
    oom_killed: bool,
}

impl Ended {
    fn exit(&self) -> Exit {
        let status = match (self.signal, self.code) {
            (Some(signal), _) => ExitStatus::Signal(signal),
            // The engine's way to say that SIGKILL ended it.
            (None, Some(137)) => ExitStatus::Signal(9),
            (None, code) => ExitStatus::Code(code.unwrap()),
        };
        let oom = match status {
            _ if !self.oom_killed => Oom::No,
            ExitStatus::Signal(9) => Oom::Certain,
            _ => Oom::Child,
        };
        exit(status, oom)
    }
}

fn exit(status: ExitStatus, oom: Oom) -> Exit {
    Exit {
        status,
        oom,
        source: ExitSource::Engine,
    }
}

fn data(path: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/data/streams").join(path)
}

fn outcome(agent: &'static dyn Agent, stdout: &[u8], exit: &Exit) -> Outcome {
    let mut transcript = Transcript::new(agent);
    let mut events = Vec::new();
    let at = Timestamp::UNIX_EPOCH;
    transcript.feed(EventStream::Stdout, stdout, at, &mut events);
    transcript.finish(at, &mut events);
    let verdict = agent.verdict_at_exit(transcript.conclusion().verdict, exit);
    if let Verdict::Error { message, .. } = &verdict {
        assert!(!message.trim().is_empty() && !message.contains('\n'));
    }
    Outcome::decide(exit, &verdict, None, agent.proof())
}

/// Agent, recording, outcome, a part of its cause.
type Row = (&'static str, &'static str, OutcomeKind, &'static str);

const NOTHING: &str = "all 4 commands and changes that";
const OK: &str = "the agent finished and reports success";

#[rustfmt::skip]
const RECORDINGS: &[Row] = &[
    ("claude", "api_401", Failed, "could not authenticate"),
    ("claude", "api_429", Failed, "rate limit"),
    ("claude", "api_500", Failed, "service failed or is overloaded"),
    ("claude", "api_529", Failed, "service failed or is overloaded"),
    ("claude", "budget", Limit, "its budget"),
    ("claude", "context_overflow", Failed, "no longer fits the model"),
    ("claude", "credit", Failed, "usage limit is reached"),
    ("claude", "denied", Failed, NOTHING),
    ("claude", "docker_api_529", Failed, "service failed or is overloaded"),
    ("claude", "docker_cpu_half", Succeeded, OK),
    ("claude", "docker_hardened", Succeeded, OK),
    ("claude", "docker_hardened_stop", Killed, "SIGTERM from outside"),
    ("claude", "docker_int_http_proxy", Succeeded, OK),
    ("claude", "docker_int_https_connect", Failed, "service failed or is overloaded"),
    ("claude", "docker_int_no_route", Killed, "SIGKILL from outside"),
    ("claude", "docker_int_reverse_proxy", Succeeded, OK),
    ("claude", "docker_kill", Killed, "SIGKILL from outside"),
    ("claude", "docker_mem_128m", Succeeded, OK),
    ("claude", "docker_mem_192m", Succeeded, OK),
    ("claude", "docker_mem_256m", Succeeded, OK),
    ("claude", "docker_mem_64m", OutOfMemory, "lack of memory"),
    ("claude", "docker_normal", Succeeded, OK),
    ("claude", "docker_pids_16", Succeeded, OK),
    ("claude", "docker_pids_32", Succeeded, OK),
    ("claude", "docker_readonly_notmp", NoResult, "exited with code 1"),
    ("claude", "docker_readonly_tmp_noexec", Succeeded, OK),
    ("claude", "docker_readonly_tmp_only", Succeeded, OK),
    ("claude", "docker_root_sandbox", Succeeded, OK),
    ("claude", "docker_stop", Killed, "SIGTERM from outside"),
    ("claude", "docker_stop_shell_init", Killed, "SIGTERM from outside"),
    ("claude", "docker_stop_shell_pid1", Killed, "SIGKILL from outside"),
    ("claude", "docker_unknown_uid", Succeeded, OK),
    ("claude", "docker_ws_root_owned", Failed, "Claude Code tried failed: EACCES"),
    ("claude", "drop", Succeeded, OK),
    ("claude", "empty", NoResult, "no result"),
    ("claude", "max_tokens", Succeeded, OK),
    ("claude", "max_turns", Failed, "turn limit"),
    ("claude", "model_not_found", Failed, "refused the request"),
    ("claude", "not_json", Failed, "the agent failed"),
    ("claude", "partial", Succeeded, OK),
    ("claude", "resume_1", Succeeded, OK),
    ("claude", "resume_missing", Failed, "the agent failed"),
    ("claude", "root_refused", NoResult, "exited with code 1"),
    ("claude", "sigint", Failed, "interrupted"),
    ("claude", "sigkill", Killed, "SIGKILL from outside"),
    ("claude", "sigkill_truncated", Killed, "SIGKILL from outside"),
    ("claude", "sigterm", Killed, "SIGTERM from outside"),
    ("claude", "stdin_prompt", Succeeded, OK),
    ("claude", "stream_error", Succeeded, OK),
    ("claude", "subagent", Succeeded, OK),
    ("claude", "success", Succeeded, OK),
    ("claude", "todo", Succeeded, OK),
    ("claude", "tool_error", Succeeded, OK),
    ("claude", "usage_limit", Failed, "starts anew at"),
    ("claude", "usage_warning", Succeeded, OK),

    ("codex", "api_401", Failed, "could not authenticate"),
    ("codex", "api_429", Failed, "rate limit"),
    ("codex", "api_500", Failed, "service failed or is overloaded"),
    ("codex", "api_503", Failed, "service failed or is overloaded"),
    ("codex", "context_overflow", Failed, "no longer fits the model"),
    ("codex", "docker_hardened", Succeeded, OK),
    ("codex", "docker_normal", Succeeded, OK),
    ("codex", "docker_sandbox", Failed, "Codex tried failed"),
    ("codex", "docker_sandbox_bwrap", Failed, "all 4 commands and changes that Codex tried failed: bwrap"),
    ("codex", "docker_stop", Killed, "SIGKILL from outside"),
    ("codex", "drop", Failed, "service failed or is overloaded"),
    ("codex", "huge_line", Succeeded, OK),
    ("codex", "large_output", Succeeded, OK),
    ("codex", "late_failure", Failed, "service failed or is overloaded"),
    ("codex", "no_git", Succeeded, OK),
    ("codex", "sigint", NoResult, "exited with code 1"),
    ("codex", "sigkill", Killed, "SIGKILL from outside"),
    ("codex", "sigterm", Killed, "SIGTERM from outside"),
    // Its child never shows in the stream, and Codex does not wait for it.
    ("codex", "subagent", Succeeded, OK),
    ("codex", "success", Succeeded, OK),
    ("codex", "text", Succeeded, OK),
    ("codex", "todo", Succeeded, OK),
    ("codex", "unicode", Succeeded, OK),

    ("gemini", "api_400_key", Failed, "could not authenticate"),
    ("gemini", "api_403", Failed, "could not authenticate"),
    // It was still trying when the recorder killed it.
    ("gemini", "api_429", Killed, "SIGKILL from outside"),
    ("gemini", "api_503", Killed, "SIGKILL from outside"),
    ("gemini", "quota", Killed, "SIGKILL from outside"),
    ("gemini", "no_auth_setting", Failed, "could not authenticate: no way to authenticate is set up"),
    ("gemini", "sigint", NoResult, "exited with code 0 but"),
    ("gemini", "sigint_relaunch", Killed, "SIGKILL from outside"),
    ("gemini", "sigkill", Killed, "SIGKILL from outside"),
    ("gemini", "sigterm", Killed, "SIGKILL from outside"),
    ("gemini", "success", Succeeded, OK),
    ("gemini", "text", Succeeded, OK),
    ("gemini", "unicode_raw_ls", Failed, "the agent failed: Incomplete JSON segment"),
    ("gemini", "untrusted", Failed, "GEMINI_CLI_TRUST_WORKSPACE"),
];

#[test]
fn every_recorded_run_has_the_outcome_that_it_had() {
    let ends = fs::read(data("exits.json")).unwrap();
    let ends: BTreeMap<String, BTreeMap<String, Ended>> = serde_json::from_slice(&ends).unwrap();
    for (name, recording, kind, cause) in RECORDINGS {
        let stream = fs::read(data(&format!("{name}/{recording}.jsonl"))).unwrap();
        let exit = ends[*name][*recording].exit();

        let outcome = outcome(agent(name).unwrap(), &stream, &exit);

        assert_eq!(outcome.kind, *kind, "{name} {recording}: {outcome:?}");
        assert!(
            outcome.cause.contains(cause),
            "{name} {recording}: {outcome:?}"
        );
    }
}

#[test]
fn no_recording_is_left_out() {
    for name in AGENT_NAMES {
        let Ok(files) = fs::read_dir(data(name)) else {
            continue;
        };
        for file in files {
            let path = file.unwrap().path();
            let recording = path.file_stem().unwrap().to_str().unwrap();
            let mut rows = RECORDINGS.iter();
            assert!(
                rows.any(|(agent, of, ..)| (*agent, *of) == (name, recording)),
                "{}",
                path.display()
            );
        }
    }
}

const CLAUDE_DONE: &str =
    r#"{"type":"result","subtype":"success","is_error":false,"result":"done"}"#;
const CODEX_SAID: &str =
    r#"{"type":"item.completed","item":{"id":"a","type":"agent_message","text":"Done."}}"#;
const CODEX_END: &str = r#"{"type":"turn.completed","usage":{}}"#;
const GEMINI_INIT: &str = r#"{"type":"init","session_id":"s","model":"m"}"#;
const GEMINI_SAID: &str = r#"{"type":"message","role":"assistant","content":"Done.","delta":true}"#;
const GEMINI_GOOD: &str = r#"{"type":"result","status":"success","stats":{}}"#;
const GEMINI_BAD: &str = r#"{"type":"result","status":"error","stats":{}}"#;

fn of_lines(name: &str, lines: &[&str], status: ExitStatus, oom: Oom) -> Outcome {
    let stream = lines.join("\n");
    outcome(agent(name).unwrap(), stream.as_bytes(), &exit(status, oom))
}

/// Agent, lines, end, outcome, a part of its cause.
type Lie<'a> = (
    &'a str,
    &'a [&'a str],
    ExitStatus,
    Oom,
    OutcomeKind,
    &'a str,
);

/// Runs that lie: what was recorded of them besides the recordings above, in the shape in which they lie.
#[test]
fn no_single_sign_makes_a_success() {
    use ExitStatus::{Code, Signal};

    let interrupted = r#"{"type":"result","subtype":"error_during_execution","is_error":true,"terminal_reason":"aborted_tools"}"#;
    let empty = r#"{"type":"result","subtype":"success","is_error":false,"result":""}"#;
    let denied = [
        r#"{"type":"assistant","message":{"content":[{"type":"tool_use","id":"a","name":"Bash","input":{"command":"make"}}]}}"#,
        r#"{"type":"system","subtype":"permission_denied","tool_name":"Bash","tool_use_id":"a","message":"not allowed"}"#,
        r#"{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"a","is_error":true,"content":"not allowed"}]}}"#,
        r#"{"type":"result","subtype":"success","is_error":false,"result":"done","permission_denials":[{"tool_name":"Bash"}]}"#,
    ];
    let refused = r#"{"type":"result","subtype":"success","is_error":true,"stop_reason":"refusal","result":"I can't"}"#;
    let cut = r#"{"type":"result","subtype":"success","is_error":true,"result":"cut","api_error":"max_output_tokens"}"#;
    let no_host = r#"{"type":"item.completed","item":{"id":"x","type":"error","message":"Code Mode is unavailable: no host"}}"#;
    let looping =
        r#"{"type":"error","severity":"warning","message":"Loop detected, stopping execution"}"#;
    let qwen_401 = r#"{"type":"result","subtype":"success","is_error":false,"result":"[API Error: 401 Incorrect API key provided]"}"#;
    let qwen_500 = r#"{"type":"result","subtype":"success","is_error":false,"result":"[API Error: 500 status code (no body)]"}"#;

    #[rustfmt::skip]
    let rows: &[Lie<'_>] = &[
        // Exit code 0 alone.
        ("claude", &[interrupted], Code(0), Oom::No, Failed, "interrupted"),
        ("claude", &denied, Code(0), Oom::No, Failed, "Bash is not permitted: not allowed"),
        ("claude", &[empty], Code(0), Oom::No, NoResult, "no result"),
        ("claude", &[CLAUDE_DONE], Code(0), Oom::Child, Succeeded, OK),
        ("claude", &[], Code(0), Oom::No, NoResult, "no result"),
        ("claude", &[refused], Code(1), Oom::No, Failed, "declined"),
        ("claude", &[cut], Code(1), Oom::No, Failed, "failed: cut"),
        ("codex", &[], Code(101), Oom::No, NoResult, "exited with code 101"),
        ("codex", &[CODEX_SAID, CODEX_END], Code(101), Oom::No, Failed, "claims success but exited with code 101"),
        ("codex", &[no_host, CODEX_SAID, CODEX_END], Code(0), Oom::No, Failed, "Code Mode is unavailable"),
        ("gemini", &[GEMINI_INIT, GEMINI_BAD], Code(0), Oom::No, Failed, "it does not say why"),
        ("gemini", &[GEMINI_INIT, GEMINI_SAID, GEMINI_BAD], Code(0), Oom::No, Failed, "it does not say why"),
        ("gemini", &[GEMINI_INIT, GEMINI_SAID, looping, GEMINI_GOOD], Code(0), Oom::No, Failed, "Loop detected"),
        ("gemini", &[GEMINI_INIT, GEMINI_SAID], Code(0), Oom::No, NoResult, "no result"),
        // What was cut short or declined does not show in its stream.
        ("gemini", &[GEMINI_INIT, GEMINI_SAID, GEMINI_GOOD], Code(0), Oom::No, Succeeded, OK),
        // qwen-code, which speaks Claude Code's language.
        ("claude", &[qwen_401], Code(0), Oom::No, Failed, "could not authenticate"),
        ("claude", &[qwen_500], Code(0), Oom::No, Failed, "service failed or is overloaded"),
        ("claude", &[], Code(53), Oom::No, NoResult, "exited with code 53"),
        // A good result and another exit code.
        ("claude", &[CLAUDE_DONE], Code(1), Oom::No, Failed, "claims success but exited with code 1"),
        ("gemini", &[GEMINI_INIT, GEMINI_SAID, GEMINI_GOOD], Code(144), Oom::No, Failed, "claims success but exited with code 144"),
        // 137 is lack of memory only if somebody says so.
        ("claude", &[], Signal(9), Oom::Certain, OutOfMemory, "lack of memory"),
        ("claude", &[], Signal(9), Oom::No, Killed, "SIGKILL"),
        // Where the stream is silent, Gemini CLI's exit codes are HTTP statuses, and signals in no other place.
        ("gemini", &[GEMINI_INIT], Code(41), Oom::No, Failed, "could not authenticate"),
        ("gemini", &[GEMINI_INIT], Code(53), Oom::No, Failed, "turn limit"),
        ("gemini", &[GEMINI_INIT], Code(144), Oom::No, Failed, "refused the request: HTTP 400"),
        ("gemini", &[GEMINI_INIT], Code(147), Oom::No, Failed, "could not authenticate: HTTP 403"),
        ("gemini", &[GEMINI_INIT], Code(173), Oom::No, Failed, "rate limit: HTTP 429"),
        ("gemini", &[GEMINI_INIT], Code(244), Oom::No, Failed, "overloaded: HTTP 500"),
        ("gemini", &[GEMINI_INIT], Code(247), Oom::No, Failed, "overloaded: HTTP 503"),
        ("gemini", &[GEMINI_INIT], Code(143), Oom::No, Killed, "SIGTERM"),
        ("gemini", &[GEMINI_INIT], Code(1), Oom::No, NoResult, "exited with code 1"),
        // A command is its exit code, whatever it prints.
        ("command", &[CLAUDE_DONE, GEMINI_GOOD], Code(3), Oom::No, Failed, "exited with code 3"),
        ("command", &[interrupted], Code(0), Oom::No, Succeeded, "exited with code 0"),
        ("command", &["DARK-FACTORY-REPORT -->"], Code(0), Oom::No, Succeeded, "exited with code 0"),
    ];
    for (name, lines, status, oom, kind, cause) in rows {
        let outcome = of_lines(name, lines, *status, *oom);

        assert_eq!(
            outcome.kind, *kind,
            "{name} {lines:?} {status:?}: {outcome:?}"
        );
        assert!(
            outcome.cause.contains(cause),
            "{name} {lines:?} {status:?}: {outcome:?}"
        );
    }
}

/// The last words of each agent, as lines of its stream.
fn last_words(name: &str, text: &str) -> Vec<String> {
    let text = serde_json::to_string(text).unwrap();
    match name {
        "claude" => vec![format!(
            r#"{{"type":"result","subtype":"success","is_error":false,"result":{text}}}"#
        )],
        "codex" => vec![
            format!(
                r#"{{"type":"item.completed","item":{{"id":"a","type":"agent_message","text":{text}}}}}"#
            ),
            CODEX_END.to_owned(),
        ],
        _ => vec![
            format!(r#"{{"type":"message","role":"assistant","content":{text},"delta":true}}"#),
            GEMINI_GOOD.to_owned(),
        ],
    }
}

/// What a tool answered, as lines of each agent's stream.
fn tool_answer(name: &str, text: &str) -> Vec<String> {
    let text = serde_json::to_string(text).unwrap();
    match name {
        "claude" => vec![
            r#"{"type":"assistant","message":{"content":[{"type":"tool_use","id":"t","name":"Bash","input":{}}]}}"#
                .to_owned(),
            format!(
                r#"{{"type":"user","message":{{"content":[{{"type":"tool_result","tool_use_id":"t","content":{text}}}]}}}}"#
            ),
        ],
        "codex" => vec![format!(
            r#"{{"type":"item.completed","item":{{"id":"t","type":"command_execution","command":"cat","aggregated_output":{text},"exit_code":0,"status":"completed"}}}}"#
        )],
        _ => vec![format!(
            r#"{{"type":"tool_result","tool_id":"t","status":"success","output":{text}}}"#
        )],
    }
}

fn block(json: &str) -> String {
    format!("<!-- DARK-FACTORY-REPORT\n{json}\nDARK-FACTORY-REPORT -->")
}

#[test]
fn a_report_counts_where_the_agent_gives_it_and_nowhere_else() {
    let bad = block(r#"{"status":"failed","summary":"it broke"}"#);
    for name in ["claude", "codex", "gemini"] {
        let decide = |lines: Vec<String>| {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            of_lines(name, &lines, ExitStatus::Code(0), Oom::No)
        };
        let with = |text: &str| decide(last_words(name, text));

        let given = with(&format!("Done.\n\n{bad}"));
        assert_eq!(given.cause, "the agent reports failed: it broke", "{name}");

        let quoted = with(&format!("I would write `{}` then", bad.replace('\n', " ")));
        assert_eq!(quoted.kind, Succeeded, "{name}: {quoted:?}");
        let fenced = with(&format!("Like this:\n```\n{bad}\n```\nDone."));
        assert_eq!(fenced.kind, Succeeded, "{name}: {fenced:?}");
        let of_a_tool = decide([tool_answer(name, &bad), last_words(name, "Done.")].concat());
        assert_eq!(of_a_tool.kind, Succeeded, "{name}: {of_a_tool:?}");
    }
}

#[test]
fn a_report_cut_in_half_is_no_success_wherever_it_is_cut() {
    let whole = format!("Done.\n\n{}", block(r#"{"status":"success"}"#));
    let begin = whole.find("<!--").unwrap() + "<!-- DARK-FACTORY-REPORT".len();
    for name in ["claude", "codex", "gemini"] {
        for cut in begin..whole.len() {
            let lines = last_words(name, &whole[..cut]);
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();

            let outcome = of_lines(name, &lines, ExitStatus::Code(0), Oom::No);

            assert_eq!(outcome.kind, Failed, "{name} {cut}: {outcome:?}");
            assert!(outcome.cause.contains("not readable"), "{outcome:?}");
        }
    }
}

#[test]
fn a_success_whose_check_failed_is_partial_and_other_fields_are_kept() {
    let report = block(
        r#"{"status":"success","summary":"did it","blockers":["one"],"verification":{"command":"make","exitCode":2},"risk":"low"}"#,
    );
    for name in ["claude", "codex", "gemini"] {
        let lines = last_words(name, &report).join("\n");
        let agent = agent(name).unwrap();
        let mut transcript = Transcript::new(agent);
        let at = Timestamp::UNIX_EPOCH;
        transcript.feed(EventStream::Stdout, lines.as_bytes(), at, &mut Vec::new());
        transcript.finish(at, &mut Vec::new());

        let outcome = outcome(agent, lines.as_bytes(), &exit(ExitStatus::Code(0), Oom::No));

        assert_eq!(outcome.cause, "the agent reports partial: did it", "{name}");
        let Verdict::Report { report } = transcript.conclusion().verdict else {
            panic!("{name}: no report")
        };
        assert_eq!(report.unknown["risk"], "\"low\"", "{name}");
    }
}

#[test]
fn no_stream_is_a_success_without_its_last_line() {
    for (name, recording) in [
        ("claude", "success"),
        ("codex", "success"),
        ("gemini", "success"),
    ] {
        let stream = fs::read(data(&format!("{name}/{recording}.jsonl"))).unwrap();
        let ends = stream
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'\n');
        let ends: Vec<usize> = ends.map(|(at, _)| at).collect();
        let agent = agent(name).unwrap();
        let exit = exit(ExitStatus::Code(0), Oom::No);

        for end in &ends[..ends.len() - 1] {
            let outcome = outcome(agent, &stream[..*end], &exit);
            assert_eq!(outcome.kind, NoResult, "{name} {end}: {outcome:?}");
        }
        assert_eq!(outcome(agent, b"", &exit).kind, NoResult, "{name}");
    }
}
