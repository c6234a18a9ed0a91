//! Runs one prompt file in a container to one outcome.
//!
//! Owns: the path from a prompt file to a report: parsing, resolving, the engine contract, the state store,
//! supervision, recovery.
//! Reads: what the caller passes in; the state folder.
//! Never: talks to a particular engine, prints, or reads the environment.
//!
//! # In reading order
//!
//! Pure, up to the launch spec:
//!
//! - [`prompt`]: the user's file, as [`Prompt`](prompt::Prompt); [`settings`]: what its front matter and flags say;
//!   [`host`]: what may be seen of the machine;
//! - [`resolve`]: all of that to a [`LaunchSpec`](spec::LaunchSpec), or to an error that names the line.
//!
//! One attempt:
//!
//! - [`engine`]: the contract, [`Engine`](engine::Engine) and [`Workload`](engine::Workload);
//! - [`spool`]: the record of what the agent printed; [`sink`]: where it goes from there;
//! - [`attempt`]: how one is driven to its [`Report`](dark_factory_types::Report), and
//!   [`Control`](attempt::Control), which stops it;
//! - [`store`] and [`state_dir`]: what is kept; [`lease`]: who may work on it.
//!
//! All of them:
//!
//! - [`supervisor`]: [`Supervisor`](supervisor::Supervisor) submits, runs, recovers, stops; begin here to embed it;
//! - [`daemon`]: the same in the background;
//! - [`execute`] and [`containers`]: the seed's narrow views on it; [`clock`]: time, passed in; [`error`]: what a
//!   person is told.

pub mod attempt;
pub mod clock;
pub mod config;
pub mod containers;
pub mod daemon;
pub mod doctor;
pub mod egress;
pub mod engine;
pub mod error;
pub mod execute;
pub mod failpoint;
pub mod host;
mod kept_prompt;
pub mod keys;
pub mod lease;
pub mod mount_source;
pub mod nudge;
mod plain_file;
pub mod prompt;
mod readable;
pub mod recorder;
pub mod report_md;
pub mod resolve;
pub mod settings;
pub mod sink;
pub mod spec;
pub mod spool;
pub mod state_dir;
pub mod store;
pub mod supervisor;
