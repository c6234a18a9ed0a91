//! The default way to show events: readable, short, the same for every agent.
//!
//! Owns: the lines and colours of `run.log` and the terminal.
//! Reads: events.
//! Never: prints a control character of an agent's text; see [`neutralise`](super::neutralise).

mod calls;
mod hunk;
mod page;
mod plan;
mod result;
mod tool;
mod words;

use std::collections::VecDeque;

use anstyle::{AnsiColor, Style};
use dark_factory_types::{
    Event, EventKind, EventStream, FileOp, NoticeLevel, ToolClass, UnparsedReason,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use self::calls::Calls;
use self::page::{Page, one_line};
use self::words::seconds;
use crate::tool::tool_class;

/// Lines of a thought that are shown.
const THINKING_LINES: usize = 4;
/// Texts that are remembered.
const SAID: usize = 16;
/// Columns of a call's name in a line that is not near it.
const LABEL_WIDTH: usize = 60;
/// Parts of an allowance that make a difference in how much of it is used.
const TWENTIETHS: f64 = 20.0;

const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();
const RED: Style = AnsiColor::Red.on_default();
const GREEN: Style = AnsiColor::Green.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const CYAN: Style = AnsiColor::Cyan.on_default();

/// Whether colours are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ColorChoice {
    /// Colours and bold text by ANSI escapes.
    Always,
    /// Plain text.
    #[default]
    Never,
}

/// How text is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TextStyle {
    /// Whether colours are used.
    pub color: ColorChoice,
    /// Columns of the terminal, which summaries and indented texts are fitted into; `None` if there is none.
    pub width: Option<u16>,
}

/// What a formatter knows of the events that it has written; with it, another one goes on as the first would have.
///
/// It is less than 200 kB, whatever the events were.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TextState {
    /// Fingerprints of the last texts, so that a result does not repeat one.
    said: VecDeque<u64>,
    calls: Calls,
    plan: plan::Shown,
    /// A fingerprint of what was last said of an allowance.
    allowance: u64,
    /// The report of the agent's last words.
    report: Option<result::Said>,
}

/// Writes events as text.
#[derive(Debug, Clone)]
pub struct TextFormatter {
    style: TextStyle,
    state: TextState,
}

impl TextFormatter {
    /// Makes a formatter for one run.
    pub fn new(style: TextStyle) -> Self {
        Self::restore(style, TextState::default())
    }

    /// Makes a formatter that goes on where another one was.
    pub fn restore(style: TextStyle, mut state: TextState) -> Self {
        state.said.truncate(SAID);
        state.calls.bound();
        state.plan.bound();
        Self { style, state }
    }

    /// Returns what another formatter needs to know to go on from here.
    pub fn save(&self) -> TextState {
        self.state.clone()
    }

    /// Lays out what comes for a terminal of another width.
    pub fn resize(&mut self, width: Option<u16>) {
        self.style.width = width;
    }

    /// Appends the lines of an event, each with its newline; some events have none.
    pub fn write(&mut self, event: &Event, out: &mut String) {
        let parent = event.parent.as_deref();
        let depth = self.state.calls.depth(parent);
        let begin = out.len();
        self.event(event, &mut Page::new(out, self.style, depth));
        if out.len() == begin {
            return;
        }
        if matches!(
            event.kind,
            EventKind::Text { .. }
                | EventKind::Thinking { .. }
                | EventKind::ToolEnd { .. }
                | EventKind::Line { .. }
        ) {
            self.state.calls.interrupt();
        }
        if let Some(name) = parent.and_then(|parent| self.state.calls.introduce(parent)) {
            let mut head = String::new();
            let mut page = Page::new(&mut head, self.style, depth.saturating_sub(1));
            page.line(DIM, &format!("  ┌ {name}"));
            out.insert_str(begin, &head);
        }
    }

