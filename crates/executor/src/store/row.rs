//! Attempts as rows.
//!
//! Owns: the mapping between an attempt and its columns.
//! Reads: nothing else.
//! Never: changes a state without the transition table.

use std::time::Duration;

use dark_factory_types::{AttemptId, ImageRecord, Report, RunId, StopReason};
use jiff::Timestamp;
use rusqlite::{OptionalExtension, Params, Row, ToSql, Transaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{AttemptState, FIRST_GENERATION, StoreError, Tenure, Transition, database};
use crate::clock::Moment;
use crate::engine::Handle;
use crate::spec::LaunchSpec;

/// An attempt that is to be recorded.
#[derive(Debug, Clone)]
pub struct NewAttempt {
    /// Its id; number 1 also records the run.
    pub id: AttemptId,
    /// The engine's name.
    pub engine: String,
    /// What is to be launched.
    pub spec: LaunchSpec,
    /// [`AttemptState::Preparing`] if its supervisor records it, [`AttemptState::Queued`] if a daemon is to have it.
    pub state: AttemptState,
    /// When.
    pub created_at: Timestamp,
}

/// An attempt as the store knows it.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Its id.
    pub id: AttemptId,
    /// The engine's name.
    pub engine: String,
    /// What is, or was, launched.
    pub spec: LaunchSpec,
    /// How far it has come.
    pub state: AttemptState,
    /// The image, once it is known.
    pub image: Option<ImageRecord>,
    /// The container, once it is known.
    pub handle: Option<Handle>,
    /// The request to stop it, if there is one.
    pub stop: Option<StopRequest>,
    /// Whether it is to be frozen, and how long it was.
    pub pause: Pause,
    /// Since when its engine does not answer, if it does not; nothing is known of the workload meanwhile.
    pub silence: Option<Silence>,
    /// How it ended, once it has.
    pub report: Option<Report>,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When the container was started, once it was.
    pub started_at: Option<Timestamp>,
    /// The same moment on every clock, unless an older version recorded the start.
    pub started: Option<Moment>,
    /// When the outcome was decided, once it was.
    pub finished_at: Option<Timestamp>,
    /// Whether what only a running attempt needs is removed: its container, and some files.
    pub is_cleaned_up: bool,
}

impl Attempt {
    /// Returns an attempt as it is once it is recorded.
    pub(crate) fn recorded(new: NewAttempt) -> Self {
        Self {
            id: new.id,
            engine: new.engine,
            spec: new.spec,
            state: new.state,
            image: None,
            handle: None,
            stop: None,
            pause: Pause::default(),
            silence: None,
            report: None,
            created_at: new.created_at,
            started_at: None,
            started: None,
            finished_at: None,
            is_cleaned_up: false,
        }
    }

    /// Returns where the attempt stands, in one word: its state, unless its engine does not answer or it is frozen.
    pub fn status(&self) -> &'static str {
        if self.state == AttemptState::Finished {
            self.state.as_str()
        } else if self.silence.is_some() {
            "unknown"
        } else if self.pause.since.is_some() {
            "paused"
        } else {
            self.state.as_str()
        }
    }
}

/// A request to stop an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopRequest {
    /// Why.
    pub reason: StopReason,
    /// How long the agent may take to leave; `None` is as long as its launch spec says.
    pub grace: Option<Duration>,
    /// Whether something was done about it.
    pub sent: Sent,
}

/// Whether a stop went beyond its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The engine was about to be asked, or was.
    Yes,
    /// Nothing was done yet.
    No,
}

/// Whether an attempt's workload is to be frozen, and how long it was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pause {
    /// What was asked for last.
    pub wanted: Motion,
    /// Since when it is frozen, if it is.
    pub since: Option<Moment>,
    /// How long it was frozen before that, all together.
    pub total: Duration,
}

/// Whether a workload's processes go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Motion {
    /// They do.
    #[default]
    Going,
    /// They are frozen.
    Frozen,
}

/// A time without an answer of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silence {
    /// Since when.
    pub since: Timestamp,
    /// What the first call that was not answered came to.
    pub why: String,
}

