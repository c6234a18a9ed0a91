//! What a run's logs must not show.
//!
//! Owns: which values are its secrets.
//! Reads: the launch spec, the attempt's secret files, credential files that are mounted.
//! Never: fails: what cannot be read is not hidden; keeps a value anywhere but in the mask.

use std::path::Path;

use dark_factory_agents::{CLAUDE_LOGIN, Mask};
use serde_json::Value;

use crate::plain_file::read_text;
use crate::settings::{is_secret_name, passwords};
use crate::spec::{AttemptDir, LaunchSpec};

/// The files in which agents keep what they log in with.
const CREDENTIAL_FILES: [&str; 4] = [
    CLAUDE_LOGIN.0,
    ".claude.json",
    "auth.json",
    "oauth_creds.json",
];

/// Returns what hides the secrets of an attempt, the same for each of its supervisors. Blocks.
///
/// `secrets` are those that whoever keeps the attempt's way out knows.
pub(super) fn mask(spec: &LaunchSpec, dir: &AttemptDir, mut secrets: Vec<String>) -> Mask {
    for (name, value) in &spec.env {
        let is_path = value.starts_with('/');
        if is_secret_name(name) || (spec.env_from_host.contains(name) && !is_path) {
            secrets.push(value.clone());
        }
        secrets.extend(passwords(value).map(str::to_owned));
    }
    for name in &spec.secrets {
        secrets.extend(read_text(&dir.secrets().join(name)).ok());
    }
    let folders = spec.mounts.iter().map(|mount| mount.source.as_path());
    for path in folders.chain(spec.seed.claude_dir.as_deref()) {
        credentials(path, &mut secrets);
    }
    if let Some(netrc) = &spec.seed.netrc_file {
        secrets.extend(
            read_text(netrc)
                .ok()
                .iter()
                .flat_map(|text| passwords_of_netrc(text)),
        );
    }
    Mask::new(secrets)
}

/// Adds the values of a credential file, or of those in a folder, whose names say that they are secrets.
fn credentials(path: &Path, secrets: &mut Vec<String>) {
    let is_credential = |name: &str| CREDENTIAL_FILES.contains(&name);
    let name = path.file_name().and_then(|name| name.to_str());
    let files = match name.filter(|name| is_credential(name)) {
        Some(_) => vec![path.to_owned()],
        None => CREDENTIAL_FILES.map(|name| path.join(name)).to_vec(),
    };
    for file in files {
        if let Ok(text) = read_text(&file)
            && let Ok(value) = serde_json::from_str(&text)
        {
            secret_values(&value, secrets);
        }
    }
}

fn secret_values(value: &Value, secrets: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if is_secret_name(name) => secrets.push(text.clone()),
                    value => secret_values(value, secrets),
                }
            }
        }
        Value::Array(values) => values
            .iter()
            .for_each(|value| secret_values(value, secrets)),
        Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Null => {}
    }
}

fn passwords_of_netrc(text: &str) -> Vec<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let pairs = words.windows(2).filter(|pair| pair[0] == "password");
    pairs.map(|pair| pair[1].to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_credential_files_are_secrets_and_other_values_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            ".credentials.json",
            r#"{"claudeAiOauth":{"accessToken":"a-token","scopes":["user"],"expiresAt":1,"subscriptionType":"max"}}"#,
        );
        write(
            "auth.json",
            r#"{"OPENAI_API_KEY":"a-key","tokens":{"id_token":"an-id"},"last_refresh":"now"}"#,
        );
        write(".claude.json", "not json");
        let (mut found, mut of_file) = (Vec::new(), Vec::new());

        credentials(folder.path(), &mut found);
        credentials(&folder.path().join("auth.json"), &mut of_file);

        assert_eq!(found, ["a-token", "a-key", "an-id"]);
        assert_eq!(of_file, ["a-key", "an-id"]);
    }

    #[test]
    fn passwords_of_a_netrc_are_secrets() {
        let netrc = "machine a login me password one-pass\nmachine b\n  password two-pass\n";

        assert_eq!(passwords_of_netrc(netrc), ["one-pass", "two-pass"]);
    }
}
