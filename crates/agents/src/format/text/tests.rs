use dark_factory_types::{Event, EventKind, EventStream, Usage};
use jiff::Timestamp;

use super::tool::Answer;
use super::*;
use crate::tool::tool_class;

fn event(kind: EventKind) -> Event {
    Event {
        seq: 0,
        at: Timestamp::UNIX_EPOCH,
        stream: EventStream::Stdout,
        offset: 100,
        len: 7,
        parent: None,
        kind,
    }
}

fn shown(event: &Event, style: TextStyle) -> String {
    let mut out = String::new();
    TextFormatter::new(style).write(event, &mut out);
    out
}

fn plain(kind: EventKind) -> String {
    shown(&event(kind), TextStyle::default())
}

fn start(name: &str, input: &str) -> EventKind {
    EventKind::ToolStart {
        id: "1".to_owned(),
        name: name.to_owned(),
        class: tool_class(name),
        input: input.to_owned(),
    }
}

fn end(name: &str, answer: Answer, output: &str) -> EventKind {
    EventKind::ToolEnd {
        id: "1".to_owned(),
        name: name.to_owned(),
        ok: answer == Answer::Ok,
        exit_code: None,
        output: output.to_owned(),
        output_len: 0,
        duration_ms: None,
    }
}

fn text(text: &str) -> EventKind {
    EventKind::Text {
        text: text.to_owned(),
    }
}