    fn event(&mut self, event: &Event, page: &mut Page<'_>) {
        match &event.kind {
            EventKind::Started {
                session_id,
                model,
                cwd,
                tools,
            } => started(page, [model, session_id, cwd], *tools),
            EventKind::Resumed => page.line(DIM, "● goes on by itself"),
            EventKind::Text { text } => self.text(event, text, page),
            EventKind::Thinking { text } => thinking(page, text),
            EventKind::ToolStart { .. } => self.tool_start(event, page),
            EventKind::ToolEnd { .. } => self.tool_end(&event.kind, page),
            EventKind::FileChange { path, op } => {
                let (style, op) = match op {
                    FileOp::Add => (GREEN, "added"),
                    FileOp::Delete => (RED, "removed"),
                    _ => (YELLOW, "changed"),
                };
                page.line(style, &format!("  {op} {path}"));
            }
            EventKind::Plan { items } => self.state.plan.write(page, items),
            EventKind::Retry {
                attempt,
                max_attempts,
                delay_ms,
                http_status,
                reason,
            } => {
                // What matters stands first: the reason may be too long for the page.
                let status = http_status.map_or_else(String::new, |status| format!("{status} "));
                let delay = match delay_ms {
                    0 => String::new(),
                    ms => format!(" in {}", seconds(*ms)),
                };
                page.line(
                    YELLOW,
                    &format!("⚠ retry {attempt}/{max_attempts}{delay}: {status}{reason}"),
                );
            }
            EventKind::RateLimit { .. } => self.rate_limit(event, page),
            EventKind::Notice { level, text } => {
                let (style, mark) = match level {
                    NoticeLevel::Info => (DIM, "·"),
                    NoticeLevel::Warning => (YELLOW, "⚠"),
                    NoticeLevel::Error => (RED, "✗"),
                };
                page.line(style, &format!("{mark} {text}"));
            }
            EventKind::Denied { tool, message } => {
                page.line(YELLOW, &format!("⚠ {tool} was not permitted: {message}"));
            }
            EventKind::TurnEnd { .. } => self.turn_end(&event.kind, page),
            EventKind::Line { text } => match event.stream {
                EventStream::Stdout => page.block(Style::new(), text),
                EventStream::Stderr => page.whole(DIM, &format!("stderr │ {text}")),
            },
            EventKind::Unparsed { why } => unparsed(page, event, why),
            // A kind that a later version of the types brings has no line until it gets one here.
            _ => {}
        }
    }

    fn text(&mut self, event: &Event, text: &str, page: &mut Page<'_>) {
        self.state.said.push_back(words_of(text));
        if self.state.said.len() > SAID {
            self.state.said.pop_front();
        }
        // The report stands in the block of the result, for people.
        let report = match event.parent {
            None => result::Said::take(text),
            Some(_) => None,
        };
        let words = report.as_ref().map_or(text, |(rest, _)| rest);
        if !words.trim().is_empty() {
            page.block(Style::new(), words.trim_end());
        }
        if event.parent.is_none() {
            self.state.report = report.map(|(_, said)| said);
        }
    }

    fn tool_start(&mut self, event: &Event, page: &mut Page<'_>) {
        let EventKind::ToolStart {
            id,
            name,
            class,
            input,
        } = &event.kind
        else {
            return;
        };
        let start = tool::Start {
            name,
            class: known(*class, name),
            input,
        };
        match start.plan() {
            Some(items) => self.state.plan.write(page, &items),
            None => start.write(page),
        }
        let label = one_line(&start.label(), LABEL_WIDTH);
        let parent = event.parent.as_deref();
        self.state.calls.begin(id, parent, label, start.class);
    }

    fn tool_end(&mut self, kind: &EventKind, page: &mut Page<'_>) {
        let EventKind::ToolEnd {
            id,
            name,
            ok,
            exit_code,
            output,
            duration_ms,
            ..
        } = kind
        else {
            return;
        };
        let call = self.state.calls.end(id);
        let label = call.as_ref().and_then(|call| call.label.as_deref());
        let end = tool::End {
            name,
            class: call
                .as_ref()
                .map_or_else(|| tool_class(name), |call| call.class),
            ok,
            exit_code: *exit_code,
            output,
            duration_ms: *duration_ms,
            label,
        };
        end.write(page);
    }

    /// Says how much of an allowance is used, if that is news.
    fn rate_limit(&mut self, event: &Event, page: &mut Page<'_>) {
        let EventKind::RateLimit {
            status,
            window,
            utilization,
            resets_at,
        } = &event.kind
        else {
            return;
        };
        let steps = utilization.map(|used| (used * TWENTIETHS).floor());
        let news = fingerprint(&format!("{status} {window} {resets_at:?} {steps:?}"));
        if std::mem::replace(&mut self.state.allowance, news) == news {
            return;
        }
        let style = match status.as_str() {
            "allowed" => DIM,
            "rejected" => RED,
            _ => YELLOW,
        };
        let used =
            utilization.map_or_else(String::new, |used| format!(", {:.0} % used", used * 100.0));
        let resets = resets_at.map_or_else(String::new, |at| {
            format!(", resets at {at}{}", in_time(event.at, at))
        });
        let mark = if status == "allowed" { "·" } else { "⚠" };
        page.line(
            style,
            &format!("{mark} rate limit {window}: {status}{used}{resets}"),
        );
    }

