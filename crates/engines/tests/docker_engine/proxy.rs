//! A socket before the engine's that loses answers: what a crash at the worst moment looks like to us.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::thread;

use dark_factory_engines::docker::DockerEngine;
use tempfile::TempDir;

use super::lab::engine;

/// What happens to a request whose first line has the text in it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mishap {
    /// The engine does it, and its answer is lost.
    LoseAnswer(&'static str),
    /// The connection lasts until [`Proxy::cut`].
    Cut(&'static str),
}

pub(crate) struct Proxy {
    folder: TempDir,
    connections: Arc<Mutex<Vec<UnixStream>>>,
}

impl Proxy {
    pub(crate) fn new(mishap: Mishap) -> Self {
        let folder = TempDir::new().unwrap();
        let listener = UnixListener::bind(folder.path().join("proxy.sock")).unwrap();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let cut = Arc::clone(&connections);
        // It ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let cut = Arc::clone(&cut);
                thread::spawn(move || serve(client, mishap, &cut));
            }
        });
        Self {
            folder,
            connections,
        }
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
        for connection in self.connections.lock().unwrap().drain(..) {
            connection.shutdown(Shutdown::Both).unwrap();
        }
    }
}

fn serve(mut client: UnixStream, mishap: Mishap, cut: &Mutex<Vec<UnixStream>>) -> io::Result<()> {
    let mut first = vec![0; 64 * 1024];
    let length = client.read(&mut first)?;
    let line = String::from_utf8_lossy(&first[..length])
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    let mut engine = UnixStream::connect("/var/run/docker.sock")?;
    engine.write_all(&first[..length])?;
    match mishap {
        Mishap::LoseAnswer(text) if line.contains(text) => {
            // With the answer's first bytes the engine has done what it was asked for.
            engine.read(&mut first).map(drop)
        }
        Mishap::Cut(text) if line.contains(text) => {
            cut.lock().unwrap().push(client.try_clone()?);
            forward(client, engine)
        }
        _ => forward(client, engine),
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
