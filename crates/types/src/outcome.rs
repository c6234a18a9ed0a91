//! The one outcome of a run, and how it is decided.
//!
//! Owns: the rule that makes one outcome and its cause out of three separate facts.
//! Reads: the exit, the agent's verdict, our stop reason, and what the agent counts as proof.
//! Never: waits, measures or asks anybody.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    ByteSize, ErrorClass, Exit, ExitStatus, Oom, ReportStatus, SpentBudget, Verdict, exit_code,
};

/// What an agent has to show before a run can count as succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// A result or report in its stream; exit code 0 alone proves nothing.
    Stream,
    /// Exit code 0.
    ExitCode,
}

/// Why we stopped a workload; recorded before acting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[non_exhaustive]
pub enum StopReason {
    /// The run's time limit passed.
    Deadline {
        /// The limit.
        #[serde(with = "seconds")]
        limit: Duration,
    },
    /// The agent printed nothing for too long.
    Idle {
        /// The limit.
        #[serde(with = "seconds")]
        limit: Duration,
    },
    /// The agent had given its result and did not leave.
    Lingered {
        /// How long it was given.
        #[serde(with = "seconds")]
        grace: Duration,
    },
    /// Somebody asked for it.
    Cancelled {
        /// Who, as a person would say it: `Ctrl-C`, `dark-factory stop`.
        by: String,
    },
    /// The log grew beyond its limit.
    LogLimit {
        /// The limit.
        limit: ByteSize,
    },
    /// What it may use of its provider is used up.
    Budget {
        /// Which part of it.
        spent: SpentBudget,
    },
    /// What it wrote into the container's own file system grew beyond its limit.
    DiskLimit {
        /// The limit.
        limit: ByteSize,
        /// How much there was when it was measured.
        used: ByteSize,
    },
}

/// The name of an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeKind {
    /// The agent finished and proved it.
    Succeeded,
    /// The agent failed, or says that it did not do the work, or not all of it.
    Failed,
    /// The agent ended without the proof that it owes.
    NoResult,
    /// The time limit passed.
    TimedOut,
    /// Somebody stopped it.
    Cancelled,
    /// The kernel killed the agent for lack of memory.
    OutOfMemory,
    /// A budget, disk or log limit stopped it.
    Limit,
    /// Something other than us killed it.
    Killed,
    /// The agent's program never ran.
    StartFailed,
    /// The engine no longer knows the workload and nobody saw its end.
    Lost,
    /// We failed.
    Error,
}

impl OutcomeKind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Succeeded,
        Self::Failed,
        Self::NoResult,
        Self::TimedOut,
        Self::Cancelled,
        Self::OutOfMemory,
        Self::Limit,
        Self::Killed,
        Self::StartFailed,
        Self::Lost,
        Self::Error,
    ];

    /// Returns the kind's name as it stands in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::NoResult => "no_result",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::OutOfMemory => "out_of_memory",
            Self::Limit => "limit",
            Self::Killed => "killed",
            Self::StartFailed => "start_failed",
            Self::Lost => "lost",
            Self::Error => "error",
        }
    }

    /// Returns the exit code of a `dark-factory run` that ended so.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Succeeded => exit_code::SUCCEEDED,
            Self::Failed | Self::NoResult => exit_code::FAILED,
            Self::TimedOut => exit_code::TIMED_OUT,
            Self::Cancelled => exit_code::CANCELLED,
            Self::OutOfMemory | Self::Killed => exit_code::KILLED,
            Self::Limit => exit_code::LIMIT,
            Self::StartFailed => exit_code::ENGINE,
            Self::Lost => exit_code::LOST,
            Self::Error => exit_code::INTERNAL,
        }
    }
}

impl fmt::Display for OutcomeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How a run ended, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The outcome's name.
    pub kind: OutcomeKind,
    /// The cause, one sentence without a full stop.
    pub cause: String,
}

/// The seed's error of a run that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("run {}: {}", .0.kind, .0.cause)]
pub struct UnsuccessfulOutcome(pub Outcome);

