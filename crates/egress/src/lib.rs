//! How whoever supervises runs starts the guard of their ways out, and gives it their keys.
//!
//! Owns: the guard's process as supervisors see it, and which program it is.
//! Reads: where keys and certificates are, through the host view that it is given; the journals that the guard writes.
//! Never: decides what may pass; see the `dark-factory-guard` crate.
//!
//! A [`Supervisor`](dark_factory_executor::supervisor::Supervisor) starts no agent whose network is a list of hosts, or
//! whose key stays outside, before its way out is open. [`GuardProcess`] opens it: hand one to `Supervisor::with_guard`,
//! or to the Docker executor's builder. There is one guard for a state folder, whoever starts it first; it is in a session
//! of its own, outlives who started it, and ends by itself once it has nothing to guard. Which program it is,
//! [`GuardProgram`] says: the `dark-factory` command, or this very program, whose `main` then begins with [`guard_main`].
//!
//! ```no_run
//! use std::path::Path;
//! use std::process::ExitCode;
//! use std::sync::Arc;
//!
//! use dark_factory_egress::{GuardProcess, GuardProgram, guard_main};
//! use dark_factory_executor::host::HostView;
//! use dark_factory_executor::keys::KeySources;
//! use dark_factory_executor::supervisor::Supervisor;
//!
//! fn main() -> ExitCode {
//!     if let Some(code) = guard_main(std::env::args_os().skip(1)) {
//!         return code;
//!     }
//!     // All that the program does otherwise.
//!     ExitCode::SUCCESS
//! }
//!
//! fn guarded(supervisor: Supervisor, state_dir: &Path, host: HostView) -> Supervisor {
//!     // Keys are looked for in the host view's environment, as `dark-factory run` does.
//!     let keys = KeySources::default();
//!     supervisor.with_guard(Arc::new(GuardProcess::new(state_dir, GuardProgram::this(), keys, host)))
//! }
//! ```

mod certificates;
mod keys;
mod process;
mod program;

pub use process::GuardProcess;
pub use program::{GUARD_ARG, GuardProgram, guard_main, serve};
