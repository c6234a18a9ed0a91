//! The way out of a container without a network: from its loopback to the guard's socket.
//!
//! Owns: the listener on 127.0.0.1, and the connections through it.
//! Reads: nothing of what it carries.
//! Never: decides what may pass, which is the guard's part; holds more than two buffers a connection; ends.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Connections at the same time; more of them wait in the listener's queue.
const CONNECTIONS: usize = 128;
/// Bytes that are carried at once in each direction of a connection.
const BUFFER: usize = 16 << 10;
/// How long nothing is tried after the system ran out of something.
const PAUSE: Duration = Duration::from_millis(100);
/// What a client gets while there is no guard.
const NO_GUARD: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
Connection: close\r\n\r\ndark-factory: the guard that carries requests out of this container does not answer; try again\n";

/// Listens on the container's loopback, and carries each connection to the socket from now on.
///
/// # Errors
///
/// If the port is taken, or no thread can be started.
pub(super) fn start(port: u16, socket: &Path) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    let relay = Relay {
        listener,
        socket: socket.to_owned(),
        pairs: Vec::new(),
    };
    thread::Builder::new()
        .name("relay".to_owned())
        .spawn(move || relay.run())?;
    Ok(())
}

struct Relay {
    listener: TcpListener,
    socket: PathBuf,
    pairs: Vec<Pair>,
}

impl Relay {
    fn run(mut self) {
        loop {
            match self.wait() {
                Ok(()) => self.carry(),
                Err(Errno::INTR) => {}
                Err(_) => thread::sleep(PAUSE),
            }
        }
    }

    /// Waits until something can be read or written.
    fn wait(&self) -> rustix::io::Result<()> {
        let mut fds = Vec::with_capacity(1 + 2 * self.pairs.len());
        if self.pairs.len() < CONNECTIONS {
            fds.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        for pair in &self.pairs {
            fds.extend(pair.ends());
        }
        poll(&mut fds, None).map(drop)
    }

    /// Takes new connections, and carries what there is; one that has ended or broken is dropped.
    fn carry(&mut self) {
        while self.pairs.len() < CONNECTIONS {
            match self.listener.accept() {
                Ok((inside, _)) => self.pairs.extend(Pair::open(inside, &self.socket)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    thread::sleep(PAUSE);
                    break;
                }
            }
        }
        self.pairs.retain_mut(|pair| pair.carry().unwrap_or(false));
    }
}

/// A connection from inside and the one to the guard that belongs to it.
struct Pair {
    inside: TcpStream,
    outside: UnixStream,
    out: Direction,
    back: Direction,
}

impl Pair {
    /// Connects to the guard; without one, the client is told so.
    fn open(mut inside: TcpStream, socket: &Path) -> Option<Self> {
        inside.set_nonblocking(true).ok()?;
        // Requests and events are small and are waited for.
        inside.set_nodelay(true).ok()?;
        let Ok(outside) = UnixStream::connect(socket) else {
            // It fits into the socket's buffer, or the client is gone.
            let _told = inside.write(NO_GUARD);
            let _ended = inside.shutdown(Shutdown::Write);
            return None;
        };
        outside.set_nonblocking(true).ok()?;
        Some(Self {
            inside,
            outside,
            out: Direction::new(),
            back: Direction::new(),
        })
    }

    /// Returns the ends at which something is waited for.
    ///
    /// One without is left out: that it has hung up would be told again and again. Only that the guard has, once it
    /// has sent all, ends the connection.
    fn ends(&self) -> impl Iterator<Item = PollFd<'_>> {
        let inside = flags(&self.out, &self.back);
        let outside = flags(&self.back, &self.out);
        let inside = (!inside.is_empty()).then(|| PollFd::new(&self.inside, inside));
        let outside = (!outside.is_empty() || self.back.is_over())
            .then(|| PollFd::new(&self.outside, outside));
        inside.into_iter().chain(outside)
    }

    /// Carries what there is; returns whether there may be more.
    fn carry(&mut self) -> io::Result<bool> {
        let (mut inside, mut outside) = (&self.inside, &self.outside);
        if self.out.carry(&mut inside, &mut outside)? == Carried::All {
            self.outside.shutdown(Shutdown::Write)?;
        }
        if self.back.carry(&mut outside, &mut inside)? == Carried::All {
            self.inside.shutdown(Shutdown::Write)?;
        }
        Ok(!self.back.is_over() || !(self.out.is_over() || hung_up(&self.outside)))
    }
}

/// Returns what is waited for at an end that one direction reads from and the other writes to.
fn flags(from: &Direction, to: &Direction) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, from.wants_bytes());
    flags.set(PollFlags::OUT, to.holds_bytes());
    flags
}

/// Returns whether nobody is at the other end of a socket any more.
fn hung_up(socket: &UnixStream) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
}

/// How far one direction of a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carried {
    /// There may be more.
    Some,
    /// Its source has just ended, and everything has been written.
    All,
}

/// One direction of a connection.
struct Direction {
    buffer: Box<[u8; BUFFER]>,
    /// The bytes in the buffer that are still to be written.
    held: std::ops::Range<usize>,
    stage: Stage,
}

/// How far one direction of a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its source may bring more.
    Flowing,
    /// Its source has ended; what is held is still to be written.
    Ending,
    /// All of it has been written.
    Over,
}

impl Direction {
    fn new() -> Self {
        Self {
            buffer: Box::new([0; BUFFER]),
            held: 0..0,
            stage: Stage::Flowing,
        }
    }

    fn holds_bytes(&self) -> bool {
        !self.held.is_empty()
    }

    fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    fn wants_bytes(&self) -> bool {
        self.held.is_empty() && self.stage == Stage::Flowing
    }

    fn carry(&mut self, from: &mut impl Read, to: &mut impl Write) -> io::Result<Carried> {
        loop {
            while self.holds_bytes() {
                match to.write(&self.buffer[self.held.clone()]) {
                    Ok(0) => return Err(ErrorKind::WriteZero.into()),
                    Ok(written) => self.held.start += written,
                    Err(error) if waits(&error) => return Ok(Carried::Some),
                    Err(error) => return Err(error),
                }
            }
            if self.stage != Stage::Flowing {
                let before = std::mem::replace(&mut self.stage, Stage::Over);
                return Ok(match before {
                    Stage::Ending => Carried::All,
                    Stage::Flowing | Stage::Over => Carried::Some,
                });
            }
            match from.read(&mut self.buffer[..]) {
                Ok(0) => self.stage = Stage::Ending,
                Ok(read) => self.held = 0..read,
                Err(error) if waits(&error) => return Ok(Carried::Some),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Returns whether it is only to be tried again later.
fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
