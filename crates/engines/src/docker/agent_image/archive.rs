//! A tar archive on its way to the engine, while it is written.
//!
//! Owns: the pipe between the thread that writes and the request that sends.
//! Reads: nothing.
//! Never: holds more of it than a few pieces.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Size of a piece, and how many wait for the engine.
const PIECE: usize = 1 << 20;
const PIECES: usize = 4;

/// Starts a thread that writes; returns the pieces, and how the writing ended.
///
/// An engine that stops reading ends the writing with [`io::ErrorKind::BrokenPipe`].
pub(super) fn pieces(
    write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
) -> (
    impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    JoinHandle<io::Result<()>>,
) {
    let (sender, mut receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    let writing = tokio::task::spawn_blocking(move || {
        let mut output = BufWriter::with_capacity(PIECE, Pipe(sender.clone()));
        let written = write(&mut output).and_then(|()| output.flush());
        if let Err(error) = &written {
            // The request has to break, or what was sent so far would count as all of it.
            let broken = io::Error::from(error.kind());
            if sender.blocking_send(Err(broken)).is_err() {
                tracing::trace!("the engine reads no more");
            }
        }
        written
    });
    let pieces = stream::poll_fn(move |context| receiver.poll_recv(context));
    (pieces, writing)
}

/// Writes a folder's content as a tar archive, without what was mounted or made for one machine below `/dev`; blocks.
pub(super) fn write_root(root: &Path, output: impl Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(output);
    archive.follow_symlinks(false);
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        if !entry.file_type()?.is_dir() {
            archive.append_path_with_name(entry.path(), &name)?;
        } else if name == "dev" {
            archive.append_dir(&name, entry.path())?;
        } else {
            archive.append_dir_all(&name, entry.path())?;
        }
    }
    archive.finish()
}

struct Pipe(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .blocking_send(Ok(Bytes::copy_from_slice(bytes)))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