/// A state that an attempt reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The state.
    pub state: AttemptState,
    /// The generation of the supervisor that recorded it.
    pub generation: i64,
    /// When.
    pub at: Timestamp,
}

const OPEN_OF_FILE: &str = "SELECT attempt.id FROM attempt JOIN run ON run.id = attempt.run_id \
                            WHERE run.file = ?1 AND attempt.state <> 'finished'";
const ADD_RUN: &str = "INSERT INTO run (id, file, created_at) VALUES (?1, ?2, ?3)";
const ADD_ATTEMPT: &str = "INSERT INTO attempt (id, run_id, number, generation, engine, spec, state, created_at) \
                           VALUES (?1, ?2, ?3, 1, ?4, ?5, ?6, ?7)";
const NOTE_STEP: &str =
    "INSERT INTO step (attempt_id, generation, state, at) VALUES (?1, ?2, ?3, ?4)";
const STATE_OF_OURS: &str = "SELECT state FROM attempt WHERE id = ?1 AND generation = ?2";
const ADVANCE: &str = "UPDATE attempt SET state = ?2, image = coalesce(?3, image), handle = coalesce(?4, handle), \
                       started_at = coalesce(?5, started_at), started = coalesce(?6, started), \
                       report = coalesce(?7, report), finished_at = coalesce(?8, finished_at) WHERE id = ?1";
const STOP_IS_REQUESTED: &str = "SELECT stop_reason IS NOT NULL FROM attempt WHERE id = ?1";

/// Compiles what a launch takes, which takes longer than to execute it; it is kept for then.
pub(super) fn compile(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    let of_a_launch = [
        OPEN_OF_FILE,
        ADD_RUN,
        ADD_ATTEMPT,
        NOTE_STEP,
        STATE_OF_OURS,
        ADVANCE,
        STOP_IS_REQUESTED,
    ];
    of_a_launch
        .iter()
        .try_for_each(|sql| tx.prepare_cached(sql).map(drop))
}

/// Returns an unfinished attempt of a prompt file.
pub(super) fn open_attempt_of(
    tx: &Transaction<'_>,
    file: &str,
) -> Result<Option<AttemptId>, StoreError> {
    let id = tx
        .prepare_cached(OPEN_OF_FILE)
        .and_then(|mut open| {
            open.query_row([file], |row| row.get::<_, String>(0))
                .optional()
        })
        .map_err(database("read an attempt"))?;
    id.map(|id| parse("attempt id", &id)).transpose()
}

/// Returns whether an attempt is its run's first, or follows one that has ended and is the latest.
pub(super) fn is_next(tx: &Transaction<'_>, id: AttemptId) -> Result<bool, StoreError> {
    if id.number() == 1 {
        return Ok(true);
    }
    let latest = "SELECT number = ?2 AND state = 'finished' FROM attempt WHERE run_id = ?1 \
                  ORDER BY number DESC LIMIT 1";
    let previous = (id.run().to_string(), id.number() - 1);
    let is_next = tx
        .query_row(latest, previous, |row| row.get(0))
        .optional()
        .map_err(database("record a new attempt"))?;
    Ok(is_next.unwrap_or(false))
}

pub(super) fn insert(tx: &Transaction<'_>, new: &NewAttempt) -> Result<Tenure, StoreError> {
    let error = database("record a new attempt");
    let run = new.id.run().to_string();
    let created_at = new.created_at.to_string();
    if new.id.number() == 1 {
        execute(tx, ADD_RUN, (&run, &new.spec.file, &created_at)).map_err(&error)?;
    }
    execute(
        tx,
        ADD_ATTEMPT,
        (
            new.id.to_string(),
            &run,
            new.id.number(),
            &new.engine,
            to_json("launch spec", &new.spec)?,
            new.state.as_str(),
            &created_at,
        ),
    )
    .map_err(&error)?;
    let tenure = Tenure {
        attempt: new.id,
        generation: FIRST_GENERATION,
    };
    note_step(tx, tenure, new.state, new.created_at)?;
    Ok(tenure)
}

