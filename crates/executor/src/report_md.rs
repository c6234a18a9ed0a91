//! `report.md`: an attempt's report for people.
//!
//! Owns: its wording and layout, and that text of an agent's is nothing but text in it.
//! Reads: the report.
//! Never: knows more than the report.

use std::fmt::Display;

use dark_factory_agents::{PRICES_DATE, neutralise};
use dark_factory_types::{
    BrokeredUse, ChangedFile, Changes, CompletionReport, Exit, ExitStatus, LimitsRecord, LogState,
    Oom, OutcomeKind, Report, ReportStatus, StopReason, Usage, Verdict, signal_name,
};
use jiff::{SignedDuration, Timestamp};

use crate::spec::AttemptDir;

/// Writes a report as Markdown. What the agent said, and names of files, cannot format anything, and drive no terminal.
pub fn report_md(report: &Report, dir: &AttemptDir) -> String {
    let mark = match report.outcome {
        OutcomeKind::Succeeded => "✔",
        _ => "✘",
    };
    let mut text = format!(
        "# {mark} {}: {}\n\n{}\n\n",
        report.outcome.as_str().replace('_', " "),
        plain(&report.file),
        plain(&report.cause)
    );
    text += &list(facts(report));
    if let Some(claim) = claim(&report.verdict) {
        text += &section("What the agent says", &claim);
    }
    if let Some(changes) = &report.changes {
        text += &section("Changes", &changed(changes, &report.changed_files));
    }
    if !report.warnings.is_empty() {
        let warnings = report.warnings.iter().map(|warning| plain(warning));
        text += &section(
            "Warnings",
            &list(warnings.map(|warning| format!("- {warning}"))),
        );
    }
    text += &section("Files", &list(files(report, dir)));
    text += &section("Next", &next(report));
    text
}

fn section(title: &str, content: &str) -> String {
    format!("\n## {title}\n\n{content}")
}

fn list(lines: impl IntoIterator<Item = String>) -> String {
    lines.into_iter().map(|line| format!("{line}\n")).collect()
}

fn fact(name: &str, value: impl Display) -> String {
    format!("- {name}: {value}")
}

fn facts(report: &Report) -> Vec<String> {
    let mut facts = vec![fact("run", report.attempt_id.run())];
    facts.push(fact("attempt", report.attempt_id));
    facts.push(fact("agent", plain(&report.agent)));
    facts.extend(
        report
            .model
            .as_ref()
            .map(|model| fact("model", plain(model))),
    );
    let session = report.session_id.as_ref();
    facts.extend(session.map(|session| fact("session", plain(session))));
    if let Some(image) = &report.image {
        let (reference, digest) = (plain(&image.reference), plain(&image.digest));
        facts.push(fact("image", format!("{reference} ({digest})")));
    }
    let (container, engine) = (plain(&report.container), plain(&report.engine));
    facts.push(fact("container", format!("{container} ({engine})")));
    facts.push(fact("recorded", time(report.created_at)));
    facts.extend(report.started_at.map(|at| fact("started", time(at))));
    let took = report.started_at.map(|at| took(at, report.finished_at));
    let finished = time(report.finished_at);
    facts.push(match took {
        Some(took) => fact("finished", format!("{finished}, after {took}")),
        None => fact("finished", finished),
    });
    facts.extend(report.exit.map(|exit| fact("exit", ended(exit))));
    let reason = report.stop_reason.as_ref();
    facts.extend(reason.map(|reason| fact("stopped by us", stopped(reason))));
    let limits = limits(&report.limits);
    if !limits.is_empty() {
        facts.push(fact("limits", limits.join(", ")));
    }
    let used = used(&report.usage);
    if !used.is_empty() {
        facts.push(fact("usage", used.join(", ")));
    }
    let brokered = report.egress.iter().flat_map(|egress| &egress.brokered);
    facts.extend(brokered.map(|used| fact("at the broker", at_broker(used))));
    facts.extend(report.peak_memory.map(|peak| fact("peak memory", peak)));
    let kills = report.oom_kills.filter(|kills| *kills > 0);
    let victim = report.oom_victim.as_ref();
    let victim = victim.map(|name| format!(" (`{}`)", plain(name)));
    let victim = victim.unwrap_or_default();
    facts.extend(kills.map(|kills| {
        let killed = format!("{kills}{victim}");
        fact("processes killed for lack of memory", killed)
    }));
    facts.extend(report.cpu_ms.map(|cpu| fact("CPU time", milliseconds(cpu))));
    let tool = report.last_tool.as_ref();
    facts.extend(tool.map(|tool| fact("last tool", plain(tool))));
    facts.push(match report.log {
        LogState::Complete => fact("log", "complete"),
        LogState::Incomplete => fact(
            "log",
            "incomplete: an exact prefix, or exact but for recorded gaps",
        ),
    });
    facts
}

