//! The default way to show events: readable, short, the same for every agent.
//!
//! Owns: the lines and colours of `run.log` and the terminal.
//! Reads: events.
//! Never: prints a control character of an agent's text; see [`neutralise`].

mod tool;

use std::collections::VecDeque;
use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use dark_factory_types::{
    ErrorClass, Event, EventKind, EventStream, FileOp, NoticeLevel, PlanItem, PlanState,
    UnparsedReason, Usage,
};

use self::tool::Answer;
use super::neutralise;

/// Columns of a one-line summary where the width is not known.
const DEFAULT_WIDTH: usize = 160;
/// The narrowest width that is respected.
const LEAST_WIDTH: usize = 20;
/// Lines of a thought that are shown.
const THINKING_LINES: usize = 4;

/// Texts that are remembered.
const SAID: usize = 16;

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
    /// Columns of the terminal; `None` if there is none.
    pub width: Option<u16>,
}

/// Writes events as text.
#[derive(Debug, Clone)]
pub struct TextFormatter {
    style: TextStyle,
    /// Fingerprints of the last texts, so that a result does not repeat one.
    said: VecDeque<u64>,
}

impl TextFormatter {
    /// Makes a formatter for one run.
    pub fn new(style: TextStyle) -> Self {
        Self {
            style,
            said: VecDeque::new(),
        }
    }

    /// Appends the lines of an event, each with its newline; some events have none.
    pub fn write(&mut self, event: &Event, out: &mut String) {
        let indent = if event.parent.is_some() { "  │ " } else { "" };
        let width = self.style.width.map_or(DEFAULT_WIDTH, usize::from);
        let mut page = Page {
            out,
            color: self.style.color,
            indent,
            width: width.max(LEAST_WIDTH).saturating_sub(indent.len()),
        };
        match &event.kind {
            EventKind::Started {
                session_id,
                model,
                cwd,
                tools,
            } => started(&mut page, [model, session_id, cwd], *tools),
            EventKind::Resumed => page.line(DIM, "● goes on by itself"),
            EventKind::Text { text } => {
                page.block(Style::new(), text.trim_end());
                self.said.push_back(fingerprint(text));
                if self.said.len() > SAID {
                    self.said.pop_front();
                }
            }
            EventKind::Thinking { text } => thinking(&mut page, text),
            EventKind::ToolStart { name, input, .. } => tool::start(&mut page, name, input),
            EventKind::ToolEnd {
                name, ok, output, ..
            } => {
                let answer = if *ok { Answer::Ok } else { Answer::Error };
                tool::end(&mut page, name, answer, output);
            }
            EventKind::FileChange { path, op } => {
                let op = match op {
                    FileOp::Add => "added",
                    FileOp::Delete => "removed",
                    _ => "changed",
                };
                page.line(GREEN, &format!("  {op} {path}"));
            }
            EventKind::Plan { items } => plan(&mut page, items),
            EventKind::Retry {
                attempt,
                max_attempts,
                delay_ms,
                http_status,
                reason,
            } => {
                let status = http_status.map_or_else(String::new, |status| format!("{status} "));
                let delay = match delay_ms {
                    0 => String::new(),
                    ms => format!(" in {}", seconds(*ms)),
                };
                page.line(
                    YELLOW,
                    &format!("⚠ {status}{reason}: retry {attempt}/{max_attempts}{delay}"),
                );
            }
            EventKind::RateLimit {
                status,
                window,
                utilization,
                resets_at,
            } => {
                let used = utilization
                    .map_or_else(String::new, |used| format!(", {:.0} % used", used * 100.0));
                let resets = resets_at.map_or_else(String::new, |at| format!(", resets at {at}"));
                page.line(
                    YELLOW,
                    &format!("⚠ rate limit {window}: {status}{used}{resets}"),
                );
            }
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
            EventKind::TurnEnd { .. } => self.turn_end(&event.kind, &mut page),
            EventKind::Line { text } => match event.stream {
                EventStream::Stdout => page.block(Style::new(), text),
                EventStream::Stderr => page.line_whole(DIM, &format!("stderr │ {text}")),
            },
            EventKind::Unparsed { why } => unparsed(&mut page, event, why),
            // A kind that a later version of the types brings has no line until it gets one here.
            _ => {}
        }
    }

    fn turn_end(&self, kind: &EventKind, page: &mut Page<'_>) {
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
        let is_new = !text.trim().is_empty() && !self.said.contains(&fingerprint(text));
        if class.is_none() && is_new {
            page.block(Style::new(), text.trim_end());
        }
        let (style, head) = match (ok, class) {
            (true, _) => (GREEN, "✓ done".to_owned()),
            (false, Some(class)) => (RED, format!("✗ {}: {text}", describe(*class))),
            (false, None) => (RED, format!("✗ {reason}")),
        };
        page.line_whole(style.bold(), &head);
        page.line(
            DIM,
            &format!("  {}", totals(*duration_ms, *cost_usd, usage)),
        );
    }
}

