//! Signs of life of an agent, from the pump to whoever keeps the deadlines.
//!
//! Owns: when output was last seen, since when there is a result, since when the disk is full.
//! Reads: nothing.
//! Never: wakes anybody for mere output.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::clock::Moment;

/// What the pump has seen.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    signs: Mutex<Signs>,
    changed: Notify,
}

/// The signs themselves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signs {
    /// When output was last seen.
    pub(crate) output: Option<Moment>,
    /// Since when the agent has given its result, if it has done nothing since.
    pub(crate) result: Option<Moment>,
    /// Since when there is no room for the agent's output, if there is none.
    pub(crate) full: Option<Moment>,
}

impl Pulse {
    /// Returns what was seen last.
    pub(crate) fn signs(&self) -> Signs {
        self.lock().clone()
    }

    /// Notes what is seen; whoever waits for a change is woken if a result or a full disk came or went.
    pub(crate) fn note(&self, note: impl FnOnce(&mut Signs)) {
        let mut signs = self.lock();
        let before = (signs.result.is_some(), signs.full.is_some());
        note(&mut signs);
        let after = (signs.result.is_some(), signs.full.is_some());
        drop(signs);
        if before != after {
            self.changed.notify_one();
        }
    }

    /// Waits until a result or a full disk has come or gone. Cancel-safe.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Signs> {
        self.signs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
