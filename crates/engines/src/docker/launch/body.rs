//! The launch options as a create request of the Docker API.
//!
//! Owns: the checks that Docker's own command line would make, and the shape of the request.
//! Reads: the options and the host.
//! Never: sends the request, or gives the engine a choice that the options made.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum,
};
use dark_factory_executor::host::HostView;
use dark_factory_types::{ByteSize, CpuCount, QuantityError};

use super::mounts::{GitCover, Mounts, SkippedMount, Volume};
use super::opts::{
    ContainerLaunchOpts, ENV_MANAGED_MARKER, HOST_GATEWAY, NetworkDemand, Privileges,
    RootFilesystem,
};

/// A create request, without the container's name, which is not part of it.
///
/// Values of its environment may be secrets: do not log this.
#[derive(Debug, Clone, PartialEq)]
pub struct LaunchBody {
    /// The request.
    pub body: ContainerCreateBody,
    /// Mounts that were left out.
    pub skipped_mounts: Vec<SkippedMount>,
}

/// Launch options that make no container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// No image was named.
    #[error("no container image is set")]
    NoImage,
    /// An environment variable has no name.
    #[error("an environment variable of the container has no name")]
    UnnamedVariable,
    /// A label has no name.
    #[error("a label of the container has no name")]
    UnnamedLabel,
    /// The memory limit is not a size.
    #[error("the memory limit of the container cannot be used")]
    MemoryLimit {
        /// What it is instead.
        source: QuantityError,
    },
    /// The limit of memory and swap is larger than the engine can count.
    #[error("the limit of memory and swap of the container is too large: {size}")]
    MemorySwap {
        /// The limit.
        size: ByteSize,
    },
    /// The CPU limit is not a number of CPUs.
    #[error("the CPU limit of the container cannot be used")]
    CpuLimit {
        /// What it is instead.
        source: QuantityError,
    },
    /// No capability has this name.
    #[error("{name:?} is not a Linux capability")]
    Capability {
        /// The name.
        name: String,
    },
    /// A mount's path contains a `:`, which separates source and target.
    #[error(
        "the mount of {mount_source:?} at {target:?} has a ':' in a path, which Docker cannot express"
    )]
    ColonInMount {
        /// The path on the host.
        mount_source: String,
        /// The path in the container.
        target: String,
    },
    /// A mount's path is not absolute.
    #[error("the mount of {mount_source:?} at {target:?} needs two absolute paths")]
    RelativeMount {
        /// The path on the host.
        mount_source: String,
        /// The path in the container.
        target: String,
    },
    /// A mount's source is not UTF-8, which the engine's API needs.
    #[error("the mount source {path:?} is not UTF-8")]
    MountEncoding {
        /// The path on the host.
        path: PathBuf,
    },
}

/// Returns the create request for the container that `docker run` makes of the same options.
///
/// The exceptions are listed at [the module](super). Values that the options leave open are sent as `docker` sends
/// them, or not at all where that means the same.
///
/// # Errors
///
/// [`LaunchError`] for options that no engine would take; see its variants.
pub fn create_body(opts: &ContainerLaunchOpts, host: &HostView) -> Result<LaunchBody, LaunchError> {
    if opts.container_image.is_empty() {
        return Err(LaunchError::NoImage);
    }
    let mounts = Mounts::resolve(opts, host);
    let body = ContainerCreateBody {
        image: Some(opts.container_image.clone()),
        user: text(&opts.run_as_user),
        attach_stdin: Some(false),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(false),
        open_stdin: Some(false),
        env: Some(env(opts)?),
        entrypoint: text(&opts.entrypoint).map(|program| vec![program]),
        cmd: list(opts.command.clone()),
        working_dir: text(&opts.workdir),
        labels: Some(labels(opts)?),
        stop_signal: text(&opts.stop_signal),
        stop_timeout: opts
            .stop_timeout_seconds()
            .map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX)),
        host_config: Some(host_config(opts, &mounts)?),
        ..ContainerCreateBody::default()
    };
    Ok(LaunchBody {
        body,
        skipped_mounts: mounts.skipped,
    })
}

fn host_config(opts: &ContainerLaunchOpts, mounts: &Mounts) -> Result<HostConfig, LaunchError> {
    Ok(HostConfig {
        binds: list(binds(opts, mounts)?),
        tmpfs: tmpfs(opts, mounts),
        cap_add: list(capabilities(&opts.cap_add)?),
        cap_drop: list(capabilities(&opts.cap_drop)?),
        extra_hosts: list(extra_hosts(opts)),
        memory: memory(&opts.memory_limit)?,
        memory_swap: memory_swap(opts.memory_swap)?,
        nano_cpus: nano_cpus(&opts.cpu_limit)?,
        pids_limit: (opts.pids_limit > 0).then_some(opts.pids_limit),
        ulimits: list(opts.ulimits.iter().map(ulimit).collect()),
        security_opt: match opts.privileges {
            Privileges::Default => None,
            Privileges::NoNew => Some(vec!["no-new-privileges".to_owned()]),
        },
        readonly_rootfs: Some(opts.root_filesystem == RootFilesystem::ReadOnly),
        log_config: opts.log.as_ref().map(|log| HostConfigLogConfig {
            typ: Some(log.name.clone()),
            config: Some(log.options.clone().into_iter().collect()),
        }),
        // `NetworkDisabled` would do the same and has no flag; the mode is what both renderers can say.
        network_mode: Some(
            match opts.network {
                NetworkDemand::EngineDefault => "default",
                NetworkDemand::Disabled => "none",
            }
            .to_owned(),
        ),
        init: Some(false),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        ..HostConfig::default()
    })
}

