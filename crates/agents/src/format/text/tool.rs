//! The lines of tool calls and their answers.
//!
//! Owns: what matters about which tool, by the names that agents give their fields.
//! Reads: a call's shortened input, an answer.
//! Never: shows more than a few lines of either.

use std::borrow::Cow;

use crate::json::Raw;
use anstyle::Style;
use dark_factory_types::{PlanItem, PlanState, ToolClass};

use super::page::Page;
use super::words::seconds;
use super::{CYAN, DIM, RED, hunk};
use crate::json::{JsonKind, KeyMatch, each_element, each_entry, fields, kind, string, unsigned};

/// Lines of a command's output that are shown.
const OUTPUT_LINES: usize = 6;
/// Shorter calls are not said to have taken time.
const LONG_MS: u64 = 1000;
/// Steps of a plan that are read.
const STEPS: usize = 256;
/// Columns of the values of a tool that is not known.
const VALUE_WIDTH: usize = 40;

/// A call as its line needs it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start<'e> {
    pub(super) name: &'e str,
    pub(super) class: ToolClass,
    pub(super) input: &'e str,
}

/// An answer as its lines need it.
#[derive(Debug, Clone, Copy)]
pub(super) struct End<'e> {
    pub(super) name: &'e str,
    pub(super) class: ToolClass,
    pub(super) ok: &'e bool,
    pub(super) exit_code: Option<i64>,
    pub(super) output: &'e str,
    pub(super) duration_ms: Option<u64>,
    /// The call, unless it is plain that the answer is to that.
    pub(super) label: Option<&'e str>,
}

/// Where a file's path stands in an input, the best first.
const PATHS: [&str; 6] = [
    "file_path",
    "notebook_path",
    "absolute_path",
    "path",
    "dir_path",
    "paths",
];

/// The fields that say what any other call is about, the best first.
const SUBJECTS: [&str; 13] = [
    "command",
    "file_path",
    "path",
    "pattern",
    "url",
    "query",
    "description",
    "question",
    "skill",
    "prompt",
    "message",
    "text",
    "name",
];

impl Start<'_> {
    /// Returns the steps of a plan that the call writes down; `None` if it is no such call.
    pub(super) fn plan(&self) -> Option<Vec<PlanItem>> {
        let [todos] = fields(self.input, ["todos"], KeyMatch::Exact)?;
        let todos = todos.filter(|todos| kind(*todos) == JsonKind::Array)?;
        if self.class != ToolClass::Plan {
            return None;
        }
        let mut items = Vec::new();
        each_element(todos.get(), |todo| {
            items.push(PlanItem {
                text: first(todo.get(), &["content", "description", "text"]).unwrap_or_default(),
                state: match text(todo.get(), "status").as_str() {
                    "completed" => PlanState::Completed,
                    "in_progress" => PlanState::InProgress,
                    "cancelled" => PlanState::Cancelled,
                    _ => PlanState::Pending,
                },
            });
            items.len() < STEPS
        });
        Some(items)
    }

    /// Returns the call's line: its name, and what it is about.
    pub(super) fn label(&self) -> String {
        let about = match self.class {
            ToolClass::Shell => self.command(),
            ToolClass::Read => self.read(),
            ToolClass::Write | ToolClass::Edit => {
                first(self.input, &PATHS).unwrap_or_else(|| subject(self.input))
            }
            ToolClass::Search => joined(
                self.input,
                &["pattern", "query", "path", "dir_path", "glob", "include"],
            ),
            ToolClass::Web => joined(self.input, &["url", "query", "prompt"]),
            ToolClass::Agent => {
                let who = first(self.input, &["subagent_type", "agent_name"]);
                let what = first(self.input, &["description", "prompt", "message", "task"]);
                let words: Vec<_> = [who, what].into_iter().flatten().collect();
                words.join("  ")
            }
            _ => subject(self.input),
        };
        format!("{} {about}", self.name).trim_end().to_owned()
    }

    fn command(&self) -> String {
        let command = text(self.input, "command");
        let [is_background] = fields(self.input, ["run_in_background"], KeyMatch::Exact)
            .unwrap_or_default()
            .map(crate::json::boolean);
        let mark = match is_background {
            Some(true) => " &",
            _ => "",
        };
        format!("{}{mark}", without_shell(&command))
    }

    fn read(&self) -> String {
        let path = first(self.input, &PATHS).unwrap_or_else(|| subject(self.input));
        let [offset, limit] =
            fields(self.input, ["offset", "limit"], KeyMatch::Exact).unwrap_or_default();
        match (unsigned(offset), unsigned(limit)) {
            (Some(from), Some(count)) => {
                format!("{path}:{from}-{}", from.saturating_add(count.max(1) - 1))
            }
            (Some(from), None) => format!("{path}:{from}-"),
            (None, Some(count)) => format!("{path}:1-{count}"),
            (None, None) => path,
        }
    }

    /// Writes the call's line, and a hunk if it is an edit.
    pub(super) fn write(&self, page: &mut Page<'_>) {
        page.line(CYAN, &format!("→ {}", self.label()));
        match self.class {
            ToolClass::Edit => self.edits(page),
            ToolClass::Write => hunk::write(page, "", &text(self.input, "content")),
            _ => {}
        }
    }

    fn edits(&self, page: &mut Page<'_>) {
        let [edits] = fields(self.input, ["edits"], KeyMatch::Exact).unwrap_or_default();
        let is_list = edits.is_some_and(|edits| {
            each_element(edits.get(), |edit| {
                edit_of(page, edit.get());
                true
            })
        });
        if !is_list {
            edit_of(page, self.input);
        }
    }
}

