//! Unpacking the archive of an image, as `docker save` writes it, into one folder.
//!
//! Owns: the order of its layers, and what a whiteout removes.
//! Reads: the archive.
//! Never: writes outside the folder, whatever names and links the archive has: every path is looked up with the folder as
//! its root, by the kernel.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fchmod, linkat, mkdirat, openat,
    openat2, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use serde::Deserialize;
use tar::{Archive, EntryType};

use super::images::ImageNote;

/// File: the list of an archive's images.
const MANIFEST: &str = "manifest.json";
/// What the name of a file begins with that says that another one is not there any more.
const WHITEOUT: &str = ".wh.";
/// The name of a file that says that nothing of the layers below is in its folder.
const OPAQUE: &str = ".wh..wh..opq";
/// How a compressed layer begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The largest description that is read.
const DESCRIPTION: u64 = 16 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Manifest {
    config: String,
    layers: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Described {
    #[serde(default)]
    config: Settings,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Settings {
    #[serde(default)]
    env: Option<Vec<String>>,
    #[serde(default)]
    entrypoint: Option<Vec<String>>,
    #[serde(default)]
    cmd: Option<Vec<String>>,
    #[serde(default)]
    working_dir: Option<String>,
}

/// Where in an archive each file is.
type Index = BTreeMap<String, (u64, u64)>;

/// Unpacks an archive with one image into an empty folder, and returns what it says of itself.
pub(super) fn unpack(archive: &Path, folder: &Path) -> io::Result<ImageNote> {
    let mut file = File::open(archive)?;
    let index = index(&file).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("it is no archive that `docker save` wrote: {error}"),
        )
    })?;
    let manifest: Vec<Manifest> = read_json(&mut file, &index, MANIFEST)?;
    let [manifest] = manifest.as_slice() else {
        return Err(invalid(format!(
            "it has {} images; save one alone",
            manifest.len()
        )));
    };
    let described: Described = read_json(&mut file, &index, &manifest.config)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, folder, flags, Mode::empty())?;
    for name in &manifest.layers {
        let mut begin = [0; 4];
        let length = part(&mut file, &index, name)?.read(&mut begin)?;
        if begin[..length].starts_with(&GZIP) || begin[..length] == ZSTD {
            return Err(invalid(
                "its layers are compressed; save it from an engine that stores them plain, or unpack it with \
                 `docker export` into a folder"
                    .to_owned(),
            ));
        }
        let layer = part(&mut file, &index, name)?;
        unpack_layer(&root, &mut Archive::new(layer))?;
    }
    let settings = described.config;
    Ok(ImageNote {
        env: settings.env.unwrap_or_default(),
        command: [settings.entrypoint, settings.cmd]
            .into_iter()
            .flatten()
            .flatten()
            .collect(),
        workdir: settings.working_dir.unwrap_or_default(),
    })
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Reads where each file of an archive is; a link's place is that of what it names.
fn index(file: &File) -> io::Result<Index> {
    let mut index = Index::new();
    let mut links = Vec::new();
    let mut archive = Archive::new(file);
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        match entry.header().entry_type() {
            EntryType::Regular => {
                index.insert(name, (entry.raw_file_position(), entry.size()));
            }
            EntryType::Symlink | EntryType::Link => {
                if let Some(to) = entry.link_name()? {
                    links.push((name, to.to_string_lossy().into_owned()));
                }
            }
            _ => {}
        }
    }
    for (name, to) in links {
        let beside = Path::new(&name).parent().map(|folder| folder.join(&to));
        let named = [Some(PathBuf::from(&to)), beside.map(|path| lexical(&path))];
        let found = named
            .into_iter()
            .flatten()
            .find_map(|path| index.get(path.to_str()?).copied());
        if let Some(place) = found {
            index.insert(name, place);
        }
    }
    Ok(index)
}

/// Returns a path without `..`, by its text.
fn lexical(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::Normal(name) => clean.push(name),
            _ => {}
        }
    }
    clean
}

fn part<'a>(file: &'a mut File, index: &Index, name: &str) -> io::Result<impl Read + use<'a>> {
    let (at, length) = index
        .get(name)
        .ok_or_else(|| invalid(format!("{name} is missing in it")))?;
    file.seek(SeekFrom::Start(*at))?;
    Ok(file.take(*length))
}

