//! What follows from the recordings of the real Claude Code.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod claim;

use std::fs;
use std::path::Path;

use dark_factory_agents::{Conclusion, TextFormatter, TextStyle, Transcript, agent};
use dark_factory_types::{
    ErrorClass::{self, *},
    Event, EventKind, EventStream, ReportStatus, ToolClass, UnparsedReason, Verdict,
};
use jiff::Timestamp;

use claim::Claim::{self, Error, Report, Silent, Success};

fn recording(name: &str) -> Vec<u8> {
    let path = format!("tests/data/streams/claude/{name}.jsonl");
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn play(stdout: &[u8]) -> (Vec<Event>, Conclusion) {
    let mut transcript = Transcript::new(agent("claude").unwrap());
    let mut events = Vec::new();
    transcript.feed(
        EventStream::Stdout,
        stdout,
        Timestamp::UNIX_EPOCH,
        &mut events,
    );
    transcript.finish(Timestamp::UNIX_EPOCH, &mut events);
    (events, transcript.conclusion())
}

fn conclude(lines: &[&str]) -> Conclusion {
    play(lines.join("\n").as_bytes()).1
}

fn kinds(stdout: &str) -> Vec<EventKind> {
    play(stdout.as_bytes())
        .0
        .into_iter()
        .map(|event| event.kind)
        .collect()
}

/// Recording, claim, tokens (input, output, cache read, cache written), turns, cost, last tool.
type Row = (
    &'static str,
    Claim,
    [u64; 4],
    u64,
    Option<f64>,
    &'static str,
);

const NONE: [u64; 4] = [0; 4];
const ONE: [u64; 4] = [1200, 60, 800, 100];
const TWO: [u64; 4] = [2400, 120, 1600, 200];
const FIVE: [u64; 4] = [6000, 300, 4000, 500];
const SIX: [u64; 4] = [7200, 360, 4800, 600];

#[rustfmt::skip]
const RECORDINGS: &[Row] = &[
    ("success",                  Report,                 SIX,  6, Some(0.03996), "Bash"),
    ("partial",                  Report,                 SIX,  6, Some(0.03996), "Bash"),
    // Both end with a report of success, `is_error: false` and exit code 0.
    ("denied",                   Error(Internal),        SIX,  6, Some(0.03996), "Bash"),
    ("docker_ws_root_owned",     Error(Internal),        SIX,  6, Some(0.03996), "Bash"),
    ("docker_normal",            Report,                 SIX,  6, Some(0.03996), "Bash"),
    ("docker_root_sandbox",      Report,                 SIX,  6, Some(0.03996), "Bash"),
    ("tool_error",               Success,                FIVE, 5, Some(0.0333),  "NoSuchTool"),
    ("subagent",                 Success,                FIVE, 3, Some(0.0333),  "Bash"),
    ("todo",                     Success,                [4800, 240, 3200, 400], 4, Some(0.02664), "TodoWrite"),
    ("resume_1",                 Success,                ONE,  1, Some(0.00666), ""),
    ("stdin_prompt",             Success,                ONE,  1, Some(0.00666), ""),
    ("drop",                     Success,                ONE,  1, Some(0.00666), ""),
    ("stream_error",             Success,                ONE,  1, Some(0.00666), ""),
    ("max_tokens",               Success,                TWO,  2, Some(0.01332), ""),
    ("usage_warning",            Success,                ONE,  1, Some(0.00333), ""),
    ("empty",                    Silent,                 TWO,  2, Some(0.01332), ""),
    ("api_401",                  Error(Auth),            NONE, 1, Some(0.0),     ""),
    ("api_429",                  Error(RateLimit),       NONE, 1, Some(0.0),     ""),
    ("api_500",                  Error(Overloaded),      NONE, 1, Some(0.0),     ""),
    ("api_529",                  Error(Overloaded),      NONE, 1, Some(0.0),     ""),
    ("docker_api_529",           Error(Overloaded),      NONE, 1, Some(0.0),     ""),
    ("docker_int_https_connect", Error(Overloaded),      NONE, 1, Some(0.0),     ""),
    ("budget",                   Error(Budget),          [300_000, 60_000, 0, 0], 2, Some(2.4), "Bash"),
    ("context_overflow",         Error(Context),         NONE, 1, Some(0.0),     ""),
    ("credit",                   Error(UsageLimit),      NONE, 1, Some(0.0),     ""),
    ("usage_limit",              Error(UsageLimit),      NONE, 1, Some(0.0),     ""),
    ("max_turns",                Error(MaxTurns),        ONE,  2, Some(0.00666), "Bash"),
    ("model_not_found",          Error(InvalidRequest),  NONE, 1, Some(0.0),     ""),
    ("not_json",                 Error(Internal),        NONE, 1, Some(0.0),     ""),
    ("resume_missing",           Error(Internal),        NONE, 0, Some(0.0),     ""),
    ("sigint",                   Error(Interrupted),     ONE,  3, Some(0.00666), "Bash"),
    ("sigterm",                  Silent,                 NONE, 0, None,          "Bash"),
    ("sigkill",                  Silent,                 NONE, 0, None,          "Bash"),
    ("sigkill_truncated",        Silent,                 NONE, 0, None,          ""),
    ("docker_stop",              Silent,                 NONE, 0, None,          "Bash"),
    ("docker_kill",              Silent,                 NONE, 0, None,          "Bash"),
    ("docker_mem_64m",           Silent,                 NONE, 0, None,          ""),
    ("root_refused",             Silent,                 NONE, 0, None,          ""),
];

#[test]
fn every_recording_gives_its_verdict_and_its_usage() {
    for (name, claim, tokens, turns, cost, last_tool) in RECORDINGS {
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
            usage.cache_write_tokens,
        ];
        assert_eq!((&found, usage.turns), (tokens, *turns), "{name}");
        let same_cost = match (usage.cost_usd, cost) {
            (Some(found), Some(cost)) => (found - cost).abs() < 1e-9,
            (found, cost) => found == *cost,
        };
        assert!(same_cost, "{name}: {:?}", usage.cost_usd);
        assert_eq!(
            conclusion.last_tool.as_deref().unwrap_or(""),
            *last_tool,
            "{name}"
        );
    }
}

