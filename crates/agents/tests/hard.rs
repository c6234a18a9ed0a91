//! What people see of input that is hard to read, whichever agent printed it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod dialect;

use dark_factory_agents::{AGENT_NAMES, Conclusion, TextFormatter, TextStyle, Transcript, agent};
use dark_factory_types::{EventStream, Verdict};
use jiff::Timestamp;

use dialect::{AGENTS, Dialect};

/// What people see, and what follows.
struct Seen {
    text: String,
    conclusion: Conclusion,
}

fn show<'a>(name: &str, chunks: impl IntoIterator<Item = &'a [u8]>) -> Seen {
    let mut transcript = Transcript::new(agent(name).unwrap());
    let mut formatter = TextFormatter::new(TextStyle::default());
    let mut text = String::new();
    for chunk in chunks {
        transcript.feed_each(EventStream::Stdout, chunk, Timestamp::UNIX_EPOCH, |event| {
            formatter.write(&event, &mut text);
        });
    }
    let mut last = Vec::new();
    transcript.finish(Timestamp::UNIX_EPOCH, &mut last);
    for event in last {
        formatter.write(&event, &mut text);
    }
    Seen {
        text,
        conclusion: transcript.conclusion(),
    }
}

/// Shows lines, each of which ends with a newline.
fn show_lines(name: &str, lines: &[impl AsRef<[u8]>]) -> Seen {
    let mut stream = Vec::new();
    for line in lines {
        stream.extend_from_slice(line.as_ref());
        stream.push(b'\n');
    }
    show(name, [&stream[..]])
}

/// Shows lines, then the agent's end, and checks that the end still counts.
fn shown_before_the_end(dialect: &Dialect, lines: &[impl AsRef<[u8]>]) -> String {
    let mut lines: Vec<Vec<u8>> = lines.iter().map(|line| line.as_ref().to_vec()).collect();
    lines.push(dialect.says("the end").into_bytes());
    lines.extend(dialect.succeeds().map(String::into_bytes));
    let seen = show_lines(dialect.name, &lines);
    assert_eq!(
        seen.conclusion.verdict,
        dialect.success(),
        "{}: {}",
        dialect.name,
        seen.text
    );
    let (before, _) = seen.text.rsplit_once("the end\n").unwrap();
    before.to_owned()
}

#[test]
fn every_agent_has_a_dialect_here() {
    let names: Vec<&str> = AGENTS.iter().map(|dialect| dialect.name).collect();

    assert_eq!(names, AGENT_NAMES);
}

#[test]
fn a_line_of_64_mebibytes_is_named_with_its_place_and_the_end_still_counts() {
    let mebibyte = vec![b'x'; 1 << 20];
    for dialect in AGENTS {
        let first = format!("{}\n", dialect.says("first"));
        let end: Vec<String> = [dialect.says("the end")]
            .into_iter()
            .chain(dialect.succeeds())
            .collect();
        let end = format!("\n{}\n", end.join("\n"));
        let mut chunks = vec![first.as_bytes()];
        chunks.extend([&mebibyte[..]; 64]);
        chunks.push(end.as_bytes());

        let seen = show(dialect.name, chunks);

        let expected = format!(
            "first\n⚠ a line too long to be decoded: 67108864 bytes at offset {} of the raw log\nthe end\n",
            first.len()
        );
        assert!(
            seen.text.starts_with(&expected),
            "{}: {}",
            dialect.name,
            seen.text
        );
        assert_eq!(seen.conclusion.verdict, dialect.success());
    }
}

#[test]
fn a_hundred_thousand_lines_at_once_are_all_shown_in_their_order() {
    for dialect in AGENTS {
        let words: Vec<String> = (0..100_000)
            .map(|number| format!("line {number}"))
            .collect();
        let lines: Vec<String> = words.iter().map(|words| dialect.says(words)).collect();

        let text = shown_before_the_end(dialect, &lines);

        assert!(text.lines().eq(&words), "{}", dialect.name);
    }
}

#[test]
fn a_nul_byte_is_shown_as_its_picture() {
    for dialect in AGENTS {
        let text = shown_before_the_end(dialect, &[&b"plain\0text"[..]]);
        assert_eq!(text, "plain␀text\n", "{}", dialect.name);
        if let Some(line) = dialect.says_json(r#""in\u0000side""#) {
            assert_eq!(
                shown_before_the_end(dialect, &[line]),
                "in␀side\n",
                "{}",
                dialect.name
            );
        }
    }
}

#[test]
fn a_json_line_with_a_bare_nul_byte_is_named_with_its_place() {
    for dialect in AGENTS {
        let Some(line) = dialect.says_json("\"in\0side\"") else {
            continue;
        };

        let text = shown_before_the_end(dialect, &[dialect.says("first"), line.clone()]);

        let (len, offset) = (line.len(), dialect.says("first").len() + 1);
        assert_eq!(
            text,
            format!(
                "first\n⚠ a line that is not readable: {len} bytes at offset {offset} of the raw log\n"
            ),
            "{}",
            dialect.name
        );
    }
}

