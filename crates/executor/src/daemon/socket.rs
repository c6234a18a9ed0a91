//! The daemon's end of its socket.
//!
//! Owns: `daemon.sock`, and the conversations over it.
//! Reads: requests of this user's processes.
//! Never: does what is asked for: the daemon's own task does.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::protocol::{Ask, Reply, Request, SOCKET, Status, VERSION, line};
use super::seat::Seat;

/// How long a conversation may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest request, in bytes.
const LONGEST: u64 = 4096;
/// Conversations at the same time; the next one waits.
const CONVERSATIONS: usize = 64;
/// How long conversations may take once the daemon ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A request on its way to the daemon's task.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) ask: Ask,
    /// Where the answer goes, if anybody waits for one.
    pub(super) answer: Option<oneshot::Sender<Status>>,
}

/// The listening socket.
#[derive(Debug)]
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Listens, in place of whatever an earlier daemon left: the seat says that there is no other.
    pub(super) fn listen(seat: &Seat) -> io::Result<Self> {
        let path = seat.state_dir().join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let folder = File::open(seat.state_dir())?;
        let short = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd());
        let listener = UnixListener::bind(short)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(Self { listener, path })
    }

    /// Talks to whoever connects until `closing`, then ends what was begun, and removes the socket.
    pub(super) async fn talk(self, asks: mpsc::Sender<Asked>, closing: CancellationToken) {
        let mut conversations = JoinSet::new();
        loop {
            tokio::select! {
                connected = self.listener.accept(), if conversations.len() < CONVERSATIONS => {
                    match connected {
                        Ok((stream, _)) => {
                            let asks = asks.clone();
                            conversations.spawn(async move {
                                let talk = tokio::time::timeout(PATIENCE, converse(stream, asks));
                                if let Ok(Err(error)) = talk.await {
                                    tracing::debug!(%error, "a conversation broke off");
                                }
                            });
                        }
                        Err(error) => {
                            // Such as too many open files, which passes.
                            tracing::warn!(%error, "nobody can connect");
                            tokio::time::sleep(LAST_WORDS).await;
                        }
                    }
                }
                Some(_) = conversations.join_next() => {}
                () = closing.cancelled() => break,
            }
        }
        drop(asks);
        let rest = async { while conversations.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_WORDS, rest).await.is_err() {
            tracing::debug!("a conversation was broken off");
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "the socket stays");
        }
    }
}

async fn converse(stream: UnixStream, asks: mpsc::Sender<Asked>) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let ours = nix::unistd::geteuid();
    if peer != ours.as_raw() && peer != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (from, mut to) = stream.into_split();
    let mut request = String::new();
    BufReader::new(from.take(LONGEST))
        .read_line(&mut request)
        .await?;
    let answer = match serde_json::from_str::<Request>(&request) {
        Ok(Request {
            version: VERSION,
            ask,
        }) => pass_on(ask, &asks).await,
        Ok(request) => Err(format!(
            "this daemon speaks version {VERSION}, not {}",
            request.version
        )),
        Err(error) => Err(format!("this is no request: {error}")),
    };
    let (status, error) = match answer {
        Ok(status) => (Some(status), None),
        Err(error) => (None, Some(error)),
    };
    let reply = Reply {
        version: VERSION,
        status,
        error,
    };
    to.write_all(&line(&reply)?).await
}

async fn pass_on(ask: Ask, asks: &mpsc::Sender<Asked>) -> Result<Status, String> {
    let (answer, answered) = oneshot::channel();
    let asked = Asked {
        ask,
        answer: Some(answer),
    };
    let ends = || "it is about to end".to_owned();
    asks.send(asked).await.map_err(|_| ends())?;
    answered.await.map_err(|_| ends())
}
