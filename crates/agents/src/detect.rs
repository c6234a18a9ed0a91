//! Whose stream it is, from its first lines.
//!
//! Owns: the shapes by which a stream is recognised.
//! Reads: the beginning of an output that nobody knows the origin of.
//! Never: decides by a word that other programs print too, or by what stands in front of the first known line.

use crate::agent::{Agent, agent};
use crate::json::{JsonKind, KeyMatch, Raw, fields, kind, string};

/// Returns the agent that printed an output of which these are the first bytes; `None` if no line of them is any
/// agent's, as with the output of a `command`.
///
/// The first line of a known shape decides. A last line that is cut short says nothing: bring enough for a whole one.
pub fn detect(head: &[u8]) -> Option<&'static dyn Agent> {
    let mut lines = head.split(|byte| *byte == b'\n');
    let name = lines.find_map(|line| name_of(std::str::from_utf8(line).ok()?.trim()))?;
    agent(name)
}

/// Returns the name of the agent that prints such a line.
fn name_of(line: &str) -> Option<&'static str> {
    if !line.starts_with('{') {
        return None;
    }
    let names = ["type", "subtype", "message", "item", "usage", "thread_id"];
    let [word, subtype, message, item, usage, thread] = fields(line, names, KeyMatch::Exact)?;
    let names = ["session_id", "model", "role", "tool_id", "status", "stats"];
    let [session, model, role, tool, status, stats] = fields(line, names, KeyMatch::Exact)?;
    let names = ["is_error", "error", "event", "rate_limit_info", "timestamp"];
    let [is_error, error, event, limits, time] = fields(line, names, KeyMatch::Exact)?;

    match string(word)?.text().as_ref() {
        "system" if is(subtype, JsonKind::String) && is(session, JsonKind::String) => {
            Some("claude")
        }
        "assistant" | "user" if is(message, JsonKind::Object) => Some("claude"),
        "result" if subtype.is_some() || is_error.is_some() => Some("claude"),
        "stream_event" if is(event, JsonKind::Object) => Some("claude"),
        "rate_limit_event" if is(limits, JsonKind::Object) => Some("claude"),
        "thread.started" if is(thread, JsonKind::String) => Some("codex"),
        "turn.started" => Some("codex"),
        "turn.completed" if is(usage, JsonKind::Object) => Some("codex"),
        "turn.failed" if is(error, JsonKind::Object) => Some("codex"),
        "item.started" | "item.updated" | "item.completed" if is(item, JsonKind::Object) => {
            Some("codex")
        }
        "init" if is(session, JsonKind::String) && is(model, JsonKind::String) => Some("gemini"),
        "message" if is(role, JsonKind::String) && is(time, JsonKind::String) => Some("gemini"),
        "tool_use" | "tool_result" if is(tool, JsonKind::String) => Some("gemini"),
        "result" if is(status, JsonKind::String) && is(stats, JsonKind::Object) => Some("gemini"),
        _ => None,
    }
}

fn is(value: Option<Raw<'_>>, expected: JsonKind) -> bool {
    value.is_some_and(|value| kind(value) == expected)
}
