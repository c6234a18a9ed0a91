//! The guard's process: it keeps the ways out of all runs of one owner.
//!
//! Owns: the lock, the control socket, the ways.
//! Reads: requests of processes with the same user id.
//! Never: outlives its work for long, or keeps a way of a run whose folder is gone.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dark_factory_types::{AttemptId, SpentBudget};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::broker::{Desk, Dialer, Logins, Meter, Upstreams};
use crate::control::{
    Answer, Ask, CONTROL_SOCKET, Certificates, EGRESS_SOCKET, LINE_CAP, LOCK, Way,
};
use crate::file_journal::{FileJournal, Now};
use crate::journal::Journal;
use crate::policy::EgressPolicy;
use crate::proxy::{Proxy, ProxyLimits};
use crate::resolve::Resolve;

/// How often it is looked whether a run's folder is still there, should nobody have closed its way.
const LOOK: Duration = Duration::from_secs(10);
/// Requests of all supervisors that wait to be answered.
const QUEUE: usize = 64;

/// How a guard ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// There was nothing left to guard.
    Idle,
    /// It was told to.
    Told,
    /// Another guard of the same state folder lives.
    AnotherLives,
}

/// A guard that cannot do its work.
#[derive(Debug, thiserror::Error)]
#[error("the guard of {} cannot {doing}", state_dir.display())]
pub struct ServeError {
    state_dir: PathBuf,
    doing: &'static str,
    source: io::Error,
}

/// How a guard is run.
#[derive(Debug, Clone)]
pub struct Service {
    /// The folder of its lock and its socket, which belongs to one owner.
    pub state_dir: PathBuf,
    /// Who finds the addresses of names.
    pub resolver: Arc<dyn Resolve>,
    /// Who tells the time.
    pub now: Now,
    /// How long it stays without a way to keep.
    pub patience: Duration,
    /// How it gets to providers.
    pub upstreams: Upstreams,
}

/// A request, and where its answer goes.
struct Asked {
    ask: Ask,
    reply: oneshot::Sender<Answer>,
    /// Who hears of what becomes of the way, should the request open one.
    told: UnboundedSender<Spent>,
}

/// A run's budget is spent.
type Spent = (AttemptId, SpentBudget);

impl Service {
    /// Serves until there was nothing to guard for a while, or until `stop`.
    ///
    /// # Errors
    ///
    /// If the lock or the socket cannot be had.
    pub async fn serve(self, stop: CancellationToken) -> Result<Served, ServeError> {
        let cannot = |doing| {
            let state_dir = self.state_dir.clone();
            move |source| ServeError {
                state_dir,
                doing,
                source,
            }
        };
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.state_dir.join(LOCK))
            .map_err(cannot("open its lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Served::AnotherLives),
            Err(TryLockError::Error(error)) => return Err(cannot("take its lock")(error)),
        }
        let listener = bind(&self.state_dir, CONTROL_SOCKET, 0o600)
            .map_err(cannot("listen for its supervisors"))?;

        let (asks, mut asked) = mpsc::channel::<Asked>(QUEUE);
        let mut supervisors = JoinSet::new();
        let mut ways = Ways::default();
        let mut look = tokio::time::interval(LOOK.min(self.patience));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut idle_since = Instant::now();
        let served = loop {
            if !ways.open.is_empty() {
                idle_since = Instant::now();
            }
            tokio::select! {
                () = stop.cancelled() => break Served::Told,
                accepted = listener.accept() => {
                    let (stream, _) = accepted.map_err(cannot("take a supervisor's connection"))?;
                    supervisors.spawn(supervisor(stream, asks.clone()));
                }
                Some(Asked { ask, reply, told }) = asked.recv() => {
                    let answer = ways.answer(ask, &told, &self);
                    // Who asked may be gone.
                    let _sent = reply.send(answer);
                }
                Some(_ended) = supervisors.join_next(), if !supervisors.is_empty() => {}
                Some(ended) = ways.served.join_next(), if !ways.served.is_empty() => {
                    if let Ok((attempt, Err(error))) = ended {
                        tracing::warn!(%attempt, %error, "the way out of a run is closed");
                        ways.open.remove(&attempt);
                    }
                }
                _ = look.tick() => {
                    ways.forget_ended();
                    if ways.open.is_empty() && idle_since.elapsed() >= self.patience {
                        break Served::Idle;
                    }
                }
            }
        };
        // Before the lock is given up: the next guard's socket is not to be removed.
        let _gone = fs::remove_file(self.state_dir.join(CONTROL_SOCKET));
        supervisors.shutdown().await;
        ways.close_all().await;
        drop(lock);
        Ok(served)
    }
}

/// Answers one supervisor for as long as it stays.
async fn supervisor(stream: UnixStream, asks: mpsc::Sender<Asked>) {
    let own = rustix::process::geteuid().as_raw();
    if !stream.peer_cred().is_ok_and(|peer| peer.uid() == own) {
        return;
    }
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let (told, mut tell) = mpsc::unbounded_channel();
    loop {
        // Outside of the inner loop, so that a line goes on where it was interrupted.
        let mut line = Vec::new();
        let mut limited = (&mut reader).take(LINE_CAP);
        let is_line = loop {
            let (attempt, spent) = tokio::select! {
                read = limited.read_until(b'\n', &mut line) => {
                    break read.is_ok() && line.ends_with(b"\n");
                }
                Some(spent) = tell.recv() => spent,
            };
            if !write(&mut writer, &Answer::Spent { attempt, spent }).await {
                return;
            }
        };
        if !is_line {
            return;
        }
        let answer = match serde_json::from_slice(&line) {
            Ok(ask) => {
                let (reply, answered) = oneshot::channel();
                let told = told.clone();
                if asks.send(Asked { ask, reply, told }).await.is_err() {
                    return;
                }
                let Ok(answer) = answered.await else { return };
                answer
            }
            Err(error) => Answer::Refused {
                // Not with what was there: it may be a key.
                why: format!(
                    "the request is not readable: {:?} error at column {}",
                    error.classify(),
                    error.column()
                ),
            },
        };
        if !write(&mut writer, &answer).await {
            return;
        }
    }
}

