//! A container that was looked up by name.
//!
//! Owns: what its labels and configuration mean: whose it is, how it is stopped, whether it can be followed.
//! Reads: what the engine says of it.
//! Never: touches it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use bollard::models::{ContainerConfig, ContainerInspectResponse, ContainerState};
use dark_factory_executor::engine::EngineError;
use dark_factory_executor::error::ExecutorError;
use dark_factory_executor::settings::parse_signal;
use dark_factory_executor::spec::{
    CONTAINER_INIT, Disposal, GitVisibility, LABEL_ATTEMPT, LABEL_OWNER, LABEL_PROJECT,
    LABEL_PROMPT, LaunchSpec, Limits, Profile, PullPolicy, SPEC_VERSION, SeedSpec, StopPolicy,
    User, WORKSPACE_TARGET, Workspace,
};
use dark_factory_executor::store::Attempt;
use dark_factory_executor::supervisor::Adoptable;
use dark_factory_types::{
    AttemptId, Budget, ByteSize, CpuCount, ImageRecord, NetworkMode, OwnerId, RunId, Transport,
};
use jiff::Timestamp;

use crate::docker::client::{Client, Fault};
use crate::docker::container::{Container, Phase, inspect, phase};
use crate::docker::workload::DockerWorkload;

/// A container that has the name that was asked for; not for logs, since its environment may hold secrets.
pub(super) struct Found {
    client: Client,
    name: String,
    id: String,
    state: ContainerState,
    config: ContainerConfig,
    inspected: ContainerInspectResponse,
}

/// Looks a container up by its whole name or id; `None` if there is none.
pub(super) async fn find(client: &Client, name: &str) -> Result<Option<Found>, EngineError> {
    // The client puts the name into a path as it is.
    if !is_name(name) {
        return Ok(None);
    }
    let mut inspected = match inspect(client, name).await {
        Ok(inspected) => inspected,
        Err(Fault::Status { code: 404, .. }) => return Ok(None),
        Err(fault) => return Err(fault.into()),
    };
    let incomplete = || EngineError::Failed {
        operation: "inspect the container".to_owned(),
        source: "its answer does not say what the container is".into(),
    };
    let id = inspected.id.clone().ok_or_else(incomplete)?;
    // The engine also takes the beginning of an id for a name.
    let found_name = inspected
        .name
        .as_deref()
        .unwrap_or_default()
        .trim_start_matches('/');
    if found_name != name && id != name {
        return Ok(None);
    }
    let name = found_name.to_owned();
    let state = inspected
        .state
        .take()
        .filter(|state| state.status.is_some())
        .ok_or_else(incomplete)?;
    let config = inspected.config.take().unwrap_or_default();
    Ok(Some(Found {
        client: client.clone(),
        name,
        id,
        state,
        config,
        inspected,
    }))
}

/// Returns whether a container can have this name, by the engine's own rule.
fn is_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_plain)
}

impl Found {
    /// Returns whether the engine says that it runs; a paused one does.
    pub(super) fn is_running(&self) -> bool {
        self.state.running == Some(true)
    }

    pub(super) fn phase(&self) -> Phase {
        phase(&self.state)
    }

    pub(super) fn exit_code(&self) -> i64 {
        self.state.exit_code.unwrap_or_default()
    }

    /// Refuses a container that neither we nor the seed made.
    pub(super) fn check_ours(&self) -> Result<(), EngineError> {
        if self.label(LABEL_PROJECT).is_some() || self.label(LABEL_OWNER).is_some() {
            return Ok(());
        }
        Err(EngineError::NotOurs {
            name: self.name.clone(),
        })
    }

    /// Returns the attempt that the container was made for, if this installation made it.
    pub(super) fn made_for(&self, owner: &OwnerId) -> Option<AttemptId> {
        let is_of_owner = self
            .label(LABEL_OWNER)
            .is_some_and(|found| found == owner.0);
        if is_of_owner {
            self.label(LABEL_ATTEMPT)?.parse().ok()
        } else {
            None
        }
    }

    /// Returns whether an attempt has this very container.
    pub(super) fn is_of(&self, attempt: &Attempt) -> bool {
        let handle = attempt
            .handle
            .as_ref()
            .and_then(|handle| Container::of(&self.client, handle).ok());
        handle.is_some_and(|container| container.id == self.id)
    }

    /// Returns how it is stopped where nothing else is known: as its configuration says.
    pub(super) fn stop_policy(&self) -> StopPolicy {
        let defaults = StopPolicy::default();
        let signal = self
            .config
            .stop_signal
            .as_deref()
            .and_then(|signal| parse_signal(signal).ok());
        let grace = self
            .config
            .stop_timeout
            .and_then(|seconds| u64::try_from(seconds).ok());
        StopPolicy {
            signal: signal.unwrap_or(defaults.signal),
            grace: grace.map_or(defaults.grace, Duration::from_secs),
        }
    }

    /// Returns it as something that can be stopped and removed.
    pub(super) fn workload(&self) -> Box<DockerWorkload> {
        let has_helper = self
            .config
            .entrypoint
            .iter()
            .flatten()
            .next()
            .is_some_and(|program| program == CONTAINER_INIT);
        let transport = if has_helper {
            Transport::Spool
        } else {
            Transport::Attach
        };
        let container = self.container(transport, None);
        // Stopping and removing concern no attempt.
        let attempt = self.label(LABEL_ATTEMPT).and_then(|id| id.parse().ok());
        let handle = container.handle(attempt.unwrap_or_else(no_attempt));
        DockerWorkload::found(container, &handle, None)
    }

