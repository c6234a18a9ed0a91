//! A problem in a file, shown with its place.
//!
//! Owns: how such a problem looks to a person.
//! Reads: the text of the file.
//! Never: decides whether it is an error or a warning.

use std::fmt;

/// Characters of a source line that are shown at most.
const WINDOW: usize = 120;

/// A stretch of one line of a file; lines and columns count from 1, columns and lengths in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) len: usize,
}

/// A problem at a place whose file is known from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) place: Place,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
    source: Source,
}

/// Whether the line that a fault is in may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Shown,
    /// There may be a secret in it.
    Hidden,
}

impl Fault {
    pub(crate) fn new(place: Place, message: impl Into<String>) -> Self {
        Self {
            place,
            message: message.into(),
            help: None,
            source: Source::Shown,
        }
    }

    /// Keeps the line from being shown, because there may be a secret in it.
    pub(crate) fn hidden(mut self) -> Self {
        self.source = Source::Hidden;
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Names the file that the problem is in, and takes the line to show from its text.
    pub(crate) fn in_file(self, file: &str, text: &str) -> Diagnostic {
        let source_line = match self.source {
            Source::Shown => text.lines().nth(self.place.line.saturating_sub(1)),
            Source::Hidden => None,
        };
        Diagnostic {
            file: file.to_owned(),
            line: self.place.line,
            column: self.place.column,
            len: self.place.len,
            message: self.message,
            help: self.help,
            source_line: source_line.unwrap_or_default().to_owned(),
        }
    }
}

/// A problem in a file.
///
/// Its text is `FILE:LINE:COLUMN: MESSAGE`, then the line with a caret under the place, then the help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, as it was named.
    pub file: String,
    /// Line in the file, counted from 1.
    pub line: usize,
    /// Column in the line, in characters, counted from 1.
    pub column: usize,
    /// Length of the place, in characters.
    pub len: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The whole line, without its end.
    pub source_line: String,
}

/// The part of a line that is shown, without anything that a terminal would obey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// The text: one character for each of the line's.
    pub text: String,
    /// Characters of it in front of the place.
    pub before: usize,
    /// Characters of it that the place has; at least 1, also behind the end of the text.
    pub len: usize,
}

impl Diagnostic {
    /// Returns the part of the line around the place, at most `width` characters; `None` if there is no line to show.
    pub fn excerpt(&self, width: usize) -> Option<Excerpt> {
        let chars = self.source_line.chars().count();
        if chars == 0 {
            return None;
        }
        let before = self.column.saturating_sub(1).min(chars);
        let skip = if chars <= width {
            0
        } else {
            before.saturating_sub(width / 3)
        };
        let shown = self.source_line.chars().skip(skip).take(width);
        let text: String = shown.map(printable).collect();
        let before = before - skip;
        let left = text.chars().count().saturating_sub(before);
        Some(Excerpt {
            text,
            before,
            len: self.len.clamp(1, left.max(1)),
        })
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            column,
            message,
            ..
        } = self;
        write!(f, "{file}:{line}:{column}: {message}")?;
        if let Some(Excerpt { text, before, len }) = self.excerpt(WINDOW) {
            let number = line.to_string();
            let gutter = number.len();
            write!(f, "\n  {number} | {text}")?;
            write!(f, "\n  {:gutter$} | {:before$}{:^<len$}", "", "", "")?;
        }
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// Keeps the caret below its character and control characters away from the terminal.
fn printable(c: char) -> char {
    match c {
        '\t' => ' ',
        // Those that change the direction of text would move the caret.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            char::REPLACEMENT_CHARACTER
        }
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnostic(column: usize, len: usize, line: &str) -> Diagnostic {
        Fault::new(
            Place {
                line: 1,
                column,
                len,
            },
            "no",
        )
        .in_file("p.md", line)
    }

    #[test]
    fn the_caret_stands_under_the_place() {
        let text = diagnostic(9, 2, "memory: 8x").to_string();

        assert_eq!(text, "p.md:1:9: no\n  1 | memory: 8x\n    |         ^^");
    }

    #[test]
    fn a_place_behind_the_end_of_the_line_has_one_caret() {
        let text = diagnostic(40, 9, "a:").to_string();

        assert_eq!(text, "p.md:1:40: no\n  1 | a:\n    |   ^");
    }

    #[test]
    fn a_long_line_is_shown_around_the_place() {
        let line = format!("{}BAD{}", "a".repeat(500), "b".repeat(500));

        let text = diagnostic(501, 3, &line).to_string();

        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1].len(), "  1 | ".len() + WINDOW);
        assert_eq!(lines[1].find("BAD"), lines[2].find("^^^"));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let text = diagnostic(1, 1, "a\u{1b}[31m\tb").to_string();

        assert!(text.contains("a\u{fffd}[31m b"), "{text:?}");
    }
}
