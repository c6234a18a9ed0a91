//! The keys of all layers.
//!
//! Owns: the one table of keys, where each may stand, and how each value is read.
//! Reads: an untyped tree.
//! Never: checks a value against the host; see `resolve`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::diagnostic::{Fault, Place};
use super::node::{KeyNode, Node, Value};
use super::show::{Entries, Entry};
use super::text::{self, SettingError};
use super::{EnvValue, ExtraMount, KeySource, Layer, Level, Origin, Sourced, nearest};
use crate::spec::GitVisibility;
use dark_factory_types::NetworkMode;

const TEXT: &str = "a text";
const TEXT_LIST: &str = "a list of texts";
const SWITCH: &str = "true or false";
const PATH: &str = "a path";
const PATHS: &str = "a path or a list of paths";

/// What names of variables begin with that are keys.
pub const ENV_PREFIX: &str = "DARK_FACTORY_";

/// What a key is about, and so where it may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// A run: it may stand everywhere.
    Run,
    /// Which project a run belongs to: what a project's configuration is found by cannot stand in it.
    Project,
    /// How the tool goes about runs: no prompt file may say it.
    Tool,
    /// The tool on this machine: neither a prompt file nor a project may say it, as both may be somebody else's.
    Machine,
}

impl Scope {
    /// Tells whether a key may stand there.
    pub(crate) fn allows(self, level: Level) -> bool {
        let is_outside = matches!(level, Level::Environment | Level::Flags);
        is_outside
            || match self {
                Self::Run => true,
                Self::Project => level == Level::FrontMatter,
                Self::Tool => matches!(level, Level::User | Level::Project),
                Self::Machine => level == Level::User,
            }
    }
}

/// The form of a key's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A text.
    Text,
    /// A text or a number.
    Amount,
    /// A whole number.
    Count {
        /// The least.
        least: u16,
        /// The most, if there is one.
        most: Option<u16>,
    },
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// True or false.
    Switch,
    /// A list of texts.
    Argv,
    /// A text or a list of them.
    Texts,
    /// A list of mounts.
    Mounts,
    /// Names with texts.
    Map,
    /// A text, or `allow` with a list of hosts.
    Network,
}

