//! Settings as one text each: what a flag or a plain value in a front matter holds.
//!
//! Owns: the text forms and their errors.
//! Reads: text.
//! Never: looks at the host.

use std::time::Duration;

use dark_factory_types::{
    ByteSize, CpuCount, EgressError, EgressRule, NetworkMode, Provider, Transport, Usd,
    parse_duration,
};

use super::{
    Credentials, EngineChoice, EnvValue, ExtraMount, KeySource, Limit, OnInterrupt, ProfileName,
    SecretSource, UserSetting,
};
use crate::spec::{Profile, PullPolicy};

/// Shown of a text that is not what it should be, in characters.
const SHOWN: usize = 80;

pub(super) const MEMORY: &str = "a size such as 512m or 8g, or none";
pub(super) const CPUS: &str = "a number of CPUs above 0, such as 2 or 0.5, or none";
pub(super) const PIDS: &str = "a whole number such as 512, or none";
pub(super) const TIMEOUT: &str = "a duration with a unit, such as 90s, 30m or 1h30m";
pub(super) const TIME_LIMIT: &str = "a duration with a unit, such as 90s, 30m or 1h30m, or none";
pub(super) const COMPLETION_GRACE: &str = "a duration with a unit, such as 2m, or 0s, or none";
pub(super) const GRACE: &str = "a duration with a unit, such as 10s, or 0s";
pub(super) const USER: &str = "UID or UID:GID, such as 1000:1000";
pub(super) const SIGNAL: &str =
    "the name of a signal that can be handled, such as SIGTERM or SIGINT";
pub(super) const MOUNT: &str = "SRC:DST or SRC:DST:ro, where no path has a colon";
pub(super) const ENV: &str = "NAME=VALUE, or NAME alone for the host's value";
pub(super) const LABEL: &str = "NAME=VALUE";
pub(super) const SECRET: &str = "NAME=env:VAR or NAME=file:PATH";
pub(super) const SECRET_SOURCE: &str = "env:VAR or file:PATH";
pub(super) const NETWORK: &str = "none, open, or allow and a list of hosts such as api.example.com";
pub(super) const RULE: &str = "a host such as api.example.com, *.example.com:8443 or 10.1.0.0/16";
pub(super) const PULL: &str = "never, missing or always";
pub(super) const PROFILE: &str = "hardened, seed, or the name of a [profile.NAME] table";
pub(super) const JOBS: &str = "a whole number from 1 to 64";
pub(super) const COUNT: &str = "a whole number from 1";
pub(super) const ON_INTERRUPT: &str = "stop or detach";
pub(super) const ENGINE: &str = "auto, docker, podman or sandbox";
pub(super) const PROJECT_NAME: &str = "a name that is not empty";
pub(super) const TRANSPORT: &str = "spool or attach";
pub(super) const CREDENTIALS: &str = "broker, mount or none";
pub(super) const PROVIDERS: &str = "a list of anthropic, openai and gemini";
pub(super) const USES: &str = "a whole number from 1, or none";
pub(super) const COST: &str = "an amount in US dollars above 0, such as 5 or 0.25, or none";
pub(super) const KEY_SOURCE: &str = "env:VAR, file:PATH, command:PROGRAM ARGS, claude-dir:PATH, or a program and its arguments as a list";
pub(super) const API_KEY: &str = "PROVIDER=env:VAR, PROVIDER=file:PATH, PROVIDER=command:PROGRAM ARGS or \
                                  PROVIDER=claude-dir:PATH, where PROVIDER is anthropic, openai or gemini";
pub(super) const URL: &str = "https://HOST[:PORT][/PATH] or http://…, without a user in it";
pub(super) const API_BASE: &str =
    "PROVIDER=URL, where PROVIDER is anthropic, openai or gemini and URL has no user in it";

/// A text that a setting does not accept; its message continues "the setting …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be {expected}{}{}",
    .found.as_ref().map_or_else(
        || " (what was written may be a secret, so it is not shown)".to_owned(),
        |found| format!(", not {found}")
    ),
    .why.as_ref().map_or_else(String::new, |why| format!(": {why}"))
)]
pub struct SettingError {
    expected: &'static str,
    /// `None` if it may be a secret.
    found: Option<String>,
    why: Option<String>,
}

impl SettingError {
    fn new(expected: &'static str, text: &str) -> Self {
        Self {
            expected,
            found: Some(quoted(text)),
            why: None,
        }
    }

