//! What is said about a run while it goes on, and when it ends.
//!
//! Owns: the lines about a run, for people and for programs.
//! Reads: progress and reports.
//! Never: holds up the task that drives a run.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dark_factory_agents::{cost_text, neutralise};
use dark_factory_executor::attempt::Progress;
use dark_factory_executor::report_md::summary_of_changes;
use dark_factory_executor::store::AttemptState;
use dark_factory_types::{LogState, OutcomeKind, Report};

use super::{Format, cause, engine_silent, human_seconds, seconds, summary};
use crate::live::Line;
use crate::tell::{self, Subject};
use crate::terminal;

/// Says that there is no room for what the agent prints.
const DISK_FULL: &str = "the disk is full: the agent is paused until there is room";

/// How much of a run's progress is told.
#[derive(Debug, Clone)]
pub(crate) enum Detail {
    /// What its user may have to act on.
    Needed,
    /// Pulls of this image too, and on a terminal also where the run stands.
    All {
        image: String,
        line: Option<Arc<Line>>,
    },
}

/// Returns what tells of progress: one line for each change that lasts.
pub(crate) fn progress(subject: Subject, detail: Detail) -> impl Fn(Progress) + Send + Sync {
    let pulls = AtomicBool::new(false);
    move |progress| {
        let mut image = None;
        if let Detail::All { line, image: name } = &detail {
            image = Some(name);
            if let Some(line) = line {
                line.tell(&progress);
            }
        }
        let text = match (progress, image) {
            (Progress::Pull(_), Some(image)) if !pulls.swap(true, Ordering::Relaxed) => {
                format!("pulling {image}")
            }
            (Progress::Entered(AttemptState::Creating), Some(image))
                if pulls.load(Ordering::Relaxed) =>
            {
                format!("pulled {image}")
            }
            (Progress::Stopping(why), _) => format!("stopping: {why}"),
            (Progress::EngineSilent(why), _) => engine_silent(&why),
            (Progress::EngineBack, _) => "the engine answers again".to_owned(),
            (Progress::Paused, _) => "paused".to_owned(),
            (Progress::Resumed, _) => "resumed".to_owned(),
            (Progress::DiskFull, _) => DISK_FULL.to_owned(),
            (Progress::DiskRoom, _) => "there is room on the disk again".to_owned(),
            (
                Progress::Entered(_)
                | Progress::Pull(_)
                | Progress::Pulled(_)
                | Progress::Started { .. },
                _,
            ) => return,
        };
        tell::about(&subject, &text);
    }
}

/// Prints how a run ended, behind everything else about it; `name` is what its user calls the prompt file.
pub(crate) async fn ended(name: &str, prefix: &str, report: &Report, dir: &Path, format: Format) {
    match format {
        Format::Json => terminal::say_json(&summary(report, dir)).await,
        Format::Text => terminal::say(format!("{prefix}{}", last_words(name, report, dir))).await,
    }
}

/// The lines that end a run on a terminal.
fn last_words(name: &str, report: &Report, dir: &Path) -> String {
    let mark = if report.outcome == OutcomeKind::Succeeded {
        "✔"
    } else {
        "✘"
    };
    let mut facts = Vec::new();
    facts.extend(seconds(report).map(human_seconds));
    if report.usage.total_tokens() > 0 {
        facts.push(format!("{} tokens", report.usage.total_tokens()));
    }
    facts.extend(cost_text(&report.usage));
    facts.extend(report.peak_memory.map(|peak| format!("peak {peak}")));
    facts.extend(report.changes.as_ref().and_then(summary_of_changes));
    if report.outcome != OutcomeKind::Succeeded {
        let tool = report.last_tool.as_deref();
        facts.extend(tool.map(|tool| format!("last tool {tool}")));
    }
    if report.log != LogState::Complete {
        facts.push("log incomplete".to_owned());
    }
    let mut text = format!("{mark} {name}: {}: {}\n", report.outcome, cause(report));
    if !facts.is_empty() {
        text = format!("{text}  {}\n", facts.join(", "));
    }
    for warning in &report.warnings {
        text = format!("{text}  warning: {warning}\n");
    }
    neutralise(&format!("{text}  {}\n", dir.display())).into_owned()
}
