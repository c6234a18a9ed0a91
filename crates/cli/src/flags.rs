//! Flags as settings.
//!
//! Owns: which flag is which setting.
//! Reads: the parsed command line.
//! Never: has a rule of its own about a value; the settings' parsers have them.

use std::collections::BTreeMap;

use dark_factory_executor::settings::{
    EngineChoice, EnvValue, KeySource, SettingError, Settings, Sourced, ToolSettings,
    parse_api_base, parse_api_key, parse_completion_grace, parse_cost, parse_cpus,
    parse_credentials, parse_engine, parse_env, parse_grace, parse_label, parse_memory,
    parse_mount, parse_network, parse_on_interrupt, parse_pids, parse_profile, parse_project_name,
    parse_providers, parse_pull, parse_secret, parse_signal, parse_time_limit, parse_transport,
    parse_user, parse_uses,
};
use dark_factory_executor::spec::GitVisibility;
use dark_factory_executor::supervisor::Retention;

use crate::args::{Global, RetentionArgs, RunArgs};
use crate::context::Context;
use crate::error::CommandError;

/// Turns the flags of `run` into settings, each with its flag as its origin.
pub(crate) fn settings(args: &RunArgs) -> Result<Settings, CommandError> {
    Ok(Settings {
        agent: text("--agent", args.agent.as_ref()),
        image: text("--image", args.image.as_ref()),
        model: text("--model", args.model.as_ref()),
        env: env(&args.env)?,
        env_file: args
            .env_file
            .iter()
            .map(|file| Sourced::flag("--env-file", file.clone()))
            .collect(),
        mounts: args
            .mount
            .iter()
            .map(|mount| parsed("--mount", mount, parse_mount))
            .collect::<Result<_, _>>()?,
        timeout: one("--timeout", args.timeout.as_ref(), parse_time_limit)?,
        idle_timeout: one(
            "--idle-timeout",
            args.idle_timeout.as_ref(),
            parse_time_limit,
        )?,
        log_limit: one("--log-limit", args.log_limit.as_ref(), parse_memory)?,
        memory: one("--memory", args.memory.as_ref(), parse_memory)?,
        cpus: one("--cpus", args.cpus.as_ref(), parse_cpus)?,
        pids: one("--pids", args.pids.as_ref(), parse_pids)?,
        file_size: one("--file-size", args.file_size.as_ref(), parse_memory)?,
        disk_limit: one("--disk-limit", args.disk_limit.as_ref(), parse_memory)?,
        open_files: one("--open-files", args.open_files.as_ref(), parse_pids)?,
        user: one("--user", args.user.as_ref(), parse_user)?,
        network: one("--network", args.network.as_ref(), parse_network)?,
        credentials: one(
            "--credentials",
            args.credentials.as_ref(),
            parse_credentials,
        )?,
        providers: one("--providers", args.providers.as_ref(), parse_providers)?,
        max_tokens: one("--max-tokens", args.max_tokens.as_ref(), parse_uses)?,
        max_requests: one("--max-requests", args.max_requests.as_ref(), parse_uses)?,
        max_cost: one("--max-cost", args.max_cost.as_ref(), parse_cost)?,
        tell_limits: args
            .tell_limits
            .map(|is_told| Sourced::flag("--tell-limits", is_told)),
        git: args.hide_git.map(|is_hidden| {
            let git = match is_hidden {
                true => GitVisibility::Hidden,
                false => GitVisibility::Visible,
            };
            Sourced::flag("--hide-git", git)
        }),
        labels: map("--label", &args.label, parse_label)?,
        pull: one("--pull", args.pull.as_ref(), parse_pull)?,
        project: text("--project", args.project.as_ref()),
        profile: one("--profile", args.profile.as_ref(), parse_profile)?,
        transport: one("--transport", args.transport.as_ref(), parse_transport)?,
        command: (!args.command.is_empty()).then(|| Sourced::flag("--", args.command.clone())),
        secrets: map("--secret", &args.secret, parse_secret)?,
        completion_grace: one(
            "--completion-grace",
            args.completion_grace.as_ref(),
            parse_completion_grace,
        )?,
        workspace: text("--workspace", args.workspace.as_ref()),
        workdir: text("--workdir", args.workdir.as_ref()),
        stop_signal: one("--stop-signal", args.stop_signal.as_ref(), parse_signal)?,
        stop_grace: one("--stop-grace", args.stop_grace.as_ref(), parse_grace)?,
        claude_dir: text("--claude-dir", args.claude_dir.as_ref()),
        project_name: one(
            "--project-name",
            args.project_name.as_ref(),
            parse_project_name,
        )?,
    })
}

