//! The embedded sandbox, beside `bwrap`, Docker and a plain pipe.
//!
//! Owns: the rivals, and what each is given.
//! Reads: the pipes' files; the sandboxes' records, for whose memory it is.
//! Never: gives the sandbox less to do than its rivals: it keeps output and its end on the disk, they nothing.

use std::fs;
use std::io::sink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use dark_factory::HELPER;
use dark_factory::engines::sandbox::config::{SHIM_FILE, ShimRecord};
use dark_factory::engines::sandbox::{SandboxEngine, ShimCommand};
use dark_factory::executor::clock::{Clock, SystemClock};
use dark_factory::executor::engine::Engine;
use dark_factory::executor::state_dir::StateDir;
use dark_factory::types::{NetworkMode, OwnerId, RunId};

use crate::Result;
use crate::measure::{measure, median};
use crate::memory::{SCRIPT, once_started, private_of};
use crate::output::{Disk, piped, raw_log_length};
use crate::rig::Rig;
use crate::table::{Row, table};

const TRUE: [&str; 1] = ["/bin/true"];
/// Where the scripted agent is in a sandbox: it is the helper.
const AGENT: [&str; 3] = ["/.dark-factory/init", "agent", "-e"];
const FLAGS: [&str; 3] = ["--engine", "sandbox", "--quiet"];
/// Folder of the state folder: the sandboxes.
const SANDBOXES: &str = "sandboxes";
/// What is at the root of a machine besides `/usr`, a link into it on most.
const SYSTEM: [&str; 4] = ["/bin", "/sbin", "/lib", "/lib64"];

pub(crate) async fn bench(rig: &Rig, rounds: usize, mebibytes: u32) -> Result<()> {
    let engine = Contract::new(rig)?;
    launch(rig, &engine, rounds).await?;
    output(rig, &engine, rounds, mebibytes).await?;
    memory(rig, rounds)
}

/// From the start of a program that does nothing to its end, and until nothing is left of what was around it.
async fn launch(rig: &Rig, engine: &Contract, rounds: usize) -> Result<()> {
    let names = [
        "dark-factory run --engine sandbox",
        "engine contract alone, sandbox",
        "bwrap --unshare-all",
        "dark-factory run --engine docker",
        "docker run --rm --network none",
    ];
    let [ours, contract, bwrap, docker, docker_run] = [0, 1, 2, 3, 4];
    let mut rows = names.map(|name| Row::new(name, 1));
    for round in 0..=rounds {
        for turn in 0..rows.len() {
            let who = (round + turn) % rows.len();
            let wall = match who {
                0 => wall(&mut in_sandbox(rig, &TRUE))?,
                1 => engine.run(rig, &TRUE).await?.1,
                2 => wall(&mut bubblewrap(rig))?,
                3 => wall(&mut rig.run_argv(
                    &rig.shell_image,
                    &["prompt.md"],
                    &["--engine", "docker", "--quiet"],
                    NetworkMode::None,
                    &TRUE,
                ))?,
                _ => wall(
                    Command::new("docker")
                        .args(["run", "--rm", "--network", "none", &rig.shell_image])
                        .args(TRUE),
                )?,
            };
            // The first round warms up, and finds out whether the machine makes sandboxes.
            if round > 0 {
                rows[who].push(&[wall * 1e3]);
            }
        }
    }
    for (title, who) in [
        (
            "launch to exit of `true`, to bwrap (goal 4x)",
            vec![ours, contract, bwrap],
        ),
        (
            "launch to exit of `true`, to docker run (goal 0.1x)",
            vec![ours, contract, docker, docker_run],
        ),
        (
            "launch to exit of `true`, to our docker engine (goal 0.1x)",
            vec![ours, contract, docker],
        ),
    ] {
        let rows: Vec<Row> = who.into_iter().map(|row| rows[row].clone()).collect();
        print!("{}", table(title, &["ms"], &rows));
    }
    Ok(())
}

fn wall(command: &mut Command) -> Result<f64> {
    Ok(measure(command, sink())?.wall)
}

/// Our run of a command in a sandbox on this machine's system folders.
fn in_sandbox(rig: &Rig, argv: &[&str]) -> Command {
    rig.run_argv("host", &["prompt.md"], &FLAGS, NetworkMode::None, argv)
}

/// `bwrap` around the same program, with what a sandbox has: the machine's system folders, the project, memory.
fn bubblewrap(rig: &Rig) -> Command {
    let mut bwrap = Command::new("bwrap");
    bwrap.args(["--unshare-all", "--die-with-parent", "--new-session"]);
    bwrap.args(["--cap-drop", "ALL", "--clearenv"]);
    bwrap.args(["--ro-bind", "/usr", "/usr", "--ro-bind", "/etc", "/etc"]);
    for path in SYSTEM {
        match fs::read_link(path) {
            Ok(link) => bwrap.arg("--symlink").arg(link).arg(path),
            Err(_) => bwrap.args(["--ro-bind-try", path, path]),
        };
    }
    bwrap.args(["--proc", "/proc", "--dev", "/dev"]);
    bwrap.args(["--tmpfs", "/tmp", "--tmpfs", "/home"]);
    bwrap.arg("--bind").arg(rig.project()).arg("/workspace");
    bwrap.args(["--chdir", "/workspace", "--"]).args(TRUE);
    bwrap
}

