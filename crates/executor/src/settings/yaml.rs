//! YAML as an untyped tree in which every node knows its place.
//!
//! Owns: the limits on the tree, and hints for what people commonly get wrong.
//! Reads: the text of a front matter, or of the seed's project file.
//! Never: knows a key.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Error, Location, Spanned};

use super::diagnostic::{Fault, Place, may_hold_secret};
use super::node::{KeyNode, Node, Value};

/// Reads `yaml`, which begins on the line behind the first `lines_before` lines of its file.
pub(crate) fn parse(yaml: &str, lines_before: usize) -> Result<Node, Fault> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: 10_000,
            max_events: 40_000,
            max_depth: 32,
            max_aliases: 100,
            max_anchors: 100,
            max_total_scalar_bytes: 1 << 20,
        },
        with_snippet: false,
        strict_booleans: true,
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::AsString,
    };
    let source = Source { yaml, lines_before };
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(yaml, options) {
        Ok(raw) => Ok(source.node(raw)),
        Err(error) => Err(source.fault(&error)),
    }
}

struct Source<'a> {
    yaml: &'a str,
    lines_before: usize,
}

impl Source<'_> {
    fn node(&self, raw: Spanned<Raw>) -> Node {
        let place = self.place(raw.referenced);
        let value = match raw.value {
            Raw::Null => Value::Null,
            Raw::Bool(value) => Value::Bool(value),
            Raw::Number(canonical) => Value::Number(self.written(raw.defined).unwrap_or(canonical)),
            Raw::Text(text) => Value::Text(text),
            Raw::List(items) => {
                Value::List(items.into_iter().map(|item| self.node(item)).collect())
            }
            Raw::Map(entries) => {
                let entry = |(key, node): (Spanned<String>, Spanned<Raw>)| {
                    let place = self.place(key.referenced);
                    (
                        KeyNode {
                            place,
                            name: key.value,
                        },
                        self.node(node),
                    )
                };
                Value::Map(entries.into_iter().map(entry).collect())
            }
        };
        Node { place, value }
    }

    /// Returns a plain scalar's text as it stands in the source.
    fn written(&self, location: Location) -> Option<String> {
        let start = usize::try_from(location.span().byte_offset()?).ok()?;
        let len = usize::try_from(location.span().byte_len()?).ok()?;
        let text = self.yaml.get(start..start.checked_add(len)?)?;
        (!text.is_empty() && !text.starts_with(['"', '\''])).then(|| text.to_owned())
    }

    fn place(&self, location: Location) -> Place {
        let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        Place {
            line: size(location.line())
                .max(1)
                .saturating_add(self.lines_before),
            column: size(location.column()).max(1),
            len: size(location.span().len()).max(1),
        }
    }

    fn fault(&self, error: &Error) -> Fault {
        let location = error.location().unwrap_or(Location::UNKNOWN);
        let message = match error {
            Error::DuplicateMappingKey { key: Some(key), .. } => {
                format!("the key {key} appears twice")
            }
            Error::DuplicateMappingKey { .. } => "a key appears twice".to_owned(),
            Error::MultipleDocuments { .. } => "this must be one YAML document".to_owned(),
            Error::Unexpected { .. } | Error::NullIntoString { .. } => {
                "a key must be plain text".to_owned()
            }
            Error::Budget { .. }
            | Error::AliasReplayLimitExceeded { .. }
            | Error::AliasExpansionLimitExceeded { .. }
            | Error::AliasReplayStackDepthExceeded { .. } => {
                "the YAML is too large or too deeply nested".to_owned()
            }
            other => {
                let text = other.to_string();
                let end = text.rfind(" at line ").unwrap_or(text.len());
                format!("this is not valid YAML: {}", &text[..end])
            }
        };
        let mut fault = Fault::new(self.place(location), message);
        fault.help = match error {
            Error::DuplicateMappingKey { .. } => Some("remove one of them".to_owned()),
            _ => self.hint(usize::try_from(location.line()).unwrap_or(usize::MAX)),
        };
        fault
    }

    /// Returns what may be said of a value on a line.
    fn shown<'v>(&self, line: usize, value: &'v str) -> &'v str {
        if may_hold_secret(self.yaml, line) {
            "…"
        } else {
            value
        }
    }

    /// Guesses from the text what was meant on a line that is not YAML.
    fn hint(&self, line: usize) -> Option<String> {
        let index = line.checked_sub(1)?;
        let text = self.yaml.lines().nth(index)?;
        let before = index
            .checked_sub(1)
            .and_then(|index| self.yaml.lines().nth(index));
        if text
            .chars()
            .take_while(|c| c.is_whitespace())
            .any(|c| c == '\t')
        {
            return Some("YAML is indented with spaces; replace the tab".to_owned());
        }
        if let Some(line) = before
            && let Some((key, value)) = line.split_once(':')
            && is_key(key)
            && value.starts_with(|c: char| !c.is_whitespace())
        {
            return Some(format!(
                "write a space behind the colon: {}: {}",
                key.trim(),
                self.shown(index, value)
            ));
        }
        let (key, value) = text.split_once(':').filter(|(key, _)| is_key(key))?;
        let value = value.trim();
        let needs_quotes = value.contains("{{")
            || value.contains(": ")
            || value.ends_with(':')
            || value.starts_with(['@', '`', '%', '&', '*', '!', '|', '>', '-', '?']);
        let quoted = value.starts_with(['"', '\'']);
        (needs_quotes && !quoted).then(|| {
            let value = self
                .shown(line, value)
                .replace('\\', "\\\\")
                .replace('"', "\\\"");
            format!("put the value in quotes: {}: \"{value}\"", key.trim())
        })
    }
}

