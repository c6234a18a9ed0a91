//! Reads the JSON lines of `gemini --output-format stream-json`.
//!
//! Owns: what each kind of line means, the session, the pieces of a message, the verdict, the usage.
//! Reads: lines of standard output.
//! Never: shows the echo of the prompt, or takes a result for a success after an error that nothing followed.
//!
//! A message comes in pieces, which are one text until another kind of line. Gemini CLI gives no cost.

use std::collections::VecDeque;

use dark_factory_types::{EventKind, NoticeLevel, ReportStatus, UnparsedReason, Usage, Verdict};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::classify::{Failure, failure};
use super::usage::of_stats;
use crate::claim::{FinalText, claimed, reason_of};
use crate::claude::summarise;
use crate::json::{JsonStr, KeyMatch, boolean, fields, string, unsigned};
use crate::sink::{LineSink, TEXT_CAP, VALUE_CAP, optional_word, read_object, word};
use crate::split::to_u64;
use crate::tool::tool_class;
use crate::transcript::{Conclusion, DecodedEvent, Decoder, DecoderLine};

/// The answer of one tool, in bytes.
const OUTPUT_CAP: usize = 16 << 10;
/// Tool calls without an answer whose names are remembered.
const OPEN_CALLS: usize = 1024;

/// The state of one run's stream.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GeminiDecoder {
    session: Option<String>,
    model: Option<String>,
    is_started: bool,
    verdict: Verdict,
    usage: Usage,
    results: u64,
    last_tool: Option<String>,
    /// Ids and names of tool calls without an answer.
    calls: VecDeque<(String, String)>,
    /// The part of the message that was not shown yet.
    unshown: String,
    /// The last message that has words.
    said: Option<FinalText>,
    /// Whether the next piece begins another message.
    is_message_over: bool,
    /// An error after which nothing else was done yet.
    trouble: Option<(NoticeLevel, String)>,
}

impl Decoder for GeminiDecoder {
    fn line(&mut self, line: DecoderLine<'_>, sink: &mut dyn FnMut(DecodedEvent)) {
        read_object(line, sink, |text, sink| self.object(text, sink));
    }

    fn end(&mut self, sink: &mut dyn FnMut(DecodedEvent)) {
        self.show(&mut LineSink::new(sink));
    }

