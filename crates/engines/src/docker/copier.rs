//! Passes a container's output on from the engine to the writer of its spool.
//!
//! Owns: the attached connection, or the reading of the engine's log after it; what was passed on so far.
//! Reads: the engine's log, also to find out whether the connection brought everything.
//! Never: writes, or keeps the engine waiting for longer than it bears.

use std::pin::{Pin, pin};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error as ClientError;
use bollard::query_parameters::{LogsOptions, LogsOptionsBuilder};
use bytes::Bytes;
use dark_factory_executor::engine::EngineError;
use dark_factory_spool::Stream;
use futures_util::{Stream as FutureStream, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::client::{Fault, LOGS};
use super::container::{Container, RETRY};
use super::tail::Tail;

/// How long the queue may be full before the connection is dropped; the engine bears a pause of that length.
const QUEUE_PATIENCE: Duration = Duration::from_secs(2);
/// How far the end of the output and the container's end may be apart and still be one event.
const END_SPREAD: Duration = Duration::from_secs(2);
/// Messages of the log's end that the copied output is compared with.
const END_MESSAGES: &str = "100";
/// How long the log of an ended container may bring nothing before it is asked for again.
const LOG_SILENCE: Duration = Duration::from_secs(30);

/// What is to be written next.
#[derive(Debug)]
pub(super) enum Item {
    Data(Stream, Bytes),
    Gap,
    Exit(i64),
}

/// Where output comes from.
pub(super) enum Source {
    /// The attached connection.
    Attached(Output),
    /// The engine's log.
    Log,
}

pub(super) type Output = Pin<Box<dyn FutureStream<Item = Result<LogOutput, ClientError>> + Send>>;

/// How a copy ended.
enum Copied {
    /// The stream ended.
    All,
    /// It broke, or was dropped because the queue stayed full.
    Some,
    /// Nobody takes what is copied.
    Nobody,
}

/// Passes output on from the engine to the queue.
pub(super) struct Copier {
    container: Container,
    /// Bytes of each stream that the spool has or that are queued.
    sent: [u64; 2],
    /// What the attached connection brought last.
    tail: Tail,
    queue: mpsc::Sender<Item>,
    cut: CancellationToken,
}

impl Copier {
    /// Goes on where `sent` bytes of each stream are in the spool.
    pub(super) fn new(
        container: &Container,
        sent: [u64; 2],
        queue: mpsc::Sender<Item>,
        cut: CancellationToken,
    ) -> Self {
        Self {
            container: container.clone(),
            sent,
            tail: Tail::new(container.client.dialect().logged()),
            queue,
            cut,
        }
    }

    /// Passes everything on, and then the exit code; without one, something is missing.
    pub(super) async fn run(mut self, source: Source, started: oneshot::Receiver<()>) {
        let exact = match source {
            Source::Attached(output) => match self.copy_attached(output, started).await {
                Some(code) if self.lacks_nothing().await => Some(code),
                _ => None,
            },
            Source::Log => None,
        };
        let code = match exact {
            Some(code) => Some(code),
            None => Box::pin(self.copy_log()).await,
        };
        if let Some(code) = code {
            self.send(Item::Exit(code)).await;
        }
    }

    /// Copies the attached connection; returns the exit code if that was all output.
    ///
    /// The end of the connection alone proves nothing: a killed engine closes it the same way. Only together with
    /// the exit code, told on a connection that was open all the while, it may; one that broke alone, shortly before,
    /// looks the same, and is found out by the log.
    async fn copy_attached(
        &mut self,
        output: Output,
        started: oneshot::Receiver<()>,
    ) -> Option<i64> {
        let container = self.container.clone();
        let mut ended = pin!(async {
            match started.await {
                Ok(()) => container.ended_at_last().await.ok(),
                Err(_) => None,
            }
        });
        let copied = {
            let mut copied = pin!(self.copy(output));
            tokio::select! {
                copied = &mut copied => copied,
                code = &mut ended => {
                    let code = code?;
                    let copied = timeout(END_SPREAD, copied).await.ok()?;
                    return matches!(copied, Copied::All).then_some(code);
                }
            }
        };
        match copied {
            Copied::All => timeout(END_SPREAD, ended).await.ok()?,
            Copied::Some | Copied::Nobody => None,
        }
    }

    async fn copy(&mut self, mut output: Output) -> Copied {
        let cut = self.cut.clone();
        loop {
            let next = tokio::select! {
                next = output.next() => next,
                () = cut.cancelled() => return Copied::Some,
            };
            let (stream, bytes) = match next {
                Some(Ok(LogOutput::StdOut { message })) => (Stream::Stdout, message),
                Some(Ok(LogOutput::StdErr { message })) => (Stream::Stderr, message),
                Some(Ok(LogOutput::StdIn { .. })) => continue,
                // A frame that was cut off comes without its header.
                Some(Ok(LogOutput::Console { .. }) | Err(_)) => return Copied::Some,
                None => return Copied::All,
            };
            let length = bytes.len() as u64;
            let copied = bytes.clone();
            match self
                .queue
                .send_timeout(Item::Data(stream, bytes), QUEUE_PATIENCE)
                .await
            {
                Ok(()) => {
                    self.sent[stream.index()] += length;
                    self.tail.push(stream, &copied);
                }
                Err(mpsc::error::SendTimeoutError::Timeout(_)) => return Copied::Some,
                Err(mpsc::error::SendTimeoutError::Closed(_)) => return Copied::Nobody,
            }
        }
    }

    /// Returns whether the log of an ended container ends with nothing that the attached connection did not bring.
    ///
    /// Where there is no log, the connection's word has to do.
    async fn lacks_nothing(&self) -> bool {
        let Ok(docker) = self.container.client.docker().await else {
            return false;
        };
        let mut log = pin!(docker.logs(
            &self.container.id,
            Some(log_options(Follow::No, END_MESSAGES))
        ));
        let mut logged = Tail::new(self.container.client.dialect().logged());
        loop {
            match timeout(LOG_SILENCE, log.next()).await {
                Ok(None) => return self.tail.covers(&logged),
                Ok(Some(Ok(LogOutput::StdOut { message }))) => {
                    logged.push(Stream::Stdout, &message);
                }
                Ok(Some(Ok(LogOutput::StdErr { message }))) => {
                    logged.push(Stream::Stderr, &message);
                }
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(error))) => return self.log_error(error).is_err(),
                Err(_) => return false,
            }
        }
    }

    /// Copies from the engine's log what is not there yet, until the container's end; returns the exit code.
    async fn copy_log(&mut self) -> Option<i64> {
        if !self.send(Item::Gap).await {
            return None;
        }
        let container = self.container.clone();
        loop {
            let ended = {
                // A slow reader of the log holds nobody up. Its stream may end too early, or not at all.
                let mut followed = pin!(self.copy_log_once(Follow::Yes));
                let mut ended = pin!(container.ended());
                tokio::select! {
                    followed = &mut followed => {
                        followed.ok()?;
                        ended.await
                    }
                    ended = &mut ended => {
                        if let Ok(followed) = timeout(END_SPREAD, followed).await {
                            followed.ok()?;
                        }
                        ended
                    }
                }
            };
            match ended {
                Ok(code) => match self.copy_log_once(Follow::No).await.ok()? {
                    Copied::All => return Some(code),
                    Copied::Some | Copied::Nobody => {}
                },
                Err(EngineError::NoSuchContainer { .. }) => return None,
                Err(_) => {}
            }
            if self.queue.is_closed() {
                return None;
            }
            sleep(RETRY).await;
        }
    }

    /// Copies the log once; an error says that there is no log to be had.
    ///
    /// Cancel-safe: what was queued is counted.
    async fn copy_log_once(&mut self, follow: Follow) -> Result<Copied, NoLog> {
        let Ok(docker) = self.container.client.docker().await else {
            return Ok(Copied::Some);
        };
        let mut log = pin!(docker.logs(&self.container.id, Some(log_options(follow, "all"))));
        let mut skip = self.sent;
        loop {
            let next = match follow {
                // Nothing may come for as long as nothing is printed.
                Follow::Yes => log.next().await,
                Follow::No => match timeout(LOG_SILENCE, log.next()).await {
                    Ok(next) => next,
                    Err(_) => return Ok(Copied::Some),
                },
            };
            let (stream, mut bytes) = match next {
                None => return Ok(Copied::All),
                Some(Ok(LogOutput::StdOut { message })) => (Stream::Stdout, message),
                Some(Ok(LogOutput::StdErr { message })) => (Stream::Stderr, message),
                Some(Ok(LogOutput::StdIn { .. })) => continue,
                Some(Ok(LogOutput::Console { .. })) => return Ok(Copied::Some),
                Some(Err(error)) => return self.log_error(error).map(|()| Copied::Some),
            };
            let known = usize::try_from(skip[stream.index()])
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            skip[stream.index()] -= known as u64;
            let fresh = bytes.split_off(known);
            if fresh.is_empty() {
                continue;
            }
            // Its place first: between that and its bytes nothing can come.
            let Ok(place) = self.queue.reserve().await else {
                return Ok(Copied::Nobody);
            };
            self.sent[stream.index()] += fresh.len() as u64;
            place.send(Item::Data(stream, fresh));
        }
    }

    /// Returns whether the log may be had another time: an engine in trouble says no more than one that is away.
    fn log_error(&self, error: ClientError) -> Result<(), NoLog> {
        match self.container.client.fault(LOGS, error) {
            // 501: the container's log driver writes what cannot be read.
            Fault::Status {
                code: 400..=499 | 501,
                ..
            } => Err(NoLog),
            Fault::Status { .. } | Fault::Other(_) => Ok(()),
        }
    }

    /// Queues an item, however long that takes; false if nobody takes it.
    async fn send(&self, item: Item) -> bool {
        self.queue.send(item).await.is_ok()
    }
}

/// Whether a log is read beyond what it holds now.
#[derive(Clone, Copy)]
enum Follow {
    Yes,
    No,
}

fn log_options(follow: Follow, messages: &str) -> LogsOptions {
    LogsOptionsBuilder::default()
        .follow(matches!(follow, Follow::Yes))
        .stdout(true)
        .stderr(true)
        .tail(messages)
        .build()
}

/// The engine has no log of the container.
struct NoLog;
