//! The way out of a run whose network is a list of hosts: the contract of whoever keeps it.
//!
//! Owns: the contract, and keeping a way open for as long as its attempt is driven.
//! Reads: nothing.
//! Never: lets an agent start without its way, or decides what may pass.

use std::collections::BTreeMap;
use std::fmt;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dark_factory_agents::ApiAccess;
use dark_factory_types::{
    AttemptId, Budget, EgressRule, EgressSummary, NetworkMode, Provider, SpentBudget,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::spec::{AttemptDir, LaunchSpec};

/// How long an attempt waits for its way before it is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait before a way is tried again, at first and at most.
const RETRY: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];

/// Returns what an attempt's container shows in place of keys: worth nothing but on its own way out.
pub fn run_token(attempt: AttemptId) -> String {
    format!("dark-factory-{attempt}")
}

/// Returns the variables in which an attempt's container has that token; what the spec's environment sets is not among
/// them.
pub fn token_env(spec: &LaunchSpec, attempt: AttemptId) -> BTreeMap<String, String> {
    let names = spec.providers.iter();
    names
        .flat_map(|provider| ApiAccess::of(*provider).tokens)
        .filter(|name| !spec.env.contains_key(**name))
        .map(|name| ((*name).to_owned(), run_token(attempt)))
        .collect()
}

/// What a run's way out has to let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressDemand {
    /// The hosts that may be reached.
    pub rules: Vec<EgressRule>,
    /// The providers that may be used without a key in the container.
    pub providers: Vec<Provider>,
    /// What may be used of them.
    pub budget: Budget,
}

impl EgressDemand {
    /// Returns whether the spec's container needs a way.
    pub fn is_needed(spec: &LaunchSpec) -> bool {
        let has_rules = matches!(&spec.network, NetworkMode::Allow(rules) if !rules.is_empty());
        has_rules || !spec.providers.is_empty()
    }

    /// Returns what the spec's container needs; `None` if it needs no way.
    pub fn of(spec: &LaunchSpec) -> Option<Self> {
        let rules = match &spec.network {
            NetworkMode::Allow(rules) => rules.clone(),
            NetworkMode::None | NetworkMode::Open => Vec::new(),
        };
        Self::is_needed(spec).then(|| Self {
            rules,
            providers: spec.providers.clone(),
            budget: spec.budget,
        })
    }
}

/// Keeps the ways out of runs.
#[async_trait]
pub trait EgressGuard: fmt::Debug + Send + Sync {
    /// Opens the way of an attempt, at a socket in the folder that its container sees. One that is open already stays
    /// as it is.
    ///
    /// # Errors
    ///
    /// If the way is not open; what was tried may be tried again. `InvalidInput` if that is not because of the guard, so
    /// that an agent which was not started yet need not wait: a key cannot be had.
    async fn open(&self, demand: &EgressDemand, dir: &AttemptDir) -> io::Result<Box<dyn OpenWay>>;

    /// Closes the way of an attempt, and every connection through it; that there is none is no error.
    async fn close(&self, attempt: AttemptId);

    /// Returns the keys that the way of an attempt with this demand uses, to be hidden in logs. One that cannot be had is
    /// left out: its way does not open.
    async fn secrets(&self, demand: &EgressDemand, attempt: AttemptId) -> Vec<String>;

    /// Returns what came of the attempt's requests so far. Blocks.
    ///
    /// # Errors
    ///
    /// If the record cannot be read; that there is none is no error.
    fn summary(&self, dir: &AttemptDir) -> io::Result<EgressSummary>;
}

/// A way that is open.
#[async_trait]
pub trait OpenWay: fmt::Debug + Send {
    /// Waits for the next thing that happens to it. Cancel-safe.
    async fn next(&mut self) -> WayEvent;
}

/// What happens to a way that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayEvent {
    /// The run has used up what it may use; the way stays open.
    Spent(SpentBudget),
    /// It is lost because whoever keeps it has ended.
    Lost,
}

/// A way that is opened again whenever it is lost; dropped, it stays as it is for the next supervisor.
#[derive(Debug)]
pub(crate) struct KeptWay {
    state: watch::Receiver<State>,
    spent: watch::Receiver<Option<SpentBudget>>,
    _task: JoinSet<()>,
}

#[derive(Debug, Clone)]
enum State {
    Open,
    Shut(String),
    /// Trying again soon will not help.
    Refused(String),
}

impl State {
    fn why(&self) -> Option<String> {
        match self {
            Self::Open => None,
            Self::Shut(why) | Self::Refused(why) => Some(why.clone()),
        }
    }
}

impl KeptWay {
    pub(crate) fn keep(
        guard: &Arc<dyn EgressGuard>,
        demand: EgressDemand,
        dir: &AttemptDir,
    ) -> Self {
        let (tell, state) = watch::channel(State::Shut("it was not tried yet".to_owned()));
        let (tell_spent, spent) = watch::channel(None);
        let (guard, dir) = (Arc::clone(guard), dir.clone());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut pause = RETRY[0];
            let mut told = String::new();
            loop {
                match guard.open(&demand, &dir).await {
                    Ok(mut way) => {
                        (pause, told) = (RETRY[0], String::new());
                        tell.send_replace(State::Open);
                        while let WayEvent::Spent(spent) = way.next().await {
                            tell_spent.send_replace(Some(spent));
                        }
                        tracing::warn!("the guard has ended; the way out is opened again");
                        tell.send_replace(State::Shut("the guard has ended".to_owned()));
                    }
                    Err(error) => {
                        let why = error.to_string();
                        if told != why {
                            tracing::warn!(error = %why, "the way out is not open; it is tried again");
                            told.clone_from(&why);
                        }
                        tell.send_replace(match error.kind() {
                            io::ErrorKind::InvalidInput => State::Refused(why),
                            _ => State::Shut(why),
                        });
                        sleep(pause).await;
                        pause = RETRY[1].min(pause * 2);
                    }
                }
            }
        });
        Self {
            state,
            spent,
            _task: task,
        }
    }

    /// Waits until the run has used up what it may. Cancel-safe.
    pub(crate) async fn spent(&self) -> SpentBudget {
        let mut spent = self.spent.clone();
        if let Ok(found) = spent.wait_for(Option::is_some).await
            && let Some(spent) = *found
        {
            return spent;
        }
        pending().await
    }

    /// Returns what the run has used up, if it has.
    pub(crate) fn is_spent(&self) -> Option<SpentBudget> {
        *self.spent.borrow()
    }

    /// Returns why the way is not open, if it is not.
    pub(crate) fn shut(&self) -> Option<String> {
        self.state.borrow().why()
    }

    /// Waits until the way is open; the error says why it is not. Cancel-safe.
    pub(crate) async fn opened(&self) -> Result<(), String> {
        let mut state = self.state.clone();
        let waited = timeout(
            PATIENCE,
            state.wait_for(|state| matches!(state, State::Open | State::Refused(_))),
        );
        match waited.await {
            Ok(Ok(state)) => state.why(),
            Ok(Err(_)) | Err(_) => self.state.borrow().why(),
        }
        .map_or(Ok(()), Err)
    }
}
