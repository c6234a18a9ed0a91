//! Whether Claude Code will find credentials in its container.
//!
//! Owns: the seed's check, and our own.
//! Reads: two environments and, through the caller's function, two files of the configuration folder.
//! Never: checks whether a token is still good, or puts one into an error.

use std::collections::BTreeMap;
use std::path::Path;

use crate::agent::{AuthError, AuthView, ReadFile, is_set};
use crate::json::{JsonKind, KeyMatch, fields, kind, string};

/// Environment values each of which is a credential by itself.
const CREDENTIALS: [&str; 3] = [
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
];

/// Environment values that make Claude Code use a cloud's own credentials.
const CLOUDS: [&str; 2] = ["CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX"];

/// All of them.
pub(super) const OWN: [&str; 5] = [
    CREDENTIALS[0],
    CREDENTIALS[1],
    CREDENTIALS[2],
    CLOUDS[0],
    CLOUDS[1],
];

/// The file in Claude Code's configuration folder that it keeps its login in, and where in it that is.
pub const CLAUDE_LOGIN: (&str, &str) = (".credentials.json", "claudeAiOauth");

/// The files with a token, and where in them it is.
const TOKEN_FILES: [(&str, &str); 2] = [CLAUDE_LOGIN, (".claude.json", "oauthAccount")];

/// Checks Claude's credentials as the seed does, for runs under `profile: seed`.
///
/// Passes on an `ANTHROPIC_API_KEY` of the host, on both `ANTHROPIC_BASE_URL` and
/// `ANTHROPIC_AUTH_TOKEN` of the container, or on a token in the configuration folder. Values are
/// only required not to be empty. The host's key does not reach the container by itself:
/// [`Agent::check_auth`](crate::Agent::check_auth) does not accept it.
///
/// # Errors
///
/// [`AuthError::SeedToken`], whose text is the seed's.
pub fn check_claude_auth(
    host_env: &BTreeMap<String, String>,
    container_env: &BTreeMap<String, String>,
    claude_dir: &Path,
    read: ReadFile<'_>,
) -> Result<(), AuthError> {
    let has_proxy = is_set(container_env, "ANTHROPIC_BASE_URL")
        && is_set(container_env, "ANTHROPIC_AUTH_TOKEN");
    if is_set(host_env, "ANTHROPIC_API_KEY") || has_proxy || has_token(claude_dir, read) {
        return Ok(());
    }
    Err(AuthError::SeedToken {
        dir: claude_dir.to_owned(),
    })
}

/// Checks that the container will have credentials.
pub(super) fn check(view: &AuthView<'_>) -> Result<(), AuthError> {
    let mut names = CREDENTIALS.iter().chain(&CLOUDS);
    let has_value = names.any(|name| view.container_has(name));
    if has_value || view.claude_dir.is_some_and(|dir| has_token(dir, view.read)) {
        return Ok(());
    }

    let host_name = CREDENTIALS.iter().find(|name| view.host_has(name));
    let env_advice = match host_name {
        Some(name) => format!(
            "{name} is set here but containers do not see this environment; \
             pass it with --env {name}=\"${name}\""
        ),
        None => "pass --env ANTHROPIC_API_KEY=…, or --env CLAUDE_CODE_OAUTH_TOKEN=… \
                 (from `claude setup-token`)"
            .to_owned(),
    };
    let dir_advice = match view.claude_dir {
        Some(dir) => format!(
            "; or log in with `CLAUDE_CONFIG_DIR={dir} claude`: {dir} has no token",
            dir = dir.display()
        ),
        None => String::new(),
    };
    Err(AuthError::NoClaudeCredentials {
        advice: env_advice + &dir_advice,
    })
}

/// Returns when the token in a configuration folder ends, in milliseconds since 1970; `None` if it does not say so, or
/// can be renewed.
pub fn claude_token_end(claude_dir: &Path, read: ReadFile<'_>) -> Option<i64> {
    let [(file, account), _] = TOKEN_FILES;
    let bytes = read(&claude_dir.join(file)).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let [account] = fields(&text, [account], KeyMatch::AnyCase)?;
    let keys = ["expiresAt", "refreshToken"];
    let [end, renewal] = fields(account?.get(), keys, KeyMatch::AnyCase)?;
    let can_be_renewed = string(renewal).is_some_and(|token| !token.text().is_empty());
    if can_be_renewed {
        return None;
    }
    end?.get().parse().ok()
}

