//! What Codex does, item by item.
//!
//! Owns: the events of an item, and which of them are commands and changes.
//! Reads: the `item` of `item.started`, `item.updated` and `item.completed` lines.
//! Never: shows an item twice. Ids begin anew in each process, which is one run.

use std::collections::VecDeque;

use dark_factory_types::{EventKind, NoticeLevel, PlanItem, PlanState};
use serde::{Deserialize, Serialize};

use super::classify::{is_crippling, is_of_sandbox};
use crate::deeds::{Deed, Deeds};
use crate::json::{JsonKind, KeyMatch, Raw, boolean, each_element, fields, kind, string};
use crate::sink::{LineSink, TEXT_CAP, VALUE_CAP, word};
use crate::split::to_u64;
use crate::tool::tool_class;

/// The output of one command, in bytes.
const OUTPUT_CAP: usize = 16 << 10;
/// Calls without an end that are remembered.
const OPEN_CALLS: usize = 1024;
/// Files of one change that are named.
const FILES: usize = 64;
/// Items of a plan that are kept.
const PLAN: usize = 256;
/// The status of what was done, and of what Codex was not allowed to do.
const COMPLETED: &str = "completed";
const DECLINED: &str = "declined";

/// Whether an item's line is its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Begun,
    Done,
}

/// The items of a run so far.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Items {
    pub(super) deeds: Deeds,
    /// Ids of calls without an end.
    open: VecDeque<String>,
    /// The tool that was called last.
    pub(super) last_tool: Option<String>,
}

impl Items {
    /// Takes an item; `None` if it is not readable.
    pub(super) fn item(
        &mut self,
        item: Raw<'_>,
        phase: Phase,
        sink: &mut LineSink<'_>,
    ) -> Option<()> {
        let [id, item_type] = fields(item.get(), ["id", "type"], KeyMatch::Exact)?;
        let (id, item_type) = (word(id), word(item_type));
        match (item_type.as_str(), phase) {
            ("command_execution", _) => self.command(item, id, phase, sink),
            ("file_change", _) => self.change(item, id, phase, sink),
            ("mcp_tool_call", _) => {
                self.call(item, id, ["server", "tool", "arguments"], phase, sink)
            }
            ("collab_tool_call", _) => self.call(item, id, ["type", "tool", "prompt"], phase, sink),
            ("web_search", _) => self.call(item, id, ["", "type", "query"], phase, sink),
            ("reasoning", Phase::Done) => {
                let [text] = fields(item.get(), ["text"], KeyMatch::Exact)?;
                let text = sink.text(string(text), TEXT_CAP);
                sink.send(EventKind::Thinking { text });
                Some(())
            }
            ("todo_list", _) => plan(item, sink),
            ("error", Phase::Done) => {
                let [message] = fields(item.get(), ["message"], KeyMatch::Exact)?;
                let text = sink.text(string(message), VALUE_CAP);
                if is_crippling(&text) {
                    self.deeds.set_obstacle(text.clone());
                }
                sink.send(EventKind::Notice {
                    level: NoticeLevel::Warning,
                    text,
                });
                Some(())
            }
            (_, Phase::Begun) => Some(()),
            (_, Phase::Done) => {
                sink.unparsed(dark_factory_types::UnparsedReason::UnknownType {
                    name: format!("item {item_type}"),
                });
                Some(())
            }
        }
    }

    fn command(
        &mut self,
        item: Raw<'_>,
        id: String,
        phase: Phase,
        sink: &mut LineSink<'_>,
    ) -> Option<()> {
        let names = ["command", "aggregated_output", "exit_code", "status"];
        let [command, output, code, status] = fields(item.get(), names, KeyMatch::Exact)?;
        self.begin(&id, "shell", sink, |sink| {
            let command = sink.text(string(command), VALUE_CAP);
            serde_json::json!({ "command": command }).to_string()
        });
        if phase == Phase::Begun {
            return Some(());
        }
        // It is negative where the command was never started.
        let code = code.and_then(|code| code.get().parse::<i64>().ok());
        let status = word(status);
        let is_ok = code.unwrap_or(0) == 0 && status == COMPLETED;
        let output = string(output).unwrap_or_default();
        let len = output.len();
        let text = sink.text_of_length(output, OUTPUT_CAP, len);
        if !is_ok && is_of_sandbox(&text) {
            let mut lines = text.lines().map(str::trim);
            if let Some(line) = lines.find(|line| !line.is_empty()) {
                self.deeds.set_obstacle(line.to_owned());
            }
        }
        if status == DECLINED {
            self.deeds.add_obstacle(|| {
                let command = string(command).map(|command| command.head(VALUE_CAP));
                format!("declined: {}", command.unwrap_or_default())
            });
        }
        let answer = if is_ok { Ok(text) } else { Err(text) };
        self.deeds.count(Deed::of(&answer));
        self.end(id, "shell", answer, code, len, sink);
        Some(())
    }

