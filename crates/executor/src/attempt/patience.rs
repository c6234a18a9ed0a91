//! What an attempt's supervisor writes down, on a disk that may be full for a while.
//!
//! Owns: how long a full disk is borne, and that it is told once.
//! Reads: nothing.
//! Never: gives up what can be tried again, or waits for room against its user's will.

use std::future::Future;
use std::io;

use dark_factory_types::StopReason;

use super::Progress;
use super::derived::is_full;
use super::drive::{Drive, RETRY};
use crate::clock::Moment;
use crate::engine::EngineError;
use crate::error::ExecutorError;
use crate::recorder::{Recorded, Room};
use crate::store::{Attempt, Silence, StoreError, Transition};

/// What the caller was told about the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Full,
}

impl Drive<'_> {
    /// Records that the engine does not answer, and says so, once for each time.
    pub(super) async fn engine_is_silent(&self, why: &EngineError) -> Result<(), ExecutorError> {
        let row = self.store.attempt(self.tenure.attempt).await?;
        if row.is_some_and(|row| row.silence.is_none()) {
            let why = why.sentence();
            let silence = Silence {
                since: self.clock.now(),
                why: why.clone(),
            };
            self.patiently(|| self.store.set_silence(self.tenure, Some(silence.clone())))
                .await?;
            (self.progress)(Progress::EngineSilent(why));
        }
        Ok(())
    }

    /// Records that the engine answers again.
    pub(super) async fn engine_answers(&self) -> Result<(), ExecutorError> {
        self.patiently(|| self.store.set_silence(self.tenure, None))
            .await?;
        (self.progress)(Progress::EngineBack);
        Ok(())
    }

    /// Records a step; returns whether somebody wants the attempt stopped by then.
    pub(super) async fn advance(&self, transition: Transition) -> Result<bool, ExecutorError> {
        let is_stop_requested = self
            .patiently(|| {
                self.store
                    .advance(self.tenure, transition.clone(), self.clock.now())
            })
            .await?;
        (self.progress)(Progress::Entered(transition.target()));
        Ok(is_stop_requested)
    }

    pub(super) async fn advance_and_read(
        &self,
        transition: Transition,
    ) -> Result<Attempt, ExecutorError> {
        let row = self
            .patiently(|| {
                self.store
                    .advance_and_read(self.tenure, transition.clone(), self.clock.now())
            })
            .await?;
        (self.progress)(Progress::Entered(row.state));
        Ok(row)
    }

    pub(super) async fn request_stop(
        &self,
        reason: StopReason,
    ) -> Result<Option<StopReason>, ExecutorError> {
        self.patiently(|| {
            self.store
                .request_stop(self.tenure.attempt, reason.clone(), None)
        })
        .await
    }

    /// Writes to the store; on a full disk, or a database that others keep locked, again and again, as long as there is
    /// patience.
    pub(super) async fn patiently<T, F>(&self, write: impl Fn() -> F) -> Result<T, ExecutorError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let began = self.clock.moment();
        let mut told = Told::Nothing;
        loop {
            match write().await {
                Err(error) if error.is_full() => self.bear_full_disk(&began, &mut told).await?,
                Err(error) if error.is_busy() && !self.control.kill.is_cancelled() => {
                    tracing::warn!(%error, "other processes keep the store locked; tried again");
                    if began.awake_until(&self.clock.moment()) >= self.control.disk_patience {
                        return Err(error.into());
                    }
                }
                result => {
                    self.tell_of_room_again(told);
                    return Ok(result?);
                }
            }
        }
    }

    /// Writes a file as often as it takes for a full disk to have room.
    pub(super) async fn write_patiently(
        &self,
        write: impl Fn() -> io::Result<()> + Clone + Send + 'static,
    ) -> Result<(), ExecutorError> {
        let began = self.clock.moment();
        let mut told = Told::Nothing;
        loop {
            match tokio::task::spawn_blocking(write.clone()).await? {
                Err(error) if is_full(&error) => self.bear_full_disk(&began, &mut told).await?,
                result => {
                    self.tell_of_room_again(told);
                    return result.map_err(|error| self.output_error(error));
                }
            }
        }
    }

    /// Finds out what was changed as often as it takes for a full disk to have room; without patience left, what was
    /// found out without it counts.
    pub(super) async fn record_patiently<F>(&self, record: impl Fn() -> F) -> Recorded
    where
        F: Future<Output = Recorded>,
    {
        let began = self.clock.moment();
        let mut told = Told::Nothing;
        loop {
            let recorded = record().await;
            if recorded.room == Room::Missing
                && self.bear_full_disk(&began, &mut told).await.is_ok()
            {
                continue;
            }
            self.tell_of_room_again(told);
            return recorded;
        }
    }

    /// Waits a moment for a full disk, if that is not enough by now.
    async fn bear_full_disk(&self, began: &Moment, told: &mut Told) -> Result<(), ExecutorError> {
        if began.awake_until(&self.clock.moment()) >= self.control.disk_patience {
            return Err(self.disk_full());
        }
        if std::mem::replace(told, Told::Full) == Told::Nothing {
            (self.progress)(Progress::DiskFull);
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => Ok(()),
            () = self.control.kill.cancelled() => Err(self.disk_full()),
        }
    }

    fn tell_of_room_again(&self, told: Told) {
        if told == Told::Full {
            (self.progress)(Progress::DiskRoom);
        }
    }

    pub(super) fn disk_full(&self) -> ExecutorError {
        ExecutorError::DiskFull {
            attempt: self.tenure.attempt,
            patience: self.control.disk_patience,
        }
    }
}
