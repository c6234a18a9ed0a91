//! Steps over JSON, once, and hands out what stands where.
//!
//! Owns: the place in the text.
//! Reads: JSON text.
//! Never: recurses, allocates, or takes for JSON what is not.
//!
//! It is as strict as `serde_json`, which it replaces: that reads half as fast and has no way to step over a value
//! without a second look at it. See `docs/decisions/0015-how-json-is-read.md`.

use std::borrow::Cow;

use wide::u8x16;

use super::JsonStr;

/// What is read of a key that has escapes, in bytes: all of any that means something.
const KEY_CAP: usize = 64 << 10;

/// A JSON value as it stands in its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Raw<'a>(&'a str);

impl<'a> Raw<'a> {
    /// Returns the value that a text is; `None` if it is not one JSON value.
    #[cfg(test)]
    pub(crate) fn of(text: &'a str) -> Option<Self> {
        let mut reader = Reader::new(text);
        let value = reader.value()?;
        reader.is_at_end().then_some(value)
    }

    /// Returns the text of the value, without blanks around it.
    pub(crate) fn get(self) -> &'a str {
        self.0
    }
}

/// A place in a JSON text, from which values are read one after the other.
///
/// Every method returns `None` where the text is not JSON; what was read before is then not to be believed.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    /// Begins at the beginning of a text.
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Returns whether nothing but blanks is left.
    pub(crate) fn is_at_end(&mut self) -> bool {
        self.peek().is_none()
    }

    /// Returns what was not read yet.
    pub(crate) fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Returns the first byte of what comes next.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.as_bytes().get(self.at)?;
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// Steps over a value.
    pub(crate) fn value(&mut self) -> Option<Raw<'a>> {
        let first = self.peek()?;
        let start = self.at;
        match first {
            b'{' | b'[' => self.container()?,
            _ => self.scalar(first)?,
        }
        self.text.get(start..self.at).map(Raw)
    }

    /// Reads an object: `entry` is given each key and has to read, or to step over, its value.
    pub(crate) fn object(
        &mut self,
        mut entry: impl FnMut(&mut Self, &str) -> Option<()>,
    ) -> Option<()> {
        self.take(b'{')?;
        if self.takes(b'}') {
            return Some(());
        }
        loop {
            let key = self.key()?;
            entry(self, &key)?;
            if !self.takes(b',') {
                return self.take(b'}');
            }
        }
    }

    /// Reads an array: `element` has to read, or to step over, each element.
    pub(crate) fn array(&mut self, mut element: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.take(b'[')?;
        if self.takes(b']') {
            return Some(());
        }
        loop {
            element(self)?;
            if !self.takes(b',') {
                return self.take(b']');
            }
        }
    }

    /// Reads a key and the colon after it.
    fn key(&mut self) -> Option<Cow<'a, str>> {
        self.peek()?;
        let start = self.at + 1;
        let escapes = self.string()?;
        let key = self.text.get(start..self.at - 1)?;
        self.take(b':')?;
        Some(match escapes {
            Escapes::None => key.into(),
            Escapes::Some => JsonStr::new(key).head(KEY_CAP).into(),
        })
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        self.takes(byte).then_some(())
    }

    fn takes(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Steps over an object or an array and all that is in it.
    fn container(&mut self) -> Option<()> {
        let mut open = Nesting::default();
        loop {
            let first = self.peek()?;
            let end = match first {
                b'{' => Some(b'}'),
                b'[' => Some(b']'),
                _ => None,
            };
            match end {
                None => self.scalar(first)?,
                Some(end) => {
                    self.at += 1;
                    if !self.takes(end) {
                        open.push(end);
                        if end == b'}' {
                            self.step_over_key()?;
                        }
                        continue;
                    }
                }
            }
            loop {
                let Some(end) = open.innermost() else {
                    return Some(());
                };
                if self.takes(b',') {
                    if end == b'}' {
                        self.step_over_key()?;
                    }
                    break;
                }
                self.take(end)?;
                open.pop();
            }
        }
    }

    fn step_over_key(&mut self) -> Option<()> {
        self.peek()?;
        self.string()?;
        self.take(b':')
    }

    /// Steps over a value that holds no other; it begins here, with `first`.
    fn scalar(&mut self, first: u8) -> Option<()> {
        match first {
            b'"' => self.string().map(drop),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.number(),
        }
    }

    fn word(&mut self, word: &str) -> Option<()> {
        let is_there = self.text.as_bytes()[self.at..].starts_with(word.as_bytes());
        self.at += word.len();
        is_there.then_some(())
    }

    fn number(&mut self) -> Option<()> {
        let bytes = self.text.as_bytes();
        let mut at = self.at + usize::from(bytes[self.at] == b'-');
        let digits = |at: usize| {
            let rest = bytes.get(at..).unwrap_or_default();
            let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            (count > 0).then_some(at + count)
        };
        at = match bytes.get(at) {
            Some(b'0') => at + 1,
            _ => digits(at)?,
        };
        if bytes.get(at) == Some(&b'.') {
            at = digits(at + 1)?;
        }
        if let Some(b'e' | b'E') = bytes.get(at) {
            let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
            at = digits(at + 1 + sign)?;
        }
        self.at = at;
        Some(())
    }

    /// Steps over a string, which begins here.
    fn string(&mut self) -> Option<Escapes> {
        let bytes = self.text.as_bytes();
        if bytes.get(self.at) != Some(&b'"') {
            return None;
        }
        let mut escapes = Escapes::None;
        let mut at = self.at + 1;
        while let Some(block) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
            let mut marks = specials(block);
            let mut next = at + BLOCK;
            while marks != 0 {
                let mark = at + marks.trailing_zeros() as usize;
                match bytes[mark] {
                    b'"' => {
                        self.at = mark + 1;
                        return Some(escapes);
                    }
                    b'\\' => {
                        escapes = Escapes::Some;
                        let end = end_of_escape(bytes, mark)?;
                        match u32::MAX.checked_shl(u32_of(end - at)) {
                            Some(after) => marks &= after,
                            None => {
                                next = end;
                                break;
                            }
                        }
                    }
                    // A control character, which has to be escaped.
                    _ => return None,
                }
            }
            at = next;
        }
        loop {
            match bytes.get(at)? {
                b'"' => {
                    self.at = at + 1;
                    return Some(escapes);
                }
                b'\\' => {
                    escapes = Escapes::Some;
                    at = end_of_escape(bytes, at)?;
                }
                0..0x20 => return None,
                _ => at += 1,
            }
        }
    }
}

