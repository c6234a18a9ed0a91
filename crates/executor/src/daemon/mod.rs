//! A daemon: whoever goes on with the runs of a state folder while nobody else does.
//!
//! Owns: its [`Seat`], its socket, and the tasks that supervise.
//! Reads: the store's open attempts; requests over the socket and of its [`DaemonHandle`].
//! Never: supervises what a living process supervises; ends because of one attempt; stops a run by itself.

mod newcomers;
mod protocol;
mod roster;
mod seat;
mod socket;

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use dark_factory_types::{AttemptId, RunId};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use protocol::{Ask, AskError, Failing, Mode, Reply, Request, Status, VERSION, ask};
pub use seat::{Holder, Seat, Seated};

use self::newcomers::Newcomers;
use self::roster::{Doing, Roster};
use self::socket::{Asked, Socket};
use crate::attempt::{Control, OnSilence, Progress};
use crate::error::{ExecutorError, sentence};
use crate::store::AttemptState;
use crate::supervisor::{
    HELD_BACK, Leftover, Pruned, Recovery, Removed, Retention, Stake, Supervisor, Thing,
};

/// How often the store is looked into without any reason.
const RECONCILE: Duration = Duration::from_secs(60);
/// How often it is looked into where new runs cannot be watched for: a user may have 128 such watches.
const UNWATCHED_LOOK: Duration = Duration::from_secs(1);
/// How often what no open run owns is removed, and how old it must be.
const CLEAN_UP: Duration = Duration::from_secs(3600);
const CREATION_GRACE: Duration = Duration::from_secs(600);
/// How soon it is tried again if the engine did not say what it holds.
const CLEAN_UP_AGAIN: Duration = Duration::from_secs(60);
/// Requests that wait for the daemon's task.
const ASKS: usize = 16;

/// How a daemon works.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DaemonOptions {
    /// How many queued runs it begins at the same time; those that it goes on with do not count.
    pub jobs: usize,
    /// Where its engine is, as its status says it.
    pub endpoint: Option<String>,
    /// What its status says besides, such as why a reload failed.
    pub note: Option<String>,
    /// How long runs are kept that have ended.
    pub retention: Retention,
}

impl Default for DaemonOptions {
    fn default() -> Self {
        Self {
            jobs: 4,
            endpoint: None,
            note: None,
            retention: Retention::default(),
        }
    }
}

/// How a daemon ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DaemonEnd {
    /// It was told to stop, and has let go of its runs.
    Stopped,
    /// It was told to drain, and its runs have ended.
    Drained,
    /// It is to be executed anew, and has let go of its runs.
    Reload,
}

/// A daemon that has ended.
#[derive(Debug)]
pub struct Served {
    /// How.
    pub end: DaemonEnd,
    /// Its seat, which is still taken.
    pub seat: Seat,
    /// The runs that it let go of: they go on, and nobody supervises them.
    pub left: Vec<RunId>,
}

/// Tells a daemon of this process what to do.
#[derive(Debug, Clone)]
pub struct DaemonHandle {
    asks: mpsc::Sender<Asked>,
}

impl DaemonHandle {
    /// Asks for something, as [`ask`] does from another process. A daemon that has ended is not asked.
    pub async fn ask(&self, ask: Ask) {
        let asked = Asked { ask, answer: None };
        if self.asks.send(asked).await.is_err() {
            tracing::debug!("the daemon has ended");
        }
    }
}

/// A daemon, listening and not at work yet.
#[derive(Debug)]
pub struct Daemon {
    supervisor: Supervisor,
    options: DaemonOptions,
    seat: Seat,
    socket: Socket,
    newcomers: Option<Newcomers>,
    asks: mpsc::Receiver<Asked>,
    handle: DaemonHandle,
}

impl Daemon {
    /// Begins to listen for requests; must be called within a runtime.
    ///
    /// The runtime needs a blocking thread for each run that is open, and some more: whoever embeds a daemon that has
    /// hundreds of runs raises its `max_blocking_threads`, and then [`Supervisor::with_orphans`].
    ///
    /// # Errors
    ///
    /// The operating system's error.
    pub fn open(supervisor: Supervisor, seat: Seat, options: DaemonOptions) -> io::Result<Self> {
        let socket = Socket::listen(&seat)?;
        let newcomers = Newcomers::watch(&supervisor.state_dir().runs())
            .inspect_err(|error| tracing::warn!(%error, "new runs are looked for every second"))
            .ok();
        let (sender, asks) = mpsc::channel(ASKS);
        Ok(Self {
            supervisor,
            options,
            seat,
            socket,
            newcomers,
            asks,
            handle: DaemonHandle { asks: sender },
        })
    }

