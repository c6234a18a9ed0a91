//! `config`: shows, checks and describes the configuration.
//!
//! Owns: how values and their origins are printed.
//! Reads: configuration files and prompt files.
//! Never: starts anything, or contacts an engine.

use std::collections::BTreeSet;
use std::path::Path;

use dark_factory_agents::neutralise;
use dark_factory_executor::config::{
    PROJECT_FILE, Row, SEED_FILE, Written, json_schema, parse_project, user_file,
};
use dark_factory_executor::error::sentence;
use dark_factory_executor::prompt::Prompt;
use dark_factory_executor::settings::{Layer, Origin};
use dark_factory_types::exit_code;
use serde_json::{Value, json};

use super::Format;
use super::prompt_file;
use crate::args::{ConfigShowArgs, ConfigValidateArgs};
use crate::config;
use crate::context::Context;
use crate::error::CommandError;
use crate::tell;
use crate::terminal;

/// The widest value that origins are put behind in a column.
const WIDEST: usize = 40;

pub(crate) fn show(
    context: &Context,
    args: &ConfigShowArgs,
    format: Format,
) -> Result<u8, CommandError> {
    let prompt = args.file.as_deref().map(|file| prompt(context, file));
    let prompt = prompt.transpose()?;
    for warning in prompt.iter().flat_map(|prompt| &prompt.warnings) {
        tell::warning_in_file(warning);
    }
    let flags = context.global_flags();
    let stack = config::stack(context, prompt.as_ref(), &flags)?;
    let root = config::root(context, prompt.as_ref(), &flags)?;
    let env_files = stack.env_files(&root, &context.host);
    for problem in &env_files.problems {
        tell::warning(&sentence(problem));
    }
    let grounds = context.resolve_context(context.state_dir.clone());
    let rows = stack.rows(&grounds, &env_files);
    match format {
        Format::Json => rows
            .iter()
            .for_each(|row| terminal::print_json(&object(row))),
        Format::Text => terminal::print(&table(&rows)),
    }
    Ok(exit_code::SUCCEEDED)
}

pub(crate) fn validate(
    context: &Context,
    args: &ConfigValidateArgs,
    format: Format,
) -> Result<u8, CommandError> {
    let mut checks = Checks::default();
    if let Some(path) = user_file(&context.host) {
        let found = context.user_config();
        let is_there = !matches!(found, Ok(None));
        if is_there {
            checks.add(path.display().to_string(), found.map(drop), Vec::new());
        }
    }
    match context.environment() {
        Ok(environment)
            if environment.layer == Layer::default() && environment.warnings.is_empty() => {}
        Ok(environment) => {
            checks.add(
                "environment".to_owned(),
                Ok(()),
                environment.warnings.clone(),
            );
        }
        Err(error) => checks.add("environment".to_owned(), Err(error), Vec::new()),
    }
    let flags = Layer::default();
    let mut roots = BTreeSet::new();
    let mut prompts = Vec::new();
    for file in &args.files {
        let name = file.display().to_string();
        match prompt(context, file) {
            Ok(prompt) => {
                roots.extend(config::root(context, Some(&prompt), &flags));
                prompts.push((name, prompt));
            }
            Err(error) => checks.add(name, Err(error), Vec::new()),
        }
    }
    if args.files.is_empty() {
        roots.extend(config::root(context, None, &flags));
    }
    for root in &roots {
        for name in [SEED_FILE, PROJECT_FILE] {
            let path = root.join(name);
            let shown = path.strip_prefix(&context.host.cwd).unwrap_or(&path);
            let shown = shown.display().to_string();
            match parse_project(&path, &context.host) {
                Ok(None) => {}
                Ok(Some(found)) => {
                    checks.add(shown, Ok(()), found.warnings);
                    checks.notices.extend(found.notices);
                }
                Err(error) => checks.add(shown, Err((&error).into()), Vec::new()),
            }
        }
    }
    let is_sound = checks.is_sound();
    for (name, prompt) in prompts {
        let warnings = prompt.warnings.iter().map(ToString::to_string).collect();
        // With broken files around it there are no layers that its profile could be looked for in.
        let stacked = match is_sound {
            true => config::check(context, Some(&prompt)),
            false => Ok(()),
        };
        checks.add(name, stacked, warnings);
    }
    if is_sound
        && args.files.is_empty()
        && let Err(error) = config::check(context, None)
    {
        checks.add("profile".to_owned(), Err(error), Vec::new());
    }
    Ok(checks.print(format))
}

