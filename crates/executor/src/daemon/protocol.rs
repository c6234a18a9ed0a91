//! What is said to a daemon, and what it answers: one line of JSON each, over a socket in the state folder.
//!
//! Owns: the messages, and the asking side.
//! Reads: nothing else.
//! Never: carries anything that must survive: that stands in the store.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use dark_factory_types::{AttemptId, RunId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// The version of the messages.
pub const VERSION: u32 = 1;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The socket's name in the state folder.
pub(super) const SOCKET: &str = "daemon.sock";

/// What a daemon is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// To say what it does.
    Status,
    /// To look into the store: there may be something new.
    Look,
    /// To let go of its runs, which go on, and to end.
    Stop,
    /// To begin nothing more, and to end once its runs have.
    Drain,
    /// To execute its binary anew.
    Reload,
}

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The version of the messages.
    pub version: u32,
    /// What is asked for.
    pub ask: Ask,
}

/// A reply: a status as of before anything was done, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The version of the messages.
    pub version: u32,
    /// What the daemon does.
    pub status: Option<Status>,
    /// Why it does not do what was asked for.
    pub error: Option<String>,
}

/// What a daemon does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its process id.
    pub pid: u32,
    /// The version of its program.
    pub program: String,
    /// Since when it does it; a reload begins anew.
    pub since: Timestamp,
    /// Where its engine is, if its maker said so.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// What a person should know of it besides, such as why a reload failed.
    pub note: Option<String>,
    /// Whether it begins queued runs.
    pub mode: Mode,
    /// How many queued runs it begins at the same time.
    pub jobs: usize,
    /// The runs that it supervises.
    pub supervised: Vec<RunId>,
    /// The runs that wait for their turn.
    pub queued: Vec<RunId>,
    /// The runs that another process supervises; it takes them over should that process die.
    pub watched: Vec<RunId>,
    /// The runs that it could not go on with, and tries again.
    pub failing: Vec<Failing>,
}

/// A run that a daemon could not go on with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// The attempt.
    pub attempt: AttemptId,
    /// What went wrong last.
    pub why: String,
}

/// Whether a daemon begins queued runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It does.
    Serving,
    /// It ends once its runs have ended.
    Draining,
}

/// A daemon that could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// Nobody listens.
    #[error("no daemon answers in {0}")]
    NoDaemon(String),
    /// It ended, or executed its program anew, before it answered.
    #[error("the daemon in {0} ended before it answered")]
    Ended(String),
    /// The conversation broke off.
    #[error("the daemon could not be asked")]
    Io(#[source] io::Error),
    /// The daemon said no.
    #[error("the daemon answered: {0}")]
    Refused(String),
}

/// Asks the daemon of a state folder, and returns its status as of before it did what was asked for.
///
/// # Errors
///
/// [`AskError`].
pub async fn ask(state_dir: &Path, ask: Ask) -> Result<Status, AskError> {
    let conversation = async {
        let stream = connect(state_dir).await?;
        let (from, mut to) = stream.into_split();
        let request = Request {
            version: VERSION,
            ask,
        };
        to.write_all(&line(&request)?).await?;
        let mut answer = String::new();
        BufReader::new(from).read_line(&mut answer).await?;
        Ok(serde_json::from_str::<Reply>(&answer)?)
    };
    let answer: io::Result<Reply> = match tokio::time::timeout(PATIENCE, conversation).await {
        Ok(answer) => answer,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    match answer {
        Ok(Reply {
            status: Some(status),
            error: None,
            ..
        }) => Ok(status),
        Ok(reply) => Err(AskError::Refused(reply.error.unwrap_or_default())),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                Err(AskError::NoDaemon(state_dir.display().to_string()))
            }
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => Err(AskError::Ended(state_dir.display().to_string())),
            _ => Err(AskError::Io(error)),
        },
    }
}

/// Connects through the folder's descriptor, so that its path may be longer than the 108 bytes of an address.
async fn connect(state_dir: &Path) -> io::Result<UnixStream> {
    let folder = File::open(state_dir)?;
    let short = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd());
    UnixStream::connect(short).await
}

/// Writes a message as a line.
pub(super) fn line(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}