/// What becomes known of an attempt with its state, by column; what does not stays as it is.
#[derive(Default)]
struct Learned {
    image: Option<String>,
    handle: Option<String>,
    started_at: Option<String>,
    started: Option<String>,
    report: Option<String>,
    finished_at: Option<String>,
}

pub(super) fn advance(
    tx: &Transaction<'_>,
    tenure: Tenure,
    transition: &Transition,
    at: Timestamp,
) -> Result<(), StoreError> {
    let id = tenure.attempt.to_string();
    let state = tx
        .prepare_cached(STATE_OF_OURS)
        .and_then(|mut held| held.query_row((&id, tenure.generation), |row| row.get(0)));
    let from: AttemptState = match state {
        Ok::<String, _>(state) => parse("attempt state", &state)?,
        Err(rusqlite::Error::QueryReturnedNoRows) => {
            return Err(StoreError::LeaseLost {
                attempt: tenure.attempt,
            });
        }
        Err(source) => return Err(database("change an attempt's state")(source)),
    };
    let to = transition.target();
    if !from.may_become(to) {
        return Err(StoreError::BadTransition {
            attempt: tenure.attempt,
            from,
            to,
        });
    }
    let mut learned = Learned::default();
    match transition {
        Transition::Preparing | Transition::Pulling | Transition::Collecting => {}
        Transition::Creating(image) => learned.image = Some(to_json("image", image)?),
        Transition::Starting(handle) => learned.handle = Some(to_json("handle", handle)?),
        Transition::Running(started) => {
            learned.started_at = Some(started.wall.to_string());
            learned.started = Some(to_json("start", started)?);
        }
        Transition::Finished(report) => {
            learned.report = Some(to_json("report", report)?);
            learned.finished_at = Some(report.finished_at.to_string());
        }
    }
    execute(
        tx,
        ADVANCE,
        (
            id,
            to.as_str(),
            learned.image,
            learned.handle,
            learned.started_at,
            learned.started,
            learned.report,
            learned.finished_at,
        ),
    )
    .map_err(database("change an attempt's state"))?;
    note_step(tx, tenure, to, at)
}

pub(super) fn request_stop(
    tx: &Transaction<'_>,
    attempt: AttemptId,
    reason: &StopReason,
    grace: Option<Duration>,
) -> Result<Option<StopReason>, StoreError> {
    let error = database("record a stop request");
    let id = attempt.to_string();
    let open = "state NOT IN ('collecting', 'finished')";
    tx.execute(
        &format!(
            "UPDATE attempt SET stop_reason = ?2 WHERE id = ?1 AND stop_reason IS NULL AND {open}"
        ),
        (&id, to_json("stop reason", reason)?),
    )
    .map_err(&error)?;
    // Whoever is in more of a hurry is heeded.
    tx.execute(
        &format!(
            "UPDATE attempt SET stop_grace_ms = min(coalesce(stop_grace_ms, ?2), ?2) WHERE id = ?1 AND {open} AND ?2 IS NOT NULL"
        ),
        (&id, grace.map(millis)),
    )
    .map_err(&error)?;
    let sql = "SELECT stop_reason FROM attempt WHERE id = ?1";
    let reason = tx
        .query_row(sql, [&id], |row| row.get::<_, Option<String>>(0))
        .optional()
        .map_err(database("read an attempt"))?;
    match reason.flatten() {
        Some(json) => from_json("stop reason", &json).map(Some),
        None => Ok(None),
    }
}

/// Notes that a stop is being carried out, by whoever does so.
pub(super) fn begin_stop(
    tx: &Transaction<'_>,
    attempt: AttemptId,
    at: Timestamp,
) -> Result<(), StoreError> {
    let error = database("record that a stop begins");
    let id = attempt.to_string();
    tx.execute(
        "UPDATE attempt SET stop_sent = 1 WHERE id = ?1 AND state IN ('starting', 'running')",
        [&id],
    )
    .map_err(&error)?;
    // One that is being started goes on to be running first: its supervisor may be about to record that.
    let generation = tx
        .query_row(
            "UPDATE attempt SET state = ?2 WHERE id = ?1 AND state = 'running' RETURNING generation",
            (&id, AttemptState::Stopping.as_str()),
            |row| row.get(0),
        )
        .optional()
        .map_err(&error)?;
    let Some(generation) = generation else {
        return Ok(());
    };
    let tenure = Tenure {
        attempt,
        generation,
    };
    note_step(tx, tenure, AttemptState::Stopping, at)
}