#[test]
fn no_recording_has_a_line_that_is_not_understood() {
    for (name, ..) in RECORDINGS {
        for event in play(&recording(name)).0 {
            if let EventKind::Unparsed { why } = event.kind {
                assert_eq!(
                    (*name, why),
                    ("sigkill_truncated", UnparsedReason::Truncated)
                );
            }
        }
    }
}

#[test]
fn the_session_and_the_model_are_known_from_the_first_line() {
    let first = recording("success")
        .split_inclusive(|byte| *byte == b'\n')
        .next()
        .unwrap()
        .to_vec();

    let conclusion = play(&first).1;

    assert_eq!(conclusion.model.as_deref(), Some("claude-opus-5-5"));
    assert_eq!(
        conclusion.session_id.as_deref(),
        Some("fef0a0bf-0414-4117-8c64-1b42bd7df3a7")
    );
}

#[test]
fn refused_tools_and_used_up_allowances_are_in_the_conclusion() {
    let used_up = play(&recording("usage_limit")).1;
    let reset = used_up.rate_limit_reset;

    let Verdict::Error { message, .. } = used_up.verdict else {
        panic!("{:?}", used_up.verdict)
    };
    assert!(
        message.ends_with("(starts anew at 2026-11-24T18:10:21Z)"),
        "{message}"
    );
    assert_eq!(play(&recording("denied")).1.denials, 1);
    assert_eq!(reset, Some(Timestamp::from_second(1_795_543_821).unwrap()));
    assert_eq!(play(&recording("usage_warning")).1.rate_limit_reset, None);
}

#[test]
fn a_subagents_events_name_the_call_that_started_it() {
    let events = play(&recording("subagent")).0;

    let children = events.iter().filter(|event| event.parent.is_some()).count();
    let texts: Vec<&str> = events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Text { text } if event.parent.is_none() => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(children, 3);
    assert_eq!(
        texts,
        ["The sub-agent has reported.", "mock: the script has ended."]
    );
    assert_eq!(
        events
            .iter()
            .filter(|event| event.kind == EventKind::Resumed)
            .count(),
        1
    );
}