    /// Says more about what is wrong with the text.
    fn because(expected: &'static str, text: &str, why: &EgressError) -> Self {
        Self {
            why: Some(why.why().to_owned()),
            ..Self::new(expected, text)
        }
    }

    /// Is about a text that may be a secret.
    fn hidden(expected: &'static str) -> Self {
        Self {
            expected,
            found: None,
            why: None,
        }
    }
}

/// Shows a text in quotes, not more than its beginning.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

macro_rules! parsers {
    ($($(#[$doc:meta])* $name:ident($text:ident) -> $type:ty, $expected:ident, $value:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        ///
        /// [`SettingError`] if it is none of that.
        pub fn $name($text: &str) -> Result<$type, SettingError> {
            let value: Option<$type> = $value;
            value.ok_or_else(|| SettingError::new($expected, $text))
        }
    )*};
}

parsers! {
    /// Parses a limit of memory or output: `512m`, `8g`, `none`.
    parse_memory(text) -> Limit<ByteSize>, MEMORY, limit(text, |text| text.parse().ok());
    /// Parses a limit of CPUs: `2`, `0.5`, `none`.
    parse_cpus(text) -> Limit<CpuCount>, CPUS, limit(text, |text| text.parse().ok());
    /// Parses a limit of processes: `512`, `none`.
    parse_pids(text) -> Limit<u32>, PIDS, limit(text, |text| text.parse().ok());
    /// Parses a limit of time: `90s`, `1h30m`, `none`; not zero.
    parse_time_limit(text) -> Limit<Duration>, TIME_LIMIT, limit(text, |text| parse_duration(text).ok());
    /// Parses the time that an agent has to leave: `2m`; `0s` is at once, `none` is all the time that it wants.
    parse_completion_grace(text) -> Limit<Duration>, COMPLETION_GRACE, limit(text, grace);
    /// Parses a time: `90s`, `1h30m`; not zero.
    parse_timeout(text) -> Duration, TIMEOUT, parse_duration(text).ok();
    /// Parses the time that a stop waits: `10s`; `0s` kills at once.
    parse_grace(text) -> Duration, GRACE, grace(text);
    /// Parses a user: `1000`, `1000:1000`, or names.
    parse_user(text) -> UserSetting, USER, user(text);
    /// Parses a signal by its name, with or without `SIG`, in any case; returns it as `SIGTERM`.
    parse_signal(text) -> String, SIGNAL, signal(text);
    /// Parses `SRC:DST`, `SRC:DST:ro` or `SRC:DST:rw`.
    parse_mount(text) -> ExtraMount, MOUNT, mount(text);
    /// Parses `NAME=VALUE`, or `NAME` for an empty value.
    parse_label(text) -> (String, String), LABEL, {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        named(name, value.to_owned())
    };
    /// Parses `never`, `missing` or `always`.
    parse_pull(text) -> PullPolicy, PULL, match text {
        "never" => Some(PullPolicy::Never),
        "missing" => Some(PullPolicy::Missing),
        "always" => Some(PullPolicy::Always),
        _ => None,
    };
    /// Parses the name of a profile; whether there is one of that name is not looked at.
    parse_profile(text) -> ProfileName, PROFILE, match text {
        "hardened" => Some(ProfileName::BuiltIn(Profile::Hardened)),
        "seed" => Some(ProfileName::BuiltIn(Profile::Seed)),
        "" => None,
        name => Some(ProfileName::Named(name.to_owned())),
    };
    /// Parses how many runs go on at the same time.
    parse_jobs(text) -> u16, JOBS, text.parse().ok().filter(|jobs| (1..=64).contains(jobs));
    /// Parses a whole number of at least 1.
    parse_count(text) -> u32, COUNT, text.parse().ok().filter(|count| *count > 0);
    /// Parses `stop` or `detach`.
    parse_on_interrupt(text) -> OnInterrupt, ON_INTERRUPT, match text {
        "stop" => Some(OnInterrupt::Stop),
        "detach" => Some(OnInterrupt::Detach),
        _ => None,
    };
    /// Parses `auto`, `docker` or `podman`.
    parse_engine(text) -> EngineChoice, ENGINE, match text {
        "auto" => Some(EngineChoice::Auto),
        "docker" => Some(EngineChoice::Docker),
        "podman" => Some(EngineChoice::Podman),
        "sandbox" => Some(EngineChoice::Sandbox),
        _ => None,
    };
    /// Parses the name of a project.
    parse_project_name(text) -> String, PROJECT_NAME,
        (!text.trim().is_empty() && !text.contains(char::is_control)).then(|| text.to_owned());
    /// Parses `broker`, `mount` or `none`.
    parse_credentials(text) -> Credentials, CREDENTIALS, match text {
        "broker" => Some(Credentials::Broker),
        "mount" => Some(Credentials::Mount),
        "none" => Some(Credentials::None),
        _ => None,
    };
    /// Parses names of providers with commas between them.
    parse_providers(text) -> Vec<Provider>, PROVIDERS,
        text.split(',').map(|name| name.trim().parse().ok()).collect();
    /// Parses how many tokens or requests may be used: `200`, `none`.
    parse_uses(text) -> Limit<u64>, USES, limit(text, |text| text.parse().ok().filter(|count| *count > 0));
    /// Parses what may be spent: `5`, `0.25`, `none`.
    parse_cost(text) -> Limit<Usd>, COST, limit(text, |text| text.parse().ok().filter(|cost: &Usd| cost.0 > 0));
    /// Parses `PROVIDER=URL`.
    parse_api_base(text) -> (String, String), API_BASE, {
        let (name, base) = text.split_once('=').unwrap_or_default();
        provider(name).and_then(|name| named(name, url(base)?))
    };
    /// Parses `spool` or `attach`.
    parse_transport(text) -> Transport, TRANSPORT, match text {
        "spool" => Some(Transport::Spool),
        "attach" => Some(Transport::Attach),
        _ => None,
    };
}

/// Parses `none`, `open`, or `allow:HOST,HOST`, where each host is an [`EgressRule`].
///
/// # Errors
///
/// [`SettingError`] if it is none of that.
pub fn parse_network(text: &str) -> Result<NetworkMode, SettingError> {
    match (text, text.strip_prefix("allow:")) {
        ("none", _) => Ok(NetworkMode::None),
        ("open", _) => Ok(NetworkMode::Open),
        (_, Some(list)) => {
            let rules = list.split(',').map(|rule| parse_rule(rule.trim()));
            rules.collect::<Result<_, _>>().map(NetworkMode::Allow)
        }
        _ => Err(SettingError::new(NETWORK, text)),
    }
}

/// Parses one thing that a run may reach.
pub(crate) fn parse_rule(text: &str) -> Result<EgressRule, SettingError> {
    text.parse()
        .map_err(|error| SettingError::because(RULE, text, &error))
}

/// Parses `NAME=VALUE`, or `NAME` for the host's value.
///
/// # Errors
///
/// [`SettingError`] if it is none of that; the text is not in it.
pub fn parse_env(text: &str) -> Result<(String, EnvValue), SettingError> {
    let pair = match text.split_once('=') {
        Some((name, value)) => named(name, EnvValue::Text(value.to_owned())),
        None => named(text, EnvValue::FromHost),
    };
    pair.ok_or_else(|| SettingError::hidden(ENV))
}

/// Parses `NAME=env:VAR` or `NAME=file:PATH`.
///
/// # Errors
///
/// [`SettingError`] if it is none of that; the text is not in it.
pub fn parse_secret(text: &str) -> Result<(String, SecretSource), SettingError> {
    let pair = text
        .split_once('=')
        .and_then(|(name, source)| named(name, secret_source(source)?));
    pair.ok_or_else(|| SettingError::hidden(SECRET))
}

/// Parses `PROVIDER=SOURCE`, where the source is `env:VAR`, `file:PATH`, `command:PROGRAM ARGS` or `claude-dir:PATH`.
///
/// # Errors
///
/// [`SettingError`] if it is none of that; the text is not in it.
pub fn parse_api_key(text: &str) -> Result<(String, KeySource), SettingError> {
    let pair = text
        .split_once('=')
        .and_then(|(name, source)| named(provider(name)?, key_source(source)?));
    pair.ok_or_else(|| SettingError::hidden(API_KEY))
}

/// Parses the address of an API.
pub(super) fn parse_url(text: &str) -> Result<String, SettingError> {
    url(text).ok_or_else(|| SettingError::hidden(URL))
}

/// Parses where a key is.
pub(super) fn parse_key_source(text: &str) -> Result<KeySource, SettingError> {
    key_source(text).ok_or_else(|| SettingError::hidden(KEY_SOURCE))
}

/// Parses `env:VAR` or `file:PATH`.
pub(super) fn parse_secret_source(text: &str) -> Result<SecretSource, SettingError> {
    secret_source(text).ok_or_else(|| SettingError::hidden(SECRET_SOURCE))
}

/// A line of an environment file: its number, counted from 1, and what it sets.
pub type EnvLine = (usize, String, EnvValue);

/// Parses a file of environment variables in Docker's format.
///
/// Each line is `NAME=VALUE` with the value taken as it is, or `NAME` for the host's value. Empty lines and
/// lines that begin with `#` do not count.
///
/// # Errors
///
/// The number of the first line that is none of that, and its error; the value is not in it.
pub fn parse_env_file(text: &str) -> Result<Vec<EnvLine>, (usize, SettingError)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // The value may be a secret, so an error shows the name only; without a value, that may be one.
        let (name, error) = match line.split_once('=') {
            Some((name, _)) => (name, SettingError::new(ENV, name)),
            None => (line, SettingError::hidden(ENV)),
        };
        if name.contains(char::is_whitespace) {
            return Err((index + 1, error));
        }
        let (name, value) = parse_env(line).map_err(|_| (index + 1, error))?;
        found.push((index + 1, name, value));
    }
    Ok(found)
}