fn is_key(text: &str) -> bool {
    let text = text.trim();
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_alphanumeric() || c == '-' || c == '_')
}

/// The tree as the parser gives it.
#[derive(Debug)]
enum Raw {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(yaml: &str) -> Vec<(String, Node)> {
        match parse(yaml, 0).unwrap().value {
            Value::Map(entries) => entries
                .into_iter()
                .map(|(key, node)| (key.name, node))
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn scalars_keep_the_text_as_it_was_written() {
        for (yaml, text) in [
            ("a: 1.10", "1.10"),
            ("a: 010", "010"),
            ("a: 0x1F", "0x1F"),
            ("a: no", "no"),
            ("a: true", "true"),
            ("a: 12:30:45", "12:30:45"),
            ("a: 1000:1000", "1000:1000"),
            ("a: 99999999999999999999999", "99999999999999999999999"),
            ("a: .nan", ".nan"),
            ("a: \"8\"", "8"),
            ("a: /a:/b:ro", "/a:/b:ro"),
        ] {
            assert_eq!(entries(yaml)[0].1.text(), Some(text), "{yaml}");
        }
    }

    #[test]
    fn an_alias_has_the_text_of_its_anchor_and_its_own_place() {
        let entries = entries("a: &x 1.10\nb: *x");

        assert_eq!(entries[1].1.text(), Some("1.10"));
        assert_eq!(
            entries[1].1.place,
            Place {
                line: 2,
                column: 4,
                len: 2
            }
        );
    }

    #[test]
    fn columns_are_characters_and_lines_those_of_the_file() {
        let node = parse("é: 1\r\nü: ab\r\n", 1).unwrap();

        let Value::Map(entries) = node.value else {
            panic!()
        };
        assert_eq!(
            entries[1].1.place,
            Place {
                line: 3,
                column: 4,
                len: 2
            }
        );
    }

    #[test]
    fn what_people_get_wrong_has_a_hint() {
        for (yaml, message, help) in [
            (
                "name: fix: bug",
                "this is not valid YAML: mapping values are not allowed in this context",
                "put the value in quotes: name: \"fix: bug\"",
            ),
            (
                "x: {{ y }}",
                "a key must be plain text",
                "put the value in quotes: x: \"{{ y }}\"",
            ),
            (
                "a:\n\t- b",
                "this is not valid YAML: tabs disallowed within this context (block indentation)",
                "YAML is indented with spaces; replace the tab",
            ),
            (
                "model:opus\nb: 1",
                "this is not valid YAML: mapping values are not allowed in this context",
                "write a space behind the colon: model: opus",
            ),
            (
                "a: @x",
                "this is not valid YAML: unexpected character: `@'",
                "put the value in quotes: a: \"@x\"",
            ),
            (
                "a: 1\nb: 2\na: 3",
                "the key a appears twice",
                "remove one of them",
            ),
        ] {
            let fault = parse(yaml, 0).unwrap_err();

            assert_eq!(fault.message, message, "{yaml}");
            assert_eq!(fault.help.as_deref(), Some(help), "{yaml}");
        }
    }

    #[test]
    fn bombs_are_refused() {
        let bomb: String = (0..9)
            .map(|i| match i {
                0 => "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned(),
                i => format!(
                    "a{i}: &a{i} [{}]\n",
                    vec![format!("*a{}", i - 1); 9].join(", ")
                ),
            })
            .collect();
        for yaml in [
            bomb.as_str(),
            &"[".repeat(100_000),
            &"a: 1\n".repeat(20_000),
        ] {
            assert!(parse(yaml, 0).is_err());
        }
        let many: String = (0..20_000).map(|i| format!("a{i}: 1\n")).collect();

        let fault = parse(&many, 0).unwrap_err();

        assert_eq!(fault.message, "the YAML is too large or too deeply nested");
    }
}
