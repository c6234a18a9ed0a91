//! `replay`: shows a recorded agent stream.
//!
//! Owns: reading the recording.
//! Reads: the clock, for the seed's time stamps; a recording has no times of its own.
//! Never: fails because of what the stream says.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use dark_factory_agents::{
    Agent, Claude, Command, LineContent, LineSplitter, SeedFormatter, TextFormatter, Transcript,
};
use dark_factory_executor::clock::{Clock, SystemClock};
use dark_factory_types::{EventStream, exit_code};
use jiff::tz::TimeZone;

use super::Format;
use crate::args::{ReplayArgs, ReplayFormat};
use crate::error::CommandError;
use crate::terminal::{self, Output};

/// How much of a recording is read at once, and looked at to know the agent.
const CHUNK: usize = 256 * 1024;

pub(crate) fn replay(args: &ReplayArgs, format: Format) -> Result<u8, CommandError> {
    let cannot_read = |error: io::Error| {
        CommandError::usage(format!("{} cannot be read: {error}", args.file.display()))
    };
    let mut input: Box<dyn Read> = if args.file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(&args.file).map_err(cannot_read)?)
    };
    let mut chunk = vec![0; CHUNK];
    let mut read = read_line(&mut input, &mut chunk).map_err(cannot_read)?;
    let mut show: Box<dyn Show> = match (format, args.format) {
        (Format::Text, ReplayFormat::Seed) => Box::new(SeedShow::new()),
        _ => Box::new(EventShow::new(detect(&chunk[..read]), format)),
    };
    while read > 0 {
        show.chunk(&chunk[..read]);
        read = read_some(&mut input, &mut chunk).map_err(cannot_read)?;
    }
    show.finish();
    Ok(exit_code::SUCCEEDED)
}

/// Reads what is there; 0 at the end.
fn read_some(input: &mut dyn Read, chunk: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Reads until a whole line is there, the chunk is full, or the recording ends: enough to know the agent.
fn read_line(input: &mut dyn Read, chunk: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < chunk.len() && !chunk[..filled].contains(&b'\n') {
        match read_some(input, &mut chunk[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Returns the agent that a recording's first bytes look like.
fn detect(bytes: &[u8]) -> &'static dyn Agent {
    let mut claude = false;
    LineSplitter::new().feed(bytes, |line| {
        if let LineContent::Whole(text) = line.content {
            let value: Option<serde_json::Value> = serde_json::from_slice(text).ok();
            claude |= value.is_some_and(|value| value.get("type").is_some());
        }
    });
    if claude { &Claude } else { &Command }
}

trait Show {
    fn chunk(&mut self, bytes: &[u8]);
    fn finish(&mut self);
}

struct EventShow {
    transcript: Transcript,
    formatter: TextFormatter,
    format: Format,
}

impl EventShow {
    fn new(agent: &'static dyn Agent, format: Format) -> Self {
        let formatter = TextFormatter::new(terminal::style(Output::Stdout));
        Self {
            transcript: Transcript::new(agent),
            formatter,
            format,
        }
    }

    fn show(&mut self, events: &[dark_factory_types::Event]) {
        let mut text = String::new();
        for event in events {
            match self.format {
                Format::Json => terminal::print_json(event),
                Format::Text => self.formatter.write(event, &mut text),
            }
        }
        terminal::print(&text);
    }
}

impl Show for EventShow {
    fn chunk(&mut self, bytes: &[u8]) {
        let mut events = Vec::new();
        self.transcript
            .feed(EventStream::Stdout, bytes, SystemClock.now(), &mut events);
        self.show(&events);
    }

    fn finish(&mut self) {
        let mut events = Vec::new();
        self.transcript.finish(SystemClock.now(), &mut events);
        self.show(&events);
    }
}

struct SeedShow {
    splitter: LineSplitter,
    formatter: SeedFormatter,
}

impl SeedShow {
    fn new() -> Self {
        Self {
            splitter: LineSplitter::new(),
            formatter: SeedFormatter::new(TimeZone::system()),
        }
    }
}

fn local_time() -> String {
    TimeZone::system()
        .to_datetime(SystemClock.now())
        .strftime("%H:%M:%S")
        .to_string()
}

impl Show for SeedShow {
    fn chunk(&mut self, bytes: &[u8]) {
        let (time, formatter) = (local_time(), &mut self.formatter);
        let mut text = Vec::new();
        self.splitter
            .feed(bytes, |line| formatter.write(&line, &time, &mut text));
        terminal::print_bytes(&text);
    }

    fn finish(&mut self) {
        let (time, formatter) = (local_time(), &mut self.formatter);
        let mut text = Vec::new();
        self.splitter
            .finish(|line| formatter.write(&line, &time, &mut text));
        terminal::print_bytes(&text);
    }
}
