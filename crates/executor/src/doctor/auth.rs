//! Which credential an agent will find in its container, and whether it can be used where it is told to.
//!
//! Owns: finding out by the adapter's own check which value it is; what a base URL must be.
//! Reads: a launch spec's environment; credential files, through that check.
//! Never: shows a value, or tries it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use dark_factory_agents::{Agent, AuthView, claude_token_end};
use dark_factory_types::exit_code;
use jiff::Timestamp;

use super::Finding;
use crate::host::HostView;
use crate::keys::KeySources;
use crate::plain_file;
use crate::settings::{quoted, without_passwords};
use crate::spec::LaunchSpec;

/// The variables by which agents are told where their provider is.
const BASE_URLS: [&str; 3] = [
    "ANTHROPIC_BASE_URL",
    "OPENAI_BASE_URL",
    "GOOGLE_GEMINI_BASE_URL",
];

/// Says which credentials the agent of a launch that resolved will find, as things are at `now`.
pub fn auth(
    agent: &dyn Agent,
    spec: &LaunchSpec,
    host: &HostView,
    keys: &KeySources,
    now: Timestamp,
) -> Finding {
    let name = agent.name();
    if let Some(finding) = base_url(spec) {
        return finding;
    }
    if !spec.providers.is_empty() {
        return brokered(spec, host, keys);
    }
    let nothing = BTreeMap::new();
    let is_enough = |env: &BTreeMap<String, String>, dir: Option<&Path>| {
        let view = AuthView {
            host_env: &nothing,
            container_env: env,
            claude_dir: dir,
            read: &read,
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
        let end = claude_token_end(dir, &read);
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

/// Says which keys the broker has for a launch.
fn brokered(spec: &LaunchSpec, host: &HostView, keys: &KeySources) -> Finding {
    let mut found = Vec::new();
    for provider in &spec.providers {
        match keys.find(*provider, host) {
            Ok(key) => found.push(format!("{} for {provider}", key.place)),
            Err(error) => return Finding::failed(exit_code::USAGE, error.to_string(), None),
        }
    }
    Finding::ok(format!(
        "the key stays outside of the container: the broker has {}; it was not tried",
        found.join(", ")
    ))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    Ok(plain_file::read(path)?.bytes)
}

/// Returns what is wrong with the first base URL that is none; an agent says of it only that it cannot connect.
fn base_url(spec: &LaunchSpec) -> Option<Finding> {
    BASE_URLS.into_iter().find_map(|name| {
        let url = spec.env.get(name).filter(|url| !url.is_empty())?;
        let problem = url_problem(url)?;
        let url = quoted(&without_passwords(url));
        Some(Finding::failed(
            exit_code::USAGE,
            format!("{name} is {url}, which {problem}"),
            Some(
                "write it as https://HOST or http://HOST:PORT, with a path if there is one"
                    .to_owned(),
            ),
        ))
    })
}

/// Says why no request can be sent to a URL, if none can.
fn url_problem(url: &str) -> Option<&'static str> {
    if url.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Some("has a blank in it");
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return Some("is no URL");
    };
    if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
        return Some("does not begin with http:// or https://");
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let place = authority.rsplit('@').next().unwrap_or_default();
    // An IPv6 address has colons of its own, in square brackets.
    let (host, port) = match place.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
        Some((host, port)) => (host, port),
        None => place.split_at(place.find(':').unwrap_or(place.len())),
    };
    let is_port = |port: &str| {
        port.strip_prefix(':')
            .is_some_and(|port| port.parse::<u16>().is_ok())
    };
    if host.is_empty() {
        Some("has no host")
    } else if !port.is_empty() && !is_port(port) {
        Some("has no port behind its host's colon")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_nothing_can_be_sent_to_is_told_from_one_that_is_fine() {
        for url in [
            "https://api.anthropic.com",
            "HTTP://localhost:8123/v1?x=y",
            "http://user:pw@proxy.example:1/",
            "http://[::1]:80",
            "http://[::1]",
            "http://10.0.0.1",
        ] {
            assert_eq!(url_problem(url), None, "{url}");
        }
        for (url, problem) in [
            ("http://:8123", "has no host"),
            ("https://", "has no host"),
            ("http://u@/x", "has no host"),
            ("http://[]:80", "has no host"),
            ("localhost:8123", "is no URL"),
            ("api.anthropic.com", "is no URL"),
            ("ftp://x", "does not begin with http:// or https://"),
            ("http://x y", "has a blank in it"),
            ("http://x:", "has no port behind its host's colon"),
            ("http://x:99999", "has no port behind its host's colon"),
            ("http://[::1]80", "has no port behind its host's colon"),
        ] {
            assert_eq!(url_problem(url), Some(problem), "{url}");
        }
    }
}
