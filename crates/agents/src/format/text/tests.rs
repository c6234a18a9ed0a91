use dark_factory_types::{ErrorClass, Event, EventKind, EventStream, PlanItem, PlanState, Usage};
use jiff::Timestamp;

use unicode_width::UnicodeWidthStr;

use super::*;
use crate::tool::tool_class;

/// How a call or a turn came out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Ok,
    Error,
}

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
            r#"{"todos":[{"status":"completed","content":"a"},{"status":"in_progress","content":"b"}]}"#,
            "· plan: 1 of 2 done\n    ✓ a\n    ▸ b\n",
        ),
        (
            "mcp__x__y",
            r#"{"depth":1,"what":"that"}"#,
            "→ mcp__x__y depth=1 what=that\n",
        ),
        (
            "Read",
            r#"{"file_path":"/f","offset":10,"limit":5}"#,
            "→ Read /f:10-14\n",
        ),
        (
            "shell",
            r#"{"command":"/bin/bash -lc 'ls -la && pwd'"}"#,
            "→ shell ls -la && pwd\n",
        ),
        (
            "shell",
            r#"{"command":"/bin/bash -lc \"sed -n 1p 'a b' | grep \\\"x\\\"\""}"#,
            "→ shell sed -n 1p 'a b' | grep \"x\"\n",
        ),
        (
            "shell",
            r#"{"command":"bash -lc 'a' 'b'"}"#,
            "→ shell bash -lc 'a' 'b'\n",
        ),
        (
            "Bash",
            r#"{"command":"make","run_in_background":true}"#,
            "→ Bash make &\n",
        ),
        (
            "run_shell_command",
            r#"{"command":"make","description":"Builds"}"#,
            "→ run_shell_command make\n",
        ),
        (
            "read_many_files",
            r#"{"paths":["a","b"]}"#,
            "→ read_many_files a b\n",
        ),
        (
            "search_file_content",
            r#"{"pattern":"x","path":"src","include":"*.rs"}"#,
            "→ search_file_content x  src  *.rs\n",
        ),
        (
            "file_change",
            r#"{"path":"add a.txt"}"#,
            "→ file_change add a.txt\n",
        ),
        ("Odd", "not json", "→ Odd\n"),
    ] {
        assert_eq!(plain(start(name, input)), expected);
    }
}

#[test]
fn edits_are_hunks() {
    let edit = r#"{"file_path":"a.rs","old_string":"one\ntwo\n","new_string":"one\n2\n"}"#;
    let several = r#"{"file_path":"a.rs","edits":[{"old_string":"a","new_string":"b"},{"old_string":"","new_string":"c"}]}"#;

    for (name, input, expected) in [
        ("Edit", edit, "      one\n    - two\n    + 2\n"),
        ("replace", edit, "      one\n    - two\n    + 2\n"),
        ("MultiEdit", several, "    - a\n    + b\n    + c\n"),
        (
            "write_file",
            r#"{"file_path":"a.rs","content":"1\n2\n"}"#,
            "    + 1\n    + 2\n",
        ),
    ] {
        assert_eq!(
            plain(start(name, input)),
            format!("→ {name} a.rs\n{expected}")
        );
    }
}

#[test]
fn an_answer_says_how_long_it_took_and_the_exit_code() {
    let answer = |name: &str, exit_code, duration_ms, output: &str| {
        plain(EventKind::ToolEnd {
            id: "1".to_owned(),
            name: name.to_owned(),
            ok: exit_code == 0,
            exit_code: Some(exit_code),
            output: output.to_owned(),
            output_len: 0,
            duration_ms: Some(duration_ms),
        })
    };

    assert_eq!(
        answer("Bash", 101, 12_345, "Exit code 101\nno\nway"),
        "  ✗ (exit 101, 12.3 s) no\n    way\n"
    );
    assert_eq!(answer("Bash", 0, 1500, ""), "  ← (1.5 s)\n");
    assert_eq!(answer("Bash", 0, 999, "fine"), "  ← fine\n");
    assert_eq!(answer("Bash", 3, 10, ""), "  ✗ (exit 3)\n");
}

