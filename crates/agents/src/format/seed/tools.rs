//! The seed's lines for tool calls and their answers.
//!
//! Owns: which tool is shown how.
//! Reads: a tool's name, its input, its answer.
//! Never: fails: a field that is missing or no string is empty.

use crate::json::{self, JsonKind, KeyMatch, Raw, each_element, fields, kind};

/// How a tool answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Ok,
    Error,
}

/// The input of a call.
#[derive(Clone, Copy)]
struct Input<'a>(Option<Raw<'a>>);

impl<'a> Input<'a> {
    fn value(self, name: &str) -> Option<Raw<'a>> {
        let [value] = fields(self.0?.get(), [name], KeyMatch::Exact)?;
        value
    }

    fn text(self, name: &str) -> String {
        text_of(self.value(name))
    }

    fn short(self, name: &str, max: usize) -> String {
        shorten(&self.text(name), max)
    }
}

fn text_of(value: Option<Raw<'_>>) -> String {
    json::string(value)
        .map(|text| text.text().into_owned())
        .unwrap_or_default()
}

/// Returns a number, string or boolean as text.
fn scalar(value: Option<Raw<'_>>) -> String {
    match value.map(|value| (kind(value), value)) {
        Some((JsonKind::Number | JsonKind::Bool, value)) => value.get().to_owned(),
        _ => text_of(value),
    }
}

/// Returns the text on one line, of at most `max` characters.
pub(super) fn shorten(text: &str, max: usize) -> String {
    let text = text.replace('\n', "\\n");
    if text.chars().nth(max).is_none() {
        return text;
    }
    let kept: String = text.chars().take(max.saturating_sub(1)).collect();
    kept + "…"
}