impl Outcome {
    /// Decides the outcome from the facts; total, and the same facts always give the same outcome.
    ///
    /// In order: what never ran never succeeded; what we stopped is named by our reason, whatever the agent
    /// printed on its way out; a workload that the kernel or somebody else killed is named by that; only then
    /// does the agent's own claim count, and it counts as success only together with exit code 0 and the proof
    /// that the agent owes.
    pub fn decide(exit: &Exit, verdict: &Verdict, stop: Option<&StopReason>, proof: Proof) -> Self {
        if exit.status == ExitStatus::NeverStarted {
            return match stop {
                Some(reason) => Self::stopped(reason),
                None => Self::new(
                    OutcomeKind::StartFailed,
                    "the agent's program was never started",
                ),
            };
        }
        match stop {
            // It was done, and only did not leave: how it left after that says nothing.
            Some(StopReason::Lingered { .. }) => return Self::claimed(0, verdict, proof),
            Some(reason) => return Self::stopped(reason),
            None => {}
        }
        match exit.status {
            ExitStatus::NeverStarted | ExitStatus::Lost => Self::new(
                OutcomeKind::Lost,
                "the engine no longer knows the container, and nobody saw its end",
            ),
            ExitStatus::Signal(_) | ExitStatus::Code(137) if exit.oom == Oom::Certain => Self::new(
                OutcomeKind::OutOfMemory,
                "the kernel killed the agent for lack of memory",
            ),
            ExitStatus::Signal(9) | ExitStatus::Code(137) if exit.oom == Oom::Probable => {
                Self::new(
                    OutcomeKind::OutOfMemory,
                    "the agent was killed by SIGKILL, probably for lack of memory",
                )
            }
            ExitStatus::Signal(signal) => Self::new(
                OutcomeKind::Killed,
                format!("{} from outside killed the agent", signal_name(signal)),
            ),
            ExitStatus::Code(code) => Self::claimed(code, verdict, proof),
        }
    }

    fn claimed(code: i32, verdict: &Verdict, proof: Proof) -> Self {
        match (verdict, proof) {
            (Verdict::Error { class, message }, Proof::Stream) => {
                Self::agent_error(*class, message)
            }
            (Verdict::Report { report }, _) if report.status != ReportStatus::Success => {
                let status = match &report.status {
                    ReportStatus::Success | ReportStatus::Failed => "failed",
                    ReportStatus::Partial => "partial",
                    ReportStatus::Other(word) => word,
                };
                let blockers = report.blockers.join("; ");
                let detail = [report.summary.as_str(), blockers.as_str()]
                    .into_iter()
                    .find(|text| !text.trim().is_empty())
                    .map(|text| format!(": {}", one_line(text)));
                Self::new(
                    OutcomeKind::Failed,
                    format!("the agent reports {status}{}", detail.unwrap_or_default()),
                )
            }
            (Verdict::Report { .. } | Verdict::Success, Proof::Stream) if code == 0 => Self::new(
                OutcomeKind::Succeeded,
                "the agent finished and reports success",
            ),
            (_, Proof::ExitCode) if code == 0 => {
                Self::new(OutcomeKind::Succeeded, "the command exited with code 0")
            }
            (Verdict::Silent, Proof::Stream) if code == 0 => Self::new(
                OutcomeKind::NoResult,
                "the agent exited with code 0 but its stream has no result and no report",
            ),
            // Agents that catch a signal exit with 128 and its number; we did not send it, or `stop` would say so.
            (Verdict::Silent, Proof::Stream) if matches!(code, 130 | 137 | 143) => Self::new(
                OutcomeKind::Killed,
                format!(
                    "{} from outside ended the agent (exit code {code})",
                    signal_name(code - 128)
                ),
            ),
            (Verdict::Silent, Proof::Stream) => Self::new(
                OutcomeKind::NoResult,
                format!("the agent exited with code {code} and its stream has no result"),
            ),
            (_, Proof::Stream) => Self::new(
                OutcomeKind::Failed,
                format!("the agent claims success but exited with code {code}"),
            ),
            (_, Proof::ExitCode) => Self::new(
                OutcomeKind::Failed,
                format!("the command exited with code {code}"),
            ),
        }
    }

    fn agent_error(class: ErrorClass, message: &str) -> Self {
        let what = match class {
            ErrorClass::Auth => "the agent could not authenticate",
            ErrorClass::RateLimit => "the agent ran into a rate limit",
            ErrorClass::UsageLimit => "the account's usage limit is reached",
            ErrorClass::Overloaded => "the model's service failed or is overloaded",
            ErrorClass::InvalidRequest => "the model's service refused the request",
            ErrorClass::MaxTurns => "the agent reached its turn limit",
            ErrorClass::Budget => "the agent reached its budget",
            ErrorClass::Refused => "the model declined",
            ErrorClass::Context => "the conversation no longer fits the model",
            ErrorClass::Interrupted => "the agent was interrupted",
            ErrorClass::BadReport => "the agent's completion report is not readable",
            ErrorClass::Internal => "the agent failed",
        };
        let message = one_line(message);
        let cause = if message.is_empty() {
            what.to_owned()
        } else {
            format!("{what}: {message}")
        };
        let kind = if class == ErrorClass::Budget {
            OutcomeKind::Limit
        } else {
            OutcomeKind::Failed
        };
        Self::new(kind, cause)
    }

