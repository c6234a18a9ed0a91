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
use crate::context::Context;
use crate::error::CommandError;
use crate::terminal::{self, Output};

/// How much of a recording is read at once, and looked at to know the agent.
const CHUNK: usize = 256 * 1024;

pub(crate) fn replay(
    context: &Context,
    args: &ReplayArgs,
    format: Format,
) -> Result<u8, CommandError> {
    let cannot_read = |error: io::Error| {
        CommandError::usage(format!("{} cannot be read: {error}", args.file.display()))
    };
    let mut input: Box<dyn Read> = if args.file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(context.host.absolute(&args.file)).map_err(cannot_read)?)
    };
    let mut show: Option<Box<dyn Show>> = None;
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = match input.read(&mut chunk) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(cannot_read(error)),
        };
        let show = show.get_or_insert_with(|| match (format, args.format) {
            (Format::Text, ReplayFormat::Seed) => Box::new(SeedShow::new()) as Box<dyn Show>,
            _ => Box::new(EventShow::new(detect(&chunk[..read]), format)),
        });
        if read == 0 {
            show.finish();
            return Ok(exit_code::SUCCEEDED);
        }
        show.chunk(&chunk[..read]);
    }
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
