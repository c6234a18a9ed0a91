//! The user's logins at registries, as `docker login` or `podman login` left them.
//!
//! Owns: which registry an image is of, and which files say how its user logs in there.
//! Reads: those files, each time anew; runs the credential helper that one of them names.
//! Never: keeps a login, or says one; keeps a pull from being tried without.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::auth::DockerCredentials;
use dark_factory_executor::host::HostView;
use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};
use rustix::process::getuid;
use tokio::time::timeout;

use super::dialect::Dialect;
use super::endpoint::{command_configuration, set};

/// What Docker's own registry is called in these files.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// How long a credential helper may take; some ask somewhere else.
const HELPER_PATIENCE: Duration = Duration::from_secs(30);
/// What every credential helper says of a registry that it does not know: its protocol has no other sign of that.
const NOT_FOUND: &str = "credentials not found";

/// Where logins are.
#[derive(Debug, Clone)]
pub(super) struct Logins {
    docker: Option<PathBuf>,
    podman: PathBuf,
}

impl Logins {
    /// Names the files of the host's user.
    pub(super) fn of(host: &HostView) -> Self {
        let set = |name| set(&host.env, name).map(PathBuf::from);
        let podman = set("REGISTRY_AUTH_FILE")
            .or_else(|| Some(set("XDG_RUNTIME_DIR")?.join("containers/auth.json")))
            .unwrap_or_else(|| format!("/run/containers/{}/auth.json", getuid()).into());
        Self {
            docker: command_configuration(host),
            podman,
        }
    }

    /// Returns how the user logs in at an image's registry; `None` if that is not said, or cannot be found out.
    pub(super) async fn at(&self, reference: &str, dialect: Dialect) -> Option<DockerCredentials> {
        let files = match dialect {
            Dialect::Docker => [self.docker.clone(), None],
            Dialect::Podman => [Some(self.podman.clone()), self.docker.clone()],
        };
        let registry = registry(reference).to_owned();
        for file in files.into_iter().flatten() {
            let asked = registry.clone();
            let read = tokio::task::spawn_blocking(move || read(&file, &asked));
            let failed = match timeout(HELPER_PATIENCE, read).await {
                Ok(Ok(Ok(None))) => continue,
                Ok(Ok(Ok(Some(login)))) => return Some(credentials(login, registry)),
                Ok(Ok(Err(error))) => error.to_string(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!(
                    "its credential helper has not answered for {} s",
                    HELPER_PATIENCE.as_secs()
                ),
            };
            tracing::warn!(
                registry,
                error = failed,
                "images are pulled without a login"
            );
        }
        None
    }
}

fn credentials(login: DockerCredential, registry: String) -> DockerCredentials {
    let mut credentials = DockerCredentials {
        serveraddress: Some(registry),
        ..DockerCredentials::default()
    };
    match login {
        DockerCredential::IdentityToken(token) => credentials.identitytoken = Some(token),
        DockerCredential::UsernamePassword(user, password) => {
            credentials.username = Some(user);
            credentials.password = Some(password);
        }
    }
    credentials
}

/// Why a login is not known.
#[derive(Debug, thiserror::Error)]
enum Unknown {
    #[error("{path} cannot be read: {source}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{path} does not say how: {why}")]
    Unusable { path: PathBuf, why: String },
}

/// Reads a login from a file, or has it told by a helper; `None` if there is none. Blocks.
fn read(path: &Path, registry: &str) -> Result<Option<DockerCredential>, Unknown> {
    let file = match std::fs::read(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            let path = path.to_owned();
            return Err(Unknown::Unreadable { path, source });
        }
    };
    let why = match get_credential_from_reader(file.as_slice(), registry) {
        // What stands for no login in files of a user who has logged out.
        Ok(DockerCredential::UsernamePassword(user, _)) if user.is_empty() => return Ok(None),
        Ok(login) => return Ok(Some(login)),
        Err(CredentialRetrievalError::NoCredentialConfigured) => return Ok(None),
        // What it printed may be half of a login.
        Err(CredentialRetrievalError::HelperFailure {
            helper,
            stdout,
            stderr,
        }) => {
            if format!("{stdout}{stderr}").contains(NOT_FOUND) {
                return Ok(None);
            }
            format!("{helper} fails")
        }
        Err(CredentialRetrievalError::HelperCommunicationError) => {
            "the credential helper that it names cannot be asked: it has to be in PATH, and to read what it is asked for".to_owned()
        }
        Err(error) => error.to_string(),
    };
    let path = path.to_owned();
    Err(Unknown::Unusable { path, why })
}