#[test]
fn calls_say_what_they_are_about() {
    for (name, input, expected) in [
        (
            "Bash",
            r#"{"command":"ls\npwd","description":"d"}"#,
            "→ Bash ls ⏎ pwd\n",
        ),
        ("Read", r#"{"file_path":"/f"}"#, "→ Read /f\n"),
        (
            "Grep",
            r#"{"pattern":"x","glob":"*.rs"}"#,
            "→ Grep x  *.rs\n",
        ),
        (
            "Agent",
            r#"{"subagent_type":"explore","description":"look","prompt":"p"}"#,
            "→ Agent explore  look\n",
        ),
        (
            "TodoWrite",
            r#"{"todos":[{"status":"completed"},{"status":"in_progress","content":"b"}]}"#,
            "→ TodoWrite 1/2: b\n",
        ),
        (
            "mcp__x__y",
            r#"{"depth":1,"what":"that"}"#,
            "→ mcp__x__y that\n",
        ),
        ("Odd", "not json", "→ Odd\n"),
    ] {
        assert_eq!(plain(start(name, input)), expected);
    }
}

#[test]
fn edits_are_hunks() {
    let input =
        r#"{"file_path":"a.rs","old_string":"one\ntwo","new_string":"1\n2\n3\n4\n5\n6\n7\n8"}"#;

    assert_eq!(
        plain(start("Edit", input)),
        "→ Edit a.rs\n    - one\n    - two\n    + 1\n    + 2\n    + 3\n    + 4\n    + 5\n    + 6\n    + … 2 more lines\n"
    );
}

#[test]
fn answers_are_short_and_errors_are_seen() {
    let long: String = (1..=9).map(|number| format!("{number}\n")).collect();

    assert_eq!(plain(end("Read", Answer::Ok, "a\nb\n")), "  ← 2 lines\n");
    assert_eq!(plain(end("Edit", Answer::Ok, "updated")), "");
    assert_eq!(
        plain(end("Bash", Answer::Ok, &long)),
        "  ← 1\n    2\n    … 4 more lines\n    7\n    8\n    9\n"
    );
    assert_eq!(
        plain(end("Edit", Answer::Error, "no such file")),
        "  ✗ no such file\n"
    );
    assert_eq!(plain(end("Bash", Answer::Ok, "")), "");
}

#[test]
fn a_subagents_lines_are_indented() {
    let mut event = event(text("one\ntwo"));
    event.parent = Some("call".to_owned());

    assert_eq!(shown(&event, TextStyle::default()), "  │ one\n  │ two\n");
}

#[test]
fn stderr_is_marked() {
    let mut event = event(EventKind::Line {
        text: "oops".to_owned(),
    });
    event.stream = EventStream::Stderr;

    assert_eq!(shown(&event, TextStyle::default()), "stderr │ oops\n");
}

#[test]
fn retries_and_rate_limits_are_warnings() {
    let retry = EventKind::Retry {
        attempt: 1,
        max_attempts: 2,
        delay_ms: 1090,
        http_status: Some(429),
        reason: "rate_limit".to_owned(),
    };
    let limit = EventKind::RateLimit {
        status: "rejected".to_owned(),
        window: "five_hour".to_owned(),
        utilization: Some(0.9),
        resets_at: Some(Timestamp::UNIX_EPOCH),
    };

    assert_eq!(plain(retry), "⚠ 429 rate_limit: retry 1/2 in 1.0 s\n");
    assert_eq!(
        plain(limit),
        "⚠ rate limit five_hour: rejected, 90 % used, resets at 1970-01-01T00:00:00Z\n"
    );
}

fn turn(answer: Answer, class: Option<ErrorClass>, text: &str) -> EventKind {
    let usage = Usage {
        input_tokens: 7000,
        output_tokens: 360,
        cache_read_tokens: 4800,
        cache_write_tokens: 200,
        turns: 6,
        cost_usd: Some(0.04),
        ..Usage::default()
    };
    EventKind::TurnEnd {
        ok: answer == Answer::Ok,
        class,
        reason: "completed".to_owned(),
        text: text.to_owned(),
        duration_ms: Some(185_000),
        cost_usd: usage.cost_usd,
        usage,
    }
}

#[test]
fn a_result_has_its_totals_and_does_not_repeat_the_last_text() {
    let mut formatter = TextFormatter::new(TextStyle::default());
    let mut out = String::new();

    formatter.write(&event(text("All done.\n")), &mut out);
    formatter.write(&event(turn(Answer::Ok, None, "All done.")), &mut out);

    assert_eq!(
        out,
        "All done.\n✓ done\n  3m 05s · 6 turns · $0.0400 · 7200 tokens in, 360 out, 4800 cached\n"
    );
}

#[test]
fn a_failed_result_says_why() {
    let kind = turn(Answer::Error, Some(ErrorClass::Auth), "Invalid API key");

    assert!(plain(kind).starts_with("✗ credentials refused: Invalid API key\n"));
    assert!(plain(turn(Answer::Error, None, "")).starts_with("✗ completed\n"));
}

#[test]
fn a_line_that_was_not_decoded_says_where_it_is() {
    let unparsed = |why| EventKind::Unparsed { why };
    let unknown = UnparsedReason::UnknownType {
        name: "new".to_owned(),
    };

    assert_eq!(
        plain(unparsed(UnparsedReason::TooLong)),
        "⚠ a line too long to be decoded: 7 bytes at offset 100 of the raw log\n"
    );
    assert_eq!(plain(unparsed(unknown)), "");
}

#[test]
fn escapes_in_an_agents_words_never_reach_the_terminal() {
    let evil = "\x1b]0;owned\x07\u{9b}2J\r";
    let input = format!("{{\"command\":{}}}", serde_json::to_string(evil).unwrap());
    let style = TextStyle {
        color: ColorChoice::Always,
        width: Some(80),
    };
    for kind in [
        text(evil),
        EventKind::Thinking {
            text: evil.to_owned(),
        },
        EventKind::Line {
            text: evil.to_owned(),
        },
        start(evil, &input),
        end("Bash", Answer::Error, evil),
        turn(Answer::Error, Some(ErrorClass::Internal), evil),
        EventKind::Started {
            session_id: Some(evil.to_owned()),
            model: Some(evil.to_owned()),
            cwd: Some(evil.to_owned()),
            tools: 1,
        },
    ] {
        let out = shown(&event(kind), style);

        assert!(!out.contains(['\x07', '\u{9b}', '\r']), "{out:?}");
        assert!(!out.contains("\x1b]"), "{out:?}");
    }
}

#[test]
fn colour_is_only_used_when_asked_for() {
    let kind = start("Bash", r#"{"command":"ls"}"#);
    let style = TextStyle {
        color: ColorChoice::Always,
        width: None,
    };

    assert_eq!(shown(&event(kind), style), "\x1b[36m→ Bash ls\x1b[0m\n");
}

#[test]
fn a_summary_fits_the_width() {
    let kind = start("Bash", &format!("{{\"command\":\"{}\"}}", "x".repeat(300)));
    let style = TextStyle {
        color: ColorChoice::Never,
        width: Some(40),
    };

    assert_eq!(shown(&event(kind), style).trim_end().chars().count(), 40);
}
