//! The embedded sandbox: an engine that needs no daemon, no root and no registry, of Linux namespaces alone.
//!
//! Owns: one folder for each sandbox, and the shim process that lives as long as it.
//! Reads: launch specs.
//! Never: decides an outcome.

mod agent_image;
pub mod config;
mod engine;
mod exec;
mod folder;
mod image_archive;
mod image_list;
mod image_store;
mod images;
mod layer;
mod limits;
mod lower;
mod pausing;
mod probe;
mod process;
mod reopen;
mod shim;
mod shim_command;
mod tries;
mod unpack;
mod usage;
mod workload;

pub use crate::wrapping::{Wrapping, wrapping};
pub use agent_image::SandboxImages;
pub use engine::SandboxEngine;
pub use shim::shim_main;
pub use shim_command::ShimCommand;
