//! A root file system that is made of the machine's own.
//!
//! Owns: what of the machine is in it.
//! Reads: the machine's system folders.
//! Never: has anything of a user, a service or a device in it.

use std::fs;
use std::path::Path;

use dark_factory_executor::spec::Access;

use super::error::{Doing as _, ShimError};
use super::etc;
use super::mounts::Tree;

/// Folders with programs and libraries; some are symlinks on most systems, and then here as well.
const SYSTEM: &[&str] = &[
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32",
];
/// Folders that programs take for granted, empty.
const EMPTY: &[&str] = &[
    "/home", "/mnt", "/opt", "/root", "/run", "/srv", "/tmp", "/var/lib", "/var/tmp",
];

/// Fills the tree.
pub(super) fn fill(tree: &mut Tree) -> Result<(), ShimError> {
    for folder in SYSTEM.iter().map(Path::new) {
        let Ok(found) = fs::symlink_metadata(folder) else {
            continue;
        };
        if found.is_symlink() {
            let to = fs::read_link(folder).doing(|| format!("read {}", folder.display()))?;
            tree.link(folder, &to)?;
        } else {
            tree.bind(folder, folder, Access::ReadOnly)?;
        }
    }
    for folder in EMPTY.iter().map(Path::new) {
        tree.folder(folder)?;
    }
    tree.link(Path::new("/var/run"), Path::new("/run"))?;
    for folder in etc::FOLDERS.iter().map(Path::new) {
        if folder.is_dir() {
            tree.bind(folder, folder, Access::ReadOnly)?;
        }
    }
    for file in etc::FILES.iter().map(Path::new) {
        // One that is not there, or that we may not read, is not in the sandbox either.
        if let Ok(content) = fs::read(file) {
            tree.write(file, &content)?;
        }
    }
    Ok(())
}
