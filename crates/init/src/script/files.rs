//! The commands that work on files.
//!
//! Owns: what each does and what it answers, in the words that Claude Code's tools use.
//! Reads: the files that the script names.
//! Never: prints; see `run` and `claude`.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use super::parse::Command;

/// A file command's answer: its output, or why it failed.
pub(super) type Answer = Result<Vec<u8>, String>;

/// Runs a file command; `None` if it is another command.
pub(super) fn perform(command: &Command) -> Option<Answer> {
    Some(match command {
        Command::Write { path, text } => fs::write(path, text)
            .map(|()| format!("File created successfully at: {}", path.display()).into_bytes())
            .map_err(|error| failed("write", path, &error)),
        Command::Append { path, text } => append(path, text),
        Command::Edit { path, old, new } => edit(path, old, new),
        Command::Read(path) => fs::read(path).map_err(|error| failed("read", path, &error)),
        Command::Check { path, text } => check(path, text),
        _ => return None,
    })
}

fn append(path: &Path, text: &str) -> Answer {
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map(|()| Vec::new())
        .map_err(|error| failed("append to", path, &error))
}

fn edit(path: &Path, old: &str, new: &str) -> Answer {
    let text = fs::read_to_string(path).map_err(|error| failed("edit", path, &error))?;
    if !text.contains(old) {
        return Err(format!(
            "String to replace not found in file.\nString: {old}"
        ));
    }
    fs::write(path, text.replacen(old, new, 1))
        .map(|()| {
            format!("The file {} has been updated successfully.", path.display()).into_bytes()
        })
        .map_err(|error| failed("edit", path, &error))
}

fn check(path: &Path, text: &str) -> Answer {
    let content = fs::read(path).map_err(|error| failed("check", path, &error))?;
    if String::from_utf8_lossy(&content).contains(text) {
        Ok(Vec::new())
    } else {
        Err(format!("{} does not contain {text:?}", path.display()))
    }
}

fn failed(doing: &str, path: &Path, error: &std::io::Error) -> String {
    format!("cannot {doing} {}: {error}", path.display())
}
