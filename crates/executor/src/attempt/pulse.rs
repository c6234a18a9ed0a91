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
    /// When there was last room again.
    pub(crate) room: Option<Moment>,
    /// How far the pump is; only where it has read everything, no output is silence.
    pub(crate) reading: Reading,
}

/// How far a pump is with what was printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Reading {
    /// It has not yet read what it found at its beginning.
    #[default]
    Backlog,
    /// It is reading.
    Busy,
    /// It has read everything.
    AtEnd,
}

impl Signs {
    /// Notes that there is something to read.
    pub(crate) fn are_behind(&mut self) {
        if self.reading == Reading::AtEnd {
            self.reading = Reading::Busy;
        }
    }
}

impl Pulse {
    /// Returns what was seen last.
    pub(crate) fn signs(&self) -> Signs {
        self.lock().clone()
    }

    /// Notes what is seen; whoever waits for a change is woken if a result or a full disk came or went,
    /// or once the
    /// backlog is read.
    pub(crate) fn note(&self, note: impl FnOnce(&mut Signs)) {
        let mut signs = self.lock();
        let wakers = |signs: &Signs| {
            (
                signs.result.is_some(),
                signs.full.is_some(),
                signs.reading == Reading::Backlog,
            )
        };
        let before = wakers(&signs);
        note(&mut signs);
        let after = wakers(&signs);
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
