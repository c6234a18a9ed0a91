//! A sandbox that was started, or found.
//!
//! Owns: the order in which it is asked, told and made to end.
//! Reads: what its folder and the kernel say of it.
//! Never: starts anything of an attempt's.

use std::fs;
use std::io;
use std::time::Duration;

use async_trait::async_trait;
use dark_factory_executor::clock::{Clock, SystemClock};
use dark_factory_executor::engine::{
    EndedBy, EngineError, EngineExit, Executed, Execution, Handle, OomSeen, Usage, Workload,
};
use dark_factory_executor::spec::StopPolicy;
use dark_factory_spool::KILL_EVERYTHING_NAMED;
use dark_factory_types::ByteSize;
use rustix::process::Signal;
use tokio::time::{sleep, timeout};

use super::config::{Ended, ExitRecord, SandboxConfig};
use super::folder::{Folder, Living, Phase};
use super::limits;
use super::pausing::{self, Motion};
use super::process::Signalled;
use super::shim_command::ShimCommand;
use super::{exec, usage};

/// How long the helper may take to kill everything and finish the record.
const HELPER_GRACE: Duration = Duration::from_secs(5);
/// How long the kernel may take to end what was killed.
const KILL_GRACE: Duration = Duration::from_secs(30);
/// How often, and how long each time, is waited for what takes a moment.
const TRIES: u32 = 250;
const PAUSE: Duration = Duration::from_millis(20);
/// File: the last signal that somebody asked the engine to send.
const SIGNAL_FILE: &str = "signal";
/// The exit code of a sandbox whose PID 1 never ran, as Docker's command line has it.
const NOT_STARTED: i64 = 125;

/// One sandbox.
#[derive(Debug, Clone)]
pub(super) struct Sandbox {
    pub(super) name: String,
    pub(super) folder: Folder,
    pub(super) shim: ShimCommand,
}

impl Sandbox {
    /// Returns the error for a sandbox that is not there, or does not run (any more).
    pub(super) fn gone(&self) -> EngineError {
        EngineError::NoSuchContainer {
            name: self.name.clone(),
        }
    }

    /// Returns the error for an operation that its folder or its processes kept from working.
    pub(super) fn local(&self, doing: &str) -> impl Fn(io::Error) -> EngineError {
        let operation = format!("{doing} sandbox {}", self.name);
        move |source| EngineError::Local {
            operation: operation.clone(),
            source,
        }
    }

    pub(super) fn phase(&self) -> Result<Phase, EngineError> {
        self.folder.phase().map_err(self.local("looking at"))
    }

    pub(super) fn config(&self) -> Result<SandboxConfig, EngineError> {
        let found = self.folder.config().map_err(self.local("looking at"))?;
        found.ok_or_else(|| self.gone())
    }

    /// Returns the processes of the sandbox, which must run.
    fn living(&self) -> Result<Living, EngineError> {
        match self.phase()? {
            Phase::Running(living) => Ok(living),
            Phase::Absent | Phase::Created | Phase::Ended(_) | Phase::Lost => Err(self.gone()),
        }
    }

    /// Waits until nothing of the sandbox runs. Cancel-safe.
    pub(super) async fn ended(&self) -> Result<Phase, EngineError> {
        let waited = self.folder.ended().await;
        let phase = waited.map_err(self.local("waiting for"))?;
        if let Phase::Lost = phase {
            self.orphan_ended().await?;
        }
        Ok(phase)
    }

    /// Waits until what a killed shim has left is dead: it was sent SIGKILL with the shim's end.
    async fn orphan_ended(&self) -> Result<(), EngineError> {
        let doing = self.local("waiting for the end of");
        let Some(orphan) = self.folder.orphan().map_err(&doing)? else {
            return Ok(());
        };
        limits::thaw(&self.config()?.limits);
        match timeout(KILL_GRACE, orphan.ended()).await {
            Ok(ended) => ended.map_err(doing),
            Err(_) => Err(self.undead()),
        }
    }

    fn undead(&self) -> EngineError {
        EngineError::Failed {
            operation: format!("kill sandbox {}", self.name),
            source: "it was sent SIGKILL and still runs".into(),
        }
    }

