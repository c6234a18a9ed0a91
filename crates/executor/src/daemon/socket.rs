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
        }) => match pass_on(ask, &asks).await {
            Some(status) => Ok(status),
            // It ends, or is about to be executed anew: no answer tells the asker to look for the next one.
            None => return Ok(()),
        },
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

/// Returns the daemon's answer; `None` if it is about to end.
async fn pass_on(ask: Ask, asks: &mpsc::Sender<Asked>) -> Option<Status> {
    let (answer, answered) = oneshot::channel();
    let asked = Asked {
        ask,
        answer: Some(answer),
    };
    asks.send(asked).await.ok()?;
    answered.await.ok()
}

#[cfg(test)]
mod tests {
    use super::super::protocol::{AskError, Mode, ask};
    use super::super::seat::Seated;
    use super::*;

    fn status() -> Status {
        Status {
            pid: 1,
            program: "0".to_owned(),
            since: jiff::Timestamp::UNIX_EPOCH,
            endpoint: None,
            note: None,
            mode: Mode::Serving,
            jobs: 4,
            supervised: Vec::new(),
            queued: Vec::new(),
            watched: Vec::new(),
            failing: Vec::new(),
        }
    }

    /// Sends a line as it is and returns the answer.
    async fn say(path: &std::path::Path, text: &str) -> Reply {
        let (from, mut to) = UnixStream::connect(path).await.unwrap().into_split();
        to.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        BufReader::new(from).read_line(&mut answer).await.unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    #[tokio::test]
    async fn a_daemon_answers_requests_of_its_version_and_refuses_others() {
        let folder = tempfile::tempdir().unwrap();
        let Seated::Ours(seat) = Seat::take(folder.path()).unwrap() else {
            panic!("taken by nobody")
        };
        let socket = Socket::listen(&seat).unwrap();
        let path = socket.path.clone();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        let (sender, mut asks) = mpsc::channel(1);
        let closing = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(socket.talk(sender, closing.clone()));
        tasks.spawn(async move {
            while let Some(asked) = asks.recv().await {
                assert_eq!(asked.ask, Ask::Drain);
                asked.answer.unwrap().send(status()).unwrap();
            }
        });

        let answer = ask(folder.path(), Ask::Drain).await.unwrap();
        let newer = say(&path, "{\"version\": 2, \"ask\": \"drain\"}\n").await;
        let nonsense = say(&path, "{\"version\": 1, \"ask\": \"dance\"}\n").await;
        closing.cancel();
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }

        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(answer, status());
        assert!(newer.error.unwrap().contains("speaks version 1"));
        assert!(nonsense.status.is_none() && nonsense.error.is_some());
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_nobody_and_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        // Longer than an address can hold.
        let state_dir = folder.path().join("x".repeat(120));
        let Seated::Ours(seat) = Seat::take(&state_dir).unwrap() else {
            panic!("taken by nobody")
        };
        drop(Socket::listen(&seat).unwrap());

        let asked = ask(&state_dir, Ask::Status).await;
        let again = Socket::listen(&seat);

        assert!(matches!(asked, Err(AskError::NoDaemon(_))));
        assert!(again.is_ok());
    }
}