/// Whether a string has any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escapes {
    None,
    Some,
}

/// Returns where the escape at `at` ends.
#[inline]
fn end_of_escape(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at + 1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(at + 2),
        b'u' => {
            let digits = bytes.get(at + 2..at + 6)?;
            digits.iter().all(u8::is_ascii_hexdigit).then_some(at + 6)
        }
        _ => None,
    }
}

/// Bytes of a string that are looked at together.
const BLOCK: usize = 32;

/// Returns which bytes are a quote, a backslash or a control character, the first in the lowest bit.
fn specials(block: &[u8; BLOCK]) -> u32 {
    let (low, high) = block.split_at(BLOCK / 2);
    let marks = |half: &[u8]| {
        let half = u8x16::from(half);
        let quotes = half.simd_eq(u8x16::splat(b'"'));
        let slashes = half.simd_eq(u8x16::splat(b'\\'));
        let controls = half.min(u8x16::splat(0x1f)).simd_eq(half);
        (quotes | slashes | controls).to_bitmask()
    };
    marks(low) | marks(high) << (BLOCK / 2)
}

/// Returns where the next backslash is, from a place on.
#[inline]
pub(super) fn next_backslash(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(block) = bytes.get(at..).and_then(|rest| rest.first_chunk::<16>()) {
        let slashes = u8x16::new(*block).simd_eq(u8x16::splat(b'\\'));
        let marks = slashes.to_bitmask();
        if marks != 0 {
            return Some(at + marks.trailing_zeros() as usize);
        }
        at += 16;
    }
    let rest = bytes.get(at..)?;
    let left = rest.iter().position(|&byte| byte == b'\\');
    left.map(|left| at + left)
}

/// Narrows a length within two blocks.
fn u32_of(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Which containers are open: one bit for each, whether it is an object.
#[derive(Debug, Default)]
struct Nesting {
    /// The innermost 64 at most.
    word: u64,
    depth: usize,
    /// The others.
    outer: Vec<u64>,
}

impl Nesting {
    /// Opens a container that ends with this byte.
    fn push(&mut self, end: u8) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.word);
        }
        self.word = self.word << 1 | u64::from(end == b'}');
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.word >>= 1;
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.word = self.outer.pop().unwrap_or_default();
        }
    }

    /// Returns the byte with which the innermost container ends.
    fn innermost(&self) -> Option<u8> {
        (self.depth > 0).then_some(if self.word & 1 == 1 { b'}' } else { b']' })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    /// Pieces of JSON, and of what is nearly JSON.
    fn likely() -> impl Strategy<Value = String> {
        let words = prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"", "\"a\"", "\"a\":", "\"b\\n\"", "\\", "\\u12aF",
            "\\u12", "\\ud800", "\\x", "0", "01", "-", "-1.5e+7", "1.", ".5", "1e", "2E5", "true",
            "tru", "false", "null", " ", "\t", "\n", "\u{1}", "\u{7f}", "é", "x", "        ",
            "\u{feff}",
        ]);
        prop_oneof![
            proptest::collection::vec(words, 0..24).prop_map(|words| words.concat()),
            any::<String>().prop_map(|text| format!("\"{text}\"")),
            ".{0,31}(\\\\[\"n\\\\u]){0,40}.{0,40}".prop_map(|text| format!("\"{text}\",1")),
            ".{0,31}(\\\\[\"n\\\\]|\\\\u00e9|.){0,40}".prop_map(|text| format!("\"{text}\"")),
            valid().prop_map(|value| value.to_string()),
        ]
    }

    fn valid() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(100, 200, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                proptest::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn what_serde_json_reads_is_read_and_nothing_else(text in likely()) {
            let value = Raw::of(&text);

            let expected = serde_json::from_str::<&RawValue>(&text).ok();

            prop_assert_eq!(value.map(Raw::get), expected.map(RawValue::get));
        }
    }

    #[test]
    fn containers_close_in_the_order_in_which_they_opened() {
        for depth in [1, 2, 63, 64, 65, 128, 129, 1000] {
            let (mut text, mut ends) = (String::new(), Vec::new());
            for level in 0..depth {
                let (begin, end) = if level % 3 == 0 {
                    ("[", "]")
                } else {
                    (r#"{"a":"#, "}")
                };
                text += begin;
                ends.push(end);
            }
            text.push('1');
            let close = |ends: &[&str]| ends.iter().rev().copied().collect::<String>();
            let good = format!("{text}{}", close(&ends));
            let last = ends.len() - 1;
            ends[last / 2] = if ends[last / 2] == "]" { "}" } else { "]" };
            let bad = format!("{text}{}", close(&ends));

            assert_eq!(Reader::new(&good).value().map(Raw::get), Some(&*good));
            assert_eq!(Reader::new(&bad).value(), None);
        }
    }
}
