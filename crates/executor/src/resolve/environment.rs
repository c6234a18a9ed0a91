//! The agent's environment, and the secrets that are not in it.
//!
//! Owns: where each value is taken from, which layer wins, and which names are allowed.
//! Reads: environment files, secret files, and the host's environment through a [`HostView`].
//! Never: puts a value into an error.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::ResolveError;
use super::project::host_path;
use crate::host::HostView;
use crate::mount_source::is_variable_name;
use crate::plain_file::read_text;
use crate::settings::{
    EnvValue, MASK, Origin, Place, SecretSource, Settings, Sourced, parse_env_file,
};

/// Names that begin like this are ours.
const OUR_PREFIX: &str = "DARK_FACTORY_";

/// Why a variable of the environment is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvProblem {
    /// Its name cannot be a variable's.
    #[error("is not a variable's name: write letters, digits and _, no digit in front")]
    Name,
    /// Its name is one of ours.
    #[error("cannot be set: names that begin with DARK_FACTORY_ belong to dark-factory")]
    Ours,
    /// The host's value was asked for, and there is none.
    #[error("has no value on the host that could be passed on; set it here, or give it a value")]
    NotOnHost,
    /// Its value has a NUL byte.
    #[error("has a NUL byte in its value, which no program can be given; remove it")]
    Nul,
    /// It is a credential without a value.
    #[error("is empty, and an empty credential hides every other; give it a value, or remove it")]
    EmptyCredential,
}

/// Why a secret is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretProblem {
    /// Its name cannot be a file's.
    #[error("is not a secret's name: write letters, digits and _ . -")]
    Name,
    /// The variable that it is taken from is not set, or empty.
    #[error("has no value: {variable} is not set here or is empty; set it")]
    Unset {
        /// The variable.
        variable: String,
    },
    /// An older version recorded its run, and not where its value was.
    #[error("has no recorded source")]
    Unrecorded,
    /// The file that it is taken from is empty.
    #[error("has no value: {path} is empty; write it there")]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// The file that it is taken from cannot be read as text.
    #[error("cannot be read from {path}: {error}; make it a readable UTF-8 file")]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        error: io::Error,
    },
}

/// Variables by name.
pub(super) type Env = BTreeMap<String, Variable>;

/// The value of a variable, and where it was decided.
pub(super) struct Variable {
    pub(super) value: String,
    pub(super) origin: Origin,
    /// Whether only the name was written, and the value taken from the host.
    pub(super) is_from_host: bool,
}

/// Says why no variable can have this name, if none can.
pub(super) fn name_problem(name: &str) -> Option<EnvProblem> {
    if !is_variable_name(name) {
        Some(EnvProblem::Name)
    } else if name.starts_with(OUR_PREFIX) {
        Some(EnvProblem::Ours)
    } else {
        None
    }
}

pub(super) fn refused(
    name: &str,
    value: &EnvValue,
    origin: &Origin,
    problem: EnvProblem,
) -> ResolveError {
    ResolveError::Env {
        origin: origin.clone(),
        name: match value {
            // It may be a value whose name was forgotten.
            EnvValue::FromHost if problem == EnvProblem::Name => MASK.to_owned(),
            EnvValue::FromHost | EnvValue::Text(_) => name.to_owned(),
        },
        problem,
    }
}

/// Returns the environment that the layers give, lowest first.
///
/// Within a layer the environment files come first, in order, and `env` wins over them.
pub(super) fn environment(
    layers: &[&Settings],
    root: &Path,
    host: &HostView,
) -> Result<Env, ResolveError> {
    let mut env = Env::new();
    let mut set = |name: &str, value: &EnvValue, origin: &Origin| {
        let refused = |problem| refused(name, value, origin, problem);
        let (text, is_from_host) = match value {
            EnvValue::Text(text) => (Some(text.as_str()), false),
            EnvValue::FromHost => (host.var(name), true),
        };
        if let Some(problem) = name_problem(name) {
            return Err(refused(problem));
        }
        let text = text
            .ok_or_else(|| refused(EnvProblem::NotOnHost))?
            .to_owned();
        if text.contains('\0') {
            return Err(refused(EnvProblem::Nul));
        }
        env.insert(
            name.to_owned(),
            Variable {
                value: text,
                origin: origin.clone(),
                is_from_host,
            },
        );
        Ok(())
    };
    for layer in layers {
        for file in &layer.env_file {
            for (name, variable) in env_file(file, root, host)? {
                set(&name, &variable.value, &variable.origin)?;
            }
        }
        for (name, value) in &layer.env {
            set(name, &value.value, &value.origin)?;
        }
    }
    Ok(env)
}