    fn container(&self, transport: Transport, engine: Option<String>) -> Container {
        Container {
            client: self.client.clone(),
            id: self.id.clone(),
            name: self.name.clone(),
            transport,
            engine,
        }
    }

    /// Returns what makes an attempt of it, whose output is read from the engine's log.
    ///
    /// Of its environment and mounts nothing is kept: they are not ours to record.
    pub(super) fn adoptable(&self, adopter: &Adopter<'_>) -> Result<Adoptable, ExecutorError> {
        let refused = |reason| ExecutorError::NotFollowable {
            name: self.name.clone(),
            reason,
        };
        if self.phase() == Phase::Created {
            return Err(refused("it was never started"));
        }
        if self.config.tty == Some(true) {
            return Err(refused(
                "it has a terminal, so its two output streams are one",
            ));
        }
        let started_at: Option<Timestamp> = self
            .state
            .started_at
            .as_deref()
            .and_then(|at| at.parse().ok());
        let started_at =
            started_at.ok_or_else(|| refused("the engine does not say when it was started"))?;
        let image = self.config.image.clone().unwrap_or_default();
        let project = self.label(LABEL_PROJECT).unwrap_or_default();
        let label_or_name = self
            .label(LABEL_PROMPT)
            .unwrap_or_else(|| prompt_base(&self.name, project));
        let spec = LaunchSpec {
            version: SPEC_VERSION,
            file: "-".to_owned(),
            project: project.to_owned(),
            prompt: label_or_name.to_owned(),
            container: Some(self.name.clone()),
            agent: adopter.agent.to_owned(),
            profile: Profile::Seed,
            image: image.clone(),
            pull: PullPolicy::Never,
            command: Vec::new(),
            env: BTreeMap::new(),
            secrets: Vec::new(),
            labels: BTreeMap::new(),
            workspace: Workspace {
                source: adopter.project_root.to_owned(),
                target: WORKSPACE_TARGET.to_owned(),
                git: GitVisibility::Visible,
                git_is_file: false,
            },
            mounts: Vec::new(),
            workdir: self.config.working_dir.clone().unwrap_or_default(),
            user: User::Image,
            limits: self.limits(adopter.max_prompt_duration),
            network: NetworkMode::Open,
            providers: Vec::new(),
            budget: Budget::default(),
            stop: self.stop_policy(),
            engine_identity: None,
            disposal: Disposal::Remove,
            tell_limits: false,
            prompt_digests: None,
            secret_sources: BTreeMap::new(),
            env_from_host: BTreeSet::new(),
            completion_grace: None,
            transport: Transport::Attach,
            seed: SeedSpec::default(),
        };
        Ok(Adoptable {
            spec,
            image: ImageRecord {
                reference: image,
                digest: self.inspected.image.clone().unwrap_or_default(),
            },
            handle: self
                .container(Transport::Attach, adopter.engine.clone())
                .handle(no_attempt()),
            started_at,
        })
    }

    fn limits(&self, timeout: Option<Duration>) -> Limits {
        let host = self.inspected.host_config.as_ref();
        let above_zero = |value: Option<i64>| {
            value
                .filter(|value| *value > 0)
                .and_then(|value| u64::try_from(value).ok())
        };
        Limits {
            memory: above_zero(host.and_then(|host| host.memory)).map(ByteSize),
            cpus: above_zero(host.and_then(|host| host.nano_cpus)).map(|nanos| CpuCount { nanos }),
            pids: above_zero(host.and_then(|host| host.pids_limit))
                .and_then(|pids| u32::try_from(pids).ok()),
            timeout,
            ..Limits::default()
        }
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.config.labels.as_ref()?.get(name).map(String::as_str)
    }
}

/// Who adopts a container.
#[derive(Debug)]
pub(super) struct Adopter<'a> {
    /// The agent that is assumed to be in it.
    pub(super) agent: &'a str,
    pub(super) project_root: &'a Path,
    pub(super) max_prompt_duration: Option<Duration>,
    /// The id of the engine that has the container, if that has one.
    pub(super) engine: Option<String>,
}

/// Returns the seed's prompt label for a container: its name without the project in front.
pub(super) fn prompt_base<'a>(name: &'a str, project: &str) -> &'a str {
    let base = name
        .strip_prefix(project)
        .and_then(|rest| rest.strip_prefix('-'));
    base.filter(|base| !base.is_empty()).unwrap_or(name)
}

fn no_attempt() -> AttemptId {
    RunId::from_random_bits(0).attempt(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prompt_label_is_the_name_without_the_project() {
        for (name, project, base) in [
            ("p-042-fix", "p", "042-fix"),
            ("other-042", "p", "other-042"),
            ("p-", "p", "p-"),
            ("x", "", "x"),
        ] {
            assert_eq!(prompt_base(name, project), base, "{name} of {project}");
        }
    }

    #[test]
    fn a_text_that_would_be_another_request_is_no_name() {
        for name in [
            "", "-a", ".", "..", "a/b", "a?b", "a#b", "a%2fb", "a b", "ä",
        ] {
            assert!(!is_name(name), "{name}");
        }
        for name in ["a", "0", "p-042_fix.1"] {
            assert!(is_name(name), "{name}");
        }
    }
}
