//! The errors of resolving.
//!
//! Owns: the error type; every message names the place and says what to do.
//! Reads: nothing.
//! Never: holds a secret's value.

use std::io;
use std::path::{Path, PathBuf};

use dark_factory_agents::AuthError;
use dark_factory_types::exit_code;

use super::danger::{ALLOW, Danger};
use super::environment::{EnvProblem, SecretProblem};
use super::image::ImageProblem;
use super::mounts::MountProblem;
use super::target::TargetProblem;
use crate::engine::{Feature, LimitKind};
use crate::keys::KeyError;
use crate::mount_source::MountSourceError;
use crate::settings::{Origin, SettingError, quoted};

/// A prompt and settings from which no launch can be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The prompt's folder could not be looked at.
    #[error("the project's folder {path} cannot be used; check that it is there and may be read")]
    ProjectFolder {
        /// The folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The folder that was chosen as the project could not be used.
    #[error("{origin}: the project {path} cannot be used; name a folder that is there")]
    ChosenProject {
        /// Where it was chosen.
        origin: Origin,
        /// The folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The project does not go into a container as a whole.
    #[error(
        "{path} cannot be the project that is mounted: {danger}; \
         put the prompt into a folder of its own, or name another with --project{}",
        or_allow(danger, path)
    )]
    Workspace {
        /// The project's root.
        path: PathBuf,
        /// Why.
        danger: Danger,
    },
    /// A path in the container cannot be used.
    #[error("{origin}: {setting} {path:?} cannot be used: {problem}")]
    ContainerPath {
        /// Where it was written.
        origin: Origin,
        /// `workspace` or `workdir`.
        setting: &'static str,
        /// The path.
        path: String,
        /// Why.
        problem: TargetProblem,
    },
    /// There is no agent of that name.
    #[error("{origin}: there is no agent {}; there are {known}{}", quoted(.name), did_you_mean(*.suggestion))]
    UnknownAgent {
        /// Where it was written.
        origin: Origin,
        /// What was written.
        name: String,
        /// The names that there are.
        known: String,
        /// The one that was probably meant.
        suggestion: Option<&'static str>,
    },
    /// A list of hosts needs our helper in the container, which `attach` leaves out.
    #[error(
        "{origin}: a network of some hosts needs the transport spool, because our helper in the container carries its \
         requests; leave out transport: attach, or write network: none or open"
    )]
    HostsWithoutHelper {
        /// Where the list was written.
        origin: Origin,
    },
    /// There is no profile of that name.
    #[error("{origin}: there is no profile {}; there are {known}{}", quoted(.name), did_you_mean(*.suggestion))]
    UnknownProfile {
        /// Where it was written.
        origin: Origin,
        /// What was written.
        name: String,
        /// The names that there are.
        known: String,
        /// The one that was probably meant.
        suggestion: Option<&'static str>,
    },
    /// A command was given to an agent that has its own.
    #[error(
        "{origin}: a command is only for the agent command, and the agent is {agent}; \
         add --agent command, or remove the command"
    )]
    CommandOfOtherAgent {
        /// Where the command was written.
        origin: Origin,
        /// The agent.
        agent: &'static str,
    },
    /// The command cannot be executed by anything.
    #[error(
        "{origin}: the command's program is empty or has a NUL byte in it; write a program's name"
    )]
    Command {
        /// Where it was written.
        origin: Origin,
    },
    /// The model's name could be taken for something else.
    #[error(
        "{origin}: {model} is not a model's name: write up to 256 letters, digits and . _ : / @ [ ] -, \
         no - in front"
    )]
    Model {
        /// Where it was written.
        origin: Origin,
        /// What was written, in quotes.
        model: String,
    },
    /// No image is named anywhere.
    #[error(
        "{file}: no image is named; pass --image IMAGE, or write image: IMAGE in the front matter{}",
        note.map(|note| format!("; {note}")).unwrap_or_default()
    )]
    NoImage {
        /// The prompt file.
        file: String,
        /// How somebody comes to an image of the agent, if we cannot make one.
        note: Option<&'static str>,
    },
    /// The image's reference is not one.
    #[error(
        "{origin}: {image} is not an image reference: {problem}; \
         write [registry/]name[:tag][@sha256:…], such as debian:12"
    )]
    Image {
        /// Where it was written.
        origin: Origin,
        /// What was written, in quotes.
        image: String,
        /// Why.
        problem: ImageProblem,
    },
    /// A user's name was given where only numbers are safe.
    #[error(
        "{origin}: user {name} is a name, which only profile: seed accepts; write numbers: UID or UID:GID"
    )]
    UserName {
        /// Where it was written.
        origin: Origin,
        /// The name.
        name: String,
    },
    /// A limit is below what makes sense.
    #[error("{origin}: {setting} must be at least {least}, not {value}")]
    Limit {
        /// Where it was written.
        origin: Origin,
        /// The key.
        setting: &'static str,
        /// The least that is accepted.
        least: &'static str,
        /// What was written.
        value: String,
    },
    /// A limit was asked for that the engine does not keep.
    #[error(
        "{origin}: the engine cannot limit {limit} on its host; write none, or use another engine"
    )]
    LimitNotKept {
        /// Where it was written.
        origin: Origin,
        /// The limit.
        limit: LimitKind,
    },
    /// Something was asked for that the engine does not have.
    #[error("{origin}: the engine has no {feature}; leave it out, or use another engine")]
    FeatureLacking {
        /// Where it was written.
        origin: Origin,
        /// What it lacks.
        feature: Feature,
    },
    /// More open files than a kernel gives.
    #[error(
        "{origin}: open-files must be at most {most}, which is what the kernel gives, not {value}"
    )]
    TooManyOpenFiles {
        /// Where it was written.
        origin: Origin,
        /// What was written.
        value: u32,
        /// The most that is accepted.
        most: u32,
    },
    /// A variable of the environment is refused.
    #[error("{origin}: the environment variable {name:?} {problem}")]
    Env {
        /// Where it was written.
        origin: Origin,
        /// The variable.
        name: String,
        /// Why.
        problem: EnvProblem,
    },
    /// An environment file could not be read.
    #[error("{origin}: the environment file {path} cannot be read; make it a readable UTF-8 file")]
    EnvFile {
        /// Where the file was named.
        origin: Origin,
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// A line of an environment file is not one.
    #[error("{origin}: this line {problem}")]
    EnvFileLine {
        /// The line.
        origin: Origin,
        /// Why.
        problem: SettingError,
    },
    /// A secret is refused.
    #[error("{origin}: the secret {name:?} {problem}")]
    Secret {
        /// Where it was written.
        origin: Origin,
        /// Its name.
        name: String,
        /// Why; never the value.
        problem: SecretProblem,
    },
    /// A label is refused.
    #[error("{origin}: the label {name:?} cannot be set: {reason}")]
    Label {
        /// Where it was written.
        origin: Origin,
        /// Its name.
        name: String,
        /// Why.
        reason: &'static str,
    },
    /// A mount is refused.
    #[error("{origin}: cannot mount {mount}: {problem}")]
    Mount {
        /// Where it was written.
        origin: Origin,
        /// The mount as it was written.
        mount: String,
        /// Why.
        problem: Box<MountProblem>,
    },
    /// What is allowed to be mounted stands for no path.
    #[error("{origin}: allow-mounts has {}, which cannot be used: {problem}", quoted(.path))]
    AllowedMount {
        /// Where it was written.
        origin: Origin,
        /// What was written.
        path: String,
        /// Why.
        problem: MountSourceError,
    },
    /// A credential folder was named for a container that has none.
    #[error("{origin}: claude-dir is only for profile: seed; remove it, or add --profile seed")]
    ClaudeDirProfile {
        /// Where it was written.
        origin: Origin,
    },
    /// The credential folder could not be used.
    #[error("{origin}: claude-dir {path} cannot be used; name a folder that is there")]
    ClaudeDirFolder {
        /// Where it was written.
        origin: Origin,
        /// The folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The credential folder does not go into a container.
    #[error(
        "the credential folder {path} cannot be mounted: {danger}; name another with --claude-dir"
    )]
    ClaudeDir {
        /// The folder.
        path: PathBuf,
        /// Why.
        danger: Danger,
    },
    /// The broker was asked for where there can be none.
    #[error("{origin}: the broker cannot be used: {obstacle}")]
    NoBroker {
        /// Where it was asked for.
        origin: Origin,
        /// Why not.
        obstacle: String,
    },
    /// A budget was set that nobody would keep.
    #[error(
        "{origin}: {setting} is kept at the broker, and this run uses none; leave its key to the broker \
         (credentials: broker, and no key or address of the API in env), name providers, or remove {setting}"
    )]
    BudgetWithoutBroker {
        /// Where it was written.
        origin: Origin,
        /// The key.
        setting: &'static str,
    },
    /// The agent's credential folder was to be mounted, and is not there.
    #[error(
        "{origin}: {agent} has no credential folder here: {folder}; log in with it, or use another way than mount"
    )]
    NoCredentialFolder {
        /// Where it was asked for.
        origin: Origin,
        /// The agent.
        agent: &'static str,
        /// Where it would be.
        folder: String,
    },
    /// The agent's credential folder does not go into a container.
    #[error("{origin}: the credential folder {path} cannot be mounted: {danger}")]
    CredentialFolder {
        /// Where it was asked for.
        origin: Origin,
        /// The folder.
        path: PathBuf,
        /// Why.
        danger: Danger,
    },
    /// A key that the broker needs cannot be had.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The agent would find no credentials.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The agent would find no credentials, and those of this machine are not for it.
    #[error("{source}; {why}")]
    OwnAuth {
        /// What the agent lacks.
        source: AuthError,
        /// Why the broker does not help.
        why: String,
    },
}

