//! The state store: which attempts there are, how far each has come, and why we stopped one.
//!
//! Owns: the database file, its schema, and the check of every transition.
//! Reads: nothing else.
//! Never: talks to an engine.

mod error;
#[cfg(test)]
pub(crate) mod reference;
mod row;
mod schema;
mod state;

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dark_factory_types::{AttemptId, ImageRecord, OwnerId, Report, RunId, StopReason};
use jiff::Timestamp;
use rusqlite::{Connection, Transaction, TransactionBehavior, named_params};

pub use error::StoreError;
pub use row::{Attempt, Motion, NewAttempt, Pause, Sent, Silence, Step, StopRequest};
pub use state::AttemptState;

use self::error::database;
use crate::clock::Moment;
use crate::engine::Handle;
use crate::failpoint::reach;

/// How long one operation waits for other processes to be done with the database. Hundreds of them may write at once,
/// each with a sync of a slow disk, and SQLite gives none of them a place in a queue.
const BUSY_PATIENCE: Duration = Duration::from_secs(30);

/// Statements that are kept compiled: all that a run takes.
const STATEMENTS: usize = 32;

/// What SQLite adds to the database's name for its write-ahead log.
const LOG: &str = "-wal";

/// The generation of the supervisor that records an attempt.
const FIRST_GENERATION: i64 = 1;

/// What a living supervisor writes with every change: the attempt and the generation of its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tenure {
    /// The attempt.
    pub attempt: AttemptId,
    /// The generation that the supervisor was given.
    pub generation: i64,
}

impl Tenure {
    /// Returns whether it is that of the supervisor which recorded the attempt.
    pub(crate) fn is_first(self) -> bool {
        self.generation == FIRST_GENERATION
    }
}

/// A change of an attempt's state, and what becomes known with it.
#[derive(Debug, Clone)]
pub enum Transition {
    /// A supervisor begins with a queued attempt.
    Preparing,
    /// The image is being made sure of.
    Pulling,
    /// The image is there; the container is about to be created.
    Creating(ImageRecord),
    /// The container is there; it is about to be started.
    Starting(Handle),
    /// The container was started at this time.
    Running(Moment),
    /// The workload has ended; what it printed is being collected.
    Collecting,
    /// The outcome is decided.
    Finished(Box<Report>),
}

impl Transition {
    /// Returns the state that it leads to.
    pub(crate) fn target(&self) -> AttemptState {
        match self {
            Self::Preparing => AttemptState::Preparing,
            Self::Pulling => AttemptState::Pulling,
            Self::Creating(_) => AttemptState::Creating,
            Self::Starting(_) => AttemptState::Starting,
            Self::Running(_) => AttemptState::Running,
            Self::Collecting => AttemptState::Collecting,
            Self::Finished(_) => AttemptState::Finished,
        }
    }
}

/// What recording a new attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is recorded, and this is its first tenure.
    New(Tenure),
    /// Its prompt file has an open attempt, this one; nothing was recorded.
    FileIsOpen(AttemptId),
    /// It is not its run's next attempt, or the one before has not ended; nothing was recorded.
    NotNext,
}

/// From when on a change is safe from a loss of power; from the death of its process every one is at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Safe {
    /// Once it is written.
    AtOnce,
    /// By the next [`Store::sync`], whoever calls it.
    BySync,
}

/// The state store. Cheap to clone; every operation runs on the runtime's blocking threads.
#[derive(Debug, Clone)]
pub struct Store {
    connection: Arc<Mutex<Connection>>,
    path: Arc<Path>,
    owner: OwnerId,
}

