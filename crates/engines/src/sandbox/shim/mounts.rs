//! The tree of mounts that becomes the root of a sandbox.
//!
//! Owns: making folders, files and mounts in it.
//! Reads: what is mounted.
//! Never: follows a symlink of the tree out of it: each name is resolved as it will be for the agent.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use dark_factory_executor::spec::Access;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, fchdir, pivot_root};
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, StatVfsMountFlags};
use rustix::fs::{fstat, fstatvfs, mkdirat, openat, openat2, readlinkat, symlinkat};
use rustix::io::Errno;

use super::error::{Doing as _, ShimError};
use super::mountinfo;

/// No file system type, source or data.
const NONE: Option<&str> = None;
/// What no mount for an agent may do: a program in it gives nobody privileges.
const TAME: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);
/// What no device may do. It is the host's: read-only, its owner cannot change who may use it, and it works as before.
const DEVICE: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NOEXEC)
    .union(MsFlags::MS_RDONLY);
/// A name is resolved below the root as if it were `/`, and through no link of the kernel's.
const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// The tree.
pub(super) struct Tree {
    root: OwnedFd,
    /// Where the root is put together.
    at: PathBuf,
    /// Where something was mounted when the tree was begun; nothing comes in from outside later.
    mounted: Vec<PathBuf>,
    /// The roots of other file systems that are filled here, and read-only in the end.
    filled: Vec<OwnedFd>,
}

/// What may be mounted below a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Below {
    Nothing,
    /// What is to be seen in the list of all mounts, which is slow to read.
    Something,
}

impl Tree {
    /// Begins an empty tree on an existing folder.
    ///
    /// This process gets a mount namespace of its own, of which nothing goes out.
    pub(super) fn begin(at: &Path) -> Result<Self, ShimError> {
        let quiet = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(NONE, "/", NONE, quiet, NONE).doing(|| "part with the host's mounts".to_owned())?;
        mount(
            Some("sandbox"),
            at,
            Some("tmpfs"),
            TAME,
            Some("mode=755,size=64m"),
        )
        .doing(|| format!("mount a root on {}", at.display()))?;
        let root = openat(
            CWD,
            at,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .doing(|| format!("open {}", at.display()))?;
        let doing = || "read what is mounted".to_owned();
        let at = fs::read_link(link_to(&root)).doing(doing)?;
        let mounted = mountinfo::read().doing(doing)?;
        Ok(Self {
            root,
            at,
            mounted: mounted.into_iter().map(|(at, _)| at).collect(),
            filled: Vec::new(),
        })
    }

    /// Opens what a path of the tree leads to.
    pub(super) fn open(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        // It gives up when the tree changes while it looks, which only mounts elsewhere can do.
        loop {
            match openat2(&self.root, path, flags, Mode::empty(), INSIDE) {
                Err(Errno::AGAIN) => {}
                opened => return opened,
            }
        }
    }

    /// Makes a folder and those above it, if they are missing, and opens it.
    pub(super) fn folder(&mut self, path: &Path) -> Result<OwnedFd, ShimError> {
        let doing = || format!("look at {}", path.display());
        match self.open(path) {
            Err(Errno::NOENT) => {
                self.make(path, |parent, name| {
                    mkdirat(parent, name, Mode::from_raw_mode(0o755))
                })?;
                self.open(path).doing(doing)
            }
            opened => opened.doing(doing),
        }
    }

    /// Makes an empty file, and the folders above it, if they are missing, and opens it.
    fn file(&mut self, path: &Path) -> Result<OwnedFd, ShimError> {
        let doing = || format!("look at {}", path.display());
        match self.open(path) {
            Err(Errno::NOENT) => match self.make(path, new_file)? {
                Some(made) => Ok(made),
                None => self.open(path).doing(doing),
            },
            opened => opened.doing(doing),
        }
    }

    /// Makes a file with this content.
    pub(super) fn write(&mut self, path: &Path, content: &[u8]) -> Result<(), ShimError> {
        let doing = || format!("write {}", path.display());
        match self.make(path, new_file)? {
            Some(made) => File::from(made).write_all(content).doing(doing),
            None => {
                let there = self.open(path).doing(doing)?;
                fs::write(link_to(&there), content).doing(doing)
            }
        }
    }

    /// Makes a symlink.
    pub(super) fn link(&mut self, path: &Path, to: &Path) -> Result<(), ShimError> {
        let made = self.make(path, |parent, name| symlinkat(to, parent, name))?;
        made.ok_or_else(|| ShimError::new(making(path), "there is something"))
    }

    /// Makes a name, and the folders above it, if they are missing; where its folder is read-only, in a copy of that which
    /// is not. `None` if there is something of this name.
    fn make<T>(
        &mut self,
        path: &Path,
        make: impl Fn(&OwnedFd, &OsStr) -> rustix::io::Result<T>,
    ) -> Result<Option<T>, ShimError> {
        let doing = || making(path);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(ShimError::new(doing(), "it has no name"));
        };
        let folder = self.folder(parent)?;
        let made = match make(&folder, name) {
            Err(Errno::ROFS | Errno::ACCESS | Errno::PERM) => {
                self.cover(parent)?;
                let folder = self.open(parent).doing(doing)?;
                make(&folder, name)
            }
            made => made,
        };
        match made {
            Err(Errno::EXIST) => Ok(None),
            made => made.map(Some).doing(doing),
        }
    }