    fn stopped(reason: &StopReason) -> Self {
        match reason {
            StopReason::Deadline { limit } => Self::new(
                OutcomeKind::TimedOut,
                format!("the time limit of {} passed", human_duration(*limit)),
            ),
            StopReason::Idle { limit } => Self::new(
                OutcomeKind::TimedOut,
                format!(
                    "the agent printed nothing for its idle limit of {}",
                    human_duration(*limit)
                ),
            ),
            StopReason::Lingered { grace } => Self::new(
                OutcomeKind::Cancelled,
                format!("the agent did not leave within {}", human_duration(*grace)),
            ),
            StopReason::Cancelled { by } => {
                Self::new(OutcomeKind::Cancelled, format!("cancelled by {by}"))
            }
            StopReason::LogLimit { limit } => Self::new(
                OutcomeKind::Limit,
                format!("the log reached its limit of {limit}"),
            ),
            StopReason::Budget { spent } => Self::new(OutcomeKind::Limit, spent.to_string()),
            StopReason::DiskLimit { limit, used } => Self::new(
                OutcomeKind::Limit,
                format!(
                    "the agent wrote {used} into the container's own file system, which is beyond its limit of {limit}"
                ),
            ),
        }
    }

    /// Makes an outcome of a kind and a cause.
    pub fn new(kind: OutcomeKind, cause: impl Into<String>) -> Self {
        Self {
            kind,
            cause: cause.into(),
        }
    }

    /// Returns the seed's form of the outcome: anything but success is an error.
    ///
    /// # Errors
    ///
    /// [`UnsuccessfulOutcome`] if the run did not succeed.
    pub fn into_result(self) -> Result<Self, UnsuccessfulOutcome> {
        if self.kind == OutcomeKind::Succeeded {
            Ok(self)
        } else {
            Err(UnsuccessfulOutcome(self))
        }
    }
}

/// Returns the text's first line that is not blank, at most 300 characters of it.
fn one_line(text: &str) -> String {
    let line = text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or("");
    match line.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.trim_end_matches('.').to_owned(),
    }
}

/// Shows a duration the way it is written in a prompt file.
fn human_duration(duration: Duration) -> String {
    let signed = jiff::SignedDuration::try_from(duration).unwrap_or(jiff::SignedDuration::MAX);
    format!("{signed:#}")
}

/// Returns the usual name of a signal number on Linux.
pub fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        18 => "SIGCONT",
        20 => "SIGTSTP",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        28 => "SIGWINCH",
        31 => "SIGSYS",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

