//! What is told beside results: errors, warnings, notes and progress, to a person or to a program.
//!
//! Owns: the form of each: lines for a person, one object a line for a program.
//! Reads: nothing.
//! Never: lets text of others drive a terminal; prints results.

use std::sync::OnceLock;

use dark_factory_agents::neutralise;
use dark_factory_executor::settings::Diagnostic;
use dark_factory_types::RunId;
use serde_json::{Value, json};

use crate::commands::Format;
use crate::error::Problem;
use crate::terminal;

/// Who reads standard error; a person until the command line says otherwise.
static READER: OnceLock<Format> = OnceLock::new();

/// Says who reads standard error, once and before anything is told.
pub(crate) fn to(reader: Format) {
    if READER.set(reader).is_err() {
        tracing::debug!("the reader was named already");
    }
}

/// Returns who reads standard error.
pub(crate) fn reader() -> Format {
    READER.get().copied().unwrap_or(Format::Text)
}

/// The longest word that is told whole, in characters: longer than paths and image names are.
const LONGEST_WORD: usize = 300;
/// The longest line that is told whole, in characters: longer than what engines say.
const LONGEST_LINE: usize = 2000;

/// Returns a message in which what somebody wrote far too long is cut in its middle.
pub(crate) fn brief(message: &str) -> String {
    let words = message.split_inclusive(char::is_whitespace);
    let words: String = words.map(|word| cut(word, LONGEST_WORD)).collect();
    let lines = words.split_inclusive('\n');
    lines.map(|line| cut(line, LONGEST_LINE)).collect()
}

/// Keeps the beginning and less of the end.
fn cut(text: &str, longest: usize) -> String {
    let count = text.chars().count();
    if count <= longest {
        return text.to_owned();
    }
    let head = text.chars().take(longest / 2);
    let tail = text.chars().skip(count - longest / 5);
    head.chain(['…']).chain(tail).collect()
}

/// Whom a line of progress is about.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subject {
    /// What stands before each line for a person.
    pub(crate) prefix: String,
    /// The run, if it is about one.
    pub(crate) run: Option<RunId>,
}

/// Tells of something that is probably not as it was meant.
pub(crate) fn warning(text: &str) {
    let text = &brief(text);
    match reader() {
        Format::Text => terminal::eprint(&format!("warning: {}\n", neutralise(text))),
        Format::Json => object(&json!({ "warning": { "message": text } })),
    }
}

/// Tells of something in a file that is probably not as it was meant.
pub(crate) fn warning_in_file(diagnostic: &Diagnostic) {
    Problem::in_file(diagnostic.clone()).warn();
}

/// Tells of something that a person should know.
pub(crate) fn note(text: &str) {
    let text = &brief(text);
    match reader() {
        Format::Text => terminal::eprint(&format!("note: {}\n", neutralise(text))),
        Format::Json => object(&json!({ "note": { "message": text } })),
    }
}

/// Tells of what goes on.
pub(crate) fn progress(text: &str) {
    about(&Subject::default(), text);
}

/// Tells of what goes on with a run.
pub(crate) fn about(subject: &Subject, text: &str) {
    match (reader(), subject.run) {
        (Format::Text, _) => {
            terminal::eprint(&format!("{}{}\n", subject.prefix, neutralise(text)));
        }
        (Format::Json, None) => object(&json!({ "progress": { "message": text } })),
        (Format::Json, Some(run)) => {
            object(&json!({ "progress": { "run_id": run, "message": text } }));
        }
    }
}

/// Prints an object to standard error.
pub(crate) fn object(value: &Value) {
    terminal::eprint(&format!("{value}\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_far_too_long_is_cut() {
        let path = format!("/{}", "d/".repeat(120));
        let plain = format!("{path} cannot be read\n\twhy not\n");

        assert_eq!(brief(&plain), plain);
        let told = brief(&format!(
            "the key {} is not known\nhelp",
            "é".repeat(10_000)
        ));
        assert!(told.starts_with("the key éé") && told.ends_with("é is not known\nhelp"));
        assert!(told.chars().count() < 300, "{told}");
        let told = brief(&format!("{}; say less", "a ".repeat(10_000)));
        assert!(told.ends_with("; say less") && told.chars().count() < LONGEST_LINE);
    }
}
