//! What supervisors and the guard say to each other: one JSON object a line, on a socket of the state folder.
//!
//! Owns: the requests and answers.
//! Reads: nothing.
//! Never: carries a secret in a form that is shown.

use std::fmt;
use std::path::PathBuf;

use dark_factory_types::{AttemptId, Budget, EgressRule, Provider, SpentBudget};
use serde::{Deserialize, Serialize};

/// The name of the guard's socket in the state folder.
pub const CONTROL_SOCKET: &str = "guard.sock";
/// The name of the file in the state folder that the guard holds a lock on.
pub const LOCK: &str = "guard.lock";
/// The name of a run's socket in the folder that its container sees.
pub const EGRESS_SOCKET: &str = "egress.sock";
/// The longest request or answer, in bytes.
pub(crate) const LINE_CAP: u64 = 4 << 20;

/// What a supervisor asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask", deny_unknown_fields)]
pub enum Ask {
    /// Opens the way out of a run. One that is open with the same rules stays as it is.
    Open(Way),
    /// Closes the way out of a run, and every connection through it; of a run without one too.
    Close {
        /// The run's attempt.
        attempt: AttemptId,
    },
    /// Tells what the guard does.
    Status,
}

/// The way out of one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Way {
    /// The run's attempt.
    pub attempt: AttemptId,
    /// The folder that the container sees, for [`EGRESS_SOCKET`]. Once it is gone, so is the way.
    pub folder: PathBuf,
    /// The file that the run's [entries](crate::Entry) are appended to, one JSON object a line.
    pub journal: PathBuf,
    /// What may be reached.
    pub rules: Vec<EgressRule>,
    /// The providers that it may use without having their keys, at most one of a kind.
    #[serde(default)]
    pub brokers: Vec<Broker>,
    /// What it may use of them.
    #[serde(default)]
    pub budget: Budget,
    /// Whose certificates the providers, and the places where logins are renewed, may have.
    #[serde(default, skip_serializing_if = "Certificates::are_the_systems")]
    pub certificates: Certificates,
}

/// The certificates to believe: the system's, unless files are named.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificates {
    /// A PEM file with them.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// Folders with such files.
    #[serde(default)]
    pub folders: Vec<PathBuf>,
}

impl Certificates {
    /// Returns whether they are the system's.
    pub fn are_the_systems(&self) -> bool {
        *self == Self::default()
    }
}

/// One provider, for a run that has no key of it.
///
/// The run's requests to the path `/PROVIDER/…` of the proxy itself go to `base`, with the key in place of the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broker {
    /// The dialect of its API.
    pub provider: Provider,
    /// Where its API is: `https://HOST[:PORT][/PATH]`, or `http://…`.
    pub base: String,
    /// What the run shows in place of the key. Worth nothing anywhere else.
    pub token: String,
    /// The key.
    pub key: Key,
}

/// What a provider is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Key {
    /// A key of its API.
    ApiKey(Secret),
    /// A bearer token.
    Bearer(Secret),
    /// The login in a configuration folder of Claude Code, which the guard reads, and refreshes for all runs.
    ClaudeFolder(PathBuf),
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What the guard answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer")]
#[non_exhaustive]
pub enum Answer {
    /// The way is open.
    Opened,
    /// It is closed.
    Closed,
    /// What the guard does.
    Status {
        /// Its process.
        pid: u32,
        /// The attempts whose ways are open.
        attempts: Vec<AttemptId>,
    },
    /// Without being asked, to whoever opened the way: the run has used up what it may.
    Spent {
        /// The run's attempt.
        attempt: AttemptId,
        /// Which part of its budget.
        spent: SpentBudget,
    },
    /// It cannot be done.
    Refused {
        /// Why.
        why: String,
    },
}
