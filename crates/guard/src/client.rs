//! How a supervisor gets a run's way out, and how it hears of the run and of the guard's end.
//!
//! Owns: one connection to the guard.
//! Reads: its answers.
//! Never: starts a guard; that is up to whoever has a program for it.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use crate::control::{Answer, Ask, CONTROL_SOCKET, LINE_CAP};

/// A connection to the guard of a state folder.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    /// The beginning of a line that is not whole yet.
    partial: Vec<u8>,
    /// What was told while an answer was waited for.
    unheard: VecDeque<Answer>,
}

impl Client {
    /// Connects to the guard.
    ///
    /// # Errors
    ///
    /// `NotFound` or `ConnectionRefused` if none lives.
    pub async fn connect(state_dir: &Path) -> io::Result<Self> {
        let folder = File::open(state_dir)?;
        let path =
            PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(CONTROL_SOCKET);
        let stream = UnixStream::connect(path).await?;
        Ok(Self {
            stream: BufReader::new(stream),
            partial: Vec::new(),
            unheard: VecDeque::new(),
        })
    }

    /// Asks for something and waits for the answer. Not cancel-safe: the connection is then to be dropped.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if the guard ended, `InvalidData` if its answer is not readable.
    pub async fn ask(&mut self, ask: &Ask) -> io::Result<Answer> {
        let mut text = serde_json::to_vec(ask)?;
        text.push(b'\n');
        self.stream.write_all(&text).await?;
        loop {
            let line = self.line().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let answer = serde_json::from_slice(&line)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            match answer {
                // Told meanwhile, and not what was asked for.
                Answer::Spent { .. } => self.unheard.push_back(answer),
                answer => return Ok(answer),
            }
        }
    }

    /// Waits for what the guard says without being asked; `None` once it has ended. Cancel-safe.
    pub async fn told(&mut self) -> Option<Answer> {
        if let Some(answer) = self.unheard.pop_front() {
            return Some(answer);
        }
        loop {
            let line = self.line().await.ok()??;
            if let Ok(answer) = serde_json::from_slice(&line) {
                return Some(answer);
            }
        }
    }

    /// Returns the next line; `None` at the end. Cancel-safe.
    async fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let unread = self.stream.fill_buf().await?;
            if unread.is_empty() {
                return Ok(None);
            }
            // What is taken out of the reader stays here, should this be cancelled.
            let end = unread.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(unread.len(), |end| end + 1);
            self.partial.extend_from_slice(&unread[..taken]);
            self.stream.consume(taken);
            if end.is_some() {
                return Ok(Some(std::mem::take(&mut self.partial)));
            }
            if self.partial.len() as u64 > LINE_CAP {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }
}