mod seconds {
    //! A duration as seconds with a fraction.

    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?)
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CompletionReport, ExitSource};

    fn exit(status: ExitStatus, oom: Oom) -> Exit {
        Exit {
            status,
            oom,
            source: ExitSource::Record,
        }
    }

    fn code(code: i32) -> Exit {
        exit(ExitStatus::Code(code), Oom::No)
    }

    fn signal(signal: i32) -> Exit {
        exit(ExitStatus::Signal(signal), Oom::No)
    }

    fn report(status: ReportStatus) -> Verdict {
        let report = CompletionReport {
            status,
            summary: "half of it".to_owned(),
            blockers: Vec::new(),
            verification: None,
            unknown: std::collections::BTreeMap::new(),
        };
        Verdict::Report { report }
    }

    fn error(class: ErrorClass) -> Verdict {
        Verdict::Error {
            class,
            message: "API Error: 529".to_owned(),
        }
    }

    #[test]
    fn each_combination_of_facts_has_its_outcome() {
        use OutcomeKind::{
            Cancelled, Failed, Killed, Limit, Lost, NoResult, OutOfMemory, StartFailed, Succeeded,
            TimedOut,
        };
        use Verdict::{Silent, Success};
        let deadline = Some(StopReason::Deadline {
            limit: Duration::from_secs(90),
        });
        let cancel = Some(StopReason::Cancelled {
            by: "Ctrl-C".to_owned(),
        });
        #[rustfmt::skip] // One row a case.
        let table = [
            // A stream agent owes a result together with exit code 0.
            (code(0), Success, None, Proof::Stream, Succeeded, "the agent finished and reports success"),
            (code(0), report(ReportStatus::Success), None, Proof::Stream, Succeeded, "the agent finished"),
            (code(0), report(ReportStatus::Partial), None, Proof::Stream, Failed, "reports partial: half of it"),
            (code(0), report(ReportStatus::Failed), None, Proof::Stream, Failed, "reports failed: half of it"),
            (code(0), report(ReportStatus::Other("Success".into())), None, Proof::Stream, Failed, "Success"),
            (code(0), Silent, None, Proof::Stream, NoResult, "has no result and no report"),
            (code(1), Silent, None, Proof::Stream, NoResult, "exited with code 1"),
            (code(1), Success, None, Proof::Stream, Failed, "claims success but exited with code 1"),
            (code(1), report(ReportStatus::Success), None, Proof::Stream, Failed, "claims success but"),
            // Claude exits 0 after SIGINT and says so in its result; an API failure has subtype success and exit 1.
            (code(0), error(ErrorClass::Interrupted), None, Proof::Stream, Failed, "interrupted: API Error: 529"),
            (code(1), error(ErrorClass::Overloaded), None, Proof::Stream, Failed, "overloaded: API Error: 529"),
            (code(1), error(ErrorClass::Budget), None, Proof::Stream, Limit, "reached its budget"),
            // 137 alone is not out of memory, and an out-of-memory kill of a child alone is no failure.
            (exit(ExitStatus::Code(0), Oom::Child), Success, None, Proof::Stream, Succeeded, "the agent finished"),
            (signal(9), Silent, None, Proof::Stream, Killed, "SIGKILL from outside"),
            (code(143), Silent, None, Proof::Stream, Killed, "SIGTERM from outside ended the agent (exit code 143)"),
            (signal(15), Success, None, Proof::Stream, Killed, "SIGTERM from outside"),
            (exit(ExitStatus::Signal(9), Oom::Certain), Silent, None, Proof::Stream, OutOfMemory, "lack of memory"),
            (exit(ExitStatus::Code(137), Oom::Certain), Silent, None, Proof::Stream, OutOfMemory, "lack of memory"),
            (exit(ExitStatus::Signal(9), Oom::Probable), Silent, None, Proof::Stream, OutOfMemory, "probably"),
            (exit(ExitStatus::Signal(9), Oom::Certain), Success, None, Proof::Stream, OutOfMemory, "lack of memory"),
            // What we stopped has our reason, whatever it printed or returned.
            (signal(15), Silent, deadline.clone(), Proof::Stream, TimedOut, "the time limit of 1m 30s passed"),
            (code(0), Success, deadline.clone(), Proof::Stream, TimedOut, "the time limit"),
            (code(143), Silent, cancel.clone(), Proof::Stream, Cancelled, "cancelled by Ctrl-C"),
            (exit(ExitStatus::Signal(9), Oom::Certain), Silent, cancel.clone(), Proof::Stream, Cancelled, "Ctrl-C"),
            (exit(ExitStatus::NeverStarted, Oom::No), Silent, cancel, Proof::Stream, Cancelled, "Ctrl-C"),
            (exit(ExitStatus::Lost, Oom::No), Silent, deadline, Proof::Stream, TimedOut, "the time limit"),
            // A command is judged by its exit code alone.
            (code(0), Silent, None, Proof::ExitCode, Succeeded, "exited with code 0"),
            (code(3), Silent, None, Proof::ExitCode, Failed, "exited with code 3"),
            (code(143), Silent, None, Proof::ExitCode, Failed, "exited with code 143"),
            (signal(11), Silent, None, Proof::ExitCode, Killed, "SIGSEGV"),
            // What never ran, and what nobody saw the end of.
            (exit(ExitStatus::NeverStarted, Oom::No), Silent, None, Proof::ExitCode, StartFailed, "never started"),
            (exit(ExitStatus::Lost, Oom::No), Success, None, Proof::Stream, Lost, "nobody saw its end"),
        ];

        for (exit, verdict, stop, proof, kind, cause) in table {
            let outcome = Outcome::decide(&exit, &verdict, stop.as_ref(), proof);

            assert_eq!(outcome.kind, kind, "{exit:?} {verdict:?} {stop:?}");
            assert!(
                outcome.cause.contains(cause),
                "{:?} lacks {cause:?}",
                outcome.cause
            );
            assert!(
                !outcome.cause.ends_with('.') && !outcome.cause.contains('\n'),
                "{:?}",
                outcome.cause
            );
        }
    }

    #[test]
    fn only_success_is_ok_for_the_seeds_callers() {
        for kind in OutcomeKind::ALL {
            let result = Outcome::new(kind, "why").into_result();

            assert_eq!(result.is_ok(), kind == OutcomeKind::Succeeded);
            assert_eq!(kind.exit_code() == 0, kind == OutcomeKind::Succeeded);
        }
    }
}