    fn change(
        &mut self,
        item: Raw<'_>,
        id: String,
        phase: Phase,
        sink: &mut LineSink<'_>,
    ) -> Option<()> {
        let [changes, status] = fields(item.get(), ["changes", "status"], KeyMatch::Exact)?;
        let mut files = Vec::new();
        if let Some(changes) = changes {
            each_element(changes.get(), |change| {
                if let Some([path, op]) = fields(change.get(), ["path", "kind"], KeyMatch::Exact) {
                    files.push(format!(
                        "{} {}",
                        word(op),
                        sink.text(string(path), VALUE_CAP)
                    ));
                }
                files.len() < FILES
            });
        }
        let files = files.join(", ");
        self.begin(&id, "file_change", sink, |_| {
            serde_json::json!({ "path": files }).to_string()
        });
        if phase == Phase::Begun {
            return Some(());
        }
        let answer = if word(status) == COMPLETED {
            Ok(String::new())
        } else {
            self.deeds.add_obstacle(|| format!("could not {files}"));
            Err(format!("could not {files}"))
        };
        self.deeds.count(Deed::of(&answer));
        self.end(id, "file_change", answer, None, 0, sink);
        Some(())
    }

    /// Takes a call of another tool: the fields are its family, its name, and what it is about.
    ///
    /// It is no deed: such tools work also where no command and no change can.
    fn call(
        &mut self,
        item: Raw<'_>,
        id: String,
        names: [&str; 3],
        phase: Phase,
        sink: &mut LineSink<'_>,
    ) -> Option<()> {
        let [_, name, about] = fields(item.get(), names, KeyMatch::Exact)?;
        let [error, status] = fields(item.get(), ["error", "status"], KeyMatch::Exact)?;
        let name = word(name);
        self.begin(&id, &name, sink, |sink| match about {
            Some(about) if kind(about) == JsonKind::Object => {
                crate::claude::summarise(Some(about), sink)
            }
            about => {
                let about = sink.text(string(about), VALUE_CAP);
                serde_json::json!({ names[2]: about }).to_string()
            }
        });
        if phase == Phase::Begun {
            return Some(());
        }
        let [message] = error
            .and_then(|error| fields(error.get(), ["message"], KeyMatch::Exact))
            .unwrap_or([None]);
        let output = sink.text(string(message), VALUE_CAP);
        let len = output.len();
        let answer = if word(status) == "failed" {
            Err(output)
        } else {
            Ok(output)
        };
        self.end(id, &name, answer, None, len, sink);
        Some(())
    }

    /// Sends the beginning of a call, unless it was sent before.
    fn begin(
        &mut self,
        id: &str,
        name: &str,
        sink: &mut LineSink<'_>,
        input: impl FnOnce(&mut LineSink<'_>) -> String,
    ) {
        if self.open.iter().any(|open| open == id) {
            return;
        }
        if self.open.len() == OPEN_CALLS {
            self.open.pop_front();
        }
        self.open.push_back(id.to_owned());
        self.last_tool = Some(name.to_owned());
        let input = input(sink);
        sink.send(EventKind::ToolStart {
            id: id.to_owned(),
            name: name.to_owned(),
            class: tool_class(name),
            input,
        });
    }

    /// Sends the end of a call: what it answered, or how it failed.
    fn end(
        &mut self,
        id: String,
        name: &str,
        answer: Result<String, String>,
        exit_code: Option<i64>,
        len: usize,
        sink: &mut LineSink<'_>,
    ) {
        self.open.retain(|open| *open != id);
        let ok = answer.is_ok();
        let (Ok(output) | Err(output)) = answer;
        sink.send(EventKind::ToolEnd {
            id,
            name: name.to_owned(),
            ok,
            exit_code,
            output,
            output_len: to_u64(len),
            duration_ms: None,
        });
    }
}

/// Sends the plan as it is now.
fn plan(item: Raw<'_>, sink: &mut LineSink<'_>) -> Option<()> {
    let [list] = fields(item.get(), ["items"], KeyMatch::Exact)?;
    let mut items = Vec::new();
    each_element(list?.get(), |step| {
        if let Some([text, completed]) = fields(step.get(), ["text", "completed"], KeyMatch::Exact)
        {
            items.push(PlanItem {
                text: sink.text(string(text), VALUE_CAP),
                state: match boolean(completed) {
                    Some(true) => PlanState::Completed,
                    _ => PlanState::Pending,
                },
            });
        }
        items.len() < PLAN
    });
    sink.send(EventKind::Plan { items });
    Some(())
}
