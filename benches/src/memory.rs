//! The memory that is our process's alone: for one run, and for each further one.
//!
//! Owns: how many run.
//! Reads: `/proc/PID/smaps_rollup`.
//! Never: counts what is shared with other processes of the binary.

use std::fs;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dark_factory::types::NetworkMode;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Result;
use crate::measure::median;
use crate::rig::Rig;

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
    let started = rig.project().join("starts.txt");
    fs::write(&started, "")?;
    nix::unistd::chown(&started, Some(1000.into()), Some(1000.into()))?;
    let prompts: Vec<String> = (0..runs).map(|number| format!("m{number}.md")).collect();
    for prompt in &prompts {
        fs::write(rig.project().join(prompt), "A prompt that nobody reads.\n")?;
    }
    let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
    let jobs = runs.to_string();
    let script = "append starts.txt \"started\\n\"; print x; sleep 1h";
    let mut run = rig
        .run(
            &prompts,
            &["--quiet", "--jobs", &jobs],
            NetworkMode::None,
            script,
        )
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let measured = when_started(&run, &started, runs);
    let pid = Pid::from_raw(i32::try_from(run.id())?);
    // Twice, so that nobody waits for the agents' grace.
    kill(pid, Signal::SIGINT)?;
    thread::sleep(GLANCE);
    kill(pid, Signal::SIGINT)?;
    run.wait()?;
    measured
}

fn when_started(run: &Child, starts: &std::path::Path, runs: u32) -> Result<f64> {
    let deadline = Instant::now() + PATIENCE;
    while fs::read_to_string(starts)?.lines().count() < usize::try_from(runs)? {
        if Instant::now() > deadline {
            return Err("the agents do not start".into());
        }
        thread::sleep(GLANCE);
    }
    // What is left of starting them is over then.
    thread::sleep(Duration::from_secs(1));
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", run.id()))?;
    let kibibytes: f64 = rollup
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok())
        .sum();
    Ok(kibibytes / 1024.0)
}
