//! What an agent did, one event at a time, the same for every agent.
//!
//! Owns: the event and its kinds, as they are handed to sinks and written to disk.
//! Reads: nothing.
//! Never: decodes a stream; see the `dark-factory-agents` crate.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{ErrorClass, Usage};

/// Which of the agent's two streams a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventStream {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
}

/// One thing that an agent did or said.
///
/// Long texts are shortened; the whole line is in the raw log at `offset`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Number of the event in its transcript, counted from 0 without gaps.
    pub seq: u64,
    /// When the last byte of the line was read.
    pub at: Timestamp,
    /// The stream that the line came from.
    pub stream: EventStream,
    /// Offset of the line's first byte in its stream.
    pub offset: u64,
    /// Length of the line in bytes, without its line end. Several events may come from one line.
    pub len: u64,
    /// The id of the tool call that started the subagent which did this; `None` for the agent itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
#[non_exhaustive]
pub enum EventKind {
    /// The agent's session began.
    Started {
        /// The agent's own conversation id.
        session_id: Option<String>,
        /// The model, as the agent says it.
        model: Option<String>,
        /// The agent's working directory.
        cwd: Option<String>,
        /// How many tools it has.
        tools: u64,
    },
    /// The same session began another turn by itself, for example because a background task ended.
    Resumed,
    /// The agent said something.
    Text {
        /// Its words.
        text: String,
    },
    /// The agent thought.
    Thinking {
        /// Its thoughts, as far as the agent shows them.
        text: String,
    },
    /// The agent called a tool.
    ToolStart {
        /// The call's id.
        id: String,
        /// The tool's name, as the agent writes it.
        name: String,
        /// What kind of tool it is.
        #[serde(default)]
        class: ToolClass,
        /// The input: a JSON object whose long values are shortened.
        input: String,
    },
    /// A tool answered.
    ToolEnd {
        /// The call's id.
        id: String,
        /// The tool's name; empty if the call was not seen.
        name: String,
        /// Whether the agent counts it as done.
        ok: bool,
        /// The exit code of the command that it ran, if the agent says one; negative where it was never started.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i64>,
        /// The answer, its middle left out if it is long.
        output: String,
        /// Length of the whole answer in bytes.
        output_len: u64,
        /// Milliseconds from the line of the call to that of the answer; `None` if the call was not seen.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        duration_ms: Option<u64>,
    },
    /// A file was changed, as an agent says it that does not say how.
    FileChange {
        /// The file.
        path: String,
        /// What was done to it.
        op: FileOp,
    },
    /// The agent wrote down its plan, or went on in it.
    Plan {
        /// The whole plan as it is now, as far as it is not too long.
        items: Vec<PlanItem>,
    },
    /// A request to the model failed and will be sent again.
    Retry {
        /// Which try failed, counted from 1.
        attempt: u64,
        /// How many retries there are.
        max_attempts: u64,
        /// How long the agent waits before the next, in milliseconds.
        delay_ms: u64,
        /// The HTTP status, if there was an answer.
        http_status: Option<u16>,
        /// The agent's word for it.
        reason: String,
    },
    /// The provider said how much of an allowance is used.
    RateLimit {
        /// The provider's word: `allowed`, `allowed_warning`, `rejected`.
        status: String,
        /// Which allowance, for example `five_hour`.
        window: String,
        /// The part that is used: 1.0 is all of it.
        utilization: Option<f64>,
        /// When the allowance starts anew.
        resets_at: Option<Timestamp>,
    },
    /// Something that a person may want to know.
    Notice {
        /// How much it matters.
        level: NoticeLevel,
        /// What it is.
        text: String,
    },
    /// The agent was not permitted to use a tool.
    Denied {
        /// The tool's name.
        tool: String,
        /// Why.
        message: String,
    },
    /// The agent ended a turn and gave its result; there may be several.
    TurnEnd {
        /// Whether the agent counts it as done.
        ok: bool,
        /// What kind of failure it is; `None` if it is none.
        class: Option<ErrorClass>,
        /// The agent's word for why the turn ended.
        reason: String,
        /// The result's text, or the error's.
        text: String,
        /// How long the turn took in milliseconds.
        duration_ms: Option<u64>,
        /// What the turn cost in US dollars, as the agent says it.
        cost_usd: Option<f64>,
        /// What the turn used.
        usage: Usage,
    },
    /// A line of plain text.
    Line {
        /// The line, its middle left out if it is long; empty where the event only refers to it, as in `events.jsonl`.
        #[serde(default)]
        text: String,
    },
    /// A line that is in the raw log and has no other event.
    Unparsed {
        /// Why it was not decoded.
        why: UnparsedReason,
    },
}

/// What kind of tool an agent called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ToolClass {
    /// It runs commands.
    Shell,
    /// It reads files.
    Read,
    /// It writes whole files.
    Write,
    /// It changes parts of files.
    Edit,
    /// It looks for files, or in them.
    Search,
    /// It reads or searches the web.
    Web,
    /// It keeps the plan.
    Plan,
    /// It starts another agent, or talks to one.
    Agent,
    /// Anything else, also a class that a later version knows.
    #[default]
    #[serde(other)]
    Other,
}

/// What was done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FileOp {
    /// It was made.
    Add,
    /// It was changed.
    Update,
    /// It was removed.
    Delete,
    /// A word that this build does not know.
    #[serde(other)]
    Other,
}

/// One step of an agent's plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanItem {
    /// What is to be done.
    pub text: String,
    /// How far it is.
    pub state: PlanState,
}

/// How far a step of a plan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PlanState {
    /// Not begun.
    Pending,
    /// Being worked at.
    InProgress,
    /// Done.
    Completed,
    /// Given up.
    Cancelled,
}

/// How much a notice matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeLevel {
    /// Good to know.
    Info,
    /// Something may be wrong.
    Warning,
    /// Something is wrong.
    Error,
}

/// Why a line was not decoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
#[non_exhaustive]
pub enum UnparsedReason {
    /// It is of a type that this build does not know.
    UnknownType {
        /// The type; empty if there is none.
        name: String,
    },
    /// It is longer than the decode cap.
    TooLong,
    /// It looks like an event and is not readable.
    Malformed,
    /// It is the last line, it has no line end, and it is not readable: the stream was cut.
    Truncated,
    /// It is too long to be repaired and not UTF-8.
    NotUtf8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_survives_being_written_and_read() {
        let event = Event {
            seq: 3,
            at: Timestamp::UNIX_EPOCH,
            stream: EventStream::Stdout,
            offset: 17,
            len: 40,
            parent: None,
            kind: EventKind::Unparsed {
                why: UnparsedReason::UnknownType {
                    name: "new".to_owned(),
                },
            },
        };

        let text = serde_json::to_string(&event).unwrap();

        assert_eq!(
            text,
            r#"{"seq":3,"at":"1970-01-01T00:00:00Z","stream":"stdout","offset":17,"len":40,"kind":{"type":"unparsed","why":{"reason":"unknown_type","name":"new"}}}"#
        );
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }

    #[test]
    fn a_field_from_a_later_version_is_not_an_error() {
        let text = r#"{"seq":0,"at":"1970-01-01T00:00:00Z","stream":"stderr","offset":0,"len":1,"kind":{"type":"line","text":"x","later":1},"later":[]}"#;

        let event: Event = serde_json::from_str(text).unwrap();

        assert_eq!(
            event.kind,
            EventKind::Line {
                text: "x".to_owned()
            }
        );
    }
}
