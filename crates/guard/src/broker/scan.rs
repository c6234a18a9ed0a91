//! Finds single values in JSON that goes by.
//!
//! Owns: where in the JSON we are.
//! Reads: its bytes, in pieces of any size.
//! Never: holds more of it than one short value and the names that lead there.

use std::borrow::Cow;

use memchr::memchr2;

/// The longest name or value that is kept, in bytes; longer ones are passed over.
const TOKEN: usize = 512;
/// The deepest nesting that is followed.
const DEPTH: usize = 128;

/// A single value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaf<'a> {
    Text(&'a str),
    /// A number, `true`, `false` or `null`, as it is written.
    Bare(&'a str),
}

impl Leaf<'_> {
    /// Returns the number, if it is a count.
    pub(crate) fn count(self) -> Option<u64> {
        match self {
            Self::Bare(text) => text.parse().ok(),
            Self::Text(_) => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Value,
    Name,
    Colon,
    After,
    Text {
        is_name: bool,
        is_escaped: bool,
    },
    Bare,
    /// It is no JSON, or too deep.
    Lost,
}

#[derive(Debug)]
struct Frame {
    is_object: bool,
    /// How long the path is without the names inside of this.
    base: usize,
}

/// One JSON value that goes by.
#[derive(Debug)]
pub(crate) struct Scan {
    state: State,
    frames: Vec<Frame>,
    /// The names that lead to where we are, with a dot between; lists have none.
    path: String,
    token: Token,
}

/// A name or a value on its way.
#[derive(Debug, Default)]
struct Token {
    bytes: Vec<u8>,
    /// Whether it is too long to be kept.
    is_clipped: bool,
}

impl Token {
    fn clear(&mut self) {
        self.bytes.clear();
        self.is_clipped = false;
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.bytes.len() + bytes.len() > TOKEN {
            self.is_clipped = true;
        } else if !self.is_clipped {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Returns what is written, if all of it was kept and it is text.
    fn written(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes)
            .ok()
            .filter(|_| !self.is_clipped)
    }

    /// Returns what it says, as the text that it is.
    fn text(&self) -> Option<Cow<'_, str>> {
        let written = self.written()?;
        match written.contains('\\') {
            true => serde_json::from_str(&format!("\"{written}\"")).ok(),
            false => Some(written.into()),
        }
    }
}

impl Default for Scan {
    fn default() -> Self {
        Self {
            state: State::Value,
            frames: Vec::new(),
            path: String::new(),
            token: Token::default(),
        }
    }
}

impl Scan {
    /// Begins with another value.
    pub(crate) fn restart(&mut self) {
        self.state = State::Value;
        self.frames.clear();
        self.path.clear();
        self.token.clear();
    }

    /// Takes the next bytes; each value that ends in them is given with its path.
    pub(crate) fn take(&mut self, mut bytes: &[u8], found: &mut dyn FnMut(&str, Leaf<'_>)) {
        while let Some((&byte, rest)) = bytes.split_first() {
            match self.state {
                State::Lost => return,
                State::Text {
                    is_name,
                    is_escaped: false,
                } => {
                    let end = memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len());
                    if end > 0 {
                        self.token.keep(&bytes[..end]);
                        bytes = &bytes[end..];
                        continue;
                    }
                    if byte == b'"' {
                        match is_name {
                            true => self.name_ends(),
                            false => self.value_ends(found),
                        }
                    } else {
                        self.token.keep(&[byte]);
                        self.state = State::Text {
                            is_name,
                            is_escaped: true,
                        };
                    }
                }
                State::Text {
                    is_name,
                    is_escaped: true,
                } => {
                    self.token.keep(&[byte]);
                    self.state = State::Text {
                        is_name,
                        is_escaped: false,
                    };
                }
                State::Bare
                    if matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n') =>
                {
                    self.bare_ends(found);
                    self.structure(byte);
                }
                State::Bare => self.token.keep(&[byte]),
                _ => self.structure(byte),
            }
            bytes = rest;
        }
    }

    /// Takes a byte outside of texts.
    fn structure(&mut self, byte: u8) {
        self.state = match (self.state, byte) {
            (state, b' ' | b'\t' | b'\r' | b'\n') => state,
            (State::Value, b'{' | b'[') if self.frames.len() < DEPTH => {
                let is_object = byte == b'{';
                let base = self.path.len();
                self.frames.push(Frame { is_object, base });
                if is_object { State::Name } else { State::Value }
            }
            (State::Value, b'"') => self.begin(State::Text {
                is_name: false,
                is_escaped: false,
            }),
            (State::Name, b'"') => self.begin(State::Text {
                is_name: true,
                is_escaped: false,
            }),
            (State::Colon, b':') => State::Value,
            (State::Value | State::Name | State::After, b'}' | b']') => {
                if let Some(frame) = self.frames.pop() {
                    self.path.truncate(frame.base);
                    State::After
                } else {
                    State::Lost
                }
            }
            (State::After, b',') => match self.frames.last() {
                Some(frame) => {
                    self.path.truncate(frame.base);
                    if frame.is_object {
                        State::Name
                    } else {
                        State::Value
                    }
                }
                None => State::Lost,
            },
            (State::Value, b'-' | b'0'..=b'9' | b'a'..=b'z') => {
                let state = self.begin(State::Bare);
                self.token.keep(&[byte]);
                state
            }
            _ => State::Lost,
        };
    }

    fn begin(&mut self, state: State) -> State {
        self.token.clear();
        state
    }

    fn value_ends(&mut self, found: &mut dyn FnMut(&str, Leaf<'_>)) {
        if let Some(text) = self.token.text() {
            found(&self.path, Leaf::Text(&text));
        }
        self.state = State::After;
    }

    fn name_ends(&mut self) {
        let base = self.frames.last().map_or(0, |frame| frame.base);
        self.path.truncate(base);
        if base > 0 {
            self.path.push('.');
        }
        // A name that would read as a path is none that we look for.
        match self.token.text().filter(|name| !name.contains('.')) {
            Some(name) => self.path.push_str(&name),
            None => self.path.push('?'),
        }
        self.state = State::Colon;
    }

    fn bare_ends(&mut self, found: &mut dyn FnMut(&str, Leaf<'_>)) {
        if let Some(text) = self.token.written() {
            found(&self.path, Leaf::Bare(text));
        }
        self.state = State::After;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(json: &str, piece: usize) -> Vec<String> {
        let mut scan = Scan::default();
        let mut all = Vec::new();
        for bytes in json.as_bytes().chunks(piece) {
            scan.take(bytes, &mut |path, leaf| {
                all.push(format!("{path}={leaf:?}"));
            });
        }
        all
    }

    #[test]
    fn values_are_found_with_their_paths_however_the_bytes_are_cut() {
        let json = r#" {"model":"m\u0031", "a":{"b":[{"c":1,"d":-2.5e3},null],"e":"x\"}"},"usage":{"n":7} , "t":true}"#;
        for piece in [1, 2, 3, 7, 1000] {
            assert_eq!(
                leaves(json, piece),
                [
                    r#"model=Text("m1")"#,
                    r#"a.b.c=Bare("1")"#,
                    r#"a.b.d=Bare("-2.5e3")"#,
                    r#"a.b=Bare("null")"#,
                    r#"a.e=Text("x\"}")"#,
                    r#"usage.n=Bare("7")"#,
                    r#"t=Bare("true")"#,
                ],
                "{piece}"
            );
        }
    }

    #[test]
    fn what_is_long_or_deep_or_no_json_is_passed_over() {
        let long = format!(
            r#"{{"a":"{}","{}":1,"b.c":3,"z":2}}"#,
            "x".repeat(9000),
            "y".repeat(9000)
        );

        assert_eq!(
            leaves(&long, 100),
            [r#"?=Bare("1")"#, r#"?=Bare("3")"#, r#"z=Bare("2")"#]
        );
        assert!(leaves(&"[".repeat(100_000), 1000).is_empty());
        assert!(leaves("]}", 3).is_empty());
    }
}