#[test]
fn a_stream_cut_anywhere_is_no_success_before_its_result_is_complete() {
    let whole = recording("success");
    let end = whole.len() - 1;
    let result = whole[..end]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .unwrap()
        + 1;

    for cut in 0..=whole.len() {
        // Every cut in its own line, and now and then with all lines before it.
        let line = whole[..cut]
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let begin = if cut == whole.len() { result } else { line };
        let conclusion = play(&whole[begin..cut]).1;
        if cut % 101 == 0 || cut >= end {
            assert_eq!(
                play(&whole[..cut]).1.verdict,
                conclusion.verdict,
                "cut at {cut}"
            );
        }

        let is_claim = conclusion.verdict != Verdict::Silent;
        assert_eq!(is_claim, cut >= end, "cut at {cut} of {}", whole.len());
    }
}

#[test]
fn the_order_of_keys_does_not_matter() {
    for line in [
        r#"{"type":"result","is_error":false,"subtype":"success","result":"done"}"#,
        r#"{"result":"done","subtype":"success","is_error":false,"type":"result"}"#,
        r#"  {"result" : "done" , "new" : {"type":"x"}, "type" : "result", "is_error" : false } "#,
    ] {
        assert_eq!(conclude(&[line]).verdict, Verdict::Success, "{line}");
    }
}

const DONE: &str = r#"{"type":"result","is_error":false,"subtype":"success","result":"done"}"#;

