//! The Docker Engine, and Podman through the same API; what differs is in `dialect`.
//!
//! Owns: everything that knows Docker's words.
//! Reads: launch specs and launch options.
//! Never: decides an outcome.

pub mod agent_image;
mod attach;
mod causes;
mod client;
mod container;
mod copier;
mod dialect;
mod endpoint;
mod engine;
mod exec;
mod hijack;
mod identity;
pub mod images;
pub mod launch;
mod listing;
mod logins;
mod lower;
mod memory;
mod ping;
mod probe;
mod question;
mod reopen;
pub mod seed;
mod tail;
mod usage;
mod workload;

pub use endpoint::{DockerEndpoint, command_configuration, usual_sockets};
pub use engine::DockerEngine;
pub use identity::EngineIdentity;
pub use lower::{Wrapping, launch_opts, wrapping};
pub use probe::Survey;
