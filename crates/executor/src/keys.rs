//! Where the keys of providers are on this machine, for whoever sends requests in an agent's place.
//!
//! Owns: the order in which sources are looked at, who may read a file with a key, and where requests go.
//! Reads: the host's environment through a [`HostView`], and files with keys.
//! Never: runs a program, keeps a key, or puts one into an error.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use dark_factory_agents::{ApiAccess, CLAUDE_LOGIN};
use dark_factory_types::Provider;
use rustix::process::geteuid;
use serde_json::Value;

use crate::host::HostView;
use crate::plain_file;
use crate::resolve::host_path;
use crate::settings::{KeySource, Sourced, ToolSettings};

/// The permission bits that others than the owner have.
const OTHERS: u32 = 0o077;
/// The file of a login in Codex's configuration folder, and the name of the key in it.
const CODEX_LOGIN: (&str, &str) = ("auth.json", "OPENAI_API_KEY");
/// What the OAuth tokens of Anthropic begin with, which are no keys of the API.
const ANTHROPIC_OAUTH: &str = "sk-ant-oat";
/// Variables that hold bearer tokens.
const BEARERS: [&str; 2] = ["ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"];

/// Where keys and APIs are, as the user of this machine says.
#[derive(Debug, Clone, Default)]
pub struct KeySources {
    keys: BTreeMap<Provider, KeySource>,
    bases: BTreeMap<Provider, String>,
}

impl KeySources {
    /// Takes them from the settings of the tool; paths become absolute.
    pub fn new(tool: &ToolSettings, host: &HostView) -> Self {
        let absolute = |source: &Sourced<KeySource>| {
            let below = source.origin.folder(&host.cwd, &host.cwd);
            let path = |path: &str| host_path(path, below, host).display().to_string();
            match &source.value {
                KeySource::File(file) => KeySource::File(path(file)),
                KeySource::ClaudeDir(dir) => KeySource::ClaudeDir(path(dir)),
                other @ (KeySource::Env(_) | KeySource::Command(_)) => other.clone(),
            }
        };
        let provider = |name: &String| name.parse().ok();
        Self {
            keys: tool
                .api_key
                .iter()
                .filter_map(|(name, source)| Some((provider(name)?, absolute(source))))
                .collect(),
            bases: tool
                .api_base
                .iter()
                .filter_map(|(name, base)| Some((provider(name)?, base.value.clone())))
                .collect(),
        }
    }

    /// Returns the files and folders that keys are taken from.
    pub(crate) fn files(&self) -> impl Iterator<Item = PathBuf> {
        self.keys.values().filter_map(|source| match source {
            KeySource::File(path) | KeySource::ClaudeDir(path) => Some(PathBuf::from(path)),
            KeySource::Env(_) | KeySource::Command(_) => None,
        })
    }

    /// Finds a provider's key. Blocks.
    ///
    /// # Errors
    ///
    /// [`KeyError`] if there is none, or if a file with one may be read by others.
    pub fn find(&self, provider: Provider, host: &HostView) -> Result<FoundKey, KeyError> {
        match self.keys.get(&provider) {
            Some(source) => configured(provider, source, host),
            None => usual(provider, host),
        }
    }

    /// Returns where a provider's API is: as configured, as the host's environment says, or the public one.
    pub fn base(&self, provider: Provider, host: &HostView) -> String {
        let access = ApiAccess::of(provider);
        let of_host = host
            .var(access.base_url)
            .filter(|base| !base.trim().is_empty());
        let configured = self.bases.get(&provider).map(String::as_str);
        let base = configured.or(of_host).unwrap_or(access.public);
        let base = base.trim().trim_end_matches('/');
        // What the container's own address adds comes back with each request.
        let base = base.strip_suffix(access.base_path).unwrap_or(base);
        base.trim_end_matches('/').to_owned()
    }
}

/// A key that was found.
#[derive(Clone, PartialEq, Eq)]
pub struct FoundKey {
    /// Where.
    pub place: String,
    /// What it is.
    pub key: FoundValue,
}

