//! Lines on a page of a certain width.
//!
//! Owns: the cutting and the breaking of lines by the columns that they take, indents, colours.
//! Reads: text of any origin.
//! Never: lets a control character through; breaks a line that a terminal can break as well, and join again.

use std::fmt::Write as _;

use anstyle::Style;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::super::neutralise;
use super::{ColorChoice, TextStyle};

/// Columns of a one-line summary where the width is not known.
const DEFAULT_WIDTH: usize = 160;
/// The narrowest width that is respected.
const LEAST_WIDTH: usize = 20;
/// What a subagent's lines are moved to the right by.
const STEP: &str = "  │ ";
/// Columns of the step.
const STEP_WIDTH: usize = 4;
/// What a tab becomes where columns are counted.
const TAB: &str = "    ";
/// Characters without a width that are kept for each column.
const MARKS: usize = 4;
/// Lines of one text that are shown.
const BLOCK_LINES: usize = 2000;

/// Where an event's lines go.
pub(super) struct Page<'o> {
    out: &'o mut String,
    color: ColorChoice,
    depth: usize,
    /// Columns right of the indent.
    width: usize,
    /// Whether long lines of texts are broken: where the terminal would begin the next one left of the indent.
    is_broken: bool,
}

impl<'o> Page<'o> {
    /// Makes a page for lines of a subagent that deep; 0 is the agent itself.
    pub(super) fn new(out: &'o mut String, style: TextStyle, depth: usize) -> Self {
        let width = style.width.map_or(DEFAULT_WIDTH, usize::from);
        let width = width.max(LEAST_WIDTH);
        // An indent never takes more than a third.
        let depth = depth.min(width / (3 * STEP_WIDTH));
        Self {
            out,
            color: style.color,
            depth,
            width: width - depth * STEP_WIDTH,
            is_broken: depth > 0 && style.width.is_some(),
        }
    }

    /// Appends one line, cut to the width.
    pub(super) fn line(&mut self, style: Style, text: &str) {
        let text = one_line(text, self.width);
        self.paint(style, &text);
    }

    /// Appends one line that is not cut.
    pub(super) fn whole(&mut self, style: Style, text: &str) {
        let text = neutralise(text);
        self.broken(style, &text.replace('\n', " "));
    }

    /// Appends all lines of a text, as far as there are not too many.
    pub(super) fn block(&mut self, style: Style, text: &str) {
        let mut lines = text.split('\n');
        for line in lines.by_ref().take(BLOCK_LINES) {
            let line = neutralise(line.strip_suffix('\r').unwrap_or(line));
            self.broken(style, &line);
        }
        let more = lines.count();
        if more > 0 {
            self.line(super::DIM, &format!("… {more} more lines"));
        }
    }

    /// Appends a neutralised line, in as many as the width makes of it.
    fn broken(&mut self, style: Style, line: &str) {
        let spaced;
        let mut rest = line;
        if self.is_broken && line.contains('\t') {
            // What a tab is worth depends on where it stands.
            spaced = line.replace('\t', TAB);
            rest = &spaced;
        }
        while self.is_broken {
            let fits = fitting(rest, self.width);
            if fits == rest.len() {
                break;
            }
            // One character there has to be, however wide it is.
            let fits = fits.max(rest.chars().next().map_or(0, char::len_utf8));
            let (end, next) = match rest[..fits].rfind(' ') {
                Some(space) if !rest[..space].trim().is_empty() => (space, space + 1),
                _ => (fits, fits),
            };
            self.paint(style, &rest[..end]);
            rest = &rest[next..];
        }
        self.paint(style, rest);
    }

    fn paint(&mut self, style: Style, line: &str) {
        for _ in 0..self.depth {
            self.out.push_str(STEP);
        }
        if self.color == ColorChoice::Never || line.is_empty() || style.is_plain() {
            self.out.push_str(line);
            self.out.push('\n');
        } else {
            // Writing to a string cannot fail.
            let _ = writeln!(self.out, "{style}{line}{style:#}");
        }
    }
}

/// Returns the text on one line of at most `width` columns, neutralised.
pub(super) fn one_line(text: &str, width: usize) -> String {
    let text = text.trim_end();
    // More than that many bytes never fit.
    let most = width.saturating_mul(4 * (MARKS + 1)).saturating_add(64);
    let kept = &text[..text.floor_char_boundary(most)];
    let line = kept.replace("\r\n", "\n").replace('\t', TAB);
    let line = neutralise(&line).replace('\n', " ⏎ ");
    if kept.len() == text.len() && fitting(&line, width) == line.len() {
        return line;
    }
    let end = fitting(&line, width.saturating_sub(1));
    format!("{}…", &line[..end])
}

/// Returns how many bytes of the beginning of a text fit into so many columns.
fn fitting(text: &str, width: usize) -> usize {
    let (mut end, mut columns, mut marks, mut last) = (0, 0, 0, 0);
    for (at, char) in text.char_indices() {
        let this = match char {
            // It makes the picture of the character before it a wide one.
            '\u{fe0f}' if last == 1 => 1,
            _ => char.width().unwrap_or(0),
        };
        marks += usize::from(this == 0);
        if columns + this > width || marks > MARKS * (width + 1) {
            break;
        }
        (columns, last, end) = (columns + this, this, at + char.len_utf8());
    }
    // What several characters are together may be wider than each alone.
    while end > 0 && end < text.len() && text[..end].width() > width.max(columns) {
        end = text.floor_char_boundary(end - 1);
    }
    end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_summary_is_cut_by_columns() {
        for (text, width, shown) in [
            ("abcdef", 6, "abcdef"),
            ("abcdefg", 6, "abcde…"),
            ("日本語日本語", 6, "日本…"),
            ("e\u{301}e\u{301}e\u{301}e\u{301}", 3, "e\u{301}e\u{301}…"),
            ("☺\u{fe0f}☺\u{fe0f}☺\u{fe0f}", 5, "☺\u{fe0f}☺\u{fe0f}…"),
            ("a\r\nb\tc\n\n", 20, "a ⏎ b    c"),
            ("\x1b[2J", 20, "␛[2J"),
        ] {
            assert_eq!(one_line(text, width), shown);
        }
    }

    #[test]
    fn a_hundred_thousand_marks_on_a_letter_do_not_make_a_line_long() {
        let text = format!("e{}", "\u{301}".repeat(100_000));

        assert!(one_line(&text, 20).len() < 1000);
    }

    proptest! {
        #[test]
        fn no_summary_is_wider_than_it_may_be(text in any::<String>(), width in 2usize..60) {
            let line = one_line(&text, width);

            prop_assert!(line.width() <= width, "{line:?}");
            prop_assert!(!line.contains('\n'));
        }

        #[test]
        fn breaking_a_line_loses_nothing_but_spaces(text in "[ a-zé日👍\u{301}]{0,200}", width in 20u16..40) {
            let style = TextStyle { color: ColorChoice::Never, width: Some(width) };
            let mut out = String::new();

            Page::new(&mut out, style, 1).block(Style::new(), &text);

            let letters = |text: &str| text.chars().filter(|char| !" │\n".contains(*char)).collect::<String>();
            prop_assert_eq!(letters(&out), letters(&text));
            for line in out.lines() {
                prop_assert!(line.width() <= usize::from(width), "{line:?}");
            }
        }
    }
}