/// Returns whether somebody wants an attempt to be stopped.
pub(super) fn is_stop_requested(tx: &Transaction<'_>, id: AttemptId) -> Result<bool, StoreError> {
    tx.prepare_cached(STOP_IS_REQUESTED)
        .and_then(|mut wanted| {
            wanted
                .query_row([id.to_string()], |row| row.get(0))
                .optional()
        })
        .map(Option::unwrap_or_default)
        .map_err(database("read an attempt"))
}

/// Executes a statement that is kept for the next time.
fn execute(tx: &Transaction<'_>, sql: &str, values: impl Params) -> Result<usize, rusqlite::Error> {
    tx.prepare_cached(sql)?.execute(values)
}

/// Sets columns of an attempt, if the caller still supervises it.
pub(super) fn update(
    tx: &Transaction<'_>,
    tenure: Tenure,
    operation: &'static str,
    assignments: &str,
    values: &[(&str, &dyn ToSql)],
) -> Result<(), StoreError> {
    let id = tenure.attempt.to_string();
    let mut values = values.to_vec();
    values.push((":id", &id));
    values.push((":generation", &tenure.generation));
    let sql =
        format!("UPDATE attempt SET {assignments} WHERE id = :id AND generation = :generation");
    let changed = execute(tx, &sql, values.as_slice()).map_err(database(operation))?;
    if changed == 0 {
        return Err(StoreError::LeaseLost {
            attempt: tenure.attempt,
        });
    }
    Ok(())
}

/// Returns the states that an attempt reached, in order.
pub(super) fn steps(tx: &Transaction<'_>, attempt: AttemptId) -> Result<Vec<Step>, StoreError> {
    let error = database("read an attempt's steps");
    let mut statement = tx
        .prepare("SELECT state, generation, at FROM step WHERE attempt_id = ?1 ORDER BY rowid")
        .map_err(&error)?;
    let rows = statement
        .query_map([attempt.to_string()], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get(1)?,
                row.get::<_, String>(2)?,
            ))
        })
        .map_err(&error)?;
    rows.map(|row| {
        let (state, generation, at) = row.map_err(&error)?;
        Ok(Step {
            state: parse("attempt state", &state)?,
            generation,
            at: parse("time", &at)?,
        })
    })
    .collect()
}

/// Returns an attempt.
pub(super) fn attempt(tx: &Transaction<'_>, id: AttemptId) -> Result<Option<Attempt>, StoreError> {
    select(tx, "id = :id", &[(":id", &id.to_string())]).map(|mut rows| rows.pop())
}

/// Returns the attempts that a condition holds for, given its named parameters; oldest first.
pub(super) fn select(
    tx: &Transaction<'_>,
    condition: &str,
    parameters: &[(&str, &dyn ToSql)],
) -> Result<Vec<Attempt>, StoreError> {
    let error = database("read attempts");
    let sql = format!(
        "SELECT id, engine, spec, state, image, handle, stop_reason, stop_grace_ms, stop_sent, pause_wanted, \
         paused_since, paused_ms, silent_since, silent_why, report, created_at, started_at, started, finished_at, removed \
         FROM attempt WHERE {condition} ORDER BY created_at, run_id, number"
    );
    let mut statement = tx.prepare_cached(&sql).map_err(&error)?;
    let mut rows = statement.query(parameters).map_err(&error)?;
    let mut attempts = Vec::new();
    while let Some(row) = rows.next().map_err(&error)? {
        attempts.push(read_row(row)?);
    }
    Ok(attempts)
}

