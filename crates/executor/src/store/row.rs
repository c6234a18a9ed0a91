//! Attempts as rows.
//!
//! Owns: the mapping between an attempt and its columns.
//! Reads: nothing else.
//! Never: changes a state without the transition table.

use dark_factory_types::{AttemptId, ImageRecord, Report, StopReason};
use jiff::Timestamp;
use rusqlite::{Row, Transaction, named_params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{AttemptState, StoreError, Tenure, Transition, database, optional_text};
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
    /// Why we are stopping it, if we are.
    pub stop_reason: Option<StopReason>,
    /// How it ended, once it has.
    pub report: Option<Report>,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When the container was started, once it was.
    pub started_at: Option<Timestamp>,
    /// When the outcome was decided, once it was.
    pub finished_at: Option<Timestamp>,
}

/// Returns an unfinished attempt of a prompt file.
pub(super) fn open_attempt_of(
    tx: &Transaction<'_>,
    file: &str,
) -> Result<Option<AttemptId>, StoreError> {
    let sql = "SELECT attempt.id FROM attempt JOIN run ON run.id = attempt.run_id \
               WHERE run.file = :id AND attempt.state <> 'finished'";
    let id = optional_text(tx, sql, file)?.flatten();
    id.map(|id| parse("attempt id", &id)).transpose()
}

pub(super) fn insert(tx: &Transaction<'_>, new: &NewAttempt) -> Result<Tenure, StoreError> {
    let error = database("record a new attempt");
    let run = new.id.run().to_string();
    let created_at = new.created_at.to_string();
    if new.id.number() == 1 {
        tx.execute(
            "INSERT INTO run (id, file, created_at) VALUES (?1, ?2, ?3)",
            (&run, &new.spec.file, &created_at),
        )
        .map_err(&error)?;
    }
    tx.execute(
        "INSERT INTO attempt (id, run_id, number, generation, engine, spec, state, created_at) \
         VALUES (?1, ?2, ?3, 1, ?4, ?5, ?6, ?7)",
        (
            new.id.to_string(),
            &run,
            new.id.number(),
            &new.engine,
            to_json("launch spec", &new.spec)?,
            AttemptState::Preparing.as_str(),
            &created_at,
        ),
    )
    .map_err(&error)?;
    let tenure = Tenure {
        attempt: new.id,
        generation: 1,
    };
    note_step(tx, tenure, AttemptState::Preparing, new.created_at)?;
    Ok(tenure)
}

pub(super) fn advance(
    tx: &Transaction<'_>,
    tenure: Tenure,
    transition: &Transition,
    at: Timestamp,
) -> Result<(), StoreError> {
    let id = tenure.attempt.to_string();
    let held = "SELECT state FROM attempt WHERE id = ?1 AND generation = ?2";
    let state = tx.query_row(held, (&id, tenure.generation), |row| {
        row.get::<_, String>(0)
    });
    let from: AttemptState = match state {
        Ok(state) => parse("attempt state", &state)?,
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
    let set = |column: &str, value: String| {
        tx.execute(
            &format!("UPDATE attempt SET {column} = ?2 WHERE id = ?1"),
            (&id, value),
        )
        .map_err(database("change an attempt's state"))
    };
    set("state", to.as_str().to_owned())?;
    match transition {
        Transition::Pulling | Transition::Collecting => {}
        Transition::Creating(image) => {
            set("image", to_json("image", image)?)?;
        }
        Transition::Starting(handle) => {
            set("handle", to_json("handle", handle)?)?;
        }
        Transition::Running(started_at) => {
            set("started_at", started_at.to_string())?;
        }
        Transition::Finished(report) => {
            set("report", to_json("report", report)?)?;
            set("finished_at", report.finished_at.to_string())?;
        }
    }
    note_step(tx, tenure, to, at)
}

pub(super) fn request_stop(
    tx: &Transaction<'_>,
    attempt: AttemptId,
    reason: &StopReason,
) -> Result<Option<StopReason>, StoreError> {
    let id = attempt.to_string();
    tx.execute(
        "UPDATE attempt SET stop_reason = ?2 WHERE id = ?1 AND stop_reason IS NULL AND state <> 'finished'",
        (&id, to_json("stop reason", reason)?),
    )
    .map_err(database("record a stop request"))?;
    match optional_text(tx, "SELECT stop_reason FROM attempt WHERE id = :id", &id)?.flatten() {
        Some(json) => from_json("stop reason", &json).map(Some),
        None => Ok(None),
    }
}

pub(super) fn select(
    tx: &Transaction<'_>,
    condition: &str,
    key: &str,
) -> Result<Vec<Attempt>, StoreError> {
    let error = database("read attempts");
    let sql = format!(
        "SELECT id, engine, spec, state, image, handle, stop_reason, report, created_at, started_at, finished_at \
         FROM attempt WHERE {condition} ORDER BY created_at, run_id, number"
    );
    let mut statement = tx.prepare(&sql).map_err(&error)?;
    let mut rows = statement
        .query(named_params! { ":key": key })
        .map_err(&error)?;
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
        stop_reason: maybe("stop_reason")?
            .map(|json| from_json("stop reason", &json))
            .transpose()?,
        report: maybe("report")?
            .map(|json| from_json("report", &json))
            .transpose()?,
        created_at: parse("time", &text("created_at")?)?,
        started_at: maybe("started_at")?
            .map(|time| parse("time", &time))
            .transpose()?,
        finished_at: maybe("finished_at")?
            .map(|time| parse("time", &time))
            .transpose()?,
    })
}

fn note_step(
    tx: &Transaction<'_>,
    tenure: Tenure,
    state: AttemptState,
    at: Timestamp,
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO step (attempt_id, generation, state, at) VALUES (?1, ?2, ?3, ?4)",
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

fn to_json<T: Serialize>(what: &'static str, value: &T) -> Result<String, StoreError> {
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
