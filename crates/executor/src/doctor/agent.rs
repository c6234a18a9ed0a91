//! The agent in its image: that it starts, and that it could work.
//!
//! Owns: what an agent needs of its image besides itself.
//! Reads: the adapter's command line.
//! Never: calls a model, or needs a network or a credential.

use std::path::Path;

use dark_factory_agents::{Agent, AgentRequest};
use dark_factory_types::{ExitStatus, exit_code};

use super::Finding;
use super::bench::{Bench, Launch};
use crate::settings::Settings;
use crate::spec::User;

/// What every agent does sooner or later; each line that is printed is something that it cannot.
const WORK: &str = r#"
try() { what=$1; shift; "$@" >/dev/null 2>&1 || { echo "$what"; code=1; }; }
code=0
try "it cannot write to its home $HOME" mkdir -p "$HOME/.config/probe"
try "it cannot write to /tmp" mkdir -p /tmp/probe
try "there is no git in the image" git --version
"#;
/// Codex puts a sandbox of its own around each command unless it is told not to. In ours that cannot start, and Codex
/// ends with 0 all the same, with nothing done.
const CODEX_SANDBOX: &str = r#"
try "its own sandbox cannot start in a container, so nothing that it runs would run" codex sandbox -- true
"#;
/// Without this program beside it Codex says so in a warning, can run nothing, and ends with 0 all the same. A script in
/// front of Codex tells nothing of where that is.
const CODEX_HOST: &str = r##"
codex=$(readlink -f "$(command -v codex)")
[ "$(head -c 2 "$codex")" = "#!" ] || try "codex-code-mode-host is not beside it, so nothing that it runs would run" \
    test -x "$(dirname "$codex")/codex-code-mode-host"
"##;
const CODEX_BYPASS: &str = "--dangerously-bypass-approvals-and-sandbox";

impl Bench<'_> {
    /// Asks the agent for its version in a container of `image`, as `user`; `project` is the container's workspace.
    pub async fn agent_starts(
        &self,
        agent: &dyn Agent,
        image: &str,
        user: &User,
        project: &Path,
    ) -> Finding {
        let Some(program) = program(agent) else {
            return Finding::skipped(format!("agent {} is any program", agent.name()));
        };
        let argv = vec![program.clone(), "--version".to_owned()];
        match Box::pin(self.run(launch(image, user, project, argv))).await {
            Ok(ran) if ran.status() == Some(ExitStatus::Code(0)) => {
                let version = ran.stdout.lines().next().unwrap_or_default();
                let version: String = version.chars().take(100).collect();
                Finding::ok(format!("{program} {version} starts in {image}"))
            }
            Ok(ran) => Finding::failed(
                exit_code::USAGE,
                format!("{program} does not start in {image}: {}", ran.cause()),
                Some(advice(agent)),
            ),
            Err(error) => Finding::from(&error),
        }
    }

    /// Tries what the agent needs to work besides a model, in a container of `image` as in [`Bench::agent_starts`].
    pub async fn agent_works(
        &self,
        agent: &dyn Agent,
        image: &str,
        user: &User,
        project: &Path,
    ) -> Finding {
        if program(agent).is_none() {
            return Finding::skipped(format!("agent {} is any program", agent.name()));
        }
        let name = agent.name();
        let mut script = WORK.to_owned();
        let argv = agent.launch(&AgentRequest::default()).argv;
        if name == "codex" {
            script.push_str(CODEX_HOST);
        }
        if name == "codex" && !argv.iter().any(|argument| argument == CODEX_BYPASS) {
            script.push_str(CODEX_SANDBOX);
        }
        script.push_str("exit $code\n");
        let argv = vec!["sh".to_owned(), "-c".to_owned(), script];
        match Box::pin(self.run(launch(image, user, project, argv))).await {
            Ok(ran) if ran.status() == Some(ExitStatus::Code(0)) => Finding::ok(format!(
                "{name} has a shell, git, and a home that it can write to; no model was asked"
            )),
            Ok(ran) => {
                let missing: Vec<&str> = ran.stdout.lines().collect();
                let found = if missing.is_empty() {
                    format!("{name} has no shell in {image}: {}", ran.cause())
                } else {
                    format!("{name} could not work in {image}: {}", missing.join("; "))
                };
                Finding::failed(exit_code::USAGE, found, Some(advice(agent)))
            }
            Err(error) => Finding::from(&error),
        }
    }
}

/// Returns what the agent executes; `None` if that is whatever its user says.
fn program(agent: &dyn Agent) -> Option<String> {
    agent
        .launch(&AgentRequest::default())
        .argv
        .into_iter()
        .next()
}

fn launch<'a>(image: &'a str, user: &'a User, project: &'a Path, argv: Vec<String>) -> Launch<'a> {
    Launch {
        image,
        project,
        user: Some(user),
        argv,
        limits: Settings::default(),
    }
}

fn advice(agent: &dyn Agent) -> String {
    let made = || {
        format!(
            "`dark-factory image build {}` makes an image that has it all",
            agent.name()
        )
    };
    agent.image_note().map_or_else(made, str::to_owned)
}
