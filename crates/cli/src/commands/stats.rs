//! `stats`: what running runs use.
//!
//! Owns: the table, and the rates that take two measurements.
//! Reads: the engine, through the library.
//! Never: minds that a run ends meanwhile.

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::time::Duration;

use dark_factory_executor::engine::{TerminalSize, Traffic, Usage};
use dark_factory_executor::error::ExecutorError;
use dark_factory_executor::store::{Attempt, AttemptState};
use dark_factory_executor::supervisor::Supervisor;
use dark_factory_types::{ByteSize, RunId, exit_code};
use serde_json::json;

use super::Format;
use crate::args::StatsArgs;
use crate::context::Context;
use crate::error::CommandError;
use crate::raw_terminal::RawTerminal;
use crate::terminal::{self, Taken};

/// The time between two measurements, for one picture and from picture to picture.
const FIRST: Duration = Duration::from_millis(500);
const NEXT: Duration = Duration::from_secs(1);

/// A run, and what it uses if it runs.
#[derive(Debug)]
struct Line {
    attempt: Attempt,
    usage: Option<Usage>,
    /// CPUs that it kept busy since the measurement before.
    cpus: Option<f64>,
}

pub(crate) async fn stats(
    context: &Context,
    args: &StatsArgs,
    format: Format,
) -> Result<u8, CommandError> {
    let supervisor = context.supervisor()?;
    let mut named: Vec<RunId> = Vec::new();
    for name in &args.runs {
        let run = supervisor.find_run(name).await?;
        if !named.contains(&run) {
            named.push(run);
        }
    }
    let goes_on = !args.no_stream && format == Format::Text && io::stdout().is_terminal();
    let mut before = HashMap::new();
    measure(&supervisor, &named, &mut before).await?;
    let mut drawn = 0;
    let mut pause = FIRST;
    loop {
        tokio::time::sleep(pause).await;
        pause = NEXT;
        let lines = measure(&supervisor, &named, &mut before).await?;
        if format == Format::Json {
            lines.iter().for_each(print_json);
            return Ok(exit_code::SUCCEEDED);
        }
        let mut table = table(&lines);
        if goes_on {
            // A line that the terminal breaks is two, and the next picture would not be over this one.
            table = cut(&table, RawTerminal::size().ok());
        }
        let text = match drawn {
            0 => table.clone(),
            // Over the one before.
            drawn => format!("\x1b[{drawn}A\x1b[J{table}"),
        };
        drawn = table.lines().count();
        let taken = terminal::print_bytes(text.as_bytes());
        let nothing_runs = lines.iter().all(|line| line.usage.is_none());
        if !goes_on || nothing_runs || taken == Taken::No {
            return Ok(exit_code::SUCCEEDED);
        }
    }
}

/// Measures the named runs, or all that may run.
async fn measure(
    supervisor: &Supervisor,
    named: &[RunId],
    before: &mut HashMap<RunId, Usage>,
) -> Result<Vec<Line>, CommandError> {
    let mut attempts = Vec::new();
    for run in named {
        attempts.push(supervisor.latest(*run).await?);
    }
    if named.is_empty() {
        let open = supervisor.store().open_attempts().await;
        attempts = open.map_err(ExecutorError::from)?;
        attempts.retain(|attempt| {
            (AttemptState::Starting..AttemptState::Finished).contains(&attempt.state)
        });
    }
    let mut lines = Vec::new();
    for attempt in attempts {
        let run = attempt.id.run();
        let usage = match attempt.report {
            Some(_) => None,
            None => supervisor.usage(&attempt).await?,
        };
        let earlier = match &usage {
            Some(usage) => before.insert(run, usage.clone()),
            None => before.remove(&run),
        };
        let cpus = usage
            .as_ref()
            .zip(earlier.as_ref())
            .and_then(|(usage, earlier)| busy(earlier, usage));
        lines.push(Line {
            attempt,
            usage,
            cpus,
        });
    }
    Ok(lines)
}

/// Returns how many CPUs were kept busy between two measurements.
fn busy(earlier: &Usage, later: &Usage) -> Option<f64> {
    let time = later.at.duration_since(earlier.at).as_secs_f64();
    let cpu = later.cpu.checked_sub(earlier.cpu)?.as_secs_f64();
    (time > 0.0).then(|| cpu / time)
}

/// Returns the memory limit: as it was launched, else what the engine says.
fn memory_limit(line: &Line) -> Option<ByteSize> {
    let engines = line.usage.as_ref().and_then(|usage| usage.memory_limit);
    line.attempt.spec.limits.memory.or(engines)
}

fn print_json(line: &Line) {
    let usage = line.usage.as_ref();
    let inward = |traffic: Option<Traffic>| traffic.map(|traffic| traffic.inward.0);
    let outward = |traffic: Option<Traffic>| traffic.map(|traffic| traffic.outward.0);
    let network = usage.and_then(|usage| usage.network);
    let block = usage.and_then(|usage| usage.block);
    terminal::print_json(&json!({
        "run_id": line.attempt.id.run(),
        "state": line.attempt.status(),
        "cpu_percent": line.cpus.map(|cpus| cpus * 100.0),
        "memory_bytes": usage.map(|usage| usage.memory.0),
        "memory_limit_bytes": usage.and(memory_limit(line)).map(|limit| limit.0),
        "memory_peak_bytes": usage.and_then(|usage| usage.memory_peak).map(|peak| peak.0),
        "pids": usage.and_then(|usage| usage.pids),
        "network_received_bytes": inward(network),
        "network_sent_bytes": outward(network),
        "disk_read_bytes": inward(block),
        "disk_written_bytes": outward(block),
    }));
}

/// Cuts lines to the width of a terminal.
fn cut(table: &str, size: Option<TerminalSize>) -> String {
    let width = size.map_or(usize::MAX, |size| usize::from(size.columns));
    table
        .lines()
        .flat_map(|line| line.chars().take(width).chain(['\n']))
        .collect()
}

fn table(lines: &[Line]) -> String {
    if lines.is_empty() {
        return "nothing runs\n".to_owned();
    }
    let header = [
        "RUN", "STATE", "CPU", "MEMORY", "LIMIT", "PEAK", "PIDS", "NETWORK", "DISK",
    ];
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let size = |size: Option<ByteSize>| or_none(size.map(|size| size.to_string()));
    let traffic = |traffic: Option<Traffic>| {
        or_none(traffic.map(|traffic| format!("{} in, {} out", traffic.inward, traffic.outward)))
    };
    let rows = lines.iter().map(|line| {
        let usage = line.usage.as_ref();
        [
            line.attempt.id.run().to_string(),
            line.attempt.status().to_owned(),
            or_none(line.cpus.map(|cpus| format!("{:.1}%", cpus * 100.0))),
            size(usage.map(|usage| usage.memory)),
            size(usage.and(memory_limit(line))),
            size(usage.and_then(|usage| usage.memory_peak)),
            or_none(
                usage
                    .and_then(|usage| usage.pids)
                    .map(|pids| pids.to_string()),
            ),
            traffic(usage.and_then(|usage| usage.network)),
            traffic(usage.and_then(|usage| usage.block)),
        ]
    });
    terminal::table(std::iter::once(header.map(str::to_owned)).chain(rows))
}
