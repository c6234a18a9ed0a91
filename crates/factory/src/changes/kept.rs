//! The indexes that our git wrote of each project, from one attempt to the next.
//!
//! Owns: `projects/` in the state folder, which no agent sees.
//! Reads: nothing else.
//! Never: takes anything from a project, whose own index may say of a file what an agent wants us to believe.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::git::ObjectFormat;

/// What the name of the file ends with that says which project it is.
const WHOSE: &str = "project";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Indexes of a project that no attempt is expected to need again; without them it reads all files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusedIndex {
    /// The project's folder, if that is known.
    pub project: Option<PathBuf>,
    /// Why they are not needed.
    pub why: Unused,
    /// The files, the one that says whose they are last.
    files: Vec<PathBuf>,
}

/// Why an index is not needed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unused {
    /// The project's folder is not there.
    Gone,
    /// No attempt has used it for as long as runs are kept.
    Old,
    /// A version that did not say so has made it.
    Unknown,
}

impl fmt::Display for Unused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "the project's folder is gone",
            Self::Old => "not used for longer than --keep-days",
            Self::Unknown => "whose it is is not known",
        })
    }
}

impl UnusedIndex {
    /// Lists what `projects/` in a state folder holds in vain; with `keep_days`, also what was not used for so long.
    ///
    /// # Errors
    ///
    /// The operating system's error.
    pub fn list(
        state_dir: &Path,
        keep_days: Option<u32>,
        now: SystemTime,
    ) -> io::Result<Vec<Self>> {
        let entries = match fs::read_dir(KeptIndexes::new(state_dir).0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut files: BTreeMap<OsString, Vec<PathBuf>> = BTreeMap::new();
        for entry in entries {
            let path = entry?.path();
            if let Some(name) = path.file_stem() {
                files.entry(name.to_owned()).or_default().push(path);
            }
        }
        let unused = files.into_values().map(|mut files| {
            files.sort_by_key(|file| is_whose(file));
            let (project, why) = unused(files.last()?, keep_days, now)?;
            Some(Self {
                project,
                why,
                files,
            })
        });
        Ok(unused.flatten().collect())
    }

    /// Returns the file that comes first, which stands for all.
    pub fn path(&self) -> &Path {
        self.files.first().map_or(Path::new(""), PathBuf::as_path)
    }

    /// Removes them; what is gone already is no error.
    ///
    /// # Errors
    ///
    /// The operating system's error.
    pub fn remove(&self) -> io::Result<()> {
        for file in &self.files {
            match fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn is_whose(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == WHOSE)
}

/// Returns the project that a file names, and why its indexes are not needed, if they are not.
fn unused(
    whose: &Path,
    keep_days: Option<u32>,
    now: SystemTime,
) -> Option<(Option<PathBuf>, Unused)> {
    if !is_whose(whose) {
        return Some((None, Unused::Unknown));
    }
    let project = PathBuf::from(OsString::from_vec(fs::read(whose).ok()?));
    let is_gone = match fs::metadata(&project) {
        Ok(found) => !found.is_dir(),
        // What cannot be looked at may be there.
        Err(error) => matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
        ),
    };
    if is_gone {
        return Some((Some(project), Unused::Gone));
    }
    let used = fs::metadata(whose)
        .and_then(|found| found.modified())
        .ok()?;
    let age = now.duration_since(used).ok()?;
    let is_old = keep_days.is_some_and(|days| age > DAY * days);
    is_old.then_some((Some(project), Unused::Old))
}

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
            whose: self.0.join(format!("{name}.{WHOSE}")),
            project: project.to_owned(),
        }
    }
}

/// The index of one project, which may not be there.
#[derive(Debug)]
pub(super) struct KeptIndex<'a> {
    folder: &'a Path,
    file: PathBuf,
    /// Names the project, and was written when the index was used last.
    whose: PathBuf,
    project: PathBuf,
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
        let beside = index.parent().unwrap_or(self.folder);
        let mut whose = NamedTempFile::new_in(beside)?;
        whose.write_all(self.project.as_os_str().as_bytes())?;
        whose.persist(&self.whose)?;
        let new = NamedTempFile::new_in(beside)?;
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
