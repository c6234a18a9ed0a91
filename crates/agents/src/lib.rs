//! Agents: how each is launched, what its stream means, and how that is shown.
//!
//! Owns: the agent adapters, the stream decoders, the completion report, the list prices, the formatters.
//! Reads: bytes and text that the caller brings, files only through a function that it passes in.
//! Never: does I/O by itself, reads a clock or the environment, blocks, or panics.
//!
//! In reading order: an [`Agent`] is an adapter, in one file or one folder, found by its name with [`agent()`]; an
//! [`AgentRequest`] becomes its [`AgentLaunch`]. A [`Transcript`] takes the raw chunks of a run, splits them into lines
//! ([`LineSplitter`]), has them read by the agent's [`Decoder`], and gives [`Event`](dark_factory_types::Event)s and, at
//! any time, a [`Conclusion`]; it can be saved, and restored in another process. An output of unknown origin is
//! recognised with [`detect()`]. [`parse_completion_report`] reads an agent's last words, and [`priced_usd`] prices what
//! it used. People see the events through a [`TextFormatter`], or as the seed printed them through a [`Formatter`];
//! [`neutralise`] keeps both from driving a terminal.

mod access;
mod agent;
mod claim;
mod claude;
mod codex;
mod command;
mod deeds;
mod detect;
pub mod format;
mod gemini;
mod json;
mod mask;
mod messages;
mod prices;
mod report;
mod saved;
mod sink;
mod split;
mod tool;
mod transcript;

pub use access::ApiAccess;
pub use agent::{
    AGENT_NAMES, Agent, AgentLaunch, AgentRequest, AuthError, AuthView, ContainerUser,
    CredentialFolder, ReadFile, agent,
};
pub use claude::{CLAUDE_LOGIN, Claude, check_claude_auth, claude_token_end};
pub use codex::Codex;
pub use command::Command;
pub use detect::detect;
pub use format::neutralise;
pub use format::seed::{Formatter, SeedFormatter};
pub use format::text::{ColorChoice, TextFormatter, TextState, TextStyle};
pub use gemini::Gemini;
pub use mask::{MASK, Mask};
pub use prices::{PRICES_DATE, cost_text, priced, priced_usd};
pub use report::{REPORT_END, REPORT_START, ReportError, parse_completion_report};
pub use saved::RestoreError;
pub use split::{DECODE_CAP, LineContent, LineEnd, LineSplitter, SplitLine};
pub use transcript::{
    Conclusion, DecodedEvent, Decoder, DecoderLine, Piece, PlainLine, Transcript,
};
