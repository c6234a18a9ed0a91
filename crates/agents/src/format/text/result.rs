//! The block that ends a turn: how it came out, what it cost, what the agent reports.
//!
//! Owns: those lines, and the last completion report until then.
//! Reads: the event, and the texts before it.
//! Never: decides an outcome.

use anstyle::Style;
use dark_factory_types::{CompletionReport, ErrorClass, ReportStatus, Usage};
use serde::{Deserialize, Serialize};

use super::page::Page;
use super::words::{count, failure, seconds};
use super::{DIM, GREEN, RED, YELLOW};
use crate::json::clip;
use crate::prices::cost_text;
use crate::report::{REPORT_END, REPORT_START, parse_completion_report};

/// Blockers that are shown.
const BLOCKERS: usize = 8;
/// Bytes of a summary or blocker that are shown.
const SENTENCE: usize = 2 << 10;

/// What people see of a completion report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Said {
    status: String,
    summary: String,
    blockers: Vec<String>,
    verification: Option<(String, i64)>,
}

impl Said {
    fn of(report: CompletionReport) -> Self {
        let sentence = |text: &str| clip(text.trim(), SENTENCE);
        Self {
            status: match report.status {
                ReportStatus::Success => "success".to_owned(),
                ReportStatus::Partial => "partial".to_owned(),
                ReportStatus::Failed => "failed".to_owned(),
                ReportStatus::Other(word) => clip(&word, 64),
            },
            summary: sentence(&report.summary),
            blockers: report
                .blockers
                .iter()
                .take(BLOCKERS)
                .map(|blocker| sentence(blocker))
                .collect(),
            verification: report
                .verification
                .map(|done| (sentence(&done.command), done.exit_code)),
        }
    }

    /// Takes the report out of a text; `None` if there is none that can be read.
    pub(super) fn take(text: &str) -> Option<(String, Self)> {
        if !text.contains(REPORT_START) {
            return None;
        }
        let report = parse_completion_report(text)?.ok()?;
        let start = text.rfind(REPORT_START)?;
        let end = start + text[start..].find(REPORT_END)? + REPORT_END.len();
        let rest = format!("{}{}", text[..start].trim_end(), &text[end..]);
        Some((rest, Self::of(report)))
    }

    /// Writes the report; `failure` is that of the turn, which a claim of success cannot undo.
    fn write(&self, page: &mut Page<'_>, failure: Option<ErrorClass>) {
        let (style, head) = match (self.status.as_str(), failure) {
            ("success", None) => (GREEN, "report"),
            ("success", Some(_)) => (YELLOW, "report (not believed)"),
            _ => (YELLOW, "report"),
        };
        let summary = match self.summary.as_str() {
            "" => String::new(),
            summary => format!(": {summary}"),
        };
        page.whole(style, &format!("  {head}: {}{summary}", self.status));
        for blocker in &self.blockers {
            page.whole(YELLOW, &format!("  blocker: {blocker}"));
        }
        if let Some((command, code)) = &self.verification {
            let style = if *code == 0 { DIM } else { YELLOW };
            page.whole(style, &format!("  verified: {command} (exit {code})"));
        }
    }
}

/// How a turn ended.
pub(super) struct End<'e> {
    pub(super) ok: &'e bool,
    pub(super) class: Option<ErrorClass>,
    pub(super) reason: &'e str,
    /// The result, or why it failed; empty if that was just shown.
    pub(super) text: &'e str,
    pub(super) duration_ms: Option<u64>,
    pub(super) cost_usd: Option<f64>,
    pub(super) usage: &'e Usage,
}

impl End<'_> {
    /// Writes the block; `said` is the report of the last words.
    pub(super) fn write(&self, page: &mut Page<'_>, said: Option<&Said>) {
        let (style, head) = match (self.ok, self.class) {
            (true, _) => (GREEN, "✓ done".to_owned()),
            (false, Some(class)) if self.text.is_empty() => (RED, format!("✗ {}", failure(class))),
            (false, Some(class)) => (RED, format!("✗ {}: {}", failure(class), self.text)),
            (false, None) => (RED, format!("✗ {}", self.reason)),
        };
        page.whole(style.bold(), &head);
        if let Some(said) = said {
            said.write(page, self.class);
        }
        let totals = self.totals();
        if !totals.is_empty() {
            page.whole(DIM, &format!("  {}", totals.join(" · ")));
        }
    }

    fn totals(&self) -> Vec<String> {
        let usage = self.usage;
        let mut totals = Vec::new();
        totals.extend(self.duration_ms.map(seconds));
        match usage.turns {
            0 => {}
            1 => totals.push("1 turn".to_owned()),
            turns => totals.push(format!("{turns} turns")),
        }
        let cost_usd = self.cost_usd;
        let costs = [cost_usd, usage.priced_usd];
        if usage.total_tokens() > 0 || costs.into_iter().flatten().any(|cost| cost > 0.0) {
            totals.extend(cost_text(&Usage { cost_usd, ..*usage }));
        }
        if usage.total_tokens() > 0 {
            let input = usage.input_tokens.saturating_add(usage.cache_write_tokens);
            let reasoning = match usage.reasoning_tokens {
                0 => String::new(),
                tokens => format!(" ({} reasoning)", count(tokens)),
            };
            totals.push(format!(
                "{} tokens in, {} out{reasoning}, {} cached",
                count(input),
                count(usage.output_tokens),
                count(usage.cache_read_tokens),
            ));
        }
        totals
    }
}

/// Writes a result's text that was not said before.
pub(super) fn words(page: &mut Page<'_>, text: &str) {
    page.block(Style::new(), text.trim_end());
}
