//! Supervises one agent: takes the spool, starts the agent, records what it prints and how it ends.
//!
//! Owns: the order of the steps, and the helper's own exit status.
//! Reads: the command line, its environment (for the agent), the handover socket.
//! Never: lets anything from outside run before the process is sealed, or the agent before `Start` is on disk.

mod cgroup;
mod child;
mod family;
mod handover;
mod options;
mod pump;
mod relay;
mod signals;
mod spool;
mod stage;
mod tee;
mod victim;
mod writeback;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use dark_factory_spool::{
    EXIT_EXEC_FAILED, EXIT_HELPER_FAILED, EXIT_SPOOL_GONE, End, ExecFailed, Kind, Stream,
};
use nix::errno::Errno;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

pub(crate) use handover::receive;
pub(crate) use stage::{STAGE_ARG, run as run_stage};

use child::{OomPreference, Program, Unstarted};
use family::Family;
use options::Options;
use pump::Pump;
use signals::Signals;
use spool::Spool;

/// Why the helper ends with a status of its own: one line for stderr, and the status.
struct Failure {
    status: i32,
    message: String,
}

impl Failure {
    /// Something of the set-up did not work; the agent was not started.
    fn set_up(doing: &str, error: impl std::fmt::Display) -> Self {
        Self {
            status: EXIT_HELPER_FAILED,
            message: format!("{doing}: {error}"),
        }
    }
}

/// Runs `dark-factory-init run` with the arguments after `run`.
pub(crate) fn run(args: &[OsString]) -> ExitCode {
    let status = match supervise(args) {
        Ok(End::Code(code)) => code,
        Ok(End::Signal(signal)) => 128 + signal,
        Err(failure) => {
            // Nowhere is left to report a stderr that cannot be written.
            let _reported = writeln!(io::stderr(), "dark-factory-init: {}", failure.message);
            failure.status
        }
    };
    ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX))
}

fn supervise(args: &[OsString]) -> Result<End, Failure> {
    child::close_inherited_descriptors();
    let oom = OomPreference::open();
    // From here on nobody without CAP_SYS_PTRACE can open our memory or our descriptors, whatever its uid.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| Failure::set_up("cannot make itself non-dumpable", error))?;

    let options = Options::parse(args).map_err(|error| Failure::set_up("bad arguments", error))?;
    let signals =
        Signals::block().map_err(|error| Failure::set_up("cannot block signals", error))?;
    // With all signals blocked, which its thread inherits.
    if let Some(socket) = &options.egress {
        relay::start(options.egress_port, socket)
            .map_err(|error| Failure::set_up("cannot relay from the loopback", error))?;
    }
    let stdin_path = options.stdin.as_deref().unwrap_or("/dev/null".as_ref());
    let stdin = File::open(stdin_path).map_err(|error| {
        Failure::set_up(
            &format!("cannot open the agent's stdin {}", stdin_path.display()),
            error,
        )
    })?;

    let deadline = Instant::now() + options.connect_timeout;
    let files = handover::take_spool(&options.socket, deadline, &signals)?;
    let (outputs, ends) =
        child::output_pipes().map_err(|error| Failure::set_up("cannot create a pipe", error))?;
    let spool = Spool::new(files, options.id, child::largest_pipe(&outputs[0]))
        .map_err(|error| Failure::set_up("what was handed over is no spool", error))?;
    let family = Family::new().map_err(|error| Failure::set_up("cannot adopt orphans", error))?;

    let mut pump = Pump::new(spool, signals, family, outputs, options.log_limit);
    pump.write_now(Kind::Start, Stream::Stdout, &[])
        .map_err(|lost| Failure::set_up("cannot write to the spool", lost))?;

    let spawned = Program::resolve(&options.argv)
        .map_err(Unstarted::from)
        .and_then(|program| oom.apply_while(|| program.spawn(&options.rlimits, &stdin, ends)));
    drop(stdin);
    match spawned {
        Ok(main) => pump.run(main).map_err(|lost| Failure {
            status: EXIT_SPOOL_GONE,
            message: format!("agent killed: {lost}"),
        }),
        Err(Unstarted::Program(errno)) => {
            Err(report_exec_failure(&mut pump, &options.argv[0], errno))
        }
        Err(Unstarted::Stage(errno)) => Err(Failure::set_up(
            "cannot execute its own program for the agent's start",
            errno.desc(),
        )),
    }
}

fn report_exec_failure(pump: &mut Pump, program: &OsString, errno: Errno) -> Failure {
    let program = program.to_string_lossy().into_owned();
    let message = format!("cannot execute {program}: {}", errno.desc());
    let payload = ExecFailed {
        errno: errno as i32,
        program,
    };
    match pump.write_now(Kind::ExecFailed, Stream::Stdout, &payload.encode()) {
        Ok(()) => Failure {
            status: EXIT_EXEC_FAILED,
            message,
        },
        Err(lost) => Failure {
            status: EXIT_SPOOL_GONE,
            message: format!("{message}; {lost}"),
        },
    }
}
