//! What the status lines say.
//!
//! Owns: what is known of each run that goes on.
//! Reads: a run's progress and its agent's events.
//! Never: writes to a terminal.

use std::time::Instant;

use dark_factory_agents::neutralise;
use dark_factory_executor::attempt::Progress;
use dark_factory_executor::engine::PullAmount;
use dark_factory_executor::store::AttemptState;
use dark_factory_types::{Event, EventKind};

use crate::commands::human_seconds;
use crate::terminal;

/// Lines that are shown at most; more runs are counted in one.
const MOST_LINES: usize = 8;

/// The runs that go on, in the order in which they were begun.
#[derive(Debug)]
pub(super) struct Board {
    runs: Vec<Run>,
    next: u64,
    begun: Instant,
    state: State,
}

/// Whether lines are wanted any more.
#[derive(Debug, PartialEq, Eq)]
enum State {
    Open,
    Closed,
}

#[derive(Debug)]
struct Run {
    key: u64,
    name: String,
    image: String,
    phase: Phase,
    /// What it comes back to once the engine answers, or it is thawed.
    before: Phase,
    running_since: Option<Instant>,
    pull: Option<PullAmount>,
    tool: Option<String>,
    turns: u64,
    tokens: u64,
}

/// What a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Preparing,
    Pulling,
    Creating,
    Starting,
    Running,
    Paused,
    DiskFull,
    EngineSilent,
    Stopping,
    Collecting,
}

impl Phase {
    const ALL: [Self; 10] = [
        Self::Preparing,
        Self::Pulling,
        Self::Creating,
        Self::Starting,
        Self::Running,
        Self::Paused,
        Self::DiskFull,
        Self::EngineSilent,
        Self::Stopping,
        Self::Collecting,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Pulling => "pulling",
            Self::Creating => "creating",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::DiskFull => "paused: disk full",
            Self::EngineSilent => "waiting for the engine",
            Self::Stopping => "stopping",
            Self::Collecting => "collecting",
        }
    }

    fn is_interruption(self) -> bool {
        matches!(self, Self::Paused | Self::DiskFull | Self::EngineSilent)
    }
}

impl Board {
    pub(super) fn new() -> Self {
        Self {
            runs: Vec::new(),
            next: 0,
            begun: Instant::now(),
            state: State::Open,
        }
    }

    /// Ends the board: there are no lines from now on.
    pub(super) fn close(&mut self) {
        self.state = State::Closed;
    }

    pub(super) fn add(&mut self, name: &str, image: &str) -> u64 {
        let key = self.next;
        self.next += 1;
        self.runs.push(Run {
            key,
            name: plain(name),
            image: plain(image),
            phase: Phase::Preparing,
            before: Phase::Preparing,
            running_since: None,
            pull: None,
            tool: None,
            turns: 0,
            tokens: 0,
        });
        key
    }

    pub(super) fn remove(&mut self, key: u64) {
        self.runs.retain(|run| run.key != key);
    }

    pub(super) fn tell(&mut self, key: u64, progress: &Progress) {
        let Some(run) = self.runs.iter_mut().find(|run| run.key == key) else {
            return;
        };
        match progress {
            Progress::Entered(state) => run.enter(*state),
            Progress::Pulled(amount) => run.pull = Some(*amount),
            Progress::Stopping(_) => run.go_to(Phase::Stopping),
            Progress::EngineSilent(_) => run.go_to(Phase::EngineSilent),
            Progress::Paused => run.go_to(Phase::Paused),
            Progress::DiskFull => run.go_to(Phase::DiskFull),
            Progress::EngineBack | Progress::Resumed | Progress::DiskRoom => {
                run.phase = run.before;
            }
            Progress::Pull(_) | Progress::Started { .. } => {}
        }
    }

    pub(super) fn see(&mut self, key: u64, event: &Event) {
        let Some(run) = self.runs.iter_mut().find(|run| run.key == key) else {
            return;
        };
        match &event.kind {
            EventKind::ToolStart { name, .. } => run.tool = Some(plain(name)),
            EventKind::TurnEnd { usage, .. } => {
                run.turns += 1;
                run.tokens += usage.total_tokens();
                run.tool = None;
            }
            _ => {}
        }
    }

