//! `prune`: what no open run owns any more, and its removal.
//!
//! Owns: the command's output.
//! Reads: nothing else.
//! Never: removes anything unless it is told to.

use std::time::{Duration, SystemTime};

use dark_factory_agents::neutralise;
use dark_factory_executor::clock::{Clock as _, SystemClock};
use dark_factory_executor::error::sentence;
use dark_factory_executor::settings::parse_timeout;
use dark_factory_executor::supervisor::{
    Expired, Expiry, Leftover, Pruned, Removed, Retention, Thing,
};
use dark_factory_factory::changes::UnusedIndex;
use dark_factory_types::exit_code;
use serde_json::{Value, json};

use super::{Format, rm};
use crate::args::PruneArgs;
use crate::context::Context;
use crate::error::CommandError;
use crate::flags::retention;
use crate::tell;
use crate::terminal;

pub(crate) async fn prune(
    context: &Context,
    args: &PruneArgs,
    format: Format,
) -> Result<u8, CommandError> {
    let grace = match args.grace.as_str() {
        // No wait at all is a wish that a time limit could not be.
        "0s" => Duration::ZERO,
        grace => {
            parse_timeout(grace).map_err(|error| CommandError::usage(format!("--grace {error}")))?
        }
    };
    let supervisor = context.supervisor()?;
    let leftovers = supervisor.leftovers(grace).await?;
    let retention = retention(context, args.retention)?;
    let expired = supervisor.expired(retention).await?;
    let indexes = unused_indexes(context, retention)?;
    let is_empty = leftovers.is_empty() && expired.is_empty() && indexes.is_empty();
    if is_empty && format == Format::Text {
        terminal::print("nothing is left over\n");
    }
    if !args.apply {
        for leftover in &leftovers {
            print(leftover, "would be removed", &Value::Null, format);
        }
        for expired in &expired {
            print_expired(expired, format);
        }
        for index in &indexes {
            print_index(index, "would be removed", &Value::Null, format);
        }
        if !is_empty {
            tell::progress("nothing was removed; --apply does it");
        }
        return Ok(exit_code::SUCCEEDED);
    }
    let mut codes = Vec::new();
    for Pruned { leftover, result } in supervisor.prune(leftovers).await {
        match result {
            Ok(()) => print(&leftover, "removed", &Value::Null, format),
            Err(error) => {
                let why = sentence(&error);
                codes.push(error.exit_code());
                let what = format!("not removed: {why}");
                print(&leftover, &what, &json!(why), format);
            }
        }
    }
    for Removed { run, result } in supervisor.retain(retention).await? {
        codes.push(rm::told(run, result, format));
    }
    for index in &indexes {
        match index.remove() {
            Ok(()) => print_index(index, "removed", &Value::Null, format),
            Err(error) => {
                codes.push(exit_code::INTERNAL);
                let what = format!("not removed: {error}");
                print_index(index, &what, &json!(error.to_string()), format);
            }
        }
    }
    Ok(exit_code::combine(codes))
}

fn unused_indexes(
    context: &Context,
    retention: Retention,
) -> Result<Vec<UnusedIndex>, CommandError> {
    let now = u64::try_from(SystemClock.now().as_second()).unwrap_or_default();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
    UnusedIndex::list(&context.state_dir, retention.days, now)
        .map_err(|error| CommandError::internal("list the indexes of projects", error))
}

fn print_index(index: &UnusedIndex, what: &str, error: &Value, format: Format) {
    let path = index.path().display().to_string();
    match format {
        Format::Json => terminal::print_json(&json!({
            "kind": "index",
            "name": path,
            "project": index.project,
            "removed": what == "removed",
            "error": error,
        })),
        Format::Text => {
            let project = index.project.as_ref();
            let name = project.map_or(path, |project| project.display().to_string());
            let name = neutralise(&name);
            let why = index.why;
            terminal::print(&format!("index of {name} ({why}): {what}\n"));
        }
    }
}

fn print_expired(expired: &Expired, format: Format) {
    let run = expired.run;
    match format {
        Format::Json => terminal::print_json(&json!({
            "kind": "run",
            "run_id": run,
            "removed": false,
            "freed_bytes": null,
            "error": null,
        })),
        Format::Text => {
            let ended = expired.finished_at.strftime("%Y-%m-%d %H:%M:%SZ");
            let why = match expired.why {
                Expiry::Age => "longer ago than --keep-days",
                Expiry::Number => "not among the last --keep-runs",
            };
            terminal::print(&format!(
                "run {run} (ended {ended}, {why}): would be removed\n"
            ));
        }
    }
}

fn print(leftover: &Leftover, what: &str, error: &Value, format: Format) {
    let (kind, name) = match &leftover.thing {
        Thing::Container(container) => ("container", container.name.clone()),
        Thing::Image(image) => ("image", image.name.clone()),
        Thing::Folder { path, .. } => ("folder", path.display().to_string()),
    };
    let (id, attempt, created_at) = match &leftover.thing {
        Thing::Container(container) => (
            json!(container.id),
            json!(container.attempt),
            json!(container.created_at),
        ),
        Thing::Image(image) => (
            json!(image.id),
            json!(image.attempt),
            json!(image.created_at),
        ),
        Thing::Folder { attempt, .. } => (Value::Null, json!(attempt), Value::Null),
    };
    let stake = leftover.stake.map(|stake| stake.to_string());
    match format {
        Format::Json => terminal::print_json(&json!({
            "kind": kind,
            "name": name,
            "id": id,
            "attempt_id": attempt,
            "created_at": created_at,
            "at_stake": stake,
            "removed": what == "removed",
            "error": error,
        })),
        Format::Text => {
            let stake = stake.map_or_else(String::new, |stake| format!(" ({stake})"));
            terminal::print(&format!("{kind} {name}{stake}: {what}\n"));
        }
    }
}
