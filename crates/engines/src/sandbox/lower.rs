//! From a launch spec to what a sandbox is.
//!
//! Owns: what a spec means in a sandbox, and what of it no sandbox can do.
//! Reads: the launch spec; the host, for what hides `.git`.
//! Never: makes anything.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dark_factory_executor::host::HostView;
use dark_factory_executor::spec::{
    Access, AttemptDir, HARDENED_HOME, LABEL_PROJECT, LaunchSpec, Profile, User,
};
use dark_factory_types::{AttemptId, ByteSize, NetworkMode, OwnerId, Transport};
use jiff::Timestamp;

use super::config::{Network, Root, SandboxBind, SandboxConfig, SandboxLimits, Tmpfs};
use crate::wrapping::{
    GitCover, TmpfsRoom, egress_env, git_cover, git_target, helper, labels, our_mounts, tmpfs_room,
};

/// Version of [`SandboxConfig`].
pub(super) const CONFIG_VERSION: u32 = 1;
/// Where programs are looked for unless something else is said, as in containers.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A root file system, with what its maker says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) root: Root,
    pub(super) env: BTreeMap<String, String>,
    /// What runs if nothing is said.
    pub(super) command: Vec<String>,
    pub(super) workdir: String,
    /// A folder in which programs are looked for before any other, whatever `PATH` is.
    pub(super) first_in_path: Option<String>,
    /// What is mounted on it.
    pub(super) binds: Vec<SandboxBind>,
}

impl Image {
    /// An image of which nothing is known but its files.
    pub(super) fn plain(root: Root) -> Self {
        Self {
            root,
            env: BTreeMap::new(),
            command: Vec::new(),
            workdir: String::new(),
            first_in_path: None,
            binds: Vec::new(),
        }
    }
}

/// What the machine and the moment add to a launch spec.
#[derive(Debug)]
pub(super) struct Surroundings<'a> {
    pub(super) host: &'a HostView,
    pub(super) image: Image,
    /// Who everybody in the sandbox is, where nobody else can be.
    pub(super) only_user: Option<(u32, u32)>,
    pub(super) limits: SandboxLimits,
    /// A folder that is and stays empty.
    pub(super) empty: PathBuf,
    pub(super) now: Timestamp,
}

/// A launch spec that no sandbox can keep.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The seed's container needs capabilities and its image's entrypoint.
    #[error("a sandbox has no capabilities to give: `profile: seed` needs the engine docker")]
    Seed,
    /// The output of a sandbox is its helper's.
    #[error(
        "`transport: attach` needs the engine docker; a sandbox's output is always read from its spool"
    )]
    Attach,
    /// A name means something to whoever reads the image's files.
    #[error("a sandbox's user is a number: write `user: UID:GID`")]
    NamedUser,
    /// Without root, a sandbox has no ids but those of whoever makes it.
    #[error(
        "without root a sandbox has no user but {uid}:{gid}: leave `user` out, or use another engine"
    )]
    OtherUser {
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
    },
    /// There is nothing to run.
    #[error("the image has no command and none was given")]
    NoCommand,
    /// The name cannot be a folder's.
    #[error(
        "{0:?} cannot be the name of a sandbox: letters, digits, `_`, `.` and `-` can, the first one a letter or a digit"
    )]
    Name(String),
}

