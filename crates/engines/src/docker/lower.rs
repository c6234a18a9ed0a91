//! From a launch spec to the request that creates its container.
//!
//! Owns: what each profile means in Docker's words, and the wrapping of the helper around it.
//! Reads: the launch spec; the host, for what hides `.git`.
//! Never: sends the request.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bollard::models::{ContainerCreateBody, ImageConfig, Mount, MountType};
use dark_factory_executor::egress::{EgressDemand, token_env};
use dark_factory_executor::host::{HostView, PathKind};
use dark_factory_executor::spec::{
    Access, AttemptDir, CONTAINER_ATTEMPT, CONTAINER_EGRESS, CONTAINER_INIT, CONTAINER_PROMPT,
    CONTAINER_SECRETS, CONTAINER_SOCKET, GitVisibility, HARDENED_HOME, LABEL_ATTEMPT, LABEL_OWNER,
    LABEL_PROJECT, LABEL_PROMPT, LaunchSpec, Profile, User, WORKSPACE_TARGET,
};
use dark_factory_spool::EGRESS_PORT;
use dark_factory_types::{AttemptId, NetworkMode, OwnerId, Transport};

use super::launch::{
    Bind, ContainerLaunchOpts, LaunchError, LogDriver, NetworkDemand, PROMPT_MOUNT_TARGET,
    Privileges, RootFilesystem, TmpfsMount, create_body,
};

/// Size of `/tmp` and of the home, each, where memory is not limited.
const TMPFS_SIZE: u64 = 2 << 30;
/// The least that a file with content takes of it.
const PAGE: u64 = 4096;

/// Returns the options of the container for an attempt, as both renderers of [`super::launch`] take them.
///
/// They are the container without our helper and without what is mounted from the attempt's folder, which depend on
/// the installation. A command in the spec replaces both the image's entrypoint and its command.
pub fn launch_opts(
    spec: &LaunchSpec,
    attempt: AttemptId,
    owner: &OwnerId,
    host: &HostView,
) -> ContainerLaunchOpts {
    let mut labels = spec.labels.clone();
    labels.remove(LABEL_PROJECT);
    labels.insert(LABEL_PROMPT.to_owned(), spec.prompt.clone());
    labels.insert(LABEL_OWNER.to_owned(), owner.to_string());
    labels.insert(LABEL_ATTEMPT.to_owned(), attempt.to_string());
    let (entrypoint, command) = match spec.command.split_first() {
        Some((program, arguments)) => (program.clone(), arguments.to_vec()),
        None => (String::new(), Vec::new()),
    };
    let common = ContainerLaunchOpts {
        container_name: spec.container_name(attempt),
        container_image: spec.image.clone(),
        project_name: spec.project.clone(),
        env: spec.env.clone(),
        extra_labels: labels,
        entrypoint,
        command,
        run_as_user: spec.user.to_string(),
        workdir: spec.workdir.clone(),
        memory_limit: spec
            .limits
            .memory
            .map(|size| size.0.to_string())
            .unwrap_or_default(),
        cpu_limit: spec
            .limits
            .cpus
            .map(|cpus| cpus.to_string())
            .unwrap_or_default(),
        pids_limit: spec.limits.pids.map(i64::from).unwrap_or_default(),
        ulimits: ulimits(spec),
        network: match &spec.network {
            NetworkMode::Open => NetworkDemand::EngineDefault,
            NetworkMode::None | NetworkMode::Allow(_) => NetworkDemand::Disabled,
        },
        stop_signal: spec.stop.signal.clone(),
        stop_timeout: Some(spec.stop.grace),
        log: Some(log_driver(spec.transport)),
        ..ContainerLaunchOpts::default()
    };
    match spec.profile {
        Profile::Hardened => hardened(common, spec, host),
        Profile::Seed => seed(common, spec, host),
    }
}

/// Returns the limits of each process that the engine sets: our helper sets them for the agent alone, because its own files
/// hold the output, and an engine refuses what it may not give.
fn ulimits(spec: &LaunchSpec) -> BTreeMap<String, u64> {
    if spec.transport == Transport::Spool {
        return BTreeMap::new();
    }
    let file_size = spec.limits.file_size.map(|size| ("fsize", size.0));
    let open_files = spec
        .limits
        .open_files
        .map(|files| ("nofile", u64::from(files)));
    let both = file_size.into_iter().chain(open_files);
    both.map(|(name, most)| (name.to_owned(), most)).collect()
}