fn limit<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Limit<T>> {
    match text {
        "none" => Some(Limit::Off),
        text => parse(text).map(Limit::At),
    }
}

fn grace(text: &str) -> Option<Duration> {
    match text {
        "0" | "0s" => Some(Duration::ZERO),
        text => parse_duration(text).ok(),
    }
}

fn named<T>(name: &str, value: T) -> Option<(String, T)> {
    (!name.is_empty()).then(|| (name.to_owned(), value))
}

/// Returns the name if it is a provider's.
pub(super) fn provider(name: &str) -> Option<&str> {
    name.parse::<Provider>().ok().map(|_| name)
}

fn key_source(text: &str) -> Option<KeySource> {
    match text.split_once(':')? {
        (_, rest) if rest.trim().is_empty() => None,
        ("env", name) => Some(KeySource::Env(name.to_owned())),
        ("file", path) => Some(KeySource::File(path.to_owned())),
        ("claude-dir", path) => Some(KeySource::ClaudeDir(path.to_owned())),
        ("command", line) => Some(KeySource::Command(
            line.split_whitespace().map(str::to_owned).collect(),
        )),
        _ => None,
    }
}

fn url(text: &str) -> Option<String> {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))?;
    let authority = rest.split('/').next()?;
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && !"?#@".contains(c);
    (!authority.is_empty() && text.chars().all(is_plain))
        .then(|| text.trim_end_matches('/').to_owned())
}

