//! The Codex agent.
//!
//! Owns: how it is launched, and whether it will find credentials.
//! Reads: what a run asks of it, the names and values of the container's environment.
//! Never: reads its stream; see `decode`.

mod classify;
mod decode;
mod items;

use std::collections::BTreeMap;

use dark_factory_types::{Proof, Provider};

use crate::agent::{
    Agent, AgentLaunch, AgentRequest, AuthError, AuthView, CredentialFolder, is_set,
};
use crate::transcript::Decoder;

/// What Codex itself reads as a credential.
const CREDENTIALS: [&str; 2] = ["CODEX_API_KEY", "CODEX_ACCESS_TOKEN"];
/// What other tools call the same; `codex exec` does not read it, so it is handed over as `CODEX_API_KEY`.
const OPENAI_KEY: &str = "OPENAI_API_KEY";
/// Where the API is; `codex exec` does not read it either, so it becomes a setting.
const BASE_URL: &str = "OPENAI_BASE_URL";
/// A configuration folder of the user's own may hold credentials, or name the variable that does.
const HOME: &str = "CODEX_HOME";

/// What makes Codex use credentials of the run's own.
const OWN: [&str; 4] = [CREDENTIALS[0], CREDENTIALS[1], OPENAI_KEY, HOME];

/// Settings without which it asks hosts besides its API each time that it starts: for catalogues of plugins, of which
/// none are installed, and to tell what it measured. A configuration folder of the user's own says itself.
const QUIET: [&str; 4] = [
    "-c",
    "features.plugins=false",
    "-c",
    "analytics.enabled=false",
];

/// Beginnings of the names of other agents' keys, which say nothing about Codex.
const OTHERS: [&str; 3] = ["ANTHROPIC_", "GEMINI_", "GOOGLE_"];

/// Codex, run once with the prompt on standard input and JSON lines on standard output.
#[derive(Debug, Clone, Copy)]
pub struct Codex;

impl Agent for Codex {
    fn name(&self) -> &'static str {
        "codex"
    }

    fn proof(&self) -> Proof {
        Proof::Stream
    }

    fn launch(&self, request: &AgentRequest) -> AgentLaunch {
        let mut argv: Vec<String> = [
            "codex",
            "exec",
            "--json",
            // A project need not be a git repository.
            "--skip-git-repo-check",
            // Its own sandbox cannot be set up inside a container without capabilities; the container is the sandbox.
            "--dangerously-bypass-approvals-and-sandbox",
        ]
        .map(str::to_owned)
        .into();
        if !is_set(&request.env, HOME) {
            argv.extend(QUIET.map(str::to_owned));
        }
        if let Some(model) = request.model.as_deref().filter(|model| !model.is_empty()) {
            argv.extend(["--model".to_owned(), model.to_owned()]);
        }
        if let Some(url) = request.env.get(BASE_URL).filter(|url| !url.is_empty()) {
            // The value is TOML, whose strings may be written as JSON's.
            let url = serde_json::Value::from(url.as_str());
            argv.extend(["-c".to_owned(), format!("openai_base_url={url}")]);
        }
        argv.push("-".to_owned());

        let mut env = BTreeMap::new();
        let has_own = CREDENTIALS.iter().any(|name| is_set(&request.env, name));
        if let Some(key) = request.env.get(OPENAI_KEY).filter(|key| !key.is_empty())
            && !has_own
        {
            env.insert(CREDENTIALS[0].to_owned(), key.clone());
        }
        AgentLaunch { argv, env }
    }

    fn provider(&self) -> Option<Provider> {
        Some(Provider::Openai)
    }

    fn api_hosts(&self) -> &'static [&'static str] {
        &["api.openai.com", "chatgpt.com"]
    }

    fn own_credentials(&self) -> &'static [&'static str] {
        &OWN
    }

    fn credential_folder(&self) -> Option<CredentialFolder> {
        Some(CredentialFolder {
            variable: Some("CODEX_HOME"),
            name: ".codex",
        })
    }

    fn check_auth(&self, view: &AuthView<'_>) -> Result<(), AuthError> {
        if view
            .container_env
            .get(BASE_URL)
            .is_some_and(|url| has_user(url))
        {
            return Err(AuthError::SecretInAddress { name: BASE_URL });
        }
        // Another provider's key has the name that the user's configuration gives it.
        let is_key = |name: &str| {
            let is_others = || OTHERS.iter().any(|others| name.starts_with(others));
            CREDENTIALS.contains(&name) || (name.ends_with("_API_KEY") && !is_others())
        };
        let has_key =
            |(name, value): (&String, &String)| !value.is_empty() && is_key(name.as_str());
        if view.container_env.iter().any(has_key) || view.container_has(HOME) {
            return Ok(());
        }
        let otherwise = "pass --env OPENAI_API_KEY=…, or mount a folder with Codex's auth.json and pass \
                         --env CODEX_HOME=FOLDER";
        let names = CREDENTIALS.iter().chain([&OPENAI_KEY]);
        Err(AuthError::NoCodexCredentials {
            advice: view.advice(names, otherwise),
        })
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(decode::CodexDecoder::default())
    }

    fn asked_model<'a>(&self, argv: &'a [String]) -> Option<&'a str> {
        let at = argv.iter().position(|argument| argument == "--model")?;
        argv.get(at + 1).map(String::as_str)
    }
}

