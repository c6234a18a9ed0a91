//! The indexes that our git wrote of each project, from one attempt to the next.
//!
//! Owns: `projects/` in the state folder, which no agent sees.
//! Reads: nothing else.
//! Never: takes anything from a project, whose own index may say of a file what an agent wants us to believe.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::git::ObjectFormat;

/// The folder of all projects.
#[derive(Debug, Clone)]
pub(super) struct KeptIndexes(PathBuf);

impl KeptIndexes {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self(state_dir.join("projects"))
    }

    pub(super) fn of(&self, project: &Path, format: ObjectFormat) -> KeptIndex<'_> {
        let digest = Sha256::digest(project.as_os_str().as_bytes());
        let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        // Git takes the ids in an index for whatever the repository says they are.
        let format = match format {
            ObjectFormat::Sha1 => "sha1",
            ObjectFormat::Sha256 => "sha256",
        };
        KeptIndex {
            folder: &self.0,
            file: self.0.join(format!("{name}.{format}")),
        }
    }
}

/// The index of one project, which may not be there.
#[derive(Debug)]
pub(super) struct KeptIndex<'a> {
    folder: &'a Path,
    file: PathBuf,
}

impl KeptIndex<'_> {
    pub(super) fn copy_to(&self, index: &Path) -> io::Result<()> {
        match copy_with_time(&self.file, index) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            copied => copied,
        }
    }

    /// Replaces it in one step: an attempt beside us may be reading it.
    pub(super) fn replace_with(&self, index: &Path) -> io::Result<()> {
        if !index.exists() {
            return Ok(());
        }
        let made = DirBuilder::new().mode(0o700).create(self.folder);
        if let Err(error) = made
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(error);
        }
        // Beside the other index: what a process that is killed leaves goes with the attempt's folder.
        let new = NamedTempFile::new_in(index.parent().unwrap_or(self.folder))?;
        copy_with_time(index, new.path())?;
        new.as_file().sync_all()?;
        new.persist(&self.file)?;
        Ok(())
    }
}

/// Copies an index with its time, which tells git which files it has to read again.
pub(super) fn copy_with_time(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    let time = fs::metadata(from)?.modified()?;
    File::options().write(true).open(to)?.set_modified(time)
}
