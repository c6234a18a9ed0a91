//! The layers over each other.
//!
//! Owns: which layer is over which, what a profile adds, and the story of each value.
//! Reads: the layers.
//! Never: reads a file.

use std::collections::BTreeMap;
use std::path::Path;

use super::{ConfigError, ConfigFile, EnvFiles};
use crate::host::HostView;
use crate::resolve::{BUILT_IN_PROFILES, ResolveContext, default_of};
use crate::settings::{
    Entry, KEYS, Key, Layer, Level, Origin, ProfileName, Settings, Shape, Shown, Sourced,
    ToolSettings, nearest,
};
use crate::spec::Profile;

/// All layers of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// The lowest first; none chooses a profile.
    levels: Vec<(Level, Layer)>,
    /// Every choice of a profile, the lowest first.
    choices: Vec<(Level, Sourced<ProfileName>)>,
    base: Profile,
}

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The place.
    pub origin: Origin,
    /// The profile whose table it is in, if it is in one.
    pub profile: Option<String>,
}

/// A value that another one took the place of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overridden {
    /// The value.
    pub text: String,
    /// Where it was written.
    pub written: Written,
}

/// One effective value.
#[derive(Debug, Clone)]
pub struct Row {
    /// The key.
    pub key: &'static Key,
    /// The name in a map.
    pub name: Option<String>,
    /// The value, without secrets.
    pub text: String,
    /// Where it was written; `None` is the default.
    pub written: Option<Written>,
    /// What it took the place of, the highest first.
    pub overrides: Vec<Overridden>,
    /// What would hold if nobody had said anything.
    pub default: Option<String>,
}

impl Stack {
    /// Puts the layers over each other: the files, the chosen profile, the front matter, the environment, the flags.
    ///
    /// A profile of the same name in several files has the keys of all of them, a later file's over an earlier one's.
    ///
    /// # Errors
    ///
    /// [`ConfigError::UnknownProfile`].
    pub fn new(
        files: &[ConfigFile],
        front_matter: Option<&Settings>,
        environment: &Layer,
        flags: &Layer,
    ) -> Result<Self, ConfigError> {
        let mut levels: Vec<(Level, Layer)> = files
            .iter()
            .map(|file| (file.level, file.layer.clone()))
            .collect();
        let at_front = levels.len();
        levels.extend(front_matter.map(|run| {
            let layer = Layer {
                run: run.clone(),
                ..Layer::default()
            };
            (Level::FrontMatter, layer)
        }));
        levels.push((Level::Environment, environment.clone()));
        levels.push((Level::Flags, flags.clone()));

        let choices: Vec<_> = levels
            .iter_mut()
            .filter_map(|(level, layer)| Some((*level, layer.run.profile.take()?)))
            .collect();
        let mut profile = match choices.last() {
            Some((_, choice)) => chosen(choice, files)?,
            None => Settings::default(),
        };
        let base = match profile.profile.take().map(|base| base.value) {
            Some(ProfileName::BuiltIn(base)) => base,
            Some(ProfileName::Named(_)) | None => Profile::default(),
        };
        if base == Profile::Seed {
            for (file, (_, layer)) in files.iter().zip(&mut levels) {
                let lower = std::mem::take(&mut layer.run);
                layer.run = file.seed_only.clone().over(lower);
            }
        }
        let layer = Layer {
            run: profile,
            ..Layer::default()
        };
        levels.insert(at_front, (Level::Profile, layer));
        Ok(Self {
            levels,
            choices,
            base,
        })
    }

    /// Returns the settings of the run for [`crate::resolve::resolve_layers`], the lowest layer first.
    ///
    /// The profile that they choose is a built-in one; what a named one adds is a layer.
    pub fn layers(&self) -> Vec<Settings> {
        let mut layers: Vec<Settings> = self
            .levels
            .iter()
            .map(|(_, layer)| layer.run.clone())
            .collect();
        layers.extend(self.choices.last().map(|(_, choice)| Settings {
            profile: Some(Sourced {
                value: ProfileName::BuiltIn(self.base),
                origin: choice.origin.clone(),
            }),
            ..Settings::default()
        }));
        layers
    }

    /// Returns the settings of the tool.
    pub fn tool(&self) -> ToolSettings {
        let lowest = ToolSettings::default();
        self.levels
            .iter()
            .fold(lowest, |lower, (_, layer)| layer.tool.clone().over(lower))
    }

    /// Reads the environment files that the layers name, so that [`Self::rows`] can tell of each variable.
    pub fn env_files(&self, root: &Path, host: &HostView) -> EnvFiles {
        let files = self.levels.iter().flat_map(|(level, layer)| {
            let files = layer.run.env_file.iter();
            files.map(|file| (*level, file))
        });
        EnvFiles::read(files, root, host)
    }

