//! Builds streams of any size out of the recordings, the same for the same size.
//!
//! Owns: how long lines are, and what long texts consist of.
//! Reads: the recordings of Claude Code beside the agents' tests.
//! Never: makes a line that is no valid JSON, or draws from anything but its own numbers.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

/// Keys whose texts grow with what a tool reads or writes.
const BULK: [&str; 4] = ["content", "stdout", "originalFile", "new_string"];
/// Keys whose texts are what the model writes by itself.
const WORDS: [&str; 2] = ["text", "thinking"];
/// The longest text of a tool, in bytes; Claude Code prints it twice.
const BULK_MOST: usize = 52_000;
/// The longest text of the model, in bytes.
const WORDS_MOST: usize = 4_000;
/// A line of a flood, 75 bytes with its end.
const SHORT: &str = r#"{"type":"system","subtype":"thinking_tokens","estimated_tokens":########}"#;

/// Writes lines as long as those of real sessions, 8.5 KB at the mean, until there are `size` bytes.
pub(crate) fn sessions(size: u64, out: &mut impl Write) -> io::Result<()> {
    let recordings = recordings()?;
    let mut draw = Draw(1);
    let mut written = 0;
    while written < size {
        let recording = &recordings[draw.below(recordings.len())];
        for line in recording {
            let line = stretched(line, &mut draw);
            out.write_all(line.as_bytes())?;
            out.write_all(b"\n")?;
            written += length_of(line.len()) + 1;
        }
    }
    Ok(())
}

/// Writes lines of 75 bytes until there are `size` bytes.
pub(crate) fn short_lines(size: u64, out: &mut impl Write) -> io::Result<()> {
    let (head, tail) = SHORT.split_once("########").unwrap_or((SHORT, ""));
    for number in 0..size / 75 {
        writeln!(out, "{head}{:08}{tail}", 10_000_000 + number % 10_000_000)?;
    }
    Ok(())
}

/// Returns the lines of each recording that are whole.
fn recordings() -> io::Result<Vec<Vec<String>>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let folder = folder.ancestors().find_map(|above| {
        let streams = above.join("crates/agents/tests/data/streams/claude");
        streams.is_dir().then_some(streams)
    });
    let folder = folder.ok_or(io::ErrorKind::NotFound)?;
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()?;
    paths.sort();
    let mut recordings = Vec::new();
    for path in paths {
        let bytes = fs::read_to_string(path)?;
        let whole = bytes
            .lines()
            .filter(|line| line.len() < 10_000 && line.ends_with('}'));
        recordings.push(whole.map(str::to_owned).collect());
    }
    Ok(recordings)
}

/// Returns the line with its long texts replaced by longer ones.
fn stretched(line: &str, draw: &mut Draw) -> String {
    let is_user = line.contains(r#""type":"user""#);
    let is_agent = line.contains(r#""type":"assistant""#);
    if !is_user && !is_agent {
        return line.to_owned();
    }
    let bulk = body(draw.spread(BULK_MOST), draw);
    let words = body(draw.spread(WORDS_MOST), draw);
    let mut line = line.to_owned();
    for key in BULK {
        line = replaced(&line, key, &bulk);
    }
    for key in WORDS {
        line = replaced(&line, key, &words);
    }
    line
}

/// Returns the line with each text at `key` replaced.
fn replaced(line: &str, key: &str, text: &str) -> String {
    let key = format!("\"{key}\":\"");
    let mut out = String::with_capacity(line.len() + text.len());
    let mut rest = line;
    while let Some(at) = rest.find(&key) {
        let (head, tail) = rest.split_at(at + key.len());
        out.push_str(head);
        out.push_str(text);
        let mut is_escaped = false;
        let end = tail.find(|char| {
            let is_end = char == '"' && !is_escaped;
            is_escaped = char == '\\' && !is_escaped;
            is_end
        });
        rest = &tail[end.unwrap_or(tail.len())..];
    }
    out.push_str(rest);
    out
}

/// Words of a program, some of which JSON has to escape.
const VOCABULARY: [&str; 32] = [
    "fn",
    "let",
    "mut",
    "self.lines",
    "return",
    "match",
    "(offset,",
    "len)",
    "=>",
    "{",
    "}",
    "if",
    "else",
    "Some(value)",
    "None",
    "->",
    "Result<String,",
    "Error>",
    "// what remains",
    "&mut",
    "stream",
    "0x7f",
    "the",
    "agent",
    "wrote",
    "it",
    "+=",
    "format!(\\\"{}\\\",",
    "\\\"text\\\"",
    "\\\\n",
    "— ✓",
    "größer",
];

/// Returns a JSON text of about that many bytes: indented lines of words, escaped.
fn body(size: u64, draw: &mut Draw) -> String {
    let mut text = String::new();
    let mut number = 1_u64;
    while length_of(text.len()) < size {
        text += &number.to_string();
        text += "\\t";
        number += 1;
        text += &"                "[..draw.below(5) * 4];
        for _ in 0..draw.below(11) {
            // The last ones, which are escaped or not ASCII, are rarer than the others.
            let words = if draw.below(4) == 0 { 32 } else { 27 };
            text += VOCABULARY[draw.below(words)];
            text.push(' ');
        }
        text += "\\n";
    }
    text
}

fn length_of(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// A sequence of numbers that only looks like chance (SplitMix64).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % end).unwrap_or(0)
    }

    /// Draws a length below `most`: twice as long is half as likely.
    fn spread(&mut self, most: usize) -> u64 {
        let scale = most >> self.below(5);
        length_of(scale / 2 + self.below(scale / 2))
    }
}
