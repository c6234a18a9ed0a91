//! `daemon`: the background process of a state folder.
//!
//! Owns: its signals, its log, and executing it anew; the commands that talk to it.
//! Reads: nothing else.
//! Never: opens a file for writing before the seat is its own.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, stdin};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use dark_factory_executor::daemon::{
    Ask, Daemon, DaemonEnd, DaemonHandle, DaemonOptions, Mode, Seat, Seated, Status,
};
use dark_factory_executor::engine::OnRestart;
use dark_factory_types::exit_code;
use nix::sys::signal::{SigSet, Signal as Number};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, timeout};

use super::Format;
use crate::args::{DaemonCommand, DaemonStartArgs};
use crate::context::Context;
use crate::detach::{self, READY, ask_daemon};
use crate::error::CommandError;
use crate::flags::retention;
use crate::journal;
use crate::tell;
use crate::terminal;

/// How long a reload may take.
const RELOAD: Duration = Duration::from_secs(30);
/// How often a reloading daemon is looked at.
const LOOK: Duration = Duration::from_millis(50);

pub(crate) async fn daemon(
    context: &Context,
    command: &DaemonCommand,
    format: Format,
) -> Result<u8, CommandError> {
    match command {
        DaemonCommand::Start(args) if args.foreground => serve(context, args).await,
        DaemonCommand::Start(args) => start(context, args, format).await,
        DaemonCommand::Stop => end(context, Ask::Stop, format).await,
        DaemonCommand::Drain => end(context, Ask::Drain, format).await,
        DaemonCommand::Reload => reload(context, format).await,
        DaemonCommand::Status => status(context, format).await,
    }
}

async fn start(
    context: &Context,
    args: &DaemonStartArgs,
    format: Format,
) -> Result<u8, CommandError> {
    let holder = Seat::holder(&context.state_dir)
        .map_err(|error| CommandError::internal("look for a daemon", error))?;
    if let Some(holder) = holder {
        return Err(taken(holder.pid));
    }
    // What is wrong with the configuration is told here rather than by the daemon.
    context.tool()?;
    let ours = detach::start_daemon(context, args.jobs, args.retention).await?;
    let status = required(ask_daemon(&context.state_dir, Ask::Status).await?, context)?;
    if ours != Some(status.pid) {
        return Err(taken(Some(status.pid)));
    }
    match format {
        Format::Json => terminal::print_json(&status),
        Format::Text => terminal::print(&format!(
            "daemon started, process {}; its log is {}\n",
            status.pid,
            journal::path(&context.state_dir).display()
        )),
    }
    if let Some(on_restart) = on_restart(context, &status).await {
        detach::tell_of_restarts(on_restart);
    }
    Ok(exit_code::SUCCEEDED)
}

fn jobs(context: &Context, args: &DaemonStartArgs) -> Result<u16, CommandError> {
    args.jobs.map_or_else(|| detach::daemon_jobs(context), Ok)
}

/// Asks a daemon's engine what becomes of containers when it goes down; `None` if it does not answer soon.
async fn on_restart(context: &Context, daemon: &Status) -> Option<OnRestart> {
    let asked = context.identity(daemon.endpoint.as_deref());
    let identity = timeout(detach::IDENTITY, asked).await.ok()?.ok()?;
    Some(identity.on_restart)
}

fn taken(pid: Option<u32>) -> CommandError {
    let who = pid.map_or("another process".to_owned(), |pid| format!("process {pid}"));
    CommandError::usage(format!("this state folder has a daemon already: {who}"))
        .hint("`dark-factory daemon status` shows what it does")
}

fn required(status: Option<Status>, context: &Context) -> Result<Status, CommandError> {
    status.ok_or_else(|| {
        CommandError::new(
            exit_code::NOT_FOUND,
            format!("no daemon runs for {}", context.state_dir.display()),
        )
        .hint("`dark-factory daemon start` starts one")
    })
}

