//! A socket before the engine's that loses answers, or gives none: what a crash at the worst moment looks like to us.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use dark_factory_engines::docker::DockerEngine;
use tempfile::TempDir;

use super::lab::engine;

const FAILURE: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n\
    Content-Length: 18\r\nConnection: close\r\n\r\n{\"message\":\"busy\"}";

/// What happens to a request whose first line has the text in it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mishap {
    /// The engine does it, and its answer is lost.
    LoseAnswer(&'static str),
    /// The engine never hears of it.
    LoseRequest(&'static str),
    /// The connection lasts until [`Proxy::cut`].
    Cut(&'static str),
    /// The first so many are answered with an internal error.
    Fail(&'static str, usize),
    /// It is accepted, and nothing ever answers.
    Mute(&'static str),
    /// From the first one on, every connection is accepted and nothing is answered.
    Freeze(&'static str),
}

impl Mishap {
    fn concerns(self, line: &str) -> bool {
        match self {
            Self::LoseAnswer(text)
            | Self::LoseRequest(text)
            | Self::Cut(text)
            | Self::Fail(text, _)
            | Self::Mute(text)
            | Self::Freeze(text) => line.contains(text),
        }
    }
}

pub(crate) struct Proxy {
    folder: TempDir,
    shared: Arc<Shared>,
}

struct Shared {
    mishaps: Vec<Mishap>,
    connections: Mutex<Vec<UnixStream>>,
    failed: AtomicUsize,
    is_frozen: AtomicBool,
}

impl Proxy {
    pub(crate) fn new<const N: usize>(mishaps: [Mishap; N]) -> Self {
        let folder = TempDir::new().unwrap();
        let listener = UnixListener::bind(folder.path().join("proxy.sock")).unwrap();
        let shared = Arc::new(Shared {
            mishaps: mishaps.to_vec(),
            connections: Mutex::default(),
            failed: AtomicUsize::new(0),
            is_frozen: AtomicBool::new(false),
        });
        let served = Arc::clone(&shared);
        // It ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&served);
                thread::spawn(move || shared.serve(client));
            }
        });
        Self { folder, shared }
    }

    /// Returns an engine behind the proxy.
    pub(crate) fn engine(&self) -> DockerEngine {
        engine(&format!(
            "unix://{}",
            self.folder.path().join("proxy.sock").display()
        ))
    }

    /// Breaks the connections that shall be.
    pub(crate) fn cut(&self) {
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            connection.shutdown(Shutdown::Both).unwrap();
        }
    }
}

impl Shared {
    fn serve(&self, mut client: UnixStream) -> io::Result<()> {
        let mut first = vec![0; 64 * 1024];
        let length = client.read(&mut first)?;
        let line = String::from_utf8_lossy(&first[..length])
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned();
        let mishap = self.mishaps.iter().find(|mishap| mishap.concerns(&line));
        if matches!(mishap, Some(Mishap::Freeze(_))) {
            self.is_frozen.store(true, Ordering::SeqCst);
        }
        if self.is_frozen.load(Ordering::SeqCst) || matches!(mishap, Some(Mishap::Mute(_))) {
            // Until the client gives up.
            return io::copy(&mut client, &mut io::sink()).map(drop);
        }
        let mut engine = UnixStream::connect("/var/run/docker.sock")?;
        match mishap {
            Some(Mishap::Fail(_, times)) if self.failed.fetch_add(1, Ordering::SeqCst) < *times => {
                return client.write_all(FAILURE);
            }
            Some(Mishap::LoseRequest(_)) => return Ok(()),
            Some(Mishap::LoseAnswer(_)) => {
                engine.write_all(&first[..length])?;
                // With the answer's first bytes the engine has done what it was asked for.
                return engine.read(&mut first).map(drop);
            }
            Some(Mishap::Cut(_)) => self.connections.lock().unwrap().push(client.try_clone()?),
            _ => {}
        }
        engine.write_all(&first[..length])?;
        forward(client, engine)
    }
}

fn forward(mut client: UnixStream, mut engine: UnixStream) -> io::Result<()> {
    let (mut from_client, mut to_engine) = (client.try_clone()?, engine.try_clone()?);
    thread::spawn(move || {
        let copied = io::copy(&mut from_client, &mut to_engine);
        // A client that hangs up is to be seen by the engine.
        copied.and_then(|_| to_engine.shutdown(Shutdown::Both))
    });
    io::copy(&mut engine, &mut client)?;
    client.shutdown(Shutdown::Both)
}