/// Turns the flags of `run` that are about the tool into settings.
pub(crate) fn tool(args: &RunArgs) -> Result<ToolSettings, CommandError> {
    Ok(ToolSettings {
        jobs: args.jobs.map(|jobs| Sourced::flag("--jobs", jobs)),
        on_interrupt: one(
            "--on-interrupt",
            args.on_interrupt.as_ref(),
            parse_on_interrupt,
        )?,
        ..ToolSettings::default()
    })
}

/// Returns how long runs that have ended are kept: as flags say it, else as the configuration does.
pub(crate) fn retention(
    context: &Context,
    flags: RetentionArgs,
) -> Result<Retention, CommandError> {
    let tool = context.tool()?;
    let configured = |setting: Option<Sourced<u32>>| setting.map(|setting| setting.value);
    Ok(Retention {
        days: flags.keep_days.or(configured(tool.keep_days)),
        runs: flags.keep_runs.or(configured(tool.keep_runs)),
    })
}

/// Turns the flag of every command that says which engine is used into a setting.
pub(crate) fn engine(global: &Global) -> Result<Option<Sourced<EngineChoice>>, CommandError> {
    one("--engine", global.engine.as_ref(), parse_engine)
}

/// Turns the flags of every command that are about this machine into settings: where keys and APIs are, what may be
/// mounted.
pub(crate) fn machine(global: &Global) -> Result<ToolSettings, CommandError> {
    Ok(ToolSettings {
        api_key: map::<KeySource>("--api-key", &global.api_key, parse_api_key)?,
        api_base: map("--api-base", &global.api_base, parse_api_base)?,
        allow_mounts: global
            .allow_mount
            .iter()
            .map(|path| Sourced::flag("--allow-mount", path.clone()))
            .collect(),
        ..ToolSettings::default()
    })
}

/// Turns `--env` into settings.
pub(crate) fn env(values: &[String]) -> Result<BTreeMap<String, Sourced<EnvValue>>, CommandError> {
    map("--env", values, parse_env)
}

fn text(flag: &'static str, value: Option<&String>) -> Option<Sourced<String>> {
    value.map(|value| Sourced::flag(flag, value.clone()))
}

fn one<T>(
    flag: &'static str,
    value: Option<&String>,
    parse: fn(&str) -> Result<T, SettingError>,
) -> Result<Option<Sourced<T>>, CommandError> {
    value.map(|value| parsed(flag, value, parse)).transpose()
}

fn map<T>(
    flag: &'static str,
    values: &[String],
    parse: fn(&str) -> Result<(String, T), SettingError>,
) -> Result<BTreeMap<String, Sourced<T>>, CommandError> {
    let pairs = values.iter().map(|value| {
        let Sourced {
            value: (name, value),
            origin,
        } = parsed(flag, value, parse)?;
        Ok((name, Sourced { value, origin }))
    });
    pairs.collect()
}

fn parsed<T>(
    flag: &'static str,
    value: &str,
    parse: fn(&str) -> Result<T, SettingError>,
) -> Result<Sourced<T>, CommandError> {
    match parse(value) {
        Ok(value) => Ok(Sourced::flag(flag, value)),
        Err(error) => Err(CommandError::usage(format!("{flag} {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use dark_factory_executor::settings::{KEYS, Scope};

    use crate::args::Args;

    #[test]
    fn every_key_of_a_run_is_a_flag_of_run_and_explain() {
        let cli = Args::command();
        for command in ["run", "explain"] {
            let command = cli.find_subcommand(command).unwrap();
            let flags: Vec<&str> = command
                .get_arguments()
                .flat_map(|flag| flag.get_long_and_visible_aliases().into_iter().flatten())
                .collect();
            let keys = KEYS
                .iter()
                .filter(|key| matches!(key.scope, Scope::Run | Scope::Project));
            // The program and its arguments stand behind --.
            for key in keys.filter(|key| key.name != "command") {
                let is_flag = flags.contains(&key.name)
                    || key.alias.is_some_and(|alias| flags.contains(&alias));
                assert!(is_flag, "{}", key.name);
            }
        }
    }
}
