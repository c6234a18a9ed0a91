//! The lines of tool calls and their answers.
//!
//! Owns: what matters about which tool.
//! Reads: a call's shortened input, an answer.
//! Never: shows more than a few lines of either.

use anstyle::Style;

use super::{CYAN, DIM, GREEN, Page, RED};
use crate::json::{KeyMatch, each_entry, fields, string};

/// Lines of each side of an edit that are shown.
const HUNK_LINES: usize = 6;
/// Lines of a command's output that are shown.
const OUTPUT_LINES: usize = 6;

/// How a tool answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Ok,
    Error,
}

/// The fields that say what a call is about, the best first.
const SUBJECTS: [&str; 14] = [
    "command",
    "file_path",
    "notebook_path",
    "path",
    "pattern",
    "url",
    "query",
    "description",
    "question",
    "skill",
    "prompt",
    "content",
    "text",
    "name",
];

/// Writes a call: its name, what it is about, and a hunk if it is an edit.
pub(super) fn start(page: &mut Page<'_>, name: &str, input: &str) {
    let about = match name {
        "TodoWrite" => todo(input),
        "Grep" | "Glob" => joined(input, &["pattern", "path", "glob"]),
        "Task" | "Agent" => joined(input, &["subagent_type", "description"]),
        _ => subject(input),
    };
    page.line(CYAN, format!("→ {name} {about}").trim_end());
    match name {
        "Edit" => {
            hunk(page, RED, "-", &text(input, "old_string"));
            hunk(page, GREEN, "+", &text(input, "new_string"));
        }
        "Write" => hunk(page, GREEN, "+", &text(input, "content")),
        _ => {}
    }
}

/// Writes an answer: an error always, else what fits the tool.
pub(super) fn end(page: &mut Page<'_>, name: &str, answer: Answer, output: &str) {
    let lines: Vec<&str> = output.trim_end().lines().collect();
    if answer == Answer::Error {
        shown(page, RED, "  ✗ ", &lines);
        return;
    }
    match name {
        "Read" | "Grep" | "Glob" => page.line(DIM, &format!("  ← {} lines", lines.len())),
        // Their answers only repeat the call.
        "Edit" | "Write" | "MultiEdit" | "NotebookEdit" | "TodoWrite" => {}
        "Task" | "Agent" => shown(page, DIM, "  ← ", lines.get(..1).unwrap_or_default()),
        _ => shown(page, DIM, "  ← ", &lines),
    }
}

fn hunk(page: &mut Page<'_>, style: Style, mark: &str, text: &str) {
    let lines: Vec<&str> = text.trim_end_matches('\n').lines().collect();
    for line in lines.iter().take(HUNK_LINES) {
        page.line(style, &format!("    {mark} {line}"));
    }
    if lines.len() > HUNK_LINES {
        let more = lines.len() - HUNK_LINES;
        page.line(DIM, &format!("    {mark} … {more} more lines"));
    }
}

/// Writes the first and last lines of an output.
fn shown(page: &mut Page<'_>, style: Style, mark: &str, lines: &[&str]) {
    let head = if lines.len() > OUTPUT_LINES {
        OUTPUT_LINES / 3
    } else {
        lines.len()
    };
    let tail = if lines.len() > OUTPUT_LINES {
        lines.len() - (OUTPUT_LINES - head - 1)
    } else {
        lines.len()
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

/// Returns a text field of a call's input; empty if there is none.
fn text(input: &str, name: &str) -> String {
    let [value] = fields(input, [name], KeyMatch::Exact).unwrap_or([None]);
    string(value)
        .map(|text| text.text().into_owned())
        .unwrap_or_default()
}

fn joined(input: &str, names: &[&str]) -> String {
    let texts = names.iter().map(|name| text(input, name));
    let texts: Vec<String> = texts.filter(|text| !text.is_empty()).collect();
    texts.join("  ")
}

fn subject(input: &str) -> String {
    let values = fields(input, SUBJECTS, KeyMatch::Exact).unwrap_or_default();
    let known = values.into_iter().find_map(string_of);
    known.unwrap_or_else(|| {
        let mut first = None;
        each_entry(input, |_, value| {
            if first.is_none() {
                first = string_of(Some(value));
            }
        });
        first.unwrap_or_default()
    })
}

fn string_of(value: Option<crate::json::Raw<'_>>) -> Option<String> {
    let text = string(value)?.text().into_owned();
    Some(text).filter(|text| !text.is_empty())
}

fn todo(input: &str) -> String {
    let [todos] = fields(input, ["todos"], KeyMatch::Exact).unwrap_or([None]);
    let (mut done, mut total) = (0, 0);
    let mut active = String::new();
    if let Some(todos) = todos {
        crate::json::each_element(todos.get(), |todo| {
            total += 1;
            match text(todo.get(), "status").as_str() {
                "completed" => done += 1,
                "in_progress" if active.is_empty() => active = text(todo.get(), "content"),
                _ => {}
            }
            true
        });
    }
    let active = if active.is_empty() {
        active
    } else {
        format!(": {active}")
    };
    format!("{done}/{total}{active}")
}
