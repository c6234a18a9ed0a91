//! Reads the JSON lines of Claude Code.
//!
//! Owns: what each kind of line means, the session, the open tool calls.
//! Reads: lines of standard output.
//! Never: relies on the order of keys or on a field being there, or decides what a result is worth.

use std::collections::VecDeque;

use dark_factory_types::{ErrorClass, EventKind, NoticeLevel, ToolClass, UnparsedReason, Verdict};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::classify::obstacle;
use super::line::{Block, Content, Fields, Line, Message, Reading};
use super::result::ResultBook;
use super::tools::{summarise, tool_output};
use crate::deeds::Deed;
use crate::json::{JsonStr, KeyMatch, boolean, each_element, fields, float, string, unsigned};
use crate::sink::{LineSink, TEXT_CAP, VALUE_CAP, optional_word, plain, read_object, word};
use crate::tool::tool_class;
use crate::transcript::{Conclusion, DecodedEvent, Decoder, DecoderLine};

/// How lines are read, and how many blocks of one message become events.
const READING: Reading = Reading {
    keys: KeyMatch::Exact,
    blocks: 1024,
};
/// Tool calls without an answer whose names are remembered.
const OPEN_CALLS: usize = 1024;

/// The state of one run's stream.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClaudeDecoder {
    conclusion: Conclusion,
    results: ResultBook,
    is_started: bool,
    /// Ids and names of tool calls without an answer.
    calls: VecDeque<(String, String)>,
}

impl Decoder for ClaudeDecoder {
    fn line(&mut self, line: DecoderLine<'_>, sink: &mut dyn FnMut(DecodedEvent)) {
        read_object(line, sink, |text, sink| self.object(text, sink));
    }

