//! Times what has no counterpart in docker: recovering many runs, and how late a time limit is.
//!
//! Owns: the two figures.
//! Reads: what `ps` and `inspect` say.
//! Never: fails for a figure that misses its goal.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

use super::Bench;
use crate::images;
use crate::measure::median;
use crate::program::{self, Failure};

pub(super) const DEADLINE_ROUNDS: usize = 10;
const RUNS: usize = 100;
/// Each has half of the runs: one may have 64 at a time.
const SUPERVISORS: usize = 2;
const SCRIPT: &str = "append starts.txt \"started\\n\"; wait-file go";
const LIMIT: Duration = Duration::from_secs(1);
const GLANCE: Duration = Duration::from_millis(10);
/// How long the containers may take to start.
const PATIENCE: Duration = Duration::from_secs(300);

impl Bench {
    /// From the start of `recover` to its exit, for runs whose supervisors were killed and whose agents have ended.
    pub(super) fn recovery(&self) -> Result<(), Failure> {
        let prompts: Vec<String> = (0..RUNS).map(|number| format!("p{number}.md")).collect();
        for prompt in &prompts {
            fs::write(self.project().join(prompt), "A prompt that nobody reads.\n")?;
        }
        let mut supervisors = Vec::new();
        for prompts in prompts.chunks(RUNS / SUPERVISORS) {
            let mut run = self.run_of(prompts, &["--jobs", &prompts.len().to_string()], SCRIPT);
            supervisors.push(run.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        }
        let begun = self.wait_for_starts();
        for supervisor in &mut supervisors {
            kill(supervisor)?;
        }
        fs::write(self.project().join("go"), "")?;
        begun?;
        let containers = self.open_containers()?;
        program::read(self.engine.docker().arg("wait").args(&containers))?;

        let start = Instant::now();
        let recovered = program::read(&mut self.command(&["recover"]))?;
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
    pub(super) fn deadline(&self, rounds: usize) -> Result<(), Failure> {
        let mut late = Vec::new();
        for _ in 0..rounds {
            let prompt = ["prompt.md".to_owned()];
            let mut run = self.run_of(&prompt, &["--timeout", "1s", "--json"], "sleep 1h");
            // It does not succeed: it is stopped.
            let output = run.stderr(Stdio::null()).output()?;
            let ended = object(&String::from_utf8_lossy(&output.stdout))?;
            let name = ended["run_id"].as_str().unwrap_or_default();
            let inspected = program::read(&mut self.command(&["inspect", "--json", name]))?;
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

    fn project(&self) -> PathBuf {
        self.folder.path().join("project")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .current_dir(self.project())
            .env("DARK_FACTORY_STATE_DIR", self.state());
        command
    }

    fn run_of(&self, prompts: &[String], flags: &[&str], script: &str) -> Command {
        let mut run = self.command(&["run", "--quiet", "--network", "none"]);
        run.args(["--agent", "command", "--image", images::AGENT])
            .args(flags)
            .args(prompts)
            .args(["--", "/bin/agent", "-e", script])
            .stdin(Stdio::null());
        run
    }

    fn wait_for_starts(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let starts = fs::read_to_string(self.project().join("starts.txt"));
            if starts.is_ok_and(|starts| starts.lines().count() >= RUNS) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Failure::new("the runs do not start"));
            }
            thread::sleep(GLANCE);
        }
    }

    fn open_containers(&self) -> Result<Vec<String>, Failure> {
        let listed = program::read(&mut self.command(&["ps", "--json"]))?;
        let names = listed.lines().map(|line| {
            let name = object(line)?["container"].as_str().map(str::to_owned);
            name.ok_or_else(|| Failure::new("a run without a container"))
        });
        names.collect()
    }
}

fn kill(supervisor: &mut Child) -> Result<(), Failure> {
    supervisor.kill()?;
    supervisor.wait()?;
    Ok(())
}

/// Returns how many seconds after the limit the stop began.
fn lateness(inspected: &Value) -> Result<f64, Failure> {
    let time = |value: &Value| {
        let time = value
            .as_str()
            .and_then(|text| text.parse::<Timestamp>().ok());
        time.ok_or_else(|| Failure::new(format!("no time in {inspected}")))
    };
    let started = time(&inspected["started_at"])?;
    let steps = inspected["steps"].as_array().into_iter().flatten();
    let stopping = steps
        .clone()
        .find(|step| step["state"] == "stopping")
        .map(|step| time(&step["at"]));
    let stopping = stopping.unwrap_or_else(|| Err(Failure::new("a limit that stopped nothing")))?;
    Ok(stopping.duration_since(started).as_secs_f64() - LIMIT.as_secs_f64())
}

fn object(json: &str) -> Result<Value, Failure> {
    serde_json::from_str(json).map_err(|error| Failure::new(format!("{error}: {json}")))
}
