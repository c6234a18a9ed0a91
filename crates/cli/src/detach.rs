//! Handing runs to a daemon, starting one if need be.
//!
//! Owns: the daemon's process from its start until it listens; what a person is told who lets go of runs.
//! Reads: the seat, to know whether a daemon lives.
//! Never: stops a run.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use dark_factory_executor::daemon::{Ask, AskError, Mode, Seat, Status, ask};
use dark_factory_executor::engine::OnRestart;
use dark_factory_executor::error::{ExecutorError, sentence};
use dark_factory_executor::resolve::DAEMON_JOBS;
use dark_factory_executor::supervisor::Supervisor;
use dark_factory_types::{RunId, exit_code};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

use crate::args::RetentionArgs;
use crate::context::Context;
use crate::error::CommandError;
use crate::tell;

/// How long a daemon may take to listen.
const START: Duration = Duration::from_secs(30);
/// How often a daemon is asked that lives and does not listen yet.
const LOOK: Duration = Duration::from_millis(50);

/// How long engines may take to say who they are.
pub(crate) const IDENTITY: Duration = Duration::from_secs(5);

/// What a daemon says once it listens.
pub(crate) const READY: &str = "ready\n";

/// Whether a daemon is started if none lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Starting {
    IfNone,
    Never,
}

