//! What holds where nothing is said.
//!
//! Owns: the defaults, as values and as people read them.
//! Reads: nothing.
//! Never: applies them; see [`super::resolve`].

use std::time::Duration;

use dark_factory_agents::Agent;
use dark_factory_types::{ByteSize, CpuCount, NetworkMode, Transport};

use super::{ResolveContext, SEED_HOST_CLAUDE_DIR};
use crate::settings::{Credentials, EngineChoice, OnInterrupt, ProfileName, Shown};
use crate::spec::{Profile, PullPolicy, StopPolicy, WORKSPACE_TARGET};

/// The agent.
pub(super) const AGENT: &str = "claude";

/// Limits of the hardened profile where nothing else is said.
///
/// A judgement: agents were measured at up to 300 MB in short sessions, and what they build needs more. A build
/// that needs still more says so.
pub(super) const MEMORY: ByteSize = ByteSize(2 << 30);
pub(super) const PIDS: u32 = 512;
const CPUS: u64 = 2;
/// More than a build makes, and less than a disk has.
pub(super) const FILE_SIZE: ByteSize = ByteSize(16 << 30);
/// Enough for those that watch a whole tree; programs that close all that may be open take long above it.
pub(super) const OPEN_FILES: u32 = 65_536;

/// Most that is written into a root file system that can be written: several times what a large project's packages
/// and builds take, and little enough that a few runs at once do not fill the engine's disk. Where it cannot be written
/// there is nothing to measure.
pub(super) const DISK: ByteSize = ByteSize(10 << 30);

/// Most output, unless something else is asked for.
pub(super) const LOG: ByteSize = ByteSize(1 << 30);
/// How long an agent that has given its result may take to leave, unless something else is asked for; the seed's.
pub(super) const COMPLETION_GRACE: Duration = Duration::from_secs(120);

/// How many runs of one command go on at the same time, unless something else is asked for.
pub const RUN_JOBS: u16 = 1;
/// How many queued runs a daemon begins at the same time, unless something else is asked for.
pub const DAEMON_JOBS: u16 = 4;

/// The CPUs of the hardened profile: engines refuse more than their host has.
pub(super) fn cpus(context: &ResolveContext) -> CpuCount {
    let host = context
        .host_cpus
        .and_then(|cpus| u64::try_from(cpus.get()).ok());
    let cpus = host.map_or(CPUS, |cpus| cpus.min(CPUS));
    CpuCount {
        nanos: cpus * 1_000_000_000,
    }
}

/// Returns whether an agent is told its limits: not if what it gets is no prose to it, nor in the seed's container.
pub(super) fn tell_limits(agent: &dyn Agent, profile: Profile) -> bool {
    profile == Profile::Hardened && agent.reads_prose()
}

/// Returns what holds for a key that no layer sets, as people read it; in round brackets where no value says it.
///
/// A key that is not there has none. `agent` is the agent that is chosen, if one is.
pub fn default_of(
    key: &str,
    agent: Option<&str>,
    profile: Profile,
    context: &ResolveContext,
) -> Option<String> {
    let stop = StopPolicy::default();
    let is_hardened = profile == Profile::Hardened;
    let limit = |limit: String| {
        if is_hardened {
            limit
        } else {
            "(none)".to_owned()
        }
    };
    Some(match key {
        "agent" => AGENT.to_owned(),
        "image" => match context.default_images.get(agent.unwrap_or(AGENT)) {
            Some(image) if is_hardened => image.clone(),
            _ => "(the agent's, if it has one)".to_owned(),
        },
        "model" => "(the agent's own)".to_owned(),
        "command" => "(the image's own)".to_owned(),
        "timeout" | "idle-timeout" => "(none)".to_owned(),
        "completion-grace" => COMPLETION_GRACE.shown(),
        "log-limit" => LOG.shown(),
        "memory" => limit(MEMORY.shown()),
        "cpus" => limit(cpus(context).shown()),
        "pids" => limit(PIDS.shown()),
        "file-size" => limit(FILE_SIZE.shown()),
        "disk-limit" if is_hardened => "(none: the root file system is read-only)".to_owned(),
        "disk-limit" => DISK.shown(),
        "open-files" => limit(OPEN_FILES.shown()),
        "user" if is_hardened => "(the project folder's owner)".to_owned(),
        "user" => "(the image's own)".to_owned(),
        "network" if is_hardened => "allow, with only the agent's API".to_owned(),
        "network" => NetworkMode::Open.shown(),
        "credentials" if is_hardened => Credentials::default().shown(),
        "credentials" => "(the seed's)".to_owned(),
        "providers" => "(the agent's own)".to_owned(),
        "max-tokens" | "max-requests" | "max-cost" => "(none)".to_owned(),
        "api-key" => "(the environment's, else the agent's login)".to_owned(),
        "api-base" => "(the environment's, else the public ones)".to_owned(),
        "hide-git" => "false".to_owned(),
        "tell-limits" => {
            let agent = dark_factory_agents::agent(agent.unwrap_or(AGENT));
            agent
                .is_some_and(|agent| tell_limits(agent, profile))
                .shown()
        }
        "pull" => PullPolicy::default().shown(),
        "project" => "(the git top level, else the prompt file's folder)".to_owned(),
        "project-name" => "(the project folder's name)".to_owned(),
        "profile" => ProfileName::BuiltIn(Profile::default()).shown(),
        "workspace" => WORKSPACE_TARGET.to_owned(),
        "workdir" if is_hardened => "(the workspace)".to_owned(),
        "workdir" => "(the image's own)".to_owned(),
        "transport" => Transport::default().shown(),
        "stop-signal" => stop.signal,
        "stop-grace" => stop.grace.shown(),
        "claude-dir" if is_hardened => "(none)".to_owned(),
        "claude-dir" => format!("~/{SEED_HOST_CLAUDE_DIR}"),
        "env" | "env-file" | "secrets" | "mount" | "label" | "allow-mounts" => "(none)".to_owned(),
        "jobs" => format!("{RUN_JOBS} ({DAEMON_JOBS} in a daemon)"),
        "on-interrupt" => OnInterrupt::default().shown(),
        "engine" => EngineChoice::default().shown(),
        "host" => "(DOCKER_HOST or CONTAINER_HOST, else the engine's usual socket)".to_owned(),
        "keep-days" | "keep-runs" => "(all)".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::settings::KEYS;

    #[test]
    fn every_key_has_a_default_to_show() {
        let context = ResolveContext::new(PathBuf::from("/state"));
        for key in KEYS {
            for profile in [Profile::Hardened, Profile::Seed] {
                assert!(
                    default_of(key.name, None, profile, &context).is_some(),
                    "{key:?}"
                );
            }
        }
        assert_eq!(default_of("keys", None, Profile::Hardened, &context), None);
    }
}
