//! Makes one exit out of what the helper and the engine say.
//!
//! Owns: the rules of which of the two is believed.
//! Reads: the exit record, the engine's exit, the limits.
//! Never: decides an outcome.

use dark_factory_spool::{
    EXIT_HELPER_FAILED, EXIT_NO_SUPERVISOR, EXIT_SPOOL_GONE, End, ExecFailed, ExitRecord,
    Intervention,
};
use dark_factory_types::{
    ByteSize, Exit, ExitSource, ExitStatus, Oom, Outcome, OutcomeKind, Proof, StopReason,
    Transport, Verdict, signal_name,
};

use crate::engine::{EndedBy, EngineExit, OomSeen};
use crate::spec::Limits;
use crate::store::{Sent, StopRequest};

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
    pub(crate) damage: Option<&'a str>,
    pub(crate) started: Started,
    pub(crate) transport: Transport,
    pub(crate) limits: &'a Limits,
    /// The first signal of a stop, by name.
    pub(crate) stop_signal: &'a str,
}

/// How long an agent may take to leave before a signal from outside is no longer why it did, in milliseconds.
const LEAVING_MS: u64 = 60_000;

/// Whether the helper got as far as executing the agent, or there is no helper to say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Started {
    Yes,
    No,
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
        if let Some(record) = self.record
            && self.transport == Transport::Spool
        {
            let status = match record.end {
                End::Code(code) => ExitStatus::Code(code),
                End::Signal(signal) => ExitStatus::Signal(signal),
            };
            let seen = engine.map_or(OomSeen::No, |exit| exit.oom_killed);
            return Exit {
                status,
                oom: self.oom(status, record.oom_kills, seen),
                source: ExitSource::Record,
            };
        }
        let (code, seen) = match (engine, self.record.map(|record| record.end)) {
            (Some(engine), _) => (
                i32::try_from(engine.code).unwrap_or(i32::MAX),
                engine.oom_killed,
            ),
            // Without a helper, the record is what the engine said before it forgot the container.
            (None, Some(End::Code(code))) => (code, OomSeen::No),
            (None, Some(End::Signal(_)) | None) => {
                return Exit {
                    status: ExitStatus::Lost,
                    oom: Oom::No,
                    source: ExitSource::Engine,
                };
            }
        };
        if self.started == Started::No && matches!(code, EXIT_NO_SUPERVISOR | EXIT_HELPER_FAILED) {
            return never_started(ExitSource::Engine);
        }
        let status = match code {
            129..=192 => ExitStatus::Signal(code - 128),
            code => ExitStatus::Code(code),
        };
        let oom = match self.oom(status, None, seen) {
            // The kernel kills whoever takes the memory, and the helper outlives that and records it. One that
            // wrote no record was killed itself, from outside.
            Oom::Probable if self.transport == Transport::Spool => Oom::No,
            oom => oom,
        };
        Exit {
            status,
            oom,
            source: ExitSource::Engine,
        }
    }

    /// Returns what is known of a kill for lack of memory: `kills` is the helper's count, `seen` the engine's word.
    fn oom(&self, status: ExitStatus, kills: Option<u64>, seen: OomSeen) -> Oom {
        let killed = status == ExitStatus::Signal(9);
        match (kills, seen) {
            (Some(0), OomSeen::No) => Oom::No,
            (Some(_), _) | (None, OomSeen::Yes) if killed => Oom::Certain,
            (Some(_), _) | (None, OomSeen::Yes) => Oom::Child,
            // The engine misses some kills: see the decision on which exit is believed.
            (None, OomSeen::No) if killed && self.limits.memory.is_some() => Oom::Probable,
            (None, OomSeen::No) => Oom::No,
        }
    }

    /// Returns the reason for which the workload ended, if it was stopped: by a request that was carried out before it
    /// ended by itself, or by the helper.
    pub(crate) fn stop_reason(&self, request: Option<&StopRequest>) -> Option<StopReason> {
        let requested = request.map(|request| request.reason.clone());
        if matches!(self.engine, EngineEnd::NeverStarted(_)) {
            return requested;
        }
        if let Some(StopReason::Budget { .. }) = &requested
            && self.exit().status != ExitStatus::Code(0)
        {
            // Its provider refused it, whether or not a signal of ours came before it gave up.
            return requested;
        }
        let sent = requested.filter(|_| request.is_some_and(|request| request.sent == Sent::Yes));
        match self.record {
            Some(record) if self.transport == Transport::Spool => match record.intervention {
                Some(Intervention::LogLimit) => Some(StopReason::LogLimit {
                    limit: self.limits.log.unwrap_or(ByteSize(0)),
                }),
                Some(Intervention::Kill) => sent,
                _ if signal_number(self.stop_signal).is_some_and(|n| record.has_signal(n)) => sent,
                // Whoever was to stop it came too late.
                _ => None,
            },
            _ => sent,
        }
    }

    /// Returns the outcome, with a cause that names what is known only here.
    pub(crate) fn outcome(
        &self,
        verdict: &Verdict,
        request: Option<&StopRequest>,
        proof: Proof,
    ) -> Outcome {
        let exit = self.exit();
        let stop = self.stop_reason(request);
        let outcome = Outcome::decide(&exit, verdict, stop.as_ref(), proof);
        if let (Some(damage), None) = (self.damage, &stop) {
            let cause = format!(
                "the record of the run cannot be read to its end, so nobody knows how it ended: {damage}"
            );
            return Outcome::new(OutcomeKind::Error, cause);
        }
        if stop.is_none()
            && let Some(outcome) = self.ended_from_outside(&exit, verdict, proof)
        {
            return outcome;
        }
        match outcome.kind {
            OutcomeKind::StartFailed => {
                Outcome::new(outcome.kind, self.start_failure(&outcome.cause))
            }
            OutcomeKind::OutOfMemory => {
                let whose = if self.is_hosts_memory() {
                    " on the host"
                } else {
                    ""
                };
                let facts = self.memory_facts();
                let cause = match self.oom_victim() {
                    Some(name) => outcome.cause.replacen(
                        "killed the agent",
                        &format!("killed the agent, `{name}`,"),
                        1,
                    ),
                    None => outcome.cause,
                };
                Outcome::new(outcome.kind, format!("{cause}{whose}{facts}"))
            }
            _ if self.record.is_none() && stop.is_none() && self.helper_said(EXIT_SPOOL_GONE) => {
                Outcome::new(
                    OutcomeKind::Error,
                    "the attempt's spool was removed on the host while the agent ran, so the agent was stopped",
                )
            }
            _ => outcome,
        }
    }

    /// Returns the outcome of a workload that somebody else stopped, unless it proved before that it was done.
    fn ended_from_outside(&self, exit: &Exit, verdict: &Verdict, proof: Proof) -> Option<Outcome> {
        if matches!(exit.status, ExitStatus::NeverStarted | ExitStatus::Lost)
            || matches!(exit.oom, Oom::Certain | Oom::Probable)
        {
            return None;
        }
        let is_done = proof == Proof::Stream && !matches!(verdict, Verdict::Silent);
        if is_done && exit.status == ExitStatus::Code(0) {
            return None;
        }
        let signal = match self.record.and_then(|record| record.intervention) {
            // One that was got over long ago has nothing to do with the end.
            Some(Intervention::Signal(signal))
                if exit.status == ExitStatus::Signal(signal)
                    || self
                        .record
                        .is_some_and(|r| r.intervention_age_ms <= LEAVING_MS) =>
            {
                signal
            }
            Some(Intervention::Signal(_)) => return None,
            Some(Intervention::Kill) => 9,
            Some(Intervention::LogLimit) => return None,
            // With a helper its record would say so: without one, it is what was killed.
            None if self.record.is_some() && self.transport == Transport::Spool => return None,
            None => match (self.ended_by(), exit.status) {
                (EndedBy::EngineDown, _) => 0,
                (EndedBy::Request { signal }, _) => signal,
                (EndedBy::Unknown, _) => return None,
            },
        };
        let cause = if self.ended_by() == EndedBy::EngineDown {
            "the container engine went down and took the container with it; with live-restore it would run on"
                .to_owned()
        } else {
            let name = signal_name(signal);
            match exit.status {
                ExitStatus::Code(code) => {
                    format!("{name} from outside ended the agent (exit code {code})")
                }
                _ => format!("{name} from outside killed the agent"),
            }
        };
        Some(Outcome::new(OutcomeKind::Killed, cause))
    }

    /// Returns whether all of the end would be told without the engine's word, so that none of it goes with the container.
    pub(crate) fn are_on_the_disk(
        &self,
        verdict: &Verdict,
        request: Option<&StopRequest>,
        proof: Proof,
    ) -> bool {
        let (Some(record), EngineEnd::Exited(exit)) = (self.record, self.engine) else {
            return false;
        };
        // The helper ends as its agent did once its record is on the disk, and else in another way.
        let code = match record.end {
            End::Code(code) => code,
            End::Signal(signal) => 128 + signal,
        };
        let without_engine = Facts {
            engine: &EngineEnd::Gone,
            ..*self
        };
        let told = |facts: &Facts<'_>| {
            let outcome = facts.outcome(verdict, request, proof);
            let warnings = facts.warnings(outcome.kind);
            (facts.exit(), facts.stop_reason(request), outcome, warnings)
        };
        self.transport == Transport::Spool
            && exit.code == i64::from(code)
            && told(self) == told(&without_engine)
    }

    fn ended_by(&self) -> EndedBy {
        match self.engine {
            EngineEnd::Exited(exit) => exit.ended_by,
            EngineEnd::Gone | EngineEnd::NeverStarted(_) => EndedBy::Unknown,
        }
    }

    /// Returns the name of the last process that the kernel killed for lack of memory, where it is known. It is the
    /// agent's own choice, so nothing of it can drive a terminal or stand for our own words.
    pub(crate) fn oom_victim(&self) -> Option<String> {
        let name = self.record?.oom_victim.as_ref()?;
        let shown = |c: char| match c {
            '`' => '\'',
            ' '..='~' => c,
            _ => '?',
        };
        Some(name.chars().map(shown).collect())
    }

    /// Returns whether memory ran out although the agent was well below its own limit, or had none.
    fn is_hosts_memory(&self) -> bool {
        let peak = self.record.and_then(|record| record.peak_memory);
        match (self.limits.memory, peak) {
            (Some(limit), Some(peak)) => peak < limit.0 / 10 * 9,
            (Some(_), None) => false,
            (None, _) => true,
        }
    }

    /// Returns the memory limit and the peak, as far as they are known, in brackets.
    fn memory_facts(&self) -> String {
        let limit = self.limits.memory.map(|limit| format!("limit {limit}"));
        let peak = self
            .record
            .and_then(|record| record.peak_memory)
            .map(|peak| format!("peak {}", ByteSize(peak)));
        let facts: Vec<String> = limit.into_iter().chain(peak).collect();
        match facts.as_slice() {
            [] => String::new(),
            facts => format!(" ({})", facts.join(", ")),
        }
    }

    /// Returns what a person should know although it did not decide the outcome.
    pub(crate) fn warnings(&self, outcome: OutcomeKind) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.exit().oom == Oom::Child {
            let name = self.oom_victim().map(|name| format!(", `{name}`,"));
            warnings.push(format!(
                "the kernel killed a process of the agent{} for lack of memory{}",
                name.unwrap_or_default(),
                self.memory_facts()
            ));
        }
        let intervention = self.record.and_then(|record| record.intervention);
        if outcome == OutcomeKind::Succeeded
            && let Some(Intervention::Signal(signal)) = intervention
            && self
                .record
                .is_some_and(|record| record.intervention_age_ms <= LEAVING_MS)
        {
            warnings.push(format!(
                "{} came from outside; the agent had done its work all the same",
                signal_name(signal)
            ));
        }
        warnings
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
                    2 => "the container has no such program, or not the interpreter that it names; check its path \
                          and the image"
                        .to_owned(),
                    8 => "it is not an executable file for this machine; a script needs a first line such as \
                          #!/bin/sh"
                        .to_owned(),
                    13 => "it may not be executed; name a file, and make it executable (chmod +x)".to_owned(),
                    errno => std::io::Error::from_raw_os_error(errno).to_string(),
                };
                format!("bad command {:?}: {why}", failed.program)
            }
            None if self.helper_said(EXIT_NO_SUPERVISOR) => {
                "nobody took the container's output within a minute, so the agent was not started"
                    .to_owned()
            }
            None => cause.to_owned(),
        }
    }
}

