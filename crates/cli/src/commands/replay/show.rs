//! How a recording is shown.
//!
//! Owns: what is printed of it, and what it came to.
//! Reads: its lines, one or a part of one at a time.
//! Never: prints what is older than was asked for, which is read all the same.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use dark_factory_agents::{
    Agent, Conclusion, LineSplitter, SeedFormatter, TextFormatter, Transcript, neutralise,
};
use dark_factory_executor::clock::{Clock, SystemClock};
use dark_factory_types::{Event, EventKind, EventStream, ReportStatus, Verdict};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;

use super::times::event_of;
use crate::terminal::{self, Output, Taken};

/// The most of a plain line that is shown, in bytes.
const MOST_OF_LINE: usize = 64 << 10;

/// Shows a recording.
pub(super) trait Show {
    /// Takes the next line, or a part of one, printed at `at`.
    fn piece(&mut self, bytes: &[u8], at: Timestamp);

    /// Ends it.
    fn finish(&mut self, at: Timestamp);

    /// Prints what is to be printed; returns whether somebody reads on.
    fn flush(&mut self) -> Taken;
}

/// What is to be printed.
#[derive(Default)]
struct Page(Vec<u8>);

impl Page {
    fn flush(&mut self) -> Taken {
        if self.0.is_empty() {
            return Taken::Yes;
        }
        let taken = terminal::print_bytes(&self.0);
        self.0.clear();
        taken
    }
}

/// What an event becomes.
pub(super) enum Form {
    Lines(Box<TextFormatter>),
    Objects,
}

impl Form {
    /// Lines for people, as standard output wants them.
    pub(super) fn lines() -> Self {
        let style = terminal::style(Output::Stdout);
        Self::Lines(Box::new(TextFormatter::new(style)))
    }

    fn write(&mut self, events: &[Event], start: u64, page: &mut Page) {
        for event in events {
            let mut line = String::new();
            match self {
                Self::Lines(formatter) => formatter.write(event, &mut line),
                Self::Objects => {
                    line = serde_json::to_string(event).unwrap_or_default();
                    line.push('\n');
                }
            }
            if event.offset >= start {
                page.0.extend(line.bytes());
            }
        }
    }
}

/// Shows what an agent's stream means.
pub(super) struct EventShow {
    agent: &'static dyn Agent,
    transcript: Transcript,
    form: Form,
    page: Page,
    start: u64,
    is_empty: bool,
}

impl EventShow {
    pub(super) fn new(agent: &'static dyn Agent, form: Form, start: u64) -> Self {
        Self {
            agent,
            transcript: Transcript::new(agent),
            form,
            page: Page::default(),
            start,
            is_empty: true,
        }
    }
}

impl Show for EventShow {
    fn piece(&mut self, bytes: &[u8], at: Timestamp) {
        self.is_empty &= bytes.is_empty();
        let mut events = Vec::new();
        self.transcript
            .feed(EventStream::Stdout, bytes, at, &mut events);
        self.form.write(&events, self.start, &mut self.page);
    }

    fn finish(&mut self, at: Timestamp) {
        let mut events = Vec::new();
        self.transcript.finish(at, &mut events);
        self.form.write(&events, self.start, &mut self.page);
        if self.is_empty {
            return;
        }
        let conclusion = self.transcript.conclusion();
        match self.form {
            Form::Objects => {
                let mut end = json!(conclusion);
                end["agent"] = json!(self.agent.name());
                let end = format!("{}\n", json!({ "end": end }));
                self.page.0.extend(end.bytes());
            }
            // A program that is no agent claims nothing.
            Form::Lines(_) if conclusion == Conclusion::default() => {}
            Form::Lines(_) => {
                let words = format!("{}\n", last_words(self.agent, &conclusion));
                self.page.0.extend(words.bytes());
            }
        }
    }

    fn flush(&mut self) -> Taken {
        self.page.flush()
    }
}

