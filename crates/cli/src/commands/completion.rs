//! `completion`: a script for a shell, and the answers to what the script asks.
//!
//! Owns: which words stand for runs, files and folders.
//! Reads: the runs' folders.
//! Never: makes a state folder, opens the store, or contacts an engine: it is asked at each press of a key.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::{CommandFactory, ValueHint};
use clap_complete::engine::{
    ArgValueCandidates, ArgValueCompleter, CompletionCandidate, PathCompleter,
};
use clap_complete::env::{CompleteEnv, Shells};
use dark_factory_agents::AGENT_NAMES;
use dark_factory_executor::settings::Layer;
use dark_factory_executor::state_dir::{RunIs, recorded_runs};
use dark_factory_types::exit_code;

use crate::args::{Args, ColorWhen, CompletionArgs, CompletionShell, Global};
use crate::config;
use crate::context::Context;
use crate::error::CommandError;
use crate::terminal;

/// The variable by which a script asks; it names the shell.
const ASKED: &str = "DARK_FACTORY_COMPLETE";

/// Runs that are offered at most, the newest ones.
const MOST_RUNS: usize = 100;

/// Commands whose run must not have ended.
const OF_OPEN_RUNS: [&str; 4] = ["stop", "pause", "resume", "attach"];

/// Values of flags whose rules the settings have.
const VALUES: [(&str, &[&str]); 8] = [
    ("engine", &["auto", "docker", "podman"]),
    ("agent", &AGENT_NAMES),
    ("network", &["none", "open"]),
    ("credentials", &["broker", "mount", "none"]),
    ("providers", &["anthropic", "openai", "gemini"]),
    ("pull", &["never", "missing", "always"]),
    ("on_interrupt", &["stop", "detach"]),
    ("transport", &["spool", "attach"]),
];

pub(super) fn completion(args: &CompletionArgs) -> Result<u8, CommandError> {
    let shell = match args.shell {
        CompletionShell::Bash => "bash",
        CompletionShell::Zsh => "zsh",
        CompletionShell::Fish => "fish",
        CompletionShell::Elvish => "elvish",
        CompletionShell::Powershell => "powershell",
    };
    let shells = Shells::builtins();
    let Some(shell) = shells.completer(shell) else {
        return Err(CommandError::usage(format!("{shell} is not completed")));
    };
    let name = "dark-factory";
    let mut script = Vec::new();
    shell
        .write_registration(ASKED, name, name, &program(), &mut script)
        .map_err(|error| CommandError::internal("write the script", error))?;
    terminal::print_bytes(&script);
    Ok(exit_code::SUCCEEDED)
}

/// Returns how the script calls this program: by its name if it was called so, else by its path.
fn program() -> String {
    let called = std::env::args_os().next().map(PathBuf::from);
    let path = called.filter(|called| called.components().count() > 1);
    let path = path.and_then(|path| std::path::absolute(path).ok());
    path.map_or("dark-factory".to_owned(), |path| path.display().to_string())
}

/// Answers a script that asks, which makes this process one that does nothing else; returns its exit code then.
pub(crate) fn answer_shell() -> Option<u8> {
    std::env::var_os(ASKED)?;
    let cwd = std::env::current_dir().ok();
    let answered = CompleteEnv::with_factory(described)
        .var(ASKED)
        .try_complete(std::env::args_os(), cwd.as_deref());
    match answered {
        Ok(true) => Some(exit_code::SUCCEEDED),
        Ok(false) => None,
        // In the middle of a line that somebody types: silent.
        Err(_) => Some(exit_code::USAGE),
    }
}

/// The command line, with what its words stand for.
fn described() -> clap::Command {
    describe(Args::command())
}

fn describe(command: clap::Command) -> clap::Command {
    let is_open = OF_OPEN_RUNS.contains(&command.get_name());
    let command = command.mut_args(|arg| {
        let names = arg.get_value_names().unwrap_or_default();
        match names.first().map(|name| name.as_str()) {
            Some("RUN") if is_open => arg.add(ArgValueCandidates::new(|| offers(Offer::Open))),
            Some("RUN") => arg.add(ArgValueCandidates::new(|| offers(Offer::All))),
            Some("FILE" | "RAW.jsonl") => {
                let is_positional = arg.is_positional();
                let arg = arg.value_hint(ValueHint::FilePath);
                match is_positional {
                    true => arg.add(ArgValueCompleter::new(PathCompleter::any().stdio())),
                    false => arg,
                }
            }
            Some("DIR") => arg.value_hint(ValueHint::DirPath),
            _ if arg.get_id() == "profile" => arg.add(ArgValueCandidates::new(profiles)),
            _ => match VALUES.iter().find(|(id, _)| arg.get_id() == *id) {
                Some((_, values)) => arg.add(ArgValueCandidates::new(|| {
                    values.iter().map(CompletionCandidate::new).collect()
                })),
                None => arg,
            },
        }
    });
    command.mut_subcommands(describe)
}

/// Returns the names of profiles in the working directory, as far as the configuration can be read.
fn profiles() -> Vec<CompletionCandidate> {
    let global = Global {
        engine: None,
        color: ColorWhen::Auto,
        host: None,
        state_dir: None,
        json: false,
        api_key: Vec::new(),
        api_base: Vec::new(),
        allow_mount: Vec::new(),
    };
    let files = Context::new(&global)
        .and_then(|context| config::files(&context, None, &Layer::default()))
        .unwrap_or_default();
    let named = files.iter().flat_map(|file| file.profiles.keys());
    let built_in = ["hardened", "seed"].map(CompletionCandidate::new);
    built_in
        .into_iter()
        .chain(named.map(CompletionCandidate::new))
        .collect()
}

/// Which runs are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offer {
    All,
    Open,
}

fn offers(offer: Offer) -> Vec<CompletionCandidate> {
    let Some(state_dir) = state_dir(std::env::args_os()) else {
        return Vec::new();
    };
    let runs = recorded_runs(&state_dir, MOST_RUNS).into_iter();
    let wanted = runs.filter(|run| offer == Offer::All || run.is == RunIs::Open);
    let candidates = wanted.enumerate().map(|(order, run)| {
        let state = match run.is {
            RunIs::Open => "open",
            RunIs::Ended => "ended",
        };
        CompletionCandidate::new(run.run.to_string())
            .help(Some(state.into()))
            .display_order(Some(order))
    });
    candidates.collect()
}

/// Returns the state folder that the words typed so far name, else the one of the environment.
fn state_dir(mut words: impl Iterator<Item = OsString>) -> Option<PathBuf> {
    let mut named = None;
    while let Some(word) = words.next() {
        match word
            .to_str()
            .and_then(|word| word.strip_prefix("--state-dir="))
        {
            Some(dir) => named = Some(PathBuf::from(dir)),
            None if word == OsStr::new("--state-dir") => named = words.next().map(PathBuf::from),
            None => {}
        }
    }
    let global = Global {
        engine: None,
        color: ColorWhen::Auto,
        host: None,
        state_dir: named,
        json: false,
        api_key: Vec::new(),
        api_base: Vec::new(),
        allow_mount: Vec::new(),
    };
    let context = Context::new(&global).ok()?;
    Path::is_dir(&context.state_dir).then_some(context.state_dir)
}
