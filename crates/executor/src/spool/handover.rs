//! Hands the spool's descriptors to the helper inside the container.
//!
//! Owns: the socket, from its creation to the unlinking after its first use.
//! Reads: the spool's first record, to know whether the agent was started.
//! Never: hands a spool over twice.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use dark_factory_spool::{HANDOVER_VERSION, Kind};
use jiff::Timestamp;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::net::UnixListener;
use tokio::time::timeout;

use super::{ReadError, SpoolReader};
use crate::failpoint::reach;
use crate::spec::AttemptDir;

/// How long nobody asks for a spool until it is looked whether somebody has it, and how often from then on.
const GLANCE: Duration = Duration::from_millis(200);

/// The files of a spool, open for appending.
#[derive(Debug)]
pub struct SpoolFiles {
    /// The records.
    pub records: File,
    /// What the agent printed, by the stream's index.
    pub streams: [File; 2],
}

/// Opens the attempt's spool for appending, making what of it is not there.
///
/// # Errors
///
/// The operating system's error.
pub fn open_spool(dir: &AttemptDir) -> io::Result<SpoolFiles> {
    let open = |path: PathBuf| {
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
    };
    Ok(SpoolFiles {
        records: open(dir.spool())?,
        streams: [open(dir.raw_log())?, open(dir.stderr_log())?],
    })
}

/// When the helper was about to execute the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartStamp {
    /// The wall time.
    pub wall: Timestamp,
    /// Milliseconds since the boot that it was started in, suspended time left out, if its record says so.
    pub awake_ms: Option<u64>,
}

/// Returns whether the helper got as far as executing the agent: whether the spool has a start record.
///
/// # Errors
///
/// The operating system's error.
pub fn is_started(dir: &AttemptDir) -> io::Result<bool> {
    Ok(started_at(dir)?.is_some())
}

/// Returns when the helper was about to execute the agent, as the spool's start record says; `None` without one.
///
/// # Errors
///
/// The operating system's error.
pub fn started_at(dir: &AttemptDir) -> io::Result<Option<StartStamp>> {
    let mut reader = match SpoolReader::open(dir, None) {
        Ok(reader) => reader,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let first = match reader.next_record() {
        Ok(first) => first,
        Err(ReadError::Read(error)) => return Err(error),
        // Whatever else stands there, a helper wrote it: the agent must not be started once more.
        Err(_) => {
            let written = std::fs::metadata(dir.spool())?.modified()?;
            return Ok(Some(StartStamp {
                wall: Timestamp::try_from(written).map_err(io::Error::other)?,
                awake_ms: None,
            }));
        }
    };
    let start = first.filter(|record| record.header.kind == Kind::Start);
    start
        .map(|record| {
            let stamp = record.header.stamp;
            Ok(StartStamp {
                wall: Timestamp::from_nanosecond(stamp.wall_ns.into()).map_err(io::Error::other)?,
                // A record of ours, where there is no helper, has no such stamp.
                awake_ms: (stamp.monotonic_ns > 0).then_some(stamp.monotonic_ns / 1_000_000),
            })
        })
        .transpose()
}

/// The listening end of a handover.
#[derive(Debug)]
pub struct Handover {
    dir: AttemptDir,
    listener: UnixListener,
    path: PathBuf,
}

impl Handover {
    /// Listens in the attempt's mounted folder, in place of whatever an earlier supervisor left there.
    ///
    /// The socket is bound through the folder's descriptor, so that its path may be longer than the 108 bytes
    /// that an address can hold.
    ///
    /// # Errors
    ///
    /// The operating system's error.
    pub fn listen(dir: &AttemptDir) -> io::Result<Self> {
        let path = dir.mount().join("socket");
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let folder = File::open(dir.mount())?;
        let short = format!("/proc/self/fd/{}/socket", folder.as_raw_fd());
        let listener = UnixListener::bind(short)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o666))?;
        Ok(Self {
            dir: dir.clone(),
            listener,
            path,
        })
    }

    /// Waits for the helper and gives it the spool's descriptors, once; a helper whose connection broke before that asks
    /// again. One that has them from a supervisor which died a moment ago asks nobody: that is an error as soon as its start
    /// record is there.
    ///
    /// The caller bounds the wait. Cancel-safe: a dropped future leaves the socket listening until the value
    /// is dropped, and the helper goes on trying.
    ///
    /// # Errors
    ///
    /// The operating system's error.
    pub async fn hand_over(&self, spool: &SpoolFiles) -> io::Result<()> {
        loop {
            let asked = timeout(GLANCE, self.listener.accept()).await;
            // A start that a dead supervisor sent may arrive late, at a container that has ended, and run it once more.
            if is_started(&self.dir)? {
                return Err(io::Error::other("its agent was executed before"));
            }
            let Ok(asked) = asked else { continue };
            let (stream, _) = asked?;
            match give(stream.into_std()?, spool).await {
                Ok(()) => break,
                Err(error) => tracing::warn!(%error, "the helper is to ask for its spool again"),
            }
        }
        // What was sent cannot be taken back by an error.
        let _sent = reach(["spool", "handover", "after"]).await;
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "the used socket stays until the attempt is cleaned up");
        }
        Ok(())
    }
}

/// Sends the spool's descriptors over a connection.
async fn give(stream: UnixStream, spool: &SpoolFiles) -> io::Result<()> {
    reach(["spool", "handover", "before"])
        .await
        .map_err(io::Error::other)?;
    stream.set_nonblocking(false)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let [stdout, stderr] = &spool.streams;
    let descriptors = [spool.records.as_fd(), stdout.as_fd(), stderr.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("no room for three descriptors"));
    }
    sendmsg(
        &stream,
        &[io::IoSlice::new(&[HANDOVER_VERSION])],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use dark_factory_types::RunId;

    use super::*;
    use crate::clock::SystemClock;
    use crate::spool::SpoolWriter;

    #[tokio::test]
    async fn a_spool_that_a_helper_has_already_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let attempt = RunId::from_random_bits(1).attempt(1);
        let dir = AttemptDir::new(
            attempt,
            folder.path().to_owned(),
            folder.path().join("init"),
        );
        std::fs::create_dir(dir.mount()).unwrap();
        let spool = open_spool(&dir).unwrap();
        let handover = Handover::listen(&dir).unwrap();

        let (handed, ()) = tokio::join!(handover.hand_over(&spool), async {
            tokio::time::sleep(GLANCE / 4).await;
            let mut helper = SpoolWriter::open(&dir).unwrap();
            helper.start(&SystemClock).unwrap();
        });

        assert_eq!(
            handed.unwrap_err().to_string(),
            "its agent was executed before"
        );
    }
}