/// Returns the first `max` characters, and a mark if there are more.
pub(super) fn truncate(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Returns the line of a call.
pub(super) fn call(name: &str, input: Option<Raw<'_>>) -> String {
    let input = Input(input);
    match name {
        "Bash" => format!("$ {}", input.short("command", 200)),
        "Read" => read(input),
        "Write" => format!(
            "[write] {} ({} chars)",
            input.text("file_path"),
            input.text("content").len()
        ),
        "Edit" => format!(
            "[edit] {}\n    - {}\n    + {}",
            input.text("file_path"),
            input.short("old_string", 60),
            input.short("new_string", 60)
        ),
        "Grep" => grep(input),
        "Glob" => format!("[glob] {}", input.text("pattern")),
        "Task" | "Agent" => {
            let kind = input.text("subagent_type");
            format!(
                "[agent:{}] {}\n    prompt: {}",
                if kind.is_empty() { "general" } else { &kind },
                input.text("description"),
                input.short("prompt", 160)
            )
        }
        "WebFetch" => format!("[webfetch] {}", input.text("url")),
        "WebSearch" => format!("[websearch] {}", input.text("query")),
        "ToolSearch" => format!("[toolsearch] {}", input.short("query", 100)),
        "AskUserQuestion" => format!("[ask] {}", shorten(&question(input), 120)),
        "Skill" => {
            let args = input.text("args");
            let space = if args.is_empty() { "" } else { " " };
            format!("[skill] /{}{space}{args}", input.text("skill"))
        }
        "TodoWrite" => todo(input),
        "NotebookEdit" => format!("[notebook] {}", input.text("notebook_path")),
        _ => other(name),
    }
}

fn read(input: Input<'_>) -> String {
    let (offset, limit) = (input.value("offset"), input.value("limit"));
    let path = input.text("file_path");
    if offset.is_none() && limit.is_none() {
        return format!("[read] {path}");
    }
    format!(
        "[read] {path} (offset={}, limit={})",
        scalar(offset),
        scalar(limit)
    )
}

fn grep(input: Input<'_>) -> String {
    let filters: Vec<String> = ["path", "glob"]
        .into_iter()
        .map(|name| (name, input.text(name)))
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let pattern = input.text("pattern");
    if filters.is_empty() {
        return format!("[grep] {pattern}");
    }
    format!("[grep] {pattern}  ({})", filters.join(" "))
}

fn question(input: Input<'_>) -> String {
    let single = input.text("question");
    if !single.is_empty() {
        return single;
    }
    let mut first = None;
    if let Some(questions) = input.value("questions") {
        each_element(questions.get(), |question| {
            first = Some(Input(Some(question)).text("question"));
            false
        });
    }
    first.unwrap_or_default()
}

fn todo(input: Input<'_>) -> String {
    let (mut done, mut total) = (0, 0);
    let mut active = None;
    if let Some(todos) = input.value("todos") {
        each_element(todos.get(), |todo| {
            let todo = Input(Some(todo));
            total += 1;
            match todo.text("status").as_str() {
                "completed" => done += 1,
                "in_progress" if active.is_none() => active = Some(todo.short("content", 80)),
                _ => {}
            }
            true
        });
    }
    match active {
        Some(active) => format!("[todo] {done}/{total} active: {active}"),
        None => format!("[todo] {done}/{total} done"),
    }
}

fn other(name: &str) -> String {
    if !name.starts_with("mcp__") {
        return format!("[{name}]");
    }
    let mut parts = name.splitn(3, "__").skip(1);
    let mut part = || parts.next().filter(|part| !part.is_empty()).unwrap_or("?");
    let server = part();
    format!("[mcp:{server}] {}", part())
}

/// Returns the line of an answer; `None` if the seed is silent about it.
pub(super) fn answer(name: &str, content: Option<Raw<'_>>, answer: Answer) -> Option<String> {
    let text = content_text(content);
    if answer == Answer::Error {
        return Some(format!("⚠ [{name}] error: {}", shorten(&text, 400)));
    }
    let newlines = text.matches('\n').count();
    let first = text.trim().lines().next().unwrap_or("").trim();
    match name {
        "Bash" => {
            let lower = text.to_lowercase();
            let words = ["error", "exit code", "failed", "fatal"];
            let is_bad = words.iter().any(|word| lower.contains(word));
            is_bad.then(|| format!("⚠ [bash output]\n{}", last_lines(&text, 20)))
        }
        "Read" => Some(format!("  → {newlines} lines read")),
        "Grep" => Some(format!("  → {newlines} match lines")),
        "Glob" => Some(format!("  → {newlines} files")),
        "Write" | "Edit" if first.is_empty() => None,
        "Write" | "Edit" => Some(format!("  → {}", shorten(first, 120))),
        "Task" | "Agent" => Some(format!("  ← agent reply: {}", shorten(first, 200))),
        _ => None,
    }
}

fn last_lines(text: &str, count: usize) -> &str {
    match text.rmatch_indices('\n').nth(count - 1) {
        Some((at, newline)) => &text[at + newline.len()..],
        None => text,
    }
}

fn content_text(content: Option<Raw<'_>>) -> String {
    let nothing = || "(result)".to_owned();
    let Some(content) = content else {
        return nothing();
    };
    match kind(content) {
        JsonKind::String => text_of(Some(content)),
        JsonKind::Array => {
            let mut texts = Vec::new();
            each_element(content.get(), |block| {
                let block = Input(Some(block));
                if block.text("type") == "text" {
                    texts.push(block.text("text"));
                }
                true
            });
            texts.join("\n")
        }
        JsonKind::Null | JsonKind::Bool | JsonKind::Number | JsonKind::Object => nothing(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, input: &str) -> String {
        let raw = Raw::of(input).unwrap();
        call(name, Some(raw))
    }

    #[test]
    fn every_tool_has_its_line() {
        for (name, input, expected) in [
            ("Bash", r#"{"command":"a\nb"}"#, "$ a\\nb"),
            ("Bash", "{}", "$ "),
            ("Read", r#"{"file_path":"f"}"#, "[read] f"),
            (
                "Read",
                r#"{"file_path":"f","limit":20}"#,
                "[read] f (offset=, limit=20)",
            ),
            (
                "Write",
                r#"{"file_path":"f","content":"ä\n"}"#,
                "[write] f (3 chars)",
            ),
            (
                "Edit",
                r#"{"file_path":"f","old_string":"a","new_string":7}"#,
                "[edit] f\n    - a\n    + ",
            ),
            ("Grep", r#"{"pattern":"p"}"#, "[grep] p"),
            (
                "Grep",
                r#"{"pattern":"p","path":"src","glob":"*.rs"}"#,
                "[grep] p  (path=src glob=*.rs)",
            ),
            ("Glob", r#"{"pattern":"*"}"#, "[glob] *"),
            (
                "Task",
                r#"{"description":"d","prompt":"p"}"#,
                "[agent:general] d\n    prompt: p",
            ),
            ("WebFetch", r#"{"url":"u"}"#, "[webfetch] u"),
            ("WebSearch", r#"{"query":"q"}"#, "[websearch] q"),
            ("ToolSearch", r#"{"query":"q"}"#, "[toolsearch] q"),
            (
                "AskUserQuestion",
                r#"{"questions":[{"question":"a?"},{"question":"b?"}]}"#,
                "[ask] a?",
            ),
            ("Skill", r#"{"skill":"s"}"#, "[skill] /s"),
            ("Skill", r#"{"skill":"s","args":"x"}"#, "[skill] /s x"),
            (
                "TodoWrite",
                r#"{"todos":[{"status":"completed"},{"status":"in_progress","content":"c"}]}"#,
                "[todo] 1/2 active: c",
            ),
            ("TodoWrite", "{}", "[todo] 0/0 done"),
            ("NotebookEdit", r#"{"notebook_path":"n"}"#, "[notebook] n"),
            ("mcp__git__log__all", "{}", "[mcp:git] log__all"),
            ("mcp__git", "{}", "[mcp:git] ?"),
            ("Other", "[]", "[Other]"),
            ("", "null", "[]"),
        ] {
            assert_eq!(line(name, input), expected, "{name} {input}");
        }
    }

    #[test]
    fn answers_are_short_or_silent() {
        let many = format!("\"{}fatal\"", "x\\n".repeat(30));
        for (name, content, how, expected) in [
            ("Bash", r#""fine""#, Answer::Ok, None),
            (
                "Bash",
                r#""it FAILED\nx""#,
                Answer::Ok,
                Some("⚠ [bash output]\nit FAILED\nx".to_owned()),
            ),
            (
                "Bash",
                &many,
                Answer::Ok,
                Some(format!("⚠ [bash output]\n{}fatal", "x\n".repeat(19))),
            ),
            (
                "Read",
                r#""a\nb""#,
                Answer::Ok,
                Some("  → 1 lines read".to_owned()),
            ),
            (
                "Grep",
                r#""a\n""#,
                Answer::Ok,
                Some("  → 1 match lines".to_owned()),
            ),
            ("Glob", r#""""#, Answer::Ok, Some("  → 0 files".to_owned())),
            (
                "Edit",
                r#""\n one \ntwo""#,
                Answer::Ok,
                Some("  → one".to_owned()),
            ),
            ("Write", r#"" ""#, Answer::Ok, None),
            (
                "Agent",
                r#"[{"type":"text","text":"a"},{"type":"image"}]"#,
                Answer::Ok,
                Some("  ← agent reply: a".to_owned()),
            ),
            ("Skill", r#""x""#, Answer::Ok, None),
            (
                "Skill",
                "7",
                Answer::Error,
                Some("⚠ [Skill] error: (result)".to_owned()),
            ),
        ] {
            let raw = Raw::of(content).unwrap();

            assert_eq!(answer(name, Some(raw), how), expected, "{name} {content}");
        }
    }

    #[test]
    fn shortening_counts_characters_and_keeps_one_for_the_mark() {
        assert_eq!(shorten("äöü", 3), "äöü");
        assert_eq!(shorten("äöüß", 3), "äö…");
        assert_eq!(truncate("äöüß", 3), "äöü…");
    }
}
