//! What an agent itself claims about its work.
//!
//! Owns: the verdict read from an agent's stream, and the completion report.
//! Reads: nothing.
//! Never: believes it; see [`crate::Outcome::decide`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The agent's own claim, read from its stream.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Verdict {
    /// The stream ended without a result or report.
    #[default]
    Silent,
    /// The agent's last result says that it finished.
    Success,
    /// The agent's last result, or the lack of a usable one, is a failure.
    Error {
        /// What kind of failure.
        class: ErrorClass,
        /// The agent's message, one line.
        message: String,
    },
    /// The agent finished and gave a completion report.
    Report {
        /// The report, verbatim but for the downgrade of an unverified success; see [`CompletionReport::status`].
        report: CompletionReport,
    },
}

/// What kind of failure an agent reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// Credentials are missing, wrong or expired.
    Auth,
    /// Too many requests; worth trying again later.
    RateLimit,
    /// The account's usage or credit is used up.
    UsageLimit,
    /// The provider is overloaded or failed on its side.
    Overloaded,
    /// The provider refused the request, or does not know the model.
    InvalidRequest,
    /// The turn limit was reached.
    MaxTurns,
    /// The agent's own budget was reached.
    Budget,
    /// The model declined.
    Refused,
    /// The conversation no longer fits the model.
    Context,
    /// The agent was interrupted.
    Interrupted,
    /// A completion report was begun but is not readable.
    BadReport,
    /// Anything else.
    Internal,
}

/// The agent's self-reported end of work, in the seed's format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompletionReport {
    /// What the agent says of its work. A `success` whose verification failed is `partial`.
    pub status: ReportStatus,
    /// One sentence.
    #[serde(default)]
    pub summary: String,
    /// Reasons why the work is not complete.
    #[serde(default)]
    pub blockers: Vec<String>,
    /// The check that the agent ran, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    /// Fields that are not the seed's, as JSON text by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unknown: BTreeMap<String, String>,
}

/// What a completion report says of the work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportStatus {
    /// All of it is done.
    Success,
    /// Some of it is done, or its verification failed.
    Partial,
    /// It is not done.
    Failed,
    /// A word that is not in the format: never a success.
    #[serde(untagged)]
    Other(String),
}

/// The check that an agent says it ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// The command.
    #[serde(default)]
    pub command: String,
    /// Its exit code.
    #[serde(default, rename = "exitCode")]
    pub exit_code: i64,
}
