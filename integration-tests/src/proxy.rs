//! An engine's socket with faults: forwards to the real engine, and holds, loses or cuts what a test names.
//!
//! Owns: a socket of its own, and every connection through it.
//! Reads: the first line of each request.
//! Never: answers in the engine's place, or alters what the engine says.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// The engine's socket.
pub(crate) const ENGINE: &str = "/var/run/docker.sock";
/// How long a test waits for a request, and a held one for its release.
const PATIENCE: Duration = Duration::from_secs(30);
const HEAD_END: &[u8] = b"\r\n\r\n";

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It waits in front of the engine.
    HoldRequest,
    /// The engine does it, and its reply waits behind the engine.
    HoldReply,
    /// The engine does it, and the connection breaks before its reply.
    LoseReply,
}

/// A socket in front of the engine; ends with the test.
#[derive(Debug)]
pub struct EngineProxy {
    folder: TempDir,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
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
        let folder = tempfile::tempdir().expect("a temporary folder");
        let listener = UnixListener::bind(folder.path().join("engine.sock")).expect("a socket");
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&accepting);
                // A broken connection is what this is for.
                thread::spawn(move || shared.serve(client));
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

    /// Returns how many requests of this kind there were; see [`EngineProxy::next`].
    pub fn count(&self, request: &str) -> usize {
        self.shared
            .lock()
            .seen
            .iter()
            .filter(|line| is_like(line, request))
            .count()
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

    fn serve(&self, mut client: UnixStream) -> io::Result<()> {
        let mut engine = {
            let mut state = self.lock();
            if state.link == Link::Down {
                state.refused += 1;
                self.changed.notify_all();
                return Ok(());
            }
            let engine = UnixStream::connect(ENGINE)?;
            state.open.push(client.try_clone()?);
            state.open.push(engine.try_clone()?);
            engine
        };
        let Some(request) = read_head(&mut client)? else {
            return Ok(());
        };
        let fault = self.note(&request);
        if fault == Some(Fault::HoldRequest) && self.hold() == Release::Break {
            return client.shutdown(Shutdown::Both);
        }
        engine.write_all(&request)?;
        let (from, to) = (client.try_clone()?, engine.try_clone()?);
        thread::spawn(move || send_body(from, to, fault));
        if matches!(fault, None | Some(Fault::HoldRequest)) {
            return pass_on(engine, client);
        }
        let mut reply = Vec::new();
        engine.read_to_end(&mut reply)?;
        if fault == Some(Fault::HoldReply) && self.hold() == Release::GoOn {
            client.write_all(&reply)?;
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
        due.map(|index| state.faults.remove(index).1)
    }
}

/// Reads a request up to the end of its head or further, and asks for the connection's end behind its reply.
///
/// `None` if there is no whole head.
fn read_head(client: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(end) = find(&request, HEAD_END) {
            // One request a connection: what follows belongs to it, and the reply ends where the connection does.
            request.splice(end..end, *b"\r\nConnection: close");
            return Ok(Some(request));
        }
        match client.read(&mut chunk)? {
            0 => return Ok(None),
            length => request.extend_from_slice(&chunk[..length]),
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

/// Passes a reply on to its end, as it comes; a client that is dead misses it.
fn pass_on(mut engine: UnixStream, mut client: UnixStream) -> io::Result<()> {
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