fn edit_of(page: &mut Page<'_>, input: &str) {
    let new = first(input, &["new_string", "new_source"]).unwrap_or_default();
    hunk::write(page, &text(input, "old_string"), &new);
}

impl End<'_> {
    /// Writes an answer: an error always, else what fits the tool.
    pub(super) fn write(&self, page: &mut Page<'_>) {
        let output = self.own_output();
        let lines: Vec<&str> = output.lines().collect();
        let (style, mark) = match self.ok {
            true => (DIM, "  ← "),
            false => (RED, "  ✗ "),
        };
        let mut facts = Vec::new();
        facts.extend(
            self.exit_code
                .filter(|code| *code != 0)
                .map(|code| format!("exit {code}")),
        );
        facts.extend(self.duration_ms.filter(|ms| *ms >= LONG_MS).map(seconds));
        let mut head = mark.to_owned();
        if let Some(label) = self.label {
            head = format!("{head}{label}: ");
        }
        if !facts.is_empty() {
            head = format!("{head}({}) ", facts.join(", "));
        }
        let is_told = head.len() > mark.len();
        let counted;
        let lines: &[&str] = match self.class {
            _ if !self.ok || lines.is_empty() => &lines,
            ToolClass::Read | ToolClass::Search => {
                counted = format!("{} lines", lines.len());
                &[counted.as_str()]
            }
            // Their answers only repeat the call.
            ToolClass::Write | ToolClass::Edit | ToolClass::Plan => &[],
            ToolClass::Agent => lines.get(..1).unwrap_or_default(),
            _ => &lines,
        };
        match lines {
            [] if is_told && (self.class == ToolClass::Shell || !facts.is_empty()) => {
                page.line(style, head.trim_end().trim_end_matches(':'));
            }
            [] if !self.ok => page.line(style, &format!("{head}{} failed", self.name)),
            // The line above, or none, says it all.
            [] => {}
            lines => shown(page, style, &head, lines),
        }
    }

    /// Returns the output without what agents put around it: marks of an error, a line that repeats the exit code.
    fn own_output(&self) -> &str {
        let output = self.output.trim_end();
        let output = output
            .strip_prefix("<tool_use_error>")
            .and_then(|inner| inner.strip_suffix("</tool_use_error>"))
            .unwrap_or(output);
        let Some(code) = self.exit_code else {
            return output;
        };
        let (line, rest) = output.split_once('\n').unwrap_or((output, ""));
        let said = line.trim().to_ascii_lowercase();
        match said.strip_prefix("exit code ") == Some(&code.to_string()) {
            true => rest,
            false => output,
        }
    }
}

