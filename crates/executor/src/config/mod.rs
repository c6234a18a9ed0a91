//! Configuration: the layers around a prompt file, from the user's file to the flags.
//!
//! Owns: which files are read, what they may say, how the layers stand over each other, and where each value is from.
//! Reads: configuration files; the environment through a [`HostView`](crate::host::HostView).
//! Never: fills in a default (see [`crate::resolve`]), or has a key of its own (see [`crate::settings::KEYS`]).

mod env_files;
mod environment;
mod error;
mod file;
mod schema;
mod seed;
mod stack;

#[cfg(test)]
mod tests;

pub use env_files::EnvFiles;
pub use environment::{Environment, environment};
pub use error::ConfigError;
pub use file::{
    ConfigFile, PROJECT_FILE, SEED_FILE, load_project, load_user, parse_project, user_file,
};
pub use schema::{json_schema, keys_table};
pub use stack::{Overridden, Row, Stack, Written};
