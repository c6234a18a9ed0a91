//! The layer of the environment.
//!
//! Owns: which variables are settings.
//! Reads: the environment through a [`HostView`].
//! Never: warns about variables of ours that are no settings.

use super::ConfigError;
use crate::host::HostView;
use crate::settings::{ENV_PREFIX, KEYS, Layer, nearest, read_variable};

/// Variables of ours that are no keys, without the prefix; what ends in `_` is the beginning of several.
const OTHERS: [&str; 7] = [
    "STATE_DIR",
    "DISK_PATIENCE",
    "INIT",
    "INIT_",
    "PROMPT_FILE",
    "TEST_",
    "CHAOS_",
];

/// What the environment says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// The settings.
    pub layer: Layer,
    /// Variables that are probably not as they were meant.
    pub warnings: Vec<String>,
}

/// Reads the settings of the environment; an empty variable is as one that is not there.
///
/// # Errors
///
/// [`ConfigError::Environment`] with every variable whose value is not what its key needs.
pub fn environment(host: &HostView) -> Result<Environment, ConfigError> {
    let mut found = Environment::default();
    let mut problems = Vec::new();
    for key in KEYS {
        let Some(variable) = key.variable() else {
            continue;
        };
        let Some(value) = host.var(&variable).filter(|value| !value.is_empty()) else {
            continue;
        };
        if let Err(fault) = read_variable(key, variable, value, &mut found.layer) {
            problems.push(fault.message);
        }
    }
    if !problems.is_empty() {
        return Err(ConfigError::Environment { problems });
    }
    let names = host.env.keys();
    found.warnings = names.filter_map(|name| warning(name)).collect();
    Ok(found)
}

/// Says what is wrong with the name of a variable, if it was probably meant to be a setting.
fn warning(name: &str) -> Option<String> {
    let rest = name.strip_prefix(ENV_PREFIX)?;
    let is_other = |other: &str| rest == other || (other.ends_with('_') && rest.starts_with(other));
    if OTHERS.into_iter().any(is_other) {
        return None;
    }
    let plain = rest.to_lowercase().replace('_', "-");
    if let Some(key) = KEYS.iter().find(|key| key.name == plain) {
        let message = format!(
            "{name} does nothing: {} cannot be set by a variable",
            key.name
        );
        return key.variable().is_none().then_some(message);
    }
    let settable = KEYS.iter().filter(|key| key.variable().is_some());
    let meant = nearest(rest, settable.map(|key| key.name))?;
    let variable = KEYS.iter().find(|key| key.name == meant)?.variable()?;
    Some(format!(
        "{name} is not known and does nothing; did you mean {variable}?"
    ))
}
