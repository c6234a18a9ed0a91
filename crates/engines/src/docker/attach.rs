//! The fallback transport: the output as the engine passes it on, copied into a spool of ours.
//!
//! Owns: the queue of what is to be recorded, and the spool of an attempt whose helper is not there.
//! Reads: the spool, for how far it is.
//! Never: keeps the engine waiting: a client that stops reading would block the agent, and calls about it.
//!
//! Bytes are exact while the first connection lasts. Whatever breaks it (the engine's restart, ours, a disk too slow
//! for too long) is recorded as a gap, and from there on the engine's log is read instead: from its start, without
//! what the spool has already. That is inexact, since the log replaces bytes that are not UTF-8.

use std::fs::{File, TryLockError};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bollard::container::AttachContainerResults;
use bollard::query_parameters::AttachContainerOptionsBuilder;
use dark_factory_executor::clock::Clock;
use dark_factory_executor::engine::EngineError;
use dark_factory_executor::spec::AttemptDir;
use dark_factory_executor::spool::{SpoolReader, SpoolWriter, open_spool};
use dark_factory_spool::{End, ExitRecord, Kind, Stream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::client::ATTACH;
use super::container::Container;
use super::copier::{Copier, Item, Source};

/// Chunks that may wait for the disk, each of at most 32 KiB: 32 MiB.
const QUEUE: usize = 1024;
/// How long an earlier writer may take to empty its queue, and how often it is asked.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(20);
const GAP: &str = "the connection to the container's output was lost; source=logs, inexact";

/// The tasks that fill an attempt's spool; they end with the container, or when this is dropped.
#[derive(Debug)]
pub(super) struct Reader {
    _tasks: JoinSet<()>,
    done: watch::Receiver<bool>,
    cut: CancellationToken,
}

/// Tells a reader that its container was started; dropped, that it was not.
#[derive(Debug)]
pub(super) struct Started {
    written: oneshot::Sender<()>,
    waiting: oneshot::Sender<()>,
}

impl Started {
    pub(super) fn tell(self) {
        // A reader that is gone needs no telling.
        let _gone = (self.written.send(()), self.waiting.send(()));
    }
}

impl Reader {
    /// Attaches to a container that was not started yet.
    pub(super) async fn attach(
        container: &Container,
        dir: &AttemptDir,
        clock: &Arc<dyn Clock>,
    ) -> Result<(Self, Started), EngineError> {
        let (spool, _) = open(dir).await?;
        let docker = container.client.docker().await?;
        let options = AttachContainerOptionsBuilder::default()
            .stream(true)
            .stdout(true)
            .stderr(true)
            .build();
        let attached = docker.attach_container(&container.id, Some(options));
        let AttachContainerResults { output, input } =
            match container.client.call(ATTACH, attached).await {
                Ok(attached) => attached,
                Err(fault) => return Err(container.unattached(fault).await),
            };
        // Nothing is ever written to it, and the connection stays as long as its other half.
        drop(input);
        Ok(Self::spawn(
            container,
            spool,
            clock,
            Source::Attached(output),
        ))
    }

    /// Reads what was missed of a container that was started before, and what is still to come.
    ///
    /// `None` if the spool has its exit record.
    pub(super) async fn resume(
        container: &Container,
        dir: &AttemptDir,
        clock: &Arc<dyn Clock>,
    ) -> Result<Option<Self>, EngineError> {
        let (spool, record) = open(dir).await?;
        if record == Record::Finished {
            return Ok(None);
        }
        let (reader, started) = Self::spawn(container, spool, clock, Source::Log);
        started.tell();
        Ok(Some(reader))
    }

    /// Waits until the spool holds all that there is. Cancel-safe, repeatable.
    pub(super) async fn finished(&self) {
        // An error says that the tasks are gone, and then there is nothing to wait for either.
        let mut done = self.done.clone();
        let _ended = done.wait_for(|done| *done).await;
    }

    /// Drops the attached connection, which might be what keeps the engine from answering.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    fn spawn(
        container: &Container,
        spool: Spool,
        clock: &Arc<dyn Clock>,
        source: Source,
    ) -> (Self, Started) {
        let (queue, items) = mpsc::channel(QUEUE);
        let (done, finished) = watch::channel(false);
        let (written, may_write) = oneshot::channel();
        let (waiting, may_wait) = oneshot::channel();
        let cut = CancellationToken::new();
        let copier = Copier::new(container, spool.writer.offsets(), queue, cut.clone());
        let (clock, name) = (Arc::clone(clock), container.name.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(copier.run(source, may_wait));
        tasks.spawn_blocking(move || {
            if let Err(error) = spool.write(may_write, items, clock.as_ref()) {
                tracing::warn!(%error, container = %name, "the container's output is not recorded any further");
            }
            done.send_replace(true);
        });
        (
            Self {
                _tasks: tasks,
                done: finished,
                cut,
            },
            Started { written, waiting },
        )
    }
}

/// How far the record of an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Record {
    /// It has no start record.
    Empty,
    /// It has one.
    Begun,
    /// It has its exit record.
    Finished,
}