/// Writes an answer; returns whether that went well.
async fn write(writer: &mut OwnedWriteHalf, answer: &Answer) -> bool {
    let Ok(mut text) = serde_json::to_vec(answer) else {
        return false;
    };
    text.push(b'\n');
    writer.write_all(&text).await.is_ok()
}

/// The ways that are open.
#[derive(Default)]
struct Ways {
    open: BTreeMap<AttemptId, Open>,
    served: JoinSet<(AttemptId, io::Result<()>)>,
    /// How to get to providers by the system's certificates, once that was asked for.
    usual: Option<Dialer>,
    logins: Option<Arc<Logins>>,
}

struct Open {
    way: Way,
    desk: Arc<Desk>,
    stop: CancellationToken,
}

impl Ways {
    fn answer(&mut self, ask: Ask, told: &UnboundedSender<Spent>, service: &Service) -> Answer {
        match ask {
            Ask::Open(way) => match self.open(way, service) {
                Ok(meter) => {
                    meter.listen(told.clone());
                    Answer::Opened
                }
                Err(error) => Answer::Refused {
                    why: error.to_string(),
                },
            },
            Ask::Close { attempt } => {
                self.close(attempt);
                Answer::Closed
            }
            Ask::Status => Answer::Status {
                pid: std::process::id(),
                attempts: self.open.keys().copied().collect(),
            },
        }
    }

    /// Opens a way, or changes the one that is open; returns what counts for it.
    fn open(&mut self, way: Way, service: &Service) -> io::Result<Arc<Meter>> {
        let dialer = self.dialer(&way.certificates, service)?;
        if let Some(open) = self.open.get_mut(&way.attempt) {
            let is_same_way = open.way.folder == way.folder
                && open.way.journal == way.journal
                && open.way.rules == way.rules;
            if is_same_way {
                if open.way != way {
                    open.desk.replace(&way.brokers, &dialer, way.budget)?;
                    open.way = way;
                }
                return Ok(Arc::clone(open.desk.meter()));
            }
            self.close(way.attempt);
        }
        let journal: Arc<dyn Journal> = Arc::new(FileJournal::open(&way.journal, service.now)?);
        let used = io::BufReader::new(File::open(&way.journal)?);
        let meter = Meter::resume(way.attempt, way.budget, used)?;
        let logins = self.logins(service);
        let desk = Desk::new(&way.brokers, meter, &dialer, logins, Arc::clone(&journal))?;
        // The agent may have any user id; who else could reach the socket is kept out by the state folder.
        let listener = bind(&way.folder, EGRESS_SOCKET, 0o666)?;
        let proxy = Proxy::with_desk(
            EgressPolicy::new(way.rules.clone()),
            ProxyLimits::default(),
            Arc::clone(&service.resolver),
            journal,
            Some(Arc::clone(&desk)),
        );
        let stop = CancellationToken::new();
        let (attempt, stopped) = (way.attempt, stop.clone());
        self.served
            .spawn(async move { (attempt, proxy.serve(listener, stopped).await) });
        let meter = Arc::clone(desk.meter());
        self.open.insert(attempt, Open { way, desk, stop });
        Ok(meter)
    }

    /// Returns what makes connections to providers with these certificates. Others than the system's are read each time:
    /// they may have changed.
    fn dialer(&mut self, certificates: &Certificates, service: &Service) -> io::Result<Dialer> {
        if !certificates.are_the_systems() {
            return Dialer::new(&service.upstreams, certificates);
        }
        if let Some(usual) = &self.usual {
            return Ok(usual.clone());
        }
        let usual = Dialer::new(&service.upstreams, certificates)?;
        self.usual = Some(usual.clone());
        Ok(usual)
    }

    /// Returns the logins of all runs: what is renewed for one is for all.
    fn logins(&mut self, service: &Service) -> Arc<Logins> {
        let endpoint = &service.upstreams.claude_token_endpoint;
        let logins = self
            .logins
            .get_or_insert_with(|| Logins::new(endpoint.clone(), service.now));
        Arc::clone(logins)
    }

    fn close(&mut self, attempt: AttemptId) {
        if let Some(open) = self.open.remove(&attempt) {
            open.stop.cancel();
            // Its folder may be gone.
            let _gone = fs::remove_file(open.way.folder.join(EGRESS_SOCKET));
        }
    }

    /// Closes the ways of runs whose folders are gone.
    fn forget_ended(&mut self) {
        let ended: Vec<AttemptId> = self
            .open
            .iter()
            .filter(|(_, open)| !open.way.folder.exists())
            .map(|(attempt, _)| *attempt)
            .collect();
        for attempt in ended {
            self.close(attempt);
        }
    }

    async fn close_all(mut self) {
        for attempt in self.open.keys().copied().collect::<Vec<_>>() {
            self.close(attempt);
        }
        while self.served.join_next().await.is_some() {}
    }
}

/// Binds a socket in a folder, in place of one that a dead guard left there.
fn bind(folder: &Path, name: &str, mode: u32) -> io::Result<UnixListener> {
    // Through a descriptor, because a socket's own path may have 107 bytes only.
    let folder = File::open(folder)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(mode))?;
    Ok(listener)
}