    /// Returns what tells this daemon what to do.
    pub fn handle(&self) -> DaemonHandle {
        self.handle.clone()
    }

    /// Works until it is told to end. No error of an attempt ends it.
    ///
    /// Dropping the future lets go of the runs, as a stop does.
    pub async fn serve(self) -> Served {
        let Self {
            supervisor,
            options,
            seat,
            socket,
            newcomers,
            mut asks,
            handle,
        } = self;
        let mut talking = JoinSet::new();
        let closing = CancellationToken::new();
        talking.spawn(socket.talk(handle.asks.clone(), closing.clone()));
        let mut control = supervisor.control("the daemon");
        control.on_silence = OnSilence::Wait;
        let since = supervisor.clock().now();
        let orphans = supervisor.orphans();
        let mut work = Work {
            supervisor,
            control,
            roster: Roster::new(options.jobs, orphans),
            jobs: options.jobs,
            endpoint: options.endpoint,
            note: options.note,
            retention: options.retention,
            since,
            tasks: JoinSet::new(),
            driving: HashMap::new(),
            clean_up_at: Instant::now(),
        };
        let end = work.until_told(&mut asks, newcomers).await;
        let left = work.roster.supervised().map(AttemptId::run).collect();
        // Dropped futures release their leases; the workloads go on.
        work.tasks.shutdown().await;
        drop(asks);
        closing.cancel();
        while talking.join_next().await.is_some() {}
        Served { end, seat, left }
    }
}

/// What a task of the daemon came to.
#[derive(Debug)]
enum Done {
    Drove(AttemptId, Result<Recovery, ExecutorError>),
    Released(AttemptId, Result<(), ExecutorError>),
    CleanedUp(Result<Vec<Pruned>, ExecutorError>),
    Retained(Result<Vec<Removed>, ExecutorError>),
}

/// The daemon at work.
struct Work {
    supervisor: Supervisor,
    control: Control,
    roster: Roster,
    jobs: usize,
    endpoint: Option<String>,
    note: Option<String>,
    retention: Retention,
    since: Timestamp,
    tasks: JoinSet<Done>,
    /// Which task has which attempt, for one that panics.
    driving: HashMap<Id, AttemptId>,
    clean_up_at: Instant,
}

impl Work {
    async fn until_told(
        &mut self,
        asks: &mut mpsc::Receiver<Asked>,
        mut newcomers: Option<Newcomers>,
    ) -> DaemonEnd {
        loop {
            let reconcile_at = self.look().await;
            if self.roster.mode == Mode::Draining && self.roster.supervised().next().is_none() {
                return DaemonEnd::Drained;
            }
            tokio::select! {
                Some(done) = self.tasks.join_next_with_id() => self.take(done),
                Some(asked) = asks.recv() => {
                    if let Some(end) = self.heed(asked) {
                        return end;
                    }
                }
                new = next_of(&mut newcomers) => {
                    if let Err(error) = new {
                        tracing::warn!(%error, "new runs are looked for every second");
                        newcomers = None;
                    }
                }
                () = tokio::time::sleep_until(reconcile_at) => {}
            }
        }
    }

    /// Does what is to be done about every open attempt; returns when to look again at the latest.
    async fn look(&mut self) -> Instant {
        let now = Instant::now();
        if self.clean_up_at <= now {
            self.clean_up_at = now + CLEAN_UP;
            let supervisor = self.supervisor.clone();
            self.tasks
                .spawn(async move { Done::CleanedUp(clean_up(&supervisor).await) });
            let (supervisor, retention) = (self.supervisor.clone(), self.retention);
            self.tasks
                .spawn(async move { Done::Retained(supervisor.retain(retention).await) });
        }
        match self.supervisor.store().open_attempts().await {
            Ok(attempts) => {
                let open: Vec<_> = attempts.iter().map(|row| (row.id, row.state)).collect();
                self.roster.set_open(&open);
                for (id, state) in &open {
                    if self.roster.is_free(*id, now) {
                        self.look_at(*id, *state, now);
                    }
                }
                self.tell_of_held_back(&open, now);
            }
            Err(error) => {
                tracing::warn!(error = %sentence(&error), "the store cannot be read");
            }
        }
        let retry = self.roster.next_retry().unwrap_or(now + RECONCILE);
        retry.min(now + RECONCILE).min(self.clean_up_at)
    }

