//! The seed's lines for tool calls and their answers.
//!
//! Owns: which tool is shown how.
//! Reads: a tool's name, its input, its answer.
//! Never: fails: a field that is missing or no string is empty.

use std::borrow::Cow;

use memchr::memmem::Finder;

use super::TypedBlock;
use super::go::{self, Mismatch};
use crate::json::{self, JsonKind, JsonStr, KeyMatch, Raw, each_element, fields, kind};

/// Longer buffers are given back.
const KEEP: usize = 64 << 10;

/// How a tool answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Ok,
    Error,
}

/// The fields of a call's input that are shown.
const NAMES: [&str; 21] = [
    "command",
    "file_path",
    "offset",
    "limit",
    "content",
    "old_string",
    "new_string",
    "pattern",
    "path",
    "glob",
    "subagent_type",
    "description",
    "prompt",
    "url",
    "query",
    "question",
    "questions",
    "skill",
    "args",
    "todos",
    "notebook_path",
];

/// The input of a call.
struct Input<'a>([Option<Raw<'a>>; NAMES.len()]);

impl<'a> Input<'a> {
    fn new(input: Option<Raw<'a>>) -> Self {
        let values = input.and_then(|input| fields(input.get(), NAMES, KeyMatch::Exact));
        Self(values.unwrap_or_default())
    }

    fn value(&self, name: &str) -> Option<Raw<'a>> {
        let place = NAMES.iter().position(|other| *other == name)?;
        self.0[place]
    }

    fn string(&self, name: &str) -> JsonStr<'a> {
        json::string(self.value(name)).unwrap_or_default()
    }

    fn text(&self, name: &str) -> Cow<'a, str> {
        self.string(name).text()
    }

    fn short(&self, name: &str, max: usize) -> String {
        shorten(Text::Json(self.string(name)), max)
    }
}

/// A text, whose escapes may not be resolved yet.
#[derive(Clone, Copy)]
pub(super) enum Text<'a> {
    Json(JsonStr<'a>),
    Plain(&'a str),
}

impl<'a> Text<'a> {
    /// Returns the beginning, at least `chars` characters if there are so many.
    fn beginning(self, chars: usize) -> Cow<'a, str> {
        match self {
            Self::Json(text) => text.head(4 * chars + 4).into(),
            Self::Plain(text) => text.into(),
        }
    }

    fn newlines(self) -> usize {
        match self {
            Self::Json(text) => text.newlines(),
            Self::Plain(text) => text.matches('\n').count(),
        }
    }

    fn pieces(self, mut sink: impl FnMut(&str) -> Option<()>) {
        let _whole = match self {
            Self::Json(text) => text.try_pieces(sink),
            Self::Plain(text) => sink(text),
        };
    }

    /// Returns the first line of what is not blank, at least `chars` characters of it if it has so many.
    fn first_line(self, chars: usize) -> String {
        let mut line = String::new();
        let mut is_ended = false;
        self.pieces(|piece| {
            let piece = if line.is_empty() {
                piece.trim_start()
            } else {
                piece
            };
            let (first, rest) = match piece.split_once('\n') {
                _ if is_ended => ("", piece),
                Some(parts) => {
                    is_ended = true;
                    parts
                }
                None => (piece, ""),
            };
            line.push_str(first);
            let is_long = line.len() > 4 * chars + 4 && !first.trim_end().is_empty();
            let has_more = is_ended && !rest.trim_start().is_empty();
            // What is behind decides only whether blanks at the line's end count.
            if has_more {
                line.push('\n');
            }
            (!is_long && !has_more).then_some(())
        });
        match line.strip_suffix('\n') {
            Some(line) => line.to_owned(),
            None => line.trim_end().to_owned(),
        }
    }
}