#[test]
fn bytes_that_are_not_utf8_are_shown_as_replacement_characters() {
    for dialect in AGENTS {
        let text = shown_before_the_end(dialect, &[b"half \xe2\x82 of it, \xff\xfe"]);
        assert_eq!(
            text, "half \u{fffd} of it, \u{fffd}\u{fffd}\n",
            "{}",
            dialect.name
        );

        let line = dialect.says("half X of it").into_bytes();
        let at = line.iter().position(|byte| *byte == b'X').unwrap();
        let line = [&line[..at], b"\xe2\x82", &line[at + 1..]].concat();
        assert_eq!(
            shown_before_the_end(dialect, &[line]),
            "half \u{fffd} of it\n",
            "{}",
            dialect.name
        );
    }
}

#[test]
fn a_lone_surrogate_is_shown_as_a_replacement_character() {
    for dialect in AGENTS {
        let Some(line) = dialect.says_json(r#""a\ud800b\udc00\ud83d\ude00""#) else {
            continue;
        };

        let text = shown_before_the_end(dialect, &[line]);

        assert_eq!(text, "a\u{fffd}b\u{fffd}😀\n", "{}", dialect.name);
    }
}

#[test]
fn json_nested_100_000_deep_is_stepped_over() {
    let (begin, end) = ("[".repeat(100_000), "]".repeat(100_000));
    let objects = (r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
    for dialect in AGENTS {
        for deep in [
            format!("{begin}{end}"),
            format!("{}1{}", objects.0, objects.1),
        ] {
            let Some(line) = dialect.says_json(r#""still read""#) else {
                continue;
            };
            let line = line.replacen('{', &format!(r#"{{"deep":{deep},"#), 1);

            let text = shown_before_the_end(dialect, &[line]);

            assert_eq!(text, "still read\n", "{}", dialect.name);
        }
    }
}

#[test]
fn json_nested_100_000_deep_that_never_ends_is_named_with_its_place() {
    let deep = r#"{"a":["#.repeat(100_000);
    for dialect in AGENTS {
        if dialect.says_json("1").is_none() {
            continue;
        }

        let text = shown_before_the_end(dialect, &[&deep]);

        assert_eq!(
            text, "⚠ a line that is not readable: 600000 bytes at offset 0 of the raw log\n",
            "{}",
            dialect.name
        );
    }
}

#[test]
fn a_tools_input_nested_100_000_deep_is_shortened() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for dialect in AGENTS {
        let input = format!(r#"{{"command":"make","deep":{deep}}}"#);
        let Some(line) = dialect.calls("run", &input) else {
            continue;
        };

        let text = shown_before_the_end(dialect, &[line]);

        assert_eq!(text, "→ run make\n", "{}", dialect.name);
    }
}

#[test]
fn of_two_equal_keys_the_last_counts() {
    for dialect in AGENTS {
        let Some(line) = dialect.says_json(r#""last""#) else {
            continue;
        };
        for (key, double) in [
            ("content", "\"first\""),
            ("text", "\"first\""),
            ("type", "7"),
        ] {
            let line = line.replace(
                &format!(r#""{key}":"#),
                &format!(r#""{key}":{double},"{key}":"#),
            );

            let text = shown_before_the_end(dialect, &[line]);

            assert_eq!(text, "last\n", "{}: {key}", dialect.name);
        }
    }
}

#[test]
fn numbers_that_no_agent_can_mean_change_nothing_else() {
    let numbers = [
        "99999999999999999999",
        "-1",
        "1e999",
        "-9223372036854775809",
        "\"7\"",
        "[]",
        "0.5",
        "18446744073709551615",
    ];
    for dialect in AGENTS {
        for number in numbers {
            let mut lines = vec![dialect.says("done")];
            lines.extend(dialect.succeeds_with(number));

            let seen = show_lines(dialect.name, &lines);

            assert_eq!(
                seen.conclusion.verdict,
                dialect.success(),
                "{}: {number}",
                dialect.name
            );
            assert!(
                seen.text.starts_with("done\n"),
                "{}: {number}: {}",
                dialect.name,
                seen.text
            );
            assert!(seen.conclusion.usage.cost_usd.is_none_or(f64::is_finite));
            let more = seen.conclusion.usage.total_tokens().checked_add(1);
            assert!(more.is_some(), "{}: {number}", dialect.name);
        }
    }
}

#[test]
fn control_characters_drive_no_terminal() {
    for dialect in AGENTS {
        let text = shown_before_the_end(
            dialect,
            &[&b"\x1b[2J\x1b]0;title\x07\x08\x7f \xc2\x9b31m \xe2\x80\xae"[..]],
        );
        assert!(
            text.starts_with("␛[2J␛]0;title␇␈␡ <U+009B>31m <U+202E>"),
            "{}: {text}",
            dialect.name
        );
        if let Some(line) = dialect.says_json(r#""\u001b[2J\r\u009b31m\u202e""#) {
            let text = shown_before_the_end(dialect, &[line]);
            assert!(text.starts_with("␛[2J"), "{}: {text}", dialect.name);
            assert!(
                !text.contains(|char: char| char.is_control() && char != '\n'),
                "{}: {text:?}",
                dialect.name
            );
        }
    }
}

#[test]
fn output_without_any_line_end_is_shown_and_proves_nothing() {
    for dialect in AGENTS {
        let seen = show(dialect.name, [&b"Segmentation fault"[..]]);

        assert_eq!(seen.text, "Segmentation fault\n", "{}", dialect.name);
        assert_eq!(seen.conclusion.verdict, Verdict::Silent);
    }
}