pub(crate) fn schema() -> u8 {
    terminal::print(&format!("{:#}\n", json_schema()));
    exit_code::SUCCEEDED
}

fn prompt(context: &Context, file: &Path) -> Result<Prompt, CommandError> {
    let (name, bytes) = prompt_file::read(context, file)?;
    Prompt::parse(&name, &bytes).map_err(|error| CommandError::all(CommandError::of_prompt(error)))
}

/// What was checked.
#[derive(Debug, Default)]
struct Checks {
    all: Vec<Check>,
    notices: Vec<String>,
}

#[derive(Debug)]
struct Check {
    name: String,
    checked: Result<(), CommandError>,
    warnings: Vec<String>,
}

impl Checks {
    fn add(&mut self, name: String, checked: Result<(), CommandError>, warnings: Vec<String>) {
        self.all.push(Check {
            name,
            checked,
            warnings,
        });
    }

    fn is_sound(&self) -> bool {
        self.all.iter().all(|check| check.checked.is_ok())
    }

    /// Prints everything and returns the exit code.
    fn print(&self, format: Format) -> u8 {
        for check in &self.all {
            if format == Format::Json {
                terminal::print_json(&json!({
                    "file": check.name,
                    "ok": check.checked.is_ok(),
                    "problem": check.checked.as_ref().err().map(CommandError::text),
                    "warnings": check.warnings,
                }));
                continue;
            }
            match &check.checked {
                Ok(()) => terminal::print(&format!("{}: ok\n", neutralise(&check.name))),
                Err(error) => error.print(),
            }
            for warning in &check.warnings {
                tell::warning(warning);
            }
        }
        for notice in &self.notices {
            tell::note(notice);
        }
        if self.all.is_empty() && format == Format::Text {
            terminal::print("nothing is configured: the defaults hold\n");
        }
        if self.is_sound() {
            exit_code::SUCCEEDED
        } else {
            exit_code::USAGE
        }
    }
}

fn table(rows: &[Row]) -> String {
    let values: Vec<String> = rows.iter().map(value).collect();
    let widths = values.iter().map(|value| value.chars().count());
    let width = widths.filter(|width| *width <= WIDEST).max().unwrap_or(0);
    values
        .iter()
        .zip(rows)
        .map(|(value, row)| format!("{value:width$}   {}\n", neutralise(&story(row))))
        .collect()
}

fn value(row: &Row) -> String {
    let name = match &row.name {
        Some(name) => format!("{}.{name}", row.key.name),
        None => row.key.name.to_owned(),
    };
    let line = format!("{name} = {}", row.text).replace(['\n', '\r'], "⏎");
    neutralise(&line).into_owned()
}

/// Says where a value is from and what it took the place of.
fn story(row: &Row) -> String {
    let Some(written) = &row.written else {
        return "default".to_owned();
    };
    let lower = row.overrides.iter().map(|lower| place(&lower.written));
    let default = row.default.iter().map(|text| format!("default {text}"));
    let lower: Vec<String> = lower.chain(default).collect();
    if lower.is_empty() {
        place(written)
    } else {
        format!("{} (overrides {})", place(written), lower.join(", "))
    }
}

fn place(written: &Written) -> String {
    match &written.profile {
        Some(profile) => format!("{} in profile {profile}", written.origin),
        None => written.origin.to_string(),
    }
}

fn object(row: &Row) -> Value {
    let lower = row
        .overrides
        .iter()
        .map(|lower| json!({ "value": lower.text, "origin": origin(&lower.written) }));
    json!({
        "key": row.key.name,
        "name": row.name,
        "value": row.text,
        "origin": row.written.as_ref().map_or_else(|| json!({ "kind": "default" }), origin),
        "overrides": lower.collect::<Vec<_>>(),
        "default": row.default,
    })
}

fn origin(written: &Written) -> Value {
    match &written.origin {
        Origin::File {
            file, line, column, ..
        } => json!({
            "kind": "file",
            "file": file,
            "line": line,
            "column": column,
            "profile": written.profile,
        }),
        Origin::Variable { variable } => json!({ "kind": "variable", "variable": variable }),
        Origin::Flag { flag } => json!({ "kind": "flag", "flag": flag }),
    }
}
