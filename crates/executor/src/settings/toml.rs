//! TOML as the same untyped tree that a front matter is read into.
//!
//! Owns: how bytes of the text become lines and columns, and hints for what people commonly get wrong.
//! Reads: the text of a configuration file.
//! Never: knows a key.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Fault, Place, may_hold_secret};
use super::node::{KeyNode, Node, Value};

/// Reads a whole TOML file.
///
/// # Errors
///
/// Every place where it is not TOML, in the file's order.
pub(crate) fn parse(text: &str) -> Result<Node, Vec<Fault>> {
    let source = Source::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        let span = table.span();
        return Ok(source.table(span, table.into_inner()));
    }
    let mut faults: Vec<Fault> = errors.iter().map(|error| source.fault(error)).collect();
    faults.sort_by_key(|fault| (fault.place.line, fault.place.column));
    // What the parser cannot get over it tells again behind it.
    faults.dedup_by_key(|fault| fault.place.line);
    Err(faults)
}

struct Source<'a> {
    text: &'a str,
    /// Where each line begins.
    lines: Vec<usize>,
}

impl<'a> Source<'a> {
    fn new(text: &'a str) -> Self {
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            text,
            lines: std::iter::once(0).chain(ends).collect(),
        }
    }

    fn table(&self, span: Range<usize>, table: DeTable<'_>) -> Node {
        let mut entries: Vec<(Spanned<_>, Spanned<DeValue<'_>>)> = table.into_iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let entry = |(key, value): (Spanned<std::borrow::Cow<'_, str>>, Spanned<DeValue<'_>>)| {
            let place = self.place(key.span());
            let name = key.into_inner().into_owned();
            (KeyNode { place, name }, self.node(value))
        };
        Node {
            place: self.place(span),
            value: Value::Map(entries.into_iter().map(entry).collect()),
        }
    }

    fn node(&self, value: Spanned<DeValue<'_>>) -> Node {
        let span = value.span();
        let place = self.place(span.clone());
        let value = match value.into_inner() {
            DeValue::String(text) => Value::Text(text.into_owned()),
            DeValue::Integer(number) => Value::Number(number.to_string()),
            DeValue::Float(number) => Value::Number(number.to_string()),
            DeValue::Boolean(value) => Value::Bool(value),
            DeValue::Datetime(time) => Value::Text(time.to_string()),
            DeValue::Array(items) => {
                Value::List(items.into_iter().map(|item| self.node(item)).collect())
            }
            DeValue::Table(table) => return self.table(span, table),
        };
        Node { place, value }
    }

    /// Returns the part of a span that is on its first line.
    fn place(&self, span: Range<usize>) -> Place {
        let index = self.lines.partition_point(|begin| *begin <= span.start);
        let begin = self.lines[index.saturating_sub(1)];
        let end = self
            .lines
            .get(index)
            .map_or(self.text.len(), |next| next - 1);
        let characters = |range: Range<usize>| {
            let text = self.text.get(range).unwrap_or_default();
            text.chars().count()
        };
        Place {
            line: index.max(1),
            column: characters(begin..span.start) + 1,
            len: characters(span.start..span.end.min(end)).max(1),
        }
    }

    fn fault(&self, error: &toml::de::Error) -> Fault {
        let span = error.span().unwrap_or(0..0);
        let place = self.place(span);
        let line = self.text.lines().nth(place.line - 1).unwrap_or_default();
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        match message.as_str() {
            "duplicate key" | "cannot extend value of type string with a dotted key" => {
                let name: String = line
                    .chars()
                    .skip(place.column - 1)
                    .take(place.len)
                    .collect();
                let help = if name == "profile" {
                    "where there are [profile.NAME] tables, write default-profile = \"NAME\" to choose one"
                } else {
                    "remove one of them"
                };
                Fault::new(place, format!("the key {name} appears twice")).help(help)
            }
            _ => {
                let fault = Fault::new(place, format!("this is not valid TOML: {message}"));
                let is_secret = may_hold_secret(self.text, place.line);
                match hint(line, |value| if is_secret { "…" } else { value }) {
                    Some(hint) => fault.help(hint),
                    None => fault,
                }
            }
        }
    }
}

/// Guesses from a line that is not TOML what was meant; `shown` is what may be said of a value.
fn hint(line: &str, shown: impl Fn(&str) -> &str) -> Option<String> {
    let is_key = |text: &str| {
        let key = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        !text.is_empty() && text.chars().all(key)
    };
    if let Some((key, value)) = line.split_once('=') {
        let (key, value) = (key.trim(), value.trim());
        let is_bare = !value.is_empty() && !value.contains(['"', '\'', '[', '{', '#', '\\']);
        return (is_key(key) && is_bare)
            .then(|| format!("put a text in quotes: {key} = \"{}\"", shown(value)));
    }
    let (key, _) = line.split_once(':')?;
    is_key(key.trim()).then(|| format!("TOML has = where YAML has a colon: {} = …", key.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Vec<(KeyNode, Node)> {
        match parse(text).unwrap().value {
            Value::Map(entries) => entries,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nodes_know_their_places_in_characters() {
        let entries = entries("# é\r\nb = \"ü\"\r\na = [1, 0x1F, 1.5, true]\r\n");

        let shown: Vec<_> = entries
            .iter()
            .map(|(key, node)| (key.name.as_str(), key.place.line, node.place))
            .collect();
        let place = |line, column, len| Place { line, column, len };
        assert_eq!(shown, [("b", 2, place(2, 5, 3)), ("a", 3, place(3, 5, 20))]);
        let Value::List(items) = &entries[1].1.value else {
            panic!()
        };
        let texts: Vec<_> = items.iter().map(Node::text).collect();
        assert_eq!(texts, [Some("1"), Some("0x1F"), Some("1.5"), Some("true")]);
    }

    #[test]
    fn every_place_that_is_no_toml_is_told_with_what_to_do() {
        for (text, told) in [
            (
                "memory = 4g\ncpus: 2\n",
                &[
                    (1, "put a text in quotes: memory = \"4g\""),
                    (2, "TOML has = where YAML has a colon: cpus = …"),
                ][..],
            ),
            ("pids = 1\npids = 2\n", &[(2, "remove one of them")]),
        ] {
            let faults = parse(text).unwrap_err();

            let helps: Vec<_> = faults
                .iter()
                .map(|fault| (fault.place.line, fault.help.as_deref().unwrap_or_default()))
                .collect();
            assert_eq!(helps, told, "{text}");
        }
    }
}