    fn conclusion(&self) -> Conclusion {
        Conclusion {
            verdict: self.verdict.clone(),
            usage: self.usage,
            model: self.model.clone(),
            session_id: self.session.clone(),
            last_tool: self.last_tool.clone(),
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

impl GeminiDecoder {
    /// Takes a line that looks like an object; `None` if it is not readable.
    fn object(&mut self, text: &str, sink: &mut LineSink<'_>) -> Option<()> {
        let names = ["type", "role", "content", "delta"];
        let [kind, role, content, delta] = fields(text, names, KeyMatch::Exact)?;
        let kind = word(kind);
        if kind == "message" {
            return self.message(&word(role), string(content)?, boolean(delta), sink);
        }
        self.end_message(sink);
        match kind.as_str() {
            "init" => self.init(text, sink),
            "tool_use" => self.tool_use(text, sink),
            "tool_result" => self.tool_result(text, sink),
            "error" => self.error(text, sink),
            "result" => self.result(text, sink),
            _ => {
                sink.unparsed(UnparsedReason::UnknownType { name: kind });
                Some(())
            }
        }
    }

    fn init(&mut self, text: &str, sink: &mut LineSink<'_>) -> Option<()> {
        let [session, model] = fields(text, ["session_id", "model"], KeyMatch::Exact)?;
        if self.is_started {
            sink.send(EventKind::Resumed);
            return Some(());
        }
        self.is_started = true;
        self.session = optional_word(session);
        self.model = optional_word(model);
        sink.send(EventKind::Started {
            session_id: self.session.clone(),
            model: self.model.clone(),
            cwd: None,
            tools: 0,
        });
        Some(())
    }

    fn message(
        &mut self,
        role: &str,
        content: JsonStr<'_>,
        is_delta: Option<bool>,
        sink: &mut LineSink<'_>,
    ) -> Option<()> {
        if role != "assistant" {
            self.end_message(sink);
            return Some(());
        }
        let is_piece = is_delta == Some(true);
        if !is_piece {
            self.end_message(sink);
        }
        self.unless_cut_short();
        if self.is_message_over || self.said.is_none() {
            self.is_message_over = false;
            self.said = Some(FinalText::default());
        }
        if let Some(said) = &mut self.said {
            said.add(content);
        }
        let piece = sink.text(Some(content), TEXT_CAP);
        if self.unshown.len() + piece.len() > TEXT_CAP {
            self.show(sink);
        }
        self.unshown += &piece;
        if !is_piece {
            self.end_message(sink);
        }
        Some(())
    }

    /// Forgets a warning, as the agent went on after it.
    fn unless_cut_short(&mut self) {
        self.trouble
            .take_if(|(level, _)| *level == NoticeLevel::Warning);
    }

    /// Ends the message that the pieces so far belong to, and shows it.
    fn end_message(&mut self, sink: &mut LineSink<'_>) {
        self.show(sink);
        // Words that are none do not replace what was said before.
        self.is_message_over |= self.said.as_ref().is_some_and(|said| !said.is_blank());
    }

    fn show(&mut self, sink: &mut LineSink<'_>) {
        let text = std::mem::take(&mut self.unshown);
        if !text.trim().is_empty() {
            sink.send(EventKind::Text { text });
        }
    }

    fn tool_use(&mut self, text: &str, sink: &mut LineSink<'_>) -> Option<()> {
        let names = ["tool_name", "tool_id", "parameters"];
        let [name, id, parameters] = fields(text, names, KeyMatch::Exact)?;
        self.unless_cut_short();
        let (name, id) = (word(name), word(id));
        if self.calls.len() == OPEN_CALLS {
            self.calls.pop_front();
        }
        self.calls.push_back((id.clone(), name.clone()));
        self.last_tool = Some(name.clone());
        let input = summarise(parameters, sink);
        let class = tool_class(&name);
        sink.send(EventKind::ToolStart {
            id,
            name,
            class,
            input,
        });
        Some(())
    }

    fn tool_result(&mut self, text: &str, sink: &mut LineSink<'_>) -> Option<()> {
        let names = ["tool_id", "status", "output", "error"];
        let [id, status, output, error] = fields(text, names, KeyMatch::Exact)?;
        let id = word(id);
        let open = self.calls.iter().rposition(|(open, _)| *open == id);
        let name = open.and_then(|open| self.calls.remove(open));
        let message = error
            .and_then(|error| fields(error.get(), ["message"], KeyMatch::Exact))
            .and_then(|[message]| string(message));
        let answer = message.or_else(|| string(output));
        let output_len = to_u64(answer.map_or(0, JsonStr::len));
        let output = sink.text(answer, OUTPUT_CAP);
        sink.send(EventKind::ToolEnd {
            id,
            name: name.map(|(_, name)| name).unwrap_or_default(),
            // Also a command with another exit code than 0 is a success to Gemini CLI, which does not say the code.
            ok: word(status) == "success",
            exit_code: None,
            output,
            output_len,
            duration_ms: None,
        });
        Some(())
    }

    fn error(&mut self, text: &str, sink: &mut LineSink<'_>) -> Option<()> {
        let [severity, message] = fields(text, ["severity", "message"], KeyMatch::Exact)?;
        let level = match word(severity).as_str() {
            "warning" => NoticeLevel::Warning,
            _ => NoticeLevel::Error,
        };
        let text = sink.text(string(message), VALUE_CAP);
        self.trouble = Some((level, text.clone()));
        sink.send(EventKind::Notice { level, text });
        Some(())
    }

    fn result(&mut self, text: &str, sink: &mut LineSink<'_>) -> Option<()> {
        let names = ["status", "error", "stats"];
        let [status, error, stats] = fields(text, names, KeyMatch::Exact)?;
        let trouble = self.trouble.take().map(|(_, message)| message);
        let message = error
            .and_then(|error| fields(error.get(), ["message"], KeyMatch::Exact))
            .and_then(|[message]| string(message))
            .map(|message| message.head(VALUE_CAP));
        let has_failed = word(status) != "success" || error.is_some();
        let verdict = if has_failed {
            failed(&message.or(trouble).unwrap_or_default())
        } else {
            match trouble {
                Some(trouble) => failed(&trouble),
                None => claimed(None, self.said.as_ref()),
            }
        };

        self.results = self.results.saturating_add(1);
        if let Some(usage) = stats.and_then(of_stats) {
            self.usage = usage;
        }
        self.usage.turns = self.results;
        let [duration] = stats
            .and_then(|stats| fields(stats.get(), ["duration_ms"], KeyMatch::Exact))
            .unwrap_or_default();
        self.send_turn(&verdict, unsigned(duration), sink);
        self.verdict = verdict;
        Some(())
    }

    fn send_turn(&self, verdict: &Verdict, duration_ms: Option<u64>, sink: &mut LineSink<'_>) {
        let (ok, class, text) = match verdict {
            Verdict::Success => (true, None, String::new()),
            Verdict::Report { report } => {
                (report.status == ReportStatus::Success, None, String::new())
            }
            Verdict::Silent => (false, None, String::new()),
            Verdict::Error { class, message } => (false, Some(*class), message.clone()),
        };
        let reason = match class {
            Some(_) => "failed".to_owned(),
            None => reason_of(verdict).unwrap_or_else(|| "completed".to_owned()),
        };
        sink.send(EventKind::TurnEnd {
            ok,
            class,
            reason,
            text,
            duration_ms,
            cost_usd: None,
            usage: self.usage,
        });
    }
}

fn failed(message: &str) -> Verdict {
    let Failure { class, message } = failure(message);
    Verdict::Error { class, message }
}
