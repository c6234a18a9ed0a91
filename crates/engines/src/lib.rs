//! Container engines behind one contract.
//!
//! Owns: what an engine needs to know of its own wire protocol and flags.
//! Reads: resolved launch specs and options.
//! Never: decides an outcome, or reads the environment.
//!
//! [`docker`] has, in reading order: [`DockerEndpoint`](docker::DockerEndpoint) (where the engine is) and
//! [`DockerEngine`](docker::DockerEngine) (the contract, kept); [`launch_opts`](docker::launch_opts), from a launch spec
//! to [`ContainerLaunchOpts`](docker::launch::ContainerLaunchOpts), and the two ways to say them,
//! [`build_docker_run_args`](docker::launch::build_docker_run_args) and
//! [`create_body`](docker::launch::create_body); [`images`](docker::images); and [`seed`](docker::seed), the Go seed's
//! executor and its views on containers.

#[cfg(any(feature = "docker", all(feature = "sandbox", target_os = "linux")))]
pub mod agent_image;
#[cfg(feature = "docker")]
pub mod docker;
#[cfg(all(feature = "sandbox", target_os = "linux"))]
pub mod sandbox;
#[cfg(any(feature = "docker", all(feature = "sandbox", target_os = "linux")))]
mod wrapping;
