//! Reads the JSON lines of `codex exec --json`.
//!
//! Owns: what each kind of line means, the session, the verdict, the usage.
//! Reads: lines of standard output.
//! Never: takes a turn that is complete for one that did something; see `items`.
//!
//! Codex gives no cost and no model. The usage of a turn counts the whole thread, so the last one is the run's.

use dark_factory_types::{ErrorClass, EventKind, ReportStatus, UnparsedReason, Usage, Verdict};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::classify::{classify, http_status, retry};
use super::items::{Items, Phase};
use crate::claim::{FinalText, claimed, reason_of};
use crate::json::{JsonStr, KeyMatch, Raw, clip, fields, string, unsigned};
use crate::sink::{LineSink, TEXT_CAP, VALUE_CAP, WORD_CAP, optional_word, read_object, word};
use crate::transcript::{Conclusion, DecodedEvent, Decoder, DecoderLine};

/// The most tokens that are believed: beyond it a sum could overflow.
const MOST: u64 = 1 << 53;

/// The state of one run's stream.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CodexDecoder {
    session: Option<String>,
    verdict: Verdict,
    /// An error after which no turn ended; it may still be got over.
    error: Option<String>,
    usage: Usage,
    items: Items,
    last_text: Option<FinalText>,
}

impl Decoder for CodexDecoder {
    fn line(&mut self, line: DecoderLine<'_>, sink: &mut dyn FnMut(DecodedEvent)) {
        read_object(line, sink, |text, sink| self.object(text, sink));
    }

    fn conclusion(&self) -> Conclusion {
        let verdict = match (&self.verdict, &self.error) {
            (Verdict::Silent, Some(message)) => failure(message),
            (verdict, _) => verdict.clone(),
        };
        Conclusion {
            verdict,
            usage: self.usage,
            session_id: self.session.clone(),
            last_tool: self.items.last_tool.clone(),
            ..Conclusion::default()
        }
    }

    fn save(&self) -> serde_json::Result<Box<RawValue>> {
        to_raw_value(self)
    }

    fn restore(&mut self, saved: &RawValue) -> serde_json::Result<()> {
        *self = serde_json::from_str(saved.get())?;
        Ok(())
    }
}

impl CodexDecoder {
    /// Takes a line that looks like an object; `None` if it is not readable.
    fn object(&mut self, text: &str, sink: &mut LineSink<'_>) -> Option<()> {
        let names = ["type", "thread_id", "item", "message", "usage", "error"];
        let [kind, thread, item, message, usage, error] = fields(text, names, KeyMatch::Exact)?;
        let kind = word(kind);
        match kind.as_str() {
            "thread.started" => {
                self.session = optional_word(thread);
                sink.send(EventKind::Started {
                    session_id: self.session.clone(),
                    model: None,
                    cwd: None,
                    tools: 0,
                });
                Some(())
            }
            "turn.started" => Some(()),
            "item.started" | "item.updated" => self.items.item(item?, Phase::Begun, sink),
            "item.completed" => self.completed(item?, sink),
            "error" => {
                self.trouble(string(message)?, sink);
                Some(())
            }
            "turn.completed" => {
                self.turn_completed(usage, sink);
                Some(())
            }
            "turn.failed" => {
                let [message] = fields(error?.get(), ["message"], KeyMatch::Exact)?;
                let verdict = failure(
                    &string(message)
                        .map(|text| text.head(VALUE_CAP))
                        .unwrap_or_default(),
                );
                self.end_turn(verdict, sink);
                Some(())
            }
            _ => {
                sink.unparsed(UnparsedReason::UnknownType { name: kind });
                Some(())
            }
        }
    }

    fn completed(&mut self, item: Raw<'_>, sink: &mut LineSink<'_>) -> Option<()> {
        let [kind, text] = fields(item.get(), ["type", "text"], KeyMatch::Exact)?;
        if word(kind) != "agent_message" {
            return self.items.item(item, Phase::Done, sink);
        }
        let text = string(text)?;
        self.last_text = Some(FinalText::of(text));
        let text = sink.text(Some(text), TEXT_CAP);
        if !text.trim().is_empty() {
            sink.send(EventKind::Text { text });
        }
        Some(())
    }

    /// Takes an error that is not yet the end: a retry, or what a failed turn will repeat.
    fn trouble(&mut self, message: JsonStr<'_>, sink: &mut LineSink<'_>) {
        let message = sink.text(Some(message), VALUE_CAP);
        match retry(&message) {
            Some((attempt, max_attempts, why)) => {
                let status = http_status(why);
                sink.send(EventKind::Retry {
                    attempt,
                    max_attempts,
                    delay_ms: 0,
                    http_status: status.map(|(status, _)| status),
                    reason: clip(status.map_or(why, |(_, rest)| rest), WORD_CAP),
                });
            }
            None => self.error = Some(message),
        }
    }

    fn turn_completed(&mut self, usage: Option<Raw<'_>>, sink: &mut LineSink<'_>) {
        self.usage.turns = self.usage.turns.saturating_add(1).min(MOST);
        if let Some(usage) = usage.and_then(tokens) {
            self.usage = Usage {
                turns: self.usage.turns,
                ..usage
            };
        }
        let said = self.last_text.take();
        let claim = claimed(None, said.as_ref());
        let verdict = match self.items.deeds.belie(&claim, "Codex") {
            Some(message) => Verdict::Error {
                class: ErrorClass::Internal,
                message,
            },
            None => claim,
        };
        self.end_turn(verdict, sink);
    }

    fn end_turn(&mut self, verdict: Verdict, sink: &mut LineSink<'_>) {
        let (ok, class, text) = match &verdict {
            Verdict::Success => (true, None, String::new()),
            Verdict::Report { report } => {
                (report.status == ReportStatus::Success, None, String::new())
            }
            Verdict::Silent => (false, None, String::new()),
            Verdict::Error { class, message } => (false, Some(*class), message.clone()),
        };
        let reason = match class {
            Some(_) => "failed".to_owned(),
            None => reason_of(&verdict).unwrap_or_else(|| "completed".to_owned()),
        };
        sink.send(EventKind::TurnEnd {
            ok,
            class,
            reason,
            text,
            duration_ms: None,
            cost_usd: None,
            usage: self.usage,
        });
        self.error = None;
        self.verdict = verdict;
    }
}

/// Makes the verdict of an error message.
fn failure(message: &str) -> Verdict {
    let words: Vec<&str> = message.split_whitespace().collect();
    let message = if words.is_empty() {
        "it does not say why".to_owned()
    } else {
        clip(&words.join(" "), 2 * WORD_CAP)
    };
    Verdict::Error {
        class: classify(&message),
        message,
    }
}

/// Reads a usage. Its input includes what was read from and written to the cache, its output the reasoning.
fn tokens(usage: Raw<'_>) -> Option<Usage> {
    let names = [
        "input_tokens",
        "cached_input_tokens",
        "cache_write_input_tokens",
        "output_tokens",
        "reasoning_output_tokens",
    ];
    let counts = fields(usage.get(), names, KeyMatch::Exact)?;
    let [input, read, written, output, reasoning] =
        counts.map(|count| unsigned(count).unwrap_or(0).min(MOST));
    Some(Usage {
        input_tokens: input.saturating_sub(read).saturating_sub(written),
        output_tokens: output,
        cache_read_tokens: read,
        cache_write_tokens: written,
        reasoning_tokens: reasoning,
        ..Usage::default()
    })
}
