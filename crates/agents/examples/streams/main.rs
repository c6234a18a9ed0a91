//! Reads a stream and writes both logs, one way per process, so that its whole CPU time can be compared.
//!
//! ```console
//! $ streams sessions SIZE > corpus.jsonl           # or: streams short SIZE
//! $ streams WAY RAW READABLE < corpus.jsonl        # seed, claude, command, serde-value, sonic-value
//! ```

#![expect(
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a program of its own"
)]

mod corpus;

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::process::ExitCode;

use dark_factory_agents::{
    Formatter, LineContent, LineSplitter, SplitLine, TextFormatter, TextStyle, Transcript, agent,
};
use dark_factory_types::EventStream;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// How much is read at once, in bytes: a pipe holds no more.
const READ: usize = 64 << 10;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["sessions", size] => build(size, corpus::sessions),
        ["short", size] => build(size, corpus::short_lines),
        [way, raw, readable] => run(way, raw, readable),
        _ => Err(io::Error::other(
            "expected sessions SIZE, short SIZE, or WAY RAW READABLE",
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes a corpus of that many bytes to standard output.
fn build(
    size: &str,
    corpus: impl FnOnce(u64, &mut BufWriter<io::StdoutLock<'static>>) -> io::Result<()>,
) -> io::Result<()> {
    let size = size.parse().map_err(io::Error::other)?;
    let mut out = BufWriter::new(io::stdout().lock());
    corpus(size, &mut out)?;
    out.flush()
}

fn run(way: &str, raw: &str, readable: &str) -> io::Result<()> {
    let (raw, readable) = (File::create(raw)?, File::create(readable)?);
    match way {
        "seed" => seed(raw, readable),
        "serde-value" => each_line(raw, |line| {
            serde_json::from_slice::<serde_json::Value>(line).is_ok()
        }),
        "sonic-value" => each_line(raw, |line| {
            sonic_rs::from_slice::<sonic_rs::Value>(line).is_ok()
        }),
        agent => text(agent, raw, readable),
    }
}

fn seed(mut raw: File, mut readable: File) -> io::Result<()> {
    let zone = TimeZone::system();
    let clock = || zone.to_datetime(Timestamp::now()).time();
    Formatter::new(zone.clone()).process_stream(io::stdin().lock(), &mut raw, &mut readable, &clock)
}

/// The way of a run: events, and the readable log made of them.
fn text(name: &str, mut raw: File, mut readable: File) -> io::Result<()> {
    let agent = agent(name).ok_or_else(|| io::Error::other("there is no such way"))?;
    let mut transcript = Transcript::new(agent);
    let mut formatter = TextFormatter::new(TextStyle::default());
    let mut out = String::new();
    each_chunk(|chunk| {
        raw.write_all(chunk)?;
        transcript.feed_each(EventStream::Stdout, chunk, Timestamp::now(), |event| {
            formatter.write(&event, &mut out);
        });
        readable.write_all(out.as_bytes())?;
        out.clear();
        Ok(())
    })
}

/// Only the values of the lines, as a floor: nothing is made of them.
fn each_line(mut raw: File, mut parse: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut splitter = LineSplitter::new();
    let mut are_read = true;
    let mut take = |line: SplitLine<'_>| match line.content {
        LineContent::Whole(bytes) => are_read &= parse(bytes),
        LineContent::TooLong => are_read = false,
    };
    each_chunk(|chunk| {
        raw.write_all(chunk)?;
        splitter.feed(chunk, &mut take);
        Ok(())
    })?;
    splitter.finish(&mut take);
    match are_read {
        true => Ok(()),
        false => Err(io::Error::other("a line of the corpus is not readable")),
    }
}

fn each_chunk(mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut stdin = io::stdin().lock();
    let mut chunk = vec![0; READ];
    loop {
        match stdin.read(&mut chunk)? {
            0 => return Ok(()),
            length => take(&chunk[..length])?,
        }
    }
}
