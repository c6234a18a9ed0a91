//! What is written down of each request.
//!
//! Owns: the entries' shape.
//! Reads: nothing.
//! Never: holds a header, a path or a body: they may be secrets.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use dark_factory_types::{Provider, Usage};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One decision about a request, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When the request was decided.
    pub at: Timestamp,
    /// Where it wanted to go, as `host:port`; what stood there if that is no host with a port.
    pub target: String,
    /// What came of it.
    pub fate: Fate,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[non_exhaustive]
pub enum Fate {
    /// It was let through, and has ended.
    Reached {
        /// The address that it was connected to.
        address: SocketAddr,
        /// Bytes that the run sent: all of a tunnel, the body of a plain request.
        sent: u64,
        /// Bytes that the run received, likewise.
        received: u64,
        /// How long it took, in milliseconds.
        duration_ms: u64,
    },
    /// It was refused.
    Denied {
        /// Why, as the agent got to read it.
        why: String,
    },
    /// It was let through, and nobody answered.
    Failed {
        /// Why.
        why: String,
    },
    /// It asks a model of a provider for something, and is about to be passed on. One [`Brokered`](Self::Brokered)
    /// follows, unless the guard died before.
    Asked {
        /// The provider.
        provider: Provider,
        /// The model, as the request names it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
    },
    /// It was passed on to a model of a provider, and has ended.
    Brokered {
        /// The provider.
        provider: Provider,
        /// The model, as the answer names it, or else the request.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        /// The answer's status; `None` if there was no answer.
        status: Option<u16>,
        /// What was used, with its price by our table; `None` if the answer did not say it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usage: Option<Usage>,
        /// How far it came. If it was cut, the usage is what had been said of it by then.
        ending: Ending,
        /// How long it took, in milliseconds.
        duration_ms: u64,
    },
    /// It was for a provider, and was not passed on.
    BrokerRefused {
        /// The provider.
        provider: Provider,
        /// The model, where it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        /// Why, as the agent got to read it.
        why: String,
    },
    /// This one, and all that came after it, is not written down: there were too many.
    Omitted,
}

/// How far a request to a provider came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// To the end of the answer; without a status, to where it was clear that there is nobody to answer.
    Whole,
    /// It was cut before: by the run, by the provider, or because it took too long.
    Cut,
}

/// Takes entries.
pub trait Journal: fmt::Debug + Send + Sync {
    /// Takes an entry. Does not block for long: the request waits.
    fn record(&self, entry: Entry);

    /// Takes an entry that must not be lost: what is used of a budget is known by it.
    ///
    /// # Errors
    ///
    /// If it is not written down.
    fn keep(&self, entry: Entry) -> io::Result<()> {
        self.record(entry);
        Ok(())
    }

    /// Returns the time.
    fn now(&self) -> Timestamp;
}