    /// Returns every effective value with its story, in the order of [`KEYS`]; a key that nobody sets has its default.
    pub fn rows(&self, context: &ResolveContext, env_files: &EnvFiles) -> Vec<Row> {
        let agents = self.levels.iter().rev();
        let agent = agents.flat_map(|(_, layer)| &layer.run.agent).next();
        let agent = agent.map(|agent| agent.value.as_str());
        KEYS.iter()
            .flat_map(|key| self.rows_of(key, agent, context, env_files))
            .collect()
    }

    fn rows_of(
        &self,
        key: &'static Key,
        agent: Option<&str>,
        context: &ResolveContext,
        env_files: &EnvFiles,
    ) -> Vec<Row> {
        let is_single = !matches!(key.shape, Shape::Map | Shape::Texts | Shape::Mounts);
        let default = default_of(key.name, agent, self.base, context);
        let mut rows: Vec<(Level, Entry, Row)> = Vec::new();
        for (level, entry, profile) in self.entries(key, env_files) {
            let written = Written {
                origin: entry.origin.clone(),
                profile,
            };
            let mut row = Row {
                key,
                name: entry.slot.clone().filter(|_| key.shape == Shape::Map),
                text: entry.text.clone(),
                written: Some(written),
                overrides: Vec::new(),
                default: default.clone().filter(|_| is_single),
            };
            // Mounts of one layer stand beside each other; that they collide is told when the run is resolved.
            let is_over = |below: Level| below < level || key.shape == Shape::Map;
            let same = rows.iter().position(|(below, lower, _)| {
                entry.slot.is_some() && lower.slot == entry.slot && is_over(*below)
            });
            if let Some((_, _, lower)) = same.map(|index| rows.remove(index)) {
                row.overrides
                    .extend(lower.written.map(|written| Overridden {
                        text: lower.text,
                        written,
                    }));
                row.overrides.extend(lower.overrides);
            }
            rows.push((level, entry, row));
        }
        if rows.is_empty() {
            return vec![Row {
                key,
                name: None,
                text: default.unwrap_or_default(),
                written: None,
                overrides: Vec::new(),
                default: None,
            }];
        }
        rows.into_iter().map(|(_, _, row)| row).collect()
    }

    /// Returns what the layers say for a key, the lowest first, each with the profile whose table it is in.
    fn entries(&self, key: &Key, env_files: &EnvFiles) -> Vec<(Level, Entry, Option<String>)> {
        if key.name == "profile" {
            let choice = |(level, choice): &(Level, _)| (*level, self.choice(choice), None);
            return self.choices.iter().map(choice).collect();
        }
        let mut entries = Vec::new();
        for (level, layer) in &self.levels {
            let profile = match self.choices.last().map(|(_, choice)| &choice.value) {
                Some(ProfileName::Named(name)) if *level == Level::Profile => Some(name.clone()),
                _ => None,
            };
            // Within a layer its files are below what it says itself.
            let files = env_files.variables.iter();
            let of_files = files.filter(|(named_by, _)| key.name == "env" && named_by == level);
            let of_files = of_files.map(|(_, entry)| entry.clone());
            entries.extend(
                of_files
                    .chain(key.entries(layer))
                    .map(|entry| (*level, entry, profile.clone())),
            );
        }
        entries
    }

    fn choice(&self, choice: &Sourced<ProfileName>) -> Entry {
        let is_chosen = self.choices.last().is_some_and(|(_, last)| last == choice);
        let text = match &choice.value {
            ProfileName::Named(name) if is_chosen => format!("{name} (on {})", self.base.shown()),
            name => name.shown(),
        };
        Entry {
            slot: Some(String::new()),
            text,
            origin: choice.origin.clone(),
        }
    }
}

/// Returns the settings of a profile, with what it starts from.
fn chosen(choice: &Sourced<ProfileName>, files: &[ConfigFile]) -> Result<Settings, ConfigError> {
    let name = match &choice.value {
        ProfileName::BuiltIn(_) => {
            return Ok(Settings {
                profile: Some(choice.clone()),
                ..Settings::default()
            });
        }
        ProfileName::Named(name) => name,
    };
    let mut profiles: BTreeMap<&str, Settings> = BTreeMap::new();
    for (name, settings) in files.iter().flat_map(|file| &file.profiles) {
        let lower = profiles.remove(name.as_str()).unwrap_or_default();
        profiles.insert(name, settings.clone().over(lower));
    }
    profiles.remove(name.as_str()).ok_or_else(|| {
        let known = BUILT_IN_PROFILES
            .into_iter()
            .chain(profiles.keys().copied());
        let known: Vec<&str> = known.collect();
        ConfigError::UnknownProfile {
            origin: Box::new(choice.origin.clone()),
            name: name.clone(),
            suggestion: nearest(name, known.iter().copied()).map(str::to_owned),
            known: known.join(", "),
        }
    })
}
