//! `inspect`: everything that is known of a run.
//!
//! Owns: the command's output.
//! Reads: the store and the attempt's folder.
//! Never: shows a secret: environment values that look like one are masked as in `launch.json`.

use std::path::PathBuf;

use dark_factory_executor::error::ExecutorError;
use dark_factory_executor::resolve::launch_record;
use dark_factory_executor::spec::AttemptDir;
use dark_factory_executor::store::Attempt;
use dark_factory_types::{OutcomeKind, Usage, exit_code};
use serde_json::{Map, Value, json};

use super::Format;
use crate::args::RunName;
use crate::context::Context;
use crate::error::CommandError;
use crate::shell;
use crate::terminal;

pub(crate) async fn inspect(
    context: &Context,
    name: &RunName,
    format: Format,
) -> Result<u8, CommandError> {
    let supervisor = context.supervisor()?;
    let attempt = supervisor.find_attempt(&name.run).await?;
    let dir = supervisor.state_dir().attempt(attempt.id);
    let known = known_files(&dir);
    let there = |path: &PathBuf| path.exists().then(|| path.display().to_string());
    let files: Vec<String> = known
        .iter()
        .filter_map(|(_, path, _)| there(path))
        .collect();
    let paths: Map<String, Value> = known
        .iter()
        .map(|(name, path, what)| {
            let shown = there(path).map(|path| match format {
                Format::Json => path,
                Format::Text => format!("{path} ({what})"),
            });
            ((*name).to_owned(), shown.into())
        })
        .collect();
    let of_run = supervisor.store().attempts_of(attempt.id.run()).await;
    let of_run = of_run.map_err(ExecutorError::from)?;
    let reports = || of_run.iter().filter_map(|other| other.report.as_ref());
    let usage: Usage = reports().map(|report| report.usage).sum();
    let usage = reports().next().map(|_| usage);
    let of_run: Vec<Value> = of_run
        .iter()
        .map(|other| {
            json!({
                "attempt_id": other.id,
                "state": other.status(),
                "outcome": other.report.as_ref().map(|report| report.outcome),
                "usage": other.report.as_ref().map(|report| report.usage),
                "created_at": other.created_at,
                "dir": supervisor.state_dir().attempt(other.id).path(),
            })
        })
        .collect();
    let supervised = attempt.report.is_none() && supervisor.is_supervised(attempt.id)?;
    let steps = supervisor.store().steps(attempt.id).await;
    let steps = steps.map_err(ExecutorError::from)?;
    let value = json!({
        "run_id": attempt.id.run(),
        "attempt_id": attempt.id,
        "state": attempt.status(),
        "known_state": attempt.state,
        "unknown_since": attempt.silence.as_ref().map(|silence| silence.since),
        "unknown_why": attempt.silence.as_ref().map(|silence| &silence.why),
        "paused_since": attempt.pause.since.as_ref().map(|since| since.wall),
        "steps": steps,
        "supervised": supervised,
        "engine": attempt.engine,
        "container": attempt.spec.container_name(attempt.id),
        "container_id": attempt.handle.as_ref().map(|handle| &handle.state),
        "image": attempt.image,
        "stop_reason": attempt.stop.as_ref().map(|stop| &stop.reason),
        "created_at": attempt.created_at,
        "started_at": attempt.started_at,
        "finished_at": attempt.finished_at,
        "dir": dir.path(),
        "files": match format {
            Format::Json => files,
            // With what they are.
            Format::Text => Vec::new(),
        },
        "paths": paths,
        "attempts": of_run,
        "usage": usage,
        "launch": launch_record(&attempt.spec, &attempt.engine),
        "report": attempt.report,
        "next": next(&attempt, &dir),
    });
    match format {
        Format::Json => terminal::print_json(&value),
        Format::Text => terminal::print(&lines(&value, 0)),
    }
    Ok(exit_code::SUCCEEDED)
}

/// Returns what may be in an attempt's folder: its name in JSON, its path, and what it is.
fn known_files(dir: &AttemptDir) -> [(&'static str, PathBuf, &'static str); 11] {
    [
        ("prompt", dir.recorded_prompt(), "what it was told to do"),
        (
            "raw_log",
            dir.raw_log(),
            "its standard output, byte for byte",
        ),
        (
            "stderr_log",
            dir.stderr_log(),
            "its standard error, byte for byte",
        ),
        ("run_log", dir.run_log(), "what it did, for people"),
        ("event_log", dir.event_log(), "what it did, for programs"),
        ("launch_json", dir.launch_json(), "what was started"),
        (
            "report_json",
            dir.report_json(),
            "how it ended, for programs",
        ),
        ("report_md", dir.report_md(), "how it ended, for people"),
        (
            "changes_patch",
            dir.changes_patch(),
            "what it changed, for `git apply`",
        ),
        (
            "changes_stat",
            dir.changes_stat(),
            "lines added and removed in each file",
        ),
        ("spool", dir.spool(), "the record of what it printed"),
    ]
}

/// Returns the commands that one may want next.
fn next(attempt: &Attempt, dir: &AttemptDir) -> Vec<String> {
    let run = attempt.id.run();
    let command = |command: &str| format!("dark-factory {command} {run}");
    match &attempt.report {
        None => ["attach", "logs -f", "stop"].map(command).into(),
        Some(report) => {
            let mut commands = vec![command("logs")];
            if report.outcome != OutcomeKind::Succeeded {
                commands.push(command("retry"));
            }
            if dir.changes_patch().exists() {
                let patch = dir.changes_patch().display().to_string();
                commands.push(shell::line(["git", "apply", "--stat", &patch]));
            }
            commands
        }
    }
}

/// Writes a JSON value as indented `key: value` lines, leaving out what is empty.
fn lines(value: &Value, depth: usize) -> String {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !is_empty(value))
            .map(|(key, value)| match value {
                Value::Object(_) | Value::Array(_) => {
                    format!("{indent}{key}:\n{}", lines(value, depth + 1))
                }
                scalar => format!("{indent}{key}: {}\n", text(scalar)),
            })
            .collect(),
        Value::Array(items) => items
            .iter()
            .map(|item| match item {
                Value::Object(_) | Value::Array(_) => lines(item, depth),
                scalar => format!("{indent}{}\n", text(scalar)),
            })
            .collect(),
        scalar => format!("{indent}{}\n", text(scalar)),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn text(scalar: &Value) -> String {
    match scalar {
        Value::String(text) => dark_factory_agents::neutralise(text).into_owned(),
        other => other.to_string(),
    }
}