/// Returns the registry of an image, as files of logins call it.
fn registry(reference: &str) -> &str {
    match reference.split_once('/') {
        Some(("docker.io" | "index.docker.io", _)) => DOCKER_HUB,
        Some((host, _)) if host == "localhost" || host.contains(['.', ':']) => host,
        _ => DOCKER_HUB,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_of_an_image_is_that_which_an_engine_would_ask() {
        for (reference, expected) in [
            ("debian", DOCKER_HUB),
            ("debian:12", DOCKER_HUB),
            ("somebody/image:1", DOCKER_HUB),
            ("docker.io/library/debian", DOCKER_HUB),
            ("localhost/image", "localhost"),
            ("localhost:5000/a/b:1", "localhost:5000"),
            ("ghcr.io/a/b@sha256:0a", "ghcr.io"),
        ] {
            assert_eq!(registry(reference), expected, "{reference}");
        }
    }

    #[test]
    fn a_login_is_read_from_the_file_of_the_command_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let at = |registry| read(&path, registry);

        assert!(matches!(at("r:1"), Ok(None)));
        // "me:secret", and what a login at Docker Hub leaves beside a token.
        let auths = r#"{"auths": {"r:1": {"auth": "bWU6c2VjcmV0"}, "r:2": {"identitytoken": "t"}, "r:3": {}}}"#;
        std::fs::write(&path, auths).unwrap();
        let password = DockerCredential::UsernamePassword("me".to_owned(), "secret".to_owned());
        assert_eq!(at("r:1").unwrap(), Some(password));
        let token = DockerCredential::IdentityToken("t".to_owned());
        assert_eq!(at("r:2").unwrap(), Some(token));
        for none in ["r:3", "r:4", DOCKER_HUB] {
            assert_eq!(at(none).unwrap(), None, "{none}");
        }
        for (file, told) in [
            (r#"{"auths""#, "Unable to read config"),
            (r#"{"auths": {"r:1": {"auth": "?"}}}"#, "Unable to decode"),
            (r#"{"credsStore": "no-such"}"#, "has to be in PATH"),
        ] {
            std::fs::write(&path, file).unwrap();
            let error = at("r:1").unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[tokio::test]
    async fn podmans_own_file_counts_before_dockers() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, auths: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!(r#"{{"auths": {{{auths}}}}}"#)).unwrap();
        };
        // "podman:p" and "docker:d".
        write(
            "run/containers/auth.json",
            r#""r:1": {"auth": "cG9kbWFuOnA="}"#,
        );
        write(
            ".docker/config.json",
            r#""r:1": {"auth": "ZG9ja2VyOmQ="}, "r:2": {"auth": "ZG9ja2VyOmQ="}"#,
        );
        let runtime = folder.path().join("run").display().to_string();
        let logins = Logins::of(&HostView {
            home: Some(folder.path().to_owned()),
            env: [("XDG_RUNTIME_DIR".to_owned(), runtime)].into(),
            ..HostView::default()
        });

        for (image, dialect, user) in [
            ("r:1/i", Dialect::Podman, Some("podman")),
            ("r:2/i", Dialect::Podman, Some("docker")),
            ("r:1/i", Dialect::Docker, Some("docker")),
            ("r:3/i", Dialect::Podman, None),
        ] {
            let login = logins.at(image, dialect).await;
            let name = login.as_ref().and_then(|login| login.username.as_deref());
            assert_eq!(name, user, "{image} {dialect:?}");
        }
    }
}
