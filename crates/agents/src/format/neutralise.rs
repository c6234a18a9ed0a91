//! Makes control characters visible, so that text of an agent cannot drive a terminal.
//!
//! Owns: which characters are shown as what.
//! Reads: text.
//! Never: changes a newline or a tab.

use std::borrow::Cow;

/// Replaces what a terminal would obey by something that it shows.
///
/// C0 controls and DEL become their pictures (`␛`); C1 controls and characters that change the
/// direction of text become `<U+202E>`. Newlines and tabs stay.
pub fn neutralise(text: &str) -> Cow<'_, str> {
    let Some(first) = text.find(is_control) else {
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

fn code_point(char: char) -> String {
    format!("<U+{:04X}>", u32::from(char))
}

fn is_control(char: char) -> bool {
    match char {
        '\n' | '\t' => false,
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

    proptest! {
        #[test]
        fn nothing_that_a_terminal_obeys_is_left(text in any::<String>()) {
            let shown = neutralise(&text);

            prop_assert!(!shown.contains(is_control));
            prop_assert_eq!(neutralise(&shown), shown.as_ref());
        }
    }
}
