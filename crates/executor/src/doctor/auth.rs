//! Which credential an agent will find in its container.
//!
//! Owns: finding out by the adapter's own check which value it is.
//! Reads: a launch spec's environment; credential files, through that check.
//! Never: shows a value, or tries it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use dark_factory_agents::{Agent, AuthView, claude_token_end};
use dark_factory_types::exit_code;
use jiff::Timestamp;

use super::Finding;
use crate::host::HostView;
use crate::spec::LaunchSpec;

/// Says which credentials the agent of a launch that resolved will find, as things are at `now`.
pub fn auth(agent: &dyn Agent, spec: &LaunchSpec, host: &HostView, now: Timestamp) -> Finding {
    let name = agent.name();
    let nothing = BTreeMap::new();
    let is_enough = |env: &BTreeMap<String, String>, dir: Option<&Path>| {
        let view = AuthView {
            host_env: &nothing,
            container_env: env,
            claude_dir: dir,
            read: &|path| fs::read(path),
        };
        agent.check_auth(&view).is_ok()
    };
    if is_enough(&nothing, None) {
        return Finding::ok(format!("{name} needs no credential of ours"));
    }
    let alone = |(key, value): (&String, &String)| {
        let only = BTreeMap::from([(key.clone(), value.clone())]);
        is_enough(&only, None).then(|| key.clone())
    };
    let mut sources: Vec<String> = spec.env.iter().filter_map(alone).collect();
    let dir = spec.seed.claude_dir.as_deref();
    if let Some(dir) = dir.filter(|dir| is_enough(&nothing, Some(dir))) {
        let end = claude_token_end(dir, &|path| fs::read(path));
        let dir = dir.display();
        if sources.is_empty() && end.is_some_and(|end| end < now.as_millisecond()) {
            return Finding::failed(
                exit_code::USAGE,
                format!("the token in {dir} has expired"),
                Some(format!(
                    "log in anew: `CLAUDE_CONFIG_DIR={dir} claude` and /login"
                )),
            );
        }
        sources.push(format!("the token in {dir}"));
    }
    let key = host.var("ANTHROPIC_API_KEY");
    if sources.is_empty() && key.is_some_and(|key| !key.is_empty()) {
        return Finding::warning(
            "only this environment has ANTHROPIC_API_KEY, and the container does not see it",
            "pass it with --env ANTHROPIC_API_KEY",
        );
    }
    if sources.is_empty() {
        return Finding::ok(format!("{name} finds its credentials as the seed does"));
    }
    Finding::ok(format!(
        "{name} finds {}; it was not tried",
        sources.join(", ")
    ))
}
