//! What an agent is told of its limits, in words.
//!
//! Owns: the section behind the prompt.
//! Reads: the launch spec.
//! Never: is part of what is recorded as the prompt.

use std::fmt::Write as _;

use dark_factory_types::{NetworkMode, Provider};

use crate::settings::Shown;
use crate::spec::{Access, HARDENED_HOME, LaunchSpec, Profile};

/// Returns the prompt as the agent gets it, with a section behind it.
pub(crate) fn prompt_with(prompt: &str, section: &str) -> String {
    format!("{}\n\n{section}", prompt.trim_end_matches('\n'))
}

/// Returns the section of Markdown that tells an agent its limits, with a line feed at its end; `None` if it is not to
/// be told.
pub fn limits_section(spec: &LaunchSpec) -> Option<String> {
    if !spec.tell_limits {
        return None;
    }
    let mut lines = limits(spec);
    lines.push(files(spec));
    lines.push(network(spec));
    lines.extend(budget(spec));
    let mut section = "## Limits of this run\n\n\
                       You work unattended in a container that dark-factory made; nobody answers questions. These are \
                       its limits.\n\n"
        .to_owned();
    for line in lines {
        // Writing to one of ours does not fail.
        let _written = writeln!(section, "- {line}");
    }
    Some(section)
}

fn limits(spec: &LaunchSpec) -> Vec<String> {
    let limits = &spec.limits;
    let lines = [
        limits.memory.map(|size| {
            format!("Memory: {size}, swap included. What needs more is killed, and with it perhaps the run.")
        }),
        limits.cpus.map(|cpus| format!("CPUs: {cpus}.")),
        limits
            .pids
            .map(|pids| format!("Processes and threads: {pids} at the same time.")),
        limits
            .open_files
            .map(|files| format!("Open files: {files} in each process.")),
        limits
            .file_size
            .map(|size| format!("One file: {size} at most.")),
        limits.disk.map(|size| {
            format!("What you write into the container's own file system: {size}. Beyond it the run is ended.")
        }),
        limits.timeout.map(|time| {
            format!(
                "Wall time: {} from the start. Then the run is ended.",
                time.shown()
            )
        }),
        limits.idle.map(|time| {
            format!(
                "Time without any output: {}. Then the run is ended.",
                time.shown()
            )
        }),
        limits.log.map(|size| {
            format!("Output of yours, standard output and standard error together: {size}. Beyond it the run is ended.")
        }),
    ];
    lines.into_iter().flatten().collect()
}

fn files(spec: &LaunchSpec) -> String {
    let workspace = &spec.workspace.target;
    let writable = spec
        .mounts
        .iter()
        .filter(|mount| mount.access == Access::ReadWrite);
    let kept: Vec<String> = std::iter::once(format!("`{workspace}` (the project)"))
        .chain(writable.map(|mount| format!("`{}`", mount.target)))
        .collect();
    let kept = kept.join(", ");
    match spec.profile {
        Profile::Hardened => {
            let counted = match spec.limits.memory {
                Some(_) => ", and count against its limit",
                None => "",
            };
            format!(
                "Files: the root file system is read-only. You may write to {kept}, `/tmp` and the home \
                 `{HARDENED_HOME}`. The last two are in memory{counted}, and are gone at the end."
            )
        }
        Profile::Seed => {
            format!("Files: what you write is gone at the end, except in {kept}.")
        }
    }
}

fn network(spec: &LaunchSpec) -> String {
    let rules = match &spec.network {
        NetworkMode::Open => {
            return "Network: open. The internet can be reached as far as this machine reaches it."
                .to_owned();
        }
        NetworkMode::None => &[],
        NetworkMode::Allow(rules) => rules.as_slice(),
    };
    let apis = spec.providers.iter().map(|provider| api(*provider));
    let hosts = rules.iter().map(|rule| format!("`{rule}`"));
    let reached: Vec<String> = apis.chain(hosts).collect();
    if reached.is_empty() {
        return "Network: none. Nothing but the container's own loopback can be reached, so nothing can be downloaded."
            .to_owned();
    }
    format!(
        "Network: only {} can be reached, with HTTP and HTTPS through the proxy that the environment names. A request \
         for anything else gets a 403 whose text begins with `dark-factory:` and names the rule: do not look for a way \
         around it, but tell the user what you needed and what the text says.",
        reached.join(", ")
    )
}

fn api(provider: Provider) -> String {
    format!("the API of {provider} (at the address in the environment)")
}

fn budget(spec: &LaunchSpec) -> Option<String> {
    let budget = &spec.budget;
    let parts = [
        budget.tokens.map(|tokens| format!("{tokens} tokens")),
        budget
            .requests
            .map(|requests| format!("{requests} requests to a model")),
        budget
            .cost
            .map(|cost| format!("${cost} by our table of list prices")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| {
        format!(
            "Budget: {}. Once it is used up the run is ended.",
            parts.join(", ")
        )
    })
}