/// Returns whether one of the folder's files has a token that is not empty.
fn has_token(dir: &Path, read: ReadFile<'_>) -> bool {
    TOKEN_FILES.iter().any(|(file, account)| {
        read(&dir.join(file)).is_ok_and(|bytes| {
            let text = String::from_utf8_lossy(&bytes);
            token_in(&text, account).is_some_and(|token| !token.is_empty())
        })
    })
}

/// Returns the access token of `account`; keys in any case, as Claude's own files have varied.
fn token_in(text: &str, account: &str) -> Option<String> {
    let [account] = fields(text, [account], KeyMatch::AnyCase)?;
    let account = account.filter(|account| kind(*account) == JsonKind::Object)?;
    let [token] = fields(account.get(), ["accessToken"], KeyMatch::AnyCase)?;
    Some(string(token)?.text().into_owned())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::{Agent, Claude};

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    fn no_file(_: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn token_file(path: &Path) -> io::Result<Vec<u8>> {
        if path == Path::new("/c/.credentials.json") {
            Ok(br#"{"claudeAiOauth":{"accessToken":"secret"}}"#.to_vec())
        } else {
            no_file(path)
        }
    }

    struct Case {
        host: BTreeMap<String, String>,
        container: BTreeMap<String, String>,
        dir: Option<&'static str>,
    }

    impl Case {
        fn check(&self, read: ReadFile<'_>) -> Result<(), String> {
            let view = AuthView {
                host_env: &self.host,
                container_env: &self.container,
                claude_dir: self.dir.map(Path::new),
                read,
            };
            Claude.check_auth(&view).map_err(|error| error.to_string())
        }
    }

    fn case() -> Case {
        Case {
            host: BTreeMap::new(),
            container: BTreeMap::new(),
            dir: None,
        }
    }

    #[test]
    fn a_credential_in_the_container_is_enough() {
        for name in CREDENTIALS.iter().chain(&CLOUDS) {
            let by_value = Case {
                container: env(&[(name, "1")]),
                ..case()
            };
            let empty = Case {
                container: env(&[(name, "")]),
                ..case()
            };

            assert_eq!(by_value.check(&no_file), Ok(()), "{name}");
            assert!(empty.check(&no_file).is_err(), "{name}");
        }
    }

    #[test]
    fn a_token_counts_only_in_a_folder_that_is_mounted() {
        let mounted = Case {
            dir: Some("/c"),
            ..case()
        };

        assert_eq!(mounted.check(&token_file), Ok(()));
        assert!(case().check(&token_file).is_err());
    }

    #[test]
    fn a_token_ends_unless_it_can_be_renewed() {
        let end = |fields: &str| {
            let json = format!(r#"{{"claudeAiOauth":{{"accessToken":"t",{fields}}}}}"#);
            claude_token_end(Path::new("/c"), &|_| Ok(json.clone().into_bytes()))
        };

        assert_eq!(end(r#""expiresAt":1700000000000"#), Some(1_700_000_000_000));
        assert_eq!(
            end(r#""expiresAt":1,"refreshToken":"""#),
            Some(1),
            "an empty token renews nothing"
        );
        assert_eq!(end(r#""expiresAt":1,"refreshToken":"r""#), None);
        assert_eq!(end(r#""expiresAt":"soon""#), None);
        assert_eq!(claude_token_end(Path::new("/c"), &no_file), None);
    }

    #[test]
    fn a_key_that_stays_on_the_host_is_not_enough_and_the_error_says_so() {
        let only_host = Case {
            host: env(&[("ANTHROPIC_API_KEY", "secret")]),
            ..case()
        };

        assert_eq!(
            only_host.check(&no_file).unwrap_err(),
            "claude would find no credentials in the container: ANTHROPIC_API_KEY is set here but \
             containers do not see this environment; pass it with --env ANTHROPIC_API_KEY=\"$ANTHROPIC_API_KEY\""
        );
    }

    #[test]
    fn without_any_credential_the_error_says_what_to_do() {
        let nothing = Case {
            dir: Some("/c"),
            ..case()
        };

        assert_eq!(
            nothing.check(&no_file).unwrap_err(),
            "claude would find no credentials in the container: pass --env ANTHROPIC_API_KEY=…, or \
             --env CLAUDE_CODE_OAUTH_TOKEN=… (from `claude setup-token`); or log in with \
             `CLAUDE_CONFIG_DIR=/c claude`: /c has no token"
        );
    }
}
