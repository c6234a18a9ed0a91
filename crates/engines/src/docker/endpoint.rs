//! Where the engine is.
//!
//! Owns: which endpoints we can use, and which one is meant.
//! Reads: a flag and the environment, as the caller passes them in.
//! Never: contacts anything.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use dark_factory_executor::engine::EngineError;

/// The environment variable that names the endpoint.
const HOST_ENV: &str = "DOCKER_HOST";
/// The environment variable that asks for TLS.
const TLS_ENV: &str = "DOCKER_TLS_VERIFY";
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// Docker's port without TLS, where the endpoint names none.
const DEFAULT_PORT: u16 = 2375;

/// Where a Docker engine is: a Unix socket, or a host and port without TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerEndpoint(pub(super) Address);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// Absolute path of a Unix socket.
    Unix(String),
    /// Host and port.
    Tcp(String),
}

impl DockerEndpoint {
    /// Returns the endpoint that `flag` names, else `DOCKER_HOST` in `env`, else the default socket.
    ///
    /// An empty flag or variable is as if it were not there. Contexts of the `docker` command are not read.
    ///
    /// # Errors
    ///
    /// [`EngineError::Unsupported`] for anything but `unix:///PATH`, `tcp://HOST[:PORT]` and
    /// `http://HOST[:PORT]`, and for TCP while `DOCKER_TLS_VERIFY` asks for TLS.
    pub fn resolve(
        flag: Option<&str>,
        env: &BTreeMap<String, String>,
    ) -> Result<Self, EngineError> {
        let flag = flag.filter(|flag| !flag.is_empty());
        let Some(text) = flag.or_else(|| set(env, HOST_ENV)) else {
            return Ok(Self(Address::Unix(DEFAULT_SOCKET.to_owned())));
        };
        let unsupported = |reason: &str| EngineError::Unsupported {
            endpoint: text.to_owned(),
            reason: reason.to_owned(),
        };
        match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => {
                Ok(Self(Address::Unix(path.to_owned())))
            }
            Some(("unix", _)) => Err(unsupported(
                "a socket is named by its absolute path: unix:///PATH",
            )),
            Some(("tcp" | "http", _)) if set(env, TLS_ENV).is_some() => Err(unsupported(
                "DOCKER_TLS_VERIFY is set, and only connections without TLS are known",
            )),
            Some(("tcp" | "http", authority)) => host_and_port(authority)
                .map(|address| Self(Address::Tcp(address)))
                .ok_or_else(|| unsupported("write it as tcp://HOST:PORT")),
            _ => Err(unsupported("write it as unix:///PATH or tcp://HOST:PORT")),
        }
    }

    /// Returns the Unix socket, if it is one.
    pub fn socket(&self) -> Option<PathBuf> {
        match &self.0 {
            Address::Unix(path) => Some(PathBuf::from(path)),
            Address::Tcp(_) => None,
        }
    }
}

/// Returns a variable's value, unless it is empty.
fn set<'a>(env: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    let value = env.get(name).map(String::as_str);
    value.filter(|value| !value.is_empty())
}

impl fmt::Display for DockerEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Address::Unix(path) => write!(f, "unix://{path}"),
            Address::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

fn host_and_port(authority: &str) -> Option<String> {
    let authority = authority.trim_end_matches('/');
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_:[]%".contains(c);
    if authority.is_empty() || !authority.chars().all(is_plain) {
        return None;
    }
    // The last colon of a bracketed IPv6 address belongs to the address.
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let port: u16 = port.parse().ok()?;
            (!host.is_empty()).then(|| format!("{host}:{port}"))
        }
        _ => Some(format!("{authority}:{DEFAULT_PORT}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(flag: Option<&str>, env: &[(&str, &str)]) -> Result<String, String> {
        let env = env
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        match DockerEndpoint::resolve(flag, &env) {
            Ok(endpoint) => Ok(endpoint.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_flag_beats_the_variable_and_the_variable_the_default() {
        let env = [("DOCKER_HOST", "unix:///run/other.sock")];

        assert_eq!(resolve(Some("tcp://a:1"), &env).unwrap(), "tcp://a:1");
        assert_eq!(resolve(None, &env).unwrap(), "unix:///run/other.sock");
        assert_eq!(resolve(Some(""), &env).unwrap(), "unix:///run/other.sock");
        assert_eq!(
            resolve(None, &[("DOCKER_HOST", "")]).unwrap(),
            "unix:///var/run/docker.sock"
        );
        assert_eq!(resolve(None, &[]).unwrap(), "unix:///var/run/docker.sock");
    }

    #[test]
    fn a_port_that_is_left_out_is_dockers() {
        for (text, endpoint) in [
            ("tcp://a", "tcp://a:2375"),
            ("http://a:80/", "tcp://a:80"),
            ("tcp://[::1]", "tcp://[::1]:2375"),
            ("tcp://[::1]:99", "tcp://[::1]:99"),
        ] {
            assert_eq!(resolve(Some(text), &[]).unwrap(), endpoint);
        }
    }

    #[test]
    fn an_endpoint_that_we_cannot_use_is_refused_by_name() {
        for text in [
            "ssh://user@host",
            "npipe:////./pipe/docker_engine",
            "https://a:2376",
            "/var/run/docker.sock",
            "unix://run/docker.sock",
            "tcp://",
            "tcp://:2375",
            "tcp://a:b",
            "tcp://a/path",
        ] {
            assert!(
                resolve(Some(text), &[]).unwrap_err().contains(text),
                "{text}"
            );
        }
    }

    #[test]
    fn tcp_is_refused_where_the_environment_asks_for_tls() {
        let env = [("DOCKER_TLS_VERIFY", "1"), ("DOCKER_HOST", "tcp://a:2376")];

        assert!(resolve(None, &env).unwrap_err().contains("TLS"));
        assert!(resolve(Some("unix:///s"), &env).is_ok());
    }
}