/// The spool, while nobody else of us writes to it.
struct Spool {
    writer: SpoolWriter,
    record: Record,
    /// Keeps an earlier reader's writer and the next one's apart: the earlier one may have a queue to empty.
    _lock: File,
}

impl Spool {
    /// Writes what comes through the queue until nothing more can come. Blocks.
    fn write(
        mut self,
        started: oneshot::Receiver<()>,
        mut items: mpsc::Receiver<Item>,
        clock: &dyn Clock,
    ) -> io::Result<()> {
        if started.blocking_recv().is_err() {
            return Ok(());
        }
        if self.record == Record::Empty {
            self.writer.start(clock)?;
        }
        while let Some(item) = items.blocking_recv() {
            match item {
                Item::Data(stream, bytes) => self.writer.data(stream, &bytes, clock)?,
                Item::Gap => {
                    for stream in Stream::ALL {
                        self.writer.gap(stream, GAP, clock)?;
                    }
                }
                Item::Exit(code) => {
                    return self
                        .writer
                        .exit(&exit_record(code, self.writer.offsets()), clock);
                }
            }
        }
        Ok(())
    }
}

/// Returns the exit record of a container of which only the engine's code is known.
fn exit_record(code: i64, totals: [u64; 2]) -> ExitRecord {
    ExitRecord {
        end: End::Code(i32::try_from(code).unwrap_or(i32::MAX)),
        totals,
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

/// Opens the spool once every earlier writer of ours is done with it, and says how far it is.
async fn open(dir: &AttemptDir) -> Result<(Spool, Record), EngineError> {
    let local = |source| EngineError::Local {
        operation: "opening the output spool".to_owned(),
        source,
    };
    let lock = open_spool(dir).map_err(local)?.records;
    let locked = async {
        loop {
            match lock.try_lock() {
                Err(TryLockError::WouldBlock) => sleep(LOCK_PAUSE).await,
                Err(TryLockError::Error(error)) => return Err(error),
                Ok(()) => return Ok(()),
            }
        }
    };
    timeout(LOCK_PATIENCE, locked)
        .await
        .map_err(io::Error::from)
        .flatten()
        .map_err(local)?;
    let dir = dir.clone();
    let read = tokio::task::spawn_blocking(move || read(&dir)).await;
    let (writer, record) = read.map_err(io::Error::other).flatten().map_err(local)?;
    Ok((
        Spool {
            writer,
            record,
            _lock: lock,
        },
        record,
    ))
}

fn read(dir: &AttemptDir) -> io::Result<(SpoolWriter, Record)> {
    let mut record = Record::Empty;
    let mut reader = SpoolReader::open(dir, Some(dir.attempt()))?;
    while let Some(next) = reader.next_record().map_err(io::Error::other)? {
        match next.header.kind {
            Kind::Exit => record = Record::Finished,
            _ if record == Record::Empty => record = Record::Begun,
            _ => {}
        }
    }
    Ok((SpoolWriter::open(dir)?, record))
}