/// Says what was used of one model, as seen at the wire.
fn at_broker(brokered: &BrokeredUse) -> String {
    let model = match brokered.model.as_str() {
        "" => brokered.provider.to_string(),
        model => format!("{} {}", brokered.provider, plain(model)),
    };
    let mut parts = vec![format!("{} requests", brokered.requests)];
    if brokered.failed > 0 {
        parts.push(format!("{} refused or not answered", brokered.failed));
    }
    parts.extend(used(&brokered.usage));
    format!("{model}: {}", parts.join(", "))
}

fn ended(exit: Exit) -> String {
    let status = match exit.status {
        ExitStatus::Code(code) => format!("code {code}"),
        ExitStatus::Signal(signal) => signal_name(signal),
        ExitStatus::Lost => "nobody saw it".to_owned(),
        ExitStatus::NeverStarted => "never started".to_owned(),
    };
    match exit.oom {
        Oom::No => status,
        Oom::Child => format!("{status}; a child process was killed for lack of memory"),
        Oom::Certain => format!("{status}, for lack of memory"),
        Oom::Probable => format!("{status}, probably for lack of memory"),
    }
}

fn stopped(reason: &StopReason) -> String {
    let seconds = |time: &std::time::Duration| {
        milliseconds(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    };
    match reason {
        StopReason::Deadline { limit } => format!("its time limit of {} passed", seconds(limit)),
        StopReason::Idle { limit } => format!("it printed nothing for {}", seconds(limit)),
        StopReason::Lingered { grace } => {
            format!(
                "it had given its result and did not leave for {}",
                seconds(grace)
            )
        }
        StopReason::Cancelled { by } => format!("{} cancelled it", plain(by)),
        StopReason::LogLimit { limit } => format!("its log grew beyond {limit}"),
        StopReason::Budget { spent } => spent.to_string(),
        StopReason::DiskLimit { limit, used } => format!(
            "it wrote {used} into the container's own file system, beyond its limit of {limit}"
        ),
        _ => "see report.json".to_owned(),
    }
}

fn limits(limits: &LimitsRecord) -> Vec<String> {
    let mut set = Vec::new();
    set.extend(
        limits
            .timeout_ms
            .map(|time| format!("{} of time", milliseconds(time))),
    );
    set.extend(
        limits
            .idle_ms
            .map(|time| format!("{} without output", milliseconds(time))),
    );
    set.extend(limits.memory.map(|memory| format!("{memory} of memory")));
    set.extend(limits.cpus.map(|cpus| format!("{cpus} CPUs")));
    set.extend(limits.pids.map(|pids| format!("{pids} processes")));
    set.extend(limits.file_size.map(|size| format!("{size} of one file")));
    set.extend(limits.open_files.map(|files| format!("{files} open files")));
    set.extend(
        limits
            .disk
            .map(|disk| format!("{disk} in the container's file system")),
    );
    set.extend(limits.log.map(|log| format!("{log} of log")));
    set
}

fn used(usage: &Usage) -> Vec<String> {
    let counts = [
        (usage.input_tokens, "tokens in"),
        (usage.output_tokens, "tokens out"),
        (usage.cache_read_tokens, "read from the cache"),
        (usage.cache_write_tokens, "written to the cache"),
        (usage.turns, "turns"),
    ];
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    let mut used: Vec<String> = counts
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    used.extend(
        usage
            .cost_usd
            .map(|cost| format!("${cost:.4} by the agent's own estimate")),
    );
    // Where it says the same as the agent, once is enough.
    let four = |cost: Option<f64>| cost.map(|cost| format!("${cost:.4}"));
    let listed =
        four(usage.priced_usd).filter(|listed| Some(listed) != four(usage.cost_usd).as_ref());
    used.extend(listed.map(|listed| format!("{listed} by list prices of {PRICES_DATE}")));
    used
}

fn claim(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Silent => None,
        Verdict::Success => {
            Some("That it has finished; it gave no completion report.\n".to_owned())
        }
        Verdict::Error { message, .. } => Some(format!("That it failed: {}\n", plain(message))),
        Verdict::Report { report } => Some(completion(report)),
    }
}

fn completion(report: &CompletionReport) -> String {
    let status = match &report.status {
        ReportStatus::Success => "success".to_owned(),
        ReportStatus::Partial => "partial".to_owned(),
        ReportStatus::Failed => "failed".to_owned(),
        ReportStatus::Other(word) => plain(word),
    };
    let mut lines = vec![fact("status", status)];
    if !report.summary.is_empty() {
        lines.push(fact("summary", plain(&report.summary)));
    }
    lines.extend(
        report
            .blockers
            .iter()
            .map(|blocker| fact("blocker", plain(blocker))),
    );
    if let Some(check) = &report.verification {
        let (command, code) = (plain(&check.command), check.exit_code);
        lines.push(fact("verification", format!("{command} returned {code}")));
    }
    let other = report.unknown.iter();
    lines.extend(other.map(|(name, json)| fact(&plain(name), plain(json))));
    list(lines)
}

