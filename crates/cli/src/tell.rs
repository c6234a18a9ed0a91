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
