//! What is written down of each request.
//!
//! Owns: the entries' shape.
//! Reads: nothing.
//! Never: holds a header, a path or a body: they may be secrets.

use std::fmt;
use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One decision about a request, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When the request was decided.
    pub at: Timestamp,
    /// Where it wanted to go, as `host:port`; what stood there if that is no host with a port.
    pub target: String,
    /// What came of it.
    pub fate: Fate,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// This one, and all that came after it, is not written down: there were too many.
    Omitted,
}

/// Takes entries.
pub trait Journal: fmt::Debug + Send + Sync {
    /// Takes an entry. Does not block for long: the request waits.
    fn record(&self, entry: Entry);

    /// Returns the time.
    fn now(&self) -> Timestamp;
}
