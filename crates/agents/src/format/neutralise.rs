//! Makes control characters visible, so that text of an agent cannot drive a terminal.
//!
//! Owns: which characters are shown as what.
//! Reads: text.
//! Never: changes a newline or a tab.

use std::borrow::Cow;

use wide::u8x16;

/// Bytes that are looked at together.
const PART: usize = 64;

/// Replaces what a terminal would obey by something that it shows.
///
/// C0 controls and DEL become their pictures (`␛`); C1 controls, separators of lines and paragraphs, and
/// characters that change the direction of text become `<U+202E>`. Newlines and tabs stay.
pub fn neutralise(text: &str) -> Cow<'_, str> {
    let Some(first) = first_control(text) else {
        return text.into();
    };
    let (clean, rest) = text.split_at(first);
    let mut out = String::with_capacity(text.len() + 16);
    out.push_str(clean);
    for char in rest.chars() {
        match picture(char) {
            _ if !is_control(char) => out.push(char),
            Some(picture) => out.push(picture),
            None => out.push_str(&code_point(char)),
        }
    }
    out.into()
}

/// Returns where the first character stands that a terminal would obey.
fn first_control(text: &str) -> Option<usize> {
    let mut at = 0;
    for part in text.as_bytes().chunks(PART) {
        let end = at + part.len();
        if may_hold_control(part) {
            let start = text.ceil_char_boundary(at);
            let part = &text[start..text.ceil_char_boundary(end)];
            if let Some(found) = part.find(is_control) {
                return Some(start + found);
            }
        }
        at = end;
    }
    None
}

/// Returns whether a control character may begin in these bytes; sixteen are looked at together, which is ten times as
/// fast as characters one by one.
fn may_hold_control(part: &[u8]) -> bool {
    let (blocks, rest) = part.as_chunks();
    (!is_printed_ascii(blocks) && may_begin_control_in(blocks))
        || rest.iter().copied().any(may_begin_control)
}

fn may_begin_control_in(blocks: &[[u8; 16]]) -> bool {
    let found = blocks.iter().fold(u8x16::ZERO, |found, block| {
        let block = u8x16::new(*block);
        let is = |byte| block.simd_eq(u8x16::splat(byte));
        let below_space = block.min(u8x16::splat(0x1f)).simd_eq(block);
        found | (below_space & !(is(b'\n') | is(b'\t'))) | is(0x7f) | is(0xc2) | is(0xd8) | is(0xe2)
    });
    found != u8x16::ZERO
}

/// Returns whether there is nothing but what ASCII prints, as nearly always.
fn is_printed_ascii(blocks: &[[u8; 16]]) -> bool {
    let (least, most) = (u8x16::splat(b' '), u8x16::splat(b'~'));
    let (low, high) = blocks.iter().fold((least, most), |(low, high), block| {
        let block = u8x16::new(*block);
        (low.min(block), high.max(block))
    });
    low == least && high == most
}

/// Returns whether a control character may begin with this byte: itself, or the first byte of its encoding.
const fn may_begin_control(byte: u8) -> bool {
    ((byte < 0x20) & (byte != b'\n') & (byte != b'\t'))
        | (byte == 0x7f)
        | (byte == 0xc2)
        | (byte == 0xd8)
        | (byte == 0xe2)
}

fn code_point(char: char) -> String {
    format!("<U+{:04X}>", u32::from(char))
}

fn is_control(char: char) -> bool {
    match char {
        '\n' | '\t' => false,
        // Separators at which many programs begin a new line.
        '\u{2028}' | '\u{2029}' => true,
        // Marks, embeddings, overrides and isolates of the bidirectional algorithm.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            true
        }
        _ => char.is_control(),
    }
}

fn picture(char: char) -> Option<char> {
    match char {
        '\0'..='\x1f' => char::from_u32(0x2400 + u32::from(char)),
        '\x7f' => Some('␡'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn controls_are_shown_and_not_obeyed() {
        for (text, shown) in [
            ("plain\n\ttext", "plain\n\ttext"),
            ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
            ("\x1b]0;title\x07", "␛]0;title␇"),
            ("50%\r100%\x08\x7f\0", "50%␍100%␈␡␀"),
            ("\u{9b}31m", "<U+009B>31m"),
            ("a\u{2028}b\u{2029}c", "a<U+2028>b<U+2029>c"),
            ("a\u{202e}b\u{2069}", "a<U+202E>b<U+2069>"),
            ("ä → 💭", "ä → 💭"),
        ] {
            assert_eq!(neutralise(text), shown);
        }
    }

    #[test]
    fn clean_text_is_not_copied() {
        assert!(matches!(neutralise("clean"), Cow::Borrowed(_)));
    }

    #[test]
    fn every_control_begins_with_a_byte_that_is_looked_for() {
        for char in ('\0'..=char::MAX).filter(|char| is_control(*char)) {
            let mut bytes = [0; 4];

            let first = char.encode_utf8(&mut bytes).as_bytes()[0];

            assert!(may_begin_control(first), "{char:?}");
            assert!(may_hold_control(&[first; 16]), "{char:?}");
        }
    }

    #[test]
    fn bytes_are_suspected_together_as_they_are_alone() {
        for byte in 0..=u8::MAX {
            let mut bytes = [b'a'; 64];
            bytes[37] = byte;

            assert_eq!(may_hold_control(&bytes), may_begin_control(byte), "{byte}");
            assert_eq!(may_hold_control(&bytes[30..40]), may_begin_control(byte));
        }
    }

    proptest! {
        #[test]
        fn nothing_that_a_terminal_obeys_is_left(text in any::<String>()) {
            let shown = neutralise(&text);

            prop_assert!(!shown.contains(is_control));
            prop_assert_eq!(neutralise(&shown), shown.as_ref());
        }
    }
}
