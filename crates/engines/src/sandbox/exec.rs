//! Programs that are executed in a running sandbox.
//!
//! Owns: the pipes or the terminal of each.
//! Reads: the exit code of the process that leads into the sandbox.
//! Never: touches what runs in the sandbox already.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use dark_factory_executor::engine::{
    Channel, EngineError, Executed, Execution, Program, TerminalSize,
};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Mutex;

use super::config::ExecRequest;
use super::folder::Folder;
use super::shim_command::ShimCommand;

/// Most of what is passed on at once.
const CHUNK: usize = 32 * 1024;
/// Opened so, a terminal does not become our own.
const NOCTTY: i32 = OFlags::NOCTTY.bits().cast_signed();
/// What reading a terminal says once nobody has its other side open.
const HUNG_UP: i32 = 5;

type Pieces = BoxStream<'static, io::Result<(Channel, Vec<u8>)>>;

/// A program that was executed.
#[derive(Debug)]
struct SandboxProgram {
    child: Mutex<Running>,
    terminal: Option<OwnedFd>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    ended: Option<ExitStatus>,
}

/// Executes a program in a running sandbox.
pub(super) fn exec(
    shim: &ShimCommand,
    folder: &Folder,
    execution: &Execution,
) -> Result<Executed, EngineError> {
    let failed = |source: io::Error| EngineError::Local {
        operation: "executing a program in the sandbox".to_owned(),
        source,
    };
    let request = ExecRequest {
        argv: execution.argv.clone(),
        env: execution.env.clone(),
    };
    let command = shim.exec(folder, &request).map_err(failed)?;
    match execution.terminal {
        Some(size) => in_terminal(command, size),
        None => with_pipes(command),
    }
    .map_err(failed)
}

fn with_pipes(mut command: Command) -> io::Result<Executed> {
    let pipe = || Stdio::piped();
    let mut child = command
        .stdin(pipe())
        .stdout(pipe())
        .stderr(pipe())
        .spawn()?;
    let missing = || io::Error::other("a pipe is missing");
    let input = child.stdin.take().ok_or_else(missing)?;
    let output = child.stdout.take().ok_or_else(missing)?;
    let error = child.stderr.take().ok_or_else(missing)?;
    Ok(Executed {
        input: Box::new(Input(Some(input))),
        output: stream::select(
            pieces(output, Channel::Output),
            pieces(error, Channel::Error),
        )
        .boxed(),
        program: program(child, None),
    })
}

/// The writing end of a pipe; shut down, it is closed.
#[derive(Debug)]
struct Input(Option<ChildStdin>);

impl Input {
    fn open(&mut self) -> io::Result<Pin<&mut ChildStdin>> {
        let pipe = self.0.as_mut().map(Pin::new);
        pipe.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl AsyncWrite for Input {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.open()?.poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Some(pipe) => Pin::new(pipe).poll_flush(context),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        drop(self.0.take());
        Poll::Ready(Ok(()))
    }
}

fn in_terminal(mut command: Command, size: TerminalSize) -> io::Result<Executed> {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    tcsetwinsize(&ours, winsize(size))?;
    let name = ptsname(&ours, Vec::new())?;
    let theirs = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(NOCTTY)
        .open(name.to_string_lossy().as_ref())?;
    command
        .stdin(theirs.try_clone()?)
        .stdout(theirs.try_clone()?)
        .stderr(theirs);
    let child = command.spawn()?;
    // What is left of it in `command` would keep the terminal open.
    drop(command);
    let typed = tokio::fs::File::from_std(File::from(ours.try_clone()?));
    let shown = tokio::fs::File::from_std(File::from(ours.try_clone()?));
    Ok(Executed {
        input: Box::new(typed),
        output: pieces(shown, Channel::Output),
        program: program(child, Some(ours)),
    })
}

fn program(child: Child, terminal: Option<OwnedFd>) -> Arc<SandboxProgram> {
    Arc::new(SandboxProgram {
        child: Mutex::new(Running { child, ended: None }),
        terminal,
    })
}

/// Returns what comes out of a pipe or a terminal, as it comes.
fn pieces(output: impl AsyncRead + Send + Unpin + 'static, channel: Channel) -> Pieces {
    stream::unfold(output, move |mut output| async move {
        let mut bytes = vec![0; CHUNK];
        match output.read(&mut bytes).await {
            Ok(0) => None,
            Ok(read) => {
                bytes.truncate(read);
                Some((Ok((channel, bytes)), output))
            }
            Err(error) if error.raw_os_error() == Some(HUNG_UP) => None,
            Err(error) => Some((Err(error), output)),
        }
    })
    .boxed()
}

fn winsize(size: TerminalSize) -> Winsize {
    Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

#[async_trait]
impl Program for SandboxProgram {
    async fn resize(&self, size: TerminalSize) -> Result<(), EngineError> {
        let Some(terminal) = &self.terminal else {
            return Ok(());
        };
        tcsetwinsize(terminal, winsize(size)).map_err(|error| EngineError::Local {
            operation: "changing the size of a terminal".to_owned(),
            source: error.into(),
        })
    }

    async fn exit_code(&self) -> Result<i64, EngineError> {
        let mut running = self.child.lock().await;
        let status = match running.ended {
            Some(status) => status,
            None => {
                let status = running
                    .child
                    .wait()
                    .await
                    .map_err(|source| EngineError::Local {
                        operation: "waiting for a program in the sandbox".to_owned(),
                        source,
                    })?;
                running.ended = Some(status);
                status
            }
        };
        let code = status
            .code()
            .or_else(|| status.signal().map(|signal| 128 + signal));
        Ok(code.map_or(-1, i64::from))
    }
}
