//! Settings as people write them, each value with its origin.
//!
//! Owns: the text of a value, and what makes two values of a key the same thing.
//! Reads: settings.
//! Never: shows a value of the environment whose name says that it is a secret.

use std::collections::BTreeMap;
use std::time::Duration;

use dark_factory_types::{ByteSize, CpuCount, NetworkMode, Provider, Transport, Usd};

use super::{
    Credentials, EngineChoice, EnvValue, ExtraMount, KeySource, Limit, OnInterrupt, Origin,
    ProfileName, SecretSource, Sourced, UserSetting,
};
use crate::spec::{GitVisibility, Profile, PullPolicy};

/// Parts of names whose values are probably secrets.
const SECRET_WORDS: [&str; 7] = [
    "KEY",
    "TOKEN",
    "SECRET",
    "PASS",
    "CREDENTIAL",
    "AUTH",
    "PWD",
];
/// Words of names that have such a part and tell no secret.
const PLAIN_WORDS: [&str; 2] = ["AUTHOR", "AUTHORS"];
/// The working directory, which a shell names.
const PLAIN_NAMES: [&str; 2] = ["PWD", "OLDPWD"];
pub(crate) use dark_factory_agents::MASK;

/// Tells whether a variable of this name is probably a secret.
pub(crate) fn is_secret_name(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let is_secret = |word: &str| {
        word == "PAT"
            || !PLAIN_WORDS.contains(&word) && SECRET_WORDS.iter().any(|part| word.contains(part))
    };
    let mut words = upper.split(|c: char| !c.is_ascii_alphanumeric());
    !PLAIN_NAMES.contains(&upper.as_str()) && words.any(is_secret)
}

/// Returns the passwords of the URLs in a text: `://USER:PASSWORD@`.
pub(crate) fn passwords(text: &str) -> impl Iterator<Item = &str> {
    text.split("://").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| c.is_whitespace() || "/?#\"'".contains(c));
        let (user, _) = rest[..end.unwrap_or(rest.len())].rsplit_once('@')?;
        Some(user.split_once(':')?.1)
    })
}

/// Returns a text in which the passwords of URLs are masked: `://USER:PASSWORD@`.
pub(crate) fn without_passwords(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://").map(|at| at + "://".len()) {
        let (before, authority) = rest.split_at(start);
        let end = authority.find(|c: char| c.is_whitespace() || "/?#\"'".contains(c));
        let (authority, behind) = authority.split_at(end.unwrap_or(authority.len()));
        shown.push_str(before);
        match authority.rsplit_once('@') {
            Some((user, host)) if user.contains(':') => {
                let (name, _) = user.split_once(':').unwrap_or((user, ""));
                shown.extend([name, ":", MASK, "@", host]);
            }
            _ => shown.push_str(authority),
        }
        rest = behind;
    }
    shown.push_str(rest);
    shown
}

/// One value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What a higher layer's value must have in common with this one to take its place; `None` if none can.
    pub slot: Option<String>,
    /// The value as it would be written.
    pub text: String,
    /// Where it was written.
    pub origin: Origin,
}

/// A setting as the layers hold it.
pub(super) trait Entries {
    fn entries(&self) -> Vec<Entry>;
}

impl<T: Shown> Entries for Option<Sourced<T>> {
    fn entries(&self) -> Vec<Entry> {
        let entry = |sourced: &Sourced<T>| Entry {
            slot: Some(String::new()),
            text: sourced.value.shown(),
            origin: sourced.origin.clone(),
        };
        self.iter().map(entry).collect()
    }
}

impl<T: Shown> Entries for Vec<Sourced<T>> {
    fn entries(&self) -> Vec<Entry> {
        let entry = |sourced: &Sourced<T>| Entry {
            slot: sourced.value.slot(),
            text: sourced.value.shown(),
            origin: sourced.origin.clone(),
        };
        self.iter().map(entry).collect()
    }
}

impl<T: Shown> Entries for BTreeMap<String, Sourced<T>> {
    fn entries(&self) -> Vec<Entry> {
        let entry = |(name, sourced): (&String, &Sourced<T>)| Entry {
            slot: Some(name.clone()),
            text: sourced.value.shown_as(name),
            origin: sourced.origin.clone(),
        };
        self.iter().map(entry).collect()
    }
}

/// A value that can be written.
pub(crate) trait Shown {
    /// Returns the value as it would be written.
    fn shown(&self) -> String;

    /// Returns the value of a map's entry.
    fn shown_as(&self, _name: &str) -> String {
        self.shown()
    }

    /// Returns what a list has at most once.
    fn slot(&self) -> Option<String> {
        None
    }
}

macro_rules! words {
    ($($type:ty { $($value:ident: $word:literal),* })*) => {$(
        impl Shown for $type {
            fn shown(&self) -> String {
                match self { $(Self::$value => $word),* }.to_owned()
            }
        }
    )*};
}

words! {
    PullPolicy { Never: "never", Missing: "missing", Always: "always" }
    Transport { Spool: "spool", Attach: "attach" }
    Profile { Hardened: "hardened", Seed: "seed" }
    EngineChoice { Auto: "auto", Docker: "docker", Podman: "podman", Sandbox: "sandbox" }
    OnInterrupt { Stop: "stop", Detach: "detach" }
    Credentials { Broker: "broker", Mount: "mount", None: "none" }
    GitVisibility { Hidden: "true", Visible: "false" }
}

impl Shown for NetworkMode {
    fn shown(&self) -> String {
        match self {
            Self::None => "none".to_owned(),
            Self::Open => "open".to_owned(),
            Self::Allow(rules) => {
                let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
                format!("allow:{}", rules.join(","))
            }
        }
    }
}

