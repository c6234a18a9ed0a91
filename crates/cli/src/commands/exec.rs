//! `exec` and `shell`: programs in a run's container, beside its agent or after it.
//!
//! Owns: what is typed, what is shown, and the exit code.
//! Reads: the terminal.
//! Never: touches the agent.

use std::collections::BTreeMap;
use std::future::{pending, ready};
use std::io::{self, Read, Write};
use std::pin::pin;

use dark_factory_executor::engine::{Channel, Executed, Execution};
use dark_factory_executor::supervisor::{Inside, Supervisor};
use dark_factory_types::{RunId, exit_code};
use futures_util::StreamExt;
use nix::sys::signal::Signal as Number;
use tokio::io::AsyncWriteExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::args::{ExecArgs, RunName};
use crate::context::Context;
use crate::error::CommandError;
use crate::raw_terminal::RawTerminal;
use crate::tell;
use crate::terminal::{self, Taken};

/// Says where the best shell is.
const FIND_SHELL: &str = "command -v bash || command -v sh";

/// How much is read of standard input at once, and how many pieces of it may wait.
const CHUNK: usize = 8 * 1024;
const TYPED: usize = 4;

/// What is said before a program is executed in a copy.
const COPY: &str = "the run has ended: this is a copy of its container, without its secrets and what was in its memory \
                    file systems (/tmp, home); what is written outside of mounts goes with it";

pub(crate) async fn exec(context: &Context, args: &ExecArgs) -> Result<u8, CommandError> {
    let has_terminal = RawTerminal::is_there();
    if args.tty && !has_terminal {
        return Err(CommandError::usage(
            "-t needs a terminal, and standard input or output is none",
        )
        .hint("leave -t out: a terminal is given where there is one"));
    }
    let supervisor = context.supervisor()?;
    let run = supervisor.find_run(&args.run.run).await?;
    let mut signals = Signals::listen().map_err(terminal_failed)?;
    let inside = open(&supervisor, run).await?;
    let code = execute(context, &inside, args.command.clone(), &mut signals).await;
    supervisor.close(inside).await?;
    code
}

pub(crate) async fn shell(context: &Context, name: &RunName) -> Result<u8, CommandError> {
    let supervisor = context.supervisor()?;
    let run = supervisor.find_run(&name.run).await?;
    let mut signals = Signals::listen().map_err(terminal_failed)?;
    let inside = open(&supervisor, run).await?;
    let code = match find_shell(&inside, run).await {
        Ok(shell) => execute(context, &inside, vec![shell], &mut signals).await,
        Err(error) => Err(error),
    };
    supervisor.close(inside).await?;
    code
}

/// Opens a container. Whoever calls it listens for signals already: one must not end us before a copy is closed.
async fn open(supervisor: &Supervisor, run: RunId) -> Result<Inside, CommandError> {
    let inside = supervisor.open_container(run).await?;
    if inside.is_copy() {
        tell::note(COPY);
    }
    Ok(inside)
}

/// Finds the shell of a container.
async fn find_shell(inside: &Inside, run: RunId) -> Result<String, CommandError> {
    let execution = Execution {
        argv: ["/bin/sh", "-c", FIND_SHELL].map(str::to_owned).to_vec(),
        env: BTreeMap::new(),
        terminal: None,
    };
    let Executed {
        mut input,
        mut output,
        program,
    } = inside.exec(&execution).await?;
    let closed = input.shutdown().await;
    closed.map_err(|error| CommandError::internal("look for a shell", error))?;
    let mut said = Vec::new();
    while let Some(piece) = output.next().await {
        let piece = piece.map_err(|error| CommandError::internal("look for a shell", error))?;
        if let (Channel::Output, bytes) = piece {
            said.extend(bytes);
        }
    }
    let code = program.exit_code().await?;
    let said = String::from_utf8_lossy(&said);
    match said.lines().next() {
        Some(shell) if code == 0 => Ok(shell.to_owned()),
        _ => Err(
            CommandError::usage(format!("the container of run {run} has no shell")).hint(format!(
                "`dark-factory exec {run} -- PROGRAM` executes a program that it has"
            )),
        ),
    }
}

