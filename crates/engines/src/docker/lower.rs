//! From a launch spec to the request that creates its container.
//!
//! Owns: what each profile means in Docker's words, and the wrapping of the helper around it.
//! Reads: the launch spec; the host, for what hides `.git`.
//! Never: sends the request.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bollard::models::{ContainerCreateBody, ImageConfig, Mount, MountType};
use dark_factory_executor::host::HostView;
use dark_factory_executor::spec::{
    Access, AttemptDir, HARDENED_HOME, LABEL_PROJECT, LaunchSpec, Profile, User, WORKSPACE_TARGET,
};
use dark_factory_types::{AttemptId, NetworkMode, OwnerId, Transport};

use super::launch::{
    Bind, ContainerLaunchOpts, LaunchError, LogDriver, NetworkDemand, Privileges, RootFilesystem,
    TmpfsMount, create_body,
};
use crate::wrapping::{
    GitCover, TmpfsRoom, egress_env, git_cover, git_target, helper, labels, our_mounts, tmpfs_room,
};
pub use crate::wrapping::{Wrapping, wrapping};

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
    let (entrypoint, command) = match spec.command.split_first() {
        Some((program, arguments)) => (program.clone(), arguments.to_vec()),
        None => (String::new(), Vec::new()),
    };
    let common = ContainerLaunchOpts {
        container_name: spec.container_name(attempt),
        container_image: spec.image.clone(),
        project_name: spec.project.clone(),
        env: spec.env.clone(),
        extra_labels: labels(spec, attempt, owner),
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
    let target = git_target(workspace);
    match git_cover(workspace, host) {
        GitCover::None => {}
        GitCover::File => opts.binds.push(Bind {
            source: "/dev/null".into(),
            target,
            access: Access::ReadWrite,
        }),
        GitCover::Folder => opts.tmpfs.push(TmpfsMount {
            path: target,
            options: "rw,size=1k".to_owned(),
        }),
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
fn tmpfs(spec: &LaunchSpec) -> Vec<TmpfsMount> {
    let TmpfsRoom { size, files } = tmpfs_room(spec);
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
    let own = egress_env(spec, dir.attempt());
    if !own.is_empty() {
        let env = body.env.get_or_insert_default();
        env.extend(
            own.into_iter()
                .map(|(name, value)| format!("{name}={value}")),
        );
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
    our_mounts(spec, dir)
        .map(|(target, source)| mount(&source, target))
        .collect()
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

#[cfg(test)]
#[path = "lower_tests.rs"]
mod tests;
