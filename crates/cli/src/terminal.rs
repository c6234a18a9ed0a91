//! Printing, for people and for programs.
//!
//! Owns: standard output and standard error.
//! Reads: nothing.
//! Never: holds up a run: a terminal that does not take its lines loses some, and is told how many.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dark_factory_agents::{ColorChoice, TextFormatter, TextStyle};
use dark_factory_executor::sink::Sink;
use dark_factory_types::Event;
use serde::Serialize;

/// Lines that wait for a slow terminal before the newest ones are dropped.
const BACKLOG: usize = 4096;
/// How long the end of a run waits for a slow terminal.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where the agent's words go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    Stdout,
    Stderr,
}

/// Prints text to standard error; a closed one is left alone.
pub(crate) fn eprint(text: &str) {
    let mut stderr = anstream::stderr().lock();
    if stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush()).is_err() {
        tracing::trace!("standard error is closed");
    }
}

/// Prints text to standard output; a closed one is left alone.
pub(crate) fn print(text: &str) {
    let mut stdout = anstream::stdout().lock();
    if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {
        tracing::trace!("standard output is closed");
    }
}

/// Prints bytes to standard output as they are; a closed one is left alone. Returns whether it took them.
pub(crate) fn print_bytes(bytes: &[u8]) -> Taken {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Taken::Yes,
        Err(_) => Taken::No,
    }
}

/// Whether standard output is still there.
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
        Output::Stdout => std::io::stdout().is_terminal(),
        Output::Stderr => std::io::stderr().is_terminal(),
    };
    // anstream strips what the terminal or NO_COLOR does not want.
    let color = if terminal { ColorChoice::Always } else { ColorChoice::Never };
    TextStyle { color, width: None }
}

/// Shows an attempt's events on the terminal, from a thread of its own.
pub(crate) struct TerminalSink {
    formatter: TextFormatter,
    prefix: String,
    lines: Option<SyncSender<String>>,
    printer: Option<JoinHandle<()>>,
    dropped: u64,
}

impl fmt::Debug for TerminalSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TerminalSink").field("dropped", &self.dropped).finish_non_exhaustive()
    }
}

impl TerminalSink {
    /// Starts the printing thread; every line begins with `prefix`.
    pub(crate) fn start(output: Output, prefix: String) -> Self {
        let (lines, receiver) = sync_channel(BACKLOG);
        let printer = std::thread::spawn(move || print_lines(output, &receiver));
        Self {
            formatter: TextFormatter::new(style(output)),
            prefix,
            lines: Some(lines),
            printer: Some(printer),
            dropped: 0,
        }
    }
}

fn print_lines(output: Output, lines: &Receiver<String>) {
    for text in lines {
        match output {
            Output::Stdout => print(&text),
            Output::Stderr => eprint(&text),
        }
    }
}

impl Sink for TerminalSink {
    fn event(&mut self, event: &Event) {
        let mut text = String::new();
        self.formatter.write(event, &mut text);
        if text.is_empty() {
            return;
        }
        if !self.prefix.is_empty() {
            text = text.lines().map(|line| format!("{}{line}\n", self.prefix)).collect();
        }
        if let Some(lines) = &self.lines
            && let Err(TrySendError::Full(_)) = lines.try_send(text)
        {
            self.dropped += 1;
        }
    }

    fn finish(&mut self) -> Option<String> {
        self.lines = None;
        let printer = self.printer.take()?;
        let deadline = Instant::now() + PATIENCE;
        while !printer.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        (self.dropped > 0).then(|| {
            format!("the terminal was too slow: {} events were not shown, all are in the logs", self.dropped)
        })
    }
}

/// Lays out rows in columns, two spaces apart; the last column is not padded.
pub(crate) fn table<const N: usize>(rows: impl IntoIterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = rows.into_iter().collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