fn ulimit((name, most): (&String, &u64)) -> ResourcesUlimits {
    let most = i64::try_from(*most).unwrap_or(i64::MAX);
    ResourcesUlimits {
        name: Some(name.clone()),
        soft: Some(most),
        hard: Some(most),
    }
}

fn env(opts: &ContainerLaunchOpts) -> Result<Vec<String>, LaunchError> {
    let mut env = by_name(opts.env_pairs()).ok_or(LaunchError::UnnamedVariable)?;
    // A key such as `DARK_FACTORY_MANAGED=x` would name the marker once more, behind it.
    env.insert(ENV_MANAGED_MARKER.to_owned(), "true".to_owned());
    Ok(env
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect())
}

fn labels(opts: &ContainerLaunchOpts) -> Result<HashMap<String, String>, LaunchError> {
    let pairs = std::iter::once(opts.project_label()).chain(opts.extra_label_pairs());
    let labels = by_name(pairs).ok_or(LaunchError::UnnamedLabel)?;
    Ok(labels.into_iter().collect())
}

/// Reads `name=value` as the command line does: a name ends at the first `=`, the last value of a name wins.
///
/// Returns `None` if there is an empty name.
fn by_name(pairs: impl IntoIterator<Item = String>) -> Option<BTreeMap<String, String>> {
    let named = |pair: String| match pair.split_once('=') {
        Some((name, value)) if !name.is_empty() => Some((name.to_owned(), value.to_owned())),
        _ => None,
    };
    pairs.into_iter().map(named).collect()
}

fn binds(opts: &ContainerLaunchOpts, mounts: &Mounts) -> Result<Vec<String>, LaunchError> {
    let cover = mounts.git_cover.as_ref().and_then(|cover| match cover {
        GitCover::File(volume) => Some(volume),
        GitCover::Folder(..) => None,
    });
    let mut specs = mounts
        .volumes
        .iter()
        .chain(cover)
        .map(bind_spec)
        .collect::<Result<Vec<_>, _>>()?;
    for bind in &opts.binds {
        let source = bind
            .source
            .to_str()
            .ok_or_else(|| LaunchError::MountEncoding {
                path: bind.source.clone(),
            })?;
        specs.push(bind_spec(&Volume {
            source: source.to_owned(),
            target: bind.target.clone(),
            access: bind.access,
        })?);
    }
    Ok(specs)
}

fn bind_spec(volume: &Volume) -> Result<String, LaunchError> {
    let paths = [&volume.source, &volume.target];
    let (mount_source, target) = (volume.source.clone(), volume.target.clone());
    if paths.iter().any(|path| path.contains(':')) {
        Err(LaunchError::ColonInMount {
            mount_source,
            target,
        })
    } else if paths.iter().any(|path| !path.starts_with('/')) {
        Err(LaunchError::RelativeMount {
            mount_source,
            target,
        })
    } else {
        Ok(volume.spec())
    }
}

fn tmpfs(opts: &ContainerLaunchOpts, mounts: &Mounts) -> Option<HashMap<String, String>> {
    let mut tmpfs = HashMap::new();
    if let Some(GitCover::Folder(path, options)) = &mounts.git_cover {
        tmpfs.insert((*path).to_owned(), (*options).to_owned());
    }
    for mount in &opts.tmpfs {
        tmpfs.insert(mount.path.clone(), mount.options.clone());
    }
    (!tmpfs.is_empty()).then_some(tmpfs)
}

fn extra_hosts(opts: &ContainerLaunchOpts) -> Vec<String> {
    let gateway = match opts.network {
        NetworkDemand::EngineDefault => Some(HOST_GATEWAY.to_owned()),
        NetworkDemand::Disabled => None,
    };
    gateway
        .into_iter()
        .chain(opts.extra_hosts.iter().cloned())
        .collect()
}

fn memory(limit: &str) -> Result<Option<i64>, LaunchError> {
    if limit.is_empty() {
        return Ok(None);
    }
    let size: ByteSize = limit
        .parse()
        .map_err(|source| LaunchError::MemoryLimit { source })?;
    Ok(i64::try_from(size.0).ok())
}

fn memory_swap(limit: Option<ByteSize>) -> Result<Option<i64>, LaunchError> {
    limit
        .map(|size| i64::try_from(size.0).map_err(|_| LaunchError::MemorySwap { size }))
        .transpose()
}

