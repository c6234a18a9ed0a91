//! Takes the spool over from the supervisor.
//!
//! Owns: the connection to the handover socket.
//! Reads: one message: the version byte and the descriptors.
//! Never: starts the agent without a spool, or waits longer than it was told to.

use std::fs::File;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use dark_factory_spool::{EXIT_NO_SUPERVISOR, HANDOVER_VERSION};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, recvmsg, socket_with,
};

use super::Failure;
use super::signals::Signals;

const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A message on the handover socket.
pub(crate) struct Message {
    version: u8,
    /// The descriptors that came with it, closed on exec.
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// Receives one message; `None` if the other side closed the connection.
pub(crate) fn receive(socket: impl AsFd) -> rustix::io::Result<Option<Message>> {
    let mut version = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut version)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let descriptors = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    Ok(Some(Message {
        version: version[0],
        descriptors,
    }))
}

/// Connects to the supervisor, again and again until `deadline`, and takes the spool's descriptors: of the records and of both
/// streams.
pub(super) fn take_spool(
    socket: &Path,
    deadline: Instant,
    signals: &Signals,
) -> Result<[File; 3], Failure> {
    let address = SocketAddrUnix::new(socket)
        .map_err(|error| Failure::set_up("bad handover socket path", error))?;
    loop {
        let error = match try_once(&address, deadline, signals)? {
            Ok(Some(message)) => {
                // Asked for while the message was on its way; nothing was started yet.
                stop_if_asked(signals)?;
                return accept(message);
            }
            // A supervisor that ended before it sent may be replaced by one that recovers the run.
            Ok(None) => "the supervisor closed the connection".to_owned(),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= deadline {
            return Err(Failure {
                status: EXIT_NO_SUPERVISOR,
                message: format!(
                    "no supervisor at {}: {error}; agent not started",
                    socket.display()
                ),
            });
        }
        let _ready = wait(signals.as_fd(), PollFlags::IN, RETRY_PAUSE);
        stop_if_asked(signals)?;
    }
}

/// Makes one connection and waits for its message; `None` if it ends without one.
///
/// The outer error is that of a wait which is over: a stop was asked for.
fn try_once(
    address: &SocketAddrUnix,
    deadline: Instant,
    signals: &Signals,
) -> Result<rustix::io::Result<Option<Message>>, Failure> {
    let socket = match connected(address) {
        Ok(socket) => socket,
        Err(error) => return Ok(Err(error)),
    };
    loop {
        match receive(&socket) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            received => return Ok(received),
        }
        let now = Instant::now();
        if now >= deadline {
            return Ok(Err(Errno::TIMEDOUT));
        }
        let mut fds = [
            PollFd::new(&socket, PollFlags::IN),
            PollFd::new(signals, PollFlags::IN),
        ];
        match poll(&mut fds, Some(&timespec(deadline - now))) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Ok(Err(error)),
        }
        // Any other signal leaves the connection alone: the supervisor listens only once.
        stop_if_asked(signals)?;
    }
}

fn connected(address: &SocketAddrUnix) -> rustix::io::Result<OwnedFd> {
    // Non-blocking, because a full backlog would otherwise hold us past the deadline.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, address)?;
    Ok(socket)
}

fn accept(message: Message) -> Result<[File; 3], Failure> {
    if message.version != HANDOVER_VERSION {
        return Err(refused("the supervisor speaks another version"));
    }
    let descriptors: [OwnedFd; 3] = message
        .descriptors
        .try_into()
        .map_err(|_| refused("not three descriptors came with the message"))?;
    descriptors.iter().try_for_each(check)?;
    Ok(descriptors.map(File::from))
}

fn check(descriptor: &OwnedFd) -> Result<(), Failure> {
    let stat =
        fstat(descriptor).map_err(|error| Failure::set_up("cannot stat the spool", error))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(refused("the spool is not a regular file"));
    }
    let flags = fcntl_getfl(descriptor)
        .map_err(|error| Failure::set_up("cannot read the spool's flags", error))?;
    if !flags.contains(OFlags::APPEND) || !flags.intersects(OFlags::WRONLY | OFlags::RDWR) {
        return Err(refused("the spool is not open for appending"));
    }
    Ok(())
}

fn refused(reason: &str) -> Failure {
    Failure::set_up("handover refused", reason)
}

fn stop_if_asked(signals: &Signals) -> Result<(), Failure> {
    while let Some(notice) = signals.next() {
        if notice.asks_to_stop() {
            return Err(Failure {
                status: EXIT_NO_SUPERVISOR,
                message: "stopped before a supervisor came; agent not started".to_owned(),
            });
        }
    }
    Ok(())
}

fn wait(fd: BorrowedFd<'_>, flags: PollFlags, time: Duration) -> rustix::io::Result<usize> {
    poll(
        &mut [PollFd::from_borrowed_fd(fd, flags)],
        Some(&timespec(time)),
    )
}

/// Converts a duration for `poll`; one too long for it becomes an hour.
pub(super) fn timespec(time: Duration) -> Timespec {
    Timespec::try_from(time).unwrap_or(Timespec {
        tv_sec: 3600,
        tv_nsec: 0,
    })
}
