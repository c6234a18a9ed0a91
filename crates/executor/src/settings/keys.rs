//! The keys of a front matter.
//!
//! Owns: the one table of keys, and how each value is read.
//! Reads: an untyped tree.
//! Never: checks a value against the host; see `resolve`.

use std::collections::BTreeMap;
use std::fmt;

use super::diagnostic::{Fault, Place};
use super::text::{self, SettingError};
use super::yaml::{KeyNode, Node, Value};
use super::{EnvValue, ExtraMount, Origin, Settings, Sourced, nearest};
use crate::spec::GitVisibility;

const TEXT: &str = "a text";
const TEXT_LIST: &str = "a list of texts";
const SWITCH: &str = "true or false";
const PATH: &str = "a path";

/// A key of a front matter.
#[derive(Clone, Copy)]
pub struct Key {
    /// Its name: the flag's name without the hyphens in front.
    pub name: &'static str,
    /// Another name that is accepted; `_` for `-` always is.
    pub alias: Option<&'static str>,
    /// What its value must be, to stand behind "must be".
    pub value: &'static str,
    /// What it does, one sentence without a full stop.
    pub about: &'static str,
    read: fn(&Reader<'_>, &Node, &mut Settings) -> Result<(), Fault>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

macro_rules! keys {
    ($($name:literal $(or $alias:literal)?: $value:expr, $about:literal, $read:expr;)*) => {
        /// Every key, in the order of the documentation.
        pub const KEYS: &[Key] = &[$(Key {
            name: $name,
            alias: keys!(@alias $($alias)?),
            value: $value,
            about: $about,
            read: $read,
        }),*];
    };
    (@alias) => { None };
    (@alias $alias:literal) => { Some($alias) };
}

keys! {
    "agent": TEXT, "which agent works on the prompt",
        |r, n, s| r.text(n, &mut s.agent);
    "image": TEXT, "the image that it runs in",
        |r, n, s| r.text(n, &mut s.image);
    "model": TEXT, "the model, for agents that have one",
        |r, n, s| r.text(n, &mut s.model);
    "command": "a list such as [make, test]", "program and arguments for the command agent",
        |r, n, s| r.texts(n, &mut s.command);
    "env": "a map of names to texts, or a list of NAME=VALUE",
        "environment of the agent, visible in inspect; a name without a value takes the host's",
        |r, n, s| r.map(n, &mut s.env, env_value, text::parse_env);
    "env-file" or "env-files": "a path or a list of paths",
        "files with further environment, one NAME=VALUE a line",
        |r, n, s| r.list(n, &mut s.env_file, |r, n| r.scalar(n, PATH, plain));
    "secrets" or "secret": "a map of names to env:VAR or file:PATH",
        "values that the container gets as files below /run/secrets",
        |r, n, s| {
            let source = |r: &Reader<'_>, n: &Node| {
                r.scalar(n, text::SECRET_SOURCE, text::parse_secret_source)
            };
            // What stands there may be the secret itself, so neither it nor its line is shown.
            r.map(n, &mut s.secrets, source, text::parse_secret)
                .map_err(|fault| Fault::new(fault.place, SECRETS_ONLY).hidden())
        };
    "mount" or "mounts": "a list of SRC:DST[:ro] or of maps with src, dst, read-only, optional",
        "further folders and files of the host",
        |r, n, s| r.list(n, &mut s.mounts, mount);
    "timeout": text::TIMEOUT, "wall time from the container's start",
        |r, n, s| r.one(n, &mut s.timeout, text::parse_timeout);
    "idle-timeout": text::TIMEOUT, "time without any output",
        |r, n, s| r.one(n, &mut s.idle_timeout, text::parse_timeout);
    "completion-grace": text::GRACE, "how long an agent that has given its result may take to leave",
        |r, n, s| r.one(n, &mut s.completion_grace, text::parse_grace);
    "log-limit": text::MEMORY, "most output, standard output and standard error together",
        |r, n, s| r.one(n, &mut s.log_limit, text::parse_memory);
    "memory": text::MEMORY, "most memory and swap together",
        |r, n, s| r.one(n, &mut s.memory, text::parse_memory);
    "cpus": text::CPUS, "most CPU time",
        |r, n, s| r.one(n, &mut s.cpus, text::parse_cpus);
    "pids": text::PIDS, "most processes and threads",
        |r, n, s| r.one(n, &mut s.pids, text::parse_pids);
    "user": text::USER, "who the agent runs as, instead of the project folder's owner",
        |r, n, s| r.one(n, &mut s.user, text::parse_user);
    "network": text::NETWORK, "what network the container has",
        |r, n, s| r.one(n, &mut s.network, text::parse_network);
    "hide-git": SWITCH, "whether the project's .git is hidden from the agent",
        |r, n, s| {
            let hidden = r.switch(n)?;
            let git = if hidden { GitVisibility::Hidden } else { GitVisibility::Visible };
            s.git = Some(r.sourced(n, git));
            Ok(())
        };
    "label" or "labels": "a map of names to texts, or a list of NAME=VALUE",
        "labels of the container",
        |r, n, s| r.map(n, &mut s.labels, |r, n| r.scalar(n, TEXT, plain), text::parse_label);
    "pull": text::PULL, "when the image is pulled",
        |r, n, s| r.one(n, &mut s.pull, text::parse_pull);
    "project": PATH, "the project's root folder, instead of the git top level",
        |r, n, s| r.text(n, &mut s.project);
    "profile": text::PROFILE, "the defaults that the launch starts from",
        |r, n, s| r.one(n, &mut s.profile, text::parse_profile);
    "workspace": PATH, "where the project is mounted in the container",
        |r, n, s| r.text(n, &mut s.workspace);
    "workdir": PATH, "the agent's working directory in the container",
        |r, n, s| r.text(n, &mut s.workdir);
    "transport": text::TRANSPORT, "how output leaves the container",
        |r, n, s| r.one(n, &mut s.transport, text::parse_transport);
    "stop-signal": text::SIGNAL, "the first signal of a stop",
        |r, n, s| r.one(n, &mut s.stop_signal, text::parse_signal);
    "stop-grace": text::GRACE, "how long a stop waits before it kills",
        |r, n, s| r.one(n, &mut s.stop_grace, text::parse_grace);
    "claude-dir": PATH, "the credential folder of the seed profile",
        |r, n, s| r.text(n, &mut s.claude_dir);
}

/// Keys that other tools, first of all the seed, keep in a front matter; they are left alone.
pub const IGNORED_KEYS: &[&str] = &[
    "status",
    "originalStatus",
    "spec",
    "summary",
    "execution_id",
    "container",
    "dark-factory-version",
    "created",
    "queued",
    "started",
    "completed",
    "pr-url",
    "branch",
    "issue",
    "retryCount",
    "lastFailReason",
    "rejected",
    "rejectedReason",
    "rejected_reason",
    "cancelled",
];

/// What a front matter says.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub(crate) settings: Settings,
    pub(crate) unknown: Vec<(KeyNode, Node)>,
    pub(crate) errors: Vec<Fault>,
}

