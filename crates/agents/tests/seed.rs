//! The seed's formatter and auth check against what the seed itself printed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use dark_factory_agents::{DECODE_CAP, Formatter, SeedFormatter, check_claude_auth};
use jiff::civil::{Time, time};
use jiff::tz::TimeZone;
use serde_json::Value;

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(path)
}

fn noon() -> Time {
    time(12, 34, 56, 0)
}

fn process(input: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut raw, mut formatted) = (Vec::new(), Vec::new());
    Formatter::new(TimeZone::UTC)
        .process_stream(input, &mut raw, &mut formatted, &noon)
        .unwrap();
    (raw, formatted)
}

fn formatted(input: &[u8]) -> String {
    String::from_utf8(process(input).1).unwrap()
}

/// Replaces the clock's time, and a reset time, as it was done with the seed's output.
fn without_times(text: &str) -> String {
    let clean = |line: &str| {
        let line = line.replacen("[12:34:56] ", "[HH:MM:SS] ", 1);
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
    let mut compared = 0;
    for entry in fs::read_dir(data("seed-formatter")).unwrap() {
        let golden = entry.unwrap().path();
        let name = golden.file_stem().unwrap().to_str().unwrap();
        let recording = fs::read(data(&format!("streams/claude/{name}.jsonl"))).unwrap();

        let (raw, printed) = process(&recording);

        assert!(raw == recording, "{name}: raw log");
        let printed = without_times(&String::from_utf8(printed).unwrap());
        let expected = fs::read_to_string(&golden).unwrap();
        assert!(
            printed == expected,
            "{name}:\n{printed}\nexpected:\n{expected}"
        );
        compared += 1;
    }
    assert_eq!(compared, 52);
}

#[test]
fn what_is_not_a_message_is_printed_as_it_is() {
    for line in [
        "plain text",
        "",
        "[1]",
        "\"x\"",
        "7",
        "{",
        r#"{"type":7}"#,
        r#"{"type":"result","usage":[]}"#,
        r#"{"type":"system","subtype":"init","tools":[1]}"#,
        r#"{"type":"result","duration_ms":"1"}"#,
    ] {
        assert_eq!(
            formatted(format!("{line}\n").as_bytes()),
            format!("[12:34:56] {line}\n")
        );
    }
}

#[test]
fn messages_are_read_with_gos_rules() {
    for (line, expected) in [
        ("null", "[unknown type: ]"),
        ("{}", "[unknown type: ]"),
        (
            r#"{"TYPE":"System","type":"system","SubType":"x"}"#,
            "[system: x]",
        ),
        (
            r#"{"type":"system","subtype":"init"}"#,
            "[init] session=(unknown) model= cwd= tools=0",
        ),
        (r#"{"type":"assistant"}"#, "[assistant: parse error]"),
        (
            r#"{"type":"user","message":{"content":"hi"}}"#,
            "[user: parse error]",
        ),
        (r#"{"type":"result","usage":{"input_tokens":1}}"#, ""),
        (
            r#"{"type":"result","duration_ms":2.5,"total_cost_usd":1e-9}"#,
            "duration: 2ms | cost: $0.0000",
        ),
        (r#"{"type":"rate_limit_event"}"#, "⚠ rate-limit event"),
        (
            r#"{"type":"rate_limit_event","rate_limit_info":{"utilization":1.25,"resetsAt":3661,"status":"s","rateLimitType":"t"}}"#,
            "⚠ rate-limit: t 125% resets=01:01:01 status=s",
        ),
        (
            r#"{"type":"assistant","message":{"content":[{"type":"text","text":"a\ud800b"},{"type":"image"}]}}"#,
            "a\u{fffd}b\n[12:34:56] [assistant content: image]",
        ),
    ] {
        assert_eq!(
            formatted(line.as_bytes()),
            format!("[12:34:56] {expected}\n"),
            "{line}"
        );
    }
}

#[test]
fn an_empty_message_prints_nothing() {
    for line in [
        r#"{"type":"user","message":{"content":[{"type":"text","text":"x"}]}}"#,
        r#"{"type":"assistant","message":{"content":[{"type":"text","text":" \n"}]}}"#,
        r#"{"type":"assistant","message":null}"#,
    ] {
        assert_eq!(formatted(line.as_bytes()), "", "{line}");
    }
}

#[test]
fn bytes_that_are_not_utf8_are_printed_as_they_came() {
    let input = b"caf\xe9 \xff\0\r\nlast";

    let (raw, printed) = process(input);

    assert_eq!(raw, input);
    assert_eq!(printed, b"[12:34:56] caf\xe9 \xff\0\n[12:34:56] last\n");
}

#[test]
fn a_line_over_the_cap_does_not_end_the_stream() {
    let mut input = vec![b'x'; DECODE_CAP + 1];
    input.extend_from_slice(b"\nnext\n");

    let (raw, printed) = process(&input);

    assert!(raw == input);
    assert_eq!(
        String::from_utf8(printed).unwrap(),
        "[12:34:56] [formatter: scanner error, line truncated or dropped: \
         16777217 bytes are more than 16777216]\n[12:34:56] next\n"
    );
}

/// Takes some bytes and then fails, as a full disk does.
struct FullDisk(usize);

impl Write for FullDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(self.0);
        self.0 -= len;
        if len == 0 {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(len)
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Counts what is read from it.
struct Counted<'c>(&'c [u8], &'c mut usize);

impl Read for Counted<'_> {
    fn read(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
        let len = self.0.read(chunk)?;
        *self.1 += len;
        Ok(len)
    }
}

#[test]
fn a_full_disk_does_not_stop_the_reading() {
    let input = "line\n".repeat(100_000);
    let (mut read, mut formatted) = (0, Vec::new());

    let result = Formatter::new(TimeZone::UTC).process_stream(
        Counted(input.as_bytes(), &mut read),
        &mut FullDisk(10),
        &mut formatted,
        &noon,
    );

    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(read, input.len());
    assert_eq!(formatted.len(), input.len() + 100_000 * "[12:34:56] ".len());
}

#[test]
fn lines_can_be_printed_one_at_a_time() {
    let mut formatter = SeedFormatter::new(TimeZone::UTC);
    let call = br#"{"type":"assistant","message":{"content":[{"type":"tool_use","id":"1","name":"Glob","input":{"pattern":"*"}}]}}"#;
    let answer = br#"{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"1","content":"a\nb\n"}]}}"#;

    assert_eq!(formatter.line(call, "HH:MM:SS"), "[HH:MM:SS] [glob] *\n");
    assert_eq!(
        formatter.line(answer, "HH:MM:SS"),
        "[HH:MM:SS]   → 2 files\n"
    );
}

#[test]
fn credentials_are_checked_as_the_seed_checks_them() {
    let mut cases = 0;
    for line in fs::read_to_string(data("auth.jsonl")).unwrap().lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let here = |text: &Value| text.as_str().unwrap().replace("{dir}", "/d");
        let env = |field: &str| -> BTreeMap<String, String> {
            let env = case[field].as_object().unwrap().iter();
            env.map(|(name, value)| (name.clone(), here(value)))
                .collect()
        };
        let dir = case.get("config_dir").map_or("/d".to_owned(), here);
        let read = |path: &Path| -> io::Result<Vec<u8>> {
            // The only unclean path of the cases leads back to the folder.
            let path = path.to_str().unwrap().replace("/d/./sub/../", "/d/");
            let name = path.strip_prefix("/d/").unwrap();
            let file = case["files"].get(name).and_then(Value::as_str);
            file.map(|file| file.as_bytes().to_vec())
                .ok_or(io::ErrorKind::NotFound.into())
        };

        let result = check_claude_auth(&env("env"), &env("container_env"), Path::new(&dir), &read);

        let error = result
            .err()
            .map_or(String::new(), |error| error.to_string());
        assert_eq!(error, here(&case["error"]), "{}", case["name"]);
        assert_eq!(
            error.is_empty(),
            case["ok"].as_bool().unwrap(),
            "{}",
            case["name"]
        );
        cases += 1;
    }
    assert_eq!(cases, 43);
}
