//! The guard: what a run may reach beyond its container, and the proxy that keeps it to that.
//!
//! Owns: the decision about each request, the connections to the outside, the keys of providers, the record of all that.
//! Reads: a run's rules, the system's resolver.
//! Never: knows an engine, a store or a container; sees inside of a run's TLS; shows a run a key.
//!
//! In reading order: a run's [`EgressRule`](dark_factory_types::EgressRule)s make an [`EgressPolicy`]. A [`Proxy`]
//! serves the run's socket: each request names a [`Target`], which the policy admits or not; its name is resolved once
//! by a [`Resolve`], and the policy chooses among the addresses. What came of it is an [`Entry`] in a [`Journal`].
//! Requests to the proxy itself are for a [`Broker`], and counted against the way's budget. The guard's process is a
//! [`Service`]: it keeps the [`Way`] out of each run, and supervisors talk to it through a [`Client`].

pub mod address;
mod broker;
mod client;
mod control;
mod counted;
mod file_journal;
mod journal;
mod policy;
mod proxy;
mod resolve;
mod service;
mod summary;

pub use broker::{CLAUDE_TOKEN_ENDPOINT, Upstreams};
pub use client::Client;
pub use control::{
    Answer, Ask, Broker, CONTROL_SOCKET, Certificates, EGRESS_SOCKET, Key, LOCK, Secret, Way,
};
pub use file_journal::Now;
pub use journal::{Ending, Entry, Fate, Journal};
pub use policy::{Denial, EgressPolicy, Target};
pub use proxy::{Proxy, ProxyLimits};
pub use resolve::{Addresses, Resolve, SystemResolver};
pub use service::{ServeError, Served, Service};
pub use summary::summarise;
