//! A container that was started, or found.
//!
//! Owns: the reader of its output where the helper is not in it.
//! Reads: what the engine says of it.
//! Never: starts anything.

use std::time::Duration;

use async_trait::async_trait;
use dark_factory_executor::engine::{
    EngineError, EngineExit, Executed, Execution, Handle, Usage, Workload,
};
use dark_factory_executor::spec::StopPolicy;
use dark_factory_spool::KILL_EVERYTHING_SIGNAL;
use dark_factory_types::{ByteSize, Transport};
use tokio::time::timeout;

use super::attach::Reader;
use super::causes::Witness;
use super::client::KILL;
use super::container::{Container, Signalled};
use super::{exec, usage};

/// How long the helper may take for that.
const HELPER_GRACE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct DockerWorkload {
    container: Container,
    handle: Handle,
    reader: Option<Reader>,
    witness: Witness,
}

impl DockerWorkload {
    /// Stands for a container that runs, whose output is read by `reader` if there is no helper in it.
    pub(super) fn running(
        container: Container,
        handle: &Handle,
        reader: Option<Reader>,
    ) -> Box<Self> {
        Box::new(Self {
            container,
            handle: handle.clone(),
            reader,
            witness: Witness::Present,
        })
    }

    /// Stands for a container that does not run (any more), or of which that is not known.
    pub(super) fn found(
        container: Container,
        handle: &Handle,
        reader: Option<Reader>,
    ) -> Box<Self> {
        Box::new(Self {
            witness: Witness::Absent,
            ..*Self::running(container, handle, reader)
        })
    }

    /// Sends a signal; if that hangs, once more without our own connection, which may be the cause.
    async fn kill(&self, signal: &str) -> Result<Signalled, EngineError> {
        match (self.container.kill_thawed(signal).await, &self.reader) {
            (Err(EngineError::Unreachable { .. }), Some(reader)) => {
                reader.cut();
                self.container.kill_thawed(signal).await
            }
            (result, _) => result,
        }
    }

    /// Sends a signal and waits for the end, up to `grace`.
    async fn kill_and_wait(&self, signal: &str, grace: Duration) -> Result<Ended, EngineError> {
        if self.kill(signal).await? == Signalled::Ended {
            return Ok(Ended::Yes);
        }
        // An engine that does not answer for a while does not begin the grace anew.
        match timeout(grace, self.container.ended_at_last()).await {
            Ok(Ok(_) | Err(EngineError::NoSuchContainer { .. })) => Ok(Ended::Yes),
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(Ended::No),
        }
    }
}

/// Whether a container ended in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Yes,
    No,
}

#[async_trait]
impl Workload for DockerWorkload {
    fn handle(&self) -> &Handle {
        &self.handle
    }

    async fn wait(&self) -> Result<EngineExit, EngineError> {
        let exit = self.container.exit(self.witness).await?;
        if let Some(reader) = &self.reader {
            reader.finished().await;
        }
        Ok(exit)
    }

    async fn stop(&self, policy: &StopPolicy) -> Result<(), EngineError> {
        if !policy.grace.is_zero()
            && self.kill_and_wait(&policy.signal, policy.grace).await? == Ended::Yes
        {
            return Ok(());
        }
        if self.container.transport == Transport::Spool
            && self
                .kill_and_wait(&KILL_EVERYTHING_SIGNAL.to_string(), HELPER_GRACE)
                .await?
                == Ended::Yes
        {
            return Ok(());
        }
        match self.kill_and_wait("SIGKILL", KILL.deadline).await? {
            Ended::Yes => Ok(()),
            Ended::No => Err(self.container.outlives_kill()),
        }
    }

    async fn pause(&self) -> Result<(), EngineError> {
        self.container.pause().await
    }

    async fn unpause(&self) -> Result<(), EngineError> {
        self.container.unpause().await
    }

    async fn exec(&self, execution: &Execution) -> Result<Executed, EngineError> {
        exec::exec(&self.container, execution).await
    }

    async fn usage(&self) -> Result<Usage, EngineError> {
        usage::usage(&self.container).await
    }

    async fn disk_usage(&self) -> Result<Option<ByteSize>, EngineError> {
        self.container.written().await
    }

    async fn remove(&self) -> Result<(), EngineError> {
        self.container.remove().await
    }
}
