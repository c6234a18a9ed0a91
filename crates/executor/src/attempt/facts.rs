//! Makes one exit out of what the helper and the engine say.
//!
//! Owns: the rules of which of the two is believed.
//! Reads: the exit record, the engine's exit, the limits.
//! Never: decides an outcome.

use dark_factory_spool::{
    EXIT_HELPER_FAILED, EXIT_NO_SUPERVISOR, EXIT_SPOOL_GONE, End, ExecFailed, ExitRecord,
};
use dark_factory_types::{ExitSource, ExitStatus, Oom, Outcome, OutcomeKind, Proof, StopReason, Verdict};
use dark_factory_types::Exit;

use crate::engine::{EngineExit, OomSeen};

/// How the engine's side of an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EngineEnd {
    /// The engine says how the container ended.
    Exited(EngineExit),
    /// The engine does not know the container.
    Gone,
    /// The container was never started, and this is why.
    NeverStarted(String),
}

/// What is known at the end of an attempt, from which its exit and outcome follow.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) engine: &'a EngineEnd,
    pub(crate) record: Option<&'a ExitRecord>,
    pub(crate) exec_failed: Option<&'a ExecFailed>,
    pub(crate) started: Started,
    pub(crate) memory_limit: MemoryLimit,
}

/// Whether the helper got as far as executing the agent, or there is no helper to say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Started {
    Yes,
    No,
}

/// Whether the container had a memory limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemoryLimit {
    Set,
    Unset,
}

impl Facts<'_> {
    /// Returns how the main process ended: the helper's word first, then the engine's.
    pub(crate) fn exit(&self) -> Exit {
        let engine = match self.engine {
            EngineEnd::NeverStarted(_) => return never_started(ExitSource::Engine),
            EngineEnd::Exited(exit) => Some(exit),
            EngineEnd::Gone => None,
        };
        if self.exec_failed.is_some() {
            return never_started(ExitSource::Record);
        }
        if let Some(record) = self.record {
            let (status, killed) = match record.end {
                End::Code(code) => (ExitStatus::Code(code), false),
                End::Signal(signal) => (ExitStatus::Signal(signal), signal == 9),
            };
            let seen = engine.is_some_and(|exit| exit.oom_killed == OomSeen::Yes);
            return Exit { status, oom: self.oom(killed, record.oom_kills, seen), source: ExitSource::Record };
        }
        let Some(engine) = engine else {
            return Exit { status: ExitStatus::Lost, oom: Oom::No, source: ExitSource::Engine };
        };
        let code = i32::try_from(engine.code).unwrap_or(i32::MAX);
        if self.started == Started::No && matches!(code, EXIT_NO_SUPERVISOR | EXIT_HELPER_FAILED) {
            return never_started(ExitSource::Engine);
        }
        let status = match code {
            129..=192 => ExitStatus::Signal(code - 128),
            code => ExitStatus::Code(code),
        };
        let seen = engine.oom_killed == OomSeen::Yes;
        Exit { status, oom: self.oom(code == 137, None, seen), source: ExitSource::Engine }
    }

    fn oom(&self, killed: bool, kills: Option<u64>, seen: bool) -> Oom {
        match (killed, kills) {
            (_, Some(0)) if !seen => Oom::No,
            (true, Some(_)) => Oom::Certain,
            (false, Some(_)) => Oom::Child,
            (true, None) if seen => Oom::Certain,
            (false, None) if seen => Oom::Child,
            // The engine misses some kills; see deps.md's tally in the decision record on causes.
            (true, None) if self.memory_limit == MemoryLimit::Set => Oom::Probable,
            (_, None) => Oom::No,
        }
    }

    /// Returns the outcome, with a cause that names what is known only here.
    pub(crate) fn outcome(&self, verdict: &Verdict, stop: Option<&StopReason>, proof: Proof) -> Outcome {
        let exit = self.exit();
        let outcome = Outcome::decide(&exit, verdict, stop, proof);
        match outcome.kind {
            OutcomeKind::StartFailed => Outcome::new(outcome.kind, self.start_failure(&outcome.cause)),
            _ if self.record.is_none() && stop.is_none() && self.helper_said(EXIT_SPOOL_GONE) => Outcome::new(
                OutcomeKind::Error,
                "the attempt's spool was removed on the host while the agent ran, so the agent was stopped",
            ),
            _ => outcome,
        }
    }

    fn helper_said(&self, status: i32) -> bool {
        matches!(self.engine, EngineEnd::Exited(exit) if exit.code == i64::from(status))
    }

    fn start_failure(&self, cause: &str) -> String {
        if let EngineEnd::NeverStarted(why) = self.engine {
            return why.clone();
        }
        match self.exec_failed {
            Some(failed) => {
                let why = match failed.errno {
                    2 => "there is no such program in the image".to_owned(),
                    8 => "it is not an executable file for this machine".to_owned(),
                    13 => "it may not be executed".to_owned(),
                    errno => std::io::Error::from_raw_os_error(errno).to_string(),
                };
                format!("bad command {:?}: {why}", failed.program)
            }
            None if self.helper_said(EXIT_NO_SUPERVISOR) => {
                "nobody took the container's output within a minute, so the agent was not started".to_owned()
            }
            None => cause.to_owned(),
        }
    }
}

fn never_started(source: ExitSource) -> Exit {
    Exit { status: ExitStatus::NeverStarted, oom: Oom::No, source }
}
