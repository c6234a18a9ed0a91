//! What git lists, and which of it counts.
//!
//! Owns: reading git's `-z` output, and the choice of what goes into a baseline or a patch.
//! Reads: what stands at a path of the project; links are never followed.
//! Never: runs git.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use dark_factory_types::ChangedFile;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

/// A path below the workspace, as git writes it: bytes, parts joined by `/`.
pub(super) type GitPath = Vec<u8>;

/// What the index says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) mode: Vec<u8>,
    pub(super) object: Vec<u8>,
}

/// What is in an index of ours: `ls-files -s -z`.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) files: BTreeMap<GitPath, Entry>,
}

impl Index {
    pub(super) fn parse(listing: &[u8]) -> Self {
        let mut index = Self::default();
        for line in split(listing) {
            let mut halves = line.splitn(2, |byte| *byte == b'\t');
            let (Some(facts), Some(path)) = (halves.next(), halves.next()) else {
                continue;
            };
            let mut facts = facts.split(|byte| *byte == b' ');
            let mut next = || facts.next().unwrap_or_default().to_vec();
            let (mode, object) = (next(), next());
            index.files.insert(path.to_vec(), Entry { mode, object });
        }
        index
    }
}

/// Splits what git ends with NUL.
pub(super) fn split(listing: &[u8]) -> impl Iterator<Item = &[u8]> {
    listing
        .split(|byte| *byte == 0)
        .filter(|path| !path.is_empty())
}

/// Joins paths as git reads them with `-z`.
pub(super) fn join<'a>(paths: impl IntoIterator<Item = &'a GitPath>) -> Vec<u8> {
    let mut joined = Vec::new();
    for path in paths {
        joined.extend_from_slice(path);
        joined.push(0);
    }
    joined
}

/// A file that is not looked into, and what tells whether it was changed all the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct LeftOut {
    path: GitPath,
    size: u64,
    changed_s: i64,
    changed_ns: i64,
}

/// What is to be done with listed paths.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    /// Read, or gone.
    pub(super) update: Vec<GitPath>,
    /// No file any more: a folder stands there.
    pub(super) remove: Vec<GitPath>,
    /// Too large, or not readable for us.
    pub(super) left_out: Vec<LeftOut>,
    /// Repositories inside of the project.
    pub(super) nested: usize,
    /// How many bytes there are to read.
    pub(super) bytes: u64,
}

/// Looks at what stands at each path. Blocks.
pub(super) fn sort(
    workspace: &Path,
    paths: impl IntoIterator<Item = GitPath>,
    largest: u64,
) -> Sorted {
    let mut sorted = Sorted::default();
    let mut folders = Folders::default();
    for path in paths {
        if path.ends_with(b"/") {
            sorted.nested += 1;
            continue;
        }
        let place = workspace.join(OsStr::from_bytes(&path));
        if folders.lead_elsewhere(workspace, place.parent().unwrap_or(workspace)) {
            // What is behind a link is not the project's.
            sorted.remove.push(path);
            continue;
        }
        let Ok(found) = fs::symlink_metadata(&place) else {
            // Gone, or below something that is no folder any more.
            sorted.update.push(path);
            continue;
        };
        if found.is_dir() {
            sorted.remove.push(path);
        } else if found.is_symlink() {
            sorted.update.push(path);
        } else if !found.is_file() {
            // A pipe, socket or device is nothing that git keeps; the file before it is gone.
            sorted.remove.push(path);
        } else if found.len() > largest || !is_readable(&place) {
            sorted.left_out.push(LeftOut {
                path,
                size: found.len(),
                changed_s: found.ctime(),
                changed_ns: found.ctime_nsec(),
            });
        } else {
            sorted.bytes += found.len();
            sorted.update.push(path);
        }
    }
    sorted
}

/// Folders that were looked at, and whether a link is among their parents or is what they are.
#[derive(Debug, Default)]
struct Folders(BTreeMap<PathBuf, bool>);

impl Folders {
    fn lead_elsewhere(&mut self, workspace: &Path, folder: &Path) -> bool {
        if folder == workspace {
            return false;
        }
        if let Some(known) = self.0.get(folder) {
            return *known;
        }
        let parent = folder.parent().unwrap_or(workspace);
        let leads = self.lead_elsewhere(workspace, parent) || folder.is_symlink();
        self.0.insert(folder.to_owned(), leads);
        leads
    }
}

fn is_readable(file: &Path) -> bool {
    let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY).bits();
    let Ok(flags) = i32::try_from(flags) else {
        return false;
    };
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(file);
    opened.is_ok()
}

/// Paths whose entries differ, with the entries before and after.
pub(super) type Differences = BTreeMap<GitPath, (Option<Entry>, Option<Entry>)>;

/// Compares two indexes.
pub(super) fn differences(before: Index, mut after: Index) -> Differences {
    let mut differences = Differences::new();
    for (path, old) in before.files {
        match after.files.remove(&path) {
            Some(new) if new == old => {}
            new => {
                differences.insert(path, (Some(old), new));
            }
        }
    }
    let new = after.files.into_iter();
    differences.extend(new.map(|(path, new)| (path, (None, Some(new)))));
    differences
}

/// Returns entries as `update-index --index-info -z` reads them.
pub(super) fn index_info<'a>(
    entries: impl Iterator<Item = (&'a GitPath, &'a Option<Entry>)>,
) -> Vec<u8> {
    let mut info = Vec::new();
    for (path, entry) in entries {
        if let Some(Entry { mode, object }) = entry {
            info.extend([mode.as_slice(), b" ", object, b" 0\t", path, b"\0"].concat());
        }
    }
    info
}

/// Reads `--numstat -z`.
pub(super) fn numstat(listing: &[u8]) -> Vec<ChangedFile> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let count = |bytes: Option<&[u8]>| text(bytes.unwrap_or_default()).parse().ok();
    let mut files = Vec::new();
    let mut parts = listing.split(|byte| *byte == 0);
    while let Some(part) = parts.next().filter(|part| !part.is_empty()) {
        let mut columns = part.splitn(3, |byte| *byte == b'\t');
        let (insertions, deletions) = (count(columns.next()), count(columns.next()));
        let path = columns.next().unwrap_or_default();
        let (renamed_from, path) = match path.is_empty() {
            true => {
                let old = parts.next().map(text);
                (old, parts.next().unwrap_or_default())
            }
            false => (None, path),
        };
        files.push(ChangedFile {
            path: text(path),
            renamed_from,
            insertions,
            deletions,
        });
    }
    files
}
