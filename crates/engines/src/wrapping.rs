//! What every engine puts around an agent: our helper, what is mounted of ours, what tells of the way out.
//!
//! Owns: the helper's command line, and what hides `.git`.
//! Reads: launch specs, attempt folders; the host, for what hides `.git`.
//! Never: knows an engine's words.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dark_factory_executor::egress::{EgressDemand, token_env};
use dark_factory_executor::host::{HostView, PathKind};
use dark_factory_executor::spec::{
    AttemptDir, CONTAINER_ATTEMPT, CONTAINER_EGRESS, CONTAINER_INIT, CONTAINER_PROMPT,
    CONTAINER_SECRETS, CONTAINER_SOCKET, GitVisibility, LABEL_ATTEMPT, LABEL_OWNER, LABEL_PROJECT,
    LABEL_PROMPT, LaunchSpec, Profile, Workspace,
};
use dark_factory_spool::EGRESS_PORT;
use dark_factory_types::{AttemptId, NetworkMode, OwnerId, Transport};

/// Where the seed's image looks for its prompt.
pub(crate) const SEED_PROMPT: &str = "/tmp/prompt.md";
/// Size of `/tmp` and of the home, each, where memory is not limited.
const TMPFS_SIZE: u64 = 2 << 30;
/// The least that a file with content takes of it.
const PAGE: u64 = 4096;

/// What the engine puts around the container of a launch spec, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapping {
    /// Our helper's command line, which becomes the entrypoint, up to what the container would have run without it;
    /// empty where output is read by attaching.
    pub entrypoint: Vec<String>,
    /// Paths in the container at which something of ours is mounted read-only.
    pub mounts: Vec<String>,
}

/// Returns what the engine puts around the container of an attempt, last.
pub fn wrapping(spec: &LaunchSpec, attempt: AttemptId) -> Wrapping {
    Wrapping {
        entrypoint: match spec.transport {
            Transport::Spool => helper(spec, attempt),
            Transport::Attach => Vec::new(),
        },
        mounts: mount_targets(spec)
            .map(|(target, _)| target.to_owned())
            .collect(),
    }
}

/// Returns the labels of an attempt's container, but for the project's.
pub(crate) fn labels(
    spec: &LaunchSpec,
    attempt: AttemptId,
    owner: &OwnerId,
) -> BTreeMap<String, String> {
    let mut labels = spec.labels.clone();
    labels.remove(LABEL_PROJECT);
    labels.insert(LABEL_PROMPT.to_owned(), spec.prompt.clone());
    labels.insert(LABEL_OWNER.to_owned(), owner.to_string());
    labels.insert(LABEL_ATTEMPT.to_owned(), attempt.to_string());
    labels
}

/// The room of `/tmp` and of the home, each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TmpfsRoom {
    /// In bytes.
    pub(crate) size: u64,
    /// The most files.
    pub(crate) files: u64,
}

/// Returns the room of `/tmp` and of the home.
///
/// What is in them counts as the container's memory, and so do their inodes: each may fill half of it, with no more
/// files than it has pages, and then says that it is full rather than having the agent killed.
pub(crate) fn tmpfs_room(spec: &LaunchSpec) -> TmpfsRoom {
    let size = spec.limits.memory.map_or(TMPFS_SIZE, |size| size.0 / 2);
    // Zero would be no limit.
    let files = (size / PAGE).max(1);
    TmpfsRoom { size, files }
}

/// What is mounted over the workspace's `.git`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GitCover {
    /// Nothing.
    None,
    /// An empty file.
    File,
    /// An empty folder.
    Folder,
}

/// Returns what hides the workspace's `.git`.
pub(crate) fn git_cover(workspace: &Workspace, host: &HostView) -> GitCover {
    if workspace.git == GitVisibility::Visible {
        return GitCover::None;
    }
    match host.kind(&workspace.source.join(".git")) {
        // Mounting over nothing would make a `.git` on the host.
        PathKind::Missing => GitCover::None,
        PathKind::File => GitCover::File,
        PathKind::Unreadable if workspace.git_is_file => GitCover::File,
        PathKind::Folder | PathKind::Unreadable => GitCover::Folder,
    }
}

