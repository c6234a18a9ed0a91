//! The scripted agent: a stand-in that does what a script says, for the demo and for tests.
//!
//! Owns: where the script comes from, and the process's exit status.
//! Reads: the command line, the prompt on stdin or at `$DARK_FACTORY_PROMPT_FILE`, script files.
//! Never: talks to a model, or pretends to: the Claude-shaped stream names its model `scripted-stand-in`.

mod claude;
mod files;
mod json;
mod parse;
mod run;
mod tamper;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;

use parse::{parse, script_block};
use run::Agent;

/// Exit status for a script that cannot be read or understood.
const BAD_SCRIPT: u8 = 2;

/// Runs the agent with the arguments after `agent`.
pub(crate) fn run(args: &[OsString]) -> ExitCode {
    let text = match args {
        [] => return run_prompt(),
        [flag, script] if flag == OsStr::new("-e") => script.to_string_lossy().into_owned(),
        [file] if !file.as_encoded_bytes().starts_with(b"-") => match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) => return refuse(&format!("cannot read {}: {error}", file.display())),
        },
        _ => return refuse("expected -e SCRIPT, FILE, or a prompt on stdin"),
    };
    run_script(&text, None)
}

/// Runs the agent as `claude` would be called: the prompt on stdin, every flag ignored.
pub(crate) fn run_as_claude() -> ExitCode {
    run_prompt()
}

fn run_prompt() -> ExitCode {
    let prompt = read_prompt();
    match script_block(&String::from_utf8_lossy(&prompt)) {
        Some(script) => run_script(&script, Some(prompt)),
        None => {
            let text = "The prompt has no code block tagged `script`, and a stand-in cannot do anything else.\n";
            // Nowhere is left to report a stdout that cannot be written.
            let _said = io::stdout().write_all(text.as_bytes());
            ExitCode::from(1)
        }
    }
}

fn run_script(text: &str, prompt: Option<Vec<u8>>) -> ExitCode {
    match parse(text) {
        Ok(commands) => ExitCode::from(Agent::new(prompt).run(&commands)),
        Err(error) => refuse(&error.to_string()),
    }
}

fn refuse(message: &str) -> ExitCode {
    // Nowhere is left to report a stderr that cannot be written.
    let _said = writeln!(io::stderr(), "scripted agent: {message}");
    ExitCode::from(BAD_SCRIPT)
}

/// Reads the prompt: stdin, else the file that the environment names, else nothing.
fn read_prompt() -> Vec<u8> {
    let mut prompt = Vec::new();
    let mut stdin = io::stdin();
    if !stdin.is_terminal() {
        // An unreadable stdin counts as an empty one.
        let _read = stdin.read_to_end(&mut prompt);
    }
    if prompt.is_empty()
        && let Some(path) = std::env::var_os("DARK_FACTORY_PROMPT_FILE")
    {
        prompt = fs::read(path).unwrap_or_default();
    }
    prompt
}
