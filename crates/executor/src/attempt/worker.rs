//! A thread that does one job after the other, so that the pump goes on meanwhile.
//!
//! Owns: the thread.
//! Reads: nothing.
//! Never: lets its owner go before it has done what it was given.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

/// The thread. Dropped, it finishes what it has begun.
#[derive(Debug)]
pub(super) struct Worker<T> {
    name: &'static str,
    /// `None` once it is to end.
    jobs: Option<SyncSender<T>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Worker<T> {
    /// Starts it.
    pub(super) fn start(
        name: &'static str,
        work: impl FnMut(T) + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, received) = sync_channel(1);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || received.into_iter().for_each(work))?;
        Ok(Self {
            name,
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Gives it a job; fails if one waits already, or it is gone.
    pub(super) fn give(&self, job: T) -> io::Result<()> {
        match self.jobs.as_ref().map(|jobs| jobs.try_send(job)) {
            Some(Ok(())) => Ok(()),
            _ => Err(self.gone()),
        }
    }

    /// Returns the error of a thread that is gone.
    pub(super) fn gone(&self) -> io::Error {
        io::Error::other(format!("the thread {} is gone", self.name))
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        self.jobs = None;
        let joined = self.thread.take().map(JoinHandle::join);
        if joined.is_some_and(|joined| joined.is_err()) {
            tracing::warn!("the thread {} panicked", self.name);
        }
    }
}