    /// Says how many orphans wait for others to end, each time that there are more.
    fn tell_of_held_back(&mut self, open: &[(AttemptId, AttemptState)], now: Instant) {
        let is_held_back = |(id, state): &&(AttemptId, AttemptState)| {
            *state != AttemptState::Queued && self.roster.is_free(*id, now)
        };
        let waiting = match self.roster.mode {
            Mode::Serving => open.iter().filter(is_held_back).count(),
            Mode::Draining => 0,
        };
        if let Some(waiting) = self.roster.hold_back(waiting) {
            tracing::warn!(waiting, "{HELD_BACK}");
        }
    }

    fn look_at(&mut self, id: AttemptId, state: AttemptState, now: Instant) {
        let run = id.run();
        let doing = match self.supervisor.is_supervised(id) {
            Ok(true) => Some(Doing::Watched),
            Ok(false) => self.roster.choose(state),
            Err(error) => {
                let why = sentence(&error);
                tracing::warn!(%run, why, "whether it is supervised is not known");
                self.roster.end_for_now(id, &why, now);
                return;
            }
        };
        let Some(doing) = doing else { return };
        let supervisor = self.supervisor.clone();
        let task = match doing {
            Doing::Watched => {
                tracing::debug!(%run, "another process supervises it");
                self.tasks.spawn(async move {
                    let released = supervisor.released(id).await;
                    Done::Released(id, released)
                })
            }
            Doing::Begun | Doing::GoneOn => {
                let state = state.as_str();
                tracing::info!(%run, state, "nobody supervises it, so it is brought to its end here");
                let control = self.control.clone();
                self.tasks.spawn(async move {
                    let tell = |progress| note(run, &progress);
                    let recovery = supervisor.recover(id, Vec::new(), &control, &tell);
                    Done::Drove(id, Box::pin(recovery).await)
                })
            }
        };
        self.driving.insert(task.id(), id);
        self.roster.begin(id, doing);
    }

    /// Takes in what a task came to.
    fn take(&mut self, done: Result<(Id, Done), JoinError>) {
        let now = Instant::now();
        let done = match done {
            Ok((task, done)) => {
                self.driving.remove(&task);
                done
            }
            Err(error) => {
                if let Some(id) = self.driving.remove(&error.id()) {
                    tracing::error!(run = %id.run(), %error, "a task of ours failed");
                    self.roster.end_for_now(id, "a task of ours failed", now);
                }
                return;
            }
        };
        match done {
            Done::Drove(id, Ok(Recovery::Finished(report))) => {
                let run = id.run();
                tracing::info!(%run, outcome = %report.outcome, cause = report.cause, "has ended");
                // Counts only if the engine has something of it left.
                self.roster
                    .end_for_now(id, "its container is not removed yet", now);
            }
            Done::Drove(id, Ok(Recovery::Supervised(_))) => {
                self.roster.end_for_now(id, "another process has it", now);
            }
            Done::Drove(id, Ok(Recovery::Failed(_, error)) | Err(error)) => {
                let why = sentence(&error);
                tracing::warn!(run = %id.run(), why, "stays open, and is tried again");
                self.roster.end_for_now(id, &why, now);
            }
            Done::Released(id, Ok(())) => self.roster.end(id),
            Done::Released(id, Err(error)) => {
                let why = sentence(&error);
                tracing::warn!(run = %id.run(), why, "its supervisor cannot be watched");
                self.roster.end_for_now(id, &why, now);
            }
            Done::CleanedUp(Ok(pruned)) => pruned.iter().for_each(note_pruned),
            Done::CleanedUp(Err(error)) => {
                tracing::warn!(error = %sentence(&error), "what is left over is not known");
                self.clean_up_at = now + CLEAN_UP_AGAIN;
            }
            Done::Retained(Ok(removed)) => removed.iter().for_each(note_removed),
            Done::Retained(Err(error)) => {
                tracing::warn!(error = %sentence(&error), "which runs are kept no longer is not known");
            }
        }
    }