/// The engine in this process, without a store, a supervisor or a report.
struct Contract {
    engine: SandboxEngine,
    state: StateDir,
    owner: OwnerId,
}

impl Contract {
    fn new(rig: &Rig) -> Result<Self> {
        let state = StateDir::open(&rig.beside("contract"), HELPER)?;
        let shim = ShimCommand::new(rig.binary.clone(), Vec::new());
        let sandboxes = state.path().join(SANDBOXES);
        Ok(Self {
            engine: SandboxEngine::new(sandboxes, shim, rig.host.clone(), Arc::new(SystemClock)),
            state,
            owner: OwnerId("bench".to_owned()),
        })
    }

    /// Returns the bytes that were kept, and the seconds from the first call to the end of the last one.
    async fn run(&self, rig: &Rig, argv: &[&str]) -> Result<(u64, f64)> {
        let spec = rig.resolved("host", NetworkMode::None, argv)?.spec;
        let bits = SystemClock.now().as_nanosecond().cast_unsigned();
        let attempt = RunId::from_random_bits(u64::try_from(bits)?).attempt(1);
        let dir = self
            .state
            .make_attempt(attempt, "A prompt.\n".into(), &[], b"{}")?;
        let start = Instant::now();
        let handle = self.engine.create(&spec, &self.owner, &dir).await?;
        let workload = self.engine.start(&spec, &handle, &dir).await?;
        let exit = workload.wait().await?;
        workload.remove().await?;
        let wall = start.elapsed().as_secs_f64();
        let written = raw_log_length(dir.path());
        fs::remove_dir_all(dir.path())?;
        match exit.code {
            0 => Ok((written, wall)),
            code => Err(format!("{argv:?} ended with {code} in a sandbox: {exit:?}").into()),
        }
    }
}

/// Output into a file, which the sandbox also keeps a record of, and syncs.
async fn output(rig: &Rig, engine: &Contract, rounds: usize, mebibytes: u32) -> Result<()> {
    let script = format!("spew {mebibytes}m 1k");
    let bytes = u64::from(mebibytes) << 20;
    let names = [
        "dark-factory run --engine sandbox",
        "engine contract alone, sandbox",
        "a pipe into a file, synced",
        "a pipe into a file",
    ];
    let mut rows = names.map(|name| Row::new(name, 1));
    for round in 0..=rounds {
        for turn in 0..rows.len() {
            let who = (round + turn) % rows.len();
            let argv = [&AGENT[..], &[&script]].concat();
            let (written, wall) = match who {
                0 => {
                    let wall = wall(&mut in_sandbox(rig, &argv))?;
                    let written = raw_log_length(&rig.state());
                    fs::remove_dir_all(rig.state())?;
                    (written, wall)
                }
                1 => engine.run(rig, &argv).await?,
                2 => piped(rig, &script, 1, Disk::Synced)?,
                _ => piped(rig, &script, 1, Disk::Cached)?,
            };
            if written != bytes {
                return Err(format!("{written} of {bytes} bytes were kept").into());
            }
            if round > 0 {
                #[expect(clippy::cast_precision_loss, reason = "a size in bytes")]
                rows[who].push(&[bytes as f64 / 1e6 / wall]);
            }
        }
    }
    let title = format!("{mebibytes} MiB of 1 KiB lines into a file, to a pipe (goal 0.8x)");
    print!("{}", table(&title, &["MB/s"], &rows));
    Ok(())
}

/// The memory of the two processes that each sandbox has beside its agent.
fn memory(rig: &Rig, rounds: usize) -> Result<()> {
    let (mut shims, mut inits) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let run = in_sandbox(rig, &[&AGENT[..], &[SCRIPT]].concat());
        let [shim, init] = once_started(rig, run, 1, |_| {
            let record = record(&rig.state().join(SANDBOXES))?;
            let init = record.init.ok_or("a sandbox without a first process")?;
            Ok([
                private_of(u32::try_from(record.shim)?)?,
                private_of(u32::try_from(init)?)?,
            ])
        })?;
        shims.push(shim);
        inits.push(init);
    }
    println!(
        "\nprivate memory of a sandbox beside its agent, {rounds} rounds: {:.2} MiB its shim (goal 4 MiB), {:.2} MiB \
         its PID 1",
        median(shims),
        median(inits),
    );
    Ok(())
}

/// Returns what the shim of the one sandbox says of itself.
fn record(sandboxes: &Path) -> Result<ShimRecord> {
    for entry in fs::read_dir(sandboxes)? {
        if let Ok(text) = fs::read(entry?.path().join(SHIM_FILE)) {
            return Ok(serde_json::from_slice(&text)?);
        }
    }
    Err("no sandbox runs".into())
}
