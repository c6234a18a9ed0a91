//! What must be true of any bytes that an agent prints: the bodies of the fuzz targets.
//!
//! Owns: one function for each target; it returns, or the input has found a bug.
//! Reads: the input, which is also the seed of everything that is chosen at random.
//! Never: needs libFuzzer; `crates/agents/tests/corpora.rs` runs the same functions over the kept inputs.

mod chance;
mod events;
mod page;
mod secret;

use std::io::{self, Read};

use dark_factory_agents::{
    AGENT_NAMES, ColorChoice, Formatter, LineContent, LineEnd, LineSplitter, REPORT_END,
    REPORT_START, TextFormatter, TextStyle, parse_completion_report,
};
use dark_factory_types::{EventKind, EventStream, ReportStatus};
use jiff::civil::Time;
use jiff::tz::TimeZone;

use self::chance::Chance;

/// Inputs up to this length are also fed byte by byte.
const SINGLE_BYTES: usize = 1 << 10;
/// The longest secret, in bytes; long ones only take longer.
const MOST_SECRET: usize = 256;
/// The widths that texts are laid out for.
const WIDTHS: [Option<u16>; 7] = [
    None,
    Some(0),
    Some(20),
    Some(40),
    Some(80),
    Some(100),
    Some(u16::MAX),
];

/// The splitter: the lines are those that a plain reading finds, however the bytes come.
pub fn split(data: &[u8]) {
    let mut chance = Chance::of(data);
    for cap in [chance.below(40), chance.below(data.len() + 2), 16 << 20] {
        let plain = plain_lines(data, cap);
        for chunks in chance.chunkings(data, SINGLE_BYTES) {
            let mut splitter = LineSplitter::with_cap(cap);
            let mut lines = Vec::new();
            for chunk in chunks {
                splitter.feed(chunk, |line| lines.push(owned(line)));
            }
            splitter.finish(|line| lines.push(owned(line)));
            assert_eq!(lines, plain, "cap {cap}");
        }
    }
}

/// Offset, length, content unless it is too long, end.
type OwnedLine = (u64, u64, Option<Vec<u8>>, LineEnd);

fn owned(line: dark_factory_agents::SplitLine<'_>) -> OwnedLine {
    let content = match line.content {
        LineContent::Whole(bytes) => Some(bytes.to_vec()),
        LineContent::TooLong => None,
    };
    (line.offset, line.len, content, line.end)
}

fn plain_lines(data: &[u8], cap: usize) -> Vec<OwnedLine> {
    let mut lines = Vec::new();
    let mut offset = 0;
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        let (content, end) = match line.strip_suffix(b"\n") {
            Some(content) => (content, LineEnd::Newline),
            None => (line, LineEnd::StreamEnd),
        };
        let content = content.strip_suffix(b"\r").unwrap_or(content);
        let kept = (content.len() <= cap).then(|| content.to_vec());
        lines.push((offset, len(content), kept, end));
        offset += len(line);
    }
    lines
}

fn len(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// The decoder of Claude Code.
pub fn claude(data: &[u8]) {
    decoder("claude", data);
}

/// The decoder of Codex.
pub fn codex(data: &[u8]) {
    decoder("codex", data);
}

/// The decoder of Gemini CLI.
pub fn gemini(data: &[u8]) {
    decoder("gemini", data);
}

/// The decoder of any program: one line of text for each line.
pub fn command(data: &[u8]) {
    decoder("command", data);
    let (events, _) = events::play("command", &[(EventStream::Stdout, data)]);
    let lines = plain_lines(data, 16 << 20);
    assert_eq!(events.len(), lines.len());
    for (event, (offset, len, content, _)) in events.iter().zip(&lines) {
        assert_eq!((event.offset, event.len), (*offset, *len));
        let EventKind::Line { text } = &event.kind else {
            panic!("a command's line is a line: {event:?}");
        };
        let content = content.as_deref().unwrap_or_default();
        if content.len() <= 16 << 10 {
            assert_eq!(*text, String::from_utf8_lossy(content));
        }
    }
}

/// A decoder: the same events and the same conclusion, however the bytes come and whatever else comes between.
fn decoder(agent: &str, data: &[u8]) {
    let mut chance = Chance::of(data);
    let whole = events::play(agent, &[(EventStream::Stdout, data)]);
    events::check(&whole.0, data);
    events::check_conclusion(&whole.1);

    for chunks in chance.chunkings(data, SINGLE_BYTES) {
        let chunks: Vec<_> = chunks
            .into_iter()
            .map(|chunk| (EventStream::Stdout, chunk))
            .collect();
        let in_pieces = events::play(agent, &chunks);
        assert_eq!(in_pieces, whole);
    }

    let both = chance.interleaved(data, data);
    let (both, conclusion) = events::play(agent, &both);
    assert_eq!(conclusion, whole.1, "standard error changes nothing");
    events::check_numbers(&both);
    let kinds = |stream| events::of_stream(&both, stream);
    assert_eq!(
        kinds(EventStream::Stdout),
        events::of_stream(&whole.0, EventStream::Stdout)
    );
    let (error, _) = events::play(agent, &[(EventStream::Stderr, data)]);
    assert_eq!(
        kinds(EventStream::Stderr),
        events::of_stream(&error, EventStream::Stderr)
    );
}

/// A saved transcript: what goes on from it is what would have been without.
pub fn saved(data: &[u8]) {
    let mut chance = Chance::of(data);
    let agent = reader(data, &mut chance);
    for _ in 0..2 {
        let chunks = chance.interleaved(data, data);
        let whole = events::play(agent, &chunks);
        let stop = chance.below(chunks.len() + 1);
        assert_eq!(
            events::play_saved(agent, &chunks, stop),
            whole,
            "{agent}, stopped at {stop}"
        );
    }
}

/// Secrets: what is handed over has none, and is the same otherwise. The first line of the input is the secret.
pub fn mask(data: &[u8]) {
    let mut lines = data.splitn(2, |byte| *byte == b'\n');
    let Ok(secret) = std::str::from_utf8(lines.next().unwrap_or_default()) else {
        return;
    };
    if secret.len() > MOST_SECRET {
        return;
    }
    let stream = lines.next().unwrap_or_default();
    let agent = reader(stream, &mut Chance::of(data));
    secret::check(agent, secret, stream);
}

/// Returns whose stream it is, or anyone's if it could be any.
fn reader(data: &[u8], chance: &mut Chance) -> &'static str {
    let anyone = AGENT_NAMES[chance.below(AGENT_NAMES.len())];
    detect_agent(data).unwrap_or(anyone)
}