fn read_json<T: serde::de::DeserializeOwned>(
    file: &mut File,
    index: &Index,
    name: &str,
) -> io::Result<T> {
    let part = part(file, index, name)?.take(DESCRIPTION);
    Ok(serde_json::from_reader(part)?)
}

/// Unpacks a layer over those below.
fn unpack_layer<R: Read>(root: &OwnedFd, layer: &mut Archive<R>) -> io::Result<()> {
    // What a folder may be is said before what is in it, and may forbid putting that there.
    let mut folders = Vec::new();
    for entry in layer.entries()? {
        let mut entry = entry?;
        let path = lexical(&entry.path()?);
        let doing =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let (Some(name), Some(above)) = (path.file_name(), path.parent()) else {
            continue;
        };
        let parent = folder(root, above).map_err(doing)?;
        let text = name.to_string_lossy();
        if text == OPAQUE {
            clear(&parent).map_err(doing)?;
            continue;
        }
        if let Some(gone) = text.strip_prefix(WHITEOUT) {
            remove(&parent, gone.as_ref()).map_err(doing)?;
            continue;
        }
        let mode = entry.header().mode()? & 0o777;
        let kind = entry.header().entry_type();
        let is_folder = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Directory);
        if !(kind == EntryType::Directory && is_folder) {
            remove(&parent, name.as_ref()).map_err(doing)?;
        }
        let made = match kind {
            EntryType::Directory => {
                folders.push((path.clone(), mode));
                match mkdirat(&parent, name, Mode::from_raw_mode(0o700)) {
                    Err(Errno::EXIST) => Ok(()),
                    made => made.map_err(Into::into),
                }
            }
            EntryType::Regular | EntryType::Continuous => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let file = openat(&parent, name, flags, Mode::from_raw_mode(0o600));
                file.map_err(Into::into).and_then(|file| {
                    let mut file = File::from(file);
                    io::copy(&mut entry, &mut file)?;
                    Ok(fchmod(&file, Mode::from_raw_mode(mode))?)
                })
            }
            EntryType::Symlink => match entry.link_name()? {
                Some(to) => symlinkat(to.as_ref(), &parent, name).map_err(Into::into),
                None => Err(invalid("it is a link to nothing".to_owned())),
            },
            EntryType::Link => match entry.link_name()? {
                Some(to) => link(root, &lexical(&to), &parent, name.as_ref()),
                None => Err(invalid("it is a link to nothing".to_owned())),
            },
            // A sandbox has devices of its own, and nothing would read from a pipe.
            _ => Ok(()),
        };
        made.map_err(doing)?;
    }
    for (path, mode) in folders.into_iter().rev() {
        // A later entry may have put something else there.
        if let Ok(folder) = open_in(root, &path, OFlags::DIRECTORY | OFlags::RDONLY) {
            // The next layer may put something into a folder that nobody may write to.
            fchmod(&folder, Mode::from_raw_mode(mode | 0o700))?;
        }
    }
    Ok(())
}

/// Opens what is at a path, with the folder as the root of every link on the way.
fn open_in(root: &OwnedFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let flags = flags | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(root, path, flags, Mode::empty(), resolve)?)
}

/// Opens a folder, making what of it is not there.
fn folder(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match open_in(root, path, flags) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    let (Some(name), Some(above)) = (path.file_name(), path.parent()) else {
        return open_in(root, path, flags);
    };
    let parent = folder(root, above)?;
    mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
    open_in(root, path, flags)
}

fn link(root: &OwnedFd, to: &Path, parent: &OwnedFd, name: &Path) -> io::Result<()> {
    let (Some(target), Some(above)) = (to.file_name(), to.parent()) else {
        return Err(invalid("it is a link to a folder".to_owned()));
    };
    let above = folder(root, above)?;
    Ok(linkat(&above, target, parent, name, AtFlags::empty())?)
}

/// Removes whatever has a name in a folder; that there is nothing is no error.
fn remove(parent: &OwnedFd, name: &Path) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = openat(parent, name, flags, Mode::empty())?;
    clear(&folder)?;
    Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

/// Removes everything in a folder.
fn clear(folder: &OwnedFd) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let read = openat(folder.as_fd(), ".", flags, Mode::empty())?;
    for entry in Dir::read_from(&read)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            remove(&read, Path::new(&name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
