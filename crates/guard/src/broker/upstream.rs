//! The connections to providers.
//!
//! Owns: what certificates are believed, and how long a provider may take to begin.
//! Reads: the system's certificates, or those that a run's supervisor names.
//! Never: follows a redirect.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use rustls_native_certs::{load_certs_from_paths, load_native_certs};

use crate::control::Certificates;
use crate::proxy::Body;

/// Where Claude's logins are refreshed.
pub const CLAUDE_TOKEN_ENDPOINT: &str = "https://platform.claude.com/v1/oauth/token";

/// How the guard gets to providers.
#[derive(Debug, Clone)]
pub struct Upstreams {
    /// Where Claude's logins are refreshed. Default: [`CLAUDE_TOKEN_ENDPOINT`].
    pub claude_token_endpoint: String,
    /// How long a connection may take. Default: 30 s.
    pub connect_time: Duration,
    /// How long a provider may take until its answer begins. Default: 15 min; models think.
    pub answer_time: Duration,
}

impl Default for Upstreams {
    fn default() -> Self {
        Self {
            claude_token_endpoint: CLAUDE_TOKEN_ENDPOINT.to_owned(),
            connect_time: Duration::from_secs(30),
            answer_time: Duration::from_secs(15 * 60),
        }
    }
}

/// An HTTP client of its own pool.
pub(crate) type HttpClient = Client<HttpsConnector<HttpConnector>, Body>;

/// Makes clients.
#[derive(Clone)]
pub(crate) struct Dialer {
    tls: ClientConfig,
    connect_time: Duration,
    pub(crate) answer_time: Duration,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").finish_non_exhaustive()
    }
}

impl Dialer {
    /// Reads the certificates.
    ///
    /// # Errors
    ///
    /// If there are none where they are to be.
    pub(crate) fn new(upstreams: &Upstreams, certificates: &Certificates) -> io::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots(certificates)?)
            .with_no_client_auth();
        Ok(Self {
            tls,
            connect_time: upstreams.connect_time,
            answer_time: upstreams.answer_time,
        })
    }

    /// Makes a client. Each run has its own, so that none gets what is left on a connection by another.
    pub(crate) fn client(&self) -> HttpClient {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(60)));
        tcp.set_connect_timeout(Some(self.connect_time));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(self.tls.clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .build(connector)
    }
}

fn roots(certificates: &Certificates) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if certificates.are_the_systems() {
        // Systems have some that are too old to be read.
        let (added, _ignored) = roots.add_parsable_certificates(load_native_certs().certs);
        if added == 0 {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        return Ok(roots);
    }
    let file = certificates.file.iter();
    let file = file.map(|file| (file, load_certs_from_paths(Some(file), None)));
    let folders = certificates.folders.iter();
    let folders = folders.map(|folder| (folder, load_certs_from_paths(None, Some(folder))));
    let mut places = Vec::new();
    for (place, found) in file.chain(folders) {
        roots.add_parsable_certificates(found.certs);
        let why = found.errors.first().map(|error| format!(" ({error})"));
        places.push(format!("{}{}", place.display(), why.unwrap_or_default()));
    }
    if roots.is_empty() {
        return Err(io::Error::other(format!(
            "no certificate to believe was found in {}",
            places.join(" or ")
        )));
    }
    Ok(roots)
}
