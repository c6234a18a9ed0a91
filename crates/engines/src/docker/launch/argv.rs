//! The launch options as a `docker run` command line.
//!
//! Owns: which flag stands where.
//! Reads: the options and the host.
//! Never: refuses anything, quotes anything, or runs the command.

use dark_factory_executor::host::HostView;
use dark_factory_executor::spec::Access;

use super::mounts::{GitCover, Mounts, SkippedMount, Volume};
use super::opts::{ContainerLaunchOpts, HOST_GATEWAY, NetworkDemand, Privileges, RootFilesystem};

/// Where the prompt's file is in a container of the seed's image.
pub const PROMPT_MOUNT_TARGET: &str = crate::wrapping::SEED_PROMPT;

/// The arguments of `docker`, the first of which is `run`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchArgs {
    /// One element for each argument; no shell ever reads them.
    pub argv: Vec<String>,
    /// Mounts that were left out.
    pub skipped_mounts: Vec<SkippedMount>,
}

/// Returns the `docker run` arguments for `opts`; the seed's `BuildDockerRunArgs`.
///
/// With the seed's fields only, they are the seed's arguments, byte for byte: `run --rm --name`, the project's label,
/// the host gateway, user and limits, labels, capabilities, environment, mounts, the cover of `.git`, then
/// `--entrypoint`, the image and the command. Our own fields stand together before `--entrypoint`, in the order of
/// their declaration in [`ContainerLaunchOpts`]. A mount whose source is missing is left out, as the seed does. A bind
/// source that is not UTF-8 is shown with replacement characters; [`create_body`](super::create_body) refuses it.
pub fn build_docker_run_args(opts: &ContainerLaunchOpts, host: &HostView) -> LaunchArgs {
    let mounts = Mounts::resolve(opts, host);
    let mut args = Args::default();
    push_seed(&mut args, opts);
    for volume in &mounts.volumes {
        args.flag("-v", volume.spec());
    }
    match &mounts.git_cover {
        Some(GitCover::Folder(path, options)) => args.flag("--tmpfs", format!("{path}:{options}")),
        Some(GitCover::File(volume)) => args.flag("-v", volume.spec()),
        None => {}
    }
    push_own(&mut args, opts);
    args.flag_if_set("--entrypoint", &opts.entrypoint);
    args.word(&opts.container_image);
    args.0.extend_from_slice(&opts.command);
    LaunchArgs {
        argv: args.0,
        skipped_mounts: mounts.skipped,
    }
}

/// Returns `argv` with the prompt's file mounted at [`PROMPT_MOUNT_TARGET`], read-only.
///
/// The seed's rule: the mount stands before the first argument that equals `image`, wherever that is, and is left out
/// if there is none.
pub fn insert_prompt_mount(argv: &[String], prompt_file: &str, image: &str) -> Vec<String> {
    let mut argv = argv.to_vec();
    if let Some(position) = argv.iter().position(|argument| argument == image) {
        let mount = Volume {
            source: prompt_file.to_owned(),
            target: PROMPT_MOUNT_TARGET.to_owned(),
            access: Access::ReadOnly,
        };
        argv.splice(position..position, ["-v".to_owned(), mount.spec()]);
    }
    argv
}

fn push_seed(args: &mut Args, opts: &ContainerLaunchOpts) {
    args.word("run");
    args.word("--rm");
    args.flag("--name", opts.container_name.as_str());
    args.flag("--label", opts.project_label());
    if opts.network == NetworkDemand::EngineDefault {
        args.word(format!("--add-host={HOST_GATEWAY}"));
    }
    args.flag_if_set("--user", &opts.run_as_user);
    args.flag_if_set("--memory", &opts.memory_limit);
    args.flag_if_set("--cpus", &opts.cpu_limit);
    if opts.pids_limit > 0 {
        args.flag("--pids-limit", opts.pids_limit.to_string());
    }
    for (name, most) in &opts.ulimits {
        args.flag("--ulimit", format!("{name}={most}:{most}"));
    }
    for label in opts.extra_label_pairs() {
        args.flag("--label", label);
    }
    for capability in &opts.cap_add {
        args.word(format!("--cap-add={capability}"));
    }
    for pair in opts.env_pairs() {
        args.flag("-e", pair);
    }
}

