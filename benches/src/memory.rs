//! The memory that is our process's alone: for one run, and for each further one.
//!
//! Owns: how many run.
//! Reads: `/proc/PID/smaps_rollup`.
//! Never: counts what is shared with other processes of the binary.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dark_factory::types::NetworkMode;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use crate::Result;
use crate::measure::median;
use crate::rig::Rig;

/// What an agent does while it is looked at.
pub(crate) const SCRIPT: &str = "append starts.txt \"started\\n\"; print x; sleep 1h";
const MANY: u32 = 17;
/// How long the agents may take to start.
const PATIENCE: Duration = Duration::from_secs(120);
const GLANCE: Duration = Duration::from_millis(20);

pub(crate) fn bench(rig: &Rig, rounds: usize) -> Result<()> {
    let mut one = Vec::new();
    let mut further = Vec::new();
    for _ in 0..rounds {
        let (single, many) = (private(rig, 1)?, private(rig, MANY)?);
        one.push(single);
        further.push((many - single) / f64::from(MANY - 1));
    }
    println!(
        "\nprivate memory of `run`, {rounds} rounds: {:.1} MiB for one run (goal 20 MiB), {:.2} MiB for each further \
         one (goal 0.5 MiB)",
        median(one),
        median(further)
    );
    Ok(())
}

/// Returns the MiB of private memory while this many agents have printed and sleep.
fn private(rig: &Rig, runs: u32) -> Result<f64> {
    let prompts: Vec<String> = (0..runs).map(|number| format!("m{number}.md")).collect();
    for prompt in &prompts {
        fs::write(rig.project().join(prompt), "A prompt that nobody reads.\n")?;
    }
    let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
    let jobs = runs.to_string();
    let flags = ["--quiet", "--jobs", &jobs];
    let run = rig.run(&prompts, &flags, NetworkMode::None, SCRIPT);
    once_started(rig, run, runs, |run| private_of(run.id()))
}

/// Measures something once this many agents of a run have done [`SCRIPT`] up to their sleep; ends the run.
pub(crate) fn once_started<T>(
    rig: &Rig,
    mut run: Command,
    runs: u32,
    measure: impl FnOnce(&Child) -> Result<T>,
) -> Result<T> {
    let started = rig.project().join("starts.txt");
    fs::write(&started, "")?;
    if Uid::effective().is_root() {
        nix::unistd::chown(&started, Some(1000.into()), Some(1000.into()))?;
    }
    let mut run = run
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let measured = wait_for_starts(&started, runs).and_then(|()| measure(&run));
    let pid = Pid::from_raw(i32::try_from(run.id())?);
    // Twice, so that nobody waits for the agents' grace.
    kill(pid, Signal::SIGINT)?;
    thread::sleep(GLANCE);
    kill(pid, Signal::SIGINT)?;
    run.wait()?;
    measured
}

fn wait_for_starts(started: &Path, runs: u32) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while fs::read_to_string(started)?.lines().count() < usize::try_from(runs)? {
        if Instant::now() > deadline {
            return Err("the agents do not start".into());
        }
        thread::sleep(GLANCE);
    }
    // What is left of starting them is over then.
    thread::sleep(Duration::from_secs(1));
    Ok(())
}

/// Returns the MiB of memory that are a process's alone.
pub(crate) fn private_of(pid: u32) -> Result<f64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kibibytes: f64 = rollup
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok())
        .sum();
    Ok(kibibytes / 1024.0)
}
