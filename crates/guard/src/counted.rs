//! Counts what goes through.
//!
//! Owns: a stream and a body that know how many bytes went through them.
//! Reads: nothing.
//! Never: changes a byte.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that counts.
#[derive(Debug)]
pub(crate) struct Counted<S> {
    stream: S,
    read: u64,
    written: u64,
}

impl<S> Counted<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            read: 0,
            written: 0,
        }
    }

    /// Returns how many bytes were read from it.
    pub(crate) fn read(&self) -> u64 {
        self.read
    }

    /// Returns how many bytes were written to it.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.read += length(buffer.filled().len() - before);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(written)) = polled {
            self.written += length(written);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A body that counts, and tells once when it has ended or nobody reads it any more.
pub(crate) struct CountedBody<F: FnOnce(u64)> {
    body: Incoming,
    count: u64,
    told: Option<F>,
}

impl<F: FnOnce(u64)> CountedBody<F> {
    pub(crate) fn new(body: Incoming, tell: F) -> Self {
        Self {
            body,
            count: 0,
            told: Some(tell),
        }
    }
}

impl<F: FnOnce(u64) + Unpin> Body for CountedBody<F> {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.count += length(frame.data_ref().map_or(0, |data| data.remaining()));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<F: FnOnce(u64)> Drop for CountedBody<F> {
    fn drop(&mut self) {
        if let Some(tell) = self.told.take() {
            tell(self.count);
        }
    }
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
