//! A minimal Debian as a base, made on this machine: no registry is needed.
//!
//! Owns: its packages, its image, and the temporary folder in which it is made.
//! Reads: this machine's release and package sources.
//! Never: leaves anything mounted, or a folder behind.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Output, Stdio};

use dark_factory_types::ByteSize;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::agent_image::{
    AgentImageError, BuildProgress, REVISION, require_room, unless_cancelled,
};

const PACKAGES: &str = "git,ca-certificates";
/// What the finished folder takes, with the packages that it is made of.
const ROOM: ByteSize = ByteSize(600 << 20);
/// Parts of a fresh root that no agent reads.
const NOT_NEEDED: [&str; 5] = [
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "var/lib/apt/lists",
];
/// Lines of a failed program that are shown.
const LAST_LINES: usize = 5;

/// A release of Debian, or of a system like it, that debootstrap can make here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Debian {
    codename: String,
    /// What tells its publisher's archive from others; `None` if that is neither Debian's nor Ubuntu's.
    origin: Option<&'static str>,
}

impl Debian {
    /// Finds out whether this machine can make one: it has to be Debian itself, for its mirror and keys, and the
    /// process root.
    pub(super) async fn here() -> Result<Self, AgentImageError> {
        let cannot = |reason: &str| AgentImageError::Debootstrap {
            reason: reason.to_owned(),
        };
        if !rustix::process::geteuid().is_root() {
            return Err(cannot("this process is not root"));
        }
        if !Path::new("/etc/debian_version").exists() {
            return Err(cannot("this machine is not Debian"));
        }
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let codename = value(&release, "VERSION_CODENAME")
            .ok_or_else(|| cannot("/etc/os-release names no VERSION_CODENAME"))?;
        let asked = program("debootstrap", &["--version"]).await;
        if !asked.is_ok_and(|output| output.status.success()) {
            return Err(cannot(
                "debootstrap is not installed (apt-get install debootstrap)",
            ));
        }
        Ok(Self {
            codename: codename.to_owned(),
            origin: match value(&release, "ID") {
                Some("debian") => Some("Origin: Debian"),
                Some("ubuntu") => Some("Origin: Ubuntu"),
                _ => None,
            },
        })
    }

    /// Returns the image's name, which tells its content.
    pub(super) fn image(&self) -> String {
        format!("dark-factory/base:{}-{REVISION}", self.codename)
    }

    /// Returns what the image's label says.
    pub(super) fn description(&self) -> String {
        format!("debian {} with {PACKAGES}", self.codename)
    }

    /// Makes the root in a temporary folder.
    ///
    /// Returns after a `cancel` only once the programs and what they mounted are gone, and the folder with them. If the
    /// future is dropped they are killed, and may still write to the folder meanwhile.
    pub(super) async fn make_root(
        &self,
        temp_dir: &Path,
        cancel: &CancellationToken,
        progress: BuildProgress<'_>,
    ) -> Result<tempfile::TempDir, AgentImageError> {
        require_room(
            temp_dir,
            ROOM,
            "a Debian base",
            "name another folder with TMPDIR",
        )?;
        progress(&format!(
            "making a Debian {} base (a minute or so)",
            self.codename
        ));
        let folder = tempfile::Builder::new()
            .prefix("dark-factory-debian-")
            .tempdir_in(temp_dir)
            .map_err(|error| AgentImageError::local("make a temporary folder", error))?;
        let root = folder.path().join("root");
        // Namespaces of its own: when this process ends, all that debootstrap started ends, and its mounts are gone.
        let mut debootstrap = Command::new("unshare");
        debootstrap
            .args(["--mount", "--pid", "--fork", "--kill-child", "debootstrap"])
            .args(["--variant=minbase", &format!("--include={PACKAGES}")])
            .arg(&self.codename)
            .arg(&root)
            .args(unless_cancelled(cancel, async { Ok(self.mirror().await) }).await?)
            // A power cut may cost the temporary folder; waiting for the disk after each package costs everybody.
            .env("DPKG_FORCE", "unsafe-io")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for us, who then end it.
            .process_group(0)
            .kill_on_drop(true);
        let failed = |reason| AgentImageError::Program {
            operation: "debootstrap",
            reason,
        };
        let started = debootstrap
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let output = ended(started, cancel)
            .await?
            .map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            return Err(failed(format!(
                "{}: {}",
                output.status,
                last_words(&output)
            )));
        }
        for path in NOT_NEEDED {
            match fs::remove_dir_all(root.join(path)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(AgentImageError::local("tidy the Debian base", error));
                }
                _ => {}
            }
        }
        Ok(folder)
    }

    /// Returns the mirror that this machine itself installs from; without one, debootstrap uses its own.
    async fn mirror(&self) -> Option<String> {
        let origin = self.origin?;
        if let Some(mirror) = self.known_mirror(origin).await {
            return Some(mirror);
        }
        // Which release a mirror carries is known only from its lists, which a fresh machine has none of.
        let updated = program("apt-get", &["-qq", "update"]).await;
        if let Err(error) = updated {
            tracing::debug!(%error, "apt-get update");
        }
        self.known_mirror(origin).await
    }

    async fn known_mirror(&self, origin: &str) -> Option<String> {
        let codename = format!("Codename: {}", self.codename);
        let query = [
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Created-By: Packages",
            "Component: main",
            &codename,
            // Another publisher's archive may have the same release and component, and has no Debian in it.
            origin,
        ];
        let output = program("apt-get", &query).await.ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().next().map(str::to_owned)
    }
}

/// Returns a value of `/etc/os-release`, if it is not empty.
fn value<'a>(os_release: &'a str, name: &str) -> Option<&'a str> {
    let value = os_release
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?
        .trim_matches('"');
    (!value.is_empty()).then_some(value)
}

/// Waits until a program and all that it started have ended, which a `cancel` has them do at once.
async fn ended(
    program: Child,
    cancel: &CancellationToken,
) -> Result<io::Result<Output>, AgentImageError> {
    let pid = program.id().and_then(|id| i32::try_from(id).ok());
    // Ends once nobody can write to its two outputs any more.
    let mut output = std::pin::pin!(program.wait_with_output());
    tokio::select! {
        output = &mut output => return Ok(output),
        () = cancel.cancelled() => {}
    }
    // It is not waited for yet, so that nothing else has its id.
    if let Some(pid) = pid.and_then(Pid::from_raw)
        && let Err(error) = kill_process(pid, Signal::KILL)
    {
        tracing::debug!(%error, "debootstrap has ended already");
    }
    if let Err(error) = output.await {
        tracing::warn!(%error, "it is not known whether debootstrap has ended");
    }
    Err(AgentImageError::Interrupted)
}

async fn program(name: &str, arguments: &[&str]) -> io::Result<Output> {
    Command::new(name)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
}

fn last_words(output: &Output) -> String {
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_the_release_is_read_with_and_without_quotes() {
        let debian = "VERSION_ID=\"12\"\nID=debian\nVERSION_CODENAME=bookworm\n";

        assert_eq!(value(debian, "VERSION_CODENAME"), Some("bookworm"));
        assert_eq!(value(debian, "ID"), Some("debian"));
        assert_eq!(value("ID=\"ubuntu\"", "ID"), Some("ubuntu"));
        assert_eq!(value("VERSION_CODENAME=\n", "VERSION_CODENAME"), None);
        assert_eq!(value("ID=arch", "VERSION_CODENAME"), None);
    }
}