/// A key of the settings.
#[derive(Clone, Copy)]
pub struct Key {
    /// Its name: the flag's name without the hyphens in front.
    pub name: &'static str,
    /// Another name that is accepted; `_` for `-` always is.
    pub alias: Option<&'static str>,
    /// Where it may stand.
    pub scope: Scope,
    /// The form of its value.
    pub shape: Shape,
    /// What its value must be, to stand behind "must be".
    pub value: &'static str,
    /// What it does, one sentence without a full stop.
    pub about: &'static str,
    read: fn(&Reader<'_>, &Node, &mut Layer) -> Result<(), Fault>,
    entries: fn(&Layer) -> Vec<Entry>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Key {
    /// Returns the environment's variable for the key; maps and command lines have none.
    pub fn variable(&self) -> Option<String> {
        match self.shape {
            Shape::Argv | Shape::Map => None,
            _ => Some(format!(
                "{ENV_PREFIX}{}",
                self.name.to_uppercase().replace('-', "_")
            )),
        }
    }

    /// Returns the values that a layer has for the key.
    pub fn entries(&self, layer: &Layer) -> Vec<Entry> {
        (self.entries)(layer)
    }

    /// Says where the key may stand, for the help of an error.
    pub(crate) fn places(&self) -> String {
        let files = match self.scope {
            Scope::Run => "in a front matter, in a configuration file,",
            Scope::Project => "in a front matter,",
            Scope::Tool => "in config.toml or dark-factory.toml,",
            Scope::Machine => "in config.toml of your own configuration folder,",
        };
        let variable = self.variable().unwrap_or_default();
        format!("it can stand {files} in {variable}, or as --{}", self.name)
    }
}

macro_rules! keys {
    ($($scope:ident $group:ident.$field:ident = $name:literal $(or $alias:literal)?:
        $shape:expr, $value:expr, $about:literal, $read:expr;)*) => {
        /// Every key, in the order of the documentation.
        pub const KEYS: &[Key] = &[$(Key {
            name: $name,
            alias: keys!(@alias $($alias)?),
            scope: Scope::$scope,
            shape: $shape,
            value: $value,
            about: $about,
            read: |reader, node, layer| {
                let read: fn(&Reader<'_>, &Node, &mut _) -> Result<(), Fault> = $read;
                read(reader, node, &mut layer.$group.$field)
            },
            entries: |layer| layer.$group.$field.entries(),
        }),*];
    };
    (@alias) => { None };
    (@alias $alias:literal) => { Some($alias) };
}

keys! {
    Run run.agent = "agent": Shape::Text, TEXT, "which agent works on the prompt",
        |r, n, slot| r.text(n, slot);
    Run run.image = "image": Shape::Text, TEXT, "the image that it runs in",
        |r, n, slot| r.text(n, slot);
    Run run.model = "model": Shape::Text, TEXT, "the model, for agents that have one",
        |r, n, slot| r.text(n, slot);
    Run run.command = "command": Shape::Argv, "a list such as [make, test]", "program and arguments for the command agent",
        |r, n, slot| r.texts(n, slot);
    Run run.env = "env": Shape::Map, "a map of names to texts, or a list of NAME=VALUE",
        "environment of the agent, visible in inspect; a name without a value takes the host's",
        |r, n, slot| r.map(n, slot, env_value, text::parse_env).map_err(Fault::hidden);
    Run run.env_file = "env-file" or "env-files": Shape::Texts, PATHS,
        "files with further environment, one NAME=VALUE a line",
        |r, n, slot| r.list(n, slot, |r, n| r.scalar(n, PATH, plain));
    Run run.secrets = "secrets" or "secret": Shape::Map, "a map of names to env:VAR or file:PATH",
        "values that the container gets as files below /run/secrets",
        |r, n, slot| {
            let source = |r: &Reader<'_>, n: &Node| {
                r.scalar(n, text::SECRET_SOURCE, text::parse_secret_source)
            };
            // What stands there may be the secret itself, so neither it nor its line is shown.
            r.map(n, slot, source, text::parse_secret)
                .map_err(|fault| Fault::new(fault.place, SECRETS_ONLY).hidden())
        };
    Run run.mounts = "mount" or "mounts": Shape::Mounts, "a list of SRC:DST[:ro] or of maps with src, dst, read-only, optional",
        "further folders and files of the host",
        |r, n, slot| r.list(n, slot, mount);
    Run run.timeout = "timeout": Shape::Text, text::TIME_LIMIT, "wall time from the container's start",
        |r, n, slot| r.one(n, slot, text::parse_time_limit);
    Run run.idle_timeout = "idle-timeout": Shape::Text, text::TIME_LIMIT, "time without any output",
        |r, n, slot| r.one(n, slot, text::parse_time_limit);
    Run run.completion_grace = "completion-grace": Shape::Text, text::COMPLETION_GRACE,
        "how long an agent that has given its result may take to leave",
        |r, n, slot| r.one(n, slot, text::parse_completion_grace);
    Run run.log_limit = "log-limit": Shape::Amount, text::MEMORY, "most output, standard output and standard error together",
        |r, n, slot| r.one(n, slot, text::parse_memory);
    Run run.memory = "memory": Shape::Amount, text::MEMORY, "most memory and swap together",
        |r, n, slot| r.one(n, slot, text::parse_memory);
    Run run.cpus = "cpus": Shape::Amount, text::CPUS, "most CPU time",
        |r, n, slot| r.one(n, slot, text::parse_cpus);
    Run run.pids = "pids": Shape::Amount, text::PIDS, "most processes and threads",
        |r, n, slot| r.one(n, slot, text::parse_pids);
    Run run.file_size = "file-size": Shape::Amount, text::MEMORY, "most bytes of one file that the agent writes",
        |r, n, slot| r.one(n, slot, text::parse_memory);
    Run run.disk_limit = "disk-limit": Shape::Amount, text::MEMORY,
        "most bytes that are written into the container's own file system",
        |r, n, slot| r.one(n, slot, text::parse_memory);
    Run run.open_files = "open-files": Shape::Amount, text::PIDS, "most files that one process has open",
        |r, n, slot| r.one(n, slot, text::parse_pids);
    Run run.user = "user": Shape::Amount, text::USER, "who the agent runs as, instead of the project folder's owner",
        |r, n, slot| r.one(n, slot, text::parse_user);
    Run run.network = "network": Shape::Network, text::NETWORK, "what network the container has",
        |r, n, slot| {
            *slot = Some(r.sourced(n, network(r, n)?));
            Ok(())
        };
    Run run.git = "hide-git": Shape::Switch, SWITCH, "whether the project's .git is hidden from the agent",
        |r, n, slot| {
            let hidden = r.switch(n)?;
            let git = if hidden { GitVisibility::Hidden } else { GitVisibility::Visible };
            *slot = Some(r.sourced(n, git));
            Ok(())
        };
    Run run.labels = "label" or "labels": Shape::Map, "a map of names to texts, or a list of NAME=VALUE",
        "labels of the container",
        |r, n, slot| r.map(n, slot, |r, n| r.scalar(n, TEXT, plain), text::parse_label);
    Run run.pull = "pull": Shape::Choice(&["never", "missing", "always"]), text::PULL, "when the image is pulled",
        |r, n, slot| r.one(n, slot, text::parse_pull);
    Project run.project = "project": Shape::Text, PATH, "the project's root folder, instead of the git top level",
        |r, n, slot| r.text(n, slot);
    Run run.profile = "profile" or "default-profile": Shape::Text, text::PROFILE, "the defaults that the launch starts from",
        |r, n, slot| r.one(n, slot, text::parse_profile);
    Run run.workspace = "workspace": Shape::Text, PATH, "where the project is mounted in the container",
        |r, n, slot| r.text(n, slot);
    Run run.workdir = "workdir": Shape::Text, PATH, "the agent's working directory in the container",
        |r, n, slot| r.text(n, slot);
    Run run.transport = "transport": Shape::Choice(&["spool", "attach"]), text::TRANSPORT, "how output leaves the container",
        |r, n, slot| r.one(n, slot, text::parse_transport);
    Run run.stop_signal = "stop-signal": Shape::Text, text::SIGNAL, "the first signal of a stop",
        |r, n, slot| r.one(n, slot, text::parse_signal);
    Run run.stop_grace = "stop-grace": Shape::Text, text::GRACE, "how long a stop waits before it kills",
        |r, n, slot| r.one(n, slot, text::parse_grace);
    Run run.claude_dir = "claude-dir": Shape::Text, PATH, "the credential folder of the seed profile",
        |r, n, slot| r.text(n, slot);
    Run run.project_name = "project-name": Shape::Text, text::PROJECT_NAME,
        "the project's name in labels and container names, instead of its folder's",
        |r, n, slot| r.one(n, slot, text::parse_project_name);
    Run run.credentials = "credentials": Shape::Choice(&["broker", "mount", "none"]), text::CREDENTIALS,
        "how the agent comes to its credentials",
        |r, n, slot| r.one(n, slot, text::parse_credentials);
    Run run.providers = "providers": Shape::Texts, text::PROVIDERS,
        "whose APIs are used without a key in the container, instead of the agent's own",
        |r, n, slot| {
            let names = match &n.value {
                Value::List(items) => {
                    let texts = items.iter().map(|item| r.scalar(item, text::PROVIDERS, plain));
                    texts.collect::<Result<Vec<_>, _>>()?.join(",")
                }
                _ => r.scalar(n, text::PROVIDERS, plain)?,
            };
            let providers = text::parse_providers(&names).map_err(|error| r.refused(n.place, &error))?;
            *slot = Some(r.sourced(n, providers));
            Ok(())
        };
    Run run.max_tokens = "max-tokens": Shape::Amount, text::USES, "most tokens of all kinds, at the broker",
        |r, n, slot| r.one(n, slot, text::parse_uses);
    Run run.max_requests = "max-requests": Shape::Amount, text::USES, "most requests that a model answers, at the broker",
        |r, n, slot| r.one(n, slot, text::parse_uses);
    Run run.max_cost = "max-cost": Shape::Amount, text::COST, "most cost by our table of list prices, at the broker",
        |r, n, slot| r.one(n, slot, text::parse_cost);
    Run run.tell_limits = "tell-limits": Shape::Switch, SWITCH,
        "whether the agent is told its limits, in a section behind the prompt",
        |r, n, slot| {
            *slot = Some(r.sourced(n, r.switch(n)?));
            Ok(())
        };
    Tool tool.jobs = "jobs": Shape::Count { least: 1, most: Some(64) }, text::JOBS, "runs at the same time",
        |r, n, slot| r.one(n, slot, text::parse_jobs);
    Tool tool.on_interrupt = "on-interrupt": Shape::Choice(&["stop", "detach"]), text::ON_INTERRUPT,
        "what Ctrl-C does to the runs of `run`",
        |r, n, slot| r.one(n, slot, text::parse_on_interrupt);
    Machine tool.engine = "engine": Shape::Choice(&["auto", "docker", "podman"]), text::ENGINE,
        "the container engine; auto is the one that an endpoint names, else the first that answers, else the sandbox",
        |r, n, slot| r.one(n, slot, text::parse_engine);
    Machine tool.host = "host": Shape::Text, TEXT, "the engine's endpoint: a Unix socket or tcp://HOST:PORT",
        |r, n, slot| r.text(n, slot);
    Machine tool.keep_days = "keep-days": Shape::Count { least: 1, most: None }, text::COUNT,
        "days that a finished run is kept",
        |r, n, slot| r.one(n, slot, text::parse_count);
    Machine tool.keep_runs = "keep-runs": Shape::Count { least: 1, most: None }, text::COUNT,
        "finished runs that are kept",
        |r, n, slot| r.one(n, slot, text::parse_count);
    Machine tool.api_key = "api-key": Shape::Map, "a map of providers to where their keys are",
        "where the broker takes each provider's key from: env:VAR, file:PATH, command:PROGRAM ARGS, claude-dir:PATH",
        |r, n, slot| {
            // What stands there may be the key itself, so neither it nor its line is shown.
            r.map(n, slot, key_source, text::parse_api_key)
                .map_err(|fault| Fault::new(fault.place, KEYS_ONLY).hidden())?;
            r.providers_only(n, slot.keys())
        };
    Machine tool.api_base = "api-base": Shape::Map, "a map of providers to URLs",
        "where the broker sends each provider's requests",
        |r, n, slot| {
            r.map(n, slot, |r, n| r.scalar(n, text::URL, text::parse_url), text::parse_api_base)?;
            r.providers_only(n, slot.keys())
        };
    Machine tool.allow_mounts = "allow-mounts" or "allow-mount": Shape::Texts, PATHS,
        "dangerous paths of the host that may be mounted all the same, each itself alone; in the variable with : between them",
        |r, n, slot| r.paths(n, slot);
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

/// What a tree was read from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    /// The file, as messages name it; not looked at for the environment.
    pub(crate) file: &'a str,
    /// The folder that relative paths are below; `None` is the project's root.
    pub(crate) below: Option<&'a Path>,
    /// The layer.
    pub(crate) level: Level,
}

/// What a tree says.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub(crate) layer: Layer,
    pub(crate) unknown: Vec<Unknown>,
    pub(crate) errors: Vec<Fault>,
}

/// A key that means nothing where it stands.
#[derive(Debug)]
pub(crate) struct Unknown {
    pub(crate) name: KeyNode,
    pub(crate) node: Node,
    /// The key of that name, which belongs elsewhere.
    pub(crate) elsewhere: Option<&'static Key>,
}

impl Unknown {
    /// Says what to do about it.
    pub(crate) fn help(&self, level: Level) -> Option<String> {
        match self.elsewhere {
            Some(key) => Some(key.places()),
            None => suggest(&self.name.name, level).map(|name| format!("did you mean {name}?")),
        }
    }
}

/// Reads the settings of a tree; goes on after an error.
pub(crate) fn read_settings(source: Source<'_>, root: Node) -> Reading {
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
        let found = find(&name.name);
        let Some(key) = found.filter(|key| key.scope.allows(source.level)) else {
            let is_ignored = IGNORED_KEYS.contains(&name.name.as_str());
            if source.level != Level::FrontMatter || !is_ignored {
                let elsewhere = found;
                reading.unknown.push(Unknown {
                    name,
                    node,
                    elsewhere,
                });
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
            source,
            key,
            name: &name,
        };
        if let Err(fault) = (key.read)(&reader, &node, &mut reading.layer) {
            reading.errors.push(fault);
        }
    }
    reading
}

/// Reads the value of a variable of the environment that stands for a key.
pub(crate) fn read_variable(
    key: &'static Key,
    variable: String,
    value: &str,
    layer: &mut Layer,
) -> Result<(), Fault> {
    let place = Place {
        line: 1,
        column: 1,
        len: 1,
    };
    let value = match (key.shape, value) {
        (Shape::Switch, "true") => Value::Bool(true),
        (Shape::Switch, "false") => Value::Bool(false),
        (_, text) => Value::Text(text.to_owned()),
    };
    let source = Source {
        file: "",
        below: None,
        level: Level::Environment,
    };
    let name = KeyNode {
        place,
        name: variable,
    };
    let reader = Reader {
        source,
        key,
        name: &name,
    };
    (key.read)(&reader, &Node { place, value }, layer)
}

/// Returns the key that is probably meant by an unknown name, of those that may stand there.
pub(crate) fn suggest(name: &str, level: Level) -> Option<&'static str> {
    let keys = KEYS.iter().filter(|key| key.scope.allows(level));
    nearest(name, keys.map(|key| key.name))
}