fn result(extra: &str) -> String {
    format!(r#"{{"type":"result","subtype":"success",{extra}}}"#)
}

fn text(text: &str) -> String {
    let text = serde_json::to_string(text).unwrap();
    format!(r#"{{"type":"assistant","message":{{"content":[{{"type":"text","text":{text}}}]}}}}"#)
}

fn report(status: &str) -> String {
    format!(
        "Done.\\n<!-- DARK-FACTORY-REPORT\\n{{\\\"status\\\":\\\"{status}\\\"}}\\nDARK-FACTORY-REPORT -->"
    )
}

fn class(lines: &[&str]) -> Option<ErrorClass> {
    match conclude(lines).verdict {
        Verdict::Error { class, .. } => Some(class),
        _ => None,
    }
}

fn status(lines: &[&str]) -> Option<ReportStatus> {
    match conclude(lines).verdict {
        Verdict::Report { report } => Some(report.status),
        _ => None,
    }
}

#[test]
fn is_error_rules_and_a_doubt_is_no_success() {
    for extra in [
        r#""is_error":true,"result":"x""#,
        r#""is_error":"no","result":"x""#,
        r#""is_error":null,"result":"x""#,
        r#""subtype":"error_during_execution","is_error":false"#,
        r#""subtype":"other","result":"x""#,
    ] {
        assert_eq!(class(&[&result(extra)]), Some(Internal), "{extra}");
    }
    assert_eq!(
        class(&[&result(
            r#""is_error":false,"stop_reason":"refusal","result":"I can't""#
        )]),
        Some(Refused)
    );
}

#[test]
fn an_empty_answer_is_no_success() {
    for extra in [r#""is_error":false,"result":" \n""#, r#""is_error":false"#] {
        assert_eq!(
            conclude(&[&result(extra)]).verdict,
            Verdict::Silent,
            "{extra}"
        );
    }
    let said = text("I am done");
    assert_eq!(
        conclude(&[&said, &result(r#""is_error":false"#)]).verdict,
        Verdict::Success
    );
}

#[test]
fn the_result_with_the_highest_index_rules() {
    let good = result(r#""is_error":false,"result":"ok","result_index":1"#);
    let bad = result(r#""is_error":true,"result":"bad","result_index":0"#);

    assert_eq!(conclude(&[&good, &bad]).verdict, Verdict::Success);
    assert_eq!(conclude(&[&bad, &good]).verdict, Verdict::Success);
    assert_eq!(
        class(&[DONE, &bad.replace(",\"result_index\":0", "")]),
        Some(Internal)
    );
}

#[test]
fn a_report_is_searched_in_the_last_words_of_the_agent_only() {
    let failed = report("failed");
    let in_result = result(&format!(r#""is_error":false,"result":"{failed}""#));
    let in_text = text(&failed.replace("\\n", "\n").replace("\\\"", "\""));
    let of_child = in_text.replacen('{', r#"{"parent_tool_use_id":"t","#, 1);
    let in_tool = format!(
        r#"{{"type":"user","message":{{"content":[{{"type":"tool_result","tool_use_id":"t","content":"{failed}"}}]}}}}"#
    );

    assert_eq!(status(&[&in_result]), Some(ReportStatus::Failed));
    assert_eq!(
        status(&[&in_text, &result(r#""is_error":false"#)]),
        Some(ReportStatus::Failed)
    );
    assert_eq!(conclude(&[&in_tool, DONE]).verdict, Verdict::Success);
    assert_eq!(conclude(&[&of_child, DONE]).verdict, Verdict::Success);
    assert_eq!(conclude(&[&in_text]).verdict, Verdict::Silent);
}

#[test]
fn a_report_is_not_undone_by_a_turn_without_one() {
    let reported = result(&format!(
        r#""is_error":false,"result_index":0,"result":"{}""#,
        report("failed")
    ));
    let woken = result(r#""is_error":false,"result_index":1,"result":"The build has ended.""#);
    let broken = result(r#""is_error":true,"result_index":2,"result":"no""#);

    assert_eq!(status(&[&reported, &woken]), Some(ReportStatus::Failed));
    assert_eq!(class(&[&reported, &woken, &broken]), Some(Internal));
}

#[test]
fn a_report_that_was_begun_and_is_not_readable_is_an_error() {
    let cut = r#""is_error":false,"result":"Done.\n<!-- DARK-FACTORY-REPORT\n{\"status\":""#;
    let mut huge = format!(
        "<!-- DARK-FACTORY-REPORT\n{{\"status\":\"failed\",\"summary\":\"{}\"}}",
        "x".repeat(1 << 20)
    );
    huge.push_str("\nDARK-FACTORY-REPORT -->");
    let huge = result(&format!(
        r#""is_error":false,"result":{}"#,
        serde_json::to_string(&huge).unwrap()
    ));

    assert_eq!(class(&[&result(cut)]), Some(BadReport));
    assert_eq!(class(&[&huge]), Some(BadReport));
}

#[test]
fn tool_calls_and_answers_are_paired() {
    let call = r#"{"type":"assistant","message":{"content":[{"type":"tool_use","id":"a","name":"Bash","input":{"command":"ls","n":1}}]}}"#;
    let answer = r#"{"type":"user","message":{"content":[
        {"type":"tool_result","tool_use_id":"a","is_error":true,"content":[{"type":"text","text":"x"},{"type":"image"},{"type":"text","text":"y"}]},
        {"type":"tool_result","tool_use_id":"b","content":"z"}]}}"#
        .replace('\n', " ");

    let events = kinds(&format!("{call}\n{answer}\n"));

    let end = |id: &str, name: &str, ok, output: &str| EventKind::ToolEnd {
        id: id.to_owned(),
        name: name.to_owned(),
        ok,
        exit_code: None,
        output: output.to_owned(),
        output_len: if ok { 1 } else { 2 },
        duration_ms: (id == "a").then_some(0),
    };
    assert_eq!(
        events,
        [
            EventKind::ToolStart {
                id: "a".to_owned(),
                name: "Bash".to_owned(),
                class: ToolClass::Shell,
                input: r#"{"command":"ls","n":1}"#.to_owned(),
            },
            end("a", "Bash", false, "x\ny"),
            end("b", "", true, "z"),
        ]
    );
}

#[test]
fn lines_of_no_known_kind_are_kept_and_never_fail() {
    let unknown = |name: &str| EventKind::Unparsed {
        why: UnparsedReason::UnknownType {
            name: name.to_owned(),
        },
    };
    let line = |text: &str| EventKind::Line {
        text: text.to_owned(),
    };
    let malformed = EventKind::Unparsed {
        why: UnparsedReason::Malformed,
    };
    let truncated = EventKind::Unparsed {
        why: UnparsedReason::Truncated,
    };

    assert_eq!(
        kinds(
            "{\"type\":\"new\"}\n{}\nhello\n\n[1]\nnull\n{x}\n{\"type\":\"assistant\"}\n{\"type\":"
        ),
        [
            unknown("new"),
            unknown(""),
            line("hello"),
            line(""),
            line("[1]"),
            line("null"),
            malformed.clone(),
            malformed,
            truncated
        ]
    );
}

#[test]
fn absurd_json_does_not_fail_the_stream() {
    let deep = format!(
        r#"{{"type":"deep","x":{}{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let deep_input = format!(
        r#"{{"type":"assistant","message":{{"content":[{{"type":"tool_use","id":"1","name":"T","input":{{"x":{}{}}}}}]}}}}"#,
        "[".repeat(1500),
        "]".repeat(1500)
    );
    let lines = [
        deep.as_str(),
        deep_input.as_str(),
        r#"{"type":"result","is_error":false,"num_turns":99999999999999999999,"total_cost_usd":1e999,"result_index":-1,"duration_ms":1e30,"result":"a"}"#,
        r#"{"type":"system","subtype":"init","type":"system","session_id":"\ud800","tools":7}"#,
        r#"{"type":"assistant","message":{"content":[7,null,{"type":[]},{"type":"text"},{"type":"text","text":"\udfff\u0000"}]}}"#,
        r#"{"type":"rate_limit_event","rate_limit_info":{"resetsAt":99999999999999,"utilization":"x"}}"#,
        DONE,
    ];

    let conclusion = conclude(&lines);

    assert_eq!(conclusion.verdict, Verdict::Success);
    assert_eq!(conclusion.session_id.as_deref(), Some("\u{fffd}"));
}

#[test]
fn long_texts_are_shortened_in_events_and_the_line_is_found_by_its_offset() {
    let big = "ä".repeat(1 << 20);
    let first = text(&big);
    let input = format!("{first}\n{DONE}\n");

    let (events, _) = play(input.as_bytes());

    let EventKind::Text { text } = &events[0].kind else {
        panic!("{:?}", events[0].kind)
    };
    assert!(text.len() < 66_000, "{}", text.len());
    let start = usize::try_from(events[1].offset).unwrap();
    let end = start + usize::try_from(events[1].len).unwrap();
    assert_eq!(&input[start..end], DONE);
}

#[test]
fn a_recording_reads_well() {
    let mut formatter = TextFormatter::new(TextStyle::default());
    let mut out = String::new();
    for event in play(&recording("denied")).0 {
        formatter.write(&event, &mut out);
    }

    assert_eq!(
        out.replace("/home/agent/ws/claude-denied", "…"),
        "\
● claude-opus-5-5 in …, 22 tools, session ed0434db-ef6f-4861-a004-6ef867ad9c06
💭 I will create the file first.
I'll create hello.txt.
→ Write …/hello.txt
    + Hello, world!
    + line two
⚠ Write was not permitted: Claude requested permissions to write to …/hello.txt, but you haven't granted it yet.
  ✗ Claude requested permissions to write to …/hello.txt, but you haven't granted it yet.
Now a look at the folder.
→ Bash ls -la && cat hello.txt
  ✗ (exit 1) total 8
    drwxr-xr-x  2 root root 4096 Nov 24 17:07 .
    drwxr-xr-x 35 root root 4096 Nov 24 17:07 ..
    cat: hello.txt: No such file or directory
→ Read …/hello.txt
  ✗ File does not exist. Note: your current working directory is ….
→ Edit …/hello.txt
    - line two
    + line 2 (edited)
  ✗ File does not exist. Note: your current working directory is ….
→ Bash wc -l hello.txt
  ✗ (exit 1) wc: hello.txt: No such file or directory
All the work is finished and the tests pass.
✗ failed: all 4 commands and changes that Claude Code tried failed: Write is not permitted: Claude requested permissions to write to …/hello.txt, but you haven't granted it yet.
  report (not believed): success: Created and edited hello.txt.
  1.3 s · 6 turns · $0.0400 · 7800 tokens in, 360 out, 4800 cached
"
    );
}

#[test]
fn a_turn_that_reports_a_failure_does_not_end_well() {
    let failed = result(&format!(
        r#""is_error":false,"result":"{}""#,
        report("failed")
    ));

    let events = kinds(&failed);

    let EventKind::TurnEnd {
        ok: false,
        class: None,
        reason,
        ..
    } = &events[0]
    else {
        panic!("{events:?}")
    };
    assert_eq!(reason, "reported as failed");
}
