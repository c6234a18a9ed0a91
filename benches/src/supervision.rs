//! Times what has no counterpart in docker: recovering many runs, and how late a time limit is.
//!
//! Owns: the two figures.
//! Reads: what `ps` and `inspect` say.
//! Never: fails for a figure that misses its goal.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dark_factory::types::NetworkMode;
use jiff::Timestamp;
use serde_json::Value;

use crate::Result;
use crate::measure::{median, read};
use crate::rig::Rig;

const RUNS: usize = 100;
/// Each has half of the runs: one may have 64 at a time.
const SUPERVISORS: usize = 2;
const SCRIPT: &str = "append starts.txt \"started\\n\"; wait-file go";
const LIMIT: Duration = Duration::from_secs(1);
const GLANCE: Duration = Duration::from_millis(10);
/// How long the containers may take to start.
const PATIENCE: Duration = Duration::from_secs(300);

/// From the start of `recover` to its exit, for runs whose supervisors were killed and whose agents have ended.
pub(crate) fn recovery(rig: &Rig) -> Result<()> {
    let prompts: Vec<String> = (0..RUNS).map(|number| format!("p{number}.md")).collect();
    for prompt in &prompts {
        fs::write(rig.project().join(prompt), "A prompt that nobody reads.\n")?;
    }
    let mut supervisors = Vec::new();
    for prompts in prompts.chunks(RUNS / SUPERVISORS) {
        let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
        let jobs = prompts.len().to_string();
        let mut run = rig.run(
            &prompts,
            &["--quiet", "--jobs", &jobs],
            NetworkMode::None,
            SCRIPT,
        );
        supervisors.push(run.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    }
    let begun = wait_for_starts(rig);
    for supervisor in &mut supervisors {
        kill(supervisor)?;
    }
    fs::write(rig.project().join("go"), "")?;
    begun?;
    let containers = open_containers(rig)?;
    read(Command::new("docker").arg("wait").args(&containers))?;

    let start = Instant::now();
    let recovered = read(&mut rig.dark_factory(&["recover"]))?;
    let took = start.elapsed();

    let succeeded = recovered
        .lines()
        .filter(|line| line.contains(" succeeded: "))
        .count();
    println!(
        "\nrecovery: {succeeded} of {RUNS} runs after kill -9 in {:.2} s (goal 5 s)",
        took.as_secs_f64()
    );
    Ok(())
}

/// From the moment at which a time limit is over to the one at which the stop begins.
pub(crate) fn deadline(rig: &Rig, rounds: usize) -> Result<()> {
    let mut late = Vec::new();
    for _ in 0..rounds {
        let flags = ["--quiet", "--timeout", "1s", "--json"];
        let mut run = rig.run(&["prompt.md"], &flags, NetworkMode::None, "sleep 1h");
        // It does not succeed: it is stopped.
        let output = run.stderr(Stdio::null()).output()?;
        let ended = object(&String::from_utf8_lossy(&output.stdout))?;
        let name = ended["run_id"].as_str().unwrap_or_default();
        let inspected = read(&mut rig.dark_factory(&["inspect", "--json", name]))?;
        late.push(lateness(&object(&inspected)?)?);
    }
    let most = late.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    println!(
        "\ntime limit of {} s, {rounds} rounds: late by {:.0} ms, {:.0} ms at most (goal 250 ms)",
        LIMIT.as_secs(),
        median(late) * 1e3,
        most * 1e3
    );
    Ok(())
}

fn wait_for_starts(rig: &Rig) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let starts = fs::read_to_string(rig.project().join("starts.txt"));
        if starts.is_ok_and(|starts| starts.lines().count() >= RUNS) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err("the runs do not start".into());
        }
        thread::sleep(GLANCE);
    }
}

fn open_containers(rig: &Rig) -> Result<Vec<String>> {
    let listed = read(&mut rig.dark_factory(&["ps", "--json"]))?;
    let names = listed.lines().map(|line| {
        let name = object(line)?["container"].as_str().map(str::to_owned);
        name.ok_or_else(|| "a run without a container".into())
    });
    names.collect()
}

fn kill(supervisor: &mut Child) -> Result<()> {
    supervisor.kill()?;
    supervisor.wait()?;
    Ok(())
}

/// Returns how many seconds after the limit the stop began.
fn lateness(inspected: &Value) -> Result<f64> {
    let time = |value: &Value| -> Result<Timestamp> {
        let time = value
            .as_str()
            .and_then(|text| text.parse::<Timestamp>().ok());
        time.ok_or_else(|| format!("no time in {inspected}").into())
    };
    let started = time(&inspected["started_at"])?;
    let steps = inspected["steps"].as_array().into_iter().flatten();
    let stopping = steps
        .clone()
        .find(|step| step["state"] == "stopping")
        .map(|step| time(&step["at"]));
    let stopping = stopping.unwrap_or_else(|| Err("a limit that stopped nothing".into()))?;
    Ok(stopping.duration_since(started).as_secs_f64() - LIMIT.as_secs_f64())
}

fn object(json: &str) -> Result<Value> {
    serde_json::from_str(json).map_err(|error| format!("{error}: {json}").into())
}