    /// Covers a folder with one in memory that has the same in it, and takes more.
    fn cover(&mut self, path: &Path) -> Result<(), ShimError> {
        let below = self
            .open(path)
            .doing(|| format!("open {}", path.display()))?;
        let mode = fstat(&below)
            .doing(|| format!("look at {}", path.display()))?
            .st_mode
            & 0o7777;
        self.memory(path, &format!("mode={mode:o},size=16m"))?;
        self.fill(path, &below)
    }

    /// Mounts a file system in memory that is to be filled here.
    pub(super) fn memory(&mut self, path: &Path, options: &str) -> Result<(), ShimError> {
        self.mount(path, "tmpfs", TAME, options)?;
        let top = self
            .open(path)
            .doing(|| format!("open {}", path.display()))?;
        self.filled.push(top);
        Ok(())
    }

    /// Gives a folder of the tree all that another folder has in it, read-only.
    pub(super) fn fill(&mut self, path: &Path, from: &OwnedFd) -> Result<(), ShimError> {
        let doing = || format!("look into what is under {}", path.display());
        let listing = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let listing = openat(from, ".", listing, Mode::empty()).doing(doing)?;
        for entry in Dir::read_from(&listing).doing(doing)? {
            let entry = entry.doing(doing)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let target = path.join(name);
            if entry.file_type() == FileType::Symlink {
                let to = readlinkat(from, name, Vec::new()).doing(doing)?;
                self.link(&target, Path::new(OsStr::from_bytes(to.to_bytes())))?;
            } else {
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let source = openat(from, name, flags, Mode::empty()).doing(doing)?;
                self.bind_open(&source, &target, Access::ReadOnly)?;
            }
        }
        Ok(())
    }