fn nano_cpus(limit: &str) -> Result<Option<i64>, LaunchError> {
    // To Docker, zero CPUs are no limit.
    let is_zero = limit.contains('0') && limit.bytes().all(|b| matches!(b, b'0' | b'.'));
    if limit.is_empty() || is_zero {
        return Ok(None);
    }
    let cpus: CpuCount = limit
        .parse()
        .map_err(|source| LaunchError::CpuLimit { source })?;
    Ok(i64::try_from(cpus.nanos).ok())
}

/// Returns the capabilities by their full names, sorted, each once, as `docker` sends them.
fn capabilities(names: &[String]) -> Result<Vec<String>, LaunchError> {
    let full_name = |name: &String| {
        let upper = name.to_ascii_uppercase();
        match upper.strip_prefix("CAP_").unwrap_or(&upper) {
            "ALL" => Ok("ALL".to_owned()),
            short if CAPABILITIES.contains(&short) => Ok(format!("CAP_{short}")),
            _ => Err(LaunchError::Capability { name: name.clone() }),
        }
    };
    let full_names: BTreeSet<String> = names.iter().map(full_name).collect::<Result<_, _>>()?;
    Ok(full_names.into_iter().collect())
}

fn text(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

fn list<T>(values: Vec<T>) -> Option<Vec<T>> {
    (!values.is_empty()).then_some(values)
}

/// The capabilities of Linux 5.9 and later, without their prefix.
const CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

#[cfg(test)]
mod tests {
    use dark_factory_executor::spec::Access;

    use super::super::opts::Bind;
    use super::*;

    fn base() -> ContainerLaunchOpts {
        ContainerLaunchOpts {
            container_image: "img:1".to_owned(),
            ..ContainerLaunchOpts::default()
        }
    }

    fn refusal(opts: &ContainerLaunchOpts) -> String {
        let error = create_body(opts, &HostView::default()).unwrap_err();
        match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        }
    }

    fn bind(source: &str, target: &str) -> ContainerLaunchOpts {
        ContainerLaunchOpts {
            binds: vec![Bind {
                source: source.into(),
                target: target.to_owned(),
                access: Access::ReadWrite,
            }],
            ..base()
        }
    }

    #[test]
    fn a_limit_that_is_no_quantity_is_refused_with_its_text() {
        let memory = ContainerLaunchOpts {
            memory_limit: "8x".to_owned(),
            ..base()
        };
        let cpus = ContainerLaunchOpts {
            cpu_limit: "four".to_owned(),
            ..base()
        };

        assert!(refusal(&memory).contains("memory limit"));
        assert!(refusal(&memory).contains("\"8x\""));
        assert!(refusal(&cpus).contains("\"four\""));
    }

    #[test]
    fn zero_cpus_are_no_limit_and_a_lone_point_is_refused() {
        assert_eq!(nano_cpus("0").unwrap(), None);
        assert_eq!(nano_cpus("0.00").unwrap(), None);
        assert_eq!(nano_cpus("1.5").unwrap(), Some(1_500_000_000));
        assert!(nano_cpus(".").is_err());
    }

    #[test]
    fn capabilities_are_known_by_every_spelling_and_kept_once() {
        let names = ["net_admin", "CAP_NET_ADMIN", "NET_RAW", "all"].map(str::to_owned);

        assert_eq!(
            capabilities(&names).unwrap(),
            ["ALL", "CAP_NET_ADMIN", "CAP_NET_RAW"]
        );
        for name in ["", "CAP_", "NET", "ROOT"] {
            assert!(capabilities(&[name.to_owned()]).is_err(), "{name}");
        }
    }

    #[test]
    fn a_mount_that_binds_cannot_express_is_refused() {
        assert!(refusal(&bind("/a:b", "/c")).contains("':'"));
        assert!(refusal(&bind("/a", "/c:ro")).contains("':'"));
        assert!(refusal(&bind("a", "/c")).contains("absolute"));
        assert!(refusal(&bind("/a", "")).contains("absolute"));
    }

    #[test]
    fn names_that_the_command_line_needs_are_needed_here_too() {
        let unnamed = BTreeMap::from([(String::new(), "v".to_owned())]);
        let variable = ContainerLaunchOpts {
            env: unnamed.clone(),
            ..base()
        };
        let label = ContainerLaunchOpts {
            extra_labels: unnamed,
            ..base()
        };

        assert!(refusal(&variable).contains("variable"));
        assert!(refusal(&label).contains("label"));
        assert!(refusal(&ContainerLaunchOpts::default()).contains("image"));
    }

    #[test]
    fn no_key_of_the_environment_replaces_the_marker() {
        let opts = ContainerLaunchOpts {
            env: BTreeMap::from([("DARK_FACTORY_MANAGED=x".to_owned(), "y".to_owned())]),
            ..base()
        };

        let launch = create_body(&opts, &HostView::default()).unwrap();

        assert_eq!(launch.body.env.unwrap(), ["DARK_FACTORY_MANAGED=true"]);
    }

    #[test]
    fn a_container_is_never_removed_by_the_engine_and_never_gets_its_init() {
        let launch = create_body(&base(), &HostView::default()).unwrap();

        let host_config = launch.body.host_config.unwrap();
        assert_eq!(host_config.auto_remove, None);
        assert_eq!(host_config.init, Some(false));
    }
}
