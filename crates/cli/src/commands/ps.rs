//! `ps`: the runs.
//!
//! Owns: the table.
//! Reads: the store, never the engine, so that it works with the engine down.
//! Never: changes anything.

use std::collections::HashMap;

use dark_factory_executor::daemon::Seat;
use dark_factory_executor::store::{Attempt, AttemptState};
use dark_factory_executor::supervisor::Supervisor;
use dark_factory_types::{OutcomeKind, RunId, Usage};
use jiff::Timestamp;
use serde::Serialize;

use super::{Format, human_seconds};
use crate::args::PsArgs;
use crate::context::Context;
use crate::error::CommandError;
use crate::tell;
use crate::terminal;

/// One line of `ps --json`.
#[derive(Debug, Serialize)]
struct Line {
    run_id: RunId,
    attempt: u16,
    file: String,
    engine: String,
    agent: String,
    image: String,
    container: String,
    state: &'static str,
    known_state: AttemptState,
    unknown_since: Option<Timestamp>,
    supervised: bool,
    outcome: Option<OutcomeKind>,
    cause: Option<String>,
    usage: Option<Usage>,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    dir: String,
}

pub(crate) async fn ps(
    context: &Context,
    args: &PsArgs,
    format: Format,
) -> Result<u8, CommandError> {
    let supervisor = context.supervisor()?;
    let attempts = supervisor
        .store()
        .attempts()
        .await
        .map_err(dark_factory_executor::error::ExecutorError::from)?;
    // In the order of their times; a run is what its latest attempt is.
    let mut latest: HashMap<RunId, u16> = HashMap::new();
    for attempt in &attempts {
        let number = latest.entry(attempt.id.run()).or_default();
        *number = attempt.id.number().max(*number);
    }
    let used = used(&attempts);
    let wanted = attempts
        .into_iter()
        .filter(|a| latest.get(&a.id.run()) == Some(&a.id.number()))
        .filter(|a| args.all || a.state != AttemptState::Finished);
    let lines = wanted
        .map(|attempt| {
            let used = used.get(&attempt.id.run()).copied();
            line(&supervisor, attempt, used)
        })
        .collect::<Result<Vec<_>, _>>()?;
    match format {
        Format::Json => lines.iter().for_each(terminal::print_json),
        Format::Text => terminal::print(&table(&lines)),
    }
    let queued = lines
        .iter()
        .filter(|line| line.known_state == AttemptState::Queued);
    let queued = queued.count();
    if queued > 0 && !has_daemon(context)? {
        tell::progress(&format!(
            "{queued} queued, and no daemon runs: `dark-factory daemon start` begins with them"
        ));
    }
    Ok(dark_factory_types::exit_code::SUCCEEDED)
}

fn has_daemon(context: &Context) -> Result<bool, CommandError> {
    let holder = Seat::holder(&context.state_dir);
    holder
        .map(|holder| holder.is_some())
        .map_err(|error| CommandError::internal("look for a daemon", error))
}

/// Returns what each run has used, as far as its attempts have ended.
fn used(attempts: &[Attempt]) -> HashMap<RunId, Usage> {
    let mut used: HashMap<RunId, Usage> = HashMap::new();
    for attempt in attempts {
        if let Some(report) = &attempt.report {
            used.entry(attempt.id.run()).or_default().add(&report.usage);
        }
    }
    used
}

fn line(
    supervisor: &Supervisor,
    attempt: Attempt,
    usage: Option<Usage>,
) -> Result<Line, CommandError> {
    let supervised =
        attempt.state != AttemptState::Finished && supervisor.is_supervised(attempt.id)?;
    let state = attempt.status();
    Ok(Line {
        run_id: attempt.id.run(),
        attempt: attempt.id.number(),
        container: attempt.spec.container_name(attempt.id),
        dir: supervisor
            .state_dir()
            .attempt(attempt.id)
            .path()
            .display()
            .to_string(),
        file: attempt.spec.file,
        engine: attempt.engine,
        agent: attempt.spec.agent,
        image: attempt.spec.image,
        state,
        known_state: attempt.state,
        unknown_since: attempt.silence.as_ref().map(|silence| silence.since),
        supervised,
        usage,
        outcome: attempt.report.as_ref().map(|r| r.outcome),
        cause: attempt.report.map(|r| r.cause),
        created_at: attempt.created_at,
        started_at: attempt.started_at,
        finished_at: attempt.finished_at,
    })
}

/// Says where an open run stands.
fn state(line: &Line) -> String {
    let unsupervised = match line.known_state {
        AttemptState::Queued => "",
        _ if line.supervised => "",
        _ => " (unsupervised)",
    };
    let since = line.unknown_since.map_or(String::new(), |since| {
        since.strftime(" since %Y-%m-%d %H:%M:%SZ").to_string()
    });
    format!("{}{since}{unsupervised}", line.state)
}

fn table(lines: &[Line]) -> String {
    let header = ["RUN", "STATE", "AGENT", "STARTED", "TIME", "FILE"].map(str::to_owned);
    let rows = lines.iter().map(|line| {
        let state = match line.outcome {
            Some(outcome) => outcome.to_string(),
            None => state(line),
        };
        let time = match (line.started_at, line.finished_at) {
            (Some(from), Some(to)) => human_seconds(to.duration_since(from).as_secs_f64()),
            _ => "-".to_owned(),
        };
        let started = line.started_at.map_or("-".to_owned(), |at| {
            at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
        });
        [
            line.run_id.to_string(),
            state,
            line.agent.clone(),
            started,
            time,
            line.file.clone(),
        ]
    });
    terminal::table(std::iter::once(header).chain(rows))
}