fn find(name: &str) -> Option<&'static Key> {
    let name = name.replace('_', "-");
    KEYS.iter()
        .find(|key| key.name == name || key.alias == Some(name.as_str()))
}

struct Reader<'a> {
    source: Source<'a>,
    key: &'static Key,
    name: &'a KeyNode,
}

impl Reader<'_> {
    fn sourced<T>(&self, node: &Node, value: T) -> Sourced<T> {
        let origin = match self.source.level {
            Level::Environment => Origin::Variable {
                variable: self.name.name.clone(),
            },
            _ => Origin::file(self.source.file, node.place, self.source.below),
        };
        Sourced { value, origin }
    }

    fn wrong(&self, node: &Node, expected: &str) -> Fault {
        self.not(node, expected, &node.describe())
    }

    fn not(&self, node: &Node, expected: &str, found: &str) -> Fault {
        let name = &self.name.name;
        // A missing value has no place of its own that could be shown.
        let place = if node.value == Value::Null {
            self.name.place
        } else {
            node.place
        };
        Fault::new(place, format!("{name} must be {expected}, not {found}"))
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

    /// Refuses a map with a name that is no provider's.
    fn providers_only<'n>(
        &self,
        node: &Node,
        mut names: impl Iterator<Item = &'n String>,
    ) -> Result<(), Fault> {
        match names.find(|name| text::provider(name).is_none()) {
            Some(name) => {
                let message = format!("{} has no {name:?}", self.name.name);
                Err(Fault::new(node.place, message).help("there are anthropic, openai and gemini"))
            }
            None => Ok(()),
        }
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

    /// Reads a list of paths; a variable has colons between them, as no path that can be mounted has one.
    fn paths(&self, node: &Node, slot: &mut Vec<Sourced<String>>) -> Result<(), Fault> {
        let (Level::Environment, Some(paths)) = (self.source.level, node.text()) else {
            return self.list(node, slot, |r, n| r.scalar(n, PATHS, plain));
        };
        let paths = paths.split(':').filter(|path| !path.is_empty());
        slot.extend(paths.map(|path| self.sourced(node, path.to_owned())));
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
            Value::Null => return Err(self.wrong(node, self.key.value)),
            // It may be a secret.
            Value::Bool(_) | Value::Number(_) | Value::Text(_) => {
                return Err(self.not(node, self.key.value, "one text"));
            }
        }
        Ok(())
    }
}

