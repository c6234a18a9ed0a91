//! The keys for programs and for the documentation.
//!
//! Owns: the JSON Schema of a configuration file, and the table of keys.
//! Reads: [`KEYS`].
//! Never: knows a key by itself.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::resolve::{ResolveContext, default_of};
use crate::settings::{KEYS, Key, Level, Scope, Shape};
use crate::spec::Profile;

/// Returns the JSON Schema (draft 2020-12) of `config.toml` and `dark-factory.toml`.
pub fn json_schema() -> Value {
    let run = properties(|key| key.scope.allows(Level::Profile));
    let mut all = properties(|key| key.scope.allows(Level::User));
    let table = json!({ "type": "object", "properties": run, "additionalProperties": false });
    let choice = all.get("profile").cloned().unwrap_or_default();
    all.insert("default-profile".to_owned(), choice.clone());
    all.insert(
        "profile".to_owned(),
        json!({
            "description": "the profile that is chosen, or [profile.NAME] tables",
            "anyOf": [choice, { "type": "object", "additionalProperties": table }],
        }),
    );
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "dark-factory configuration",
        "type": "object",
        "properties": all,
        "additionalProperties": false,
    })
}

fn properties(is_wanted: impl Fn(&Key) -> bool) -> Map<String, Value> {
    let named = |key: &Key| -> Vec<(String, Value)> {
        names(key)
            .into_iter()
            .map(|name| (name, property(key)))
            .collect()
    };
    KEYS.iter()
        .filter(|key| is_wanted(key))
        .flat_map(named)
        .collect()
}

/// Returns every name by which a file may have a key.
fn names(key: &Key) -> BTreeSet<String> {
    let names = std::iter::once(key.name).chain(key.alias);
    names
        .flat_map(|name| [name.to_owned(), name.replace('-', "_")])
        .collect()
}

fn property(key: &Key) -> Value {
    let mut schema = match key.shape {
        Shape::Text => json!({ "type": "string" }),
        Shape::Amount => json!({ "type": ["string", "number"] }),
        Shape::Count { least, most } => {
            let mut schema = json!({ "type": "integer", "minimum": least });
            if let Some(most) = most {
                schema["maximum"] = json!(most);
            }
            schema
        }
        Shape::Choice(words) => json!({ "enum": words }),
        Shape::Network => json!({
            "anyOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "properties": { "allow": { "anyOf": [{ "type": "string" }, texts()] } },
                    "required": ["allow"],
                    "additionalProperties": false,
                },
            ],
        }),
        Shape::Switch => json!({ "type": "boolean" }),
        Shape::Argv => texts(),
        Shape::Texts => json!({ "anyOf": [{ "type": "string" }, texts()] }),
        Shape::Mounts => json!({ "anyOf": [mount(), { "type": "array", "items": mount() }] }),
        Shape::Map => json!({
            "anyOf": [
                { "type": "object", "additionalProperties": entry(key) },
                texts(),
            ],
        }),
    };
    schema["description"] = json!(format!("{}: {}", key.about, key.value));
    schema
}

/// Returns what a map's values are; where a key is may be a program with its arguments.
fn entry(key: &Key) -> Value {
    match key.name {
        "api-key" => json!({ "anyOf": [{ "type": "string" }, texts()] }),
        _ => json!({ "type": ["string", "number", "boolean"] }),
    }
}

fn texts() -> Value {
    json!({ "type": "array", "items": { "type": "string" } })
}

fn mount() -> Value {
    json!({
        "anyOf": [
            { "type": "string" },
            {
                "type": "object",
                "properties": {
                    "src": { "type": "string" },
                    "dst": { "type": "string" },
                    "read-only": { "type": "boolean" },
                    "read_only": { "type": "boolean" },
                    "readOnly": { "type": "boolean" },
                    "optional": { "type": "boolean" },
                },
                "required": ["src", "dst"],
                "additionalProperties": false,
            },
        ],
    })
}

/// Returns the table of keys of `docs/configuration.md`, in Markdown.
pub fn keys_table() -> String {
    let context = ResolveContext::new(PathBuf::new());
    let mut table =
        "| key | what it does | value | default | where | variable |\n|---|---|---|---|---|---|\n"
            .to_owned();
    for key in KEYS {
        let place = match key.scope {
            Scope::Run => "everywhere",
            Scope::Project => "front matter",
            Scope::Tool => "user, project",
            Scope::Machine => "user",
        };
        let variable = key
            .variable()
            .map(|name| format!("`{name}`"))
            .unwrap_or_default();
        let default = default_of(key.name, None, Profile::default(), &context).unwrap_or_default();
        let row = format!(
            "| `{}` | {} | {} | {default} | {place} | {variable} |\n",
            key.name, key.about, key.value
        );
        table.push_str(&row);
    }
    table
}
