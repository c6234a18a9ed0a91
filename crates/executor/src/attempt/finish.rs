//! The end of an attempt: its report, and what is cleaned up after it.
//!
//! Owns: the report's content, and the order in which it becomes durable and the rest is removed.
//! Reads: the attempt's row.
//! Never: removes anything that the report is made of before the report is durable.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use dark_factory_agents::{Agent, Conclusion, Mask, priced_usd};
use dark_factory_spool::ExitRecord;
use dark_factory_types::{
    ByteSize, EgressSummary, Exit, ExitStatus, LogState, REPORT_VERSION, Report, Transport, Usage,
    Verdict,
};

use super::drive::Drive;
use super::facts::{EngineEnd, Facts, Started};
use super::pump::Collected;
use super::reconcile::unlike;
use crate::egress::{EgressDemand, KeptWay};
use crate::engine::{EngineError, Recovered, Workload};
use crate::error::ExecutorError;
use crate::failpoint::reach;
use crate::recorder::Touched;
use crate::report_md::report_md;
use crate::spec::{Disposal, LaunchSpec, StopPolicy};
use crate::state_dir::{sync_all, write_whole};
use crate::store::{Attempt, Transition};

impl Drive<'_> {
    /// Decides the outcome, makes it durable, and cleans up.
    pub(super) async fn finish(
        &self,
        row: &Attempt,
        agent: &'static dyn Agent,
        end: &EngineEnd,
        workload: Option<Box<dyn Workload>>,
        collected: Collected,
    ) -> Result<Report, ExecutorError> {
        let mask = collected.mask.clone();
        let (mut report, whose) = self.report(row, agent, end, collected);
        // One that was gone for a wait may be there all the same: it is looked for.
        let workload = workload.filter(|_| *end != EngineEnd::Gone);
        let removal = self.remove_container(row, workload, report.exit);
        match whose {
            Word::Files => {
                let rest = async {
                    self.complete(row, &mask, &mut report).await?;
                    Ok::<_, ExecutorError>(self.remove_rest(&report).await)
                };
                let (removed, rest) = tokio::join!(removal, rest);
                self.mark_removed(told(removed), rest?).await;
            }
            Word::Engines => {
                self.complete(row, &mask, &mut report).await?;
                self.clean_up(removal, &report).await;
            }
        }
        Ok(report)
    }

    /// Adds what is known of the end besides the agent's own, and makes the report durable.
    async fn complete(
        &self,
        row: &Attempt,
        mask: &Mask,
        report: &mut Report,
    ) -> Result<(), ExecutorError> {
        self.add_changes(&row.spec, report).await;
        self.add_egress(&row.spec, report).await;
        hide(mask, report);
        self.reach("changes", "after").await?;
        self.write_report(report).await?;
        self.advance(Transition::Finished(Box::new(report.clone())))
            .await?;
        self.keep_report().await
    }

    /// Writes the report's files, for processes to read.
    async fn write_report(&self, report: &Report) -> Result<(), ExecutorError> {
        let text = report_md(report, &self.dir);
        let json =
            serde_json::to_vec_pretty(report).map_err(|error| self.output_error(error.into()))?;
        let (text_path, json_path) = (self.dir.report_md(), self.dir.report_json());
        self.reach("report", "before").await?;
        self.write_patiently(move || {
            // First, so that there is none without it.
            for (path, bytes) in [(&text_path, text.as_bytes()), (&json_path, &json)] {
                // What is whole needs no room.
                if !std::fs::read(path).is_ok_and(|there| there == bytes) {
                    write_whole(path, bytes)?;
                }
            }
            Ok(())
        })
        .await?;
        self.reach("report", "after").await
    }

    /// Makes the report safe from a loss of power, in its files and in the store.
    ///
    /// Until that is done the attempt is not marked as removed, so whoever finds it writes the files once more.
    async fn keep_report(&self) -> Result<(), ExecutorError> {
        let [text, json, folder] = [
            self.dir.report_md(),
            self.dir.report_json(),
            self.dir.path().to_owned(),
        ]
        .map(|path| [path]);
        // In any order: until the last of them nothing is removed, and one that is there without the others is torn.
        tokio::try_join!(
            self.write_patiently(move || sync_all(&text)),
            self.write_patiently(move || sync_all(&json)),
            self.write_patiently(move || sync_all(&folder)),
            self.patiently(|| self.store.sync()),
        )?;
        Ok(())
    }

    /// Goes on with an attempt whose report was decided: nothing is removed before that is safe.
    pub(super) async fn finish_again(
        &self,
        attempt: &Attempt,
        report: &Report,
    ) -> Result<(), ExecutorError> {
        if !attempt.is_cleaned_up {
            self.write_report(report).await?;
            self.keep_report().await?;
        }
        let removal = self.remove_container(attempt, None, report.exit);
        self.clean_up(removal, report).await;
        Ok(())
    }

    fn report(
        &self,
        row: &Attempt,
        agent: &'static dyn Agent,
        end: &EngineEnd,
        collected: Collected,
    ) -> (Report, Word) {
        let spec = &row.spec;
        let facts = Facts {
            engine: end,
            record: collected.exit.as_ref(),
            exec_failed: collected.exec_failed.as_ref(),
            damage: collected.damage.as_deref(),
            started: if collected.started_at.is_some() {
                Started::Yes
            } else {
                Started::No
            },
            transport: spec.transport,
            limits: &spec.limits,
            stop_signal: &spec.stop.signal,
        };
        let usage = priced(agent, spec, &collected.conclusion);
        let verdict = agent.verdict_at_exit(collected.conclusion.verdict, &facts.exit());
        let outcome = facts.outcome(&verdict, row.stop.as_ref(), agent.proof());
        let is_told = collected.log == LogState::Complete
            && facts.are_on_the_disk(&verdict, row.stop.as_ref(), agent.proof());
        let whose = match is_told {
            true => Word::Files,
            false => Word::Engines,
        };
        let mut warnings = collected.warnings;
        warnings.extend(facts.warnings(outcome.kind));
        warnings.extend(denied(collected.conclusion.denials));
        let exit = facts.exit();
        let never_started = exit.status == ExitStatus::NeverStarted;
        let report = Report {
            version: REPORT_VERSION,
            attempt_id: row.id,
            file: spec.file.clone(),
            engine: row.engine.clone(),
            agent: spec.agent.clone(),
            container: spec.container_name(row.id),
            image: row.image.clone(),
            outcome: outcome.kind,
            cause: outcome.cause,
            exit: Some(exit),
            verdict: if never_started {
                Verdict::Silent
            } else {
                verdict
            },
            stop_reason: facts.stop_reason(row.stop.as_ref()),
            // An agent that was never executed has printed nothing.
            log: if never_started && collected.damage.is_none() {
                LogState::Complete
            } else {
                collected.log
            },
            transport: spec.transport,
            unsealed: spec.transport == Transport::Attach,
            root_owner: spec.is_root_owner(),
            limits: spec.limits.record(),
            usage,
            model: collected.conclusion.model,
            session_id: collected.conclusion.session_id,
            peak_memory: collected
                .exit
                .as_ref()
                .and_then(|e| e.peak_memory)
                .map(ByteSize),
            oom_kills: collected.exit.as_ref().and_then(|e| e.oom_kills),
            oom_victim: facts.oom_victim(),
            cpu_ms: collected.exit.as_ref().map(cpu_ms),
            stdout_bytes: collected.totals[0],
            stderr_bytes: collected.totals[1],
            last_tool: collected.conclusion.last_tool,
            changes: None,
            changed_files: Vec::new(),
            egress: None,
            warnings,
            created_at: row.created_at,
            started_at: row.started_at.or(collected.started_at),
            finished_at: self.clock.now(),
        };
        (report, whose)
    }

    /// Adds what the attempt changed in its workspace; one that was never started has changed nothing.
    async fn add_changes(&self, spec: &LaunchSpec, report: &mut Report) {
        let Some(recorder) = self.recorder else {
            return;
        };
        if report
            .exit
            .is_some_and(|exit| exit.status == ExitStatus::NeverStarted)
        {
            return;
        }
        let touched = Touched::by(spec);
        let recorded = self
            .record_patiently(|| recorder.after(&touched, &self.dir))
            .await;
        report.changes = Some(recorded.changes);
        report.changed_files = recorded.files;
        report.warnings.extend(recorded.warning);
        report.warnings.extend(recorded.obeyed);
    }

    /// Closes the container's way out, if it had one, and adds what came of its requests.
    async fn add_egress(&self, spec: &LaunchSpec, report: &mut Report) {
        let guard = self.guard.filter(|_| EgressDemand::is_needed(spec));
        let Some(guard) = guard.map(Arc::clone) else {
            return;
        };
        if let Some(why) = self.way.as_ref().and_then(KeptWay::shut) {
            report.warnings.push(format!(
                "its way out was shut when it ended, so that its requests failed: {why}"
            ));
        }
        guard.close(report.attempt_id).await;
        let dir = self.dir.clone();
        let read = tokio::task::spawn_blocking(move || guard.summary(&dir));
        match read.await.map_err(io::Error::other).flatten() {
            Ok(summary) => {
                report.warnings.extend(refusals(&summary));
                report.warnings.extend(unlike(&report.usage, &summary));
                report.egress = Some(summary);
            }
            Err(error) => report.warnings.push(format!(
                "what came of its requests to the outside cannot be told: {error}"
            )),
        }
    }

    /// Removes the container, and then what only a running attempt needs; a failure is left to `recover`.
    async fn clean_up(
        &self,
        removal: impl Future<Output = Result<(), EngineError>>,
        report: &Report,
    ) {
        let removed = told(removal.await);
        let rest = match removed {
            Removal::Done => self.remove_rest(report).await,
            Removal::Failed => Removal::Failed,
        };
        self.mark_removed(removed, rest).await;
    }

    /// Removes what only a running attempt needs, besides the container.
    async fn remove_rest(&self, report: &Report) -> Removal {
        if self.reach("files", "before").await.is_err() {
            return Removal::Failed;
        }
        if self.forget_workspace().await == Removal::Failed {
            return Removal::Failed;
        }
        let mut remains = vec![
            Remains::Folder(self.dir.secrets()),
            Remains::Folder(self.dir.mount()),
            Remains::File(self.dir.nudge()),
            Remains::File(self.dir.cursor()),
            Remains::File(self.dir.cursor().with_added_extension("new")),
        ];
        if report.log == LogState::Complete {
            remains.push(Remains::File(self.dir.spool()));
        }
        self.remove_files(remains).await
    }

    /// Records that nothing is left to be removed, if that is so.
    async fn mark_removed(&self, container: Removal, rest: Removal) {
        if [container, rest].contains(&Removal::Failed) {
            return;
        }
        if let Err(error) = self.store.mark_removed(self.tenure).await {
            tracing::warn!(%error, "the attempt is cleaned up again by the next `dark-factory recover`");
        }
    }

    /// Removes the record of the workspace as it was before.
    async fn forget_workspace(&self) -> Removal {
        let Some(recorder) = self.recorder.map(Arc::clone) else {
            return Removal::Done;
        };
        let dir = self.dir.clone();
        let forgotten = tokio::task::spawn_blocking(move || recorder.forget(&dir));
        match forgotten.await.map_err(io::Error::other).flatten() {
            Ok(()) => Removal::Done,
            Err(error) => {
                tracing::warn!(%error, "the record of the project as it was before stays");
                Removal::Failed
            }
        }
    }

    /// Removes files, each whatever becomes of the others.
    async fn remove_files(&self, remains: Vec<Remains>) -> Removal {
        let removed = tokio::task::spawn_blocking(move || {
            let failed = remains.iter().filter(|remains| remains.remove().is_err());
            // All of them: `any` would leave those behind the first failure.
            failed.count()
        });
        match removed.await {
            Ok(0) => Removal::Done,
            Ok(_) => Removal::Failed,
            Err(error) => {
                tracing::warn!(%error, "files that only a running attempt needs stay");
                Removal::Failed
            }
        }
    }

    pub(super) async fn reach(&self, point: &str, side: &str) -> Result<(), ExecutorError> {
        reach(["attempt", point, side])
            .await
            .map_err(|error| self.output_error(io::Error::other(error)))
    }

    async fn remove_container(
        &self,
        row: &Attempt,
        workload: Option<Box<dyn Workload>>,
        exit: Option<Exit>,
    ) -> Result<(), EngineError> {
        // Whatever the engine says, or does not, when it is to remove the container.
        if has_ended(exit) && !row.spec.secrets.is_empty() {
            self.remove_files(vec![Remains::Folder(self.dir.secrets())])
                .await;
        }
        // Only attached containers may have been adopted; one without our label stays where it is.
        if let (Transport::Attach, Some(handle)) = (row.spec.transport, &row.handle) {
            // Another engine says nothing about it, least of all that it is not ours.
            let is_gone = matches!(self.look(handle).await?, Recovered::Gone);
            if is_gone || !self.is_ours().await? {
                return Ok(());
            }
        }
        if let Some(workload) = workload {
            let disposed = dispose(row, workload.as_ref()).await;
            if let (Err(_), Some(handle)) = (&disposed, &row.handle)
                && let Ok(Recovered::Running(workload)) = self.look(handle).await
            {
                // Once more, by a start that came late.
                workload.stop(&StopPolicy::kill()).await?;
                return dispose(row, workload.as_ref()).await;
            }
            return disposed;
        }
        let Some(handle) = &row.handle else {
            return self.remove_unknown(row).await;
        };
        match self.look(handle).await? {
            Recovered::Gone => Ok(()),
            Recovered::Created(workload) => workload.remove().await,
            Recovered::Exited(_, workload) => dispose(row, workload.as_ref()).await,
            Recovered::Running(workload) => {
                workload.stop(&StopPolicy::kill()).await?;
                dispose(row, workload.as_ref()).await
            }
        }
    }

    /// Removes what a call to create made whose reply we never had.
    async fn remove_unknown(&self, row: &Attempt) -> Result<(), EngineError> {
        if row.image.is_none() {
            return Ok(());
        }
        let owner = self.store.owner();
        for container in self.engine.list_owned(owner).await? {
            if container.attempt == Some(self.tenure.attempt) {
                self.engine.remove_owned(owner, &container).await?;
            }
        }
        Ok(())
    }
}