const KEYS_ONLY: &str = "api-key must be a map of anthropic, openai and gemini to env:VAR, file:PATH, \
                         command:PROGRAM ARGS or claude-dir:PATH, never a key itself (so what stands here is not \
                         shown)";

const SECRETS_ONLY: &str = "secrets must be a map of names to env:VAR or file:PATH, each name once, never a value \
                            itself (so what stands here is not shown)";

fn plain(text: &str) -> Result<String, SettingError> {
    Ok(text.to_owned())
}

/// Reads where a key is; a list is a program with its arguments.
fn key_source(reader: &Reader<'_>, node: &Node) -> Result<KeySource, Fault> {
    let Value::List(items) = &node.value else {
        return reader.scalar(node, text::KEY_SOURCE, text::parse_key_source);
    };
    let argv: Vec<String> = items
        .iter()
        .map(|item| reader.scalar(item, text::KEY_SOURCE, plain))
        .collect::<Result<_, _>>()?;
    match argv.first() {
        Some(program) if !program.is_empty() => Ok(KeySource::Command(argv)),
        _ => Err(reader.wrong(node, text::KEY_SOURCE)),
    }
}

fn env_value(reader: &Reader<'_>, node: &Node) -> Result<EnvValue, Fault> {
    match node.value {
        Value::Null => Ok(EnvValue::FromHost),
        _ => reader.scalar(node, TEXT, plain).map(EnvValue::Text),
    }
}

fn network(reader: &Reader<'_>, node: &Node) -> Result<NetworkMode, Fault> {
    let Value::Map(entries) = &node.value else {
        return reader.scalar(node, text::NETWORK, text::parse_network);
    };
    match entries.as_slice() {
        [(key, list)] if key.name == "allow" => {
            let hosts = match &list.value {
                Value::List(hosts) => hosts.as_slice(),
                Value::Null => &[],
                _ => std::slice::from_ref(list),
            };
            let rules = hosts
                .iter()
                .map(|host| reader.scalar(host, text::RULE, text::parse_rule));
            rules.collect::<Result<_, _>>().map(NetworkMode::Allow)
        }
        _ => Err(reader.not(node, text::NETWORK, "this map")),
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