/// Returns what the sandbox of an attempt is.
pub(super) fn config(
    spec: &LaunchSpec,
    owner: &OwnerId,
    dir: &AttemptDir,
    around: Surroundings<'_>,
) -> Result<SandboxConfig, Refusal> {
    let User::Ids { uid, gid } = spec.user else {
        return Err(Refusal::NamedUser);
    };
    if spec.profile == Profile::Seed {
        return Err(Refusal::Seed);
    }
    if spec.transport == Transport::Attach {
        return Err(Refusal::Attach);
    }
    if let Some(only) = around.only_user
        && only != (uid, gid)
    {
        let (uid, gid) = only;
        return Err(Refusal::OtherUser { uid, gid });
    }
    check_name(&spec.container_name(dir.attempt()))?;
    let command = match spec.command.is_empty() {
        true => &around.image.command,
        false => &spec.command,
    };
    if command.is_empty() {
        return Err(Refusal::NoCommand);
    }
    let attempt = dir.attempt();
    let mut own = BTreeMap::from_iter(egress_env(spec, attempt));
    own.extend(spec.env.clone());
    let env = environment(&around.image, own);
    let workdir = [&spec.workdir, &around.image.workdir]
        .into_iter()
        .find(|folder| !folder.is_empty())
        .map_or("/", String::as_str);
    Ok(SandboxConfig {
        version: CONFIG_VERSION,
        attempt,
        owner: owner.clone(),
        created_at: around.now,
        labels: labels_with_project(spec, attempt, owner),
        root: around.image.root.clone(),
        binds: binds(spec, dir, around.host, around.empty, around.image.binds),
        tmpfs: tmpfs(spec),
        argv: [helper(spec, attempt), command.clone()].concat(),
        env,
        workdir: workdir.to_owned(),
        hostname: attempt.to_string(),
        uid,
        gid,
        network: match spec.network {
            NetworkMode::Open => Network::Host,
            NetworkMode::None | NetworkMode::Allow(_) => Network::Loopback,
        },
        limits: around.limits,
    })
}

/// Returns the whole environment of an image's sandbox.
pub(super) fn environment(
    image: &Image,
    own: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut env = BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]);
    env.extend(image.env.clone());
    env.extend(own);
    if let Some(first) = &image.first_in_path {
        let path = env.entry("PATH".to_owned()).or_default();
        *path = format!("{first}:{path}");
    }
    env
}

/// Returns what is mounted, what is above before what is below.
fn binds(
    spec: &LaunchSpec,
    dir: &AttemptDir,
    host: &HostView,
    empty: PathBuf,
    of_image: Vec<SandboxBind>,
) -> Vec<SandboxBind> {
    let bind = |source: PathBuf, target: &str, access| SandboxBind {
        source,
        target: target.into(),
        access,
    };
    let workspace = &spec.workspace;
    let mut binds = vec![bind(
        workspace.source.clone(),
        &workspace.target,
        Access::ReadWrite,
    )];
    let git = git_target(workspace);
    match git_cover(workspace, host) {
        GitCover::None => {}
        GitCover::File => binds.push(bind("/dev/null".into(), &git, Access::ReadWrite)),
        GitCover::Folder => binds.push(bind(empty, &git, Access::ReadOnly)),
    }
    binds.extend(
        spec.mounts
            .iter()
            .map(|mount| bind(mount.source.clone(), &mount.target, mount.access)),
    );
    binds.extend(
        our_mounts(spec, dir).map(|(target, source)| bind(source, target, Access::ReadOnly)),
    );
    binds.extend(of_image);
    binds.sort_by_key(|bind| bind.target.components().count());
    binds
}

fn tmpfs(spec: &LaunchSpec) -> Vec<Tmpfs> {
    let TmpfsRoom { size, files } = tmpfs_room(spec);
    [("/tmp", 0o1777), (HARDENED_HOME, 0o700)]
        .map(|(target, mode)| Tmpfs {
            target: target.into(),
            size: ByteSize(size),
            files,
            mode,
        })
        .into()
}

/// Checks that a name is one that Docker would take too.
pub(super) fn check_name(name: &str) -> Result<(), Refusal> {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins && name.chars().all(is_safe) && name.len() <= 200 {
        Ok(())
    } else {
        Err(Refusal::Name(name.to_owned()))
    }
}

/// Returns all labels; as in a container, there is none of a project that has no name.
fn labels_with_project(
    spec: &LaunchSpec,
    attempt: AttemptId,
    owner: &OwnerId,
) -> BTreeMap<String, String> {
    let mut labels = labels(spec, attempt, owner);
    if !spec.project.is_empty() {
        labels.insert(LABEL_PROJECT.to_owned(), spec.project.clone());
    }
    labels
}

#[cfg(test)]
#[path = "lower_tests.rs"]
mod tests;
