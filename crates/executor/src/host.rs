//! The host as resolving and lowering see it: passed in, never looked up.
//!
//! Owns: the view.
//! Reads: the file system, in [`HostView`]'s methods.
//! Never: reads the environment: whoever makes a view brings it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statvfs};

/// What stands at a path, links followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    /// Nothing.
    Missing,
    /// A file, or anything else that is not a folder.
    File,
    /// A folder.
    Folder,
    /// Something that cannot be looked at.
    Unreadable,
}

/// The host: environment, home, working directory, and the file system.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HostView {
    /// The environment, whole.
    pub env: BTreeMap<String, String>,
    /// The user's home, if there is one.
    pub home: Option<PathBuf>,
    /// The working directory, absolute.
    pub cwd: PathBuf,
}

impl fmt::Debug for HostView {
    /// Leaves the environment's values out: some are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostView")
            .field("env", &self.env.keys())
            .field("home", &self.home)
            .field("cwd", &self.cwd)
            .finish()
    }
}

impl HostView {
    /// Returns what stands at a path.
    pub fn kind(&self, path: &Path) -> PathKind {
        match fs::metadata(self.absolute(path)) {
            Ok(found) if found.is_dir() => PathKind::Folder,
            Ok(_) => PathKind::File,
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => PathKind::Missing,
                _ => PathKind::Unreadable,
            },
        }
    }

    /// Returns the user and group that own a path.
    ///
    /// # Errors
    ///
    /// The operating system's error.
    pub fn owner(&self, path: &Path) -> io::Result<(u32, u32)> {
        fs::metadata(self.absolute(path)).map(|found| (found.uid(), found.gid()))
    }

    /// Returns a path's permission bits.
    ///
    /// # Errors
    ///
    /// The operating system's error.
    pub fn mode(&self, path: &Path) -> io::Result<u32> {
        fs::metadata(self.absolute(path)).map(|found| found.mode())
    }

    /// Returns whether a path is on a mount that nobody can write to.
    pub fn is_read_only(&self, path: &Path) -> bool {
        statvfs(self.absolute(path))
            .is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
    }

    /// Returns a path made absolute against the working directory.
    pub fn absolute(&self, path: &Path) -> PathBuf {
        self.cwd.join(path)
    }

    /// Returns a variable of the environment; an empty one is there.
    pub fn var(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str)
    }
}
