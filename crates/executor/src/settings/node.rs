//! An untyped tree in which every node knows its place; YAML and TOML are read into it.
//!
//! Owns: the tree.
//! Reads: nothing.
//! Never: knows a key.

use super::diagnostic::Place;

/// A value with its place in the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// A key with its place in the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct KeyNode {
    pub(crate) place: Place,
    pub(crate) name: String,
}

/// What a node is; scalars keep the text as it was written, so that `1.10` stays `1.10`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(KeyNode, Node)>),
}

impl Node {
    /// Returns the text of a scalar; nothing for null, a list or a map.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Bool(true) => Some("true"),
            Value::Bool(false) => Some("false"),
            Value::Number(text) | Value::Text(text) => Some(text),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// Says what the node is, for the end of "must be …, not …".
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "empty".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
            Value::Bool(_) | Value::Number(_) => self.text().unwrap_or_default().to_owned(),
            Value::Text(text) => format!("{text:?}"),
        }
    }

    /// Returns the node without places.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Number(text) => {
                serde_json::from_str(text).unwrap_or_else(|_| Json::String(text.clone()))
            }
            Value::Text(text) => Json::String(text.clone()),
            Value::List(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Value::Map(entries) => Json::Object(
                entries
                    .iter()
                    .map(|(key, node)| (key.name.clone(), node.to_json()))
                    .collect(),
            ),
        }
    }
}