    fn turn_end(&mut self, kind: &EventKind, page: &mut Page<'_>) {
        let EventKind::TurnEnd {
            ok,
            class,
            reason,
            text,
            duration_ms,
            cost_usd,
            usage,
        } = kind
        else {
            return;
        };
        let report = result::Said::take(text);
        let words = words_of(text);
        let is_new = !text.trim().is_empty() && !self.state.said.contains(&words);
        if class.is_none() && is_new {
            let words = report.as_ref().map_or(text.as_str(), |(rest, _)| rest);
            if !words.trim().is_empty() {
                result::words(page, words);
            }
        }
        let said = report.map(|(_, said)| said).or(self.state.report.take());
        let end = result::End {
            ok,
            class: *class,
            reason,
            // Agents say why they failed, too.
            text: match self.state.said.back() {
                Some(last) if *last == words => "",
                _ => text,
            },
            duration_ms: *duration_ms,
            cost_usd: *cost_usd,
            usage,
        };
        end.write(page, said.as_ref());
    }
}

/// Returns what kind of tool it is, also in events that were written before they said so.
fn known(class: ToolClass, name: &str) -> ToolClass {
    match class {
        ToolClass::Other => tool_class(name),
        class => class,
    }
}

/// Says how long it is until then; nothing if that is over.
fn in_time(now: Timestamp, then: Timestamp) -> String {
    match u64::try_from(then.duration_since(now).as_millis()) {
        Ok(ms) if ms > 0 && now != Timestamp::UNIX_EPOCH => format!(", in {}", seconds(ms)),
        _ => String::new(),
    }
}

fn started(page: &mut Page<'_>, words: [&Option<String>; 3], tools: u64) {
    let [model, session, cwd] = words.map(|word| word.as_deref());
    if [model, cwd] == [None, None] && tools == 0 {
        // Some agents say nothing but their session.
        return page.line(BOLD, &format!("● session {}", session.unwrap_or("?")));
    }
    let mut facts = vec![format!("● {}", model.unwrap_or("?"))];
    facts.extend(cwd.map(|cwd| format!("in {cwd}")));
    let mut text = facts.join(" ");
    if tools > 0 {
        text = format!("{text}, {tools} tools");
    }
    if let Some(session) = session {
        text = format!("{text}, session {session}");
    }
    page.line(BOLD, &text);
}

fn thinking(page: &mut Page<'_>, text: &str) {
    let mut lines = text.trim().lines();
    for (number, line) in lines.by_ref().take(THINKING_LINES).enumerate() {
        let mark = if number == 0 { "💭 " } else { "   " };
        page.line(DIM.italic(), &format!("{mark}{line}"));
    }
    match lines.count() {
        0 => {}
        more => page.line(DIM, &format!("   … {more} more lines")),
    }
}

fn unparsed(page: &mut Page<'_>, event: &Event, why: &UnparsedReason) {
    let what = match why {
        // New types of lines are no concern of the reader's; they are in the raw log.
        UnparsedReason::UnknownType { .. } => return,
        UnparsedReason::TooLong => "a line too long to be decoded",
        UnparsedReason::Truncated => "the last line is cut off",
        UnparsedReason::NotUtf8 => "a line that is not UTF-8",
        _ => "a line that is not readable",
    };
    let (len, offset) = (event.len, event.offset);
    page.line(
        YELLOW,
        &format!("⚠ {what}: {len} bytes at offset {offset} of the raw log"),
    );
}

/// Tells two texts apart without keeping them.
fn fingerprint(text: &str) -> u64 {
    fnv1a(text.trim_end().bytes())
}

/// As [`fingerprint`], but the same for texts that differ only in white space or a final full stop.
fn words_of(text: &str) -> u64 {
    let text = text.trim_end().trim_end_matches('.');
    fnv1a(
        text.split_whitespace()
            .flat_map(|word| word.bytes().chain([b' '])),
    )
}

fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests;
