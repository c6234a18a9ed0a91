//! Finds the addresses of a name.
//!
//! Owns: the question to the system's resolver.
//! Reads: DNS and the hosts file, through the system.
//! Never: asks twice for one request, so that a second answer cannot lead elsewhere.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;

use dark_factory_types::HostName;

/// Addresses of a name, in the order in which they are to be tried.
pub type Addresses<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// Finds the addresses of names.
pub trait Resolve: fmt::Debug + Send + Sync {
    /// Returns the addresses of a name. Cancel-safe.
    ///
    /// # Errors
    ///
    /// If the name has none, or nobody can be asked.
    fn resolve<'a>(&'a self, name: &'a HostName) -> Addresses<'a>;
}

/// The resolver of the system that the guard runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a HostName) -> Addresses<'a> {
        Box::pin(async move {
            // The dot at the end keeps search domains of the host out of it.
            let absolute = format!("{name}.");
            let found = tokio::net::lookup_host((absolute.as_str(), 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}