/// Says what was refused, if something was.
fn refusals(summary: &EgressSummary) -> Option<String> {
    const SHOWN: usize = 5;
    let refused = summary.denied.iter().map(|denied| match denied.requests {
        1 => denied.target.clone(),
        times => format!("{} ({times} times)", denied.target),
    });
    let shown: Vec<String> = refused.take(SHOWN).collect();
    let more = match summary.denied.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!shown.is_empty()).then(|| {
        format!(
            "the agent asked for hosts that `network: allow` does not name: {}{more}",
            shown.join(", ")
        )
    })
}

/// Removes an ended container, unless it is to be kept.
async fn dispose(row: &Attempt, workload: &dyn Workload) -> Result<(), EngineError> {
    match row.spec.disposal {
        Disposal::Remove => workload.remove().await,
        Disposal::Keep => Ok(()),
    }
}

/// Whose word an attempt's end is told by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// What is in its files, and on the disk, tells all of it: its container may go before the report is safe.
    Files,
    /// The engine's, which is gone with the container.
    Engines,
}

/// Returns whether a container was removed, and says so if it stays.
fn told(removed: Result<(), EngineError>) -> Removal {
    match removed {
        Ok(()) => Removal::Done,
        Err(error) => {
            tracing::warn!(error = %error.sentence(), "the container stays; `dark-factory recover` removes it later");
            Removal::Failed
        }
    }
}

