//! What an agent adapter is, and which there are.
//!
//! Owns: the adapter's contract and the registry.
//! Reads: nothing.
//! Never: knows what any one agent prints.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use dark_factory_types::{Exit, Proof, Provider, Verdict};

use crate::claude::Claude;
use crate::codex::Codex;
use crate::command::Command;
use crate::gemini::Gemini;
use crate::transcript::Decoder;

/// The names of all agents.
pub const AGENT_NAMES: [&str; 4] = ["claude", "codex", "gemini", "command"];

/// Returns the agent of that name.
pub fn agent(name: &str) -> Option<&'static dyn Agent> {
    match name {
        "claude" => Some(&Claude),
        "codex" => Some(&Codex),
        "gemini" => Some(&Gemini),
        "command" => Some(&Command),
        _ => None,
    }
}

/// One kind of agent: how it is launched and how its output is read.
pub trait Agent: fmt::Debug + Send + Sync {
    /// Returns its name, as users write it.
    fn name(&self) -> &'static str;

    /// Returns what it has to show before a run of it counts as succeeded.
    fn proof(&self) -> Proof;

    /// Returns what to execute. The prompt is on standard input, whatever the agent.
    fn launch(&self, request: &AgentRequest) -> AgentLaunch;

    /// Returns the provider whose API it uses, if it uses one.
    fn provider(&self) -> Option<Provider> {
        None
    }

    /// Returns the hosts of its API where nobody names another address.
    fn api_hosts(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns the variables each of which gives it credentials of its own, or says where they are.
    fn own_credentials(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns the folder of the user's home in which it keeps its credentials, and the variable that names another.
    fn credential_folder(&self) -> Option<CredentialFolder> {
        None
    }

    /// Checks that the agent will find credentials in its container.
    ///
    /// # Errors
    ///
    /// [`AuthError`] if it will not; the text says what to do.
    fn check_auth(&self, view: &AuthView<'_>) -> Result<(), AuthError>;

    /// Returns a decoder for the standard output of one run.
    fn decoder(&self) -> Box<dyn Decoder>;

    /// Returns how somebody comes to an image of it, if we cannot make one.
    fn image_note(&self) -> Option<&'static str> {
        None
    }

    /// Returns the model that a command line asks for, for agents whose stream does not name theirs.
    fn asked_model<'a>(&self, argv: &'a [String]) -> Option<&'a str> {
        let _ = argv;
        None
    }

    /// Returns whether what it reads on standard input is prose for it to heed, and not data of a program.
    fn reads_prose(&self) -> bool {
        true
    }

    /// Returns what a verdict of the stream becomes by how the agent ended.
    ///
    /// Only for agents whose exit code says what their stream may not; it never makes a success of anything.
    fn verdict_at_exit(&self, verdict: Verdict, exit: &Exit) -> Verdict {
        let _ = exit;
        verdict
    }
}

/// Where an agent keeps its credentials on the machine of its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CredentialFolder {
    /// The variable of the environment that names it.
    pub variable: Option<&'static str>,
    /// Its name in the user's home; it has the same in a container.
    pub name: &'static str,
}

/// Who the agent is inside its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContainerUser {
    /// The user id is 0.
    Root,
    /// It is another.
    #[default]
    Unprivileged,
}

/// What a run asks of its agent.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct AgentRequest {
    /// The model; `None` for the agent's own default.
    pub model: Option<String>,
    /// The program and its arguments; only the `command` agent uses them.
    pub command: Vec<String>,
    /// Who the agent is inside its container.
    pub user: ContainerUser,
    /// What the user sets in the container's environment, for agents that read only flags.
    pub env: BTreeMap<String, String>,
}

impl fmt::Debug for AgentRequest {
    /// Shows only the names of the environment: the values are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentRequest")
            .field("model", &self.model)
            .field("command", &self.command)
            .field("user", &self.user)
            .field("env", &self.env.keys())
            .finish()
    }
}

/// What to execute in the container.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct AgentLaunch {
    /// The program and its arguments; empty for the image's own entrypoint and command.
    pub argv: Vec<String>,
    /// Environment that the agent needs; what the user sets goes before it.
    pub env: BTreeMap<String, String>,
}

impl fmt::Debug for AgentLaunch {
    /// Shows only the names of the environment: the values are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentLaunch")
            .field("argv", &self.argv)
            .field("env", &self.env.keys())
            .finish()
    }
}

/// Reads a whole file of the host.
pub type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// Where credentials may be.
#[derive(Clone, Copy)]
pub struct AuthView<'a> {
    /// The caller's own environment. The container does not see it.
    pub host_env: &'a BTreeMap<String, String>,
    /// The environment that the container will have.
    pub container_env: &'a BTreeMap<String, String>,
    /// The host's folder that is mounted as the agent's configuration, if one is.
    pub claude_dir: Option<&'a Path>,
    /// Reads a file of the host.
    pub read: ReadFile<'a>,
}

impl AuthView<'_> {
    /// Returns whether the container will have a value of that name which is not empty.
    pub fn container_has(&self, name: &str) -> bool {
        is_set(self.container_env, name)
    }

    /// Returns whether the caller has a value of that name which is not empty.
    pub fn host_has(&self, name: &str) -> bool {
        is_set(self.host_env, name)
    }

    /// Returns what to do about a missing credential: pass on the first of the names that the caller has, else that.
    pub(crate) fn advice<'n>(
        &self,
        names: impl IntoIterator<Item = &'n &'n str>,
        otherwise: &str,
    ) -> String {
        match names.into_iter().find(|name| self.host_has(name)) {
            Some(name) => format!(
                "{name} is set here but containers do not see this environment; pass it with --env {name}"
            ),
            None => otherwise.to_owned(),
        }
    }
}

impl fmt::Debug for AuthView<'_> {
    /// Shows names only: the values are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthView")
            .field("host_env", &self.host_env.keys())
            .field("container_env", &self.container_env.keys())
            .field("claude_dir", &self.claude_dir)
            .finish_non_exhaustive()
    }
}

/// Returns whether a value of that name is there and not empty.
pub(crate) fn is_set(env: &BTreeMap<String, String>, name: &str) -> bool {
    env.get(name).is_some_and(|value| !value.is_empty())
}

/// An agent that would find no credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The seed's check failed; the text is the seed's.
    #[error(
        "Claude OAuth token missing or expired in {dir}\n\nFix: Run 'CLAUDE_CONFIG_DIR={dir} claude' and use /login",
        dir = dir.display()
    )]
    SeedToken {
        /// The folder that was looked at.
        dir: PathBuf,
    },
    /// Nothing in the container's environment or configuration is a credential.
    #[error("claude would find no credentials in the container: {advice}")]
    NoClaudeCredentials {
        /// What to do about it.
        advice: String,
    },
    /// Nothing in the container's environment is a credential or a configuration of Codex.
    #[error("codex would find no credentials in the container: {advice}")]
    NoCodexCredentials {
        /// What to do about it.
        advice: String,
    },
    /// Nothing in the container's environment is a credential of Gemini CLI.
    #[error("gemini would find no credentials in the container: {advice}")]
    NoGeminiCredentials {
        /// What to do about it.
        advice: String,
    },
    /// An address that goes into the command line has a user or a password in it.
    #[error(
        "{name} has a user or a password in it, which the agent's command line would show; write it without, and pass \
         the key with --env OPENAI_API_KEY"
    )]
    SecretInAddress {
        /// The variable.
        name: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_an_agent_of_that_name() {
        for name in AGENT_NAMES {
            assert_eq!(agent(name).unwrap().name(), name);
        }
        assert!(agent("Claude").is_none());
    }
}