impl Store {
    /// Opens the store, making or upgrading it if need be. Blocks.
    ///
    /// `owner` names the installation if the store is new; otherwise the stored name is kept.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`], [`StoreError::Damaged`], [`StoreError::Turn`] or [`StoreError::NewerSchema`].
    pub fn open(path: &Path, owner: &OwnerId) -> Result<Self, StoreError> {
        let connection = Connection::open(path).map_err(database("open its database"))?;
        connection
            .busy_timeout(BUSY_PATIENCE)
            .map_err(database("open its database"))?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        let owner = schema::prepare(&connection, path, owner).map_err(|error| error.at(path))?;
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
            path: path.into(),
            owner,
        })
    }

    /// Returns the installation's name.
    pub fn owner(&self) -> &OwnerId {
        &self.owner
    }

    /// Records a new run and its first attempt, or a run's next attempt, unless a run of the same prompt file is open.
    ///
    /// Prompts that are not files (`-`) never stand in each other's way.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`] or [`StoreError::Unreadable`].
    pub async fn add(&self, attempt: NewAttempt) -> Result<Added, StoreError> {
        let Ok(((), added)) = self.add_after(attempt, || Ok::<_, Infallible>(())).await?;
        Ok(added)
    }

    /// Does something else first, on the same blocking thread, and then what [`Store::add`] does. The inner error is that of
    /// what is done first: then nothing is recorded.
    ///
    /// # Errors
    ///
    /// As [`Store::add`].
    pub(crate) async fn add_after<T: Send + 'static, E: Send + 'static>(
        &self,
        attempt: NewAttempt,
        first: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<Result<(T, Added), E>, StoreError> {
        self.reach("add", "before").await?;
        let store = self.clone();
        let added = tokio::task::spawn_blocking(move || {
            let done = match first() {
                Ok(done) => done,
                Err(error) => return Ok(Err(error)),
            };
            let operation = "record a new attempt";
            let added = store.transact_here(operation, TransactionBehavior::Immediate, |tx| {
                match row::open_attempt_of(tx, &attempt.spec.file)? {
                    Some(open) if attempt.spec.file != "-" => Ok(Added::FileIsOpen(open)),
                    _ if !row::is_next(tx, attempt.id)? => Ok(Added::NotNext),
                    _ => row::insert(tx, &attempt).map(Added::New),
                }
            });
            added.map(|added| Ok((done, added)))
        });
        let added = added.await.map_err(|_| StoreError::ShutDown)?;
        self.reach("add", "after").await?;
        added
    }

    /// Records a new run whose attempt begins with a container that runs, or ran, before we knew of it.
    ///
    /// All of it in one transaction: an attempt that had only some of it would make a container. Returns `None` if an
    /// unfinished attempt has the container already.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`] or [`StoreError::Unreadable`].
    pub async fn adopt(
        &self,
        attempt: NewAttempt,
        image: ImageRecord,
        handle: Handle,
        started: Moment,
    ) -> Result<Option<Tenure>, StoreError> {
        self.write(
            "adopt",
            Safe::BySync,
            "record an adopted container",
            move |tx| {
                let open = row::select(tx, "state <> 'finished' AND handle IS NOT NULL", &[])?;
                let is_same =
                    |other: &Handle| other.engine == handle.engine && other.state == handle.state;
                if open
                    .iter()
                    .filter_map(|attempt| attempt.handle.as_ref())
                    .any(is_same)
                {
                    return Ok(None);
                }
                let tenure = row::insert(tx, &attempt)?;
                for transition in [
                    Transition::Pulling,
                    Transition::Creating(image),
                    Transition::Starting(handle),
                    Transition::Running(started),
                ] {
                    row::advance(tx, tenure, &transition, attempt.created_at)?;
                }
                Ok(Some(tenure))
            },
        )
        .await
    }

    /// Takes over an attempt whose lease the caller holds: bumps its generation.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`].
    pub async fn take_over(&self, attempt: AttemptId) -> Result<Tenure, StoreError> {
        self.write("take_over", Safe::BySync, "take over an attempt", move |tx| {
            let generation = tx
                .query_row(
                    "UPDATE attempt SET generation = generation + 1 WHERE id = :id RETURNING generation",
                    named_params! { ":id": attempt.to_string() },
                    |row| row.get(0),
                )
                .map_err(database("take over an attempt"))?;
            Ok(Tenure { attempt, generation })
        })
        .await
    }

    /// Moves an attempt to another state, and keeps what becomes known with it, in one transaction; returns
    /// whether somebody wants it stopped by then.
    ///
    /// # Errors
    ///
    /// [`StoreError::LeaseLost`] if another process took over, [`StoreError::BadTransition`], or
    /// [`StoreError::Database`].
    pub async fn advance(
        &self,
        tenure: Tenure,
        transition: Transition,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.advance_then(tenure, transition, at, row::is_stop_requested)
            .await
    }

    /// Does what [`Store::advance`] does, and returns the attempt as it then is: nothing comes between the two.
    ///
    /// # Errors
    ///
    /// As [`Store::advance`]; or [`StoreError::Unreadable`].
    pub async fn advance_and_read(
        &self,
        tenure: Tenure,
        transition: Transition,
        at: Timestamp,
    ) -> Result<Attempt, StoreError> {
        self.advance_then(tenure, transition, at, |tx, attempt| {
            row::attempt(tx, attempt)?.ok_or(StoreError::LeaseLost { attempt })
        })
        .await
    }

    /// Moves an attempt on and then reads of it, in one transaction.
    async fn advance_then<T: Send + 'static>(
        &self,
        tenure: Tenure,
        transition: Transition,
        at: Timestamp,
        read: fn(&Transaction<'_>, AttemptId) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.write(
            transition.target().as_str(),
            Safe::BySync,
            "change an attempt's state",
            move |tx| {
                row::advance(tx, tenure, &transition, at)?;
                read(tx, tenure.attempt)
            },
        )
        .await
    }

    /// Returns whether somebody wants an attempt to be stopped.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`].
    pub async fn is_stop_requested(&self, attempt: AttemptId) -> Result<bool, StoreError> {
        self.read("read an attempt", move |tx| {
            row::is_stop_requested(tx, attempt)
        })
        .await
    }

    /// Records why an attempt is to be stopped, and how long it may take to leave; the first reason and the shortest
    /// grace stay. Returns the reason that counts; `None` if the workload has ended and nothing of this was recorded.
    ///
    /// Anybody may ask, with or without the lease.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`].
    pub async fn request_stop(
        &self,
        attempt: AttemptId,
        reason: StopReason,
        grace: Option<Duration>,
    ) -> Result<Option<StopReason>, StoreError> {
        self.write(
            "request_stop",
            Safe::AtOnce,
            "record a stop request",
            move |tx| row::request_stop(tx, attempt, &reason, grace),
        )
        .await
    }

    /// Records that a requested stop is about to be carried out, by whoever does so; nothing if the workload does not
    /// run.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`].
    pub async fn begin_stop(&self, attempt: AttemptId, at: Timestamp) -> Result<(), StoreError> {
        self.write(
            "begin_stop",
            Safe::AtOnce,
            "record that a stop begins",
            move |tx| row::begin_stop(tx, attempt, at),
        )
        .await
    }

    /// Records whether an attempt's workload is to be frozen; nothing is recorded for one that has ended.
    ///
    /// Anybody may ask, with or without the lease.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`].
    pub async fn request_pause(
        &self,
        attempt: AttemptId,
        wanted: Motion,
    ) -> Result<(), StoreError> {
        self.write("request_pause", Safe::AtOnce, "record a pause request", move |tx| {
            tx.execute(
                "UPDATE attempt SET pause_wanted = ?2 WHERE id = ?1 AND state NOT IN ('collecting', 'finished')",
                (attempt.to_string(), i64::from(wanted == Motion::Frozen)),
            )
            .map(drop)
            .map_err(database("record a pause request"))
        })
        .await
    }

    /// Records since when a workload is frozen, and how long it was before that.
    ///
    /// # Errors
    ///
    /// [`StoreError::LeaseLost`] or [`StoreError::Database`].
    pub async fn set_paused(
        &self,
        tenure: Tenure,
        since: Option<Moment>,
        total: Duration,
    ) -> Result<(), StoreError> {
        let operation = "record a pause";
        self.write("paused", Safe::AtOnce, operation, move |tx| {
            let since = since
                .map(|since| row::to_json("moment", &since))
                .transpose()?;
            row::update(
                tx,
                tenure,
                operation,
                "paused_since = :since, paused_ms = :total",
                &[(":since", &since), (":total", &row::millis(total))],
            )
        })
        .await
    }

    /// Records that the engine does not answer, or that it does again.
    ///
    /// # Errors
    ///
    /// [`StoreError::LeaseLost`] or [`StoreError::Database`].
    pub async fn set_silence(
        &self,
        tenure: Tenure,
        silence: Option<Silence>,
    ) -> Result<(), StoreError> {
        let operation = "record whether the engine answers";
        self.write("silence", Safe::BySync, operation, move |tx| {
            let (since, why) = silence
                .map(|silence| (silence.since.to_string(), silence.why))
                .unzip();
            row::update(
                tx,
                tenure,
                operation,
                "silent_since = :since, silent_why = :why",
                &[(":since", &since), (":why", &why)],
            )
        })
        .await
    }

    /// Returns the states that an attempt reached, and when; in order.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`] or [`StoreError::Unreadable`].
    pub async fn steps(&self, attempt: AttemptId) -> Result<Vec<Step>, StoreError> {
        self.read("read an attempt's steps", move |tx| row::steps(tx, attempt))
            .await
    }

    /// Marks a finished attempt as having nothing left on the engine.
    ///
    /// # Errors
    ///
    /// [`StoreError::LeaseLost`] or [`StoreError::Database`].
    pub async fn mark_removed(&self, tenure: Tenure) -> Result<(), StoreError> {
        let operation = "mark an attempt as removed";
        self.write("removed", Safe::BySync, operation, move |tx| {
            row::update(tx, tenure, operation, "removed = 1", &[])
        })
        .await
    }

    /// Returns an attempt.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`] or [`StoreError::Unreadable`].
    pub async fn attempt(&self, attempt: AttemptId) -> Result<Option<Attempt>, StoreError> {
        self.read("read an attempt", move |tx| row::attempt(tx, attempt))
            .await
    }

    /// Returns the latest attempt of a run.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`] or [`StoreError::Unreadable`].
    pub async fn latest(&self, run: RunId) -> Result<Option<Attempt>, StoreError> {
        self.read("read a run", move |tx| {
            row::select(tx, "run_id = :run", &[(":run", &run.as_str())]).map(|mut rows| rows.pop())
        })
        .await
    }

    /// Returns the attempts of a run, in their order.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`] or [`StoreError::Unreadable`].
    pub async fn attempts_of(&self, run: RunId) -> Result<Vec<Attempt>, StoreError> {
        self.read("read a run", move |tx| {
            row::select(tx, "run_id = :run", &[(":run", &run.as_str())])
        })
        .await
    }

    /// Forgets a run and its attempts, all at once; returns whether that was done: an open run stays.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`].
    pub async fn remove_run(&self, run: RunId) -> Result<bool, StoreError> {
        self.write("remove_run", Safe::AtOnce, "remove a run", move |tx| {
            row::remove_run(tx, run)
        })
        .await
    }

    /// Returns every attempt that has, had, or is going to have a container of that name, oldest first.
    ///
    /// Names that we derive ourselves are found once the container is there.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`] or [`StoreError::Unreadable`].
    pub async fn of_container(&self, name: &str) -> Result<Vec<Attempt>, StoreError> {
        let name = name.to_owned();
        self.read("find a container's attempts", move |tx| {
            let of_name = "coalesce(json_extract(handle, '$.container'), json_extract(spec, '$.container')) = :name";
            row::select(tx, of_name, &[(":name", &name)])
        })
        .await
    }

    /// Returns every attempt, oldest first.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`] or [`StoreError::Unreadable`].
    pub async fn attempts(&self) -> Result<Vec<Attempt>, StoreError> {
        self.read("list attempts", |tx| row::select(tx, "TRUE", &[]))
            .await
    }

    /// Returns every attempt that is not finished, or finished with something left on the engine; oldest first.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`] or [`StoreError::Unreadable`].
    pub async fn open_attempts(&self) -> Result<Vec<Attempt>, StoreError> {
        self.read("list open attempts", |tx| {
            row::select(tx, "state <> 'finished' OR removed = 0", &[])
        })
        .await
    }

    /// Returns the ids of all runs that begin or end with `text`, which is how people name them.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`] or [`StoreError::Unreadable`].
    pub async fn find_runs(&self, text: &str) -> Result<Vec<RunId>, StoreError> {
        let text = text.to_owned();
        self.read("find a run", move |tx| {
            let mut statement = tx
                .prepare(
                    "SELECT id FROM run WHERE substr(id, 1, length(:text)) = :text \
                     OR substr(id, -length(:text)) = :text ORDER BY created_at, id",
                )
                .map_err(database("find a run"))?;
            let ids = statement
                .query_map(named_params! { ":text": text }, |row| {
                    row.get::<_, String>(0)
                })
                .map_err(database("find a run"))?;
            ids.map(|id| {
                let id = id.map_err(database("find a run"))?;
                id.parse().map_err(|error| StoreError::Unreadable {
                    what: "run id",
                    source: Box::new(error),
                })
            })
            .collect()
        })
        .await
    }

    /// Waits until all that was written so far, by whichever process, is safe from a loss of power.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sync`].
    pub async fn sync(&self) -> Result<(), StoreError> {
        self.reach("sync", "before").await?;
        let result = self.bring_to_disk().await;
        self.reach("sync", "after").await?;
        result
    }

    /// Does what whoever writes first would have to: makes the write-ahead log, for which that one waits for the disk twice
    /// if the last process that closed the store has removed it, and compiles the statements of a launch. A failure is left
    /// to that write.
    pub(crate) async fn make_ready(&self) {
        let has_log = std::fs::metadata(self.log()).is_ok_and(|log| log.len() > 0);
        let behavior = match has_log {
            true => TransactionBehavior::Deferred,
            false => TransactionBehavior::Immediate,
        };
        let operation = "make ready for a write";
        let ready = self.transact(operation, behavior, move |tx| {
            if !has_log {
                schema::rewrite_version(tx)?;
            }
            row::compile(tx).map_err(database(operation))
        });
        if let Err(error) = ready.await {
            tracing::debug!(%error, "the first write makes itself ready");
        }
    }

    /// Returns the path of the write-ahead log.
    fn log(&self) -> PathBuf {
        let mut log = OsString::from(self.path.as_os_str());
        log.push(LOG);
        log.into()
    }

    async fn bring_to_disk(&self) -> Result<(), StoreError> {
        let log = self.log();
        let synced = tokio::task::spawn_blocking(move || match File::open(log) {
            Ok(log) => log.sync_data(),
            // Whoever moves the log's content into the database syncs that before the log goes.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        });
        let synced = synced.await.map_err(|_| StoreError::ShutDown)?;
        synced.map_err(|source| StoreError::Sync { source })
    }

    /// Writes in one transaction, between the fail points `store.NAME.before` and `store.NAME.after`.
    async fn write<T: Send + 'static>(
        &self,
        name: &'static str,
        safe: Safe,
        operation: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.reach(name, "before").await?;
        let mut result = self
            .transact(operation, TransactionBehavior::Immediate, work)
            .await;
        if safe == Safe::AtOnce && result.is_ok() {
            result = self.bring_to_disk().await.and(result);
        }
        self.reach(name, "after").await?;
        result
    }

    async fn reach(&self, name: &str, side: &str) -> Result<(), StoreError> {
        reach(["store", name, side])
            .await
            .map_err(|error| StoreError::Unreadable {
                what: "place that a test broke",
                source: error.into(),
            })
    }

    async fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.transact(operation, TransactionBehavior::Deferred, work)
            .await
    }

    async fn transact<T: Send + 'static>(
        &self,
        operation: &'static str,
        behavior: TransactionBehavior,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        let task =
            tokio::task::spawn_blocking(move || store.transact_here(operation, behavior, work));
        task.await.map_err(|_| StoreError::ShutDown)?
    }

    /// Does what [`Store::transact`] does, on this thread. Blocks.
    fn transact_here<T>(
        &self,
        operation: &'static str,
        behavior: TransactionBehavior,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let result = connection
            .transaction_with_behavior(behavior)
            .map_err(database(operation))
            .and_then(|tx| {
                let result = work(&tx)?;
                tx.commit().map_err(database(operation))?;
                Ok(result)
            });
        result.map_err(|error| error.at(&self.path))
    }
}

#[cfg(test)]
mod tests;
