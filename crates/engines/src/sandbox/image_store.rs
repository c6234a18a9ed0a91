//! The images that are kept: unpacked archives, and agents' images.
//!
//! Owns: their folder, its lock, their names, and when one goes.
//! Reads: what the sandboxes beside it are made of.
//! Never: removes what a sandbox is made of, or what somebody else is making.
//!
//! Whoever adds an image, or makes a sandbox of one, holds the lock together with others; whoever removes holds it alone,
//! and only as long as names change. So an image is there until the sandbox is that is made of it, and what has the name
//! of something unfinished while the lock is held alone is left of a process that was killed.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use dark_factory_types::AttemptId;
use jiff::{SignedDuration, Timestamp};
use rustix::fs::syncfs;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::config::Root;
use super::folder;

/// Folder: all images, in the folder of sandboxes, where no sandbox's name begins so.
const IMAGES: &str = ".images";
/// File: locked, see above.
const LOCK: &str = "lock";
/// Folder: a file for each name, with the image's folder in it.
const NAMES: &str = "names";
/// What stands for a slash in a name's file: no name has one.
const SLASH: char = '+';
/// In an image's folder: its files, what it says of itself, and when a sandbox was last made of it.
const FILES: &str = "files";
const NOTE: &str = "image.json";
const USED: &str = "used";
/// What the names of folders begin with that are no images (yet, or any more).
const HIDDEN: char = '.';
const NEW: &str = ".new-";
const GONE: &str = ".gone-";
/// For how long an unpacked archive is kept that no sandbox is made of.
const KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What an image says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImageNote {
    pub(super) env: Vec<String>,
    pub(super) command: Vec<String>,
    pub(super) workdir: String,
    /// What its files hold.
    #[serde(default)]
    pub(super) bytes: u64,
    #[serde(default)]
    pub(super) made: Option<Timestamp>,
    /// The archive that it was unpacked from.
    #[serde(default)]
    pub(super) archive: Option<PathBuf>,
    /// What an agent's image is.
    #[serde(default)]
    pub(super) agent: Option<AgentNote>,
}

/// An agent's image: its files are put on what its base is when a sandbox is made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AgentNote {
    pub(super) agent: String,
    pub(super) version: String,
    /// The base's reference.
    pub(super) base: String,
    /// What the files came from.
    pub(super) source: String,
    /// Everything that decides what comes out.
    pub(super) recipe: String,
}

/// An image that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    /// The name of its folder.
    pub(super) id: String,
    pub(super) path: PathBuf,
    pub(super) note: ImageNote,
    pub(super) names: Vec<String>,
}

impl Stored {
    /// Returns the folder of its files.
    pub(super) fn files(&self) -> PathBuf {
        self.path.join(FILES)
    }

    /// Notes that a sandbox is made of it.
    pub(super) fn note_use(&self, now: Timestamp) {
        if let Err(error) = fs::write(self.path.join(USED), now.to_string()) {
            tracing::debug!(%error, image = %self.path.display(), "that it is used is not noted");
        }
    }

    /// Returns when it was last used, else made; `None` if nobody knows.
    fn last_use(&self) -> Option<Timestamp> {
        let used = fs::read_to_string(self.path.join(USED)).ok();
        let used = used.and_then(|text| text.parse().ok());
        used.max(self.note.made)
    }
}

/// Held, no image is removed.
#[derive(Debug)]
pub(super) struct Hold(#[expect(dead_code, reason = "its lock goes with it")] File);

/// Held, nobody else adds an image or makes a sandbox of one.
#[derive(Debug)]
pub(super) struct Alone(#[expect(dead_code, reason = "its lock goes with it")] File);

/// An image that is being made; it is removed unless it is kept.
#[derive(Debug)]
pub(super) struct NewImage {
    path: PathBuf,
}

impl NewImage {
    /// Returns the folder of its files, which is empty at first.
    pub(super) fn files(&self) -> PathBuf {
        self.path.join(FILES)
    }
}

impl Drop for NewImage {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(%error, path = %self.path.display(), "it stays for the next time");
            }
            _ => {}
        }
    }
}

