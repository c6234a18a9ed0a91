//! Printing, for people and for programs.
//!
//! Owns: standard output and standard error.
//! Reads: nothing.
//! Never: holds up a run: a terminal that does not take its lines loses some, and is told how many events these were.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anstream::AutoStream;
use dark_factory_agents::{
    ColorChoice, LineContent, LineSplitter, Mask, SeedFormatter, TextFormatter, TextStyle,
    neutralise,
};
use dark_factory_executor::sink::Sink;
use dark_factory_types::{Event, EventStream};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustix::termios::tcgetwinsize;
use serde::Serialize;
use serde_json::json;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::args::ColorWhen;
use crate::commands::Format;
use crate::live::{self, Line};
use crate::tell::{self, Subject};

/// Texts that wait for a slow terminal before the newest ones are dropped.
const BACKLOG: usize = 4096;
/// Bytes that they may have together; a single text may be longer.
const BACKLOG_BYTES: usize = 1 << 20;
/// How long the end of a run, or of the process, waits for a slow terminal.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a full backlog is looked at again.
const GLANCE: Duration = Duration::from_millis(5);

/// Prints what goes to standard error; there is none before the first text.
static STDERR: OnceLock<Printer> = OnceLock::new();

/// A terminal that standard error is, for more than lines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Screen {
    pub(crate) columns: usize,
    pub(crate) charset: Charset,
}

/// What a terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Charset {
    Unicode,
    Ascii,
}

/// Returns the terminal that standard error is; `None` for a program, a pipe, a dumb terminal and CI.
pub(crate) fn screen() -> Option<Screen> {
    let is_set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let is_dumb = is_set("TERM").is_none_or(|term| term == "dumb");
    let is_ci = is_set("CI").is_some_and(|ci| ci != "false" && ci != "0");
    if tell::reader() == Format::Json || is_dumb || is_ci {
        return None;
    }
    let (columns, _) = size()?;
    // The first of them that is set counts, as everywhere.
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(is_set);
    let is_utf8 = |locale: OsString| {
        let locale = locale.to_string_lossy().to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    };
    let charset = match locale.is_some_and(is_utf8) {
        true => Charset::Unicode,
        false => Charset::Ascii,
    };
    Some(Screen { columns, charset })
}

/// Returns columns and rows of the terminal that standard error is; `None` if it is none.
pub(crate) fn size() -> Option<(usize, usize)> {
    let size = tcgetwinsize(io::stderr()).ok()?;
    let known = |count: u16, usual: usize| match usize::from(count) {
        0 => usual,
        count => count,
    };
    Some((known(size.ws_col, 80), known(size.ws_row, 24)))
}

/// Cuts a text to at most so many columns, and marks it if something is missing.
pub(crate) fn cut(text: &str, columns: usize) -> String {
    const MARK: &str = "..";
    if text.width() <= columns {
        return text.to_owned();
    }
    let room = columns.saturating_sub(MARK.len());
    let mut width = 0;
    let kept: String = text
        .chars()
        .take_while(|c| {
            width += c.width().unwrap_or(0);
            width <= room
        })
        .collect();
    let mark = if columns < MARK.len() { "" } else { MARK };
    kept + mark
}

/// Where the agent's words go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    Stdout,
    Stderr,
}

/// A thread that prints, so that whoever has something to say is never held up.
#[derive(Debug)]
struct Printer {
    queue: SyncSender<Item>,
    /// Bytes in the queue.
    waiting: Arc<AtomicUsize>,
}

#[derive(Debug)]
enum Item {
    Text(String),
    /// Everything before it has been printed.
    Mark(SyncSender<()>),
}

impl Printer {
    /// Starts the thread; it ends with the printer, or with the process if the output takes nothing.
    fn start(output: Output) -> Self {
        let (queue, items) = sync_channel(BACKLOG);
        let waiting = Arc::<AtomicUsize>::default();
        let printed = Arc::clone(&waiting);
        std::thread::spawn(move || print_items(output, &items, &printed));
        Self { queue, waiting }
    }

    /// Puts a text into the queue, unless that is full.
    fn offer(&self, text: String) -> Taken {
        let length = text.len();
        let before = self.waiting.fetch_add(length, Ordering::Relaxed);
        let has_room = before == 0 || before + length <= BACKLOG_BYTES;
        if has_room && self.queue.try_send(Item::Text(text)).is_ok() {
            return Taken::Yes;
        }
        self.waiting.fetch_sub(length, Ordering::Relaxed);
        Taken::No
    }