/// Returns a number, string or boolean as text, and anything else as it stands there.
fn scalar(value: Option<Raw<'_>>) -> Cow<'_, str> {
    match value {
        None => "".into(),
        Some(value) => match kind(value) {
            JsonKind::Null => "".into(),
            JsonKind::String => json::string(Some(value)).unwrap_or_default().text(),
            JsonKind::Bool | JsonKind::Number | JsonKind::Array | JsonKind::Object => {
                value.get().into()
            }
        },
    }
}

/// Returns the text on one line, of at most `max` characters.
fn shorten(text: Text<'_>, max: usize) -> String {
    let text = text.beginning(max).replace('\n', "\\n");
    if text.chars().nth(max).is_none() {
        return text;
    }
    let kept: String = text.chars().take(max.saturating_sub(1)).collect();
    kept + "…"
}

/// Returns the first `max` characters, and a mark if there are more.
pub(super) fn truncate(text: JsonStr<'_>, max: usize) -> String {
    let text = Text::Json(text).beginning(max);
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

/// Returns the line of a call.
pub(super) fn call(name: &str, input: Option<Raw<'_>>) -> String {
    let input = &Input::new(input);
    match name {
        "Bash" => format!("$ {}", input.short("command", 200)),
        "Read" => read(input),
        "Write" => format!(
            "[write] {} ({} chars)",
            input.text("file_path"),
            input.string("content").len()
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
        "AskUserQuestion" => format!("[ask] {}", shorten(Text::Json(question(input)), 120)),
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

fn read(input: &Input<'_>) -> String {
    let (offset, limit) = (scalar(input.value("offset")), scalar(input.value("limit")));
    let path = input.text("file_path");
    if offset.is_empty() && limit.is_empty() {
        return format!("[read] {path}");
    }
    format!("[read] {path} (offset={offset}, limit={limit})")
}

fn grep(input: &Input<'_>) -> String {
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

fn question<'a>(input: &Input<'a>) -> JsonStr<'a> {
    let single = input.string("question");
    if single.len() > 0 {
        return single;
    }
    // One that does not fit Go's type makes all of them worthless.
    let mut first = None;
    let read = go::array(input.value("questions"), |question| {
        let [question] = go::object(Some(question), ["question"])?;
        let question = go::string(question)?;
        first.get_or_insert(question);
        Ok(())
    });
    first.filter(|_| read.is_ok()).unwrap_or_default()
}

fn todo(input: &Input<'_>) -> String {
    let (mut done, mut total) = (0, 0);
    let mut active = None;
    if let Some(todos) = input.value("todos") {
        each_element(todos.get(), |todo| {
            let values = fields(todo.get(), ["status", "content"], KeyMatch::AnyCase);
            let [status, content] = values.unwrap_or_default();
            total += 1;
            match &*json::string(status).unwrap_or_default().text() {
                "completed" => done += 1,
                "in_progress" => {
                    active.get_or_insert(json::string(content).unwrap_or_default());
                }
                _ => {}
            }
            true
        });
    }
    match active {
        Some(active) => {
            let active = shorten(Text::Json(active), 80);
            format!("[todo] {done}/{total} active: {active}")
        }
        None => format!("[todo] {done}/{total} done"),
    }
}

fn other(name: &str) -> String {
    if !name.starts_with("mcp__") {
        return format!("[{name}]");
    }
    let mut parts = name.splitn(3, "__").skip(1);
    let mut part = || parts.next().unwrap_or("?");
    let server = part();
    format!("[mcp:{server}] {}", part())
}

/// What is shown of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shown<'f> {
    /// The seed is silent about it.
    Nothing,
    Line(String),
    /// The end of what a command printed.
    Output(&'f str),
}

/// Returns what is shown of an answer.
pub(super) fn answer<'f>(
    name: &str,
    text: &Answered<'_>,
    answer: Answer,
    failures: &'f mut Failures,
) -> Shown<'f> {
    let text = match text {
        Answered::Json(text) => Text::Json(*text),
        Answered::Joined(text) => Text::Plain(text),
    };
    if answer == Answer::Error {
        return Shown::Line(format!("⚠ [{name}] error: {}", shorten(text, 400)));
    }
    let short = |max| shorten(Text::Plain(&text.first_line(max)), max);
    match name {
        "Bash" => failures.shown(text),
        "Read" => Shown::Line(format!("  → {} lines read", text.newlines())),
        "Grep" => Shown::Line(format!("  → {} match lines", text.newlines())),
        "Glob" => Shown::Line(format!("  → {} files", text.newlines())),
        "Write" | "Edit" => match short(120) {
            first if first.is_empty() => Shown::Nothing,
            first => Shown::Line(format!("  → {first}")),
        },
        "Task" | "Agent" => Shown::Line(format!("  ← agent reply: {}", short(200))),
        _ => Shown::Nothing,
    }
}

/// Finds out whether a command's output looks like a failure.
#[derive(Debug)]
pub(super) struct Failures {
    words: [Finder<'static>; 4],
    text: String,
    lower: Vec<u8>,
}

impl Failures {
    pub(super) fn new() -> Self {
        Self {
            words: ["error", "exit code", "failed", "fatal"].map(Finder::new),
            text: String::new(),
            lower: Vec::new(),
        }
    }

    /// Returns the last lines of an output that looks like a failure.
    fn shown(&mut self, text: Text<'_>) -> Shown<'_> {
        self.text.clear();
        self.text.shrink_to(KEEP);
        text.pieces(|piece| {
            self.text.push_str(piece);
            Some(())
        });
        self.lower.clear();
        self.lower.shrink_to(KEEP);
        self.lower.extend_from_slice(self.text.as_bytes());
        self.lower.make_ascii_lowercase();
        let mut words = self.words.iter();
        if words.any(|word| word.find(&self.lower).is_some()) {
            Shown::Output(last_lines(&self.text, 20))
        } else {
            Shown::Nothing
        }
    }
}

fn last_lines(text: &str, count: usize) -> &str {
    match text.rmatch_indices('\n').nth(count - 1) {
        Some((at, newline)) => &text[at + newline.len()..],
        None => text,
    }
}

/// The text of an answer.
pub(super) enum Answered<'a> {
    Json(JsonStr<'a>),
    Joined(String),
}

/// Returns the text of an answer: a string, or the texts of its blocks.
pub(super) fn content_text(content: Option<Raw<'_>>) -> Answered<'_> {
    let nothing = || Answered::Joined("(result)".to_owned());
    let Some(content) = content else {
        return nothing();
    };
    match kind(content) {
        JsonKind::String => Answered::Json(json::string(Some(content)).unwrap_or_default()),
        JsonKind::Null => Answered::Json(JsonStr::default()),
        JsonKind::Array => texts(content).map_or_else(|_| nothing(), Answered::Joined),
        JsonKind::Bool | JsonKind::Number | JsonKind::Object => nothing(),
    }
}

/// Joins the texts of blocks.
fn texts(content: Raw<'_>) -> Result<String, Mismatch> {
    let mut texts = Vec::new();
    go::array(Some(content), |block| {
        let block = TypedBlock::read(block)?;
        if block.kind.text() == "text" {
            texts.push(block.text.text());
        }
        Ok(())
    })?;
    Ok(texts.join("\n"))
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
            ("mcp____x", "{}", "[mcp:] x"),
            ("Read", r#"{"file_path":"f","limit":null}"#, "[read] f"),
            (
                "AskUserQuestion",
                r#"{"questions":[{"question":"a?"},7]}"#,
                "[ask] ",
            ),
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
                Some("  → one ".to_owned()),
            ),
            (
                "Edit",
                r#""\u0009one\r\n \n""#,
                Answer::Ok,
                Some("  → one".to_owned()),
            ),
            (
                "Task",
                "null",
                Answer::Ok,
                Some("  ← agent reply: ".to_owned()),
            ),
            (
                "Task",
                r#"[{"Type":"text","text":"a\nb"},{"text":7}]"#,
                Answer::Ok,
                Some("  ← agent reply: (result)".to_owned()),
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

            let mut failures = Failures::new();
            let shown = answer(name, &content_text(Some(raw)), how, &mut failures);

            let shown = match shown {
                Shown::Nothing => None,
                Shown::Line(line) => Some(line),
                Shown::Output(output) => Some(format!("⚠ [bash output]\n{output}")),
            };
            assert_eq!(shown, expected, "{name} {content}");
        }
    }

    #[test]
    fn shortening_counts_characters_and_keeps_one_for_the_mark() {
        assert_eq!(shorten(Text::Plain("äöü"), 3), "äöü");
        assert_eq!(shorten(Text::Plain("äöüß"), 3), "äö…");
        let text = json::string(Raw::of("\"äö\\u00fcß\"")).unwrap();
        assert_eq!(shorten(Text::Json(text), 3), "äö…");
        assert_eq!(truncate(text, 3), "äöü…");
    }
}