/// Reads the settings of a tree from the file `file`; goes on after an error.
pub(crate) fn read_settings(file: &str, root: Node) -> Reading {
    let mut reading = Reading::default();
    let entries = match root.value {
        Value::Map(entries) => entries,
        Value::Null => Vec::new(),
        Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => {
            let fault = Fault::new(root.place, "the front matter must be lines of KEY: VALUE")
                .help("write a space behind each colon");
            reading.errors.push(fault);
            return reading;
        }
    };
    let mut seen: BTreeMap<&str, (String, usize)> = BTreeMap::new();
    for (name, node) in entries {
        let Some(key) = find(&name.name) else {
            if !IGNORED_KEYS.contains(&name.name.as_str()) {
                reading.unknown.push((name, node));
            }
            continue;
        };
        if let Some((other, line)) = seen.get(key.name) {
            let message = format!("{} is {other} again, which line {line} sets", name.name);
            reading
                .errors
                .push(Fault::new(name.place, message).help("remove one of them"));
            continue;
        }
        seen.insert(key.name, (name.name.clone(), name.place.line));
        let reader = Reader {
            file,
            key,
            name: &name,
        };
        if let Err(fault) = (key.read)(&reader, &node, &mut reading.settings) {
            reading.errors.push(fault);
        }
    }
    reading
}

/// Returns the key that is probably meant by an unknown name.
pub(crate) fn suggest(name: &str) -> Option<&'static str> {
    nearest(name, KEYS.iter().map(|key| key.name))
}

fn find(name: &str) -> Option<&'static Key> {
    let name = name.replace('_', "-");
    KEYS.iter()
        .find(|key| key.name == name || key.alias == Some(name.as_str()))
}

struct Reader<'a> {
    file: &'a str,
    key: &'static Key,
    name: &'a KeyNode,
}