/// Returns the number of a signal's name.
fn signal_number(name: &str) -> Option<i32> {
    (1..32).find(|&number| signal_name(number) == name)
}

fn never_started(source: ExitSource) -> Exit {
    Exit {
        status: ExitStatus::NeverStarted,
        oom: Oom::No,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: i64 = 137;
    const LIMITS: Limits = Limits {
        memory: Some(ByteSize(1 << 20)),
        cpus: None,
        pids: None,
        file_size: None,
        open_files: None,
        timeout: None,
        idle: None,
        log: None,
        disk: None,
    };

    fn facts<'a>(
        engine: &'a EngineEnd,
        record: Option<&'a ExitRecord>,
        transport: Transport,
    ) -> Facts<'a> {
        Facts {
            engine,
            record,
            exec_failed: None,
            damage: None,
            started: Started::Yes,
            transport,
            limits: &LIMITS,
            stop_signal: "SIGTERM",
        }
    }

    fn killed(oom_killed: OomSeen) -> EngineEnd {
        EngineEnd::Exited(EngineExit {
            code: KILLED,
            oom_killed,
            error: None,
            ended_by: EndedBy::Unknown,
        })
    }

    /// What is written where there is no helper: the engine's code, and nothing else is known.
    fn engines_record() -> ExitRecord {
        ExitRecord {
            end: End::Code(137),
            totals: [0; 2],
            eof: [true; 2],
            user_us: 0,
            system_us: 0,
            max_rss: 0,
            peak_memory: None,
            oom_kills: None,
            oom_victim: None,
            leftovers: 0,
            intervention: None,
            intervention_age_ms: 0,
            signals: 0,
        }
    }

    #[test]
    fn a_helper_that_was_killed_was_short_of_memory_only_if_the_engine_says_so() {
        for (seen, oom) in [(OomSeen::No, Oom::No), (OomSeen::Yes, Oom::Certain)] {
            let exit = facts(&killed(seen), None, Transport::Spool).exit();

            assert_eq!(
                exit,
                Exit {
                    status: ExitStatus::Signal(9),
                    oom,
                    source: ExitSource::Engine
                }
            );
        }
    }

    #[test]
    fn without_a_helper_the_engines_code_is_read_as_a_signal() {
        for (seen, oom) in [(OomSeen::No, Oom::Probable), (OomSeen::Yes, Oom::Certain)] {
            let exit = facts(&killed(seen), Some(&engines_record()), Transport::Attach).exit();

            assert_eq!(
                exit,
                Exit {
                    status: ExitStatus::Signal(9),
                    oom,
                    source: ExitSource::Engine
                }
            );
        }
    }

    #[test]
    fn what_the_engine_said_counts_after_it_forgot_the_container() {
        let exit = facts(&EngineEnd::Gone, Some(&engines_record()), Transport::Attach).exit();
        assert_eq!(exit.status, ExitStatus::Signal(9));

        let exit = facts(&EngineEnd::Gone, None, Transport::Attach).exit();
        assert_eq!(exit.status, ExitStatus::Lost);
    }

    fn request_and_record(signals: u64) -> (StopRequest, ExitRecord) {
        let request = StopRequest {
            reason: StopReason::Cancelled {
                by: "me".to_owned(),
            },
            grace: None,
            sent: Sent::Yes,
        };
        let record = ExitRecord {
            end: End::Code(1),
            intervention: Some(Intervention::Signal(15)),
            intervention_age_ms: 3_600_000,
            signals,
            ..engines_record()
        };
        (request, record)
    }

    #[test]
    fn a_stop_counts_if_its_own_signal_came_before_the_end() {
        for (signals, counts) in [(1 << 15 | 1 << 10, true), (1 << 10, false)] {
            let (request, record) = request_and_record(signals);
            let engine = killed(OomSeen::No);

            let reason =
                facts(&engine, Some(&record), Transport::Spool).stop_reason(Some(&request));

            assert_eq!(reason.is_some(), counts);
        }
    }

    #[test]
    fn a_signal_that_was_got_over_long_ago_did_not_end_the_agent() {
        let engine = killed(OomSeen::No);
        for (age, kind) in [(3_600_000, OutcomeKind::Failed), (500, OutcomeKind::Killed)] {
            let (_, mut record) = request_and_record(1 << 15);
            record.intervention_age_ms = age;

            let outcome = facts(&engine, Some(&record), Transport::Spool).outcome(
                &Verdict::Silent,
                None,
                Proof::ExitCode,
            );

            assert_eq!(outcome.kind, kind, "{}", outcome.cause);
        }
    }

    #[test]
    fn a_container_whose_record_tells_all_of_its_end_may_go_at_once() {
        let record = ExitRecord {
            end: End::Code(1),
            ..engines_record()
        };
        let exited = |code, oom_killed, ended_by| {
            EngineEnd::Exited(EngineExit {
                code,
                oom_killed,
                error: None,
                ended_by,
            })
        };
        let plain = exited(1, OomSeen::No, EndedBy::Unknown);
        let may_go = |end: &EngineEnd, record, transport| {
            facts(end, record, transport).are_on_the_disk(&Verdict::Silent, None, Proof::ExitCode)
        };

        assert!(may_go(&plain, Some(&record), Transport::Spool));
        let stopped = exited(1, OomSeen::No, EndedBy::Request { signal: 15 });
        assert!(may_go(&stopped, Some(&record), Transport::Spool));
        assert!(!may_go(&plain, Some(&record), Transport::Attach));
        assert!(!may_go(&plain, None, Transport::Spool));
        assert!(!may_go(&EngineEnd::Gone, Some(&record), Transport::Spool));
        // Its helper did not end as its agent did.
        let failed = exited(125, OomSeen::No, EndedBy::Unknown);
        assert!(!may_go(&failed, Some(&record), Transport::Spool));
        // Memory ran out, which only the engine says.
        let short = exited(1, OomSeen::Yes, EndedBy::Unknown);
        assert!(!may_go(&short, Some(&record), Transport::Spool));
    }
}
