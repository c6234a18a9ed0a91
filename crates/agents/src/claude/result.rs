//! What the results of a run amount to.
//!
//! Owns: the verdict and the usage, over several results.
//! Reads: `result` lines, and what the agent said and what failed before them.
//! Never: takes a doubt for a success. `subtype` may say `success` of a failure: `is_error` rules.

use dark_factory_types::{ErrorClass, EventKind, ReportStatus, Usage, Verdict};
use serde::{Deserialize, Serialize};

use super::classify::{Evidence, classify, is_failed_result};
use super::usage::{ResultUsage, UsageBook};
use crate::claim::{FinalText, claimed, reason_of};
use crate::deeds::Deeds;
use crate::json::{
    JsonStr, KeyMatch, Raw, boolean, clip, each_element, fields, float, string, unsigned,
};
use crate::sink::{LineSink, TEXT_CAP, VALUE_CAP, WORD_CAP, optional_word, word};

/// How what Claude Code says of itself, to its makers, begins.
const DIAGNOSTIC: &str = "[ede_diagnostic]";

/// The message of a failure without one.
const UNSAID: &str = "it does not say why";

/// The results of a run so far.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResultBook {
    pub(super) verdict: Verdict,
    /// Calls that were not permitted, as the results say.
    pub(super) denials: u64,
    /// What came of commands and changes, those of subagents too.
    pub(super) deeds: Deeds,
    usage: UsageBook,
    best_index: Option<u64>,
    /// The last verdict that came from a report; a later turn without one does not undo it.
    reported: Option<Verdict>,
    /// The last text of the agent itself, in this turn.
    last_text: Option<FinalText>,
    /// What the last failed request of the agent itself said, in this turn.
    failure: Evidence,
}

impl ResultBook {
    /// Returns the usage of all results so far.
    pub(super) fn usage(&self) -> Usage {
        self.usage.total()
    }

    /// Remembers the agent's last words, for a result without a text.
    pub(super) fn note_text(&mut self, text: JsonStr<'_>) {
        self.last_text = Some(FinalText::of(text));
    }

