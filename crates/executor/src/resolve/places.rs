//! Places of the host that are dangerous in a container.
//!
//! Owns: the list: what of a home, of the system, and what the environment names.
//! Reads: the host's environment and home, through a [`HostView`].
//! Never: decides whether something is mounted; see `danger`.

use std::path::{Path, PathBuf};

use super::danger::Purpose;
use crate::host::{HostView, PathKind};

/// Sockets of engines, whether or not they are there now.
const ENGINE_SOCKETS: [&str; 2] = ["/var/run/docker.sock", "/run/docker.sock"];
/// Sockets of further engines, and of parts of them, if they are there.
const MORE_SOCKETS: [&str; 4] = [
    "/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/crio/crio.sock",
    "/run/docker/containerd/containerd.sock",
];
/// Below the folder of a session, and of a home.
const SESSION_SOCKETS: [&str; 2] = ["docker.sock", "podman/podman.sock"];
const HOME_SOCKETS: [&str; 3] = [
    ".docker/run/docker.sock",
    ".docker/desktop/docker.sock",
    ".colima/default/docker.sock",
];

/// Folders with the homes of all users.
const HOMES: [&str; 2] = ["/home", "/Users"];
/// Homes that are elsewhere.
const ROOTS: [&str; 2] = ["/root", "/var/root"];

/// What is in a home that others must not have.
const IN_HOME: &[(&str, &str)] = &[
    (".ssh", "SSH keys"),
    (".gnupg", "GnuPG keys"),
    (".aws", "the credentials of AWS"),
    (".azure", "the credentials of Azure"),
    (".config/gcloud", "the credentials of Google Cloud"),
    (".config/doctl", "the credentials of DigitalOcean"),
    (".oci", "the credentials of Oracle Cloud"),
    (".kube", "the credentials of Kubernetes"),
    (".docker", "the credentials of Docker"),
    (
        ".config/containers/auth.json",
        "the credentials of container registries",
    ),
    (".config/gh", "the login of gh"),
    (".config/glab-cli", "the login of glab"),
    (".config/hub", "the login of hub"),
    (".netrc", "passwords of hosts"),
    (".git-credentials", "passwords of git"),
    (".config/git/credentials", "passwords of git"),
    (".npmrc", "the credentials of npm"),
    (".yarnrc.yml", "the credentials of Yarn"),
    (".pypirc", "the credentials of PyPI"),
    (".cargo/credentials.toml", "the credentials of cargo"),
    (".cargo/credentials", "the credentials of cargo"),
    (".gem/credentials", "the credentials of RubyGems"),
    (".composer/auth.json", "the credentials of Composer"),
    (".terraform.d", "the credentials of Terraform"),
    (".vault-token", "the token of Vault"),
    (".config/rclone", "the credentials of rclone"),
    (".config/op", "the login of 1Password"),
    (".pgpass", "passwords of databases"),
    (".my.cnf", "passwords of databases"),
    (".password-store", "passwords"),
    (".local/share/keyrings", "keyrings"),
    ("Library/Keychains", "keyrings"),
    (".mozilla", "the logins of a browser"),
    (".config/google-chrome", "the logins of a browser"),
    (".config/chromium", "the logins of a browser"),
    // An agent that writes there decides what we execute, and what the next run may mount.
    (
        ".config/dark-factory",
        "the configuration of dark-factory itself",
    ),
];

/// What agents keep in a home.
const OF_AGENTS: &[(&str, &str)] = &[
    (".claude", "the login of Claude Code"),
    (".claude.json", "the login of Claude Code"),
    (".claude-yolo", "the login of Claude Code"),
    (".codex", "the login of Codex"),
    (".gemini", "the login of Gemini CLI"),
];

/// Variables that say where such a place is; a list is separated by colons.
const NAMED: &[(&str, &str, &str)] = &[
    ("SSH_AUTH_SOCK", "", "the SSH agent"),
    ("GNUPGHOME", "", "GnuPG keys"),
    ("AWS_SHARED_CREDENTIALS_FILE", "", "the credentials of AWS"),
    ("AZURE_CONFIG_DIR", "", "the credentials of Azure"),
    ("CLOUDSDK_CONFIG", "", "the credentials of Google Cloud"),
    (
        "GOOGLE_APPLICATION_CREDENTIALS",
        "",
        "the credentials of Google Cloud",
    ),
    ("KUBECONFIG", "", "the credentials of Kubernetes"),
    ("DOCKER_CONFIG", "", "the credentials of Docker"),
    ("GH_CONFIG_DIR", "", "the login of gh"),
    ("NETRC", "", "passwords of hosts"),
    ("NPM_CONFIG_USERCONFIG", "", "the credentials of npm"),
    ("CARGO_HOME", "credentials.toml", "the credentials of cargo"),
    ("PASSWORD_STORE_DIR", "", "passwords"),
];

/// The same of agents.
const NAMED_OF_AGENTS: &[(&str, &str, &str)] = &[
    ("CLAUDE_CONFIG_DIR", "", "the login of Claude Code"),
    ("CODEX_HOME", "", "the login of Codex"),
];

