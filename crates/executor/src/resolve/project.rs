//! The project that a prompt belongs to.
//!
//! Owns: how its root is found.
//! Reads: the file system: links and what is where.
//! Never: runs git.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::ResolveError;
use crate::host::{HostView, PathKind};
use crate::prompt::Prompt;
use crate::settings::Sourced;

/// The project of a prompt.
#[derive(Debug)]
pub(super) struct Project {
    /// The root, links resolved.
    pub(super) root: PathBuf,
    /// What its `.git` is.
    pub(super) git: PathKind,
    /// The root's user and group.
    pub(super) owner: (u32, u32),
    /// The root's permission bits.
    mode: u32,
    /// Whether nobody can write to it, whatever its permissions.
    pub(super) is_read_only: bool,
    /// The prompt file's absolute path, or `-`.
    pub(super) file: String,
    /// The prompt's base name without `.md`.
    pub(super) prompt: String,
}

impl Project {
    /// Returns whether the root's owner and permissions let a user write to it. A container's root has no capability
    /// to pass over them.
    pub(super) fn may_be_written_by(&self, uid: u32, gid: u32) -> bool {
        let bits = if uid == self.owner.0 {
            self.mode >> 6
        } else if gid == self.owner.1 {
            self.mode >> 3
        } else {
            self.mode
        };
        bits & 0o2 != 0
    }

    pub(super) fn find(
        prompt: &Prompt,
        chosen: Option<&Sourced<String>>,
        host: &HostView,
    ) -> Result<Self, ResolveError> {
        let (folder, file, name) = place(prompt, host)?;
        let root = root(folder, chosen, host)?;
        let unreadable = |source| ResolveError::ProjectFolder {
            path: root.clone(),
            source,
        };
        let owner = host.owner(&root).map_err(unreadable)?;
        let mode = host.mode(&root).map_err(unreadable)?;
        Ok(Self {
            git: host.kind(&root.join(".git")),
            is_read_only: host.is_read_only(&root),
            root,
            owner,
            mode,
            file,
            prompt: name,
        })
    }

    /// Returns the project's name: the root's base name.
    pub(super) fn name(&self) -> String {
        base_name(&self.root)
    }
}

/// Returns the root of the project that a prompt belongs to, links resolved.
///
/// It is the chosen folder, else the nearest folder around the prompt file that has a `.git`, else the file's folder.
///
/// # Errors
///
/// [`ResolveError`] if one of these folders is not there or may not be looked at.
pub fn project_root(
    prompt: &Prompt,
    chosen: Option<&Sourced<String>>,
    host: &HostView,
) -> Result<PathBuf, ResolveError> {
    let (folder, ..) = place(prompt, host)?;
    root(folder, chosen, host)
}

fn root(
    folder: PathBuf,
    chosen: Option<&Sourced<String>>,
    host: &HostView,
) -> Result<PathBuf, ResolveError> {
    let Some(Sourced { value, origin }) = chosen else {
        return Ok(git_root(&folder, host).unwrap_or(folder));
    };
    let path = host_path(value, origin.folder(&folder, &host.cwd), host);
    canonical_folder(&path).map_err(|source| ResolveError::ChosenProject {
        origin: origin.clone(),
        path,
        source,
    })
}

/// Returns the prompt's folder with links resolved, the file's path, and the prompt's name.
fn place(prompt: &Prompt, host: &HostView) -> Result<(PathBuf, String, String), ResolveError> {
    let canonical = |path: &Path| {
        canonical_folder(path).map_err(|source| ResolveError::ProjectFolder {
            path: path.to_owned(),
            source,
        })
    };
    if prompt.file == "-" {
        return Ok((canonical(&host.cwd)?, "-".to_owned(), "stdin".to_owned()));
    }
    let path = host.absolute(Path::new(&prompt.file));
    let folder = canonical(path.parent().unwrap_or(&host.cwd))?;
    let base = base_name(&path);
    let file = folder.join(&base).to_string_lossy().into_owned();
    let name = base.strip_suffix(".md").unwrap_or(&base).to_owned();
    Ok((folder, file, name))
}

fn git_root(folder: &Path, host: &HostView) -> Option<PathBuf> {
    let has_git = |path: &&Path| {
        matches!(
            host.kind(&path.join(".git")),
            PathKind::Folder | PathKind::File
        )
    };
    folder.ancestors().find(has_git).map(Path::to_owned)
}

pub(super) fn canonical_folder(path: &Path) -> io::Result<PathBuf> {
    let path = path.canonicalize()?;
    if fs::metadata(&path)?.is_dir() {
        Ok(path)
    } else {
        Err(io::ErrorKind::NotADirectory.into())
    }
}

fn base_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Returns a path of the host that a setting names: `~/` in front is the home, a relative one is below `base`.
pub(crate) fn host_path(text: &str, base: &Path, host: &HostView) -> PathBuf {
    match (text.strip_prefix("~/"), &host.home) {
        (Some(rest), Some(home)) => home.join(rest.trim_start_matches('/')),
        _ => base.join(text),
    }
}

/// Resolves the links of a path whose end may not exist.
pub(super) fn canonical_so_far(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let Ok(found) = ancestor.canonicalize() {
            return match path.strip_prefix(ancestor) {
                Ok(rest) if rest.as_os_str().is_empty() => found,
                Ok(rest) => found.join(rest),
                Err(_) => path.to_owned(),
            };
        }
    }
    path.to_owned()
}