/// Returns what a stream came to, on one line.
fn last_words(agent: &dyn Agent, conclusion: &Conclusion) -> String {
    let verdict = match &conclusion.verdict {
        Verdict::Silent => "no result".to_owned(),
        Verdict::Success => "success".to_owned(),
        Verdict::Error { class: _, message } => format!("error: {message}"),
        Verdict::Report { report } => match &report.status {
            ReportStatus::Success => "reports success".to_owned(),
            ReportStatus::Partial => "reports partial success".to_owned(),
            ReportStatus::Failed => "reports failure".to_owned(),
            ReportStatus::Other(word) => format!("reports {word:?}"),
        },
    };
    let usage = &conclusion.usage;
    let mut facts = vec![format!("= {}: {verdict}", agent.name())];
    if usage.total_tokens() > 0 {
        facts.push(format!("{} tokens", usage.total_tokens()));
    }
    let cost = usage.cost_usd.or(usage.priced_usd);
    facts.extend(cost.map(|cost| format!("${cost:.4}")));
    let words = facts.join(", ");
    neutralise(&words.replace('\n', " ")).into_owned()
}

/// The logs of a run, for the texts of plain lines.
struct Logs {
    stdout: Option<File>,
    stderr: Option<File>,
}

impl Logs {
    fn beside(folder: Option<&Path>) -> Self {
        let open = |name: &str| File::open(folder?.join(name)).ok();
        Self {
            stdout: open("raw.jsonl"),
            stderr: open("stderr.log"),
        }
    }

    /// Gives a plain line its text, if the event is one that has none and the log is there.
    fn complete(&mut self, event: &mut Event) {
        let EventKind::Line { text } = &mut event.kind else {
            return;
        };
        let log = match event.stream {
            EventStream::Stdout => &self.stdout,
            EventStream::Stderr => &self.stderr,
        };
        if let (true, Some(log)) = (text.is_empty(), log) {
            let length = usize::try_from(event.len).unwrap_or(usize::MAX);
            let mut line = vec![0; length.min(MOST_OF_LINE)];
            if log.read_exact_at(&mut line, event.offset).is_ok() {
                *text = String::from_utf8_lossy(&line).into_owned();
            }
        }
    }
}

/// Shows events that a run recorded.
pub(super) struct RecordedShow {
    form: Form,
    page: Page,
    start: u64,
    offset: u64,
    carry: Vec<u8>,
    logs: Logs,
}

impl RecordedShow {
    pub(super) fn new(form: Form, start: u64, folder: Option<&Path>) -> Self {
        Self {
            form,
            page: Page::default(),
            start,
            offset: 0,
            carry: Vec::new(),
            logs: Logs::beside(folder),
        }
    }
}

impl Show for RecordedShow {
    fn piece(&mut self, bytes: &[u8], _at: Timestamp) {
        self.carry.extend(bytes);
        if !bytes.ends_with(b"\n") {
            return;
        }
        let is_old = self.offset < self.start;
        self.offset += self.carry.len() as u64;
        let event = event_of(&self.carry);
        self.carry.clear();
        if let Some(mut event) = event.filter(|_| !is_old) {
            self.logs.complete(&mut event);
            self.form.write(&[event], 0, &mut self.page);
        }
    }

    fn finish(&mut self, _at: Timestamp) {
        if let Some(mut event) = event_of(&self.carry) {
            self.logs.complete(&mut event);
            self.form.write(&[event], 0, &mut self.page);
        }
    }

    fn flush(&mut self) -> Taken {
        self.page.flush()
    }
}

/// Shows the seed's lines.
pub(super) struct SeedShow {
    splitter: LineSplitter,
    formatter: SeedFormatter,
    zone: TimeZone,
    page: Page,
    start: u64,
}

impl SeedShow {
    pub(super) fn new(start: u64) -> Self {
        let zone = TimeZone::system();
        Self {
            splitter: LineSplitter::new(),
            formatter: SeedFormatter::new(zone.clone()),
            zone,
            page: Page::default(),
            start,
        }
    }

    fn local_time(&self) -> String {
        self.zone
            .to_datetime(SystemClock.now())
            .strftime("%H:%M:%S")
            .to_string()
    }
}

impl Show for SeedShow {
    fn piece(&mut self, bytes: &[u8], _at: Timestamp) {
        let (time, start) = (self.local_time(), self.start);
        let (formatter, page) = (&mut self.formatter, &mut self.page.0);
        self.splitter.feed(bytes, |line| {
            let length = page.len();
            formatter.write(&line, &time, page);
            if line.offset < start {
                page.truncate(length);
            }
        });
    }

    fn finish(&mut self, _at: Timestamp) {
        let time = self.local_time();
        let (formatter, page) = (&mut self.formatter, &mut self.page.0);
        self.splitter
            .finish(|line| formatter.write(&line, &time, page));
    }

    fn flush(&mut self) -> Taken {
        self.page.flush()
    }
}
