//! An engine's socket with faults: forwards to the real engine, and holds, delays, loses or cuts what a test names.
//!
//! Owns: a socket of its own, and every connection through it.
//! Reads: the first line of each request.
//! Never: alters what the engine says, or answers in its place but where a test names that fault.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// The engine's socket.
pub(crate) const ENGINE: &str = "/var/run/docker.sock";
/// How long a test waits for a request, and a held one for its release.
const PATIENCE: Duration = Duration::from_secs(30);
const HEAD_END: &[u8] = b"\r\n\r\n";
/// The message of every answer in the engine's place.
const INSTEAD: &str = "a fault of the test";

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It waits in front of the engine.
    HoldRequest,
    /// The engine does it, and its reply waits behind the engine.
    HoldReply,
    /// The engine does it, and the connection breaks before its reply.
    LoseReply,
    /// The engine does it, and the connection breaks after this many bytes of its reply's head.
    CutHead(usize),
    /// The engine does it, and the connection breaks after this many bytes of its reply's body, as it is encoded.
    CutBody(usize),
    /// It reaches the engine this much later.
    DelayRequest(Duration),
    /// The engine does it, and its reply comes whole, this much later.
    DelayReply(Duration),
    /// The engine never hears of it; this answer comes in its place.
    Answer(Instead),
    /// The connection to the engine is closed for writing behind the request, which must have no body, and its reply is
    /// passed on.
    CloseRequest,
    /// The connection to the client is closed for writing at once, and the engine's side stays open to its end.
    CloseReply,
}

/// What the proxy says in the engine's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instead {
    /// Status 200, by an engine whose API is too old for us.
    OldApi,
    /// Status 400.
    BadRequest,
    /// Status 404.
    NotFound,
    /// Status 409.
    Conflict,
    /// Status 500.
    ServerError,
    /// Success, of an engine whose API is older than we need.
    OldEngine,
    /// Success, of an engine whose host keeps no limits.
    NoLimits,
}

impl Instead {
    fn answer(self) -> String {
        let status = match self {
            Self::OldApi => "200 OK\r\nApi-Version: 1.40",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::Conflict => "409 Conflict",
            Self::ServerError => "500 Internal Server Error",
            Self::OldEngine => "200 OK\r\nApi-Version: 1.24",
            Self::NoLimits => "200 OK",
        };
        let body = format!("{{\"message\":\"{INSTEAD}\"}}");
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}"
        )
    }
}

/// A socket in front of the engine; ends with the test.
#[derive(Debug)]
pub struct EngineProxy {
    folder: TempDir,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The socket of the engine itself.
    engine: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    seen: Vec<String>,
    faults: Vec<(String, Fault)>,
    held: usize,
    /// Counts the releases; what is held waits for the next one.
    releases: usize,
    release: Release,
    link: Link,
    refused: usize,
    open: Vec<UnixStream>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Release {
    #[default]
    GoOn,
    Break,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Link {
    #[default]
    Up,
    Down,
}

impl EngineProxy {
    /// Starts a proxy without faults.
    ///
    /// # Panics
    ///
    /// If its socket cannot be made.
    #[expect(
        clippy::new_without_default,
        reason = "it opens a socket; a default would hide that"
    )]
    pub fn new() -> Self {
        Self::before(Path::new(ENGINE))
    }