/// Returns what an environment file sets, in its order.
pub(crate) fn env_file(
    file: &Sourced<String>,
    root: &Path,
    host: &HostView,
) -> Result<Vec<(String, Sourced<EnvValue>)>, ResolveError> {
    let path = host_path(&file.value, file.origin.folder(root, &host.cwd), host);
    let text = read_text(&path).map_err(|source| ResolveError::EnvFile {
        origin: file.origin.clone(),
        path: path.clone(),
        source,
    })?;
    let at = |line| {
        let place = Place {
            line,
            column: 1,
            len: 1,
        };
        Origin::file(&path.display().to_string(), place, None)
    };
    let lines = parse_env_file(&text).map_err(|(line, problem)| ResolveError::EnvFileLine {
        origin: at(line),
        problem,
    })?;
    let variable = |(line, name, value)| {
        let origin = at(line);
        (name, Sourced { value, origin })
    };
    Ok(lines.into_iter().map(variable).collect())
}

/// Refuses credentials without a value: an empty one is not the same as none.
pub(super) fn refuse_empty_credentials(env: &Env) -> Result<(), ResolveError> {
    let is_credential = |name: &str| name.ends_with("_TOKEN") || name.ends_with("_KEY");
    match env
        .iter()
        .find(|(name, value)| is_credential(name) && value.value.trim().is_empty())
    {
        Some((name, value)) => Err(ResolveError::Env {
            origin: value.origin.clone(),
            name: name.clone(),
            problem: EnvProblem::EmptyCredential,
        }),
        None => Ok(()),
    }
}

/// Returns the secrets with their values, in the order of their names.
///
/// A relative file is below the project's root, or the folder of the user's configuration. One line end at the end of
/// a file is not part of the value.
pub(super) fn secrets(
    sources: &BTreeMap<String, Sourced<SecretSource>>,
    root: &Path,
    host: &HostView,
) -> Result<Vec<(String, String)>, ResolveError> {
    let one = |(name, source): (&String, &Sourced<SecretSource>)| {
        let base = source.origin.folder(root, root);
        secret(name, &source.value, base, host)
            .map(|value| (name.clone(), value))
            .map_err(|problem| ResolveError::Secret {
                origin: source.origin.clone(),
                name: name.clone(),
                problem,
            })
    };
    sources.iter().map(one).collect()
}

/// Returns where the secrets' values are, for whoever reads them again from anywhere.
pub(super) fn sources(
    sources: &BTreeMap<String, Sourced<SecretSource>>,
    root: &Path,
    host: &HostView,
) -> BTreeMap<String, SecretSource> {
    let recorded = |source: &Sourced<SecretSource>| match &source.value {
        SecretSource::Env(variable) => SecretSource::Env(variable.clone()),
        SecretSource::File(path) => {
            let path = host_path(path, source.origin.folder(root, root), host);
            SecretSource::File(path.display().to_string())
        }
    };
    sources
        .iter()
        .map(|(name, source)| (name.clone(), recorded(source)))
        .collect()
}

/// Reads secrets again from where they were taken before, in the order of `names`; an error names the secret.
pub(crate) fn secrets_again(
    names: &[String],
    sources: &BTreeMap<String, SecretSource>,
    host: &HostView,
) -> Result<Vec<(String, String)>, (String, SecretProblem)> {
    let one = |name: &String| {
        let source = sources.get(name).ok_or(SecretProblem::Unrecorded);
        source
            .and_then(|source| secret(name, source, Path::new("/"), host))
            .map(|value| (name.clone(), value))
            .map_err(|problem| (name.clone(), problem))
    };
    names.iter().map(one).collect()
}

fn secret(
    name: &str,
    source: &SecretSource,
    base: &Path,
    host: &HostView,
) -> Result<String, SecretProblem> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.is_empty() || name == "." || name == ".." || !name.chars().all(is_allowed) {
        return Err(SecretProblem::Name);
    }
    match source {
        SecretSource::Env(variable) => match host.var(variable) {
            Some(value) if !value.is_empty() => Ok(value.to_owned()),
            _ => Err(SecretProblem::Unset {
                variable: variable.clone(),
            }),
        },
        SecretSource::File(path) => {
            let path = host_path(path, base, host);
            let text = match read_text(&path) {
                Ok(text) => text,
                Err(error) => return Err(SecretProblem::File { path, error }),
            };
            let line = text.strip_suffix('\n').unwrap_or(&text);
            match line.strip_suffix('\r').unwrap_or(line) {
                "" => Err(SecretProblem::EmptyFile { path }),
                value => Ok(value.to_owned()),
            }
        }
    }
}
