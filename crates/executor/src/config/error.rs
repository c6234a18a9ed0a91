//! The errors of configuration.
//!
//! Owns: the error type; every message names the place and says what to do.
//! Reads: nothing.
//! Never: holds a secret's value.

use dark_factory_types::exit_code;

use crate::settings::{Diagnostic, Joined, Origin, quoted};

/// Configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file is there and cannot be read.
    #[error("the configuration file {file} cannot be read: {reason}; {way_out}")]
    Unreadable {
        /// The file.
        file: String,
        /// Why.
        reason: String,
        /// What to do.
        way_out: &'static str,
    },
    /// The file is not UTF-8.
    #[error(
        "{file}:{line}: a configuration file must be UTF-8 text, and byte {offset} of it is not; \
         save it as UTF-8"
    )]
    NotUtf8 {
        /// The file.
        file: String,
        /// Line of the first bad byte, counted from 1.
        line: usize,
        /// Offset of the first bad byte, counted from 0.
        offset: usize,
    },
    /// The file is not TOML or YAML, has unknown keys, or a value in it is not what its key needs.
    #[error("{}", Joined(.problems))]
    File {
        /// All problems, in the file's order; never empty.
        problems: Vec<Diagnostic>,
    },
    /// Variables of the environment do not have what their keys need.
    #[error("{}", Joined(.problems))]
    Environment {
        /// All problems; never empty.
        problems: Vec<String>,
    },
    /// There is no profile of that name.
    #[error(
        "{origin}: there is no profile {}; there are {known}{}", quoted(.name),
        .suggestion.as_ref().map(|name| format!("; did you mean {name}?")).unwrap_or_default()
    )]
    UnknownProfile {
        /// Where it was chosen.
        origin: Box<Origin>,
        /// What was written.
        name: String,
        /// The names that there are.
        known: String,
        /// The one that was probably meant.
        suggestion: Option<String>,
    },
}

impl ConfigError {
    /// Returns the exit code of a command that ends with this error.
    pub fn exit_code(&self) -> u8 {
        exit_code::USAGE
    }
}