    /// Starts a proxy without faults before an engine with this socket.
    ///
    /// # Panics
    ///
    /// If its own socket cannot be made.
    pub fn before(engine: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let listener = UnixListener::bind(folder.path().join("engine.sock")).expect("a socket");
        let shared = Arc::new(Shared {
            engine: engine.to_owned(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&accepting);
                thread::spawn(move || {
                    // An engine that is gone shows as a connection that breaks.
                    if shared.serve(&client).is_err() {
                        let _closed = client.shutdown(Shutdown::Both);
                    }
                });
            }
        });
        Self { folder, shared }
    }

    /// Returns `DOCKER_HOST` for whoever is to go through the proxy.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("engine.sock")
    }

    /// Lets the next request of this kind meet a fault.
    ///
    /// `request` is the beginning of its first line without the API's version; a `*` stands for anything, once:
    /// `POST /containers/*/start`.
    pub fn next(&self, request: &str, fault: Fault) {
        self.shared.lock().faults.push((request.to_owned(), fault));
    }

    /// Waits until a request, or a reply, is held.
    ///
    /// # Panics
    ///
    /// If none comes within 30 s.
    pub fn wait_until_held(&self) {
        self.shared
            .wait("a request to hold", |state| state.held > 0);
    }

    /// Lets everything that is held go on, even if whoever sent it is dead.
    pub fn release(&self) {
        self.shared.release(Release::GoOn);
    }

    /// Breaks every connection that is held.
    pub fn break_held(&self) {
        self.shared.release(Release::Break);
    }

    /// Breaks every connection, and refuses new ones until [`EngineProxy::come_back`].
    pub fn go_away(&self) {
        let mut state = self.shared.lock();
        state.link = Link::Down;
        for stream in state.open.drain(..) {
            // One that is closed already needs nothing.
            let _closed = stream.shutdown(Shutdown::Both);
        }
    }

    /// Waits until the engine was asked for this many times in vain.
    ///
    /// # Panics
    ///
    /// If that takes more than 30 s.
    pub fn wait_until_refused(&self, times: usize) {
        self.shared
            .wait("connections to refuse", |state| state.refused >= times);
    }

    /// Ends what [`EngineProxy::go_away`] began.
    pub fn come_back(&self) {
        self.shared.lock().link = Link::Up;
    }

    /// Waits until there were this many requests of a kind; see [`EngineProxy::next`].
    ///
    /// # Panics
    ///
    /// If that takes more than 30 s.
    pub fn wait_until_asked(&self, request: &str, times: usize) {
        self.shared
            .wait(request, |state| state.count(request) >= times);
    }

    /// Returns how many requests of this kind there were; see [`EngineProxy::next`].
    pub fn count(&self, request: &str) -> usize {
        self.shared.lock().count(request)
    }
}

impl State {
    fn count(&self, request: &str) -> usize {
        let like = |line: &&String| is_like(line, request);
        self.seen.iter().filter(like).count()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, what: &str, condition: impl Fn(&State) -> bool) {
        let waiting = self
            .changed
            .wait_timeout_while(self.lock(), PATIENCE, |state| !condition(state));
        let (_state, waited) = waiting.unwrap_or_else(PoisonError::into_inner);
        assert!(!waited.timed_out(), "waited in vain for {what}");
    }

    fn release(&self, release: Release) {
        let mut state = self.lock();
        state.release = release;
        state.releases += 1;
        state.held = 0;
        self.changed.notify_all();
    }

    /// Holds the calling thread until the next release.
    fn hold(&self) -> Release {
        let mut state = self.lock();
        let before = state.releases;
        state.held += 1;
        self.changed.notify_all();
        let waiting = self
            .changed
            .wait_timeout_while(state, PATIENCE, |state| state.releases == before);
        let (state, waited) = waiting.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            Release::Break
        } else {
            state.release
        }
    }

    fn serve(&self, client: &UnixStream) -> io::Result<()> {
        let mut client = client.try_clone()?;
        let mut engine = {
            let mut state = self.lock();
            if state.link == Link::Down {
                state.refused += 1;
                self.changed.notify_all();
                return Ok(());
            }
            let engine = UnixStream::connect(&self.engine)?;
            state.open.push(client.try_clone()?);
            state.open.push(engine.try_clone()?);
            engine
        };
        let request = read_request(&mut client)?;
        let fault = self.note(&request);
        match fault {
            Some(Fault::HoldRequest) if self.hold() == Release::Break => {
                return client.shutdown(Shutdown::Both);
            }
            Some(Fault::DelayRequest(delay)) => thread::sleep(delay),
            Some(Fault::Answer(instead)) => return answer(client, instead),
            _ => {}
        }
        engine.write_all(&request)?;
        let (from, to) = (client.try_clone()?, engine.try_clone()?);
        thread::spawn(move || send_body(from, to, fault));
        match fault {
            None | Some(Fault::HoldRequest | Fault::DelayRequest(_) | Fault::Answer(_)) => {
                return pass_on(engine, client);
            }
            Some(Fault::CloseRequest) => {
                engine.shutdown(Shutdown::Write)?;
                return pass_on(engine, client);
            }
            Some(Fault::CutHead(length)) => return pass_on(engine.take(length as u64), client),
            Some(Fault::CutBody(length)) => {
                let (mut reply, end) = read_to_head_end(&mut engine)?;
                reply.truncate(end + HEAD_END.len() + length);
                let left = end + HEAD_END.len() + length - reply.len();
                client.write_all(&reply)?;
                return pass_on(engine.take(left as u64), client);
            }
            Some(Fault::CloseReply) => client.shutdown(Shutdown::Write)?,
            Some(Fault::HoldReply | Fault::LoseReply | Fault::DelayReply(_)) => {}
        }
        let mut reply = Vec::new();
        engine.read_to_end(&mut reply)?;
        match fault {
            Some(Fault::HoldReply) if self.hold() == Release::GoOn => client.write_all(&reply)?,
            Some(Fault::DelayReply(delay)) => {
                thread::sleep(delay);
                client.write_all(&reply)?;
            }
            _ => {}
        }
        client.shutdown(Shutdown::Both)
    }

    /// Keeps a request's first line, and returns the fault that it is to meet.
    fn note(&self, request: &[u8]) -> Option<Fault> {
        let head = String::from_utf8_lossy(request);
        let line = without_version(head.lines().next().unwrap_or_default());
        let mut state = self.lock();
        let due = state
            .faults
            .iter()
            .position(|(wanted, _)| is_like(&line, wanted));
        state.seen.push(line);
        self.changed.notify_all();
        due.map(|index| state.faults.remove(index).1)
    }
}