fn hardened(
    common: ContainerLaunchOpts,
    spec: &LaunchSpec,
    host: &HostView,
) -> ContainerLaunchOpts {
    let mut opts = ContainerLaunchOpts {
        memory_swap: spec.limits.memory,
        cap_drop: vec!["ALL".to_owned()],
        privileges: Privileges::NoNew,
        root_filesystem: RootFilesystem::ReadOnly,
        tmpfs: tmpfs(spec),
        ..common
    };
    mount_workspace(&mut opts, spec, host);
    mount_extra(&mut opts, spec);
    opts
}

fn seed(common: ContainerLaunchOpts, spec: &LaunchSpec, host: &HostView) -> ContainerLaunchOpts {
    let path = |path: &Option<PathBuf>| {
        path.as_ref()
            .map(|path| path.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    let mut opts = ContainerLaunchOpts {
        claude_dir: path(&spec.seed.claude_dir),
        netrc_file: path(&spec.seed.netrc_file),
        gitconfig_file: path(&spec.seed.gitconfig_file),
        cap_add: vec!["NET_ADMIN".to_owned(), "NET_RAW".to_owned()],
        ..common
    };
    if spec.workspace.target == WORKSPACE_TARGET {
        opts.project_root = path(&Some(spec.workspace.source.clone()));
        opts.git = spec.workspace.git;
    } else {
        mount_workspace(&mut opts, spec, host);
    }
    mount_extra(&mut opts, spec);
    opts
}

fn mount_workspace(opts: &mut ContainerLaunchOpts, spec: &LaunchSpec, host: &HostView) {
    let workspace = &spec.workspace;
    opts.binds.push(Bind {
        source: workspace.source.clone(),
        target: workspace.target.clone(),
        access: Access::ReadWrite,
    });
    if workspace.git == GitVisibility::Visible {
        return;
    }
    let target = format!("{}/.git", workspace.target.trim_end_matches('/'));
    let is_file = match host.kind(&workspace.source.join(".git")) {
        // Mounting over nothing would make a `.git` on the host.
        PathKind::Missing => return,
        PathKind::File => true,
        PathKind::Folder => false,
        PathKind::Unreadable => workspace.git_is_file,
    };
    if is_file {
        opts.binds.push(Bind {
            source: "/dev/null".into(),
            target,
            access: Access::ReadWrite,
        });
    } else {
        opts.tmpfs.push(TmpfsMount {
            path: target,
            options: "rw,size=1k".to_owned(),
        });
    }
}

fn mount_extra(opts: &mut ContainerLaunchOpts, spec: &LaunchSpec) {
    opts.binds.extend(spec.mounts.iter().map(|mount| Bind {
        source: mount.source.clone(),
        target: mount.target.clone(),
        access: mount.access,
    }));
}

/// Returns `/tmp` and the home; programs may run from both, because builds and installers do that.
///
/// What is in them counts as the container's memory, and so do their inodes: each may fill half of it, with no more
/// files than it has pages, and then says that it is full rather than having the agent killed.
fn tmpfs(spec: &LaunchSpec) -> Vec<TmpfsMount> {
    let size = spec.limits.memory.map_or(TMPFS_SIZE, |size| size.0 / 2);
    // Zero would be no limit.
    let files = (size / PAGE).max(1);
    let owner = match spec.user {
        User::Ids { uid, gid } => format!("uid={uid},gid={gid},mode=700"),
        User::Named(_) | User::Image => "mode=1777".to_owned(),
    };
    let mount = |path: &str, mode: &str| TmpfsMount {
        path: path.to_owned(),
        options: format!("rw,nosuid,nodev,exec,size={size},nr_inodes={files},{mode}"),
    };
    vec![mount("/tmp", "mode=1777"), mount(HARDENED_HOME, &owner)]
}

/// Returns where the engine keeps what the container prints: little where the spool is the record, and all of it
/// where it may be needed to fill a gap.
///
/// Everything is said, because what is left out comes from the engine's configuration.
fn log_driver(transport: Transport) -> LogDriver {
    let (size, files) = match transport {
        Transport::Spool => ("8m", "2"),
        // The driver refuses to be told that there is no limit.
        Transport::Attach => ("1000t", "1"),
    };
    let options = [
        ("max-size", size),
        ("max-file", files),
        ("compress", "false"),
    ];
    LogDriver {
        name: "json-file".to_owned(),
        options: options
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
    }
}

/// What the engine puts around the container of [`launch_opts`], for people.
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

/// A launch spec of which no create request can be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum LowerError {
    /// The options say something that cannot be asked for.
    #[error(transparent)]
    Opts(#[from] LaunchError),
    /// A path of ours cannot be written in a request.
    #[error("the path {0:?} is not UTF-8")]
    Encoding(PathBuf),
    /// There is nothing to run.
    #[error("the image has no command and none was given")]
    NoCommand,
}

/// Returns the create request for an attempt: the options', then what is mounted of ours, then the helper around it.
///
/// `image` is the image's own configuration.
pub(super) fn request(
    spec: &LaunchSpec,
    owner: &OwnerId,
    dir: &AttemptDir,
    host: &HostView,
    image: &ImageConfig,
) -> Result<ContainerCreateBody, LowerError> {
    let opts = launch_opts(spec, dir.attempt(), owner, host);
    let mut body = create_body(&opts, host)?.body;
    if spec.project.is_empty()
        && let Some(labels) = &mut body.labels
    {
        // It takes no slot of the pool that is shared with the seed.
        labels.remove(LABEL_PROJECT);
    }
    body.host_config.get_or_insert_default().mounts = Some(mounts(spec, dir)?);
    if EgressDemand::is_needed(spec) {
        let own = body.env.get_or_insert_default();
        own.extend(egress_env(spec, dir.attempt()));
    }
    if spec.network != NetworkMode::Open {
        // The isolation of network mode `none` in about half the time: the engine then sets up no network at all.
        body.network_disabled = Some(true);
    }
    let argv = argv(&body, image);
    if argv.is_empty() {
        return Err(LowerError::NoCommand);
    }
    if spec.transport == Transport::Spool {
        body.entrypoint = Some(helper(spec, dir.attempt()));
        body.cmd = Some(argv);
    }
    Ok(body)
}

/// Returns what is mounted of ours, read-only; these mounts fail if their source is missing, and know any path.
fn mounts(spec: &LaunchSpec, dir: &AttemptDir) -> Result<Vec<Mount>, LowerError> {
    let mount = |source: &Path, target: &str| -> Result<Mount, LowerError> {
        let path = source
            .to_str()
            .ok_or_else(|| LowerError::Encoding(source.to_owned()))?;
        Ok(Mount {
            typ: Some(MountType::BIND),
            source: Some(path.to_owned()),
            target: Some(target.to_owned()),
            read_only: Some(true),
            ..Mount::default()
        })
    };
    mount_targets(spec)
        .map(|(target, source)| mount(&source.of(dir), target))
        .collect()
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
        (prompt, PROMPT_MOUNT_TARGET, OurSource::Prompt),
        (secrets, CONTAINER_SECRETS, OurSource::Secrets),
    ]
    .into_iter()
    .filter_map(|(is_there, target, source)| is_there.then_some((target, source)))
}

/// Returns what the engine would run: what the request says, else what the image says.
fn argv(body: &ContainerCreateBody, image: &ImageConfig) -> Vec<String> {
    let request = [&body.entrypoint, &body.cmd];
    let image = [&image.entrypoint, &image.cmd];
    // An entrypoint of the request drops the image's command too.
    let [entrypoint, command] = match request {
        [Some(_), _] => request,
        [None, Some(_)] => [image[0], request[1]],
        [None, None] => image,
    };
    [entrypoint, command]
        .into_iter()
        .flatten()
        .flatten()
        .cloned()
        .collect()
}

/// Returns what tells programs of the only way out; what the user sets goes before it.
fn egress_env(spec: &LaunchSpec, attempt: AttemptId) -> Vec<String> {
    let token = token_env(spec, attempt).into_iter();
    let token = token.map(|(name, value)| format!("{name}={value}"));
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
        .map(|(name, value)| format!("{name}={value}"))
        .chain(token)
        .collect()
}

/// Returns the helper's command line, up to the agent's argv.
///
/// The prompt is the agent's stdin, except for the seed's image: its entrypoint looks for the prompt elsewhere, and
/// an agent that finds it on stdin too would read it twice.
fn helper(spec: &LaunchSpec, attempt: AttemptId) -> Vec<String> {
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

#[cfg(test)]
#[path = "lower_tests.rs"]
mod tests;