impl Reader<'_> {
    fn sourced<T>(&self, node: &Node, value: T) -> Sourced<T> {
        let origin = Origin::File {
            file: self.file.to_owned(),
            line: node.place.line,
        };
        Sourced { value, origin }
    }

    fn wrong(&self, node: &Node, expected: &str) -> Fault {
        let name = &self.name.name;
        // A missing value has no place of its own that could be shown.
        let place = if node.value == Value::Null {
            self.name.place
        } else {
            node.place
        };
        Fault::new(
            place,
            format!("{name} must be {expected}, not {}", node.describe()),
        )
    }

    fn refused(&self, place: Place, error: &SettingError) -> Fault {
        Fault::new(place, format!("{} {error}", self.name.name))
    }

    fn scalar<T>(
        &self,
        node: &Node,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, SettingError>,
    ) -> Result<T, Fault> {
        let text = node.text().ok_or_else(|| self.wrong(node, expected))?;
        parse(text).map_err(|error| self.refused(node.place, &error))
    }

    fn switch(&self, node: &Node) -> Result<bool, Fault> {
        match node.value {
            Value::Bool(value) => Ok(value),
            _ => Err(self.wrong(node, SWITCH)),
        }
    }

    fn one<T>(
        &self,
        node: &Node,
        slot: &mut Option<Sourced<T>>,
        parse: impl Fn(&str) -> Result<T, SettingError>,
    ) -> Result<(), Fault> {
        *slot = Some(self.sourced(node, self.scalar(node, self.key.value, parse)?));
        Ok(())
    }

    fn text(&self, node: &Node, slot: &mut Option<Sourced<String>>) -> Result<(), Fault> {
        self.one(node, slot, plain)
    }

    fn texts(&self, node: &Node, slot: &mut Option<Sourced<Vec<String>>>) -> Result<(), Fault> {
        let Value::List(items) = &node.value else {
            return Err(self.wrong(node, self.key.value));
        };
        let texts: Result<_, _> = items
            .iter()
            .map(|item| self.scalar(item, TEXT_LIST, plain))
            .collect();
        *slot = Some(self.sourced(node, texts?));
        Ok(())
    }

    /// Reads a list; one item may stand alone.
    fn list<T>(
        &self,
        node: &Node,
        slot: &mut Vec<Sourced<T>>,
        item: impl Fn(&Self, &Node) -> Result<T, Fault>,
    ) -> Result<(), Fault> {
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            Value::Null => return Err(self.wrong(node, self.key.value)),
            _ => std::slice::from_ref(node),
        };
        for node in items {
            slot.push(self.sourced(node, item(self, node)?));
        }
        Ok(())
    }

    /// Reads a map, or a list of texts that are a name and a value each.
    fn map<T>(
        &self,
        node: &Node,
        slot: &mut BTreeMap<String, Sourced<T>>,
        value: impl Fn(&Self, &Node) -> Result<T, Fault>,
        entry: impl Fn(&str) -> Result<(String, T), SettingError>,
    ) -> Result<(), Fault> {
        match &node.value {
            Value::Map(entries) => {
                for (key, node) in entries {
                    slot.insert(key.name.clone(), self.sourced(node, value(self, node)?));
                }
            }
            Value::List(items) => {
                for node in items {
                    let (name, value) = self.scalar(node, self.key.value, &entry)?;
                    if slot
                        .insert(name.clone(), self.sourced(node, value))
                        .is_some()
                    {
                        let message = format!("{} has {name} twice", self.name.name);
                        return Err(Fault::new(node.place, message).help("remove one of them"));
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => {
                return Err(self.wrong(node, self.key.value));
            }
        }
        Ok(())
    }
}

const SECRETS_ONLY: &str = "secrets must be a map of names to env:VAR or file:PATH, each name once, never a value \
                            itself (so what stands here is not shown)";

fn plain(text: &str) -> Result<String, SettingError> {
    Ok(text.to_owned())
}

fn env_value(reader: &Reader<'_>, node: &Node) -> Result<EnvValue, Fault> {
    match node.value {
        Value::Null => Ok(EnvValue::FromHost),
        _ => reader.scalar(node, TEXT, plain).map(EnvValue::Text),
    }
}

fn mount(reader: &Reader<'_>, node: &Node) -> Result<ExtraMount, Fault> {
    let Value::Map(entries) = &node.value else {
        return reader.scalar(node, text::MOUNT, text::parse_mount);
    };
    let mut mount = ExtraMount {
        src: String::new(),
        dst: String::new(),
        read_only: None,
        optional: false,
    };
    for (key, node) in entries {
        match key.name.as_str() {
            "src" => mount.src = reader.scalar(node, TEXT, plain)?,
            "dst" => mount.dst = reader.scalar(node, TEXT, plain)?,
            "read-only" | "read_only" | "readOnly" => mount.read_only = Some(reader.switch(node)?),
            "optional" => mount.optional = reader.switch(node)?,
            other => {
                let message = format!("a mount has no {other}");
                return Err(
                    Fault::new(key.place, message).help("it has src, dst, read-only and optional")
                );
            }
        }
    }
    for (name, value) in [("src", &mount.src), ("dst", &mount.dst)] {
        if value.is_empty() {
            let message = format!("this mount has no {name}");
            return Err(Fault::new(node.place, message).help("write src: and dst:"));
        }
    }
    Ok(mount)
}