impl Shown for String {
    fn shown(&self) -> String {
        without_passwords(self)
    }
}

impl Shown for bool {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for u16 {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for u32 {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for u64 {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for Usd {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for Vec<Provider> {
    fn shown(&self) -> String {
        let names: Vec<&str> = self.iter().map(|provider| provider.name()).collect();
        names.join(",")
    }
}

impl Shown for KeySource {
    fn shown(&self) -> String {
        match self {
            Self::Env(variable) => format!("env:{variable}"),
            Self::File(path) => format!("file:{path}"),
            Self::ClaudeDir(path) => format!("claude-dir:{path}"),
            Self::Command(argv) => format!("command:{}", argv.join(" ")),
        }
    }
}

impl Shown for CpuCount {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for ByteSize {
    fn shown(&self) -> String {
        let units = [(40, "t"), (30, "g"), (20, "m"), (10, "k")];
        let whole = |(shift, _): &(u32, &str)| self.0 > 0 && self.0.is_multiple_of(1_u64 << shift);
        match units.into_iter().find(whole) {
            Some((shift, unit)) => format!("{}{unit}", self.0 >> shift),
            None => self.0.to_string(),
        }
    }
}

impl Shown for Duration {
    fn shown(&self) -> String {
        if self.subsec_nanos() > 0 {
            return format!("{self:?}");
        }
        let seconds = self.as_secs();
        let parts = [
            (seconds / 3600, "h"),
            (seconds / 60 % 60, "m"),
            (seconds % 60, "s"),
        ];
        let text: String = parts
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, unit)| format!("{count}{unit}"))
            .collect();
        if text.is_empty() {
            "0s".to_owned()
        } else {
            text
        }
    }
}

impl<T: Shown> Shown for Limit<T> {
    fn shown(&self) -> String {
        match self {
            Self::Off => "none".to_owned(),
            Self::At(limit) => limit.shown(),
        }
    }
}

impl Shown for Vec<String> {
    fn shown(&self) -> String {
        let texts: Vec<String> = self.iter().map(|text| format!("{text:?}")).collect();
        without_passwords(&format!("[{}]", texts.join(", ")))
    }
}

impl Shown for UserSetting {
    fn shown(&self) -> String {
        match self {
            Self::Ids {
                uid,
                gid: Some(gid),
            } => format!("{uid}:{gid}"),
            Self::Ids { uid, gid: None } => uid.to_string(),
            Self::Named(name) => name.clone(),
        }
    }
}

impl Shown for ProfileName {
    fn shown(&self) -> String {
        match self {
            Self::BuiltIn(profile) => profile.shown(),
            Self::Named(name) => name.clone(),
        }
    }
}

impl Shown for SecretSource {
    fn shown(&self) -> String {
        match self {
            Self::Env(variable) => format!("env:{variable}"),
            Self::File(path) => format!("file:{path}"),
        }
    }
}

impl Shown for EnvValue {
    /// Masks what it has no name for.
    fn shown(&self) -> String {
        self.shown_as(SECRET_WORDS[0])
    }

    fn shown_as(&self, name: &str) -> String {
        match self {
            Self::FromHost => "(the host's)".to_owned(),
            Self::Text(_) if is_secret_name(name) => MASK.to_owned(),
            Self::Text(text) => without_passwords(text),
        }
    }
}

impl Shown for ExtraMount {
    fn shown(&self) -> String {
        let access = match self.read_only {
            Some(true) => ":ro",
            Some(false) | None => "",
        };
        let optional = if self.optional { " (optional)" } else { "" };
        format!("{}:{}{access}{optional}", self.src, self.dst)
    }

    fn slot(&self) -> Option<String> {
        Some(self.dst.trim_end_matches('/').to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{parse_grace, parse_memory};
    use super::*;

    #[test]
    fn a_value_is_shown_as_it_would_be_written() {
        for text in ["512m", "3g", "1536m", "6k", "1", "1t"] {
            assert_eq!(parse_memory(text).unwrap().shown(), text);
        }
        for text in ["0s", "1h30m", "90s", "2h", "1h5s"] {
            let shown = parse_grace(text).unwrap().shown();
            assert_eq!(parse_grace(&shown), parse_grace(text), "{shown}");
        }
    }

    #[test]
    fn a_value_of_the_environment_is_masked_where_its_name_says_that_it_is_secret() {
        let value = EnvValue::Text("x".to_owned());

        assert_eq!(value.shown_as("my_token"), "***");
        assert_eq!(value.shown(), "***");
        assert_eq!(value.shown_as("LANG"), "x");
    }

    #[test]
    fn a_name_that_looks_secret_is_told_from_one_that_does_not() {
        for name in [
            "DB_PASS",
            "PASSWORD",
            "GITHUB_PAT",
            "AUTH",
            "NPM_AUTH",
            "MYSQL_PWD",
            "Authorization",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["PWD", "OLDPWD", "GIT_AUTHOR_NAME", "PATH", "LANG"] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn the_passwords_in_urls_are_found() {
        let text = "postgres://u:pw@h/db redis://:p:w@h http://h:80/x@y http://u@h";

        assert_eq!(passwords(text).collect::<Vec<_>>(), ["pw", "p:w"]);
    }

    #[test]
    fn the_password_in_a_url_is_masked() {
        for (text, shown) in [
            ("postgres://u:pw@h/db", "postgres://u:***@h/db"),
            (
                "a=redis://:p:w@h b=http://h:80/x@y",
                "a=redis://:***@h b=http://h:80/x@y",
            ),
            ("http://u@h", "http://u@h"),
            ("a://", "a://"),
        ] {
            assert_eq!(without_passwords(text), shown);
        }
    }
}
