//! The Docker engine that the tests use: the one that answers, or one that is started here.
//!
//! Owns: the start of an engine, on Debian as root.
//! Reads: `DOCKER_HOST`, as the product does.
//! Never: stops an engine, and starts none where `DOCKER_HOST` names one.

use std::env;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::packages::{self, Packages};
use crate::program::{self, Failure};

const DEFAULT_ENDPOINT: &str = "unix:///var/run/docker.sock";
const PING_TIMEOUT: Duration = Duration::from_secs(5);
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a package's own start of its service is waited for.
const SERVICE_TIMEOUT: Duration = Duration::from_secs(10);

/// An engine that answers.
#[derive(Debug)]
pub(crate) struct Engine {
    endpoint: String,
}

impl Engine {
    /// Finds the engine, or installs and starts one.
    pub(crate) fn provide(packages: &mut Packages, cache: &Path) -> Result<Self, Failure> {
        let named = env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
        let engine = Self {
            endpoint: named.clone().unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned()),
        };
        if engine.ping().is_err() {
            if let Some(host) = named {
                return Err(Failure::new(format!(
                    "no Docker engine answers at DOCKER_HOST={host}"
                )));
            }
            engine.start(packages, cache)?;
        }
        packages.provide(&[packages::DOCKER])?;
        packages.provide(&[packages::DOCKER_CLI])?;
        Ok(engine)
    }

    /// Names an engine.
    pub(crate) fn at(endpoint: String) -> Self {
        Self { endpoint }
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Returns whether it answers.
    pub(crate) fn answers(&self) -> bool {
        self.ping().is_ok()
    }

    /// Waits until it answers, after it was started.
    pub(crate) fn answers_soon(&self, daemon: Option<&mut Child>) -> bool {
        self.answers_within(START_TIMEOUT, daemon)
    }

    /// The docker command line, talking to this engine.
    pub(crate) fn docker(&self) -> Command {
        let mut command = Command::new("docker");
        command
            .env_remove("DOCKER_CONTEXT")
            .args(["--host", &self.endpoint]);
        command
    }

    /// Returns the containers that dark-factory made and that still exist: id and name.
    pub(crate) fn our_containers(&self) -> Result<Vec<String>, Failure> {
        let mut list = self.docker();
        list.args(["ps", "--all", "--filter", "label=dark-factory.owner"])
            .args(["--format", "{{.ID}} {{.Names}}"]);
        Ok(program::read(&mut list)?
            .lines()
            .map(str::to_owned)
            .collect())
    }

    fn start(&self, packages: &mut Packages, cache: &Path) -> Result<(), Failure> {
        if !packages::is_debian_root() {
            return Err(Failure::new(
                "no Docker engine answers at /var/run/docker.sock: install Docker Engine (Debian: docker.io) and start \
                 it, be in the group docker, or set DOCKER_HOST",
            ));
        }
        packages.provide(&[packages::DOCKERD])?;
        if Path::new("/run/systemd/system").is_dir() {
            program::run(Command::new("systemctl").args(["start", "docker"]))?;
        }
        if self.answers_within(SERVICE_TIMEOUT, None) {
            return Ok(());
        }
        let log = cache.join("dockerd.log");
        // The kernel or the file system may refuse overlays; plain copies always work.
        for options in [&[][..], &["--storage-driver=vfs"][..]] {
            let output = program::open_log(&log)?;
            let mut daemon = Command::new("dockerd")
                .args(options)
                .stdin(Stdio::null())
                .stdout(output.try_clone()?)
                .stderr(output)
                .process_group(0)
                .spawn()?;
            if self.answers_within(START_TIMEOUT, Some(&mut daemon)) {
                eprintln!(
                    "   started dockerd (process {}); it keeps running; log: {}",
                    daemon.id(),
                    log.display()
                );
                return Ok(());
            }
            // One that hangs must not hold the socket of the next one.
            daemon.kill()?;
            daemon.wait()?;
        }
        Err(Failure::new(format!(
            "dockerd does not start here; the end of {}:\n{}",
            log.display(),
            program::tail(&log)
        )))
    }

    /// Waits until the engine answers; gives up at the timeout, or when the daemon ends.
    fn answers_within(&self, timeout: Duration, mut daemon: Option<&mut Child>) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            if self.ping().is_ok() {
                return true;
            }
            let ended = daemon
                .as_mut()
                .is_some_and(|daemon| !matches!(daemon.try_wait(), Ok(None)));
            if ended || Instant::now() > deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn ping(&self) -> io::Result<()> {
        let unsupported = || io::Error::from(io::ErrorKind::Unsupported);
        match self.endpoint.split_once("://").ok_or_else(unsupported)? {
            ("unix", path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PING_TIMEOUT))?;
                ping_over(stream)
            }
            ("tcp", address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_read_timeout(Some(PING_TIMEOUT))?;
                ping_over(stream)
            }
            _ => Err(unsupported()),
        }
    }
}

fn ping_over(mut stream: impl Read + Write) -> io::Result<()> {
    stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    if status.ends_with(b" 200") {
        Ok(())
    } else {
        Err(io::Error::other("the engine refused a ping"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Wire {
        answer: &'static [u8],
        asked: Vec<u8>,
    }

    impl Read for Wire {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.answer.read(buffer)
        }
    }

    impl Write for Wire {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.asked.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_an_engine_that_says_200_answers() {
        for (answer, answers) in [
            (&b"HTTP/1.0 200 OK\r\n\r\nOK"[..], true),
            (&b"HTTP/1.1 500 Internal Server Error\r\n\r\n"[..], false),
            (&b"HTTP"[..], false),
        ] {
            let wire = Wire {
                answer,
                asked: Vec::new(),
            };

            assert_eq!(ping_over(wire).is_ok(), answers);
        }
    }
}
