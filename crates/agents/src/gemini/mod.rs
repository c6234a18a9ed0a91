//! The Gemini CLI agent.
//!
//! Owns: how it is launched, and whether it will find credentials.
//! Reads: what a run asks of it, the names and values of the container's environment.
//! Never: reads its stream; see `decode`.

mod classify;
mod decode;
mod usage;

use std::collections::BTreeMap;

use dark_factory_types::{Exit, Proof, Provider, Verdict};

use crate::agent::{
    Agent, AgentLaunch, AgentRequest, AuthError, AuthView, CredentialFolder, is_set,
};
use crate::transcript::Decoder;

/// The key of the Gemini API.
const GEMINI_KEY: &str = "GEMINI_API_KEY";
/// The key of Vertex AI, which Gemini CLI uses only if it is told to use Vertex AI.
const VERTEX_KEY: &str = "GOOGLE_API_KEY";
/// What tells it to.
const USE_VERTEX: &str = "GOOGLE_GENAI_USE_VERTEXAI";
/// What makes it use a login of Google's; each needs credentials of its own, which may be anywhere.
const LOGINS: [&str; 3] = [USE_VERTEX, "GOOGLE_GENAI_USE_GCA", "GEMINI_CLI_HOME"];

/// What makes it use credentials of the run's own.
const OWN: [&str; 5] = [GEMINI_KEY, VERTEX_KEY, LOGINS[0], LOGINS[1], LOGINS[2]];

/// Gemini CLI, run once with the prompt on standard input and JSON lines on standard output.
#[derive(Debug, Clone, Copy)]
pub struct Gemini;

impl Agent for Gemini {
    fn name(&self) -> &'static str {
        "gemini"
    }

    fn proof(&self) -> Proof {
        Proof::Stream
    }

    fn launch(&self, request: &AgentRequest) -> AgentLaunch {
        // Without a terminal and without `--prompt`, it takes all of standard input for the prompt.
        let mut argv = ["gemini", "--output-format", "stream-json", "--yolo"]
            .map(str::to_owned)
            .to_vec();
        if let Some(model) = request.model.as_deref().filter(|model| !model.is_empty()) {
            argv.extend(["--model".to_owned(), model.to_owned()]);
        }

        let mut env = BTreeMap::new();
        let mut set = |name: &str| env.insert(name.to_owned(), "true".to_owned());
        // Else it refuses to work in a folder that nobody has declared trusted, or without permission for its tools.
        set("GEMINI_CLI_TRUST_WORKSPACE");
        // Else it starts itself again, and the signals that stop a run reach only the first process.
        set("GEMINI_CLI_NO_RELAUNCH");
        if is_set(&request.env, VERTEX_KEY) && !is_set(&request.env, GEMINI_KEY) {
            set(USE_VERTEX);
        }
        AgentLaunch { argv, env }
    }

    fn provider(&self) -> Option<Provider> {
        Some(Provider::Gemini)
    }

    fn api_hosts(&self) -> &'static [&'static str] {
        &["generativelanguage.googleapis.com"]
    }

    fn own_credentials(&self) -> &'static [&'static str] {
        &OWN
    }

    fn credential_folder(&self) -> Option<CredentialFolder> {
        Some(CredentialFolder {
            variable: None,
            name: ".gemini",
        })
    }

    fn check_auth(&self, view: &AuthView<'_>) -> Result<(), AuthError> {
        let keys = [GEMINI_KEY, VERTEX_KEY];
        let mut names = keys.iter().chain(&LOGINS);
        if names.any(|name| view.container_has(name)) {
            return Ok(());
        }
        let otherwise = "pass --env GEMINI_API_KEY=…, or --env GOOGLE_API_KEY=… for Vertex AI, or mount a folder with a \
                         login in .gemini and pass --env GEMINI_CLI_HOME=FOLDER";
        Err(AuthError::NoGeminiCredentials {
            advice: view.advice(&keys, otherwise),
        })
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(decode::GeminiDecoder::default())
    }

    fn image_note(&self) -> Option<&'static str> {
        Some(
            "Gemini CLI comes from npm only, so `dark-factory image build` cannot make its image: build one with node, \
             git and `npm install --global @google/gemini-cli`",
        )
    }

    fn verdict_at_exit(&self, verdict: Verdict, exit: &Exit) -> Verdict {
        classify::at_exit(verdict, exit)
    }
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
        Gemini.launch(&AgentRequest {
            model: Some("gemini-2.5-flash".to_owned()),
            env: env(pairs),
            ..AgentRequest::default()
        })
    }

    fn check(host: &[(&str, &str)], container: &[(&str, &str)]) -> Result<(), AuthError> {
        Gemini.check_auth(&AuthView {
            host_env: &env(host),
            container_env: &env(container),
            claude_dir: None,
            read: &|_| Err(io::ErrorKind::NotFound.into()),
        })
    }

    #[test]
    fn the_command_line_asks_for_json_lines_and_leaves_the_prompt_to_standard_input() {
        assert_eq!(
            launch(&[]).argv.join(" "),
            "gemini --output-format stream-json --yolo --model gemini-2.5-flash"
        );
    }

    #[test]
    fn it_trusts_its_folder_and_stays_one_process() {
        let always = [
            ("GEMINI_CLI_NO_RELAUNCH", "true"),
            ("GEMINI_CLI_TRUST_WORKSPACE", "true"),
        ];

        assert_eq!(launch(&[("GEMINI_API_KEY", "k")]).env, env(&always));
        assert_eq!(
            launch(&[("GOOGLE_API_KEY", "k")]).env,
            env(&[always[0], always[1], (USE_VERTEX, "true")])
        );
        assert_eq!(
            launch(&[("GOOGLE_API_KEY", "k"), ("GEMINI_API_KEY", "k")]).env,
            env(&always)
        );
    }

    #[test]
    fn a_key_or_a_login_is_a_credential() {
        for name in [
            "GEMINI_API_KEY",
            "GOOGLE_API_KEY",
            "GOOGLE_GENAI_USE_VERTEXAI",
            "GOOGLE_GENAI_USE_GCA",
            "GEMINI_CLI_HOME",
        ] {
            assert_eq!(check(&[], &[(name, "x")]), Ok(()), "{name}");
            assert!(check(&[], &[(name, "")]).is_err(), "{name}");
        }
        assert!(check(&[], &[("OPENAI_API_KEY", "x")]).is_err());
    }

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        let on_host = check(&[("GEMINI_API_KEY", "secret")], &[])
            .unwrap_err()
            .to_string();
        let nowhere = check(&[], &[]).unwrap_err().to_string();

        assert!(
            on_host.ends_with("pass it with --env GEMINI_API_KEY"),
            "{on_host}"
        );
        assert!(!on_host.contains("secret"), "{on_host}");
        assert!(nowhere.contains("pass --env GEMINI_API_KEY=…"), "{nowhere}");
    }
}