/// The folder of images beside the sandboxes.
#[derive(Debug, Clone)]
pub(super) struct ImageStore {
    sandboxes: PathBuf,
    path: PathBuf,
}

impl ImageStore {
    /// Names the images of a folder of sandboxes; neither need be there.
    pub(super) fn new(sandboxes: &Path) -> Self {
        Self {
            sandboxes: sandboxes.to_owned(),
            path: sandboxes.join(IMAGES),
        }
    }

    /// Returns the folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps all images from being removed. Blocks while somebody removes some.
    pub(super) fn hold(&self) -> io::Result<Hold> {
        let lock = self.lock()?;
        lock.lock_shared()?;
        Ok(Hold(lock))
    }

    /// Waits until nobody makes an image, or a sandbox of one.
    pub(super) fn alone(&self) -> io::Result<Alone> {
        let lock = self.lock()?;
        lock.lock()?;
        Ok(Alone(lock))
    }

    /// Returns [`Self::alone`] if it need not be waited for.
    fn alone_now(&self) -> io::Result<Option<Alone>> {
        let lock = self.lock()?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Alone(lock))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn lock(&self) -> io::Result<File> {
        private_folder(&self.path)?;
        let mut open = File::options();
        open.read(true).write(true).create(true);
        open.open(self.path.join(LOCK))
    }

    /// Begins an image.
    pub(super) fn begin(&self, _held: &Hold) -> io::Result<NewImage> {
        let path = self.unfinished(NEW);
        private_folder(&path)?;
        let new = NewImage { path };
        fs::create_dir(new.files())?;
        // Whatever the umask is, it is for the sandbox's user.
        fs::set_permissions(new.files(), Permissions::from_mode(0o755))?;
        Ok(new)
    }

