//! Starts other programs and turns their failures into one message.
//!
//! Owns: the error type of the tasks, and the log of each long step.
//! Reads: nothing.
//! Never: decides what to run.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// Lines of a failed step's log that are shown.
const LOG_TAIL: usize = 40;

/// Why a task stopped: one message for the person who started it.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// Returns whether the program starts and exits with 0.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs a program whose output belongs on the terminal.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|error| cannot_start(command, &error))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::new(format!("{} failed: {status}", name(command))))
    }
}

/// Runs a program that tells its progress on standard error, without its standard output.
pub(crate) fn run_quietly(command: &mut Command) -> Result<(), Failure> {
    run(command.stdout(Stdio::null()))
}

/// Runs a program for its standard output, without the last newline.
pub(crate) fn read(command: &mut Command) -> Result<String, Failure> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| cannot_start(command, &error))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Failure::new(format!(
            "{} failed: {}\n{}",
            name(command),
            output.status,
            said.trim_end()
        )))
    }
}

/// Runs a long step with its output appended to `log`; the log's end is shown when the step fails.
pub(crate) fn run_logged(command: &mut Command, log: &Path) -> Result<(), Failure> {
    let file = open_log(log)?;
    let status = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .map_err(|error| cannot_start(command, &error))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::new(format!(
            "{} failed: {status}; the end of {}:\n{}",
            name(command),
            log.display(),
            tail(log)
        )))
    }
}

/// Opens a log for appending, with the folder that it lies in.
pub(crate) fn open_log(log: &Path) -> Result<File, Failure> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder)?;
    }
    Ok(OpenOptions::new().create(true).append(true).open(log)?)
}

/// Returns the last lines of a log, or nothing where it cannot be read.
pub(crate) fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n")
}

fn name(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .take(4)
            .map(|word| word.to_string_lossy().into_owned()),
    );
    words.join(" ")
}

fn cannot_start(command: &Command, error: &io::Error) -> Failure {
    Failure::new(format!("{} cannot be started: {error}", name(command)))
}