    /// Returns the lines for a terminal of so many columns and rows; `None` once the board is closed.
    pub(super) fn lines(&self, (columns, rows): (usize, usize)) -> Option<Vec<String>> {
        if self.state == State::Closed {
            return None;
        }
        Some(match self.runs.as_slice() {
            [] => Vec::new(),
            [run] => vec![run.words()],
            runs if runs.len() <= MOST_LINES.min(rows / 2) => {
                // What it does is worth more than its whole name.
                let most = (columns / 3).max(8);
                runs.iter()
                    .map(|run| {
                        let name = terminal::cut(&run.name, most);
                        format!("[{name}] {}", run.words())
                    })
                    .collect()
            }
            runs => vec![self.summary(runs)],
        })
    }

    fn summary(&self, runs: &[Run]) -> String {
        let counts = Phase::ALL.iter().filter_map(|phase| {
            let count = runs.iter().filter(|run| run.phase == *phase).count();
            (count > 0).then(|| format!("{count} {}", phase.word()))
        });
        let counts: Vec<String> = counts.collect();
        let elapsed = elapsed(self.begun);
        format!("{} runs, {elapsed}: {}", runs.len(), counts.join(", "))
    }
}

impl Run {
    fn enter(&mut self, state: AttemptState) {
        let phase = match state {
            AttemptState::Queued | AttemptState::Preparing => Phase::Preparing,
            AttemptState::Pulling => Phase::Pulling,
            AttemptState::Creating => Phase::Creating,
            AttemptState::Starting => Phase::Starting,
            AttemptState::Running => Phase::Running,
            AttemptState::Stopping => Phase::Stopping,
            AttemptState::Collecting | AttemptState::Finished => Phase::Collecting,
        };
        if phase == Phase::Running {
            self.running_since = Some(Instant::now());
        }
        self.go_to(phase);
    }

    fn go_to(&mut self, phase: Phase) {
        if !phase.is_interruption() {
            self.before = phase;
        }
        self.phase = phase;
    }

    /// What matters most comes first: the end may not fit.
    fn words(&self) -> String {
        let mut words = Vec::new();
        match (self.phase, self.running_since) {
            // The image is there, or the engine says nothing of it yet.
            (Phase::Pulling, _) if self.pull.is_none() => {
                words.push(format!("preparing the image {}", self.image));
            }
            (Phase::Pulling, _) => {
                words.push("pulling".to_owned());
                words.extend(self.pull.map(amount));
                words.push(self.image.clone());
            }
            (phase, Some(since)) => {
                words.push(format!("{} {}", phase.word(), elapsed(since)));
            }
            (phase, None) => words.push(phase.word().to_owned()),
        }
        words.extend(self.tool.clone());
        if self.turns > 1 {
            words.push(format!("{} turns", self.turns));
        }
        if self.tokens > 0 {
            words.push(format!("{} tokens", self.tokens));
        }
        words.join(", ")
    }
}

fn amount(amount: PullAmount) -> String {
    let PullAmount {
        layers,
        all_layers,
        bytes,
        all_bytes,
    } = amount;
    if all_bytes.0 == 0 {
        return format!("{layers} of {all_layers} layers");
    }
    format!("{bytes} of {all_bytes}, {layers} of {all_layers} layers")
}

/// Whole seconds: tenths would have to be redrawn ten times as often.
fn elapsed(since: Instant) -> String {
    let elapsed = since.elapsed();
    match elapsed.as_secs() {
        seconds @ ..60 => format!("{seconds}s"),
        _ => human_seconds(elapsed.as_secs_f64()),
    }
}

/// Text of others, as part of one line.
fn plain(text: &str) -> String {
    let text = neutralise(text);
    text.chars()
        .map(|c| if matches!(c, '\n' | '\t') { ' ' } else { c })
        .collect()
}
