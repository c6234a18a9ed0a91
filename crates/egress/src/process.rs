//! The guard of one state folder, as supervisors see it.
//!
//! Owns: its start by whoever needs it first, and its log, `guard.log` in the state folder.
//! Reads: the guard's answers, the journals that it writes.
//! Never: ends it: that is up to the guard itself.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, ErrorKind};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use dark_factory_executor::egress::{EgressDemand, EgressGuard, OpenWay, WayEvent};
use dark_factory_executor::host::HostView;
use dark_factory_executor::keys::KeySources;
use dark_factory_executor::spec::AttemptDir;
use dark_factory_guard::{Answer, Ask, Certificates, Client, Way, summarise};
use dark_factory_types::{AttemptId, EgressSummary};
use tokio::time::{Instant, sleep};

use crate::certificates;
use crate::keys::Keyring;
use crate::program::GuardProgram;

/// How long a guard may take to listen.
const START: Duration = Duration::from_secs(10);
/// How often it is looked whether it does.
const LOOK: Duration = Duration::from_millis(10);

/// The guard of one state folder.
#[derive(Debug)]
pub struct GuardProcess {
    state_dir: PathBuf,
    program: GuardProgram,
    keyring: Keyring,
    host: HostView,
}

impl GuardProcess {
    /// Returns the guard of a state folder, for runs whose keys are where `keys` says; nothing is started yet.
    ///
    /// It is for the supervisor with that state folder. The certificates to believe are those that `SSL_CERT_FILE` and
    /// `SSL_CERT_DIR` of the host view name, else the system's.
    pub fn new(state_dir: &Path, program: GuardProgram, keys: KeySources, host: HostView) -> Self {
        Self {
            // The guard's own working directory is another.
            state_dir: host.absolute(state_dir),
            program,
            keyring: Keyring::new(keys, host.clone()),
            host,
        }
    }

    /// Starts a guard if none lives, and asks what it does; returns its process.
    ///
    /// # Errors
    ///
    /// If it cannot be started, or does not answer.
    pub async fn probe(&self) -> io::Result<u32> {
        match self.connect().await?.ask(&Ask::Status).await? {
            Answer::Status { pid, .. } => Ok(pid),
            other => Err(io::Error::other(format!("it answered {other:?}"))),
        }
    }

    /// Connects to the guard, starting one if none lives.
    async fn connect(&self) -> io::Result<Client> {
        let deadline = Instant::now() + START;
        let mut is_started = false;
        loop {
            match Client::connect(&self.state_dir).await {
                Ok(client) => return Ok(client),
                Err(error) if is_absent(&error) && Instant::now() < deadline => {}
                Err(error) => return Err(error),
            }
            // Of two that are started at the same time, one finds the other and leaves.
            if !std::mem::replace(&mut is_started, true) {
                self.start()?;
            }
            sleep(LOOK).await;
        }
    }

    fn start(&self) -> io::Result<()> {
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(self.state_dir.join("guard.log"))?;
        let child = self
            .program
            .command(&self.state_dir)
            // It has no use for anybody's keys.
            .env_clear()
            // No folder is kept from being unmounted by it.
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        // It outlives us, or is reaped by the runtime.
        drop(child);
        Ok(())
    }

    /// Returns whose certificates are believed.
    async fn certificates(&self) -> io::Result<Certificates> {
        let host = self.host.clone();
        tokio::task::spawn_blocking(move || certificates::named(&host)).await?
    }
}

#[async_trait]
impl EgressGuard for GuardProcess {
    async fn open(&self, demand: &EgressDemand, dir: &AttemptDir) -> io::Result<Box<dyn OpenWay>> {
        let mut brokers = Vec::new();
        for provider in &demand.providers {
            brokers.push(self.keyring.broker(*provider, dir.attempt()).await?);
        }
        let certificates = match brokers.is_empty() {
            // What is tunnelled is between its ends.
            true => Certificates::default(),
            false => self.certificates().await?,
        };
        let mut client = self.connect().await?;
        let way = Way {
            attempt: dir.attempt(),
            folder: dir.mount(),
            journal: dir.egress_journal(),
            rules: demand.rules.clone(),
            brokers,
            budget: demand.budget,
            certificates,
        };
        match client.ask(&Ask::Open(way)).await? {
            Answer::Opened => Ok(Box::new(GuardedWay(client))),
            Answer::Refused { why } => Err(io::Error::other(why)),
            other => Err(io::Error::other(format!("it answered {other:?}"))),
        }
    }

    async fn close(&self, attempt: AttemptId) {
        self.keyring.forget(attempt);
        let closed = async {
            let mut client = Client::connect(&self.state_dir).await?;
            client.ask(&Ask::Close { attempt }).await
        };
        match closed.await {
            Ok(_) => {}
            // Without a guard there is no way.
            Err(error) if is_absent(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "the guard closes the run's way out by itself later");
            }
        }
    }

    async fn secrets(&self, demand: &EgressDemand, attempt: AttemptId) -> Vec<String> {
        let mut secrets = Vec::new();
        for provider in &demand.providers {
            secrets.extend(self.keyring.secrets(*provider, attempt).await);
        }
        secrets
    }

    fn summary(&self, dir: &AttemptDir) -> io::Result<EgressSummary> {
        match File::open(dir.egress_journal()) {
            Ok(journal) => summarise(BufReader::new(journal)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(EgressSummary::default()),
            Err(error) => Err(error),
        }
    }
}

/// Returns whether no guard lives.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::ConnectionRefused
    )
}

#[derive(Debug)]
struct GuardedWay(Client);

#[async_trait]
impl OpenWay for GuardedWay {
    async fn next(&mut self) -> WayEvent {
        loop {
            match self.0.told().await {
                Some(Answer::Spent { spent, .. }) => return WayEvent::Spent(spent),
                Some(_) => {}
                None => return WayEvent::Lost,
            }
        }
    }
}