/// Whose stream it is: more of it never changes the answer.
pub fn detect(data: &[u8]) {
    let mut chance = Chance::of(data);
    let whole = detect_agent(data);
    // A line that is cut may be another's by accident only if it is whole by accident: so cut at line ends.
    let ends: Vec<usize> = (0..data.len()).filter(|at| data[*at] == b'\n').collect();
    for _ in 0..8 {
        let Some(end) = ends.get(chance.below(ends.len())) else {
            return;
        };
        let begin = detect_agent(&data[..=*end]);
        assert!(
            begin.is_none() || begin == whole,
            "{begin:?}, then {whole:?}"
        );
    }
}

fn detect_agent(head: &[u8]) -> Option<&'static str> {
    dark_factory_agents::detect(head).map(|agent| agent.name())
}

/// The text format: nothing that drives a terminal, no line too wide, whatever the agent, the width and the colours.
pub fn text_formatter(data: &[u8]) {
    let mut chance = Chance::of(data);
    let agent = reader(data, &mut chance);
    let chunks = chance.interleaved(data, data);
    let (events, _) = events::play(agent, &chunks);
    let width = WIDTHS[chance.below(WIDTHS.len())];
    for color in [ColorChoice::Never, ColorChoice::Always] {
        let style = TextStyle { color, width };
        let mut formatter = TextFormatter::new(style);
        let stop = chance.below(events.len() + 1);
        let mut second = None;
        for (number, event) in events.iter().enumerate() {
            if number == stop {
                second = Some(page::saved(&formatter, style));
            }
            let mut out = String::new();
            formatter.write(event, &mut out);
            page::check(&out, style, event);
            if let Some(second) = &mut second {
                let mut again = String::new();
                second.write(event, &mut again);
                assert_eq!(again, out, "a formatter that goes on from a saved one");
            }
        }
    }
}

/// The seed's formatter: the raw log is the input, and chunks change nothing.
pub fn seed_formatter(data: &[u8]) {
    let mut chance = Chance::of(data);
    let whole = seed(data, vec![data]);
    for chunks in chance.chunkings(data, SINGLE_BYTES) {
        assert_eq!(seed(data, chunks), whole);
    }
    assert!(whole.is_empty() || whole.ends_with(b"\n"));
}

fn seed(data: &[u8], chunks: Vec<&[u8]>) -> Vec<u8> {
    let (mut raw, mut formatted) = (Vec::new(), Vec::new());
    let reader = Chunks(
        chunks
            .into_iter()
            .filter(|chunk| !chunk.is_empty())
            .collect(),
    );
    let noon = || Time::constant(12, 0, 0, 0);
    let result =
        Formatter::new(TimeZone::UTC).process_stream(reader, &mut raw, &mut formatted, &noon);
    assert!(result.is_ok());
    assert_eq!(raw, data);
    formatted
}

/// A reader that gives one chunk, or the part of it that there is room for, at a time.
struct Chunks<'c>(std::collections::VecDeque<&'c [u8]>);

impl Read for Chunks<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let Some(chunk) = self.0.front_mut() else {
            return Ok(0);
        };
        let len = chunk.read(room)?;
        if chunk.is_empty() {
            self.0.pop_front();
        }
        Ok(len)
    }
}

/// The completion report: one that is cut is never taken for a whole one.
pub fn report(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    cut_reports(&text);
    let block = format!("{REPORT_START}\n{text}\n{REPORT_END}\n");
    cut_reports(&block);
}

fn cut_reports(text: &str) {
    let mut chance = Chance::of(text.as_bytes());
    if let Some(Ok(report)) = parse_completion_report(text) {
        assert!(text.contains(REPORT_START) && text.contains(REPORT_END));
        let failed = report
            .verification
            .as_ref()
            .is_some_and(|tried| tried.exit_code != 0);
        assert!(!failed || report.status != ReportStatus::Success);
        for (key, value) in &report.unknown {
            let value = serde_json::from_str::<&serde_json::value::RawValue>(value);
            assert!(value.is_ok(), "{key}");
        }
    }
    // Before the first end marker is whole, nothing has been reported.
    let first_end = text
        .find(REPORT_END)
        .map_or(text.len(), |begin| begin + REPORT_END.len() - 1);
    for _ in 0..8 {
        let cut = text.floor_char_boundary(chance.below(first_end + 1));
        let cut_off = parse_completion_report(&text[..cut]);
        assert!(!matches!(cut_off, Some(Ok(_))), "cut at {cut}");
    }
    assert!(!matches!(
        parse_completion_report(&text[..first_end]),
        Some(Ok(_))
    ));
}