/// Is the daemon, until it is told to end.
async fn serve(context: &Context, args: &DaemonStartArgs) -> Result<u8, CommandError> {
    let failed = |error| CommandError::internal("start the daemon", error);
    // First of all: a daemon that was executed anew has runs, and is not to die of what its predecessor survived.
    let mut signals = Signals::listen().map_err(failed)?;
    // Before the binary may be replaced, when its path would be another one.
    let program = std::env::current_exe().map_err(failed)?;
    if args.detached && !args.inherit {
        rustix::process::setsid().map_err(|error| failed(error.into()))?;
    }
    let mut seat = if args.inherit {
        let lock = stdin().as_fd().try_clone_to_owned().map_err(failed)?;
        Seat::inherit(&context.state_dir, lock).map_err(failed)?
    } else {
        match Seat::take(&context.state_dir).map_err(failed)? {
            Seated::Ours(seat) => seat,
            Seated::Taken(holder) => return Err(taken(holder.pid)),
        }
    };
    close_stdin().map_err(failed)?;
    journal::open(&seat).map_err(failed)?;
    let mut options = DaemonOptions::default();
    options.jobs = usize::from(jobs(context, args)?);
    options.retention = retention(context, args.retention)?;
    options.endpoint = Some(context.engine_name()?);
    let mut is_first = true;
    loop {
        let supervisor = context.supervisor()?;
        let daemon = Daemon::open(supervisor, seat, options.clone()).map_err(failed)?;
        let handle = daemon.handle();
        tracing::info!(
            pid = std::process::id(),
            jobs = options.jobs,
            "the daemon serves"
        );
        if std::mem::take(&mut is_first) && args.detached {
            terminal::print(READY);
            let null = File::options()
                .write(true)
                .open("/dev/null")
                .map_err(failed)?;
            rustix::stdio::dup2_stdout(&null).map_err(|error| failed(error.into()))?;
            journal::detach().map_err(failed)?;
        }
        let served = tokio::select! {
            served = daemon.serve() => served,
            never = signals.pass_on(handle) => match never {},
        };
        seat = served.seat;
        for run in &served.left {
            tracing::info!(%run, "goes on, and nobody supervises it");
        }
        if served.end != DaemonEnd::Reload || signals.stop == Stop::Asked {
            tracing::info!("the daemon ends");
            return Ok(exit_code::SUCCEEDED);
        }
        tracing::info!(program = %program.display(), "the daemon executes its program anew");
        let error = execute_anew(&program, context, args, &seat);
        tracing::error!(%error, "the program cannot be executed anew, so this one goes on");
        options.note = Some(format!(
            "{} could not be executed: {error}",
            program.display()
        ));
        close_stdin().map_err(failed)?;
    }
}

/// Lets standard input be one that has nothing.
fn close_stdin() -> io::Result<()> {
    let null = File::open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdin(&null)?)
}

/// Executes the program in this process; returns only if that is not possible. The lock stays held: it becomes
/// standard input, which is how the program finds it.
fn execute_anew(
    program: &Path,
    context: &Context,
    args: &DaemonStartArgs,
    seat: &Seat,
) -> io::Error {
    let lock = match seat.lock().try_clone() {
        Ok(lock) => lock,
        Err(error) => return error,
    };
    let mut command = Command::new(program);
    command.arg("--state-dir").arg(&context.state_dir);
    command.args(context.engine_flags());
    command.args(context.key_flags());
    command.args(["daemon", "start", "--foreground", "--inherit"]);
    command.args(detach::daemon_flags(args.jobs, args.retention));
    if args.detached {
        command.arg("--detached");
    }
    // What comes before the program listens waits until it does.
    if let Err(error) = heeded().thread_block() {
        return error.into();
    }
    let error = command.stdin(Stdio::from(lock)).exec();
    match heeded().thread_unblock() {
        Ok(()) => error,
        Err(error) => error.into(),
    }
}

/// SIGTERM and Ctrl-C stop the daemon, SIGHUP reloads it.
#[derive(Debug)]
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    stop: Stop,
}

/// Whether a signal asked the daemon to stop, be it while it was about to be executed anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Asked,
    NotAsked,
}

impl Signals {
    /// Listens from now on, also for what came while the program was executed anew.
    fn listen() -> io::Result<Self> {
        let signals = Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            stop: Stop::NotAsked,
        };
        heeded().thread_unblock()?;
        Ok(signals)
    }

    /// Tells a daemon what the signals ask for.
    async fn pass_on(&mut self, daemon: DaemonHandle) -> Infallible {
        loop {
            let request = tokio::select! {
                _ = self.interrupt.recv() => Ask::Stop,
                _ = self.terminate.recv() => Ask::Stop,
                _ = self.hangup.recv() => Ask::Reload,
            };
            if request == Ask::Stop {
                self.stop = Stop::Asked;
            }
            daemon.ask(request).await;
        }
    }
}

/// Returns the signals that a daemon heeds.
fn heeded() -> SigSet {
    SigSet::from_iter([Number::SIGINT, Number::SIGTERM, Number::SIGHUP])
}

