//! Configuration files.
//!
//! Owns: where they are, and the errors of a TOML file.
//! Reads: the file system.
//! Never: takes a file that is there and cannot be read for one that is not.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{ConfigError, seed};
use crate::error::sentence;
use crate::host::HostView;
use crate::plain_file::{self, PlainFile, PlainFileError};
use crate::resolve::{self, BUILT_IN_PROFILES, ResolveError};
use crate::settings::{
    Diagnostic, Fault, KeyNode, Layer, Level, Node, Origin, Place, ProfileName, Settings, Source,
    Value, nearest, parse_toml, quoted, read_settings,
};

/// The project's configuration, in its root.
pub const PROJECT_FILE: &str = "dark-factory.toml";
/// The configuration of a project of the seed, in its root.
pub const SEED_FILE: &str = ".dark-factory.yaml";

/// A configuration file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    /// The file as messages name it.
    pub file: String,
    /// Its layer.
    pub level: Level,
    /// What it says.
    pub layer: Layer,
    /// What it says for the seed's container only.
    pub(super) seed_only: Settings,
    /// Its profiles by name.
    pub profiles: BTreeMap<String, Settings>,
    /// Things in it that are probably not as they were meant.
    pub warnings: Vec<String>,
    /// Things that a person should know about it.
    pub notices: Vec<String>,
}

impl ConfigFile {
    pub(super) fn new(file: &str, level: Level) -> Self {
        Self {
            file: file.to_owned(),
            level,
            layer: Layer::default(),
            seed_only: Settings::default(),
            profiles: BTreeMap::new(),
            warnings: Vec::new(),
            notices: Vec::new(),
        }
    }
}

/// Returns where the user's configuration file is, if it is there; without a home there is none.
pub fn user_file(host: &HostView) -> Option<PathBuf> {
    let chosen = host
        .var("XDG_CONFIG_HOME")
        .filter(|path| Path::new(path).is_absolute())
        .map(PathBuf::from);
    let base = chosen.or_else(|| host.home.as_ref().map(|home| home.join(".config")))?;
    Some(base.join("dark-factory/config.toml"))
}

/// Reads the user's configuration file; `None` if there is none.
///
/// # Errors
///
/// [`ConfigError`], with every problem of the file.
pub fn load_user(host: &HostView) -> Result<Option<ConfigFile>, ConfigError> {
    let Some(path) = user_file(host) else {
        return Ok(None);
    };
    let file = path.display().to_string();
    let Some(content) = read(&path, &file)? else {
        return Ok(None);
    };
    toml(&file, &content.text, path.parent(), Level::User).map(Some)
}

/// Reads the configuration files in a project's root, the lowest layer first.
///
/// # Errors
///
/// [`ConfigError`], with every problem of the first file that has one.
pub fn load_project(root: &Path, host: &HostView) -> Result<Vec<ConfigFile>, ConfigError> {
    [SEED_FILE, PROJECT_FILE]
        .into_iter()
        .filter_map(|name| parse_project(&root.join(name), host).transpose())
        .collect()
}

/// Reads one configuration file of a project; its name says which it is. `None` if it is not there.
///
/// # Errors
///
/// [`ConfigError`], with every problem of the file.
pub fn parse_project(path: &Path, host: &HostView) -> Result<Option<ConfigFile>, ConfigError> {
    let shown = path.strip_prefix(&host.cwd).unwrap_or(path);
    let file = shown.display().to_string();
    let Some(content) = read(path, &file)? else {
        return Ok(None);
    };
    if path.file_name().is_some_and(|name| name == SEED_FILE) {
        seed::parse(&file, &content.text, content.mode, host).map(Some)
    } else {
        toml(&file, &content.text, None, Level::Project).map(Some)
    }
}

struct Content {
    text: String,
    mode: u32,
}

fn read(path: &Path, file: &str) -> Result<Option<Content>, ConfigError> {
    let refused = |reason: &str, way_out| ConfigError::Unreadable {
        file: file.to_owned(),
        reason: reason.to_owned(),
        way_out,
    };
    let PlainFile { bytes, mode, .. } = match plain_file::read(path) {
        Ok(found) => found,
        Err(PlainFileError::Io(error)) => {
            let is_missing = matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            );
            return match fs::symlink_metadata(path) {
                Ok(_) if is_missing => Err(refused(
                    "it is a link to nothing",
                    "make what it leads to, or remove it",
                )),
                Err(_) if is_missing => Ok(None),
                _ => Err(refused(
                    &error.to_string(),
                    "make it a file that you may read, or remove it",
                )),
            };
        }
        Err(error) => {
            let way_out = match error {
                PlainFileError::TooLarge => "look whether it is the right file",
                PlainFileError::Folder => "make it a file, or remove it",
                _ => "make it a plain file, or remove it",
            };
            return Err(refused(&error.to_string(), way_out));
        }
    };
    let text = decode(file, bytes)?;
    Ok(Some(Content { text, mode }))
}