/// Returns where in the container the workspace's `.git` is.
pub(crate) fn git_target(workspace: &Workspace) -> String {
    format!("{}/.git", workspace.target.trim_end_matches('/'))
}

/// What is mounted from an attempt's folder, or is the helper.
enum OurSource {
    Folder,
    Helper,
    Prompt,
    Secrets,
}

impl OurSource {
    fn of(&self, dir: &AttemptDir) -> PathBuf {
        match self {
            Self::Folder => dir.mount(),
            Self::Helper => dir.init().to_owned(),
            Self::Prompt => dir.prompt(),
            Self::Secrets => dir.secrets(),
        }
    }
}

fn mount_targets(spec: &LaunchSpec) -> impl Iterator<Item = (&'static str, OurSource)> {
    let helper = spec.transport == Transport::Spool;
    let prompt = spec.profile == Profile::Seed;
    let secrets = !spec.secrets.is_empty();
    [
        (true, CONTAINER_ATTEMPT, OurSource::Folder),
        (helper, CONTAINER_INIT, OurSource::Helper),
        (prompt, SEED_PROMPT, OurSource::Prompt),
        (secrets, CONTAINER_SECRETS, OurSource::Secrets),
    ]
    .into_iter()
    .filter_map(|(is_there, target, source)| is_there.then_some((target, source)))
}

/// Returns what is mounted of ours, read-only, as path in the container and on the host.
pub(crate) fn our_mounts(
    spec: &LaunchSpec,
    dir: &AttemptDir,
) -> impl Iterator<Item = (&'static str, PathBuf)> {
    mount_targets(spec).map(|(target, source)| (target, source.of(dir)))
}

/// Returns what tells programs of the only way out; what the user sets goes before it.
pub(crate) fn egress_env(spec: &LaunchSpec, attempt: AttemptId) -> Vec<(String, String)> {
    if !EgressDemand::is_needed(spec) {
        return Vec::new();
    }
    let token = token_env(spec, attempt).into_iter();
    if spec.network == NetworkMode::Open {
        return token.collect();
    }
    let proxy = format!("http://127.0.0.1:{EGRESS_PORT}");
    let local = "localhost,127.0.0.1,::1".to_owned();
    let variables = [
        ("HTTP_PROXY", &proxy),
        ("HTTPS_PROXY", &proxy),
        ("NO_PROXY", &local),
    ]
    .map(|(name, value)| (name.to_owned(), value.clone()));
    // Some programs know only the one spelling, others only the other.
    let lower = variables
        .clone()
        .map(|(name, value)| (name.to_ascii_lowercase(), value));
    let all = variables.into_iter().chain(lower);
    all.filter(|(name, _)| !spec.env.contains_key(name))
        .chain(token)
        .collect()
}

/// Returns the helper's command line, up to the agent's argv.
///
/// The prompt is the agent's stdin, except for the seed's image: its entrypoint looks for the prompt elsewhere, and
/// an agent that finds it on stdin too would read it twice.
pub(crate) fn helper(spec: &LaunchSpec, attempt: AttemptId) -> Vec<String> {
    let id = attempt.to_string();
    let mut helper = vec![
        CONTAINER_INIT,
        "run",
        "--socket",
        CONTAINER_SOCKET,
        "--id",
        &id,
    ];
    if spec.profile == Profile::Hardened || !spec.command.is_empty() {
        helper.extend(["--stdin", CONTAINER_PROMPT]);
    }
    let log_limit = spec.limits.log.map(|limit| limit.0.to_string());
    if let Some(limit) = &log_limit {
        helper.extend(["--log-limit", limit]);
    }
    let file_size = spec.limits.file_size.map(|size| size.0.to_string());
    if let Some(size) = &file_size {
        helper.extend(["--file-size", size]);
    }
    let open_files = spec.limits.open_files.map(|files| files.to_string());
    if let Some(files) = &open_files {
        helper.extend(["--open-files", files]);
    }
    if EgressDemand::is_needed(spec) {
        helper.extend(["--egress", CONTAINER_EGRESS]);
    }
    helper.push("--");
    helper.into_iter().map(str::to_owned).collect()
}
