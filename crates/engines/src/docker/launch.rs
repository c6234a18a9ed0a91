//! What a container is launched with, and the two ways to say it to Docker.
//!
//! Owns: [`ContainerLaunchOpts`], the `docker run` command line and the create request made from it.
//! Reads: the host through a [`HostView`](dark_factory_executor::host::HostView) that the caller passes in.
//! Never: talks to an engine, reads the environment, or changes a file.
//!
//! The two renderers, [`build_docker_run_args`] and [`create_body`], describe the same container. Where they cannot
//! or must not, it is one of these exceptions:
//!
//! | | argv | create request | why |
//! |---|---|---|---|
//! | 1 | `--rm` | no `AutoRemove` | an engine that removes by itself takes the exit code with it |
//! | 2 | engine's default for `Init` | `Init` is false | docker-init as PID 1 would break the seal of the spool |
//! | 3 | `:` in a bind is written as it is | refused | the engine would split it elsewhere |
//! | 4 | a relative bind source is written as it is | refused | Docker would take it for a named volume |
//! | 5 | sizes, CPUs, capabilities, names are written as they are | checked | an error before anything is created |
//! | 6 | `docker` adds the proxies of its own configuration | does not | the options say what the container gets |

mod argv;
mod body;
mod mounts;
mod opts;

pub use argv::{LaunchArgs, PROMPT_MOUNT_TARGET, build_docker_run_args, insert_prompt_mount};
pub use body::{LaunchBody, LaunchError, create_body};
pub(super) use mounts::{CLAUDE_DIR_TARGET, GITCONFIG_TARGET, NETRC_TARGET};
pub use mounts::{SkipReason, SkippedMount};
pub use opts::{
    Bind, ContainerLaunchOpts, ENV_MANAGED_MARKER, HOST_GATEWAY, LogDriver, NetworkDemand,
    Privileges, RootFilesystem, TmpfsMount,
};