/// Whether all of something is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Removal {
    Done,
    Failed,
}

/// What only a running attempt needs.
#[derive(Debug)]
enum Remains {
    Folder(PathBuf),
    File(PathBuf),
}

impl Remains {
    /// Removes it, and says so if it stays; what is gone already is no error. Blocks.
    fn remove(&self) -> io::Result<()> {
        let (path, result) = match self {
            Self::Folder(path) => (path, std::fs::remove_dir_all(path)),
            Self::File(path) => (path, std::fs::remove_file(path)),
        };
        match result {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let path = path.display();
                tracing::warn!(%path, %error, "stays; `dark-factory recover` removes it later");
                Err(error)
            }
            _ => Ok(()),
        }
    }
}

/// Hides secrets in what is said of a run besides the agent's own claim, which has none any more.
fn hide(mask: &Mask, report: &mut Report) {
    mask.string(&mut report.cause);
    report
        .oom_victim
        .iter_mut()
        .for_each(|name| mask.string(name));
    report
        .warnings
        .iter_mut()
        .for_each(|text| mask.string(text));
    if let Some(note) = report
        .changes
        .as_mut()
        .and_then(|changes| changes.note.as_mut())
    {
        mask.string(note);
    }
    for file in &mut report.changed_files {
        mask.string(&mut file.path);
        file.renamed_from
            .iter_mut()
            .for_each(|path| mask.string(path));
    }
}

/// Returns whether nothing of the workload can be at work any more, whether its container is there or not.
fn has_ended(exit: Option<Exit>) -> bool {
    exit.is_some_and(|exit| exit.status != ExitStatus::Lost)
}

/// Returns what an attempt used. The model that it asked for prices it, if its stream does not say which it had.
fn priced(agent: &dyn Agent, spec: &LaunchSpec, conclusion: &Conclusion) -> Usage {
    let mut usage = conclusion.usage;
    if conclusion.model.is_none()
        && usage.total_tokens() > 0
        && let Some(model) = agent.asked_model(&spec.command)
    {
        usage.priced_usd = priced_usd(model, &usage);
    }
    usage
}

fn denied(calls: u64) -> Option<String> {
    match calls {
        0 => None,
        1 => Some("the agent was not permitted to use a tool once".to_owned()),
        calls => Some(format!(
            "the agent was not permitted to use a tool {calls} times"
        )),
    }
}

fn cpu_ms(record: &ExitRecord) -> u64 {
    (record.user_us + record.system_us) / 1000
}
