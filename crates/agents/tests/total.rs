//! No input makes a transcript or a formatter panic, and chunking changes nothing.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use dark_factory_agents::{
    AGENT_NAMES, DECODE_CAP, SeedFormatter, TextFormatter, TextStyle, Transcript, agent,
};
use dark_factory_types::{Event, EventKind, EventStream, UnparsedReason, Verdict};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::prelude::*;

fn recording(name: &str) -> Vec<u8> {
    recording_of("claude", name)
}

fn recording_of(agent: &str, name: &str) -> Vec<u8> {
    let path = format!("tests/data/streams/{agent}/{name}.jsonl");
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn play<'a>(
    name: &str,
    chunks: impl IntoIterator<Item = (EventStream, &'a [u8])>,
) -> (Vec<Event>, Verdict) {
    let mut transcript = Transcript::new(agent(name).unwrap());
    let mut events = Vec::new();
    for (stream, chunk) in chunks {
        transcript.feed(stream, chunk, Timestamp::UNIX_EPOCH, &mut events);
    }
    transcript.finish(Timestamp::UNIX_EPOCH, &mut events);
    (events, transcript.conclusion().verdict)
}

fn pieces(bytes: &[u8], mut cuts: Vec<usize>) -> Vec<(EventStream, &[u8])> {
    cuts.iter_mut().for_each(|cut| *cut %= bytes.len() + 1);
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    let pairs = cuts.windows(2);
    pairs
        .map(|pair| (EventStream::Stdout, &bytes[pair[0]..pair[1]]))
        .collect()
}

/// Prints everything and checks what must hold of any events.
fn check(bytes: &[u8], events: &[Event]) {
    let mut text = TextFormatter::new(TextStyle::default());
    let mut out = String::new();
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event.seq, u64::try_from(number).unwrap());
        assert!(usize::try_from(event.offset + event.len).unwrap() <= bytes.len());
        text.write(event, &mut out);
    }
    assert!(!out.contains('\x1b'));
    let mut seed = SeedFormatter::new(TimeZone::UTC);
    for line in bytes.split(|byte| *byte == b'\n') {
        seed.line(line, "00:00:00");
    }
}

