//! What must be true of text that is printed.
//!
//! Owns: the checks of control characters, colours and widths.
//! Reads: what a formatter wrote.
//! Never: knows what the text means.

use dark_factory_agents::{ColorChoice, TextFormatter, TextState, TextStyle};
use dark_factory_types::{Event, EventKind};
use unicode_width::UnicodeWidthStr;

/// The narrowest width that is respected.
const LEAST_WIDTH: usize = 20;

/// Returns whether an event is the agent's own words, which the terminal breaks.
fn is_words(event: &Event) -> bool {
    let is_word = matches!(
        event.kind,
        EventKind::Text { .. } | EventKind::Line { .. } | EventKind::TurnEnd { .. }
    );
    is_word && event.parent.is_none()
}

/// Checks the lines of one event.
pub(crate) fn check(out: &str, style: TextStyle, event: &Event) {
    assert!(out.is_empty() || out.ends_with('\n'), "{event:?}");
    for line in out.lines() {
        let plain = match style.color {
            ColorChoice::Never => line.to_owned(),
            ColorChoice::Always => without_colours(line),
        };
        let drives = |char: char| char.is_control() && char != '\t';
        assert!(!plain.contains(drives), "{plain:?} of {event:?}");
        if let Some(width) = style.width.filter(|_| !is_words(event)) {
            let (most, columns) = (usize::from(width).max(LEAST_WIDTH), plain.width());
            assert!(
                columns <= most,
                "{columns} columns of {most}: {plain:?} of {event:?}"
            );
            assert!(!plain.contains('\t'), "{plain:?}");
        }
    }
}

/// Returns a formatter that goes on from what was saved of another.
pub(crate) fn saved(formatter: &TextFormatter, style: TextStyle) -> TextFormatter {
    let saved = serde_json::to_string(&formatter.save()).unwrap_or_default();
    match serde_json::from_str::<TextState>(&saved) {
        Ok(state) => TextFormatter::restore(style, state),
        Err(error) => panic!("{error}: {saved}"),
    }
}

/// Returns a line without its colours, all of which are taken back at its end.
fn without_colours(line: &str) -> String {
    let mut parts = line.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    let mut last = "0";
    for part in parts {
        let Some((code, text)) = part.split_once('m') else {
            panic!("not a colour: {line:?}");
        };
        assert!(
            code.bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b';'),
            "not a colour: {line:?}"
        );
        last = code;
        plain.push_str(text);
    }
    assert_eq!(last, "0", "the line's colour goes on: {line:?}");
    plain
}