impl ResolveError {
    /// Returns the exit code of a command that ends with this error.
    pub fn exit_code(&self) -> u8 {
        exit_code::USAGE
    }

    /// Returns where the setting was written that it is about, if it is about one; its text begins with that.
    pub fn origin(&self) -> Option<&Origin> {
        match self {
            Self::ChosenProject { origin, .. }
            | Self::ContainerPath { origin, .. }
            | Self::UnknownAgent { origin, .. }
            | Self::UnknownProfile { origin, .. }
            | Self::CommandOfOtherAgent { origin, .. }
            | Self::Command { origin }
            | Self::Model { origin, .. }
            | Self::Image { origin, .. }
            | Self::UserName { origin, .. }
            | Self::Limit { origin, .. }
            | Self::LimitNotKept { origin, .. }
            | Self::FeatureLacking { origin, .. }
            | Self::TooManyOpenFiles { origin, .. }
            | Self::Env { origin, .. }
            | Self::EnvFile { origin, .. }
            | Self::EnvFileLine { origin, .. }
            | Self::Secret { origin, .. }
            | Self::Label { origin, .. }
            | Self::Mount { origin, .. }
            | Self::AllowedMount { origin, .. }
            | Self::HostsWithoutHelper { origin }
            | Self::NoBroker { origin, .. }
            | Self::BudgetWithoutBroker { origin, .. }
            | Self::NoCredentialFolder { origin, .. }
            | Self::CredentialFolder { origin, .. }
            | Self::ClaudeDirProfile { origin }
            | Self::ClaudeDirFolder { origin, .. } => Some(origin),
            Self::ProjectFolder { .. }
            | Self::Workspace { .. }
            | Self::NoImage { .. }
            | Self::ClaudeDir { .. }
            | Self::Key(_)
            | Self::Auth(_)
            | Self::OwnAuth { .. } => None,
        }
    }
}

fn did_you_mean(suggestion: Option<&'static str>) -> String {
    suggestion
        .map(|name| format!("; did you mean {name}?"))
        .unwrap_or_default()
}

/// Says how the machine's owner can let a project be mounted all the same, if so.
fn or_allow(danger: &Danger, path: &Path) -> String {
    match danger.can_be_allowed() {
        true => format!(", or add {} to {ALLOW}", path.display()),
        false => String::new(),
    }
}