/// Ends the daemon, and returns once it has ended.
async fn end(context: &Context, request: Ask, format: Format) -> Result<u8, CommandError> {
    let status = required(ask_daemon(&context.state_dir, request).await?, context)?;
    if format == Format::Text && request == Ask::Drain {
        tell::progress(&format!(
            "waiting for {} runs; Ctrl-C does not end the draining",
            status.supervised.len()
        ));
    }
    let state_dir: PathBuf = context.state_dir.clone();
    let left = tokio::task::spawn_blocking(move || Seat::wait_until_left(&state_dir));
    left.await
        .map_err(|error| CommandError::internal("wait for the daemon's end", error))?
        .map_err(|error| CommandError::internal("wait for the daemon's end", error))?;
    if format == Format::Json {
        terminal::print_json(&status);
        return Ok(exit_code::SUCCEEDED);
    }
    terminal::print(&format!("the daemon (process {}) has ended\n", status.pid));
    if request == Ask::Stop {
        for run in &status.supervised {
            terminal::print(&format!("run {run} goes on, and nobody supervises it\n"));
        }
    }
    for run in &status.queued {
        terminal::print(&format!("run {run} stays queued\n"));
    }
    if !status.queued.is_empty() || (request == Ask::Stop && !status.supervised.is_empty()) {
        terminal::print("`dark-factory daemon start` goes on with them\n");
    }
    Ok(exit_code::SUCCEEDED)
}

/// Lets the daemon execute its program anew, and returns once that serves.
async fn reload(context: &Context, format: Format) -> Result<u8, CommandError> {
    let before = required(ask_daemon(&context.state_dir, Ask::Reload).await?, context)?;
    let deadline = Instant::now() + RELOAD;
    loop {
        // Between the two it lives and does not listen; an answer that broke off is no answer.
        let now = ask_daemon(&context.state_dir, Ask::Status).await;
        match now {
            Ok(Some(now)) if now.since != before.since => {
                if let Some(note) = now.note {
                    return Err(CommandError::new(exit_code::INTERNAL, note)
                        .hint("the daemon goes on with the program that it had"));
                }
                match format {
                    Format::Json => terminal::print_json(&now),
                    Format::Text => terminal::print(&format!(
                        "the daemon (process {}) was reloaded: version {}\n",
                        now.pid, now.program
                    )),
                }
                return Ok(exit_code::SUCCEEDED);
            }
            Ok(None) => {
                return Err(CommandError::new(
                    exit_code::INTERNAL,
                    "the daemon ended instead of being reloaded",
                ));
            }
            Ok(Some(_)) | Err(_) if Instant::now() < deadline => {}
            Ok(Some(_)) => {
                return Err(CommandError::new(
                    exit_code::INTERNAL,
                    "the daemon was not reloaded in time",
                ));
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn status(context: &Context, format: Format) -> Result<u8, CommandError> {
    let status = required(ask_daemon(&context.state_dir, Ask::Status).await?, context)?;
    let on_restart = on_restart(context, &status).await;
    if format == Format::Json {
        let mut value = serde_json::to_value(&status)
            .map_err(|error| CommandError::internal("print the status", error))?;
        value["on_restart"] = json!(on_restart);
        terminal::print_json(&value);
        return Ok(exit_code::SUCCEEDED);
    }
    let on_restart = match on_restart {
        Some(OnRestart::Survive) => "containers outlive its restart",
        Some(OnRestart::End) => "containers end when it restarts",
        None => "it does not answer",
    };
    let mode = match status.mode {
        Mode::Serving => "serving",
        Mode::Draining => "draining",
    };
    let mut text = format!(
        "process: {}\nversion: {}\nsince: {}\nmode: {mode}\njobs: {}\nengine: {} ({on_restart})\nlog: {}\n",
        status.pid,
        status.program,
        status.since.strftime("%Y-%m-%d %H:%M:%SZ"),
        status.jobs,
        status.endpoint.as_deref().unwrap_or("-"),
        journal::path(&context.state_dir).display()
    );
    if let Some(note) = &status.note {
        text = format!("{text}note: {note}\n");
    }
    for (what, runs) in [
        ("supervised", &status.supervised),
        ("queued", &status.queued),
        ("watched", &status.watched),
    ] {
        let runs: Vec<String> = runs.iter().map(ToString::to_string).collect();
        let runs = if runs.is_empty() {
            "-".to_owned()
        } else {
            runs.join(" ")
        };
        text = format!("{text}{what}: {runs}\n");
    }
    for failing in &status.failing {
        let run = failing.attempt.run();
        text = format!("{text}tried again: {run}: {}\n", failing.why);
    }
    terminal::print(&text);
    Ok(exit_code::SUCCEEDED)
}
