//! What the environment files of the layers set.
//!
//! Owns: that one is read for telling where a variable is from.
//! Reads: environment files.
//! Never: tells a value that stands in one: such a file is where secrets are kept.

use std::path::Path;

use crate::host::HostView;
use crate::resolve::{ResolveError, env_file};
use crate::settings::{Entry, EnvValue, Level, MASK, Shown, Sourced};

/// The variables of environment files, by the layer that names the file.
#[derive(Debug, Default)]
pub struct EnvFiles {
    pub(super) variables: Vec<(Level, Entry)>,
    /// Files that could not be read, and why.
    pub problems: Vec<ResolveError>,
}

impl EnvFiles {
    /// Reads the files that the layers name, the lowest layer first.
    pub(super) fn read<'a>(
        files: impl Iterator<Item = (Level, &'a Sourced<String>)>,
        root: &Path,
        host: &HostView,
    ) -> Self {
        let mut read = Self::default();
        for (level, file) in files {
            match env_file(file, root, host) {
                Ok(variables) => read.variables.extend(
                    variables
                        .into_iter()
                        .map(|(name, variable)| (level, entry(name, variable))),
                ),
                Err(problem) => read.problems.push(problem),
            }
        }
        read
    }
}

fn entry(name: String, variable: Sourced<EnvValue>) -> Entry {
    Entry {
        text: match variable.value {
            EnvValue::Text(_) => MASK.to_owned(),
            EnvValue::FromHost => variable.value.shown(),
        },
        slot: Some(name),
        origin: variable.origin,
    }
}
