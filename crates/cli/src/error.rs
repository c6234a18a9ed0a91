//! Errors at the edge: what a person or a program is told, and the process's exit code.
//!
//! Owns: how an error looks.
//! Reads: the errors of the library.
//! Never: decides what went wrong.

use std::error::Error;
use std::fmt;

use dark_factory_agents::neutralise;
use dark_factory_engines::agent_image::AgentImageError;
use dark_factory_executor::config::ConfigError;
use dark_factory_executor::doctor::Finding;
use dark_factory_executor::engine::EngineError;
use dark_factory_executor::error::{ExecutorError, sentence};
use dark_factory_executor::prompt::PromptError;
use dark_factory_executor::resolve::ResolveError;
use dark_factory_executor::settings::{Diagnostic, Excerpt, Origin};
use dark_factory_types::exit_code;
use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents, Severity,
    SourceCode, SourceSpan, SpanContents, ThemeCharacters, ThemeStyles,
};
use serde_json::{Map, Value, json};

use crate::commands::Format;
use crate::tell;
use crate::terminal::{self, Screen};

/// Columns that a person's snippet has beside the source line, besides the digits of its number.
const GUTTER: usize = 6;
/// Columns of a source line that are shown at least.
const LEAST_EXCERPT: usize = 16;

/// An error that ends a command.
#[derive(Debug)]
pub(crate) struct CommandError {
    code: u8,
    problem: Problem,
    /// What else is wrong, as in a file with several problems.
    more: Vec<Problem>,
}

/// What is wrong, and where, and what to do about it.
#[derive(Debug)]
pub(crate) struct Problem {
    /// With the place, if that is known without its column.
    message: String,
    hints: Vec<String>,
    place: Place,
}

#[derive(Debug)]
enum Place {
    None,
    /// In a file; the message begins with it.
    Line {
        file: String,
        line: u32,
        column: u32,
    },
    /// Known with the line itself.
    Exact(Box<Diagnostic>),
}