/// Folders by which a machine is run; also a part of one has keys, devices, or what root executes.
const SYSTEM: [&str; 9] = [
    "/boot",
    "/dev",
    "/etc",
    "/proc",
    "/run",
    "/sys",
    "/var/run",
    "/var/lib/containerd",
    "/var/lib/docker",
];
/// What of them is for everybody.
const HARMLESS: [&str; 1] = ["/dev/null"];
/// What in them is somebody's own: what people have in memory, and their disks.
const OWN: [&str; 2] = ["/dev/shm", "/run/media"];

/// A dangerous place.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// What is there.
    pub(super) what: &'static str,
    /// Whether what has the place in it is dangerous, too.
    pub(super) counts_inside: bool,
}

impl Place {
    /// Returns a file that the broker takes a key from.
    pub(super) fn key(path: PathBuf) -> Self {
        Self {
            path,
            what: "the key that the broker uses",
            counts_inside: true,
        }
    }
}

/// Returns the sockets that give control of the host.
pub(super) fn engine_sockets(host: &HostView) -> impl Iterator<Item = PathBuf> {
    let below = |folder: Option<&Path>, names: &[&str]| -> Vec<PathBuf> {
        let folder = folder.into_iter();
        folder
            .flat_map(|folder| names.iter().map(|name| folder.join(name)))
            .collect()
    };
    let session = host.var("XDG_RUNTIME_DIR").map(Path::new);
    let session = below(session, &SESSION_SOCKETS);
    let home = below(host.home.as_deref(), &HOME_SOCKETS);
    let more = MORE_SOCKETS.into_iter().map(PathBuf::from);
    let there = more
        .chain(session)
        .chain(home)
        .filter(|path| host.kind(path) == PathKind::File);
    ENGINE_SOCKETS
        .into_iter()
        .map(PathBuf::from)
        .chain(there.collect::<Vec<_>>())
}

/// Returns whose home a path is, or where the homes of all are that it has in it.
pub(super) fn home_of_others(path: &Path) -> Option<PathBuf> {
    let is_home = |folder: &str| path.parent() == Some(Path::new(folder));
    if HOMES.into_iter().any(is_home) || ROOTS.map(Path::new).contains(&path) {
        return Some(path.to_owned());
    }
    let all = HOMES.into_iter().chain(ROOTS).map(Path::new);
    all.filter(|folder| folder.exists())
        .find(|folder| folder.starts_with(path))
        .map(Path::to_owned)
}

/// Returns the places with keys, logins and passwords, as far as they may concern a path.
pub(super) fn credentials(
    path: &Path,
    purpose: Purpose,
    host: &HostView,
) -> impl Iterator<Item = Place> {
    let (of_agents, named_of_agents) = match purpose {
        Purpose::Mount => (OF_AGENTS, NAMED_OF_AGENTS),
        Purpose::AgentFolder => (&[][..], &[][..]),
    };
    let in_home = IN_HOME.iter().chain(of_agents);
    let mut places: Vec<Place> = homes(path, host)
        .iter()
        .flat_map(|home| {
            in_home.clone().map(|(name, what)| Place {
                path: home.join(name),
                what,
                counts_inside: true,
            })
        })
        .collect();
    let config = host.var("XDG_CONFIG_HOME").map(Path::new);
    if let Some(config) = config.filter(|config| config.is_absolute()) {
        places.extend(in_home.filter_map(|(name, what)| {
            Some(Place {
                path: config.join(name.strip_prefix(".config/")?),
                what,
                counts_inside: true,
            })
        }));
    }
    let named = NAMED.iter().chain(named_of_agents);
    places.extend(named.flat_map(|(variable, rest, what)| named_by(variable, rest, what, host)));
    places.into_iter()
}

/// Returns the homes that a path may be in: the user's, and whose it is in by its name.
fn homes(path: &Path, host: &HostView) -> Vec<PathBuf> {
    let own = host.home.clone();
    let in_homes = HOMES.iter().filter_map(|folder| {
        let name = path.strip_prefix(folder).ok()?.components().next()?;
        Some(Path::new(folder).join(name))
    });
    let roots = ROOTS
        .iter()
        .map(PathBuf::from)
        .filter(|root| path.starts_with(root));
    let mut homes: Vec<PathBuf> = own.into_iter().chain(in_homes).chain(roots).collect();
    homes.dedup();
    homes
}

/// Returns the places that a variable names.
///
/// Those of a project, where such variables are set for each project, do not make the project itself one.
fn named_by<'a>(
    variable: &str,
    rest: &'a str,
    what: &'static str,
    host: &'a HostView,
) -> impl Iterator<Item = Place> + use<'a> {
    let value = host.var(variable).unwrap_or_default();
    let home = host.home.as_deref().unwrap_or(Path::new("/"));
    value
        .split(':')
        .filter(|path| !path.is_empty())
        .map(move |path| host.absolute(Path::new(path)).join(rest))
        // Nobody means that all of a home is one.
        .filter(move |path| !home.starts_with(path))
        .map(move |path| Place {
            path,
            what,
            counts_inside: false,
        })
}

/// Returns the folders of the system, as far as they may concern a path.
pub(super) fn system(path: &Path) -> impl Iterator<Item = Place> {
    let is_own = OWN
        .iter()
        .any(|own| path.starts_with(own) && path != Path::new(own));
    let is_free = is_own || HARMLESS.map(Path::new).contains(&path);
    let places = SYSTEM.iter().filter(move |_| !is_free);
    places.map(|path| Place {
        path: PathBuf::from(path),
        what: "",
        counts_inside: true,
    })
}