impl fmt::Debug for FoundKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FoundKey")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// What was found of a key.
#[derive(Clone, PartialEq, Eq)]
pub enum FoundValue {
    /// A key of the API.
    ApiKey(String),
    /// A bearer token.
    Bearer(String),
    /// A configuration folder of Claude Code with a login.
    ClaudeFolder(PathBuf),
    /// A program that prints it.
    Command(Vec<String>),
}

impl fmt::Debug for FoundValue {
    /// Leaves out what is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApiKey(_) => f.write_str("ApiKey(***)"),
            Self::Bearer(_) => f.write_str("Bearer(***)"),
            Self::ClaudeFolder(folder) => f.debug_tuple("ClaudeFolder").field(folder).finish(),
            Self::Command(argv) => f.debug_tuple("Command").field(argv).finish(),
        }
    }
}

impl FoundValue {
    /// Takes a text for what it is to a provider.
    pub fn of(provider: Provider, text: String) -> Self {
        match provider {
            Provider::Anthropic if text.starts_with(ANTHROPIC_OAUTH) => Self::Bearer(text),
            _ => Self::ApiKey(text),
        }
    }
}

/// A key that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// None of the usual places has one.
    #[error(
        "no key of {provider} was found: looked at {looked}; set one of them, or name another place with api-key in \
         config.toml or --api-key {provider}=SOURCE; credentials: none leaves it to the container"
    )]
    Nowhere {
        /// The provider.
        provider: Provider,
        /// The places, in words.
        looked: String,
    },
    /// The variable that was named is not set.
    #[error(
        "the key of {provider} is to be in {variable}, which is not set here or is empty; set it"
    )]
    Unset {
        /// The provider.
        provider: Provider,
        /// The variable.
        variable: String,
    },
    /// Others may read the file.
    #[error(
        "{path} holds the key of {provider}, and others may read it (mode {mode:04o}); run: chmod 600 {path}",
        path = path.display()
    )]
    Open {
        /// The provider.
        provider: Provider,
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to somebody else.
    #[error(
        "{path} holds the key of {provider}, and belongs to uid {owner}; run: chown {us} {path}",
        path = path.display()
    )]
    Foreign {
        /// The provider.
        provider: Provider,
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        us: u32,
    },
    /// The file has no key in it, or cannot be read.
    #[error("{path} is to hold the key of {provider}: {why}", path = path.display())]
    File {
        /// The provider.
        provider: Provider,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Returns the tokens of the login in a configuration folder of Claude Code, to be hidden. Blocks.
pub fn tokens(dir: &Path) -> Vec<String> {
    let value = json(Provider::Anthropic, &dir.join(CLAUDE_LOGIN.0));
    let login = value.ok().flatten().unwrap_or_default();
    ["accessToken", "refreshToken"]
        .iter()
        .filter_map(|name| login[CLAUDE_LOGIN.1][name].as_str().map(str::to_owned))
        .collect()
}

/// Finds a key where the user says that it is.
fn configured(
    provider: Provider,
    source: &KeySource,
    host: &HostView,
) -> Result<FoundKey, KeyError> {
    let (place, key) = match source {
        KeySource::Env(variable) => match set(variable, host) {
            Some(key) => (variable.clone(), of_variable(provider, variable, key)),
            None => {
                return Err(KeyError::Unset {
                    provider,
                    variable: variable.clone(),
                });
            }
        },
        KeySource::File(path) => {
            let text = private_text(provider, Path::new(path))?;
            let key = text.trim();
            if key.is_empty() {
                return Err(no_file(
                    provider,
                    Path::new(path),
                    "it is empty; write it there",
                ));
            }
            (path.clone(), FoundValue::of(provider, key.to_owned()))
        }
        KeySource::Command(argv) => {
            let program = argv.first().cloned().unwrap_or_default();
            (
                format!("what {program} prints"),
                FoundValue::Command(argv.clone()),
            )
        }
        KeySource::ClaudeDir(dir) => {
            let dir = Path::new(dir);
            if provider != Provider::Anthropic {
                let why = "a login of Claude Code is only good for anthropic";
                return Err(no_file(provider, dir, why));
            }
            if !has_login(dir)? {
                let why = format!(
                    "there is no login in {file}; run `CLAUDE_CONFIG_DIR={dir} claude` and /login",
                    file = CLAUDE_LOGIN.0,
                    dir = dir.display()
                );
                return Err(no_file(provider, dir, &why));
            }
            claude_folder(dir)
        }
    };
    Ok(FoundKey { place, key })
}

/// Finds a key in the usual places.
fn usual(provider: Provider, host: &HostView) -> Result<FoundKey, KeyError> {
    let variables = ApiAccess::of(provider).keys;
    for variable in variables {
        if let Some(key) = set(variable, host) {
            return Ok(FoundKey {
                place: (*variable).to_owned(),
                key: of_variable(provider, variable, key),
            });
        }
    }
    let mut looked = format!("{} in this environment", variables.join(", "));
    let folder = |variable: &str, name: &str| {
        let named = set(variable, host).map(|dir| host.absolute(Path::new(&dir)));
        named.or_else(|| host.home.as_ref().map(|home| home.join(name)))
    };
    let (dir, file) = match provider {
        Provider::Anthropic => (folder("CLAUDE_CONFIG_DIR", ".claude"), CLAUDE_LOGIN.0),
        Provider::Openai => (folder("CODEX_HOME", ".codex"), CODEX_LOGIN.0),
        Provider::Gemini => (None, ""),
    };
    if let Some(dir) = dir {
        let path = dir.join(file);
        let found = match provider {
            Provider::Anthropic => has_login(&dir)?.then(|| claude_folder(&dir)),
            _ => key_of_codex(&path)?
                .map(|key| (path.display().to_string(), FoundValue::ApiKey(key))),
        };
        if let Some((place, key)) = found {
            return Ok(FoundKey { place, key });
        }
        looked.extend([", and ", &path.display().to_string()]);
    }
    Err(KeyError::Nowhere { provider, looked })
}

fn set(variable: &str, host: &HostView) -> Option<String> {
    let value = host.var(variable)?.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

fn of_variable(provider: Provider, variable: &str, key: String) -> FoundValue {
    if BEARERS.contains(&variable) {
        FoundValue::Bearer(key)
    } else {
        FoundValue::of(provider, key)
    }
}

fn claude_folder(dir: &Path) -> (String, FoundValue) {
    let place = format!("the login in {}", dir.display());
    (place, FoundValue::ClaudeFolder(dir.to_owned()))
}

/// Returns whether a folder has a login of Claude Code, which only we may read.
fn has_login(dir: &Path) -> Result<bool, KeyError> {
    let path = dir.join(CLAUDE_LOGIN.0);
    let text = |value: &Value| {
        let token = &value[CLAUDE_LOGIN.1]["accessToken"];
        token.as_str().is_some_and(|token| !token.is_empty())
    };
    Ok(json(Provider::Anthropic, &path)?.is_some_and(|value| text(&value)))
}

fn key_of_codex(path: &Path) -> Result<Option<String>, KeyError> {
    let value = json(Provider::Openai, path)?;
    let key = value.and_then(|value| value[CODEX_LOGIN.1].as_str().map(str::to_owned));
    Ok(key.filter(|key| !key.is_empty()))
}

/// Reads a file that may not be there.
fn json(provider: Provider, path: &Path) -> Result<Option<Value>, KeyError> {
    if !path.exists() {
        return Ok(None);
    }
    let text = private_text(provider, path)?;
    Ok(serde_json::from_str(&text).ok())
}

/// Reads a file that only we may read.
fn private_text(provider: Provider, path: &Path) -> Result<String, KeyError> {
    let file =
        plain_file::read(path).map_err(|error| no_file(provider, path, &error.to_string()))?;
    let us = geteuid().as_raw();
    if file.owner != us {
        return Err(KeyError::Foreign {
            provider,
            path: path.to_owned(),
            owner: file.owner,
            us,
        });
    }
    if file.mode & OTHERS != 0 {
        return Err(KeyError::Open {
            provider,
            path: path.to_owned(),
            mode: file.mode & 0o7777,
        });
    }
    String::from_utf8(file.bytes).map_err(|_| no_file(provider, path, "it is not UTF-8 text"))
}

fn no_file(provider: Provider, path: &Path, why: &str) -> KeyError {
    KeyError::File {
        provider,
        path: path.to_owned(),
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    struct Home(tempfile::TempDir);

    impl Home {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
            let path = self.0.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }

        fn host(&self, variables: &[(&str, &str)]) -> HostView {
            let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            HostView {
                env: variables.iter().map(pair).collect(),
                home: Some(self.0.path().to_owned()),
                cwd: self.0.path().to_owned(),
            }
        }
    }

    fn usual_key(provider: Provider, host: &HostView) -> Result<FoundValue, KeyError> {
        KeySources::default()
            .find(provider, host)
            .map(|found| found.key)
    }

    fn from(
        provider: Provider,
        source: KeySource,
        host: &HostView,
    ) -> Result<FoundValue, KeyError> {
        let sources = KeySources {
            keys: BTreeMap::from([(provider, source)]),
            ..KeySources::default()
        };
        sources.find(provider, host).map(|found| found.key)
    }

    #[test]
    fn a_key_of_the_environment_goes_before_a_login_in_a_folder() {
        let home = Home::new();
        let login = r#"{"claudeAiOauth":{"accessToken":"t"}}"#;
        home.write(".claude/.credentials.json", login, 0o600);

        let both = home.host(&[("ANTHROPIC_AUTH_TOKEN", "b"), ("ANTHROPIC_API_KEY", "k")]);
        let bearer = home.host(&[("ANTHROPIC_API_KEY", ""), ("CLAUDE_CODE_OAUTH_TOKEN", "o")]);
        let alone = home.host(&[]);

        let find = |host| usual_key(Provider::Anthropic, host).ok();
        assert!(find(&both) == Some(FoundValue::ApiKey("k".to_owned())));
        assert!(find(&bearer) == Some(FoundValue::Bearer("o".to_owned())));
        let folder = home.0.path().join(".claude");
        assert!(find(&alone) == Some(FoundValue::ClaudeFolder(folder)));
    }

    #[test]
    fn the_key_in_codexs_folder_is_found_and_a_login_without_one_is_not() {
        let home = Home::new();
        let path = home.write(".codex/auth.json", r#"{"OPENAI_API_KEY":"k"}"#, 0o600);
        let host = home.host(&[]);

        assert!(usual_key(Provider::Openai, &host) == Ok(FoundValue::ApiKey("k".to_owned())));

        home.write(".codex/auth.json", r#"{"OPENAI_API_KEY":null}"#, 0o600);
        let error = usual_key(Provider::Openai, &host)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert!(error.contains("OPENAI_API_KEY, CODEX_API_KEY"), "{error}");
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_with_what_to_run() {
        let home = Home::new();
        let host = home.host(&[]);
        let path = home.write("key", "secret\n", 0o644);
        let file = || KeySource::File(path.display().to_string());

        let error = from(Provider::Gemini, file(), &host)
            .err()
            .unwrap()
            .to_string();

        assert!(
            error.contains(&format!("chmod 600 {}", path.display())),
            "{error}"
        );
        assert!(!error.contains("secret"), "{error}");
        home.write("key", "secret\n", 0o400);
        assert!(
            from(Provider::Gemini, file(), &host) == Ok(FoundValue::ApiKey("secret".to_owned()))
        );
    }

    #[test]
    fn an_oauth_token_is_no_key_of_the_api() {
        let home = Home::new();
        let host = home.host(&[("MINE", "sk-ant-oat01-x")]);
        let mine = KeySource::Env("MINE".to_owned());

        let found = from(Provider::Anthropic, mine, &host);

        assert!(found == Ok(FoundValue::Bearer("sk-ant-oat01-x".to_owned())));
    }

    #[test]
    fn requests_go_where_the_user_says_and_else_to_the_public_address() {
        let home = Home::new();
        let bare = home.host(&[]);
        let host = home.host(&[("OPENAI_BASE_URL", "https://proxy/x/v1/")]);
        let own = KeySources {
            bases: BTreeMap::from([(Provider::Openai, "http://own:1".to_owned())]),
            ..KeySources::default()
        };
        let none = KeySources::default();

        assert_eq!(none.base(Provider::Openai, &bare), "https://api.openai.com");
        assert_eq!(none.base(Provider::Openai, &host), "https://proxy/x");
        assert_eq!(own.base(Provider::Openai, &host), "http://own:1");
    }
}