#[test]
fn an_answer_that_does_not_follow_its_call_names_it() {
    let of = |id: &str, mut kind| {
        let (EventKind::ToolStart { id: own, .. } | EventKind::ToolEnd { id: own, .. }) = &mut kind
        else {
            unreachable!()
        };
        *own = id.to_owned();
        event(kind)
    };
    let mut formatter = TextFormatter::new(TextStyle::default());
    let mut out = String::new();

    for event in [
        of("a", start("Bash", r#"{"command":"one"}"#)),
        of("b", start("Bash", r#"{"command":"two"}"#)),
        of("a", end("Bash", Answer::Ok, "1")),
        of("b", end("Bash", Answer::Ok, "2")),
    ] {
        formatter.write(&event, &mut out);
    }

    assert_eq!(
        out,
        "→ Bash one\n→ Bash two\n  ← Bash one: 1\n  ← Bash two: 2\n"
    );
}

#[test]
fn only_what_changes_in_a_plan_is_shown() {
    let plan = |states: [PlanState; 3]| {
        let texts = ["look", "write", "test"];
        event(EventKind::Plan {
            items: texts
                .into_iter()
                .zip(states)
                .map(|(text, state)| PlanItem {
                    text: text.to_owned(),
                    state,
                })
                .collect(),
        })
    };
    use PlanState::{Completed, InProgress, Pending};
    let mut formatter = TextFormatter::new(TextStyle::default());
    let mut out = String::new();

    formatter.write(&plan([InProgress, Pending, Pending]), &mut out);
    formatter.write(&plan([InProgress, Pending, Pending]), &mut out);
    formatter.write(&plan([Completed, InProgress, Pending]), &mut out);

    assert_eq!(
        out,
        "· plan: 0 of 3 done\n    ▸ look\n    ○ write\n    ○ test\n· plan: 1 of 3 done\n    ✓ look\n    ▸ write\n"
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
fn a_subagents_lines_are_indented_below_its_name_and_its_own_subagents_deeper() {
    let of = |parent: Option<&str>, id: &str, kind| {
        let mut event = event(kind);
        event.parent = parent.map(str::to_owned);
        if let EventKind::ToolStart { id: own, .. } = &mut event.kind {
            *own = id.to_owned();
        }
        event
    };
    let agent = |what: &str| {
        let input = format!(r#"{{"subagent_type":"explore","description":"{what}"}}"#);
        start("Agent", &input)
    };
    let mut formatter = TextFormatter::new(TextStyle::default());
    let mut out = String::new();

    for event in [
        of(None, "a", agent("look")),
        of(Some("a"), "", text("one\ntwo")),
        of(Some("a"), "b", agent("deeper")),
        of(Some("b"), "", text("three")),
        of(Some("a"), "", text("four")),
        of(Some("unknown"), "", text("five")),
    ] {
        formatter.write(&event, &mut out);
    }

    assert_eq!(
        out,
        "→ Agent explore  look
  ┌ Agent explore  look
  │ one
  │ two
  │ → Agent explore  deeper
  │   ┌ Agent explore  deeper
  │   │ three
  ┌ Agent explore  look
  │ four
  ┌ subagent
  │ five
"
    );
}

#[test]
fn a_formatter_goes_on_where_another_one_was() {
    let events = [
        event(start("Bash", r#"{"command":"one"}"#)),
        event(text("All done.")),
        event(end("Bash", Answer::Ok, "1")),
        event(turn(Answer::Ok, None, "All done.")),
    ];
    let whole = |formatter: &mut TextFormatter, events: &[Event]| {
        let mut out = String::new();
        for event in events {
            formatter.write(event, &mut out);
        }
        out
    };
    let mut formatter = TextFormatter::new(TextStyle::default());
    let expected = whole(&mut formatter.clone(), &events);

    for cut in 0..=events.len() {
        let mut formatter = formatter.clone();
        let begin = whole(&mut formatter, &events[..cut]);
        let state = serde_json::to_string(&formatter.save()).unwrap();
        let state: TextState = serde_json::from_str(&state).unwrap();
        assert_eq!(state, formatter.save());
        let mut other = TextFormatter::restore(TextStyle::default(), state);
        assert_eq!(begin + &whole(&mut other, &events[cut..]), expected);
    }
    assert_eq!(formatter.save(), TextState::default());
    whole(&mut formatter, &events);
    assert_ne!(formatter.save(), TextState::default());
}

#[test]
fn what_a_formatter_remembers_is_bounded() {
    let mut formatter = TextFormatter::new(TextStyle::default());
    let long = "x".repeat(256);
    let items = vec![
        PlanItem {
            text: long.clone(),
            state: PlanState::Pending,
        };
        1000
    ];
    let mut out = String::new();

    formatter.write(&event(EventKind::Plan { items }), &mut out);
    for number in 0..1000 {
        let mut call = start("Agent", &format!(r#"{{"description":"{long}"}}"#));
        if let EventKind::ToolStart { id, .. } = &mut call {
            *id = format!("{number}{long}");
        }
        formatter.write(&event(call), &mut out);
        formatter.write(&event(text(&format!("{number}{long}"))), &mut out);
    }

    let state = serde_json::to_vec(&formatter.save()).unwrap();
    assert!(state.len() < 100_000, "{}", state.len());
}

#[test]
fn no_summary_and_no_indented_text_is_wider_than_the_terminal() {
    let wide = "漢字 👩‍👩‍👧 e\u{301} ☺\u{fe0f} words and a_very_long_word_that_has_no_end ".repeat(3);
    let input = serde_json::json!({ "file_path": wide, "old_string": wide, "new_string": "x", "command": wide });
    let kinds = [
        text(&wide),
        EventKind::Thinking { text: wide.clone() },
        start("Edit", &input.to_string()),
        start("Bash", &input.to_string()),
        end("Bash", Answer::Error, &wide),
        turn(Answer::Error, Some(ErrorClass::Internal), &wide),
        EventKind::Line { text: wide.clone() },
    ];
    for width in [20, 40, 80] {
        let style = TextStyle {
            color: ColorChoice::Never,
            width: Some(width),
        };
        let mut formatter = TextFormatter::new(style);
        let mut out = String::new();
        for (number, kind) in kinds.iter().enumerate() {
            let mut event = event(kind.clone());
            let is_text = matches!(kind, EventKind::Text { .. } | EventKind::Line { .. });
            let is_broken = is_text || matches!(kind, EventKind::TurnEnd { .. });
            event.parent = (is_broken || number % 2 == 0).then(|| "a".to_owned());
            formatter.write(&event, &mut out);
        }

        for line in out.lines() {
            assert!(line.width() <= usize::from(width), "{width}: {line:?}");
        }
    }
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

    assert_eq!(plain(retry), "⚠ retry 1/2 in 1.0 s: 429 rate_limit\n");
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
fn a_failed_result_does_not_repeat_why_nor_what_was_not_spent() {
    let mut kind = turn(Answer::Error, Some(ErrorClass::Auth), "Invalid key");
    if let EventKind::TurnEnd {
        usage, cost_usd, ..
    } = &mut kind
    {
        *cost_usd = Some(0.0);
        *usage = Usage {
            turns: 1,
            cost_usd: Some(0.0),
            ..Usage::default()
        };
    }
    let mut formatter = TextFormatter::new(TextStyle::default());
    let mut out = String::new();

    formatter.write(&event(text("Invalid\nkey.")), &mut out);
    formatter.write(&event(kind), &mut out);

    assert_eq!(
        out,
        "Invalid\nkey.\n✗ credentials refused\n  3m 05s · 1 turn\n"
    );
}

#[test]
fn a_report_of_success_is_not_believed_after_a_failure() {
    let words = "<!-- DARK-FACTORY-REPORT {\"status\":\"success\",\"summary\":\"Yes.\"} DARK-FACTORY-REPORT -->";
    let failed = turn(Answer::Error, Some(ErrorClass::Internal), "all failed");
    let mut formatter = TextFormatter::new(TextStyle::default());
    let mut out = String::new();

    formatter.write(&event(text(words)), &mut out);
    formatter.write(&event(failed), &mut out);

    assert!(
        out.starts_with("✗ failed: all failed\n  report (not believed): success: Yes.\n"),
        "{out}"
    );
}

#[test]
fn a_result_has_the_report_of_the_last_words_and_both_costs() {
    let words = "It works.\n\n<!-- DARK-FACTORY-REPORT\n{\"status\":\"partial\",\"summary\":\"Half.\",\"blockers\":[\"No key\"],\"verification\":{\"command\":\"make test\",\"exitCode\":2}}\nDARK-FACTORY-REPORT -->\n";
    let mut kind = turn(Answer::Error, None, "");
    if let EventKind::TurnEnd { usage, reason, .. } = &mut kind {
        usage.reasoning_tokens = 100;
        usage.priced_usd = Some(0.05);
        *reason = "report: partial".to_owned();
    }
    let mut formatter = TextFormatter::new(TextStyle::default());
    let mut out = String::new();

    formatter.write(&event(text(words)), &mut out);
    formatter.write(&event(kind), &mut out);

    assert_eq!(
        out,
        "It works.
✗ report: partial
  report: partial: Half.
  blocker: No key
  verified: make test (exit 2)
  3m 05s · 6 turns · $0.0400 ($0.0500 by list prices) · 7200 tokens in, 360 out (100 reasoning), 4800 cached
"
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
