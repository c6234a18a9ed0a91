//! The agent of a run: which it is, what it executes, and whether it will find credentials.
//!
//! Owns: the choice of the agent, its command line, and the environment as a whole.
//! Reads: the settings; credential files, through the agent's own check.
//! Never: knows how an agent is called; that is its adapter's.

use std::collections::BTreeMap;
use std::path::Path;

use dark_factory_agents::{
    AGENT_NAMES, Agent, AgentRequest, AuthView, ContainerUser, agent, check_claude_auth,
};

use super::defaults::AGENT as DEFAULT_AGENT;
use super::environment::Env;
use super::{ResolveError, SEED_HOST_CLAUDE_DIR, SEED_PROMPT, Warnings};
use crate::host::HostView;
use crate::plain_file;
use crate::settings::{Origin, Settings, Sourced, nearest, quoted};
use crate::spec::{CONTAINER_PROMPT, HARDENED_HOME, PROMPT_FILE_ENV, Profile, User};

pub(super) fn chosen(
    setting: Option<&Sourced<String>>,
) -> Result<&'static dyn Agent, ResolveError> {
    let (name, origin) = match setting {
        Some(Sourced { value, origin }) => (value.as_str(), Some(origin)),
        None => (DEFAULT_AGENT, None),
    };
    agent(name).ok_or_else(|| ResolveError::UnknownAgent {
        origin: origin.cloned().unwrap_or(Origin::Flag { flag: "--agent" }),
        name: name.to_owned(),
        known: AGENT_NAMES.join(", "),
        suggestion: nearest(name, AGENT_NAMES),
    })
}

pub(super) fn request(
    agent: &'static dyn Agent,
    settings: &Settings,
    user: &User,
    warnings: &mut Warnings,
) -> Result<AgentRequest, ResolveError> {
    let takes_command = agent.name() == "command";
    let command = match &settings.command {
        Some(Sourced { value, origin }) if !value.is_empty() => {
            if !takes_command {
                let (origin, agent) = (origin.clone(), agent.name());
                return Err(ResolveError::CommandOfOtherAgent { origin, agent });
            }
            let has_program = value.first().is_some_and(|program| !program.is_empty());
            if !has_program || value.iter().any(|arg| arg.contains('\0')) {
                return Err(ResolveError::Command {
                    origin: origin.clone(),
                });
            }
            value.clone()
        }
        _ => Vec::new(),
    };
    if let Some(Sourced { value, origin }) = &settings.model {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._:/@[]-".contains(c);
        let is_fit = (1..=256).contains(&value.len()) && !value.starts_with('-');
        if !is_fit || !value.chars().all(is_allowed) {
            return Err(ResolveError::Model {
                origin: origin.clone(),
                model: quoted(value),
            });
        }
        if takes_command {
            warnings.push(format!(
                "{origin}: the agent command has no model; the key does nothing"
            ));
        }
    }
    Ok(AgentRequest {
        model: settings.model.as_ref().map(|model| model.value.clone()),
        command,
        user: if user.is_root() {
            ContainerUser::Root
        } else {
            ContainerUser::Unprivileged
        },
        env: BTreeMap::new(),
    })
}

/// What runs in the container, and with which environment.
pub(super) struct Launch {
    pub(super) argv: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
}

/// Asks the agent for its launch; under the seed's profile the image's entrypoint launches Claude.
pub(super) fn launch(
    agent: &'static dyn Agent,
    request: &AgentRequest,
    profile: Profile,
    user_env: &Env,
    api_env: &BTreeMap<String, String>,
) -> Launch {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let user_env = user_env
        .iter()
        .map(|(name, value)| pair(name, &value.value));
    let own = agent.launch(&AgentRequest {
        env: api_env
            .clone()
            .into_iter()
            .chain(user_env.clone())
            .collect(),
        ..request.clone()
    });
    match profile {
        Profile::Hardened => {
            let mut env = BTreeMap::from([pair("HOME", HARDENED_HOME)]);
            env.extend(own.env);
            env.extend(api_env.clone());
            env.extend(user_env);
            env.extend([pair(PROMPT_FILE_ENV, CONTAINER_PROMPT)]);
            Launch {
                argv: own.argv,
                env,
            }
        }
        Profile::Seed if agent.name() == DEFAULT_AGENT => {
            let mut env = api_env.clone();
            env.extend(user_env);
            env.extend([
                pair("YOLO_OUTPUT", "json"),
                pair("YOLO_PROMPT_FILE", SEED_PROMPT),
            ]);
            env.extend(
                request
                    .model
                    .as_deref()
                    .map(|model| pair("ANTHROPIC_MODEL", model)),
            );
            Launch {
                argv: Vec::new(),
                env,
            }
        }
        Profile::Seed => {
            let mut env = own.env;
            env.extend(api_env.clone());
            env.extend(user_env);
            env.extend([pair(PROMPT_FILE_ENV, SEED_PROMPT)]);
            Launch {
                argv: own.argv,
                env,
            }
        }
    }
}

pub(super) fn check_auth(
    agent: &'static dyn Agent,
    container_env: &BTreeMap<String, String>,
    claude_dir: Option<&Path>,
    host: &HostView,
    profile: Profile,
) -> Result<(), ResolveError> {
    let is_claude = agent.name() == DEFAULT_AGENT;
    let read = |path: &Path| Ok(plain_file::read(path)?.bytes);
    let view = AuthView {
        host_env: &host.env,
        container_env,
        claude_dir,
        read: &read,
    };
    let checked = match (agent.check_auth(&view), profile) {
        (Err(_), Profile::Seed) if is_claude => {
            let home = host.home.as_deref().unwrap_or(Path::new("~"));
            let default = home.join(SEED_HOST_CLAUDE_DIR);
            let dir = claude_dir.unwrap_or(&default);
            check_claude_auth(&host.env, container_env, dir, &read)
        }
        (checked, _) => checked,
    };
    Ok(checked?)
}