impl CommandError {
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self::of(code, Problem::new(message))
    }

    fn of(code: u8, problem: Problem) -> Self {
        Self {
            code,
            problem,
            more: Vec::new(),
        }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(exit_code::USAGE, message)
    }

    /// Returns the error of a command line that is not understood, in clap's words: its message, then what may help.
    pub(crate) fn of_usage(error: &clap::Error) -> Self {
        let text = error.render().to_string();
        let mut paragraphs = text.trim_end().split("\n\n");
        let message = paragraphs.next().unwrap_or_default();
        let message = message.strip_prefix("error: ").unwrap_or(message);
        let lines = |text: &str| {
            let lines = text.lines().map(str::trim);
            lines.collect::<Vec<_>>().join(" ")
        };
        let mut usage = Self::usage(lines(message));
        usage.problem.hints = paragraphs
            .flat_map(str::lines)
            .map(|line| tell::brief(line.trim()))
            .collect();
        usage
    }

    pub(crate) fn internal(operation: &str, error: impl Error) -> Self {
        Self::new(
            exit_code::INTERNAL,
            format!("{operation}: {}", sentence(&error)),
        )
    }

    /// Returns the errors of a prompt file: one for each problem of its front matter.
    pub(crate) fn of_prompt(error: PromptError) -> Vec<Self> {
        let code = error.exit_code();
        match error {
            PromptError::FrontMatter { problems } => problems
                .into_iter()
                .map(|diagnostic| Self::of(code, Problem::in_file(diagnostic)))
                .collect(),
            other => vec![Self::new(code, sentence(&other))],
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.problem.hints.push(tell::brief(&hint.into()));
        self
    }

    /// Puts the hints behind the message, so that the error is one line.
    pub(crate) fn in_one_line(mut self) -> Self {
        for hint in self.problem.hints.drain(..) {
            self.problem.message = format!("{}; {hint}", self.problem.message);
        }
        self
    }

    /// Makes one error of several, with the first one's code; they should not be none.
    pub(crate) fn all(errors: impl IntoIterator<Item = Self>) -> Self {
        let all = errors.into_iter().reduce(|mut first, error| {
            first.more.push(error.problem);
            first.more.extend(error.more);
            first
        });
        all.unwrap_or_else(|| Self::new(exit_code::INTERNAL, "there is an error without a message"))
    }

    pub(crate) fn message(&self) -> &str {
        &self.problem.message
    }

    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    fn problems(&self) -> impl Iterator<Item = &Problem> {
        std::iter::once(&self.problem).chain(&self.more)
    }

    /// Returns what is wrong and what to do about it.
    pub(crate) fn text(&self) -> String {
        self.problems()
            .map(Problem::text)
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Prints the error to standard error, each problem by itself; a closed one is not worth another error.
    pub(crate) fn print(&self) {
        for problem in self.problems() {
            match tell::reader() {
                Format::Text => problem.show(Severity::Error),
                Format::Json => {
                    let mut fields = Map::new();
                    fields.insert("code".to_owned(), self.code.into());
                    fields.insert("kind".to_owned(), kind(self.code).into());
                    fields.extend(problem.fields());
                    tell::object(&json!({ "error": fields }));
                }
            }
        }
    }
}

impl Problem {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: tell::brief(&message.into()),
            hints: Vec::new(),
            place: Place::None,
        }
    }

    /// Returns the problem of a place that is known to the column.
    pub(crate) fn in_file(mut diagnostic: Diagnostic) -> Self {
        diagnostic.message = tell::brief(&diagnostic.message);
        diagnostic.help = diagnostic.help.as_deref().map(tell::brief);
        Self {
            message: diagnostic.message.clone(),
            hints: diagnostic.help.iter().cloned().collect(),
            place: Place::Exact(Box::new(diagnostic)),
        }
    }

    fn text(&self) -> String {
        match &self.place {
            Place::Exact(diagnostic) => diagnostic.to_string(),
            Place::None | Place::Line { .. } => {
                let parts = std::iter::once(&self.message).chain(&self.hints);
                parts.map(String::as_str).collect::<Vec<_>>().join("; ")
            }
        }
    }

    /// Tells of the problem without an error.
    pub(crate) fn warn(&self) {
        match tell::reader() {
            Format::Text => self.show(Severity::Warning),
            Format::Json => tell::object(&json!({ "warning": self.fields() })),
        }
    }

    fn show(&self, severity: Severity) {
        let text = match terminal::screen() {
            Some(screen) => self.drawn(severity, screen),
            None => self.lines(severity),
        };
        terminal::eprint(&text);
    }

    /// The problem for a pipe: lines that are never wrapped, in characters that every terminal has.
    fn lines(&self, severity: Severity) -> String {
        let (label, style) = match severity {
            Severity::Error => ("error:", STYLE_ERROR),
            Severity::Warning | Severity::Advice => ("warning:", STYLE_WARNING),
        };
        let message = match &self.place {
            // It has its own help, which comes last.
            Place::Exact(diagnostic) => Diagnostic {
                file: neutralise(&diagnostic.file).into_owned(),
                message: neutralise(&diagnostic.message).into_owned(),
                help: None,
                ..Diagnostic::clone(diagnostic)
            }
            .to_string(),
            Place::None | Place::Line { .. } => neutralise(&self.message).into_owned(),
        };
        let mut text = format!("{style}{label}{style:#} {message}\n");
        for hint in &self.hints {
            let hint = neutralise(hint);
            text = format!("{text}  {STYLE_HELP}help:{STYLE_HELP:#} {hint}\n");
        }
        text
    }

    /// The problem for a terminal, as wide as that is.
    fn drawn(&self, severity: Severity, screen: Screen) -> String {
        let (message, source) = match &self.place {
            Place::None | Place::Line { .. } => (self.message.clone(), None),
            Place::Exact(diagnostic) => {
                let digits = diagnostic.line.to_string().len();
                let width = screen.columns.saturating_sub(GUTTER + digits);
                match diagnostic.excerpt(width.max(LEAST_EXCERPT)) {
                    Some(excerpt) => {
                        let source = Source::new(diagnostic, excerpt);
                        (self.message.clone(), Some(source))
                    }
                    None => {
                        let (file, line) = (&diagnostic.file, diagnostic.line);
                        let column = diagnostic.column;
                        (format!("{file}:{line}:{column}: {}", self.message), None)
                    }
                }
            }
        };
        let shown = Shown {
            message: neutralise(&message).into_owned(),
            severity,
            help: self.hints.first().map(|hint| neutralise(hint).into_owned()),
            source,
        };
        let mut text = String::new();
        let handler = GraphicalReportHandler::new_themed(theme(screen))
            .with_width(screen.columns)
            .with_links(false)
            .without_syntax_highlighting()
            .without_cause_chain();
        if handler.render_report(&mut text, &shown).is_err() {
            return self.lines(severity);
        }
        for hint in self.hints.iter().skip(1) {
            let hint = neutralise(hint);
            text = format!("{text}  {STYLE_HELP}help:{STYLE_HELP:#} {hint}\n");
        }
        text
    }

    fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        match &self.place {
            Place::Line { file, line, column } => {
                let place = format!("{file}:{line}:{column}: ");
                let message = self.message.strip_prefix(&place);
                put("message", message.unwrap_or(&self.message).into());
            }
            Place::None | Place::Exact(_) => {
                put("message", self.message.clone().into());
            }
        }
        if !self.hints.is_empty() {
            put("help", self.hints.join("; ").into());
        }
        match &self.place {
            Place::None => {}
            Place::Line { file, line, column } => {
                put("file", file.clone().into());
                put("line", (*line).into());
                put("column", (*column).into());
            }
            Place::Exact(diagnostic) => {
                put("file", diagnostic.file.clone().into());
                put("line", diagnostic.line.into());
                put("column", diagnostic.column.into());
            }
        }
        fields
    }
}

impl From<ExecutorError> for CommandError {
    fn from(error: ExecutorError) -> Self {
        match error {
            ExecutorError::Resolve(error) => error.into(),
            error => Self::of(
                error.exit_code(),
                Problem {
                    hints: error.advice().into_iter().collect(),
                    ..Problem::new(sentence(&error))
                },
            ),
        }
    }
}

