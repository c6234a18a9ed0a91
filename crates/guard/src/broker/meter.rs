//! What a run has used of its budget.
//!
//! Owns: the sums, the decision whether one more request may be made, who hears that it may not.
//! Reads: the run's journal, once, for what was used under an earlier guard.
//! Never: takes what it does not know for nothing.
//!
//! A request is counted when it is let through, and given back if no model answered it: the cap on requests is exact.
//! Tokens and cost are known when an answer has ended, so a run may go over these by what the requests use that were
//! in flight when the cap was reached: never by more than those.

use std::io::BufRead;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dark_factory_types::{AttemptId, Budget, SpentBudget, Usage};
use tokio::sync::mpsc::UnboundedSender;

use crate::journal::{Ending, Entry, Fate};
use crate::summary::is_success;

/// The counts of one run.
#[derive(Debug)]
pub(crate) struct Meter {
    attempt: AttemptId,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    budget: Budget,
    /// Answered by a model, or in flight.
    requests: u64,
    tokens: u64,
    cost: f64,
    /// Whether a model answered without saying what was used.
    is_uncounted: bool,
    /// Whether something was used that has no price.
    is_unpriced: bool,
    told: Option<SpentBudget>,
    listeners: Vec<UnboundedSender<(AttemptId, SpentBudget)>>,
}

/// Why no further request is let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stop {
    #[error("the run's budget of {} is used up", what(.0))]
    Spent(SpentBudget),
    #[error(
        "an answer did not say what it used, so the run's budget of {} cannot be kept any longer (with chat \
         completions, ask with stream_options.include_usage)", what(.0)
    )]
    Uncounted(SpentBudget),
    #[error("what was used has no known price, so the run's budget of {} cannot be kept any longer", what(.0))]
    Unpriced(SpentBudget),
}

fn what(spent: &SpentBudget) -> String {
    match spent {
        SpentBudget::Tokens { limit } => format!("{limit} tokens"),
        SpentBudget::Requests { limit } => format!("{limit} requests"),
        SpentBudget::Cost { limit } => format!("${limit}"),
    }
}

impl Stop {
    fn spent(self) -> SpentBudget {
        match self {
            Self::Spent(spent) | Self::Uncounted(spent) | Self::Unpriced(spent) => spent,
        }
    }
}

impl Meter {
    /// Makes one that goes on from what the journal has.
    pub(crate) fn resume(
        attempt: AttemptId,
        budget: Budget,
        journal: impl BufRead,
    ) -> std::io::Result<Arc<Self>> {
        let mut state = State {
            budget,
            ..State::default()
        };
        for line in journal.split(b'\n') {
            let Ok(entry) = serde_json::from_slice::<Entry>(&line?) else {
                continue;
            };
            match entry.fate {
                Fate::Asked { .. } => state.requests += 1,
                Fate::Brokered {
                    status,
                    usage,
                    ending,
                    ..
                } => state.ended(status, usage.as_ref(), ending),
                _ => {}
            }
        }
        let state = Mutex::new(state);
        Ok(Arc::new(Self { attempt, state }))
    }

    /// Goes on with another budget.
    pub(crate) fn set_budget(&self, budget: Budget) {
        let mut state = self.state();
        if state.budget != budget {
            state.budget = budget;
            state.told = None;
        }
    }

    pub(crate) fn budget(&self) -> Budget {
        self.state().budget
    }

    /// Returns whether it matters how many tokens an answer used.
    pub(crate) fn counts_tokens(&self) -> bool {
        let budget = self.state().budget;
        budget.tokens.is_some() || budget.cost.is_some()
    }

    /// Has this one hear, once, that the budget is spent; at once, if it is.
    pub(crate) fn listen(&self, listener: UnboundedSender<(AttemptId, SpentBudget)>) {
        let mut state = self.state();
        if let Some(spent) = state.told {
            // Nobody may be there any more.
            let _sent = listener.send((self.attempt, spent));
        }
        state.listeners.retain(|known| !known.is_closed());
        if !state
            .listeners
            .iter()
            .any(|known| known.same_channel(&listener))
        {
            state.listeners.push(listener);
        }
    }

    /// Counts one more request, if it may be made.
    pub(crate) fn admit(&self) -> Result<(), Stop> {
        let mut state = self.state();
        if let Some(stop) = state.stop() {
            if state.told.replace(stop.spent()).is_none() {
                for listener in &state.listeners {
                    let _sent = listener.send((self.attempt, stop.spent()));
                }
            }
            return Err(stop);
        }
        state.requests += 1;
        Ok(())
    }

    /// Gives back a request that was not made after all.
    pub(crate) fn give_back(&self) {
        let mut state = self.state();
        state.requests = state.requests.saturating_sub(1);
    }

    /// Counts what came of a request that was admitted.
    pub(crate) fn ended(&self, status: Option<u16>, usage: Option<&Usage>, ending: Ending) {
        self.state().ended(status, usage, ending);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn stop(&self) -> Option<Stop> {
        if let Some(limit) = self.budget.requests
            && self.requests >= limit
        {
            return Some(Stop::Spent(SpentBudget::Requests { limit }));
        }
        if let Some(limit) = self.budget.tokens {
            let spent = SpentBudget::Tokens { limit };
            if self.tokens >= limit {
                return Some(Stop::Spent(spent));
            }
            if self.is_uncounted {
                return Some(Stop::Uncounted(spent));
            }
        }
        if let Some(limit) = self.budget.cost {
            let spent = SpentBudget::Cost { limit };
            if self.cost >= limit.dollars() {
                return Some(Stop::Spent(spent));
            }
            if self.is_uncounted {
                return Some(Stop::Uncounted(spent));
            }
            if self.is_unpriced {
                return Some(Stop::Unpriced(spent));
            }
        }
        None
    }

    fn ended(&mut self, status: Option<u16>, usage: Option<&Usage>, ending: Ending) {
        // Without a status a model may have answered: nobody waited for it.
        let is_counted = match status {
            Some(_) => is_success(status),
            None => ending == Ending::Cut,
        };
        if !is_counted {
            self.requests = self.requests.saturating_sub(1);
            return;
        }
        match usage {
            Some(usage) => {
                self.tokens = self.tokens.saturating_add(usage.total_tokens());
                self.cost += usage.priced_usd.unwrap_or(0.0);
                self.is_unpriced |= usage.total_tokens() > 0 && usage.priced_usd.is_none();
            }
            // An answer that broke off cannot have said it.
            None => self.is_uncounted |= ending == Ending::Whole,
        }
    }
}
