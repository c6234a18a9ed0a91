//! Reads a few fields of a JSON text and steps over the rest.
//!
//! Owns: the tolerant reading of keys, strings and numbers.
//! Reads: JSON text that is valid UTF-8.
//! Never: recurses, copies a value that nobody asked for, or fails because of a key it does not know.
//!
//! A key that stands twice counts the last time. A lone surrogate in a string is U+FFFD. A number
//! beyond its type is no number. Nesting may be as deep as the line is long.

mod scan;

use std::borrow::Cow;

use scan::next_backslash;
pub(crate) use scan::{Raw, Reader};

/// How keys are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyMatch {
    /// Byte for byte.
    Exact,
    /// Without regard to the case of ASCII letters, as Go's `encoding/json` does.
    AnyCase,
}

impl KeyMatch {
    /// Returns whether a key is that name.
    pub(crate) fn are_equal(self, key: &str, name: &str) -> bool {
        match self {
            Self::Exact => key == name,
            Self::AnyCase => key.eq_ignore_ascii_case(name),
        }
    }

    /// Returns which of the names a key is.
    pub(crate) fn place(self, key: &str, names: &[&str]) -> Option<usize> {
        names.iter().position(|name| self.are_equal(key, name))
    }
}

/// Returns the values of `names` in the JSON object `text`; `None` if it is not one JSON object.
pub(crate) fn fields<'a, const N: usize>(
    text: &'a str,
    names: [&str; N],
    keys: KeyMatch,
) -> Option<[Option<Raw<'a>>; N]> {
    let mut found = [None; N];
    each_entry(text, |key, value| {
        if let Some(slot) = keys.place(key, &names) {
            found[slot] = Some(value);
        }
    })
    .then_some(found)
}

/// Hands over each entry of the JSON object `text`; `false` if it is not one JSON object.
///
/// Entries before a mistake in the text are handed over all the same.
pub(crate) fn each_entry<'a>(text: &'a str, mut sink: impl FnMut(&str, Raw<'a>)) -> bool {
    let mut reader = Reader::new(text);
    let read = reader.object(|reader, key| {
        sink(key, reader.value()?);
        Some(())
    });
    read.is_some() && reader.is_at_end()
}