    /// Shows a file or folder of the host at a path of the tree, with all that is mounted below it.
    pub(super) fn bind(
        &mut self,
        source: &Path,
        target: &Path,
        access: Access,
    ) -> Result<(), ShimError> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let source = openat(CWD, source, flags, Mode::empty())
            .doing(|| format!("find {} for the sandbox", source.display()))?;
        self.bind_open(&source, target, access)
    }

    /// Shows what is at one path of the tree at another one too, read-only.
    pub(super) fn show(&mut self, from: &Path, target: &Path) -> Result<(), ShimError> {
        let from = self
            .open(from)
            .doing(|| format!("open {}", from.display()))?;
        self.bind_open(&from, target, Access::ReadOnly)
    }

    fn bind_open(
        &mut self,
        source: &OwnedFd,
        target: &Path,
        access: Access,
    ) -> Result<(), ShimError> {
        let below = match self.attach(source, target)? {
            FileType::Directory => self.below(source),
            _ => Below::Nothing,
        };
        self.restrict(target, below, |flags| match access {
            Access::ReadWrite => flags | TAME,
            Access::ReadOnly => flags | TAME | MsFlags::MS_RDONLY,
        })
    }

    /// Returns what may be mounted below a folder that is open.
    fn below(&self, source: &OwnedFd) -> Below {
        // Of what is not below this process's root, nobody knows.
        let Some(path) = fs::read_link(link_to(source))
            .ok()
            .filter(|path| path.is_absolute())
        else {
            return Below::Something;
        };
        let is_below = |mounted: &PathBuf| mounted.starts_with(&path) && *mounted != path;
        // What is mounted in the tree is not on the list.
        match path.starts_with(&self.at) || self.mounted.iter().any(is_below) {
            true => Below::Something,
            false => Below::Nothing,
        }
    }

    /// Shows a device of the host.
    pub(super) fn device(&mut self, source: &Path) -> Result<(), ShimError> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let device = openat(CWD, source, flags, Mode::empty())
            .doing(|| format!("find the device {}", source.display()))?;
        self.attach(&device, source)?;
        self.restrict(source, Below::Nothing, |flags| flags | DEVICE)
    }

    /// Mounts what is open at a path of the tree, as it is; returns what it is.
    fn attach(&mut self, source: &OwnedFd, target: &Path) -> Result<FileType, ShimError> {
        let kind = FileType::from_raw_mode(
            fstat(source)
                .doing(|| format!("look at what {} is to be", target.display()))?
                .st_mode,
        );
        let at = match kind {
            FileType::Directory => self.folder(target)?,
            _ => self.file(target)?,
        };
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(&link_to(source)), &link_to(&at), NONE, flags, NONE)
            .doing(|| format!("mount {}", target.display()))?;
        Ok(kind)
    }

    /// Mounts a new file system.
    pub(super) fn mount(
        &mut self,
        target: &Path,
        kind: &str,
        flags: MsFlags,
        options: &str,
    ) -> Result<(), ShimError> {
        let at = self.folder(target)?;
        mount(Some(kind), &link_to(&at), Some(kind), flags, Some(options))
            .doing(|| format!("mount {kind} on {}", target.display()))
    }

    /// Makes a part of a mount read-only, or hides it, if it is there; nothing is mounted below it.
    pub(super) fn protect(&mut self, path: &Path, how: Protection) -> Result<(), ShimError> {
        let Ok(here) = self.open(path) else {
            return Ok(());
        };
        let kind = fstat(&here).doing(|| format!("look at {}", path.display()))?;
        match (how, FileType::from_raw_mode(kind.st_mode)) {
            (Protection::ReadOnly, _) => {
                self.attach(&here, path)?;
                let flags = TAME | MsFlags::MS_RDONLY;
                self.restrict(path, Below::Nothing, |own| own | flags)
            }
            (Protection::Hidden, FileType::Directory) => {
                let flags = TAME | MsFlags::MS_RDONLY;
                self.mount(path, "tmpfs", flags, "mode=755,size=4k,nr_inodes=1")
            }
            (Protection::Hidden, _) => {
                let flags = OFlags::PATH | OFlags::CLOEXEC;
                let nothing = openat(CWD, "/dev/null", flags, Mode::empty())
                    .doing(|| "find the device /dev/null".to_owned())?;
                self.attach(&nothing, path)?;
                self.restrict(path, Below::Nothing, |flags| flags | DEVICE)
            }
        }
    }

    /// Makes everything read-only that was filled here.
    pub(super) fn seal(&self) -> Result<(), ShimError> {
        let mut places = self.filled.iter().chain([&self.root]);
        places.try_for_each(|place| {
            remount(&link_to(place), TAME | MsFlags::MS_RDONLY)
                .doing(|| "make the root file system read-only".to_owned())
        })
    }

    /// Makes the tree the root of this process's mount namespace; nothing of the host's is left in that.
    pub(super) fn enter(self) -> Result<(), ShimError> {
        let doing = || "enter the sandbox's root".to_owned();
        fchdir(&self.root).doing(doing)?;
        // The old root is under the new one, and with no folder for it.
        pivot_root(".", ".").doing(doing)?;
        umount2(".", MntFlags::MNT_DETACH).doing(|| "leave the host's root".to_owned())?;
        chdir("/").doing(doing)
    }

    /// Gives the mount at a path, and those below it, other flags, made of those that they have: in a user namespace
    /// none of these may be taken away.
    fn restrict(
        &self,
        target: &Path,
        below: Below,
        flags: impl Fn(MsFlags) -> MsFlags,
    ) -> Result<(), ShimError> {
        let doing = || format!("restrict {}", target.display());
        let here = self.open(target).doing(doing)?;
        if below == Below::Nothing {
            let own = own_flags(&here).doing(doing)?;
            return remount(&link_to(&here), flags(own)).doing(doing);
        }
        let here = fs::read_link(link_to(&here)).doing(doing)?;
        for (at, own) in mountinfo::read().doing(doing)? {
            if at.starts_with(&here) {
                remount(&at, flags(own))
                    .doing(|| format!("restrict what is mounted on {}", at.display()))?;
            }
        }
        Ok(())
    }
}

/// What becomes of a part of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protection {
    /// It can be read only.
    ReadOnly,
    /// It is empty.
    Hidden,
}

/// Returns those flags of the mount that something is on which a user namespace may not take away.
fn own_flags(here: &OwnedFd) -> rustix::io::Result<MsFlags> {
    let found = fstatvfs(here)?.f_flag;
    let known = [
        (StatVfsMountFlags::RDONLY, MsFlags::MS_RDONLY),
        (StatVfsMountFlags::NOSUID, MsFlags::MS_NOSUID),
        (StatVfsMountFlags::NODEV, MsFlags::MS_NODEV),
        (StatVfsMountFlags::NOEXEC, MsFlags::MS_NOEXEC),
    ];
    let own = known.iter().filter(|(flag, _)| found.contains(*flag));
    Ok(own.map(|(_, flag)| *flag).collect())
}

fn remount(at: &Path, flags: MsFlags) -> nix::Result<()> {
    let flags = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    mount(NONE, at, NONE, flags, NONE)
}

fn new_file(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::from_raw_mode(0o644))
}

/// Returns what was done when a name could not be made.
fn making(path: &Path) -> String {
    format!("make {} in the sandbox", path.display())
}

/// Returns a path that leads to what is open, whatever its name is or was.
fn link_to(open: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", open.as_fd().as_raw_fd()))
}
