//! What a baseline takes from the project's repository and its user's settings: as data, never through git.
//!
//! Owns: where the repository is, its index, and what decides which files count.
//! Reads: `.git`, which an earlier agent may have filled with anything; the user's own git settings.
//! Never: follows an include, or waits for a file that is none.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use dark_factory_executor::host::HostView;
use rustix::fs::OFlags;

use super::git::{self, ObjectFormat};

/// The largest settings file that is read.
const SETTINGS: u64 = 1 << 20;

/// The largest index that is reused; one of a million files has about 100 MiB.
const INDEX: u64 = 512 << 20;

/// What was taken from a repository.
#[derive(Debug)]
pub(super) struct Taken {
    /// Where its objects are.
    pub(super) objects: PathBuf,
    /// How its object ids are made.
    pub(super) format: ObjectFormat,
}

/// A project's repository.
#[derive(Debug)]
pub(super) struct Repository {
    /// Where its index is.
    folder: PathBuf,
    /// Where what all its worktrees share is.
    common: PathBuf,
    /// Its own settings, as text.
    settings: Vec<u8>,
    /// The user's settings.
    user: Vec<u8>,
}

impl Repository {
    /// Finds the repository of a project; `None` if it has none.
    pub(super) fn find(project: &Path, host: &HostView) -> Option<Self> {
        let git = project.join(".git");
        let folder = match fs::metadata(&git).ok()? {
            found if found.is_dir() => git,
            _ => linked(&git, project)?,
        };
        let common = match read(&folder.join("commondir")) {
            Some(common) => folder.join(path(&common)),
            None => folder.clone(),
        };
        if !folder.join("HEAD").is_file() || !common.join("objects").is_dir() {
            return None;
        }
        let settings = read(&common.join("config")).unwrap_or_default();
        let mut user = Vec::new();
        let home = host.home.iter().map(|home| home.join(".gitconfig"));
        let system = [PathBuf::from("/etc/gitconfig")].into_iter();
        for file in system.chain(user_files(host, "config")).chain(home) {
            user.extend(read(&file).unwrap_or_default());
            user.push(b'\n');
        }
        Some(Self {
            folder,
            common,
            settings,
            user,
        })
    }

    /// Makes a git folder of ours at `folder`, with a copy of the index at `index`. Blocks.
    pub(super) fn take(&self, host: &HostView, folder: &Path, index: &Path) -> io::Result<Taken> {
        let format = self.format();
        git::init(folder, format, &self.excludes(host))?;
        self.copy_index(index)?;
        Ok(Taken {
            objects: self.common.join("objects"),
            format,
        })
    }

    /// Returns how its object ids are made.
    fn format(&self) -> ObjectFormat {
        match setting(&self.settings, "extensions", "objectformat") {
            Some(format) if format.eq_ignore_ascii_case(b"sha256") => ObjectFormat::Sha256,
            _ => ObjectFormat::Sha1,
        }
    }

    /// Returns the rules for files to leave out that are not in the project's own `.gitignore` files.
    fn excludes(&self, host: &HostView) -> Vec<u8> {
        let named = setting(&self.user, "core", "excludesfile").map(|file| {
            let file = path(&file);
            match (file.strip_prefix("~"), &host.home) {
                (Ok(rest), Some(home)) => home.join(rest),
                _ => file,
            }
        });
        let user = match named {
            Some(file) => read(&file),
            None => user_files(host, "ignore").find_map(|file| read(&file)),
        };
        let mut rules = user.unwrap_or_default();
        rules.push(b'\n');
        // Later rules win.
        rules.extend(read(&self.common.join("info/exclude")).unwrap_or_default());
        rules
    }

    /// Copies the index to `target`. One that is not there, or is nothing that git would have written, is left out.
    fn copy_index(&self, target: &Path) -> io::Result<()> {
        let Some((index, length)) = open(&self.folder.join("index")) else {
            return Ok(());
        };
        if length > INDEX {
            return Ok(());
        }
        let length = io::copy(&mut index.take(INDEX), &mut File::create(target)?)?;
        self.copy_shared_indexes(target, INDEX - length)
    }

    /// A split index needs its other half, in the folder of whoever reads it. Copies at most `most` bytes.
    fn copy_shared_indexes(&self, target: &Path, mut most: u64) -> io::Result<()> {
        let (Ok(entries), Some(ours)) = (fs::read_dir(&self.folder), target.parent()) else {
            return Ok(());
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if name.as_bytes().starts_with(b"sharedindex.")
                && let Some((shared, length)) = open(&entry.path())
                && length <= most
            {
                most -= io::copy(&mut shared.take(most), &mut File::create(ours.join(name))?)?;
            }
        }
        Ok(())
    }
}

/// Returns the folder that a `.git` file names.
fn linked(git: &Path, project: &Path) -> Option<PathBuf> {
    let text = read(git)?;
    let named = text.strip_prefix(b"gitdir:")?;
    Some(project.join(path(named)))
}

/// Returns where git looks for a file of the user's under the XDG configuration folder.
fn user_files(host: &HostView, name: &str) -> impl Iterator<Item = PathBuf> {
    let base = host
        .var("XDG_CONFIG_HOME")
        .filter(|base| !base.is_empty())
        .map(PathBuf::from)
        .or_else(|| host.home.as_ref().map(|home| home.join(".config")));
    base.map(|base| base.join("git").join(name)).into_iter()
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes.trim_ascii()))
}

/// Opens a regular file, and nothing that would make us wait, and returns its length.
fn open(path: &Path) -> Option<(File, u64)> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC).bits();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags).ok()?)
        .open(path)
        .ok()?;
    let found = file.metadata().ok()?;
    found.is_file().then_some((file, found.len()))
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let (file, _) = open(path)?;
    let mut content = Vec::new();
    file.take(SETTINGS).read_to_end(&mut content).ok()?;
    Some(content)
}

/// Returns the last value of a key in git's settings format, as far as we need it: no includes, no continued lines.
fn setting(settings: &[u8], section: &str, key: &str) -> Option<Vec<u8>> {
    let mut here = false;
    let mut found = None;
    for line in settings.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        if let Some(header) = line.strip_prefix(b"[") {
            here = header
                .split(|byte| *byte == b']')
                .next()
                .is_some_and(|name| name.trim_ascii().eq_ignore_ascii_case(section.as_bytes()));
        } else if here {
            let mut parts = line.splitn(2, |byte| *byte == b'=');
            let name = parts.next().unwrap_or_default().trim_ascii();
            if name.eq_ignore_ascii_case(key.as_bytes()) {
                let value = parts.next().unwrap_or(b"true").trim_ascii();
                let bare = value
                    .strip_prefix(b"\"")
                    .and_then(|value| value.strip_suffix(b"\""));
                found = Some(bare.unwrap_or(value).to_vec());
            }
        }
    }
    found
}