/// Says in one line how much was changed; `None` if that is not known.
pub fn summary_of_changes(changes: &Changes) -> Option<String> {
    let files = changes.files?;
    let lines = match (changes.insertions, changes.deletions) {
        (Some(insertions), Some(deletions)) => format!(", +{insertions} −{deletions}"),
        _ => String::new(),
    };
    Some(match files {
        0 => "no files changed".to_owned(),
        1 => format!("1 file changed{lines}"),
        files => format!("{files} files changed{lines}"),
    })
}

fn changed(changes: &Changes, files: &[ChangedFile]) -> String {
    let summary = summary_of_changes(changes);
    let summary = summary.unwrap_or_else(|| "it is not known what was changed".to_owned());
    let mut text = match &changes.note {
        Some(note) => format!("{summary}: {}\n", plain(note)),
        None => format!("{summary}\n"),
    };
    if !files.is_empty() {
        text += "\n| added | removed | file |\n|---:|---:|---|\n";
        text += &list(files.iter().map(row));
        let more = changes
            .files
            .unwrap_or(0)
            .saturating_sub(files.len() as u64);
        if more > 0 {
            text = format!("{text}\nand {more} more, in changes.stat\n");
        }
    }
    text
}

fn row(file: &ChangedFile) -> String {
    let count =
        |count: Option<u64>| count.map_or_else(|| "binary".to_owned(), |count| count.to_string());
    let path = match &file.renamed_from {
        Some(old) => format!("{} → {}", plain(old), plain(&file.path)),
        None => plain(&file.path),
    };
    format!(
        "| {} | {} | {path} |",
        count(file.insertions),
        count(file.deletions)
    )
}

fn files(report: &Report, dir: &AttemptDir) -> Vec<String> {
    let mut files = vec![
        fact("folder", plain(&dir.path().display().to_string())),
        fact("run.log", "what it did, for people"),
        fact(
            "raw.jsonl",
            format!("its standard output, {} bytes", report.stdout_bytes),
        ),
        fact(
            "stderr.log",
            format!("its standard error, {} bytes", report.stderr_bytes),
        ),
        fact("events.jsonl", "what it did, for programs"),
        fact("launch.json", "what was started"),
        fact("report.json", "this report, for programs"),
    ];
    if report
        .changes
        .as_ref()
        .is_some_and(|changes| changes.patch.is_some())
    {
        files.push(fact(
            "changes.patch",
            "what it changed, as `git apply` takes it",
        ));
        files.push(fact("changes.stat", "lines added and removed in each file"));
    }
    if report.log == LogState::Incomplete {
        files.push(fact(
            "spool",
            "the record of what it printed, as far as there is one",
        ));
    }
    files
}

fn next(report: &Report) -> String {
    let run = report.attempt_id.run();
    let mut commands = vec![
        format!("    dark-factory inspect {run}"),
        format!("    dark-factory logs {run}"),
    ];
    if report.outcome != OutcomeKind::Succeeded {
        commands.push(format!("    dark-factory retry {run}"));
    }
    list(commands)
}

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn took(from: Timestamp, to: Timestamp) -> String {
    let milliseconds_between = to.duration_since(from).as_millis();
    milliseconds(u64::try_from(milliseconds_between).unwrap_or(0))
}

fn milliseconds(count: u64) -> String {
    let duration = SignedDuration::from_millis(i64::try_from(count).unwrap_or(i64::MAX));
    format!("{duration:#}")
}

/// Returns text as one line of Markdown that shows it and does nothing else.
fn plain(text: &str) -> String {
    let shown = neutralise(text);
    let mut plain = String::with_capacity(shown.len());
    for char in shown
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
    {
        match char {
            // In HTML a character reference is the one thing that no renderer takes for a tag.
            '<' => plain.push_str("&lt;"),
            '>' => plain.push_str("&gt;"),
            '&' => plain.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '#' | '|' | '~' | '$' | '@' | '!' => {
                plain.push('\\');
                plain.push(char);
            }
            _ => plain.push(char),
        }
    }
    // At the beginning of a line these make lists, headings and rules.
    let sign = plain.trim_start_matches(|char: char| char.is_ascii_digit());
    if sign.starts_with(['-', '+', '=', '.', ')']) {
        plain.insert(plain.len() - sign.len(), '\\');
    }
    // An address is a link wherever it stands.
    plain.replace("://", ":\\//").replace("www.", "www\\.")
}

#[cfg(test)]
mod tests;
