//! The programs that the tests and their images need, and the packages that bring them.
//!
//! Owns: which package brings which program, and their installation.
//! Reads: the host's programs.
//! Never: installs anywhere but on Debian as root.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{self, Failure};

/// A program that has to be there.
#[derive(Debug)]
pub(crate) struct Need {
    /// Argv that exits with 0 where the program is installed.
    probe: &'static [&'static str],
    /// The Debian package that brings it.
    package: &'static str,
}

pub(crate) const DOCKER: Need = Need {
    probe: &["docker", "--version"],
    package: "docker.io",
};
pub(crate) const DOCKERD: Need = Need {
    probe: &["dockerd", "--version"],
    package: "docker.io",
};
/// The command line alone, where `docker.io` no longer brings it.
pub(crate) const DOCKER_CLI: Need = Need {
    probe: &["docker", "--version"],
    package: "docker-cli",
};
pub(crate) const PODMAN: Need = Need {
    probe: &["podman", "--version"],
    package: "podman",
};
/// What Podman runs as the first process of a container that asks for one.
pub(crate) const CATATONIT: Need = Need {
    probe: &["/usr/bin/catatonit", "--version"],
    package: "catatonit",
};
pub(crate) const RUNC: Need = Need {
    probe: &["runc", "--version"],
    package: "runc",
};
pub(crate) const GIT: Need = Need {
    probe: &["git", "--version"],
    package: "git",
};
pub(crate) const PYTHON: Need = Need {
    probe: &["python3", "--version"],
    package: "python3",
};
pub(crate) const PIP: Need = Need {
    probe: &["python3", "-m", "pip", "--version"],
    package: "python3-pip",
};
pub(crate) const DEBOOTSTRAP: Need = Need {
    probe: &["debootstrap", "--version"],
    package: "debootstrap",
};

/// What the bench compares the embedded sandbox with.
pub(crate) const BUBBLEWRAP: Need = Need {
    probe: &["bwrap", "--version"],
    package: "bubblewrap",
};

/// A host's packages, with a list that is updated at most once.
#[derive(Debug)]
pub(crate) struct Packages {
    log: PathBuf,
    updated: bool,
}

impl Packages {
    /// `cache` is the folder of the installation's log.
    pub(crate) fn new(cache: &Path) -> Self {
        Self {
            log: cache.join("apt.log"),
            updated: false,
        }
    }

    /// Installs what is missing; where that is not possible, says what to install.
    pub(crate) fn provide(&mut self, needs: &[Need]) -> Result<(), Failure> {
        let mut missing: Vec<&str> = needs
            .iter()
            .filter(|need| !need.is_there())
            .map(|need| need.package)
            .collect();
        missing.dedup();
        if missing.is_empty() {
            return Ok(());
        }
        if !is_debian_root() {
            return Err(Failure::new(format!(
                "install {} and try again (on Debian as root this is done for you)",
                missing.join(", ")
            )));
        }
        eprintln!("   installing {}", missing.join(", "));
        self.update()?;
        let mut install = apt_get();
        program::run_logged(
            install
                .args(["install", "-y", "--no-install-recommends"])
                .args(&missing),
            &self.log,
        )
    }

    /// Updates the package lists, once.
    pub(crate) fn update(&mut self) -> Result<(), Failure> {
        if !self.updated {
            program::run_logged(apt_get().arg("update"), &self.log)?;
            self.updated = true;
        }
        Ok(())
    }
}

impl Need {
    pub(crate) fn is_there(&self) -> bool {
        self.probe
            .split_first()
            .is_some_and(|(name, arguments)| program::succeeds(Command::new(name).args(arguments)))
    }
}

/// Returns whether packages can be installed here without asking anyone.
pub(crate) fn is_debian_root() -> bool {
    is_root() && Path::new("/etc/debian_version").exists()
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}