impl From<ResolveError> for CommandError {
    fn from(error: ResolveError) -> Self {
        let mut problem = Problem::new(sentence(&error));
        if let Some(Origin::File {
            file, line, column, ..
        }) = error.origin()
        {
            problem.place = Place::Line {
                file: file.clone(),
                line: *line,
                column: *column,
            };
        }
        Self::of(error.exit_code(), problem)
    }
}

impl From<&ConfigError> for CommandError {
    fn from(error: &ConfigError) -> Self {
        match error {
            ConfigError::File { problems } => {
                let problems = problems.iter().cloned().map(Problem::in_file);
                Self::all(problems.map(|problem| Self::of(error.exit_code(), problem)))
            }
            _ => Self::new(error.exit_code(), error.to_string()),
        }
    }
}

impl From<AgentImageError> for CommandError {
    fn from(error: AgentImageError) -> Self {
        Self::of(
            error.exit_code(),
            Problem {
                message: sentence(&error),
                hints: error.advice().into_iter().collect(),
                place: Place::None,
            },
        )
    }
}

impl From<EngineError> for CommandError {
    fn from(error: EngineError) -> Self {
        ExecutorError::from(error).into()
    }
}

impl From<CommandError> for Finding {
    fn from(error: CommandError) -> Self {
        if !error.more.is_empty() {
            return Self::failed(error.code, error.text(), None);
        }
        let Problem {
            message,
            hints,
            place,
        } = error.problem;
        let message = match place {
            Place::Exact(place) => {
                format!("{}:{}:{}: {message}", place.file, place.line, place.column)
            }
            Place::None | Place::Line { .. } => message,
        };
        Self::failed(error.code, message, hints.into_iter().next())
    }
}

/// Returns the word for an exit code, as `--json` has it.
fn kind(code: u8) -> &'static str {
    match code {
        exit_code::USAGE => "usage",
        exit_code::NOT_FOUND => "not_found",
        exit_code::ENGINE => "engine",
        exit_code::LIMIT => "limit",
        exit_code::LOST => "lost",
        exit_code::TIMED_OUT => "timed_out",
        exit_code::CANCELLED => "cancelled",
        exit_code::KILLED => "killed",
        exit_code::FAILED => "failed",
        _ => "internal",
    }
}

const STYLE_ERROR: anstyle::Style = anstyle::AnsiColor::Red.on_default().bold();
const STYLE_WARNING: anstyle::Style = anstyle::AnsiColor::Yellow.on_default().bold();
const STYLE_HELP: anstyle::Style = anstyle::AnsiColor::Cyan.on_default();

/// The same words as in a pipe, around a snippet that is drawn.
fn theme(screen: Screen) -> GraphicalTheme {
    let characters = match screen.charset {
        terminal::Charset::Unicode => ThemeCharacters::unicode(),
        terminal::Charset::Ascii => ThemeCharacters::ascii(),
    };
    GraphicalTheme {
        characters: ThemeCharacters {
            error: "error:".to_owned(),
            warning: "warning:".to_owned(),
            advice: "note:".to_owned(),
            ..characters
        },
        // What the terminal or NO_COLOR does not want is stripped where it is printed.
        styles: ThemeStyles::ansi(),
    }
}

/// A problem as `miette` wants it.
#[derive(Debug)]
struct Shown {
    message: String,
    severity: Severity,
    help: Option<String>,
    source: Option<Source>,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Shown {}

impl miette::Diagnostic for Shown {
    fn severity(&self) -> Option<Severity> {
        Some(self.severity)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let help = self.help.as_ref()?;
        Some(Box::new(help))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        let source = self.source.as_ref()?;
        Some(source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let source = self.source.as_ref()?;
        let label = LabeledSpan::new(None, source.offset, source.len);
        Some(Box::new(std::iter::once(label)))
    }
}

/// One line of a file, or a part of it, that knows where in the file the place is.
#[derive(Debug)]
struct Source {
    file: String,
    text: String,
    /// The place in the text, in bytes.
    offset: usize,
    len: usize,
    line: usize,
    column: usize,
}

impl Source {
    fn new(diagnostic: &Diagnostic, excerpt: Excerpt) -> Self {
        let mut text = excerpt.text;
        // A place behind the end of the line has a character of its own to be under.
        if excerpt.before >= text.chars().count() {
            text.push(' ');
        }
        let mut starts = text.char_indices().map(|(start, _)| start);
        let offset = starts.nth(excerpt.before).unwrap_or(0);
        let end = starts.nth(excerpt.len - 1).unwrap_or(text.len());
        Self {
            file: neutralise(&diagnostic.file).into_owned(),
            len: end - offset,
            text,
            offset,
            line: diagnostic.line,
            column: diagnostic.column,
        }
    }
}

impl SourceCode for Source {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        _before: usize,
        _after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        if span.offset() + span.len() > self.text.len() {
            return Err(MietteError::OutOfBounds);
        }
        Ok(Box::new(MietteSpanContents::new_named(
            self.file.clone(),
            self.text.as_bytes(),
            (0, self.text.len()).into(),
            self.line - 1,
            self.column - 1,
            1,
        )))
    }
}
