//! `inspect`: everything that is known of a run.
//!
//! Owns: the command's output.
//! Reads: the store and the attempt's folder.
//! Never: shows a secret: environment values that look like one are masked as in `launch.json`.

use dark_factory_executor::error::ExecutorError;
use dark_factory_executor::resolve::launch_record;
use dark_factory_types::exit_code;
use serde_json::{Value, json};

use super::Format;
use crate::args::RunName;
use crate::context::Context;
use crate::error::CommandError;
use crate::terminal;

pub(crate) async fn inspect(
    context: &Context,
    name: &RunName,
    format: Format,
) -> Result<u8, CommandError> {
    let supervisor = context.supervisor()?;
    let attempt = supervisor.find_attempt(&name.run).await?;
    let dir = supervisor.state_dir().attempt(attempt.id);
    let files: Vec<String> = [
        dir.raw_log(),
        dir.stderr_log(),
        dir.run_log(),
        dir.launch_json(),
        dir.report_json(),
        dir.spool(),
    ]
    .into_iter()
    .filter(|path| path.exists())
    .map(|path| path.display().to_string())
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
        "files": files,
        "launch": launch_record(&attempt.spec, &attempt.engine),
        "report": attempt.report,
    });
    match format {
        Format::Json => terminal::print_json(&value),
        Format::Text => terminal::print(&lines(&value, 0)),
    }
    Ok(exit_code::SUCCEEDED)
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
