//! Just enough JSON writing for the Claude-shaped events.
//!
//! Owns: string escapes.
//! Reads: nothing.
//! Never: parses.

use std::fmt::Write;

/// Returns `text` as a JSON string with its quotes.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control < ' ' => {
                // Writing to a string cannot fail.
                let _written = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_quotes_are_escaped() {
        assert_eq!(quote("a\"\\\n\u{1b}é"), "\"a\\\"\\\\\\n\\u001bé\"");
    }
}