/// Executes a program, with a terminal if this process has one, and returns its exit code.
async fn execute(
    context: &Context,
    inside: &Inside,
    argv: Vec<String>,
    signals: &mut Signals,
) -> Result<u8, CommandError> {
    if let Some(signal) = signals.told().await {
        return Ok(ended_by(signal));
    }
    let is_terminal = RawTerminal::is_there();
    let size = is_terminal.then(RawTerminal::size);
    let term = context.host.var("TERM").filter(|_| is_terminal);
    let term = term.map(|term| ("TERM".to_owned(), term.to_owned()));
    let execution = Execution {
        argv,
        env: term.into_iter().collect(),
        terminal: size.transpose().map_err(terminal_failed)?,
    };
    let executed = inside.exec(&execution).await?;
    let raw = is_terminal.then(RawTerminal::enter);
    let _raw = raw.transpose().map_err(terminal_failed)?;
    talk(executed, signals).await
}

fn terminal_failed(error: io::Error) -> CommandError {
    CommandError::internal("use the terminal", error)
}

/// Passes on what is typed and shown until the program has ended; returns its exit code.
async fn talk(executed: Executed, signals: &mut Signals) -> Result<u8, CommandError> {
    let Executed {
        mut input,
        mut output,
        program,
    } = executed;
    let mut typed = read_stdin();
    let typing = async move {
        while let Some(bytes) = typed.recv().await {
            // A program that has ended reads nothing any more.
            if let Err(error) = input.write_all(&bytes).await {
                tracing::debug!(%error, "nobody reads what is typed");
                break;
            }
        }
        let closed = input.shutdown().await;
        tracing::debug!(?closed, "standard input has ended");
        // Dropped with its connection, not before.
        pending::<()>().await;
    };
    let mut typing = pin!(typing);
    loop {
        tokio::select! {
            piece = output.next() => match piece {
                Some(Ok((channel, bytes))) => {
                    if show(channel, &bytes) == Taken::No {
                        return Ok(exit_code::SUCCEEDED);
                    }
                }
                Some(Err(error)) => {
                    return Err(CommandError::new(
                        exit_code::ENGINE,
                        format!("the connection to the program broke: {error}"),
                    ));
                }
                None => break,
            },
            happened = signals.next() => match happened {
                Happened::Resized => {
                    // A wrong size is no reason to end the session.
                    if let Ok(size) = RawTerminal::size()
                        && let Err(error) = program.resize(size).await
                    {
                        tracing::debug!(%error, "the terminal in the container keeps its size");
                    }
                }
                Happened::Told(signal) => return Ok(ended_by(signal)),
            },
            () = &mut typing => {}
        }
    }
    let code = program.exit_code().await?;
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// Reads standard input in a thread of its own, which a read that never returns does not keep this process from ending.
fn read_stdin() -> mpsc::Receiver<Vec<u8>> {
    let (sender, typed) = mpsc::channel(TYPED);
    std::thread::spawn(move || {
        let mut bytes = vec![0; CHUNK];
        loop {
            let read = match io::stdin().read(&mut bytes) {
                Ok(0) => return,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::debug!(%error, "standard input cannot be read");
                    return;
                }
            };
            if sender.blocking_send(bytes[..read].to_vec()).is_err() {
                return;
            }
        }
    });
    typed
}

fn show(channel: Channel, bytes: &[u8]) -> Taken {
    match channel {
        Channel::Output => terminal::print_bytes(bytes),
        Channel::Error => match io::stderr().write_all(bytes) {
            Ok(()) => Taken::Yes,
            Err(_) => Taken::No,
        },
    }
}

/// Returns the exit code of a process that a signal ended.
fn ended_by(signal: Number) -> u8 {
    u8::try_from(signal as i32).map_or(u8::MAX, |number| 128 | number)
}

/// What happens to this process meanwhile.
#[derive(Debug)]
enum Happened {
    /// Its terminal has another size.
    Resized,
    /// It is told to end.
    Told(Number),
}

/// The signals that this process heeds while it has a terminal in its hands.
#[derive(Debug)]
struct Signals {
    resize: Signal,
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            resize: signal(SignalKind::window_change())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Returns the signal by which we were told to end before anything was executed.
    async fn told(&mut self) -> Option<Number> {
        loop {
            tokio::select! {
                biased;
                happened = self.next() => if let Happened::Told(signal) = happened {
                    return Some(signal);
                },
                () = ready(()) => return None,
            }
        }
    }

    /// Waits for the next one. Cancel-safe.
    async fn next(&mut self) -> Happened {
        tokio::select! {
            _ = self.resize.recv() => Happened::Resized,
            _ = self.interrupt.recv() => Happened::Told(Number::SIGINT),
            _ = self.terminate.recv() => Happened::Told(Number::SIGTERM),
            _ = self.hangup.recv() => Happened::Told(Number::SIGHUP),
        }
    }
}