    /// Does what is asked for; returns how the daemon ends, if it does.
    fn heed(&mut self, asked: Asked) -> Option<DaemonEnd> {
        if let Some(answer) = asked.answer
            && answer.send(self.status()).is_err()
        {
            tracing::debug!("nobody waits for the answer");
        }
        match asked.ask {
            Ask::Status | Ask::Look => None,
            Ask::Stop => Some(DaemonEnd::Stopped),
            Ask::Reload => Some(DaemonEnd::Reload),
            Ask::Drain => {
                tracing::info!("begins nothing more, and ends once its runs have");
                self.roster.mode = Mode::Draining;
                None
            }
        }
    }

    fn status(&self) -> Status {
        let runs = |attempts: Vec<AttemptId>| attempts.into_iter().map(AttemptId::run).collect();
        Status {
            pid: std::process::id(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            since: self.since,
            endpoint: self.endpoint.clone(),
            note: self.note.clone(),
            mode: self.roster.mode,
            jobs: self.jobs,
            supervised: runs(self.roster.supervised().collect()),
            queued: runs(self.roster.waiting().to_vec()),
            watched: runs(self.roster.all(Doing::Watched).collect()),
            failing: self
                .roster
                .failing()
                .map(|(attempt, why)| Failing {
                    attempt,
                    why: why.to_owned(),
                })
                .collect(),
        }
    }
}

/// Waits until there may be new attempts. Cancel-safe.
async fn next_of(newcomers: &mut Option<Newcomers>) -> io::Result<()> {
    match newcomers {
        Some(newcomers) => newcomers.next().await,
        None => {
            tokio::time::sleep(UNWATCHED_LOOK).await;
            Ok(())
        }
    }
}

/// Removes what is left over, except what only a person may remove.
async fn clean_up(supervisor: &Supervisor) -> Result<Vec<Pruned>, ExecutorError> {
    let (kept, leftovers): (Vec<_>, Vec<_>) = supervisor
        .leftovers(CREATION_GRACE)
        .await?
        .into_iter()
        .partition(|leftover| leftover.stake.is_some());
    let untold = |leftover: &&Leftover| leftover.stake != Some(Stake::Kept);
    for leftover in kept.iter().filter(untold) {
        let what = name(leftover);
        let why = leftover.stake.map(|stake| stake.to_string());
        tracing::warn!(
            what,
            why,
            "no open run owns it; only `dark-factory prune --apply` removes it"
        );
    }
    Ok(supervisor.prune(leftovers).await)
}

fn note_pruned(pruned: &Pruned) {
    let what = name(&pruned.leftover);
    match &pruned.result {
        Ok(()) => tracing::info!(what, "no open run owns it, so it was removed"),
        Err(error) => {
            let why = sentence(error);
            tracing::warn!(what, why, "no open run owns it, and it cannot be removed");
        }
    }
}

fn note_removed(removed: &Removed) {
    let run = removed.run;
    match &removed.result {
        Ok(room) => tracing::info!(%run, %room, "is kept no longer, and was removed"),
        Err(error) => {
            let why = sentence(error);
            tracing::warn!(%run, why, "is kept no longer, and cannot be removed yet");
        }
    }
}

fn name(leftover: &Leftover) -> String {
    match &leftover.thing {
        Thing::Container(container) => format!("container {}", container.name),
        Thing::Image(image) => format!("image {}", image.name),
        Thing::Folder { path, .. } => format!("folder {}", path.display()),
    }
}

/// Logs the progress of a run.
fn note(run: RunId, progress: &Progress) {
    match progress {
        Progress::Entered(state) => tracing::debug!(%run, %state, "goes on"),
        Progress::Pull(line) => tracing::debug!(%run, line, "pulls"),
        Progress::Pulled(_) => {}
        Progress::Started { container } => tracing::info!(%run, container, "was started"),
        Progress::Stopping(why) => tracing::info!(%run, why, "is being stopped"),
        Progress::EngineSilent(why) => tracing::warn!(%run, why, "is unknown"),
        Progress::EngineBack => tracing::info!(%run, "is known again"),
        Progress::Paused => tracing::info!(%run, "is paused"),
        Progress::Resumed => tracing::info!(%run, "goes on"),
        Progress::DiskFull => tracing::warn!(%run, "is paused: the disk is full"),
        Progress::DiskRoom => tracing::info!(%run, "goes on: there is room on the disk"),
    }
}