fn read_row(row: &Row<'_>) -> Result<Attempt, StoreError> {
    let text = |column| {
        row.get::<_, String>(column)
            .map_err(database("read attempts"))
    };
    let maybe = |column| {
        row.get::<_, Option<String>>(column)
            .map_err(database("read attempts"))
    };
    let number = |column| {
        row.get::<_, Option<i64>>(column)
            .map(|number| number.and_then(|number| u64::try_from(number).ok()))
            .map_err(database("read attempts"))
    };
    let moment = |column| -> Result<Option<Moment>, StoreError> {
        maybe(column)?
            .map(|json| from_json("moment", &json))
            .transpose()
    };
    let grace = number("stop_grace_ms")?.map(Duration::from_millis);
    let sent = if number("stop_sent")? == Some(1) {
        Sent::Yes
    } else {
        Sent::No
    };
    let stop = maybe("stop_reason")?
        .map(|json| {
            let reason = from_json("stop reason", &json)?;
            Ok(StopRequest {
                reason,
                grace,
                sent,
            })
        })
        .transpose()?;
    let silence = match (maybe("silent_since")?, maybe("silent_why")?) {
        (Some(since), why) => Some(Silence {
            since: parse("time", &since)?,
            why: why.unwrap_or_default(),
        }),
        (None, _) => None,
    };
    Ok(Attempt {
        id: parse("attempt id", &text("id")?)?,
        engine: text("engine")?,
        spec: from_json("launch spec", &text("spec")?)?,
        state: parse("attempt state", &text("state")?)?,
        image: maybe("image")?
            .map(|json| from_json("image", &json))
            .transpose()?,
        handle: maybe("handle")?
            .map(|json| from_json("handle", &json))
            .transpose()?,
        stop,
        pause: Pause {
            wanted: if number("pause_wanted")? == Some(1) {
                Motion::Frozen
            } else {
                Motion::Going
            },
            since: moment("paused_since")?,
            total: Duration::from_millis(number("paused_ms")?.unwrap_or(0)),
        },
        silence,
        report: maybe("report")?
            .map(|json| from_json("report", &json))
            .transpose()?,
        created_at: parse("time", &text("created_at")?)?,
        started_at: maybe("started_at")?
            .map(|time| parse("time", &time))
            .transpose()?,
        started: moment("started")?,
        finished_at: maybe("finished_at")?
            .map(|time| parse("time", &time))
            .transpose()?,
        is_cleaned_up: number("removed")? == Some(1),
    })
}

fn note_step(
    tx: &Transaction<'_>,
    tenure: Tenure,
    state: AttemptState,
    at: Timestamp,
) -> Result<(), StoreError> {
    execute(
        tx,
        NOTE_STEP,
        (
            tenure.attempt.to_string(),
            tenure.generation,
            state.as_str(),
            at.to_string(),
        ),
    )
    .map_err(database("record a step"))?;
    Ok(())
}

/// Removes a run with its attempts, if all of them have ended; returns whether that is done.
pub(super) fn remove_run(tx: &Transaction<'_>, run: RunId) -> Result<bool, StoreError> {
    let error = database("remove a run");
    let run = run.as_str();
    let open = "SELECT count(*) FROM attempt WHERE run_id = ?1 AND state <> 'finished'";
    let open: i64 = tx
        .query_row(open, [run], |row| row.get(0))
        .map_err(&error)?;
    if open > 0 {
        return Ok(false);
    }
    for sql in [
        "DELETE FROM step WHERE attempt_id IN (SELECT id FROM attempt WHERE run_id = ?1)",
        "DELETE FROM attempt WHERE run_id = ?1",
        "DELETE FROM run WHERE id = ?1",
    ] {
        tx.execute(sql, [run]).map_err(&error)?;
    }
    Ok(true)
}

pub(super) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn to_json<T: Serialize>(what: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Unreadable {
        what,
        source: Box::new(error),
    })
}

fn from_json<T: DeserializeOwned>(what: &'static str, json: &str) -> Result<T, StoreError> {
    serde_json::from_str(json).map_err(|error| StoreError::Unreadable {
        what,
        source: Box::new(error),
    })
}

fn parse<T>(what: &'static str, text: &str) -> Result<T, StoreError>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse().map_err(|error| StoreError::Unreadable {
        what,
        source: Box::new(error),
    })
}
