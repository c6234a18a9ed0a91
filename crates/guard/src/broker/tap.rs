//! What goes by between a run and a provider.
//!
//! Owns: the bodies in both directions, the entry and the counting of a request that has ended.
//! Reads: the model's name in the request, what was used in the answer.
//! Never: delays or changes a byte.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dark_factory_types::Provider;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::meter::Meter;
use super::usage::{ModelReader, UsageReader};
use crate::journal::{Ending, Entry, Fate, Journal};
use crate::proxy::BoxError;
use crate::summary::is_success;

/// How long an answer that nobody reads any more is read for what it used.
const DRAIN: Duration = Duration::from_secs(10 * 60);

/// The reader of a request's model, which the request's body and its account share.
pub(crate) type SharedModel = Arc<Mutex<ModelReader>>;

/// A request to a model that has been admitted; whatever becomes of it, it is written down and counted once.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) meter: Arc<Meter>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) target: String,
    pub(crate) provider: Provider,
    pub(crate) asked: Option<String>,
    pub(crate) body: SharedModel,
    pub(crate) began: Instant,
    pub(crate) is_ended: bool,
}

impl Account {
    /// Writes down and counts how it ended.
    pub(crate) fn end(
        &mut self,
        status: Option<u16>,
        answer: Option<&UsageReader>,
        ending: Ending,
    ) {
        if std::mem::replace(&mut self.is_ended, true) {
            return;
        }
        let asked = self.asked.clone().or_else(|| {
            let body = self.body.lock().unwrap_or_else(PoisonError::into_inner);
            body.model().map(str::to_owned)
        });
        let asked = asked.as_deref();
        let usage = answer.and_then(|answer| match ending {
            Ending::Whole => answer.usage(asked),
            Ending::Cut => answer.seen(asked),
        });
        let named = answer.and_then(UsageReader::model).or(asked);
        self.meter.ended(status, usage.as_ref(), ending);
        let kept = self.journal.keep(Entry {
            at: self.journal.now(),
            target: self.target.clone(),
            fate: Fate::Brokered {
                provider: self.provider,
                model: named.map(str::to_owned),
                status,
                usage,
                ending,
                duration_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            },
        });
        if let Err(error) = kept {
            tracing::warn!(%error, "the end of a request to a provider is not written down");
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.end(None, None, Ending::Cut);
    }
}

/// What is needed to go on reading an answer that nobody reads any more.
#[derive(Debug, Clone)]
pub(crate) struct Drain {
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

/// An answer that goes by.
#[derive(Debug)]
pub(crate) struct Tap {
    body: Option<Incoming>,
    reader: UsageReader,
    status: u16,
    account: Account,
    drain: Option<Drain>,
}

impl Tap {
    pub(crate) fn new(
        body: Incoming,
        reader: UsageReader,
        status: u16,
        account: Account,
        drain: Option<Drain>,
    ) -> Self {
        let mut tap = Self {
            body: Some(body),
            reader,
            status,
            account,
            drain,
        };
        if tap.is_end_stream() {
            tap.end(Ending::Whole);
        }
        tap
    }

    fn end(&mut self, ending: Ending) {
        self.account
            .end(Some(self.status), Some(&self.reader), ending);
    }

    fn see(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.reader.take(data);
        }
        if self.is_end_stream() {
            self.end(Ending::Whole);
        }
    }
}

impl Body for Tap {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => self.see(frame),
            Poll::Ready(Some(Err(_))) => self.end(Ending::Cut),
            Poll::Ready(None) => self.end(Ending::Whole),
            Poll::Pending => {}
        }
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        if self.account.is_ended {
            return;
        }
        // What a run does not read to its end is used all the same.
        if let (Some(drain), Some(body), true) = (
            self.drain.take(),
            self.body.take(),
            is_success(Some(self.status)),
        ) && !drain.stop.is_cancelled()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let mut rest = Self {
                body: Some(body),
                reader: std::mem::replace(
                    &mut self.reader,
                    UsageReader::new(self.account.provider, &hyper::HeaderMap::new()),
                ),
                status: self.status,
                account: self.account.hand_over(),
                drain: None,
            };
            drain.tasks.spawn_on(
                async move {
                    let read = async { while let Some(Ok(_)) = rest.frame().await {} };
                    tokio::select! {
                        () = drain.stop.cancelled() => {}
                        _late = tokio::time::timeout(DRAIN, read) => {}
                    }
                },
                &runtime,
            );
            return;
        }
        self.end(Ending::Cut);
    }
}

impl Account {
    /// Returns one that takes this one's place.
    fn hand_over(&mut self) -> Self {
        self.is_ended = true;
        Self {
            meter: Arc::clone(&self.meter),
            journal: Arc::clone(&self.journal),
            target: std::mem::take(&mut self.target),
            provider: self.provider,
            asked: self.asked.take(),
            body: Arc::clone(&self.body),
            began: self.began,
            is_ended: false,
        }
    }
}

/// A request's body that goes by, of which some may have been read already.
pub(crate) struct Asking {
    pub(crate) read: VecDeque<Bytes>,
    pub(crate) rest: Incoming,
    pub(crate) model: Option<SharedModel>,
}

impl Body for Asking {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(read) = self.read.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(read))));
        }
        let polled = Pin::new(&mut self.rest).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let (Some(model), Some(data)) = (&self.model, frame.data_ref())
        {
            model
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(data);
        }
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.read.iter().fold(0_u64, |sum, bytes| {
            sum.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
        });
        match self.rest.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(rest.saturating_add(read)),
            None => SizeHint::default(),
        }
    }
}
