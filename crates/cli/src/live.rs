//! The status lines below everything else on a terminal, while runs go on.
//!
//! Owns: those lines; the thread that draws them.
//! Reads: the terminal's size; what runs report.
//! Never: is there in a pipe; stays behind; breaks a line that somebody else prints; holds up a run.

mod board;

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use dark_factory_executor::attempt::Progress;
use dark_factory_types::Event;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use unicode_width::UnicodeWidthStr;

use crate::terminal::{self, Output};
use board::Board;

/// How often times go on.
const SECOND: Duration = Duration::from_secs(1);
/// How long a drawing stays at least.
const FRAME: Duration = Duration::from_millis(50);
/// How long the process's end waits for a slow terminal to take the lines away.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether there may be lines; nobody waits for a terminal's turn while there are none.
static IS_LIVE: AtomicBool = AtomicBool::new(false);
/// What is drawn; held while anything is written to the terminal.
static DRAWN: Mutex<Drawn> = Mutex::new(Drawn {
    lines: Vec::new(),
    widths: Vec::new(),
});
/// Ends with the thread that draws.
static DRAWING: Mutex<Option<Receiver<()>>> = Mutex::new(None);
static PANICS: Once = Once::new();

/// The lines on the terminal.
#[derive(Debug)]
struct Drawn {
    /// What is to be there.
    lines: Vec<String>,
    /// Widths of the lines that are there, in columns.
    widths: Vec<usize>,
}

impl Drawn {
    /// Returns what takes the lines away; the cursor is then where the first one began.
    fn wipe(&mut self) -> String {
        let Some(columns) = terminal::size().map(|(columns, _)| columns) else {
            return String::new();
        };
        if self.widths.is_empty() {
            return String::new();
        }
        // A terminal that was made narrower has broken the lines.
        let rows: usize = self
            .widths
            .drain(..)
            .map(|w| w.div_ceil(columns).max(1))
            .sum();
        match rows - 1 {
            0 => "\r\x1b[J".to_owned(),
            up => format!("\r\x1b[{up}A\x1b[J"),
        }
    }

    /// Returns what puts the lines where the cursor is.
    fn draw(&mut self) -> String {
        let Some((columns, _)) = terminal::size() else {
            return String::new();
        };
        // The last column stays free: whether the cursor is still on the line would be the terminal's choice.
        let most = columns.saturating_sub(1);
        let cut = |line: &String| terminal::cut(line, most);
        let lines: Vec<String> = self.lines.iter().map(cut).collect();
        self.widths = lines.iter().map(|line| line.width()).collect();
        lines.join("\r\n")
    }
}

/// Writes to an output with the lines out of the way.
pub(crate) fn around(output: Output, write: impl FnOnce()) {
    let shares_screen = match output {
        Output::Stdout => io::stdout().is_terminal(),
        Output::Stderr => io::stderr().is_terminal(),
    };
    if !shares_screen || !IS_LIVE.load(Ordering::Acquire) {
        return write();
    }
    let mut drawn = lock(&DRAWN);
    put(&drawn.wipe());
    write();
    put(&drawn.draw());
}

/// Waits until the lines are gone, or the terminal takes nothing.
pub(crate) fn settle() {
    if let Some(drawing) = lock(&DRAWING).take()
        && drawing.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout)
    {
        tracing::trace!("the terminal takes nothing");
    }
}

fn put(text: &str) {
    if text.is_empty() {
        return;
    }
    let mut stderr = io::stderr().lock();
    if stderr
        .write_all(text.as_bytes())
        .and_then(|()| stderr.flush())
        .is_err()
    {
        tracing::trace!("standard error is closed");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The status lines of a command; they go away with the value.
#[derive(Debug, Clone)]
pub(crate) struct Live(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    board: Arc<Mutex<Board>>,
    wake: SyncSender<()>,
    _resizes: JoinSet<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        lock(&self.board).close();
        // Full: it is woken already.
        let _woken = self.wake.try_send(());
    }
}

impl Live {
    /// Starts the status lines, if there is a terminal for them.
    pub(crate) fn start() -> Option<Self> {
        terminal::screen()?;
        let board = Arc::new(Mutex::new(Board::new()));
        // One is enough: whoever is woken looks at everything.
        let (wake, woken) = sync_channel(1);
        let (ending, ended) = sync_channel(0);
        let resizes = resizes(wake.clone());
        PANICS.call_once(wipe_before_panics);
        *lock(&DRAWING) = Some(ended);
        IS_LIVE.store(true, Ordering::Release);
        let shown = Arc::clone(&board);
        std::thread::spawn(move || {
            loop {
                let size = terminal::size();
                // A statement of its own: nobody who reports waits for the terminal.
                let lines = size.and_then(|size| lock(&shown).lines(size));
                let Some(lines) = lines else {
                    break;
                };
                redraw(lines);
                std::thread::sleep(FRAME);
                // Disconnected: the board is closed then.
                let _woken = woken.recv_timeout(SECOND);
            }
            redraw(Vec::new());
            IS_LIVE.store(false, Ordering::Release);
            drop(ending);
        });
        Some(Self(Arc::new(Inner {
            board,
            wake,
            _resizes: resizes,
        })))
    }

    /// Adds a line for a run.
    pub(crate) fn line(&self, name: &str, image: &str) -> Line {
        let key = lock(&self.0.board).add(name, image);
        self.wake();
        Line {
            live: self.clone(),
            key,
        }
    }

    fn wake(&self) {
        let _woken = self.0.wake.try_send(());
    }
}

/// A run's line; it goes away with the value.
#[derive(Debug)]
pub(crate) struct Line {
    live: Live,
    key: u64,
}

impl Line {
    /// Shows what is said of the run.
    pub(crate) fn tell(&self, progress: &Progress) {
        lock(&self.live.0.board).tell(self.key, progress);
        self.live.wake();
    }

    /// Shows what the agent does.
    pub(crate) fn see(&self, event: &Event) {
        lock(&self.live.0.board).see(self.key, event);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        lock(&self.live.0.board).remove(self.key);
        self.live.wake();
    }
}

fn redraw(lines: Vec<String>) {
    let mut drawn = lock(&DRAWN);
    let wiped = drawn.wipe();
    drawn.lines = lines;
    let text = drawn.draw();
    put(&format!("{wiped}{text}"));
}

/// Wakes whoever draws when the terminal has another size.
fn resizes(wake: SyncSender<()>) -> JoinSet<()> {
    let mut task = JoinSet::new();
    match signal(SignalKind::window_change()) {
        Ok(mut changes) => {
            task.spawn(async move {
                while changes.recv().await.is_some() {
                    let _woken = wake.try_send(());
                }
            });
        }
        Err(error) => tracing::debug!(%error, "changes of the terminal's size are seen late"),
    }
    task
}

/// Keeps what a panic says off the lines.
fn wipe_before_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // Whoever holds it may be the one who panics.
        if let Ok(mut drawn) = DRAWN.try_lock() {
            put(&drawn.wipe());
        }
        report(panic);
    }));
}
