//! What must be true of a run, whatever happened to the processes that ran it.
//!
//! Owns: the one list of checks.
//! Reads: what a user can read: the commands' output, the attempt's folder, the project, the engine's list.
//! Never: asks which fault it was: the same is true after each.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::engine_api::our_containers;
use crate::sandboxes::{sandboxes, shims_below};

use super::play::{SECRET, Stage, entries};
use super::process::How;
use super::schedule::{Fault, Role, Scenario, Schedule};
use super::script::{BEGUN, GO, STARTS};

/// What is left in the folder of an attempt that has ended.
const KEPT: [&str; 9] = [
    "events.jsonl",
    "launch.json",
    "nudge",
    "prompt.md",
    "raw.jsonl",
    "report.json",
    "report.md",
    "run.log",
    "stderr.log",
];

impl Schedule {
    /// Returns the text of its agent's script.
    pub(super) fn script_text(&self) -> String {
        self.script.text(&match self.scenario {
            Scenario::Plain | Scenario::Orphaned => format!("sleep {}ms", self.script.work),
            Scenario::Secret => "replay /run/secrets/token".to_owned(),
            Scenario::Paused => format!("wait-file {GO}"),
            Scenario::Stopped
            | Scenario::OrphanStopped
            | Scenario::Limited
            | Scenario::HelperKilled
            | Scenario::ShimKilled => "sleep 1h".to_owned(),
        })
    }

    /// Returns all that its agent prints if it is let alone, by stream.
    fn output(&self) -> [Vec<u8>; 2] {
        let [mut stdout, stderr] = self.script.output();
        if self.scenario == Scenario::Secret {
            let [before, _] = self.script.output_before();
            stdout.splice(before.len()..before.len(), SECRET.bytes());
        }
        [stdout, stderr]
    }

    fn outcome(&self) -> &'static str {
        match self.scenario {
            Scenario::Stopped | Scenario::OrphanStopped => "cancelled",
            Scenario::Limited => "timed_out",
            Scenario::HelperKilled => "killed",
            Scenario::ShimKilled => "lost",
            _ if self.script.exit == 0 => "succeeded",
            _ => "failed",
        }
    }

    fn ends_by_itself(&self) -> bool {
        matches!(self.outcome(), "succeeded" | "failed")
    }
}

/// Checks all of it.
pub(super) fn verify(stage: &Stage<'_>) -> Result<(), String> {
    let state = stage.installation.state_dir();
    if let Some(left) = our_containers().iter().find(|one| one.uses(&state)) {
        return Err(format!("a container is left: {left:?}"));
    }
    if let Some(left) = sandboxes(&state).first() {
        return Err(format!("a sandbox is left: {}", left.told()));
    }
    let processes = shims_below(&state);
    if !processes.is_empty() {
        return Err(format!("processes of a sandbox are left: {processes:?}"));
    }
    let listed = stage.ask(&["ps", "-a", "--json"]);
    let runs: Vec<Value> = listed
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).map_err(|error| format!("{error}: {line}")))
        .collect::<Result<_, _>>()?;
    match runs.as_slice() {
        [] => never_recorded(stage)?,
        [run] => recorded(stage, run)?,
        several => {
            return Err(format!(
                "one file was run, and these are the runs: {several:?}"
            ));
        }
    }
    nothing_left_over(stage)?;
    only_known(
        &state,
        &[
            "engine.json",
            "init",
            "projects",
            "runs",
            "sandbox-engine",
            "sandboxes",
            "state.db",
            "state.db-shm",
            "state.db-wal",
        ],
    )?;
    let mut indexes = entries(&state.join("projects"));
    // Beside each, the name of its project's folder.
    indexes.retain(|path| path.extension().is_none_or(|kind| kind != "project"));
    if indexes.len() > 1 {
        return Err(format!("more than one index of one project: {indexes:?}"));
    }
    let helpers = entries(&state.join("init")).len();
    if helpers > 1 {
        return Err(format!("{helpers} files in init/"));
    }
    only_known(
        stage.project.path(),
        &[".git", "README.md", "prompt.md", STARTS, BEGUN, GO],
    )
}

/// Checks that a run of which nobody has heard did nothing.
fn never_recorded(stage: &Stage<'_>) -> Result<(), String> {
    if stage.schedule.run == Fault::None {
        return Err("a run without a fault was never recorded".to_owned());
    }
    if stage.project.path().join(STARTS).exists() {
        return Err("a run that was never recorded was started".to_owned());
    }
    Ok(())
}

fn recorded(stage: &Stage<'_>, run: &Value) -> Result<(), String> {
    let schedule = stage.schedule;
    same("state", &run["state"], &"finished".into())?;
    let dir = Path::new(run["dir"].as_str().ok_or("a run without a folder")?);
    let report = fs::read(dir.join("report.json")).map_err(|error| format!("report: {error}"))?;
    let report: Value = serde_json::from_slice(&report).map_err(|error| error.to_string())?;
    for key in ["outcome", "cause", "container", "file", "finished_at"] {
        same(&format!("{key} of ps and report"), &run[key], &report[key])?;
    }
    same("outcome", &report["outcome"], &schedule.outcome().into())
        .map_err(|error| format!("{error} {report}"))?;
    started_at_most_once(stage, &report)?;
    output_is_right(stage, &report, dir)?;
    let mut kept = KEPT.to_vec();
    if report["log"] == "incomplete" {
        kept.push("spool");
    }
    kept.extend(changes_are_right(stage, &report, dir)?);
    only_known(dir, &kept)?;
    if let Some(secret) = entries(dir)
        .iter()
        .filter(|path| !path.ends_with("raw.jsonl") && !path.ends_with("run.log"))
        .find(|path| fs::read(path).is_ok_and(|bytes| holds(&bytes, SECRET.as_bytes())))
    {
        return Err(format!("the secret stands in {}", secret.display()));
    }
    exit_code_is_right(stage)
}