/// Reads a request up to the end of its head or further, and asks for the connection's end behind its reply.
fn read_request(client: &mut UnixStream) -> io::Result<Vec<u8>> {
    let (mut request, end) = read_to_head_end(client)?;
    // One request a connection: what follows belongs to it, and the reply ends where the connection does.
    request.splice(end..end, *b"\r\nConnection: close");
    Ok(request)
}

/// Reads up to the end of a head or further; returns what was read, and where the head ends.
fn read_to_head_end(stream: &mut UnixStream) -> io::Result<(Vec<u8>, usize)> {
    let mut read = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(end) = find(&read, HEAD_END) {
            return Ok((read, end));
        }
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => read.extend_from_slice(&chunk[..length]),
        }
    }
}

/// Sends the rest of a request; a client that leaves takes its connection to the engine along.
fn send_body(mut client: UnixStream, mut engine: UnixStream, fault: Option<Fault>) {
    let sent = io::copy(&mut client, &mut engine);
    if sent.is_err() || fault.is_none() {
        // The engine may have closed it already.
        let _closed = engine.shutdown(Shutdown::Both);
    }
}

/// Answers a request in the engine's place.
fn answer(mut client: UnixStream, instead: Instead) -> io::Result<()> {
    client.write_all(instead.answer().as_bytes())?;
    client.shutdown(Shutdown::Write)?;
    // A socket that is closed before everything in it was read would take the answer back.
    io::copy(&mut client, &mut io::sink()).map(drop)
}

/// Passes a reply on to its end, as it comes; a client that is dead misses it.
fn pass_on(mut engine: impl Read, mut client: UnixStream) -> io::Result<()> {
    let mut chunk = [0; 16 * 1024];
    loop {
        match engine.read(&mut chunk)? {
            0 => return client.shutdown(Shutdown::Both),
            length => {
                let _missed = client.write_all(&chunk[..length]);
            }
        }
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// Leaves `/v1.41` out of a request's first line.
fn without_version(line: &str) -> String {
    let version = line.split_once("/v").and_then(|(method, rest)| {
        let (version, path) = rest.split_once('/')?;
        let is_version = version.chars().all(|c| c.is_ascii_digit() || c == '.');
        is_version.then(|| format!("{method}/{path}"))
    });
    version.unwrap_or_else(|| line.to_owned())
}

fn is_like(line: &str, wanted: &str) -> bool {
    match wanted.split_once('*') {
        Some((start, rest)) => line
            .strip_prefix(start)
            .is_some_and(|end| end.contains(rest)),
        None => line.starts_with(wanted),
    }
}