    /// Makes an image one that is kept, durably and under an id; if there is one by now, that stays.
    pub(super) fn keep(
        &self,
        new: &NewImage,
        id: &str,
        note: &ImageNote,
        _held: &Hold,
    ) -> io::Result<Stored> {
        fs::write(new.path.join(NOTE), serde_json::to_vec(note)?)?;
        // A loss of power must not leave it with empty files.
        syncfs(File::open(&new.path)?)?;
        let kept = self.path.join(id);
        match fs::rename(&new.path, &kept) {
            // Somebody else was quicker.
            Err(_) if kept.exists() => {}
            renamed => renamed?,
        }
        let kept = self.find(id)?;
        kept.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// Returns the image of an id.
    pub(super) fn find(&self, id: &str) -> io::Result<Option<Stored>> {
        let path = self.path.join(id);
        let note = match fs::read(path.join(NOTE)) {
            Ok(note) => note,
            Err(error) => match error.kind() {
                // The lock is no folder.
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => return Ok(None),
                _ => return Err(error),
            },
        };
        Ok(Some(Stored {
            id: id.to_owned(),
            note: serde_json::from_slice(&note)?,
            path,
            names: Vec::new(),
        }))
    }

    /// Returns the image that has a name.
    pub(super) fn named(&self, name: &str) -> io::Result<Option<Stored>> {
        match self.id_of(name)? {
            Some(id) => self.find(&id),
            None => Ok(None),
        }
    }

    fn id_of(&self, name: &str) -> io::Result<Option<String>> {
        match fs::read_to_string(self.name_file(name)) {
            Ok(id) => Ok(Some(id)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives an image a name, durably; another one may lose it.
    pub(super) fn name(&self, image: &Stored, name: &str, _held: &Hold) -> io::Result<()> {
        let names = self.path.join(NAMES);
        private_folder(&names)?;
        let new = names.join(format!("{NEW}{}", Uuid::new_v4().simple()));
        fs::write(&new, &image.id)?;
        File::open(&new)?.sync_all()?;
        fs::rename(&new, self.name_file(name))?;
        File::open(names)?.sync_all()
    }

    fn name_file(&self, name: &str) -> PathBuf {
        let file = name.replace('/', &SLASH.to_string());
        self.path.join(NAMES).join(file)
    }

    /// Lists the images, each with its names.
    pub(super) fn list(&self) -> io::Result<Vec<Stored>> {
        let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for file in visible(&self.path.join(NAMES))? {
            let name = file.replace(SLASH, "/");
            if let Some(id) = self.id_of(&name)? {
                names.entry(id).or_default().push(name);
            }
        }
        let mut listed = Vec::new();
        for id in visible(&self.path)? {
            if let Some(image) = self.find(&id)? {
                listed.push(Stored {
                    names: names.remove(&image.id).unwrap_or_default(),
                    ..image
                });
            }
        }
        Ok(listed)
    }

    /// Returns the attempts whose sandboxes are made of each image, by its id.
    pub(super) fn users(&self) -> io::Result<BTreeMap<String, Vec<AttemptId>>> {
        let mut users: BTreeMap<String, Vec<AttemptId>> = BTreeMap::new();
        for (_, folder) in folder::list(&self.sandboxes)? {
            // What cannot be read may be made of anything: then nothing is removed.
            let Some(config) = folder.config()? else {
                continue;
            };
            let root = match &config.root {
                Root::Host => None,
                Root::Folder(path) => Some(path),
            };
            let mounted = config.binds.iter().map(|bind| &bind.source);
            for path in root.into_iter().chain(mounted) {
                // Whatever way leads to the folder of images, the image's own name is in it, and is nothing else's.
                for part in path.iter().filter_map(|part| part.to_str()) {
                    users
                        .entry(part.to_owned())
                        .or_default()
                        .push(config.attempt);
                }
            }
        }
        Ok(users)
    }

    /// Removes what nobody needs: unpacked archives of which no sandbox was made for long, or whose file is another one
    /// by now; agents' images that have lost their names; and what killed processes left. Does nothing while images are
    /// being made.
    pub(super) fn prune(&self, now: Timestamp) -> io::Result<()> {
        let Some(alone) = self.alone_now()? else {
            return Ok(());
        };
        let images = self.list()?;
        let mut unneeded: Vec<&Stored> = images
            .iter()
            .filter(|image| is_unneeded(image, &images, now))
            .collect();
        if !unneeded.is_empty() {
            let users = self.users()?;
            unneeded.retain(|image| !users.contains_key(&image.id));
        }
        let ids: Vec<String> = unneeded.iter().map(|image| image.id.clone()).collect();
        self.discard(alone, &ids)
    }

    /// Takes a name from whatever has it.
    pub(super) fn forget(&self, name: &str, _alone: &Alone) -> io::Result<()> {
        match fs::remove_file(self.name_file(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Removes images, and what is left of others.
    pub(super) fn discard(&self, alone: Alone, ids: &[String]) -> io::Result<()> {
        for id in ids {
            fs::rename(self.path.join(id), self.unfinished(GONE))?;
        }
        let mut left = Vec::new();
        for folder in [&self.path, &self.path.join(NAMES)] {
            for entry in entries(folder)? {
                if entry.starts_with(NEW) || entry.starts_with(GONE) {
                    left.push(folder.join(entry));
                }
            }
        }
        // Nobody finds these any more, so that nobody has to wait.
        drop(alone);
        for path in left {
            let removed = match path.is_dir() {
                true => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::debug!(%error, path = %path.display(), "it stays for the next time");
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn unfinished(&self, prefix: &str) -> PathBuf {
        let name = format!("{prefix}{}", Uuid::new_v4().simple());
        self.path.join(name)
    }
}

fn is_unneeded(image: &Stored, all: &[Stored], now: Timestamp) -> bool {
    if image.note.agent.is_some() {
        return image.names.is_empty();
    }
    let is_outdated = image.note.archive.is_some()
        && all.iter().any(|other| {
            other.note.archive == image.note.archive && other.note.made > image.note.made
        });
    let is_old = |used: Timestamp| now.duration_since(used) > KEPT;
    is_outdated || image.last_use().is_some_and(is_old)
}

/// Makes a folder for this user alone, and those above it, if they are missing.
fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).recursive(true).create(path)
}

/// Returns the names in a folder, if it is there.
fn entries(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        // Ours are all text.
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

fn visible(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = entries(folder)?;
    names.retain(|name| !name.starts_with(HIDDEN));
    Ok(names)
}

#[cfg(test)]
#[path = "image_store_tests.rs"]
mod tests;