    /// Remembers what a message of the agent itself says about a failed request: `error`, `api_error`,
    /// `api_error_type` and `api_error_status`.
    pub(super) fn note_failure(
        &mut self,
        [error, api_error, api_type, status]: [Option<Raw<'_>>; 4],
    ) {
        let error = word(error);
        if !error.is_empty() {
            self.failure = Evidence {
                error,
                api_error: word(api_error),
                api_error_type: word(api_type),
                http_status: unsigned(status),
                ..Evidence::default()
            };
        }
    }

    /// Takes a result line; `None` if it is not readable.
    pub(super) fn result(&mut self, text: &str, sink: &mut LineSink<'_>) -> Option<()> {
        let names = [
            "subtype",
            "is_error",
            "terminal_reason",
            "stop_reason",
            "result",
            "errors",
            "result_index",
            "duration_ms",
            "num_turns",
            "total_cost_usd",
            "permission_denials",
        ];
        let [
            subtype,
            is_error,
            terminal,
            stop,
            result,
            errors,
            index,
            duration,
            turns,
            cost,
            denials,
        ] = fields(text, names, KeyMatch::Exact)?;
        let names = [
            "usage",
            "modelUsage",
            "model_usage_since_last_result",
            "api_error",
            "api_error_type",
            "api_error_status",
        ];
        let [usage, models, since_last, api_error, api_type, status] =
            fields(text, names, KeyMatch::Exact)?;

        let subtype = word(subtype);
        let stop = word(stop);
        let index = unsigned(index);
        let failed = match is_error {
            Some(value) => boolean(Some(value)) != Some(false) || subtype.starts_with("error"),
            None => subtype != "success",
        };
        let said = self.last_text.take();
        let failure = std::mem::take(&mut self.failure);
        let failed =
            failed || string(result).is_some_and(|text| is_failed_result(&text.head(WORD_CAP)));
        let verdict = if failed || stop == "refusal" {
            let message = failure_message(result, errors, &subtype);
            let evidence = Evidence {
                terminal_reason: word(terminal),
                subtype: subtype.clone(),
                stop_reason: stop,
                api_error: optional_word(api_error).unwrap_or(failure.api_error),
                error: failure.error,
                api_error_type: optional_word(api_type).unwrap_or(failure.api_error_type),
                http_status: unsigned(status).or(failure.http_status),
                message: message.clone(),
            };
            let class = classify(&evidence);
            // `error_during_execution` says less than the class then.
            let is_unsaid = class == ErrorClass::Interrupted && message == subtype;
            Verdict::Error {
                class,
                message: if is_unsaid {
                    UNSAID.to_owned()
                } else {
                    message
                },
            }
        } else {
            let claim = claimed(string(result).map(FinalText::of).as_ref(), said.as_ref());
            match self.deeds.belie(&claim, "Claude Code") {
                Some(message) => Verdict::Error {
                    class: ErrorClass::Internal,
                    message,
                },
                None => claim,
            }
        };

        let usage = self.usage.book(ResultUsage {
            index,
            turns: unsigned(turns),
            usage,
            model_usage: models,
            since_last,
            total_cost: float(cost),
        });
        self.count_denials(denials);
        let reason = reason_of(&verdict).or(optional_word(terminal));
        let reason = reason.unwrap_or(subtype);
        self.send_turn(
            &verdict,
            reason,
            string(result),
            unsigned(duration),
            usage,
            sink,
        );
        self.conclude(verdict, index);
        Some(())
    }

    fn send_turn(
        &self,
        verdict: &Verdict,
        reason: String,
        result: Option<JsonStr<'_>>,
        duration_ms: Option<u64>,
        usage: Usage,
        sink: &mut LineSink<'_>,
    ) {
        let class = match verdict {
            Verdict::Error { class, .. } => Some(*class),
            Verdict::Silent | Verdict::Success | Verdict::Report { .. } => None,
        };
        let text = match verdict {
            Verdict::Error { message, .. } if message == UNSAID => String::new(),
            Verdict::Error { message, .. } => message.clone(),
            Verdict::Silent | Verdict::Success | Verdict::Report { .. } => {
                sink.text(result, TEXT_CAP)
            }
        };
        sink.send(EventKind::TurnEnd {
            ok: match verdict {
                Verdict::Success => true,
                Verdict::Report { report } => report.status == ReportStatus::Success,
                Verdict::Silent | Verdict::Error { .. } => false,
            },
            class,
            reason,
            text,
            duration_ms,
            cost_usd: usage.cost_usd,
            usage,
        });
    }

    /// Makes the verdict of a result the run's, unless a later result was seen.
    fn conclude(&mut self, verdict: Verdict, index: Option<u64>) {
        let is_older = matches!((index, self.best_index), (Some(new), Some(best)) if new < best);
        let is_report = matches!(
            verdict,
            Verdict::Report { .. }
                | Verdict::Error {
                    class: ErrorClass::BadReport,
                    ..
                }
        );
        if is_report && !is_older {
            self.reported = Some(verdict.clone());
        }
        if is_older {
            return;
        }
        self.best_index = index.or(self.best_index);
        self.verdict = match verdict {
            Verdict::Success | Verdict::Silent => self.reported.clone().unwrap_or(verdict),
            Verdict::Error { .. } | Verdict::Report { .. } => verdict,
        };
    }

    fn count_denials(&mut self, denials: Option<Raw<'_>>) {
        let mut count = 0;
        if let Some(denials) = denials {
            each_element(denials.get(), |_| {
                count += 1;
                true
            });
        }
        self.denials = self.denials.max(count);
    }
}

/// Returns the message of a failed result, one line.
fn failure_message(result: Option<Raw<'_>>, errors: Option<Raw<'_>>, subtype: &str) -> String {
    let mut message = string(result)
        .map(|text| text.head(VALUE_CAP))
        .unwrap_or_default();
    if let Some(errors) = errors.filter(|_| message.trim().is_empty()) {
        message.clear();
        each_element(errors.get(), |error| {
            let error = string(Some(error)).map(|error| error.head(VALUE_CAP));
            if let Some(error) = error.filter(|error| !error.starts_with(DIAGNOSTIC)) {
                let separator = if message.is_empty() { "" } else { "; " };
                message.push_str(separator);
                message.push_str(&error);
            }
            message.len() < VALUE_CAP
        });
    }
    if message.trim().is_empty() {
        message = subtype.to_owned();
    }
    let words: Vec<&str> = message.split_whitespace().collect();
    if words.is_empty() {
        return UNSAID.to_owned();
    }
    clip(&words.join(" "), 2 * WORD_CAP)
}