    fn conclusion(&self) -> Conclusion {
        Conclusion {
            verdict: self.verdict(),
            usage: self.results.usage(),
            denials: self.conclusion.denials.max(self.results.denials),
            ..self.conclusion.clone()
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

impl ClaudeDecoder {
    /// Returns the verdict; one for a used-up allowance says when it starts anew, if the provider did.
    fn verdict(&self) -> Verdict {
        let mut verdict = self.results.verdict.clone();
        if let Verdict::Error { class, message } = &mut verdict
            && matches!(class, ErrorClass::RateLimit | ErrorClass::UsageLimit)
            && let Some(reset) = self.conclusion.rate_limit_reset
        {
            // Its own words for that have no date.
            let words = message.split(" · resets ").next().unwrap_or(message);
            let words = words.trim_end_matches('.');
            *message = format!("{words} (starts anew at {reset})");
        }
        verdict
    }

    /// Takes a line that looks like an object; `None` if it is not readable.
    fn object(&mut self, text: &str, sink: &mut LineSink<'_>) -> Option<()> {
        let names = [
            "type",
            "subtype",
            "session_id",
            "parent_tool_use_id",
            "error",
            "api_error",
            "api_error_type",
            "api_error_status",
        ];
        let Line { fields, message } = READING.line(text, names)?;
        let [kind, subtype, session, parent, failure @ ..] = fields;
        let subtype = plain(subtype);
        sink.parent = optional_word(parent);
        let known = plain(kind);
        let is_init = known == "system" && subtype == "init";
        if (is_init || self.conclusion.session_id.is_none())
            && let Some(session) = optional_word(session)
        {
            self.conclusion.session_id = Some(session);
        }

        match &*known {
            "system" if is_init => self.init(text, sink),
            "system" => self.system(&subtype, text, sink),
            "assistant" => {
                if sink.parent.is_none() {
                    self.results.note_failure(failure);
                }
                self.message(message?, Speaker::Agent, sink)
            }
            "user" => self.message(message?, Speaker::Tools, sink),
            "result" => self.results.result(text, sink),
            "rate_limit_event" => self.rate_limit(text, sink),
            // Parts of messages, only with --include-partial-messages; each comes again as a whole.
            "stream_event" => Some(()),
            _ => {
                sink.unparsed(UnparsedReason::UnknownType { name: word(kind) });
                Some(())
            }
        }
    }

    fn init(&mut self, text: &str, sink: &mut LineSink<'_>) -> Option<()> {
        if self.is_started {
            sink.send(EventKind::Resumed);
            return Some(());
        }
        self.is_started = true;
        let [model, cwd, tools] = fields(text, ["model", "cwd", "tools"], KeyMatch::Exact)?;
        self.conclusion.model = optional_word(model);
        let mut count = 0;
        if let Some(tools) = tools {
            each_element(tools.get(), |_| {
                count += 1;
                true
            });
        }
        sink.send(EventKind::Started {
            session_id: self.conclusion.session_id.clone(),
            model: self.conclusion.model.clone(),
            cwd: string(cwd).map(|cwd| cwd.clip(VALUE_CAP)),
            tools: count,
        });
        Some(())
    }

    fn system(&mut self, subtype: &str, text: &str, sink: &mut LineSink<'_>) -> Option<()> {
        match subtype {
            "api_retry" => {
                let names = [
                    "attempt",
                    "max_retries",
                    "retry_delay_ms",
                    "error_status",
                    "error",
                ];
                let [attempt, most, delay, status, error] = fields(text, names, KeyMatch::Exact)?;
                sink.send(EventKind::Retry {
                    attempt: unsigned(attempt).unwrap_or(0),
                    max_attempts: unsigned(most).unwrap_or(0),
                    delay_ms: unsigned(delay).unwrap_or(0),
                    http_status: unsigned(status).and_then(|status| status.try_into().ok()),
                    reason: word(error),
                });
            }
            "permission_denied" => {
                let names = ["tool_name", "message"];
                let [tool, message] = fields(text, names, KeyMatch::Exact)?;
                self.conclusion.denials = self.conclusion.denials.saturating_add(1);
                let message = sink.text(string(message), VALUE_CAP);
                let tool = word(tool);
                let why = || format!("{tool} is not permitted: {message}");
                self.results.deeds.add_obstacle(why);
                sink.send(EventKind::Denied { tool, message });
            }
            "informational" => {
                let [content, level] = fields(text, ["content", "level"], KeyMatch::Exact)?;
                let level = match word(level).as_str() {
                    "error" => NoticeLevel::Error,
                    "warning" => NoticeLevel::Warning,
                    _ => NoticeLevel::Info,
                };
                let text = sink.text(string(content), VALUE_CAP);
                sink.send(EventKind::Notice { level, text });
            }
            "task_notification" => {
                let [status, summary] = fields(text, ["status", "summary"], KeyMatch::Exact)?;
                let summary = sink.text(string(summary), VALUE_CAP);
                sink.send(EventKind::Notice {
                    level: NoticeLevel::Info,
                    text: format!("background task {}: {summary}", word(status)),
                });
            }
            // There are well over a hundred; those that matter stand above.
            _ => {}
        }
        Some(())
    }

    fn message(
        &mut self,
        message: Message<'_>,
        speaker: Speaker,
        sink: &mut LineSink<'_>,
    ) -> Option<()> {
        let Message::Object { model, content } = message else {
            return None;
        };
        if self.conclusion.model.is_none() && speaker == Speaker::Agent {
            self.conclusion.model = optional_word(model).filter(|model| model != "<synthetic>");
        }
        let (blocks, left_out) = match content? {
            Content::Blocks { blocks, left_out } => (blocks, left_out),
            Content::Other(text) => {
                self.text(string(Some(text))?, speaker, sink);
                return Some(());
            }
        };
        for block in blocks {
            let read = match block {
                Block::Object(fields) => self.block(fields, speaker, sink),
                Block::Other(_) => None,
            };
            if read.is_none() {
                sink.unparsed(UnparsedReason::Malformed);
            }
        }
        if left_out > 0 {
            sink.send(EventKind::Notice {
                level: NoticeLevel::Warning,
                text: format!("{left_out} more blocks in this message"),
            });
        }
        Some(())
    }

    fn block(
        &mut self,
        block: Fields<'_>,
        speaker: Speaker,
        sink: &mut LineSink<'_>,
    ) -> Option<()> {
        match &*plain(block.kind) {
            "text" => self.text(string(block.text)?, speaker, sink),
            "thinking" => {
                let text = sink.text(string(block.thinking), TEXT_CAP);
                sink.send(EventKind::Thinking { text });
            }
            "tool_use" => {
                let (id, name) = (word(block.id), word(block.name));
                if self.calls.len() == OPEN_CALLS {
                    self.calls.pop_front();
                }
                self.calls.push_back((id.clone(), name.clone()));
                self.conclusion.last_tool = Some(name.clone());
                let input = summarise(block.input, sink);
                let class = tool_class(&name);
                sink.send(EventKind::ToolStart {
                    id,
                    name,
                    class,
                    input,
                });
            }
            "tool_result" => {
                let id = word(block.tool_use_id);
                let open = self.calls.iter().rposition(|(open, _)| *open == id);
                let name = open.and_then(|open| self.calls.remove(open));
                let name = name.map(|(_, name)| name).unwrap_or_default();
                let ok = boolean(block.is_error) != Some(true);
                let (output, output_len) = tool_output(block.content, sink);
                let deed = if ok { Deed::Worked } else { Deed::Failed };
                let exit_code = self.count(&name, deed, &output);
                sink.send(EventKind::ToolEnd {
                    id,
                    name,
                    ok,
                    exit_code,
                    output,
                    output_len,
                    duration_ms: None,
                });
            }
            _ => {}
        }
        Some(())
    }

    /// Counts what a command or a change came to; returns the exit code that the answer of a command begins with.
    fn count(&mut self, name: &str, deed: Deed, output: &str) -> Option<i64> {
        let class = tool_class(name);
        if !matches!(class, ToolClass::Shell | ToolClass::Write | ToolClass::Edit) {
            return None;
        }
        self.results.deeds.count(deed);
        if class != ToolClass::Shell {
            if let Some(why) = obstacle(output).filter(|_| deed == Deed::Failed) {
                self.results.deeds.add_obstacle(|| why);
            }
            return None;
        }
        let line = output.lines().next()?;
        line.strip_prefix("Exit code ")?.trim().parse().ok()
    }

    fn text(&mut self, text: JsonStr<'_>, speaker: Speaker, sink: &mut LineSink<'_>) {
        match speaker {
            Speaker::Agent => {
                if sink.parent.is_none() {
                    self.results.note_text(text);
                }
                let text = sink.text(Some(text), TEXT_CAP);
                if !text.trim().is_empty() {
                    sink.send(EventKind::Text { text });
                }
            }
            // What Claude Code itself tells the model: nudges, interruptions.
            Speaker::Tools => {
                let text = sink.text(Some(text), VALUE_CAP);
                sink.send(EventKind::Notice {
                    level: NoticeLevel::Info,
                    text,
                });
            }
        }
    }

    fn rate_limit(&mut self, text: &str, sink: &mut LineSink<'_>) -> Option<()> {
        let [info] = fields(text, ["rate_limit_info"], KeyMatch::Exact)?;
        let names = ["status", "rateLimitType", "utilization", "resetsAt"];
        let [status, window, used, resets] = fields(info?.get(), names, KeyMatch::Exact)?;
        let status = word(status);
        let resets_at = unsigned(resets)
            .filter(|seconds| *seconds > 0)
            .and_then(|seconds| Timestamp::from_second(seconds.try_into().ok()?).ok());
        if status == "rejected" {
            self.conclusion.rate_limit_reset = resets_at;
        }
        sink.send(EventKind::RateLimit {
            status,
            window: word(window),
            utilization: float(used),
            resets_at,
        });
        Some(())
    }
}

/// Whose message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaker {
    Agent,
    Tools,
}