/// Asks the daemon of a state folder, also one that lives and does not listen yet; `None` if none lives.
pub(crate) async fn ask_daemon(
    state_dir: &Path,
    request: Ask,
) -> Result<Option<Status>, CommandError> {
    let deadline = Instant::now() + START;
    loop {
        let error = match ask(state_dir, request).await {
            Ok(status) => return Ok(Some(status)),
            Err(error) => error,
        };
        let holder = Seat::holder(state_dir)
            .map_err(|error| CommandError::internal("look for a daemon", error))?;
        match (&error, holder) {
            (AskError::NoDaemon(_) | AskError::Ended(_), None) => return Ok(None),
            (AskError::NoDaemon(_) | AskError::Ended(_), Some(_)) if Instant::now() < deadline => {}
            _ => return Err(CommandError::internal("ask the daemon", error)),
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Refuses a daemon that works with another engine than the one that this command names.
pub(crate) async fn check_engine(context: &Context, daemon: &Status) -> Result<(), CommandError> {
    let ours = context.engine_name()?;
    let Some(theirs) = daemon.endpoint.as_ref().filter(|theirs| **theirs != ours) else {
        return Ok(());
    };
    // One engine may have several endpoints.
    let asked = async {
        tokio::try_join!(
            context.identity(Some(&ours)),
            context.identity(Some(theirs))
        )
    };
    if let Ok(Ok((ours, theirs))) = timeout(IDENTITY, asked).await
        && ours.id.is_some()
        && ours.id == theirs.id
    {
        return Ok(());
    }
    Err(CommandError::usage(format!(
        "the daemon (process {}) works with the engine at {theirs}, and not with the one at {ours}",
        daemon.pid
    ))
    .hint(
        "name its engine with --host or DOCKER_HOST, use another --state-dir, or end it with \
         `dark-factory daemon stop`",
    ))
}

/// Says it if running agents do not outlive their engine.
pub(crate) fn tell_of_restarts(on_restart: OnRestart) {
    if on_restart == OnRestart::End {
        tell::note(
            "this engine ends its containers when it restarts; with `\"live-restore\": true` in its daemon.json \
             they outlive that",
        );
    }
}

/// Makes sure that a daemon lives and has looked for new runs.
pub(crate) async fn ensure_daemon(context: &Context) -> Result<Status, CommandError> {
    let deadline = Instant::now() + START;
    loop {
        match ask_daemon(&context.state_dir, Ask::Look).await? {
            Some(status) if status.mode == Mode::Serving => return Ok(status),
            Some(status) => {
                return Err(CommandError::new(
                    exit_code::INTERNAL,
                    format!(
                        "the daemon (process {}) takes no more runs: it is draining",
                        status.pid
                    ),
                ));
            }
            None if Instant::now() >= deadline => {
                return Err(CommandError::new(
                    exit_code::INTERNAL,
                    "a daemon was started and does not stay",
                ));
            }
            None => {
                start_daemon(context, None, RetentionArgs::default()).await?;
            }
        }
    }
}

/// Returns how many queued runs a daemon begins at the same time, unless its command line says so.
pub(crate) fn daemon_jobs(context: &Context) -> Result<u16, CommandError> {
    let jobs = context.tool()?.jobs;
    Ok(jobs.map_or(DAEMON_JOBS, |jobs| jobs.value))
}

/// Starts a daemon in a session of its own and returns its process id once it listens; `None` if another one turns out
/// to live.
///
/// It is given only the flags that a person typed: a reload finds what the configuration says by then.
pub(crate) async fn start_daemon(
    context: &Context,
    jobs: Option<u16>,
    retention: RetentionArgs,
) -> Result<Option<u32>, CommandError> {
    let failed = |error| CommandError::internal("start a daemon", error);
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.arg("--state-dir").arg(&context.state_dir);
    command.args(context.engine_flags());
    command.args(context.key_flags());
    let mut child = command
        .args(["daemon", "start", "--foreground", "--detached"])
        .args(daemon_flags(jobs, retention))
        // What it says is told as a part of our own error.
        .env_remove("CLICOLOR_FORCE")
        // No folder is kept from being unmounted by it.
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let Some(output) = child.stdout.take() else {
        return Err(failed(std::io::ErrorKind::BrokenPipe.into()));
    };
    let pid = child.id();
    let mut line = String::new();
    let read = timeout(START, BufReader::new(output).read_line(&mut line)).await;
    match read {
        Ok(Ok(_)) if line == READY => return Ok(pid),
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(failed(error)),
        Err(_) => {
            return Err(CommandError::new(
                exit_code::INTERNAL,
                format!("the daemon (process {pid:?}) does not say that it is ready"),
            ));
        }
    }
    let (status, said) = end_of(&mut child).await.map_err(failed)?;
    let lives = Seat::holder(&context.state_dir).map_err(failed)?;
    if lives.is_some() {
        return Ok(None);
    }
    let said = said.trim().trim_start_matches("error: ").to_owned();
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Err(CommandError::new(
        code.filter(|code| *code != 0)
            .unwrap_or(exit_code::INTERNAL),
        format!("no daemon could be started: {said}"),
    ))
}

/// Returns the flags of a daemon that were typed.
pub(crate) fn daemon_flags(jobs: Option<u16>, retention: RetentionArgs) -> Vec<String> {
    let flag = |name: &str, value: Option<u32>| value.map(|value| format!("{name}={value}"));
    [
        flag("--jobs", jobs.map(u32::from)),
        flag("--keep-days", retention.keep_days),
        flag("--keep-runs", retention.keep_runs),
    ]
    .into_iter()
    .flatten()
    .collect()
}

async fn end_of(child: &mut Child) -> std::io::Result<(ExitStatus, String)> {
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said).await?;
    }
    Ok((child.wait().await?, said))
}

/// Lets go of runs that this process supervised or watched, and says who goes on with them; returns the exit code,
/// which is never that of a success: how they end is not known.
pub(crate) async fn leave(
    context: &Context,
    supervisor: &Supervisor,
    runs: &[RunId],
    starting: Starting,
) -> Result<u8, CommandError> {
    let mut open = Vec::new();
    for run in runs {
        let latest = supervisor.store().latest(*run).await;
        let latest = latest.map_err(ExecutorError::from)?;
        open.extend(latest.filter(|attempt| attempt.report.is_none()));
    }
    if open.is_empty() {
        return Ok(exit_code::CANCELLED);
    }
    let daemon = match starting {
        Starting::IfNone => ensure_daemon(context).await.map(Some),
        Starting::Never => ask_daemon(&context.state_dir, Ask::Look).await,
    };
    let daemon = match daemon {
        Ok(Some(status)) => check_engine(context, &status).await.map(|()| Some(status)),
        other => other,
    };
    let (daemon, code) = match daemon {
        Ok(daemon) => (daemon, exit_code::CANCELLED),
        Err(error) => {
            error.print();
            (None, exit_code::INTERNAL)
        }
    };
    let daemon = daemon.filter(|status| status.mode == Mode::Serving);
    for attempt in open {
        let run = attempt.id.run();
        let text = match &daemon {
            Some(status) => format!(
                "run {run} goes on; the daemon (process {}) sees to it",
                status.pid
            ),
            None => match supervisor.is_supervised(attempt.id) {
                Ok(true) => format!("run {run} goes on; another process supervises it"),
                Ok(false) => format!(
                    "run {run} goes on, and nobody supervises it: `dark-factory daemon start`, \
                     `dark-factory attach {run}` or `dark-factory recover` does"
                ),
                Err(error) => format!("run {run} goes on; {}", sentence(&error)),
            },
        };
        tell::progress(&text);
    }
    Ok(code)
}