pub(super) fn decode(file: &str, bytes: Vec<u8>) -> Result<String, ConfigError> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        let before = error.as_bytes().iter().take(offset);
        ConfigError::NotUtf8 {
            file: file.to_owned(),
            line: 1 + before.filter(|b| **b == b'\n').count(),
            offset,
        }
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(text) => text.to_owned(),
        None => text,
    })
}

/// Reads the text of a TOML file whose relative paths are below `below`, or below the project's root.
pub(super) fn toml(
    file: &str,
    text: &str,
    below: Option<&Path>,
    level: Level,
) -> Result<ConfigFile, ConfigError> {
    let root = parse_toml(text).map_err(|faults| problems(file, text, faults))?;
    let mut config = ConfigFile::new(file, level);
    let mut faults = Vec::new();
    let source = Source { file, below, level };
    let Value::Map(mut entries) = root.value else {
        return Ok(config);
    };
    let mut profiles = Vec::new();
    entries.retain_mut(|(name, node)| match &mut node.value {
        Value::Map(tables) if name.name == "profile" => {
            profiles.append(tables);
            false
        }
        _ => true,
    });
    for (name, node) in profiles {
        let profile = profile(&name, node, source, &mut faults);
        config.profiles.insert(name.name, profile);
    }
    let root = Node {
        place: root.place,
        value: Value::Map(entries),
    };
    config.layer = settings(source, root, &mut faults);
    if faults.is_empty() {
        Ok(config)
    } else {
        Err(problems(file, text, faults))
    }
}

/// Reads settings, and takes an unknown key for an error.
fn settings(source: Source<'_>, root: Node, faults: &mut Vec<Fault>) -> Layer {
    let reading = read_settings(source, root);
    faults.extend(reading.errors);
    for unknown in reading.unknown {
        let name = &unknown.name.name;
        let message = match unknown.elsewhere {
            Some(_) => format!("{name} cannot be set here"),
            None => format!("there is no key {name}"),
        };
        let fault = Fault::new(unknown.name.place, message);
        faults.push(match unknown.help(source.level) {
            Some(help) => fault.help(help),
            None => fault.help("`dark-factory config schema` has all keys; remove it"),
        });
    }
    faults.extend(resolve::faults(&reading.layer.run).iter().filter_map(fault));
    reading.layer
}

/// Returns an error of resolving as a problem of the file that its setting stands in.
fn fault(error: &ResolveError) -> Option<Fault> {
    let origin = error.origin()?;
    let Origin::File { line, column, .. } = origin else {
        return None;
    };
    let place = Place {
        line: usize::try_from(*line).ok()?,
        column: usize::try_from(*column).ok()?,
        len: 1,
    };
    let text = sentence(error);
    let message = text.strip_prefix(&format!("{origin}: "));
    Some(Fault::new(place, message.unwrap_or(&text)))
}

fn profile(name: &KeyNode, node: Node, source: Source<'_>, faults: &mut Vec<Fault>) -> Settings {
    if BUILT_IN_PROFILES.contains(&name.name.as_str()) {
        let message = format!(
            "the profile {} is built in and cannot be changed",
            name.name
        );
        let help = format!(
            "give this one another name, and write profile = \"{}\" in it",
            name.name
        );
        faults.push(Fault::new(name.place, message).help(help));
    }
    if !matches!(node.value, Value::Map(_)) {
        let message = format!("a profile must be a table, not {}", node.describe());
        let help = format!("write [profile.{}] and its keys below", name.name);
        faults.push(Fault::new(node.place, message).help(help));
        return Settings::default();
    }
    let base = base(&node);
    let level = Level::Profile;
    let settings = settings(Source { level, ..source }, node, faults).run;
    if let (Some(place), Some(chosen)) = (base, &settings.profile)
        && let ProfileName::Named(base) = &chosen.value
    {
        let message = format!(
            "a profile starts from hardened or seed, not from {}",
            quoted(base)
        );
        let fault = Fault::new(place, message);
        faults.push(match nearest(base, BUILT_IN_PROFILES) {
            Some(meant) => fault.help(format!("did you mean {meant}?")),
            None => fault.help("copy the keys of the other profile into this one"),
        });
    }
    settings
}

/// Returns the place of what a profile says that it starts from.
fn base(node: &Node) -> Option<Place> {
    let Value::Map(entries) = &node.value else {
        return None;
    };
    let is_base = |name: &str| matches!(name, "profile" | "default-profile" | "default_profile");
    let (_, node) = entries.iter().find(|(name, _)| is_base(&name.name))?;
    Some(node.place)
}

/// Puts problems into the file's order.
pub(super) fn problems(file: &str, text: &str, mut faults: Vec<Fault>) -> ConfigError {
    faults.sort_by_key(|fault| (fault.place.line, fault.place.column));
    let shown = |fault: Fault| -> Diagnostic { fault.in_file(file, text) };
    ConfigError::File {
        problems: faults.into_iter().map(shown).collect(),
    }
}
