//! The Claude Code agent.
//!
//! Owns: how it is launched.
//! Reads: what a run asks of it.
//! Never: reads its stream or its credentials; see `decode` and `auth`.

mod auth;
mod classify;
mod decode;
mod line;
mod result;
mod tools;
mod usage;

use std::collections::BTreeMap;

use dark_factory_types::{Proof, Provider};

use crate::agent::{
    Agent, AgentLaunch, AgentRequest, AuthError, AuthView, ContainerUser, CredentialFolder,
};
use crate::transcript::Decoder;

pub use auth::{CLAUDE_LOGIN, check_claude_auth, claude_token_end};
pub(crate) use line::{Block, Content, Fields, Message, Reading};
pub(crate) use tools::summarise;

/// Claude Code, run once with the prompt on standard input and JSON lines on standard output.
#[derive(Debug, Clone, Copy)]
pub struct Claude;

impl Agent for Claude {
    fn name(&self) -> &'static str {
        "claude"
    }

    fn proof(&self) -> Proof {
        Proof::Stream
    }

    fn launch(&self, request: &AgentRequest) -> AgentLaunch {
        let mut argv: Vec<String> = [
            "claude",
            "-p",
            "--output-format",
            "stream-json",
            // Without it, Claude Code refuses to write JSON lines.
            "--verbose",
            "--dangerously-skip-permissions",
        ]
        .map(str::to_owned)
        .into();
        if let Some(model) = request.model.as_deref().filter(|model| !model.is_empty()) {
            argv.extend(["--model".to_owned(), model.to_owned()]);
        }

        let mut env = BTreeMap::new();
        let mut set = |name: &str| env.insert(name.to_owned(), "1".to_owned());
        set("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC");
        set("DISABLE_AUTOUPDATER");
        if request.user == ContainerUser::Root {
            // It refuses to skip permissions as root unless it is told that it is in a sandbox.
            set("IS_SANDBOX");
        }
        AgentLaunch { argv, env }
    }

    fn provider(&self) -> Option<Provider> {
        Some(Provider::Anthropic)
    }

    fn api_hosts(&self) -> &'static [&'static str] {
        &["api.anthropic.com"]
    }

    fn own_credentials(&self) -> &'static [&'static str] {
        &auth::OWN
    }

    fn credential_folder(&self) -> Option<CredentialFolder> {
        Some(CredentialFolder {
            variable: Some("CLAUDE_CONFIG_DIR"),
            name: ".claude",
        })
    }

    fn check_auth(&self, view: &AuthView<'_>) -> Result<(), AuthError> {
        auth::check(view)
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(decode::ClaudeDecoder::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(launch: &AgentLaunch) -> Vec<&str> {
        launch.env.keys().map(String::as_str).collect()
    }

    #[test]
    fn the_command_line_names_the_model_only_if_there_is_one() {
        let plain = Claude.launch(&AgentRequest::default());
        let with_model = Claude.launch(&AgentRequest {
            model: Some("opus".to_owned()),
            ..AgentRequest::default()
        });

        assert_eq!(
            plain.argv.join(" "),
            "claude -p --output-format stream-json --verbose --dangerously-skip-permissions"
        );
        assert_eq!(with_model.argv[6..], ["--model", "opus"]);
    }

    #[test]
    fn only_root_is_told_that_it_is_in_a_sandbox() {
        let root = Claude.launch(&AgentRequest {
            user: ContainerUser::Root,
            ..AgentRequest::default()
        });
        let other = Claude.launch(&AgentRequest::default());

        assert_eq!(
            names(&root),
            [
                "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
                "DISABLE_AUTOUPDATER",
                "IS_SANDBOX"
            ]
        );
        assert_eq!(names(&other), names(&root)[..2]);
    }
}
