//! A problem in a file, shown with its place.
//!
//! Owns: how such a problem looks to a person.
//! Reads: the text of the file.
//! Never: decides whether it is an error or a warning.

use std::fmt;

use super::{is_secret_name, nearest};

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
            Source::Shown if may_hold_secret(text, self.place.line) => None,
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

/// What values that may be secrets stand below, and what is near to it.
const SECRET_BLOCKS: [&str; 4] = ["env", "environment", "secret", "secrets"];

/// Tells whether a line of a YAML or TOML text, counted from 1, may hold a secret: by the names in it, or because it is
/// part of the environment or of secrets. In doubt it may.
pub(super) fn may_hold_secret(text: &str, line: usize) -> bool {
    let lines: Vec<&str> = text.lines().take(line).collect();
    if lines.last().is_some_and(|line| is_secret_name(line)) {
        return true;
    }
    let is_block = |name: &str| {
        let mut parts = name
            .split('.')
            .map(|part| part.trim().trim_matches(['"', '\'']));
        parts.any(|part| nearest(part, SECRET_BLOCKS).is_some())
    };
    let mut is_owner_known = false;
    for above in lines.iter().rev() {
        let trimmed = above.trim();
        if trimmed.starts_with('#') {
            continue;
        }
        if let Some(table) = trimmed.strip_prefix('[')
            && let Some((table, _)) = table.trim_start_matches('[').split_once(']')
        {
            return is_block(table);
        }
        let Some((name, _)) = trimmed.split_once([':', '=']) else {
            continue;
        };
        if !is_owner_known && is_block(name) {
            return true;
        }
        // Above the outermost key only a table of TOML may still be around the line.
        is_owner_known |= !above.starts_with([' ', '\t', '-']);
    }
    false
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

/// Several problems, each on lines of its own.
pub(crate) struct Joined<'a, T>(pub(crate) &'a [T]);

impl<T: fmt::Display> fmt::Display for Joined<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
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
    fn a_line_that_may_hold_a_secret_is_not_shown() {
        for (text, line) in [
            ("memory: 1\nMY_TOKEN: x", 2),
            ("env:\n  # a comment\n  A: x\n  B: y", 4),
            ("env:\n- A=x", 2),
            ("envs: {A: x}", 1),
            ("env: |\n  a\n  b", 3),
            ("[profile.a.env]\nA = 1\nB = 2", 3),
            ("[profile.a]\nenv.A = 1", 2),
            ("env = {\n  A = 1,\n  B = 2\n}", 3),
            ("secrets.a = 1", 1),
        ] {
            assert!(may_hold_secret(text, line), "{text}");
        }
        for (text, line) in [
            ("env: {A: x}\nmemory: 1", 2),
            ("env.A = 1\nmemory = 4g", 2),
            ("[env]\nA = 1\n[profile.a]\nmemory = 4g", 4),
            ("# env\nmount:\n  - a:/b", 3),
        ] {
            assert!(!may_hold_secret(text, line), "{text}");
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let text = diagnostic(1, 1, "a\u{1b}[31m\tb").to_string();

        assert!(text.contains("a\u{fffd}[31m b"), "{text:?}");
    }
}