fn secret_source(text: &str) -> Option<SecretSource> {
    match text.split_once(':')? {
        (_, "") => None,
        ("env", name) => Some(SecretSource::Env(name.to_owned())),
        ("file", path) => Some(SecretSource::File(path.to_owned())),
        _ => None,
    }
}

fn user(text: &str) -> Option<UserSetting> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let is_name = |text: &str| {
        !text.is_empty()
            && !text.starts_with('-')
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    if !is_name(user) || !group.is_none_or(is_name) {
        None
    } else if is_number(user) && group.is_none_or(is_number) {
        let uid = user.parse().ok()?;
        let gid = group.map(str::parse).transpose().ok()?;
        Some(UserSetting::Ids { uid, gid })
    } else {
        Some(UserSetting::Named(text.to_owned()))
    }
}

fn mount(text: &str) -> Option<ExtraMount> {
    let mut parts = text.split(':');
    let (src, dst) = (parts.next()?, parts.next()?);
    let read_only = match parts.next() {
        None => None,
        Some("ro") => Some(true),
        Some("rw") => Some(false),
        Some(_) => return None,
    };
    if src.is_empty() || dst.is_empty() || parts.next().is_some() {
        return None;
    }
    Some(ExtraMount {
        src: src.to_owned(),
        dst: dst.to_owned(),
        read_only,
        optional: false,
    })
}

/// The signals that a program can handle; SIGKILL and SIGSTOP are not among them.
const SIGNALS: [&str; 14] = [
    "HUP", "INT", "QUIT", "ABRT", "USR1", "USR2", "PIPE", "ALRM", "TERM", "CONT", "TSTP", "WINCH",
    "IO", "PWR",
];

fn signal(text: &str) -> Option<String> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    SIGNALS.contains(&name).then(|| format!("SIG{name}"))
}
