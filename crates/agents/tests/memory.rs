//! No line makes a transcript hold more than that line, or the decode cap, and 4 MiB.
//!
//! And nothing is allocated for a line that nothing is shown of.
//!
//! One test, in a program of its own: what is counted is all that the program holds.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::System;

use cap::Cap;
use dark_factory_agents::{AGENT_NAMES, DECODE_CAP, TextFormatter, TextStyle, Transcript, agent};
use dark_factory_types::EventStream;
use jiff::Timestamp;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// What may be held beside the line.
const BESIDE: usize = 4 << 20;
const CHUNK: usize = 64 << 10;
/// A line that is decoded. A second copy of it would be too much, and what holds it may be larger.
const LONG: usize = 5 << 20;
const LONG_HELD: usize = 8 << 20;

/// Which agent reads it, or all; what is special; what it begins with, what is repeated, what it ends with.
type Line = (&'static str, &'static str, [&'static [u8]; 3]);

#[rustfmt::skip]
const LINES: &[Line] = &[
    ("",       "plain text",               [b"", b"x", b""]),
    ("claude", "no UTF-8",                 [b"", b"\xff", b""]),
    ("claude", "JSON, no UTF-8",           [br#"{"type":"result","result":""#, b"\xff", br#""}"#]),
    ("",       "deep lists",               [br#"{"type":"result","a":"#, b"[", b"}"]),
    ("claude", "deep objects",             [br#"{"type":"result","a":"#, br#"{"a":"#, b"}"]),
    ("claude", "a long key",               [br#"{"type":"result","\n"#, b"k", br#"":1}"#]),
    ("",       "a key of escapes",         [br#"{"type":"result",""#, br"\u0001", br#"":1}"#]),
    ("claude", "a long value",             [br#"{"type":"result","is_error":false,"result":""#, b"v", br#""}"#]),
    ("claude", "a value of escapes",       [br#"{"type":"result","is_error":false,"result":""#, br"\u0001", br#""}"#]),
    ("claude", "an error of escapes",      [br#"{"type":"result","is_error":true,"result":""#, br"\u0001", br#""}"#]),
    ("claude", "a type of escapes",        [br#"{"type":""#, br"\u0001", br#""}"#]),
    ("claude", "a number",                 [br#"{"type":"result","duration_ms":"#, b"1", b"}"]),
    ("claude", "errors",                   [br#"{"type":"result","is_error":true,"errors":["#, br#""e","#, br#""e"]}"#]),
    ("claude", "models",                   [br#"{"type":"result","modelUsage":{"#, br#""a":{"inputTokens":1},"#, br#""a":{}}}"#]),
    ("claude", "blocks",                   [br#"{"type":"assistant","message":{"content":["#, br#"{"type":"text","text":"t"},"#, b"{}]}}"]),
    ("claude", "no blocks",                [br#"{"type":"assistant","message":{"content":["#, b"1,", b"1]}}"]),
    ("claude", "a text of escapes",        [br#"{"type":"assistant","message":{"content":[{"type":"text","text":""#, br"\u0001", br#""}]}}"#]),
    ("claude", "an input of many values",  [br#"{"type":"assistant","message":{"content":[{"type":"tool_use","input":{"#, br#""a":[1],"#, br#""a":1}}]}}"#]),
    ("claude", "an input of long keys",    [br#"{"type":"assistant","message":{"content":[{"type":"tool_use","input":{"\n"#, b"k", br#"":1}}]}}"#]),
    ("claude", "an answer of many blocks", [br#"{"type":"user","message":{"content":[{"type":"tool_result","content":["#, br#"{"text":"\n"},"#, b"{}]}]}}"]),
    ("codex",  "a Codex message",          [br#"{"type":"item.completed","item":{"type":"agent_message","text":""#, br"\u0001", br#""}}"#]),
    ("codex",  "a Codex command",          [br#"{"type":"item.completed","item":{"type":"command_execution","status":"failed","aggregated_output":""#, br"bwrap\n", br#""}}"#]),
    ("codex",  "a Codex change",           [br#"{"type":"item.completed","item":{"type":"file_change","changes":["#, br#"{"path":"p"},"#, b"{}]}}"]),
    ("codex",  "a Codex plan",             [br#"{"type":"item.completed","item":{"type":"todo_list","items":["#, br#"{"text":"t"},"#, b"{}]}}"]),
    ("codex",  "a Codex call",             [br#"{"type":"item.completed","item":{"type":"mcp_tool_call","arguments":{"#, br#""a":"b","#, br#""a":1}}}"#]),
    ("codex",  "a Codex error",            [br#"{"type":"error","message":""#, br"\u0001", br#""}"#]),
    ("claude", "a report",                 [br#"{"type":"result","is_error":false,"result":"<!-- DARK-FACTORY-REPORT {\"a\":\""#, br"a", br#"\"} DARK-FACTORY-REPORT -->"}"#]),
    ("claude", "reports",                  [br#"{"type":"result","is_error":false,"result":""#, br"<!-- DARK-FACTORY-REPORT\n", br#""}"#]),
    ("claude", "fences",                   [br#"{"type":"result","is_error":false,"result":""#, br"```\n", br#""}"#]),
    ("gemini", "a Gemini message",         [br#"{"type":"message","role":"assistant","content":""#, br"\u0001", br#""}"#]),
    ("gemini", "pieces of a message",      [b"", b"{\"type\":\"message\",\"role\":\"assistant\",\"delta\":true,\"content\":\"piece \"}\n", b""]),
    ("gemini", "a Gemini call",            [br#"{"type":"tool_use","parameters":{"#, br#""a":"b","#, br#""a":1}}"#]),
    ("gemini", "a Gemini answer",          [br#"{"type":"tool_result","output":""#, br"\u0001", br#""}"#]),
    ("gemini", "a Gemini error",           [br#"{"type":"result","error":{"message":""#, br"{\n", br#""}}"#]),
    ("claude", "many short lines",         [b"", b"{\"type\":\"assistant\",\"message\":{\"content\":\"text\"}}\n", b""]),
    ("claude", "many calls",               [b"", b"{\"type\":\"assistant\",\"message\":{\"content\":[{\"type\":\"tool_use\",\"id\":\"1\",\"name\":\"Bash\"}]}}\n", b""]),
];

/// Hands over the line in chunks, so that nobody has to hold it.
fn each_chunk([begin, part, end]: [&[u8]; 3], len: usize, mut sink: impl FnMut(&[u8])) {
    let parts = part.repeat(CHUNK / part.len());
    sink(begin);
    for _ in 0..(len - begin.len() - end.len()) / parts.len() {
        sink(&parts);
    }
    sink(end);
    sink(b"\n");
}

/// Plays a line to an agent's transcript, part of it on standard error too, and shows its events.
fn play(name: &str, parts: [&[u8]; 3], len: usize) {
    let mut transcript = Transcript::new(agent(name).unwrap());
    let mut formatter = TextFormatter::new(TextStyle::default());
    for (stream, len) in [(EventStream::Stderr, 1 << 20), (EventStream::Stdout, len)] {
        each_chunk(parts, len, |chunk| {
            transcript.feed_each(stream, chunk, Timestamp::UNIX_EPOCH, |event| {
                let mut out = String::new();
                formatter.write(&event, &mut out);
            });
        });
    }
    drop(transcript.conclusion());
}

/// Lines of Claude Code, of which there are many, that nothing is shown of.
const DROPPED: [&[u8]; 2] = [
    br#"{"type":"system","subtype":"thinking_tokens","tokens":12,"session_id":"s"}"#,
    br#"{"type":"stream_event","event":{"type":"content_block_delta","delta":{"text":"a\n"}},"session_id":"s"}"#,
];

/// Returns how many bytes are allocated, freed ones too, while a line is read so many times.
fn allocated_for(line: &[u8], times: usize) -> usize {
    let input = [line, b"\n"].concat().repeat(times);
    let mut out = String::new();
    let before = ALLOCATOR.total_allocated();
    let mut transcript = Transcript::new(agent("claude").unwrap());
    let mut formatter = TextFormatter::new(TextStyle::default());
    transcript.feed_each(
        EventStream::Stdout,
        &input,
        Timestamp::UNIX_EPOCH,
        |event| formatter.write(&event, &mut out),
    );
    let allocated = ALLOCATOR.total_allocated() - before;
    assert_eq!(out, "");
    allocated
}

#[test]
fn no_line_takes_more_memory_than_itself_and_4_mebibytes() {
    for line in DROPPED {
        let (few, many) = (allocated_for(line, 10), allocated_for(line, 10_000));

        assert_eq!(few, many, "{}", String::from_utf8_lossy(line));
    }
    let before = ALLOCATOR.allocated();
    for name in AGENT_NAMES {
        for (reader, what, parts) in LINES {
            if [name, ""].contains(reader) {
                play(name, *parts, LONG);

                let most = ALLOCATOR.max_allocated() - before;
                assert!(most <= LONG_HELD + BESIDE, "{name}: {what}: {most} bytes");
            }
        }
    }
    play("claude", [b"{", b"x", b""], 64 << 20);

    let most = ALLOCATOR.max_allocated() - before;
    assert!(most <= DECODE_CAP + BESIDE, "64 MiB: {most} bytes");
}