/// Checks that the patch has what the agent did, if there is to be one; returns its files.
fn changes_are_right(
    stage: &Stage<'_>,
    report: &Value,
    dir: &Path,
) -> Result<Vec<&'static str>, String> {
    if !stage.schedule.scenario.is_versioned() {
        return Ok(Vec::new());
    }
    if !stage.project.path().join(STARTS).exists() {
        same("changes of none", &report["changes"]["patch"], &Value::Null)?;
        return Ok(Vec::new());
    }
    let patch = fs::read_to_string(dir.join("changes.patch"));
    let patch = patch.map_err(|error| format!("the patch: {error} {report}"))?;
    match patch.contains("\n+started\n") {
        true => Ok(vec!["changes.patch", "changes.stat"]),
        false => Err(format!("what the agent did is not in the patch: {patch}")),
    }
}

/// Checks the counter that the agent keeps in its workspace.
fn started_at_most_once(stage: &Stage<'_>, report: &Value) -> Result<(), String> {
    let starts = fs::read_to_string(stage.project.path().join(STARTS)).unwrap_or_default();
    let says_started = !report["started_at"].is_null();
    let ends_by_itself = stage.schedule.ends_by_itself();
    match starts.as_str() {
        "started\n" if says_started => Ok(()),
        // The helper's record was there, and the agent was stopped before its first line.
        "" if !ends_by_itself => Ok(()),
        starts => Err(format!(
            "the agent was started like this: {starts:?}, and the report says {report}"
        )),
    }
}

fn output_is_right(stage: &Stage<'_>, report: &Value, dir: &Path) -> Result<(), String> {
    let schedule = stage.schedule;
    let is_incomplete = schedule.scenario.is_murder();
    let log = if is_incomplete {
        "incomplete"
    } else {
        "complete"
    };
    same("log", &report["log"], &log.into()).map_err(|error| format!("{error} {report}"))?;
    let begun = stage.begun().exists();
    let whole = schedule.output();
    let before = schedule.script.output_before();
    for (index, file) in ["raw.jsonl", "stderr.log"].into_iter().enumerate() {
        let found = fs::read(dir.join(file)).map_err(|error| format!("{file}: {error}"))?;
        let counted = &report[["stdout_bytes", "stderr_bytes"][index]];
        same(&format!("length of {file}"), counted, &found.len().into())?;
        let least = if schedule.ends_by_itself() {
            whole[index].len()
        } else if begun && !is_incomplete {
            before[index].len()
        } else {
            0
        };
        if !whole[index].starts_with(&found) || found.len() < least {
            let differs = found.iter().zip(&whole[index]).position(|(a, b)| a != b);
            return Err(format!(
                "{file} has {} bytes for {least} to {}, the first difference is at {differs:?}",
                found.len(),
                whole[index].len()
            ));
        }
    }
    Ok(())
}

/// Checks what a `run` said that nothing happened to.
fn exit_code_is_right(stage: &Stage<'_>) -> Result<(), String> {
    let schedule = stage.schedule;
    let expected = match schedule.outcome() {
        "succeeded" => 0,
        "failed" => 1,
        "cancelled" => 130,
        "timed_out" => 124,
        "lost" => 7,
        _ => 137,
    };
    let history = stage.history();
    let run = history.iter().find(|(role, ..)| *role == Role::Run);
    match run {
        Some((_, Fault::None, ended))
            if schedule.trouble.is_none() && ended.how != How::Exited(expected) =>
        {
            Err(format!("run ended with {:?} for {expected}", ended.how))
        }
        _ => Ok(()),
    }
}

/// Checks that `prune` has nothing to do, once the folder of a run that was never recorded is gone.
fn nothing_left_over(stage: &Stage<'_>) -> Result<(), String> {
    let mut listed = stage.ask(&["prune", "--grace", "0s"]);
    let was_recorded = entries(&stage.installation.state_dir().join("runs"))
        .iter()
        .any(|dir| dir.join("report.json").exists());
    if !was_recorded {
        let pruned = stage.ask(&["prune", "--grace", "0s", "--apply"]);
        if pruned.how != How::Exited(0) {
            return Err(format!("prune fails: {}", pruned.stderr));
        }
        listed = stage.ask(&["prune", "--grace", "0s"]);
        only_known(&stage.installation.state_dir().join("runs"), &[])?;
    }
    match (listed.how, listed.stdout.as_str()) {
        (How::Exited(0), "nothing is left over\n") => Ok(()),
        _ => Err(format!("prune finds something: {}", listed.stdout)),
    }
}

fn only_known(folder: &Path, known: &[&str]) -> Result<(), String> {
    let stranger = entries(folder)
        .into_iter()
        .find(|path| known.iter().all(|known| !path.ends_with(known)));
    match stranger {
        Some(path) => Err(format!("{} is left", path.display())),
        None => Ok(()),
    }
}

fn same(what: &str, found: &Value, expected: &Value) -> Result<(), String> {
    match found == expected {
        true => Ok(()),
        false => Err(format!("{what}: {found} for {expected}")),
    }
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
