//! The broker: a run asks providers without having their keys.
//!
//! Owns: nothing by itself; its parts do.
//! Reads: requests to the proxy itself, whose path begins with a provider's name.
//! Never: shows a key to the run, or passes on what it cannot write down.

mod desk;
mod error;
mod headers;
mod login;
mod meter;
mod route;
mod scan;
mod tap;
mod upstream;
mod usage;

pub(crate) use desk::Desk;
pub(crate) use login::Logins;
pub(crate) use meter::Meter;
pub(crate) use route::route;
pub(crate) use tap::Drain;
pub(crate) use upstream::Dialer;
pub use upstream::{CLAUDE_TOKEN_ENDPOINT, Upstreams};
