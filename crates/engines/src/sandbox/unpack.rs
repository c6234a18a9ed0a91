//! Unpacking the archive of an image into one folder.
//!
//! Owns: what lies over what, and what a whiteout removes.
//! Reads: the archive.
//! Never: writes outside the folder, whatever names and links the archive has: every path is looked up with the folder as
//! its root, by the kernel.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, chmodat, fchmod, linkat, mkdirat,
    openat, openat2, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use tar::{Archive, EntryType};

use super::image_archive::{ImageArchive, invalid, lexical};
use super::image_store::ImageNote;
use super::layer::{Bounds, LayerReader};

/// What the name of a file begins with that says that another one is not there any more.
const WHITEOUT: &str = ".wh.";
/// The name of a file that says that nothing of the layers below is in its folder.
const OPAQUE: &str = ".wh..wh..opq";

/// Returns this machine's architecture by the name that container engines have for it.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Unpacks an archive with one image into an empty folder, and returns what it says of itself.
pub(super) fn unpack(archive: &Path, folder: &Path) -> io::Result<ImageNote> {
    let mut archive = ImageArchive::open(archive, architecture())?;
    let bounds = Bounds::of(archive.length()?);
    unpack_within(&mut archive, folder, bounds)
}

fn unpack_within(
    archive: &mut ImageArchive,
    folder: &Path,
    bounds: Bounds,
) -> io::Result<ImageNote> {
    let root = open_folder(folder)?;
    // What comes out of its layers, and what is written of it: a file that is said to be mostly empty is more.
    let mut read = bounds.bytes;
    let mut left = bounds;
    for layer in archive.layers.clone() {
        let failed = |error: io::Error| {
            io::Error::new(error.kind(), format!("layer {}: {error}", layer.name))
        };
        let stored = archive.part(&layer.name)?;
        let mut content = LayerReader::new(stored, read).map_err(failed)?;
        unpack_layer(&root, &mut Archive::new(&mut content), &mut left).map_err(failed)?;
        read = content
            .finish(&layer.name, layer.content.as_deref())
            .map_err(failed)?;
    }
    let settings = std::mem::take(&mut archive.settings);
    Ok(ImageNote {
        env: settings.env.unwrap_or_default(),
        command: [settings.entrypoint, settings.cmd]
            .into_iter()
            .flatten()
            .flatten()
            .collect(),
        workdir: settings.working_dir.unwrap_or_default(),
        bytes: bounds.bytes - left.bytes,
        ..ImageNote::default()
    })
}

fn open_folder(folder: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(CWD, folder, flags, Mode::empty())?)
}

/// Unpacks one archive of files into an empty folder, and returns how many bytes they have.
pub(super) fn unpack_archive(mut archive: impl Read, folder: &Path) -> io::Result<u64> {
    let root = open_folder(folder)?;
    let bounds = Bounds::of(u64::MAX);
    let mut left = bounds;
    unpack_layer(&root, &mut Archive::new(&mut archive), &mut left)?;
    // Whoever writes it must not fail because its end is not read.
    io::copy(&mut archive, &mut io::sink())?;
    Ok(bounds.bytes - left.bytes)
}

/// Unpacks a layer over those below.
fn unpack_layer<R: Read>(
    root: &OwnedFd,
    layer: &mut Archive<R>,
    left: &mut Bounds,
) -> io::Result<()> {
    // What a folder may be is said before what is in it, and may forbid putting that there.
    let mut folders = Vec::new();
    for entry in layer.entries()? {
        let mut entry = entry?;
        left.take_entry()?;
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
            if matches!(gone, "" | "." | "..") {
                return Err(doing(invalid(
                    "it removes no file of its folder".to_owned(),
                )));
            }
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
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let file = openat(&parent, name, flags, Mode::from_raw_mode(0o600));
                file.map_err(Into::into).and_then(|file| {
                    let mut file = File::from(file);
                    let most = left.bytes.saturating_add(1);
                    left.take_bytes(io::copy(&mut (&mut entry).take(most), &mut file)?)?;
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
    let mode = Mode::from_raw_mode(0o755);
    mkdirat(&parent, name, mode)?;
    // Whatever the umask is, it is for the sandbox's user.
    chmodat(&parent, name, mode, AtFlags::empty())?;
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