/// Bytes that look like an agent's stream more often than chance would have it.
fn likely() -> impl Strategy<Value = Vec<u8>> {
    let words = prop_oneof![
        Just(r#"{"type":"result","is_error":false,"result":"x"}"#),
        Just(r#""type":"assistant""#),
        Just(r#"{"type":"item.started","item":{"id":"1","type":"command_execution""#),
        Just(r#"{"type":"item.completed","item":{"type":"file_change","changes":["#),
        Just(r#"{"type":"item.completed","item":{"type":"agent_message","text":"x"}}"#),
        Just(r#"{"type":"error","message":"Reconnecting... 1/5 (last status: "}"#),
        Just(r#"{"type":"turn.completed","usage":{"input_tokens":"#),
        Just(r#"{"type":"message","role":"assistant","content":"x","delta":true}"#),
        Just(r#"{"type":"tool_use","tool_name":"replace","tool_id":"1","parameters":{"#),
        Just(r#"{"type":"error","severity":"warning","message":"x"}"#),
        Just(r#"{"type":"result","status":"success","stats":{"models":{"#),
        Just(r#""message":{"content":["#),
        Just(r#"{"type":"tool_use","name":"Edit","input":{"old_string":"a"}}"#),
        Just(r#"{"type":"tool_result","content":"#),
        Just("DARK-FACTORY-REPORT -->"),
        Just("<!-- DARK-FACTORY-REPORT"),
        Just("\\ud800"),
        Just("{"),
        Just("}"),
        Just("]"),
        Just("\""),
        Just(","),
        Just(":"),
        Just("\n"),
        Just("\r\n"),
        Just("\x1b[2J"),
        Just("1e999"),
    ]
    .prop_map(|word| word.as_bytes().to_vec());
    let noise = proptest::collection::vec(any::<u8>(), 0..6);
    proptest::collection::vec(prop_oneof![4 => words, 1 => noise], 0..40)
        .prop_map(|parts| parts.concat())
}

/// A recording with some bytes changed.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let names = prop::sample::select(vec![
        ("claude", "success"),
        ("claude", "subagent"),
        ("claude", "api_429"),
        ("claude", "usage_limit"),
        ("claude", "denied"),
        ("codex", "success"),
        ("codex", "docker_sandbox_bwrap"),
        ("codex", "api_401"),
        ("gemini", "success"),
        ("gemini", "api_400_key"),
    ]);
    let damage = proptest::collection::vec((any::<usize>(), any::<u8>()), 0..8);
    (names, damage).prop_map(|((agent, name), damage)| {
        let mut bytes = recording_of(agent, name);
        for (at, byte) in damage {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_chunking_gives_the_same_events(
        bytes in prop_oneof![likely(), damaged()],
        cuts in proptest::collection::vec(any::<usize>(), 0..30),
    ) {
        for name in AGENT_NAMES {
            let whole = play(name, [(EventStream::Stdout, &bytes[..])]);

            let in_pieces = play(name, pieces(&bytes, cuts.clone()));

            prop_assert_eq!(&in_pieces, &whole);
            check(&bytes, &whole.0);
        }
    }

    #[test]
    fn what_comes_between_on_standard_error_changes_nothing(
        out in prop_oneof![likely(), damaged()],
        error in likely(),
        cuts in proptest::collection::vec(any::<usize>(), 0..20),
        order in proptest::collection::vec(any::<bool>(), 0..40),
    ) {
        let alone = |events: &[Event], stream| -> Vec<Event> {
            let of_it = events.iter().filter(|event| event.stream == stream).cloned();
            of_it.map(|event| Event { seq: 0, ..event }).collect()
        };
        for name in AGENT_NAMES {
            let mut left = [pieces(&out, cuts.clone()), pieces(&error, cuts.clone())];
            left.iter_mut().for_each(|pieces| pieces.reverse());
            left[1].iter_mut().for_each(|(stream, _)| *stream = EventStream::Stderr);
            let mut chunks = Vec::new();
            for is_error in order.iter().chain(&[true, false].repeat(cuts.len() + 1)) {
                chunks.extend(left[usize::from(*is_error)].pop());
            }

            let (both, verdict) = play(name, chunks);

            let (expected, claim) = play(name, [(EventStream::Stdout, &out[..])]);
            let (errors, _) = play(name, [(EventStream::Stderr, &error[..])]);
            prop_assert_eq!(verdict, claim);
            for (stream, expected) in [(EventStream::Stdout, expected), (EventStream::Stderr, errors)] {
                prop_assert_eq!(alone(&both, stream), alone(&expected, stream));
            }
            prop_assert!(both.iter().map(|event| event.seq).eq((0u64..).take(both.len())));
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        for name in AGENT_NAMES {
            let (events, verdict) = play(name, [(EventStream::Stdout, &bytes[..])]);

            prop_assert_eq!(verdict, Verdict::Silent);
            check(&bytes, &events);
        }
    }
}

#[test]
fn the_two_streams_are_split_apart_and_numbered_together() {
    let (events, _) = play(
        "command",
        [
            (EventStream::Stdout, &b"out"[..]),
            (EventStream::Stderr, b"err\n"),
            (EventStream::Stdout, b"put\n"),
        ],
    );

    let shown: Vec<_> = events
        .iter()
        .map(|event| (event.seq, event.stream, event.offset, event.len))
        .collect();
    assert_eq!(
        shown,
        [
            (0, EventStream::Stderr, 0, 3),
            (1, EventStream::Stdout, 0, 6)
        ]
    );
}

#[test]
fn a_command_never_claims_anything() {
    let (events, verdict) = play(
        "command",
        [(EventStream::Stdout, &recording("success")[..])],
    );

    assert_eq!(verdict, Verdict::Silent);
    assert!(
        events
            .iter()
            .all(|event| matches!(event.kind, EventKind::Line { .. }))
    );
}

#[test]
fn a_line_beyond_the_cap_is_named_and_the_next_one_is_decoded() {
    let done = br#"{"type":"result","is_error":false,"result":"done"}"#;
    let chunk = vec![b'x'; 1 << 20];
    let mut chunks = vec![(EventStream::Stdout, &chunk[..]); 20];
    chunks.push((EventStream::Stdout, b"\n"));
    chunks.push((EventStream::Stdout, done));

    let (events, verdict) = play("claude", chunks);

    assert_eq!(
        events[0].kind,
        EventKind::Unparsed {
            why: UnparsedReason::TooLong
        }
    );
    assert_eq!((events[0].offset, events[0].len), (0, 20 << 20));
    assert_eq!(events[1].offset, (20 << 20) + 1);
    assert_eq!(verdict, Verdict::Success);
}

#[test]
fn a_line_just_below_the_cap_is_decoded() {
    let mut line = br#"{"type":"result","is_error":false,"result":"done","pad":""#.to_vec();
    line.resize(DECODE_CAP - 2, b'x');
    line.extend_from_slice(b"\"}");
    assert_eq!(line.len(), DECODE_CAP);

    let (_, verdict) = play("claude", [(EventStream::Stdout, &line[..])]);

    assert_eq!(verdict, Verdict::Success);
}

#[test]
fn a_line_that_is_long_and_not_utf8_is_named() {
    let mut line = br#"{"type":"result","is_error":false,"result":""#.to_vec();
    line.resize(2 << 20, b'\xff');
    line.push(b'\n');

    let (events, _) = play("claude", [(EventStream::Stdout, &line[..])]);

    assert_eq!(
        events[0].kind,
        EventKind::Unparsed {
            why: UnparsedReason::NotUtf8
        }
    );
}

#[test]
fn one_line_gives_a_bounded_number_of_events_and_a_bounded_text() {
    let blocks = r#"{"type":"text","text":"0123456789"},"#.repeat(300_000);
    let line = format!(r#"{{"type":"assistant","message":{{"content":[{blocks}{{}}]}}}}"#);
    let texts = format!(r#"{{"type":"text","text":"{}"}},"#, "x".repeat(60_000)).repeat(250);
    let long = format!(r#"{{"type":"assistant","message":{{"content":[{texts}{{}}]}}}}"#);

    let many = play("claude", [(EventStream::Stdout, line.as_bytes())]).0;
    let big = play("claude", [(EventStream::Stdout, long.as_bytes())]).0;

    assert_eq!(many.len(), 1025);
    let size: usize = big
        .iter()
        .map(|event| format!("{:?}", event.kind).len())
        .sum();
    assert!(size < 2 << 20, "{size}");
}