/// Returns whether an address has a user or a password before its host.
fn has_user(url: &str) -> bool {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next();
    authority.is_some_and(|authority| authority.contains('@'))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    fn launch(pairs: &[(&str, &str)]) -> AgentLaunch {
        Codex.launch(&AgentRequest {
            env: env(pairs),
            ..AgentRequest::default()
        })
    }

    fn check(host: &[(&str, &str)], container: &[(&str, &str)]) -> Result<(), AuthError> {
        Codex.check_auth(&AuthView {
            host_env: &env(host),
            container_env: &env(container),
            claude_dir: None,
            read: &|_| Err(io::ErrorKind::NotFound.into()),
        })
    }

    #[test]
    fn the_command_line_turns_the_inner_sandbox_off_and_reads_standard_input() {
        assert_eq!(
            launch(&[]).argv.join(" "),
            "codex exec --json --skip-git-repo-check --dangerously-bypass-approvals-and-sandbox \
             -c features.plugins=false -c analytics.enabled=false -"
        );
    }

    #[test]
    fn plugins_and_analytics_are_left_to_a_configuration_folder_of_the_users_own() {
        let argv = launch(&[("CODEX_HOME", "/codex")]).argv;

        assert_eq!(
            argv[4..],
            ["--dangerously-bypass-approvals-and-sandbox", "-"]
        );
    }

    #[test]
    fn the_model_is_known_from_the_command_line() {
        let asked = Codex.launch(&AgentRequest {
            model: Some("gpt-5.5".to_owned()),
            ..AgentRequest::default()
        });

        assert_eq!(Codex.asked_model(&asked.argv), Some("gpt-5.5"));
        assert_eq!(Codex.asked_model(&launch(&[]).argv), None);
    }

    #[test]
    fn the_base_url_of_the_environment_becomes_a_setting() {
        let argv = launch(&[("OPENAI_BASE_URL", "http://proxy/v1")]).argv;

        assert_eq!(
            argv[9..],
            ["-c", "openai_base_url=\"http://proxy/v1\"", "-"]
        );
    }

    #[test]
    fn a_key_under_openais_name_is_handed_over_under_codexs() {
        let renamed = launch(&[("OPENAI_API_KEY", "a")]).env;
        let own = launch(&[("OPENAI_API_KEY", "a"), ("CODEX_API_KEY", "b")]).env;

        assert_eq!(renamed, env(&[("CODEX_API_KEY", "a")]));
        assert!(own.is_empty());
    }

    #[test]
    fn a_key_or_a_configuration_folder_is_a_credential() {
        for name in [
            "OPENAI_API_KEY",
            "CODEX_API_KEY",
            "CODEX_ACCESS_TOKEN",
            "AZURE_API_KEY",
            "CODEX_HOME",
        ] {
            assert_eq!(check(&[], &[(name, "x")]), Ok(()), "{name}");
            assert!(check(&[], &[(name, "")]).is_err(), "{name}");
        }
        for name in ["ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"] {
            assert!(check(&[], &[(name, "x")]).is_err(), "{name}");
        }
    }

    #[test]
    fn an_address_with_a_password_is_refused_without_showing_it() {
        let check = |url| check(&[], &[("OPENAI_API_KEY", "x"), ("OPENAI_BASE_URL", url)]);

        for url in [
            "https://me:secret@proxy/v1",
            "https://token@proxy",
            "me:secret@proxy",
        ] {
            let error = check(url).unwrap_err().to_string();
            assert!(error.starts_with("OPENAI_BASE_URL has a user"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        for url in [
            "",
            "https://proxy/v1",
            "https://proxy/@team",
            "https://proxy?to=a@b",
        ] {
            assert_eq!(check(url), Ok(()), "{url}");
        }
    }

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        let on_host = check(&[("OPENAI_API_KEY", "secret")], &[])
            .unwrap_err()
            .to_string();
        let nowhere = check(&[], &[]).unwrap_err().to_string();

        assert!(
            on_host.ends_with("pass it with --env OPENAI_API_KEY"),
            "{on_host}"
        );
        assert!(!on_host.contains("secret"), "{on_host}");
        assert!(nowhere.contains("pass --env OPENAI_API_KEY=…"), "{nowhere}");
    }
}