/// Writes the first and last lines of an output.
fn shown(page: &mut Page<'_>, style: Style, mark: &str, lines: &[&str]) {
    let (head, tail) = match lines.len() {
        count @ 0..=OUTPUT_LINES => (count, count),
        count => {
            let head = OUTPUT_LINES / 3;
            (head, count - (OUTPUT_LINES - head - 1))
        }
    };
    for (number, line) in lines.iter().enumerate() {
        let mark = if number == 0 { mark } else { "    " };
        if number < head || number >= tail {
            page.line(style, &format!("{mark}{line}"));
        } else if number == head {
            page.line(style, &format!("    … {} more lines", tail - head));
        }
    }
}

/// Returns a command without the shell that an agent puts around each.
fn without_shell(command: &str) -> Cow<'_, str> {
    let shells = ["/bin/bash -lc ", "bash -lc ", "/bin/sh -c ", "sh -c "];
    let Some(word) = shells.iter().find_map(|shell| command.strip_prefix(shell)) else {
        return command.into();
    };
    let quoted = |quote| {
        word.strip_prefix(quote)
            .and_then(|word| word.strip_suffix(quote))
    };
    if let Some(inner) = quoted('\'').filter(|inner| !inner.contains('\'')) {
        return inner.into();
    }
    quoted('"')
        .and_then(unquoted)
        .map_or(command.into(), Cow::from)
}

/// Returns what stands between double quotes, as a shell reads it; `None` if they end before.
fn unquoted(inner: &str) -> Option<String> {
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(char) = chars.next() {
        match char {
            '"' => return None,
            '\\' => match chars.next()? {
                escaped @ ('"' | '\\' | '$' | '`') => text.push(escaped),
                other => text.extend(['\\', other]),
            },
            other => text.push(other),
        }
    }
    Some(text)
}

/// Returns a text field of a call's input; empty if there is none.
fn text(input: &str, name: &str) -> String {
    first(input, &[name]).unwrap_or_default()
}

/// Returns the first of the fields that has a text, or texts in a list.
fn first(input: &str, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| {
        let [value] = fields(input, [*name], KeyMatch::Exact)?;
        let value = value?;
        match kind(value) {
            JsonKind::Array => {
                let mut texts = Vec::new();
                each_element(value.get(), |element| {
                    texts.extend(text_of(Some(element)));
                    true
                });
                Some(texts.join(" ")).filter(|text| !text.is_empty())
            }
            _ => text_of(Some(value)),
        }
    })
}

fn joined(input: &str, names: &[&str]) -> String {
    let texts: Vec<String> = names
        .iter()
        .filter_map(|name| first(input, &[*name]))
        .collect();
    texts.join("  ")
}

/// Returns what a call of a tool that is not known is about: its best field, else all of them.
fn subject(input: &str) -> String {
    if let Some(subject) = first(input, &SUBJECTS) {
        return subject;
    }
    let mut values = Vec::new();
    each_entry(input, |key, value| {
        let text = match string(Some(value)) {
            Some(text) => text.text().into_owned(),
            None => value.get().to_owned(),
        };
        values.push(format!(
            "{key}={}",
            super::page::one_line(&text, VALUE_WIDTH)
        ));
    });
    values.join(" ")
}

fn text_of(value: Option<Raw<'_>>) -> Option<String> {
    let text = string(value)?.text().into_owned();
    Some(text).filter(|text| !text.is_empty())
}