fn push_own(args: &mut Args, opts: &ContainerLaunchOpts) {
    for bind in &opts.binds {
        let volume = Volume {
            source: bind.source.to_string_lossy().into_owned(),
            target: bind.target.clone(),
            access: bind.access,
        };
        args.flag("-v", volume.spec());
    }
    args.flag_if_set("--workdir", &opts.workdir);
    if opts.network == NetworkDemand::Disabled {
        args.flag("--network", "none");
    }
    for host in &opts.extra_hosts {
        args.flag("--add-host", host.as_str());
    }
    if let Some(size) = opts.memory_swap {
        args.flag("--memory-swap", size.0.to_string());
    }
    for capability in &opts.cap_drop {
        args.flag("--cap-drop", capability.as_str());
    }
    if opts.privileges == Privileges::NoNew {
        args.flag("--security-opt", "no-new-privileges");
    }
    if opts.root_filesystem == RootFilesystem::ReadOnly {
        args.word("--read-only");
    }
    for mount in &opts.tmpfs {
        match mount.options.as_str() {
            "" => args.flag("--tmpfs", mount.path.as_str()),
            options => args.flag("--tmpfs", format!("{}:{options}", mount.path)),
        }
    }
    args.flag_if_set("--stop-signal", &opts.stop_signal);
    if let Some(seconds) = opts.stop_timeout_seconds() {
        args.flag("--stop-timeout", seconds.to_string());
    }
    if let Some(log) = &opts.log {
        args.flag("--log-driver", log.name.as_str());
        for (key, value) in &log.options {
            args.flag("--log-opt", format!("{key}={value}"));
        }
    }
}

#[derive(Debug, Default)]
struct Args(Vec<String>);

impl Args {
    fn word(&mut self, word: impl Into<String>) {
        self.0.push(word.into());
    }

    fn flag(&mut self, name: &str, value: impl Into<String>) {
        self.0.extend([name.to_owned(), value.into()]);
    }

    fn flag_if_set(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.flag(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use dark_factory_types::ByteSize;

    use super::super::opts::{Bind, LogDriver, TmpfsMount};
    use super::*;

    fn base() -> ContainerLaunchOpts {
        ContainerLaunchOpts {
            container_name: "n".to_owned(),
            container_image: "img:1".to_owned(),
            project_name: "p".to_owned(),
            ..ContainerLaunchOpts::default()
        }
    }

    fn line(opts: &ContainerLaunchOpts) -> String {
        build_docker_run_args(opts, &HostView::default())
            .argv
            .join(" ")
    }

    #[test]
    fn our_fields_stand_together_before_the_entrypoint() {
        let opts = ContainerLaunchOpts {
            entrypoint: "/e".to_owned(),
            project_root: "/r".to_owned(),
            binds: vec![
                Bind {
                    source: "/w".into(),
                    target: "/work".to_owned(),
                    access: Access::ReadWrite,
                },
                Bind {
                    source: "/a".into(),
                    target: "/attempt".to_owned(),
                    access: Access::ReadOnly,
                },
            ],
            workdir: "/work".to_owned(),
            extra_hosts: vec!["db:10.0.0.1".to_owned()],
            memory_swap: Some(ByteSize(8 << 30)),
            cap_drop: vec!["ALL".to_owned()],
            privileges: Privileges::NoNew,
            root_filesystem: RootFilesystem::ReadOnly,
            tmpfs: vec![
                TmpfsMount {
                    path: "/tmp".to_owned(),
                    options: "size=64m".to_owned(),
                },
                TmpfsMount {
                    path: "/run".to_owned(),
                    options: String::new(),
                },
            ],
            stop_signal: "SIGINT".to_owned(),
            stop_timeout: Some(Duration::from_millis(1500)),
            log: Some(LogDriver {
                name: "local".to_owned(),
                options: BTreeMap::from([("max-size".to_owned(), "10m".to_owned())]),
            }),
            ..base()
        };

        assert_eq!(
            line(&opts),
            "run --rm --name n --label dark-factory.project=p --add-host=host.docker.internal:host-gateway \
             -e DARK_FACTORY_MANAGED=true -v /r:/workspace -v /w:/work -v /a:/attempt:ro --workdir /work \
             --add-host db:10.0.0.1 --memory-swap 8589934592 --cap-drop ALL --security-opt no-new-privileges \
             --read-only --tmpfs /tmp:size=64m --tmpfs /run --stop-signal SIGINT --stop-timeout 2 \
             --log-driver local --log-opt max-size=10m --entrypoint /e img:1"
        );
    }

    #[test]
    fn a_disabled_network_leaves_the_host_gateway_out_and_nothing_else() {
        let opts = ContainerLaunchOpts {
            network: NetworkDemand::Disabled,
            ..base()
        };

        assert_eq!(
            line(&opts),
            "run --rm --name n --label dark-factory.project=p -e DARK_FACTORY_MANAGED=true --network none img:1"
        );
    }
}
