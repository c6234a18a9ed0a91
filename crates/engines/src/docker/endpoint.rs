//! Where the engine is.
//!
//! Owns: which endpoints we can use, and which one is meant.
//! Reads: a flag and the environment, as the caller passes them in.
//! Never: contacts anything.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use dark_factory_executor::engine::EngineError;
use dark_factory_executor::host::HostView;
use dark_factory_executor::settings::EngineChoice;

use super::dialect::Dialect;

/// The environment variable that names the endpoint.
const HOST_ENV: &str = "DOCKER_HOST";
/// The environment variable that asks for TLS.
const TLS_ENV: &str = "DOCKER_TLS_VERIFY";
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// Where Podman listens that belongs to the machine; below the folder of a user's session it is that user's.
const PODMAN_SOCKET: &str = "/run/podman/podman.sock";
const SESSION_ENV: &str = "XDG_RUNTIME_DIR";
/// Docker's port without TLS, where the endpoint names none.
const DEFAULT_PORT: u16 = 2375;

/// Where a Docker engine or Podman is: a Unix socket, or a host and port without TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerEndpoint {
    pub(super) address: Address,
    /// The engine that has to answer there, if it was named.
    pub(super) only: Option<Dialect>,
}

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
            return Ok(Self::at(Address::Unix(DEFAULT_SOCKET.to_owned())));
        };
        let unsupported = |reason: &str| EngineError::Unsupported {
            endpoint: text.to_owned(),
            reason: reason.to_owned(),
            advice: None,
        };
        match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => {
                Ok(Self::at(Address::Unix(path.to_owned())))
            }
            Some(("unix", _)) => Err(unsupported(
                "a socket is named by its absolute path: unix:///PATH",
            )),
            Some(("tcp" | "http", _)) if set(env, TLS_ENV).is_some() => Err(unsupported(
                "DOCKER_TLS_VERIFY is set, and only connections without TLS are known",
            )),
            Some(("tcp" | "http", authority)) => host_and_port(authority)
                .map(|address| Self::at(Address::Tcp(address)))
                .ok_or_else(|| unsupported("write it as tcp://HOST:PORT")),
            _ => Err(unsupported("write it as unix:///PATH or tcp://HOST:PORT")),
        }
    }

    /// Returns where the chosen engine is: where `named` says, else where that engine usually is.
    ///
    /// `listens` says whether anything can be expected at a socket. Left the choice, Docker comes first, and also where
    /// neither is there; a context of the `docker` command counts as naming Docker.
    ///
    /// # Errors
    ///
    /// As [`DockerEndpoint::resolve`]; and [`EngineError::Unsupported`] for a choice that is neither of the two.
    pub fn choose(
        choice: EngineChoice,
        named: Option<&str>,
        env: &BTreeMap<String, String>,
        listens: impl Fn(&Path) -> bool,
    ) -> Result<Self, EngineError> {
        let only = match choice {
            EngineChoice::Docker => Some(Dialect::Docker),
            EngineChoice::Podman => Some(Dialect::Podman),
            _ => None,
        };
        let first = |sockets: Vec<PathBuf>| sockets.into_iter().find(|socket| listens(socket));
        let socket = match (named, only) {
            (Some(named), _) => {
                return Ok(Self {
                    only,
                    ..Self::resolve(Some(named), env)?
                });
            }
            (None, Some(Dialect::Docker)) => None,
            (None, Some(Dialect::Podman)) => {
                let found = first(podman_sockets(env));
                found.or_else(|| Some(PathBuf::from(PODMAN_SOCKET)))
            }
            (None, None) => first(usual_sockets(env)),
        };
        let path = socket.unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET));
        Ok(Self {
            address: Address::Unix(path.to_string_lossy().into_owned()),
            only,
        })
    }

    const fn at(address: Address) -> Self {
        Self {
            address,
            only: None,
        }
    }

    /// Returns the Unix socket, if it is one.
    pub fn socket(&self) -> Option<PathBuf> {
        match &self.address {
            Address::Unix(path) => Some(PathBuf::from(path)),
            Address::Tcp(_) => None,
        }
    }
}

/// Returns where an engine may be without anybody saying so.
pub fn usual_sockets(env: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let podman = podman_sockets(env);
    std::iter::once(PathBuf::from(DEFAULT_SOCKET))
        .chain(podman)
        .collect()
}

/// Returns where Podman may be without anybody saying so.
fn podman_sockets(env: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let session = set(env, SESSION_ENV).map(|folder| Path::new(folder).join("podman/podman.sock"));
    std::iter::once(PathBuf::from(PODMAN_SOCKET))
        .chain(session)
        .collect()
}

/// Returns the file in which the `docker` command has its configuration: its context, and its user's logins.
pub fn command_configuration(host: &HostView) -> Option<PathBuf> {
    let folder = set(&host.env, "DOCKER_CONFIG").map(PathBuf::from);
    let folder = folder.or_else(|| Some(host.home.as_ref()?.join(".docker")))?;
    Some(folder.join("config.json"))
}

/// Returns a variable's value, unless it is empty.
pub(super) fn set<'a>(env: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    let value = env.get(name).map(String::as_str);
    value.filter(|value| !value.is_empty())
}

impl fmt::Display for DockerEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
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
    fn the_first_engine_that_is_there_is_chosen_unless_one_is_named() {
        use EngineChoice::{Auto, Docker, Podman};
        const SESSION: &str = "/run/user/7/podman/podman.sock";
        let env = BTreeMap::from([(SESSION_ENV.to_owned(), "/run/user/7".to_owned())]);
        let chosen = |choice, named, there: &[&str]| {
            let listens = |path: &Path| there.contains(&path.to_str().unwrap());
            let endpoint = DockerEndpoint::choose(choice, named, &env, listens).unwrap();
            (endpoint.to_string(), endpoint.only)
        };

        for (choice, named, there, endpoint) in [
            (
                Auto,
                None,
                &[DEFAULT_SOCKET, PODMAN_SOCKET][..],
                DEFAULT_SOCKET,
            ),
            (Auto, None, &[PODMAN_SOCKET, SESSION], PODMAN_SOCKET),
            (Auto, None, &[SESSION], SESSION),
            (Auto, None, &[], DEFAULT_SOCKET),
            (Auto, Some("unix:///s"), &[PODMAN_SOCKET], "/s"),
            (Docker, None, &[PODMAN_SOCKET], DEFAULT_SOCKET),
            (Podman, None, &[DEFAULT_SOCKET], PODMAN_SOCKET),
            (Podman, None, &[SESSION], SESSION),
            (Podman, Some("unix:///s"), &[SESSION], "/s"),
        ] {
            let only = match choice {
                Docker => Some(Dialect::Docker),
                Podman => Some(Dialect::Podman),
                _ => None,
            };
            let found = chosen(choice, named, there);

            assert_eq!(found, (format!("unix://{endpoint}"), only), "{there:?}");
        }
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