    /// Waits until everything that was offered is printed, up to [`PATIENCE`].
    fn settle(&self) {
        let deadline = Instant::now() + PATIENCE;
        let (printed, wait) = sync_channel(1);
        let mut mark = Item::Mark(printed);
        while let Err(TrySendError::Full(back)) = self.queue.try_send(mark) {
            if Instant::now() >= deadline {
                return;
            }
            mark = back;
            std::thread::sleep(GLANCE);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if wait.recv_timeout(left).is_err() {
            tracing::trace!("an output takes nothing");
        }
    }
}

fn print_items(output: Output, items: &Receiver<Item>, waiting: &AtomicUsize) {
    for item in items {
        match item {
            Item::Text(text) => {
                match output {
                    Output::Stdout => print(&text),
                    Output::Stderr => print_to_stderr(&text),
                }
                waiting.fetch_sub(text.len(), Ordering::Relaxed);
            }
            // Whoever waited for it may have given up.
            Item::Mark(printed) => drop(printed.try_send(())),
        }
    }
}

fn print_to_stderr(text: &str) {
    live::around(Output::Stderr, || {
        let mut stderr = anstream::stderr().lock();
        if stderr
            .write_all(text.as_bytes())
            .and_then(|()| stderr.flush())
            .is_err()
        {
            tracing::trace!("standard error is closed");
        }
    });
}

/// Prints text to standard error, in a moment; a closed one is left alone, one that takes nothing loses it.
pub(crate) fn eprint(text: &str) {
    STDERR
        .get_or_init(|| Printer::start(Output::Stderr))
        .offer(text.to_owned());
}

/// Waits until standard error has taken everything, or takes nothing.
pub(crate) fn settle() {
    if let Some(stderr) = STDERR.get() {
        stderr.settle();
    }
}

/// Prints the last text about a run to standard output, behind everything else about it.
///
/// An output that takes nothing loses it: the next run is not held up, and neither is the process's end.
pub(crate) async fn say(text: String) {
    let said = tokio::task::spawn_blocking(move || {
        settle();
        let printer = Printer::start(Output::Stdout);
        printer.offer(text);
        printer.settle();
    });
    if said.await.is_err() {
        tracing::trace!("the runtime ends");
    }
}

/// Prints a value as one line of JSON behind everything else; whoever waits for that holds up nobody else.
pub(crate) async fn say_json(value: &impl Serialize) {
    let json = match serde_json::to_string(value) {
        Ok(json) => json,
        Err(error) => {
            tracing::error!(%error, "a result cannot be written as JSON");
            return;
        }
    };
    let said = tokio::task::spawn_blocking(move || {
        settle();
        print(&format!("{json}\n"));
    });
    if said.await.is_err() {
        tracing::trace!("the runtime ends");
    }
}

/// Whether the log is shown on standard error too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Echo {
    Yes,
    No,
}

/// Writes our own log to the daemon's file, and to standard error without ever waiting for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        if crate::journal::write(&text) == Echo::Yes {
            match tell::reader() {
                Format::Text => eprint(&text),
                Format::Json => tell::object(&json!({ "log": { "message": text.trim_end() } })),
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Prints text to standard output; a closed one is left alone.
pub(crate) fn print(text: &str) {
    live::around(Output::Stdout, || {
        let mut stdout = anstream::stdout().lock();
        if stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
            .is_err()
        {
            tracing::trace!("standard output is closed");
        }
    });
}

/// Prints bytes to standard output as they are; a closed one is left alone. Returns whether it took them.
pub(crate) fn print_bytes(bytes: &[u8]) -> Taken {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Taken::Yes,
        Err(_) => Taken::No,
    }
}

/// Whether an output took what it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    Yes,
    No,
}

/// Prints a value as one line of JSON.
pub(crate) fn print_json(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(json) => print(&format!("{json}\n")),
        Err(error) => tracing::error!(%error, "a result cannot be written as JSON"),
    }
}

/// Returns the style for the agent's words on an output.
pub(crate) fn style(output: Output) -> TextStyle {
    let terminal = match output {
        Output::Stdout => io::stdout().is_terminal(),
        Output::Stderr => io::stderr().is_terminal(),
    };
    let wanted = match output {
        Output::Stdout => AutoStream::choice(&io::stdout()),
        Output::Stderr => AutoStream::choice(&io::stderr()),
    };
    let color = match wanted {
        anstream::ColorChoice::Never => ColorChoice::Never,
        _ => ColorChoice::Always,
    };
    let width = if terminal { columns(output) } else { None };
    TextStyle { color, width }
}

/// Returns the columns of the terminal that an output is.
fn columns(output: Output) -> Option<u16> {
    let size = match output {
        Output::Stdout => tcgetwinsize(io::stdout()),
        Output::Stderr => tcgetwinsize(io::stderr()),
    };
    size.ok()
        .map(|size| size.ws_col)
        .filter(|columns| *columns > 0)
}

/// Decides about colours for the whole process.
pub(crate) fn color(when: ColorWhen) {
    match when {
        ColorWhen::Auto => {}
        ColorWhen::Always => anstream::ColorChoice::Always.write_global(),
        ColorWhen::Never => anstream::ColorChoice::Never.write_global(),
    }
}

/// Whose lines people see of what an agent does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lines {
    Ours,
    OfSeed,
}