    /// Returns what an exit record means to the engine's caller.
    pub(super) fn exit(&self, record: &ExitRecord) -> EngineExit {
        let (code, error) = match &record.ended {
            Ended::Code(code) => (i64::from(*code), None),
            Ended::Signal(signal) => (128 + i64::from(*signal), None),
            Ended::NotStarted(reason) => (NOT_STARTED, Some(reason.clone())),
        };
        let asked = fs::read_to_string(self.folder.path().join(SIGNAL_FILE)).ok();
        EngineExit {
            code,
            oom_killed: match record.oom_killed {
                true => OomSeen::Yes,
                false => OomSeen::No,
            },
            error,
            ended_by: asked
                .and_then(|signal| signal.trim().parse().ok())
                .map_or(EndedBy::Unknown, |signal| EndedBy::Request { signal }),
        }
    }

    /// Sends a signal to the sandbox's PID 1, and sees to it that it can take it.
    async fn signal(&self, signal: Signal) -> Result<Signalled, EngineError> {
        let Phase::Running(living) = self.phase()? else {
            return Ok(Signalled::Ended);
        };
        let Some(init) = &living.init else {
            // It has ended, and its shim is about to.
            return Ok(Signalled::Sent);
        };
        let config = self.config()?;
        // Who stopped it is worth less than that it stops.
        let noted = fs::write(
            self.folder.path().join(SIGNAL_FILE),
            signal.as_raw().to_string(),
        );
        if let Err(error) = noted {
            tracing::debug!(%error, sandbox = %self.name, "who stopped it is not noted");
        }
        let doing = self.local("signalling");
        if init.signal(signal).map_err(&doing)? == Signalled::Ended {
            return Ok(Signalled::Sent);
        }
        if pausing::motion(&config.limits, &living).map_err(&doing)? == Motion::Frozen {
            let thaw = pausing::settle(&config.limits, &living, Motion::Free);
            thaw.await.map_err(doing)?;
        }
        Ok(Signalled::Sent)
    }

    /// Sends a signal and waits for the end, up to `grace`; returns whether there is nothing that runs.
    async fn signal_and_wait(&self, signal: Signal, grace: Duration) -> Result<bool, EngineError> {
        if self.signal(signal).await? == Signalled::Ended {
            return Ok(true);
        }
        match timeout(grace, self.ended()).await {
            Ok(ended) => ended.map(|_| true),
            Err(_) => Ok(false),
        }
    }

    /// Kills the sandbox and waits for its end; one that does not run is no error.
    pub(super) async fn kill_to_the_end(&self) -> Result<(), EngineError> {
        if self.signal_and_wait(Signal::KILL, KILL_GRACE).await? {
            return Ok(());
        }
        Err(self.undead())
    }

    /// Removes the sandbox, which does not run; one that is gone is no error.
    pub(super) async fn remove(&self) -> Result<(), EngineError> {
        let doing = self.local("removing");
        match self.folder.phase().map_err(&doing)? {
            Phase::Absent => return Ok(()),
            Phase::Running(_) => {
                return Err(EngineError::Failed {
                    operation: format!("remove sandbox {}", self.name),
                    source: "it runs".into(),
                });
            }
            Phase::Created | Phase::Ended(_) | Phase::Lost => {}
        }
        if let Some(config) = self.folder.config().map_err(&doing)? {
            limits::kill(&config.limits);
            // What was killed is in its group for a moment longer.
            for _ in 0..TRIES {
                if limits::remove(&config.limits) {
                    break;
                }
                sleep(PAUSE).await;
            }
        }
        self.folder.remove().map_err(doing)
    }
}

/// A sandbox of an attempt.
#[derive(Debug)]
pub(super) struct SandboxWorkload {
    sandbox: Sandbox,
    handle: Handle,
}

impl SandboxWorkload {
    pub(super) fn new(sandbox: Sandbox, handle: &Handle) -> Box<Self> {
        Box::new(Self {
            sandbox,
            handle: handle.clone(),
        })
    }

