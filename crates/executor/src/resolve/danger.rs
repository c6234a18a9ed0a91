//! What of the host does not go into a container, and what the machine's owner lets in all the same.
//!
//! Owns: the rule; the list of places is in `places`.
//! Reads: the file system: links, and what is there; what the machine's owner allows.
//! Never: asks who wrote the mount: no prompt and no project can allow anything.

use std::path::{Path, PathBuf};

use super::places::{self, Place};
use super::project::canonical_so_far;
use super::{ResolveContext, ResolveError};
use crate::host::{HostView, PathKind};
use crate::mount_source::expand_mount_source;
use crate::settings::{Origin, Sourced};

/// Where the machine's owner can allow a mount, for messages.
pub(super) const ALLOW: &str = "allow-mounts in config.toml of your own configuration folder, in DARK_FACTORY_ALLOW_MOUNTS or as \
                                --allow-mount";

/// Why a path of the host does not go into a container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Danger {
    /// It is `/`.
    #[error("it is the whole file system of the host")]
    Root,
    /// It is the home folder, or has it in it.
    #[error("it holds your whole home folder")]
    Home,
    /// It is, or has in it, the home folder of somebody else.
    #[error("it holds the whole home folder of other users, {path}")]
    OtherHome {
        /// That folder, or the one with all of them.
        path: PathBuf,
    },
    /// It has keys, logins or passwords in it, or is among them.
    #[error("it holds, or is in, {what} at {path}")]
    Credentials {
        /// What is there.
        what: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// It has a folder in it, or is in one, by which the machine itself is run.
    #[error("it holds, or is in, {path}, by which the machine itself is run")]
    System {
        /// The folder.
        path: PathBuf,
    },
    /// It is, or has in it, a socket that gives control of the host.
    #[error("it holds the container engine's socket {path}, which gives control of the host")]
    EngineSocket {
        /// The socket.
        path: PathBuf,
    },
    /// It has the state folder in it, or is in it.
    #[error("it holds, or is in, the state folder {path}, where the records of all runs are")]
    State {
        /// The state folder.
        path: PathBuf,
    },
    /// Its path has a `:`.
    #[error("its path on the host has a colon, which no engine can mount")]
    Colon,
}

impl Danger {
    /// Returns whether the machine's owner can allow it, by `allow-mounts`.
    pub fn can_be_allowed(&self) -> bool {
        match self {
            Self::Home
            | Self::OtherHome { .. }
            | Self::Credentials { .. }
            | Self::System { .. } => true,
            Self::Root | Self::EngineSocket { .. } | Self::State { .. } | Self::Colon => false,
        }
    }
}

/// What a path is to be mounted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// For what the user says.
    Mount,
    /// As the agent's own credential folder, which is what it has such a folder for.
    AgentFolder,
}

/// A danger that the machine's owner allows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Allowed {
    danger: Danger,
    /// Where.
    by: Origin,
}

impl Allowed {
    /// Returns what a person should know of it.
    pub(super) fn notice(&self, mounted: &str) -> String {
        let Self { danger, by } = self;
        format!("{mounted} is mounted although {danger}: allow-mounts allows it ({by})")
    }
}

/// What of the host goes into containers.
pub(super) struct Border<'a> {
    context: &'a ResolveContext,
    host: &'a HostView,
    /// What the machine's owner lets in, links resolved.
    allowed: Vec<(PathBuf, &'a Origin)>,
}

impl<'a> Border<'a> {
    /// Takes the list of what is allowed.
    ///
    /// # Errors
    ///
    /// [`ResolveError::AllowedMount`] if one of them stands for no path.
    pub(super) fn new(
        context: &'a ResolveContext,
        host: &'a HostView,
    ) -> Result<Self, ResolveError> {
        let path = |allowed: &'a Sourced<String>| -> Result<_, ResolveError> {
            let Sourced { value, origin } = allowed;
            let base = origin.folder(&host.cwd, &host.cwd);
            let path = expand_mount_source(value, base, host).map_err(|problem| {
                ResolveError::AllowedMount {
                    origin: origin.clone(),
                    path: value.clone(),
                    problem,
                }
            })?;
            Ok((canonical_so_far(&path), origin))
        };
        Ok(Self {
            allowed: context
                .allow_mounts
                .iter()
                .map(path)
                .collect::<Result<_, _>>()?,
            context,
            host,
        })
    }

    /// Says why a path, its links resolved, cannot be mounted; or that it only can because it is allowed.
    pub(super) fn check(&self, path: &Path, purpose: Purpose) -> Result<Option<Allowed>, Danger> {
        if let Some(danger) = self.never(path) {
            return Err(danger);
        }
        let Some(danger) = self.unless_allowed(path, purpose) else {
            return Ok(None);
        };
        // A name of what is around it, or in it, says nothing of the path itself.
        match self.allowed.iter().find(|(allowed, _)| allowed == path) {
            Some((_, by)) => Ok(Some(Allowed {
                danger,
                by: (*by).clone(),
            })),
            None => Err(danger),
        }
    }

    /// Says why nobody can have it mounted, if so.
    fn never(&self, path: &Path) -> Option<Danger> {
        if path.parent().is_none() {
            return Some(Danger::Root);
        }
        if path.as_os_str().as_encoded_bytes().contains(&b':') {
            return Some(Danger::Colon);
        }
        let state = canonical_so_far(&self.host.absolute(&self.context.state_dir));
        if path.starts_with(&state) || state.starts_with(path) {
            return Some(Danger::State { path: state });
        }
        let named = ["DOCKER_HOST", "CONTAINER_HOST"]
            .into_iter()
            .filter_map(|variable| self.host.var(variable)?.strip_prefix("unix://"))
            .map(PathBuf::from);
        let in_use = self.context.engine_socket.iter().cloned();
        let mut sockets = in_use.chain(named).chain(places::engine_sockets(self.host));
        sockets
            .find(|socket| socket.starts_with(path) || canonical_so_far(socket).starts_with(path))
            .map(|path| Danger::EngineSocket { path })
    }

    /// Says why only the machine's owner can have it mounted, if so.
    fn unless_allowed(&self, path: &Path, purpose: Purpose) -> Option<Danger> {
        let own_home = self.host.home.as_deref().map(canonical_so_far);
        if own_home
            .as_deref()
            .is_some_and(|home| home.starts_with(path))
        {
            return Some(Danger::Home);
        }
        if let Some(path) = places::home_of_others(path) {
            return Some(Danger::OtherHome { path });
        }
        let places = places::credentials(path, purpose, self.host);
        let keys = self.context.keys.files().map(Place::key);
        let found = places.chain(keys).find(|place| self.touches(path, place));
        if let Some(place) = found {
            return Some(Danger::Credentials {
                what: place.what,
                path: place.path,
            });
        }
        let of_system = places::system(path).find(|place| self.touches(path, place))?;
        Some(Danger::System {
            path: of_system.path,
        })
    }

    /// Returns whether a path is a place or in it, or has it in it and there is something.
    fn touches(&self, path: &Path, place: &Place) -> bool {
        let found = canonical_so_far(&place.path);
        path.starts_with(&found)
            || place.counts_inside
                && found.starts_with(path)
                && self.host.kind(&found) != PathKind::Missing
    }
}