/// The seed's lines of a stream, while it comes.
struct SeedLines {
    stdout: LineSplitter,
    stderr: LineSplitter,
    formatter: SeedFormatter,
    zone: TimeZone,
    mask: Mask,
}

impl SeedLines {
    fn new() -> Self {
        let zone = TimeZone::system();
        Self {
            stdout: LineSplitter::new(),
            stderr: LineSplitter::new(),
            formatter: SeedFormatter::new(zone.clone()),
            zone,
            mask: Mask::default(),
        }
    }

    fn bytes(&mut self, stream: EventStream, bytes: &[u8], at: Timestamp) -> String {
        let mut text = Vec::new();
        match stream {
            EventStream::Stdout => {
                let time = self.zone.to_datetime(at).strftime("%H:%M:%S").to_string();
                let formatter = &mut self.formatter;
                self.stdout
                    .feed(bytes, |line| formatter.write(&line, &time, &mut text));
            }
            EventStream::Stderr => self.stderr.feed(bytes, |line| {
                if let LineContent::Whole(bytes) = line.content {
                    text.extend(bytes);
                    text.push(b'\n');
                }
            }),
        }
        let text = String::from_utf8_lossy(&text);
        neutralise(&self.mask.text(&text)).into_owned()
    }
}

/// Shows an attempt's events, from a thread of its own: as lines, or to a program as objects on standard error.
pub(crate) struct TerminalSink {
    subject: Subject,
    form: Form,
    line: Option<Arc<Line>>,
    printer: Printer,
    dropped: u64,
}

enum Form {
    Lines(Box<TextFormatter>),
    Seed(Box<SeedLines>),
    Objects,
}

impl fmt::Debug for TerminalSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TerminalSink")
            .field("dropped", &self.dropped)
            .finish_non_exhaustive()
    }
}

impl TerminalSink {
    /// Starts the printing thread; `line` is the run's status line, if there is one.
    pub(crate) fn start(
        format: Format,
        lines: Lines,
        subject: Subject,
        line: Option<Arc<Line>>,
    ) -> Self {
        let (form, output) = match format {
            Format::Text if lines == Lines::OfSeed => {
                (Form::Seed(Box::new(SeedLines::new())), Output::Stdout)
            }
            Format::Text => {
                let output = Output::Stdout;
                let formatter = TextFormatter::new(style(output));
                (Form::Lines(Box::new(formatter)), output)
            }
            Format::Json => (Form::Objects, Output::Stderr),
        };
        Self {
            subject,
            form,
            line,
            printer: Printer::start(output),
            dropped: 0,
        }
    }
}

impl TerminalSink {
    fn bytes(&mut self, stream: EventStream, bytes: &[u8], at: Timestamp) {
        if let Form::Seed(lines) = &mut self.form {
            let text = lines.bytes(stream, bytes, at);
            self.offer(text);
        }
    }

    fn offer(&mut self, mut text: String) {
        if text.is_empty() {
            return;
        }
        let prefix = &self.subject.prefix;
        if !prefix.is_empty() && !matches!(self.form, Form::Objects) {
            text = text
                .lines()
                .map(|line| format!("{prefix}{line}\n"))
                .collect();
        }
        if self.printer.offer(text) == Taken::No {
            self.dropped += 1;
        }
    }
}

impl Sink for TerminalSink {
    fn hide(&mut self, mask: &Mask) {
        if let Form::Seed(lines) = &mut self.form {
            lines.mask = mask.clone();
        }
    }

    fn stdout(&mut self, bytes: &[u8], at: Timestamp) {
        self.bytes(EventStream::Stdout, bytes, at);
    }

    fn stderr(&mut self, bytes: &[u8], at: Timestamp) {
        self.bytes(EventStream::Stderr, bytes, at);
    }

    fn event(&mut self, event: &Event) {
        if let Some(line) = &self.line {
            line.see(event);
        }
        let mut text = String::new();
        match &mut self.form {
            Form::Lines(formatter) => {
                let before = self.subject.prefix.width();
                let before = u16::try_from(before).unwrap_or(u16::MAX);
                let width = columns(Output::Stdout).filter(|_| io::stdout().is_terminal());
                formatter.resize(width.map(|width| width.saturating_sub(before)));
                formatter.write(event, &mut text);
            }
            Form::Seed(_) => {}
            Form::Objects => {
                let object = json!({ "run_id": self.subject.run, "event": event });
                text = format!("{object}\n");
            }
        }
        self.offer(text);
    }

    fn finish(&mut self) -> Option<String> {
        self.printer.settle();
        (self.dropped > 0).then(|| {
            format!(
                "the terminal was too slow: {} events were not shown, all are in the logs",
                self.dropped
            )
        })
    }
}

/// Lays out rows in columns, two spaces apart; the last column is not padded.
pub(crate) fn table<const N: usize>(rows: impl IntoIterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = rows.into_iter().collect();
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