    /// Returns the processes of the sandbox once it is made: nothing may be executed in one that is not.
    async fn made(&self) -> Result<Living, EngineError> {
        for _ in 0..TRIES {
            let living = self.sandbox.living()?;
            if living.is_made() {
                return Ok(living);
            }
            sleep(PAUSE).await;
        }
        Err(EngineError::Failed {
            operation: "execute a program in the sandbox".to_owned(),
            source: "it is still being made".into(),
        })
    }

    async fn settle(&self, wanted: Motion) -> Result<(), EngineError> {
        let living = self.sandbox.living()?;
        let config = self.sandbox.config()?;
        let settled = pausing::settle(&config.limits, &living, wanted).await;
        match self.sandbox.phase()? {
            Phase::Running(_) => settled.map_err(self.sandbox.local("freezing or thawing")),
            // It ended meanwhile.
            _ => Err(self.sandbox.gone()),
        }
    }
}

#[async_trait]
impl Workload for SandboxWorkload {
    fn handle(&self) -> &Handle {
        &self.handle
    }

    async fn wait(&self) -> Result<EngineExit, EngineError> {
        match self.sandbox.ended().await? {
            Phase::Ended(record) => Ok(self.sandbox.exit(&record)),
            Phase::Created => Err(EngineError::Failed {
                operation: format!("wait for sandbox {}", self.sandbox.name),
                source: "it was never started".into(),
            }),
            Phase::Absent | Phase::Lost | Phase::Running(_) => Err(self.sandbox.gone()),
        }
    }

    async fn stop(&self, policy: &StopPolicy) -> Result<(), EngineError> {
        let sandbox = &self.sandbox;
        if !policy.grace.is_zero() {
            let signal = named(&policy.signal)?;
            if sandbox.signal_and_wait(signal, policy.grace).await? {
                return Ok(());
            }
        }
        let everything = Signal::from_named_raw(KILL_EVERYTHING_NAMED).unwrap_or(Signal::KILL);
        if sandbox.signal_and_wait(everything, HELPER_GRACE).await? {
            return Ok(());
        }
        sandbox.kill_to_the_end().await
    }

    async fn pause(&self) -> Result<(), EngineError> {
        self.settle(Motion::Frozen).await
    }

    async fn unpause(&self) -> Result<(), EngineError> {
        self.settle(Motion::Free).await
    }

    async fn exec(&self, execution: &Execution) -> Result<Executed, EngineError> {
        let living = self.made().await?;
        let config = self.sandbox.config()?;
        let motion = pausing::motion(&config.limits, &living);
        if motion.map_err(self.sandbox.local("looking at"))? == Motion::Frozen {
            return Err(EngineError::Failed {
                operation: "execute a program in the sandbox".to_owned(),
                source: "it is paused".into(),
            });
        }
        exec::exec(&self.sandbox.shim, &self.sandbox.folder, execution)
    }

    async fn usage(&self) -> Result<Usage, EngineError> {
        let living = self.sandbox.living()?;
        let config = self.sandbox.config()?;
        usage::usage(&config.limits, &living, SystemClock.now()).ok_or_else(|| self.sandbox.gone())
    }

    async fn disk_usage(&self) -> Result<Option<ByteSize>, EngineError> {
        // Its root is read-only.
        Ok(Some(ByteSize(0)))
    }

    async fn remove(&self) -> Result<(), EngineError> {
        self.sandbox.remove().await
    }
}

/// Returns the signal of a stop policy.
fn named(name: &str) -> Result<Signal, EngineError> {
    Ok(match name.strip_prefix("SIG").unwrap_or(name) {
        "HUP" => Signal::HUP,
        "INT" => Signal::INT,
        "QUIT" => Signal::QUIT,
        "ABRT" => Signal::ABORT,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        "PIPE" => Signal::PIPE,
        "ALRM" => Signal::ALARM,
        "TERM" => Signal::TERM,
        "CONT" => Signal::CONT,
        "TSTP" => Signal::TSTP,
        "WINCH" => Signal::WINCH,
        "IO" => Signal::IO,
        "PWR" => Signal::POWER,
        _ => {
            return Err(EngineError::Failed {
                operation: "stop the sandbox".to_owned(),
                source: format!("there is no signal {name}").into(),
            });
        }
    })
}
