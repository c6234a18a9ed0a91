//! What an agent's last words claim.
//!
//! Owns: the verdict of a turn that did not fail, with or without a completion report.
//! Reads: the final text.
//! Never: takes silence for a success.

use dark_factory_types::{ErrorClass, ReportStatus, Verdict};
use serde::{Deserialize, Serialize};

use crate::json::{JsonStr, clip};
use crate::report::{parse_completion_report, parse_cut_report};
use crate::sink::WORD_CAP;

/// The end of a final text in which a report is searched, in bytes.
const FINAL_CAP: usize = 512 << 10;

/// The end of a text.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FinalText {
    tail: String,
    is_cut: bool,
}

impl FinalText {
    /// Keeps the end of a text.
    pub(crate) fn of(text: JsonStr<'_>) -> Self {
        Self {
            tail: text.tail(FINAL_CAP),
            is_cut: text.len() > FINAL_CAP,
        }
    }

    /// Goes on with a text that comes in pieces.
    pub(crate) fn add(&mut self, piece: JsonStr<'_>) {
        self.is_cut |= piece.len() > FINAL_CAP;
        self.tail += &piece.tail(FINAL_CAP);
        // Not with each piece, which would copy all of it each time.
        if self.tail.len() > 2 * FINAL_CAP {
            self.is_cut = true;
            let from = self.tail.len() - FINAL_CAP;
            self.tail.drain(..self.tail.ceil_char_boundary(from));
        }
    }

    /// Returns the verdict of a report in the text.
    fn report(&self) -> Option<Verdict> {
        let report = if self.is_cut {
            parse_cut_report(&self.tail)
        } else {
            parse_completion_report(&self.tail)
        };
        Some(match report? {
            Ok(report) => Verdict::Report { report },
            Err(error) => Verdict::Error {
                class: ErrorClass::BadReport,
                message: error.to_string(),
            },
        })
    }

    pub(crate) fn is_blank(&self) -> bool {
        self.tail.trim().is_empty()
    }
}

/// Returns what a result that is no error claims: `result` is its text, `said` the agent's last words.
pub(crate) fn claimed(result: Option<&FinalText>, said: Option<&FinalText>) -> Verdict {
    let has_words = result.or(said).is_some_and(|text| !text.is_blank());
    let report = match result {
        Some(text) if !text.is_blank() => text.report(),
        _ => said.and_then(|text| text.report()),
    };
    match report {
        Some(verdict) => verdict,
        None if has_words => Verdict::Success,
        // The model gave no answer, not even after a nudge: that proves nothing.
        None => Verdict::Silent,
    }
}

/// Returns why a result that is no error is not a success either.
pub(crate) fn reason_of(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Silent => Some("no answer".to_owned()),
        Verdict::Report { report } => match &report.status {
            ReportStatus::Success => None,
            ReportStatus::Partial => Some("reported as partial".to_owned()),
            ReportStatus::Failed => Some("reported as failed".to_owned()),
            ReportStatus::Other(word) => Some(format!("reported as {}", clip(word, WORD_CAP))),
        },
        Verdict::Success | Verdict::Error { .. } => None,
    }
}