/// Hands over each element of the JSON array `text`; `false` if it is not one JSON array.
///
/// The sink returns whether it wants the next; what is left is only checked.
pub(crate) fn each_element<'a>(text: &'a str, mut sink: impl FnMut(Raw<'a>) -> bool) -> bool {
    let mut reader = Reader::new(text);
    let mut is_wanted = true;
    let read = reader.array(|reader| {
        let value = reader.value()?;
        is_wanted = is_wanted && sink(value);
        Some(())
    });
    read.is_some() && reader.is_at_end()
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JsonKind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

/// Returns what a value is.
pub(crate) fn kind(value: Raw<'_>) -> JsonKind {
    match value.get().as_bytes().first() {
        Some(b'"') => JsonKind::String,
        Some(b'{') => JsonKind::Object,
        Some(b'[') => JsonKind::Array,
        Some(b't' | b'f') => JsonKind::Bool,
        Some(b'n') | None => JsonKind::Null,
        Some(_) => JsonKind::Number,
    }
}

/// Returns a boolean.
pub(crate) fn boolean(value: Option<Raw<'_>>) -> Option<bool> {
    match value?.get() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// Returns a whole number that is not negative; a fraction is rounded.
pub(crate) fn unsigned(value: Option<Raw<'_>>) -> Option<u64> {
    let text = value?.get();
    text.parse()
        .ok()
        .or_else(|| format!("{:.0}", float(value)?).parse().ok())
}

/// Returns a finite number.
pub(crate) fn float(value: Option<Raw<'_>>) -> Option<f64> {
    let number: f64 = value?.get().parse().ok()?;
    number.is_finite().then_some(number)
}

/// Returns a string.
pub(crate) fn string(value: Option<Raw<'_>>) -> Option<JsonStr<'_>> {
    let text = value?.get();
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    Some(JsonStr(inner))
}

/// The inside of a JSON string, its escapes not yet resolved.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct JsonStr<'a>(&'a str);

impl<'a> JsonStr<'a> {
    fn new(inner: &'a str) -> Self {
        Self(inner)
    }

    /// Returns the text.
    pub(crate) fn text(self) -> Cow<'a, str> {
        if next_backslash(self.0.as_bytes(), 0).is_none() {
            return self.0.into();
        }
        let mut text = String::with_capacity(self.0.len());
        self.push_to(&mut text);
        text.into()
    }

    /// Returns the text to be compared; at most `max` bytes of one that has to be copied.
    pub(crate) fn keyword(self, max: usize) -> Cow<'a, str> {
        match next_backslash(self.0.as_bytes(), 0) {
            None => self.0.into(),
            Some(_) => self.head(max).into(),
        }
    }

    /// Returns the length of the text in bytes. It is never longer than what stands here.
    pub(crate) fn len(self) -> usize {
        self.0.len() - self.saved_until(usize::MAX).1
    }

    /// Returns at most `max` bytes from the beginning of the text.
    pub(crate) fn head(self, max: usize) -> String {
        let mut head = String::new();
        let _whole = self.try_pieces(|piece| {
            let room = max.saturating_sub(head.len());
            let kept = &piece[..piece.floor_char_boundary(room)];
            head.push_str(kept);
            (kept.len() == piece.len()).then_some(())
        });
        head
    }

    /// Returns at most `max` bytes from the end of the text.
    pub(crate) fn tail(self, max: usize) -> String {
        if self.0.len() <= max {
            return self.text().into_owned();
        }
        self.slice(self.len().saturating_sub(max))
    }

    /// Returns the text, its middle left out if it is longer than `max` bytes.
    pub(crate) fn clip(self, max: usize) -> String {
        if self.0.len() <= max {
            return self.text().into_owned();
        }
        self.clip_known(max, self.len())
    }

    /// As [`JsonStr::clip`] of a text whose length is known.
    pub(crate) fn clip_known(self, max: usize, len: usize) -> String {
        if len <= max {
            return self.text().into_owned();
        }
        let (head, tail) = clip_parts(max);
        let head = self.head(head);
        let tail = self.slice(len - tail);
        clip_join(&head, &tail, len)
    }

    /// Returns the text from byte `start`, or from the next whole character.
    fn slice(self, start: usize) -> String {
        let (at, saved) = self.saved_until(start);
        let next = next_backslash(self.0.as_bytes(), at).unwrap_or(self.0.len());
        let cut = match start + saved {
            plain if plain <= next => self.0.ceil_char_boundary(plain),
            // It is inside of the character that an escape stands for.
            _ => next + unescape(self.0.get(next..).unwrap_or_default()).1,
        };
        Self(self.0.get(cut..).unwrap_or_default())
            .text()
            .into_owned()
    }

    /// Steps over the escapes whose text ends before byte `start` of the text: returns where the last of them ends here,
    /// and by how much the text is shorter up to there.
    fn saved_until(self, start: usize) -> (usize, usize) {
        let bytes = self.0.as_bytes();
        let (mut at, mut saved) = (0, 0);
        while let Some(escape) = next_backslash(bytes, at) {
            let (text, len) = match bytes.get(escape + 1) {
                Some(b'u') => {
                    let (char, len) = unescape(self.0.get(escape..).unwrap_or_default());
                    (char.len_utf8(), len)
                }
                _ => (1, 2),
            };
            if escape - saved + text > start {
                break;
            }
            saved += len - text;
            at = escape + len;
        }
        (at, saved)
    }

    /// Appends the text.
    pub(crate) fn push_to(self, out: &mut String) {
        let mut rest = self.0;
        while let Some(at) = next_backslash(rest.as_bytes(), 0) {
            let (plain, escape) = rest.split_at(at);
            out.push_str(plain);
            let (char, len) = unescape(escape);
            out.push(char);
            rest = escape.get(len..).unwrap_or("");
        }
        out.push_str(rest);
    }

    /// Returns how many newlines are in the text.
    pub(crate) fn newlines(self) -> usize {
        let bytes = self.0.as_bytes();
        let (mut at, mut count) = (0, 0);
        // In JSON they are always escaped.
        while let Some(escape) = next_backslash(bytes, at) {
            let (is_newline, len) = match bytes.get(escape + 1) {
                Some(b'u') => {
                    let (char, len) = unescape(self.0.get(escape..).unwrap_or_default());
                    (char == '\n', len)
                }
                other => (other == Some(&b'n'), 2),
            };
            count += usize::from(is_newline);
            at = escape + len;
        }
        count
    }

    /// Hands over the text piece by piece, without holding it, until the sink has enough and returns `None`.
    pub(crate) fn try_pieces(self, mut sink: impl FnMut(&str) -> Option<()>) -> Option<()> {
        let mut rest = self.0;
        while let Some(at) = next_backslash(rest.as_bytes(), 0) {
            let (plain, escape) = rest.split_at(at);
            if !plain.is_empty() {
                sink(plain)?;
            }
            let (char, len) = unescape(escape);
            sink(char.encode_utf8(&mut [0; 4]))?;
            rest = escape.get(len..).unwrap_or("");
        }
        if rest.is_empty() {
            return Some(());
        }
        sink(rest)
    }
}

/// Splits a maximum into the part kept from the beginning and the part kept from the end.
fn clip_parts(max: usize) -> (usize, usize) {
    (max / 4 * 3, max / 4)
}

fn clip_join(head: &str, tail: &str, len: usize) -> String {
    let left_out = len - head.len() - tail.len();
    format!("{head} … {left_out} bytes left out … {tail}")
}

/// Returns the text, its middle left out if it is longer than `max` bytes.
pub(crate) fn clip(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let (head, tail) = clip_parts(max);
    let head = &text[..text.floor_char_boundary(head)];
    let tail = &text[text.ceil_char_boundary(text.len() - tail)..];
    clip_join(head, tail, text.len())
}

/// Resolves the escape at the beginning of `text` and returns its length too.
#[inline]
fn unescape(text: &str) -> (char, usize) {
    let char = match text.as_bytes().get(1) {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unescape_unicode(text),
        Some(&other) if other.is_ascii() => char::from(other),
        _ => char::REPLACEMENT_CHARACTER,
    };
    (char, 2)
}

fn unescape_unicode(text: &str) -> (char, usize) {
    let unit = |at: usize| u32::from_str_radix(text.get(at + 2..at + 6)?, 16).ok();
    let first = unit(0);
    if let Some(high @ 0xD800..=0xDBFF) = first
        && text.get(6..8) == Some("\\u")
        && let Some(low @ 0xDC00..=0xDFFF) = unit(6)
        && let Some(char) = char::from_u32(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
    {
        return (char, 12);
    }
    let char = first.and_then(char::from_u32);
    (char.unwrap_or(char::REPLACEMENT_CHARACTER), 6)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(json: &str) -> String {
        string(Raw::of(json)).unwrap().text().into_owned()
    }

    #[test]
    fn escapes_are_resolved_as_json_says() {
        for json in [
            r#""plain""#,
            r#""a\n\t\r\b\f\"\\\/z""#,
            r#""\u0041\u00e9\u20ac""#,
            r#""\ud83d\ude00!""#,
            r#""""#,
        ] {
            assert_eq!(text(json), serde_json::from_str::<String>(json).unwrap());
        }
    }

    #[test]
    fn a_lone_surrogate_is_a_replacement_character() {
        assert_eq!(text(r#""a\ud800b""#), "a\u{fffd}b");
        assert_eq!(text(r#""\udc00\ud800""#), "\u{fffd}\u{fffd}");
        assert_eq!(text(r#""\ud800\u0041""#), "\u{fffd}A");
    }

    #[test]
    fn the_last_of_two_equal_keys_counts() {
        let [a] = fields(r#"{"a":1,"b":[],"a":2}"#, ["a"], KeyMatch::Exact).unwrap();

        assert_eq!(unsigned(a), Some(2));
    }

    #[test]
    fn a_key_with_a_lone_surrogate_hides_no_other() {
        let [a] = fields(r#"{"\ud800":1,"a":2}"#, ["a"], KeyMatch::Exact).unwrap();

        assert_eq!(unsigned(a), Some(2));
    }

    #[test]
    fn depth_is_no_obstacle() {
        let deep = format!(
            "{{\"a\":{}{},\"b\":1}}",
            "[".repeat(100_000),
            "]".repeat(100_000)
        );

        let [b] = fields(&deep, ["b"], KeyMatch::Exact).unwrap();

        assert_eq!(unsigned(b), Some(1));
    }

    #[test]
    fn numbers_beyond_their_type_are_none() {
        let json = r#"{"a":99999999999999999999,"b":1e999,"c":-1,"d":12.6,"e":"7"}"#;
        let [a, b, c, d, e] = fields(json, ["a", "b", "c", "d", "e"], KeyMatch::Exact).unwrap();

        assert_eq!(unsigned(a), None);
        assert_eq!(float(b), None);
        assert_eq!(unsigned(c), None);
        assert_eq!(unsigned(d), Some(13));
        assert_eq!(unsigned(e), None);
    }

    #[test]
    fn what_is_not_one_object_has_no_fields() {
        for json in ["", "1", "[]", "{", "{}x", "{} {}", "{\"a\":}", "null"] {
            assert!(fields(json, ["a"], KeyMatch::Exact).is_none(), "{json}");
        }
    }

    proptest! {
        #[test]
        fn parts_of_a_text_are_those_of_the_whole(
            json in "(.|\\\\[n\"\\\\]|\\\\u00e9|\\\\ud83d\\\\ude00|\\\\ud800|[ab]{1,20}){0,30}",
            at in 0usize..60,
        ) {
            let json = format!("\"{json}\"");
            let Some(string) = string(Raw::of(&json)) else { return Ok(()) };
            let mut whole = String::new();
            string.try_pieces(|piece| {
                whole.push_str(piece);
                Some(())
            });

            prop_assert_eq!(string.text(), &*whole);
            prop_assert_eq!(string.len(), whole.len());
            prop_assert_eq!(string.newlines(), whole.matches('\n').count());
            prop_assert_eq!(string.head(at), &whole[..whole.floor_char_boundary(at)]);
            let start = whole.len().saturating_sub(at);
            prop_assert_eq!(string.tail(at), &whole[whole.ceil_char_boundary(start)..]);
            prop_assert_eq!(string.clip(at), clip(&whole, at));
        }
    }

    #[test]
    fn a_long_text_keeps_its_beginning_and_its_end() {
        let json = format!("\"{}\\n{}\"", "ä".repeat(50), "z".repeat(50));
        let string = string(Raw::of(&json)).unwrap();

        assert_eq!(string.len(), 151);
        assert_eq!(string.head(5), "ää");
        assert_eq!(string.tail(3), "zzz");
        assert_eq!(string.clip(8), "äää … 143 bytes left out … zz");
        assert_eq!(clip(&string.text(), 8), string.clip(8));
    }
}
