//! The seed's API, kept by name: its executor, and its views on containers.
//!
//! Owns: the Docker twins of the seed's interfaces.
//! Reads: what the engine says of containers by name.
//! Never: is a second path: prompts go through `resolve` and the supervisor, stops through the workload.

mod builder;
mod containers;
mod executor;
mod found;

pub use builder::{BuildError, DockerExecutorBuilder};
pub use containers::{DockerContainerChecker, DockerContainerCounter, DockerContainerStopper};
pub use executor::DockerExecutor;