/// Where an event's lines go.
struct Page<'o> {
    out: &'o mut String,
    color: ColorChoice,
    indent: &'static str,
    width: usize,
}

impl Page<'_> {
    /// Appends one line, cut to the width.
    fn line(&mut self, style: Style, text: &str) {
        let text = one_line(text, self.width);
        self.line_whole(style, &text);
    }

    /// Appends one line of any length.
    fn line_whole(&mut self, style: Style, text: &str) {
        let text = neutralise(text);
        let text = text.replace('\n', " ");
        self.paint(style, &text);
    }

    /// Appends all lines of a text.
    fn block(&mut self, style: Style, text: &str) {
        let text = neutralise(text);
        for line in text.split('\n') {
            self.paint(style, line);
        }
    }

    fn paint(&mut self, style: Style, line: &str) {
        self.out.push_str(self.indent);
        if self.color == ColorChoice::Never || line.is_empty() || style.is_plain() {
            self.out.push_str(line);
            self.out.push('\n');
        } else {
            // Writing to a string cannot fail.
            let _ = writeln!(self.out, "{style}{line}{style:#}");
        }
    }
}

/// Returns the text on one line of at most `width` characters.
fn one_line(text: &str, width: usize) -> String {
    let text = text.trim_end().replace("\r\n", " ⏎ ").replace('\n', " ⏎ ");
    if text.chars().nth(width).is_none() {
        return text;
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    kept + "…"
}

fn started(page: &mut Page<'_>, words: [&Option<String>; 3], tools: u64) {
    let [model, session, cwd] = words.map(|word| word.as_deref());
    if [model, cwd] == [None, None] && tools == 0 {
        // Some agents say nothing but their session.
        return page.line(BOLD, &format!("● session {}", session.unwrap_or("?")));
    }
    let [model, session, cwd] = [model, session, cwd].map(|word| word.unwrap_or("?"));
    page.line(
        BOLD,
        &format!("● {model} in {cwd}, {tools} tools, session {session}"),
    );
}

fn thinking(page: &mut Page<'_>, text: &str) {
    let lines: Vec<&str> = text.trim().lines().collect();
    for (number, line) in lines.iter().take(THINKING_LINES).enumerate() {
        let mark = if number == 0 { "💭 " } else { "   " };
        page.line(DIM.italic(), &format!("{mark}{line}"));
    }
    if lines.len() > THINKING_LINES {
        let more = lines.len() - THINKING_LINES;
        page.line(DIM, &format!("   … {more} more lines"));
    }
}

/// Writes how far a plan is, and what is next.
fn plan(page: &mut Page<'_>, items: &[PlanItem]) {
    let is_open =
        |item: &&PlanItem| matches!(item.state, PlanState::Pending | PlanState::InProgress);
    let done = items.len() - items.iter().filter(is_open).count();
    let next = items
        .iter()
        .find(is_open)
        .map_or_else(String::new, |item| format!(", next: {}", item.text));
    page.line(
        DIM,
        &format!("· plan: {done} of {} done{next}", items.len()),
    );
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

/// Returns a class of failure in words.
fn describe(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Auth => "credentials refused",
        ErrorClass::RateLimit => "rate limited",
        ErrorClass::UsageLimit => "usage or credit used up",
        ErrorClass::Overloaded => "provider failed",
        ErrorClass::InvalidRequest => "request refused",
        ErrorClass::MaxTurns => "turn limit reached",
        ErrorClass::Budget => "budget reached",
        ErrorClass::Refused => "model declined",
        ErrorClass::Context => "conversation too long for the model",
        ErrorClass::Interrupted => "interrupted",
        ErrorClass::BadReport => "completion report not readable",
        ErrorClass::Internal => "failed",
    }
}

fn totals(duration_ms: Option<u64>, cost_usd: Option<f64>, usage: &Usage) -> String {
    let mut parts = Vec::new();
    if let Some(duration) = duration_ms {
        parts.push(seconds(duration));
    }
    match usage.turns {
        0 => {}
        1 => parts.push("1 turn".to_owned()),
        turns => parts.push(format!("{turns} turns")),
    }
    if let Some(cost) = cost_usd {
        parts.push(format!("${cost:.4}"));
    }
    parts.push(format!(
        "{} tokens in, {} out, {} cached",
        usage.input_tokens.saturating_add(usage.cache_write_tokens),
        usage.output_tokens,
        usage.cache_read_tokens
    ));
    parts.join(" · ")
}

/// Returns a duration for people: `0.4 s`, `3m 05s`.
fn seconds(ms: u64) -> String {
    match ms / 1000 {
        whole @ 0..60 => format!("{whole}.{} s", ms % 1000 / 100),
        whole @ 60..3600 => format!("{}m {:02}s", whole / 60, whole % 60),
        whole => format!("{}h {:02}m", whole / 3600, whole % 3600 / 60),
    }
}

/// Tells two texts apart without keeping them (FNV-1a).
fn fingerprint(text: &str) -> u64 {
    text.trim_end()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

#[cfg(test)]
mod tests;
