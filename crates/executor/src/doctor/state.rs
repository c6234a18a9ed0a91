//! The state folder: whose it is, where it is, whether it can be used; and what is left over in it.
//!
//! Owns: which places are none for it.
//! Reads: the folder, the store, the engine's list of our containers.
//! Never: changes what is in it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use dark_factory_types::exit_code;
use rustix::fs::{FsWord, statfs};
use rustix::process::geteuid;

use super::Finding;
use crate::supervisor::Supervisor;

/// File systems of other machines, by the magic number that the kernel gives each. SQLite's log needs memory that all
/// its users share, so none of them can hold the store.
const REMOTE: [(FsWord, &str); 8] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x7375_7245, "Coda"),
    (0x0bd0_0bd0, "Lustre"),
];

const ELSEWHERE: &str = "name another folder with --state-dir or DARK_FACTORY_STATE_DIR";

/// Looks at a supervisor's state folder; `project` must not overlap with it.
pub fn state_folder(supervisor: &Supervisor, project: Option<&Path>) -> Finding {
    let path = supervisor.state_dir().path();
    let shown = path.display();
    let elsewhere = |found| Finding::failed(exit_code::USAGE, found, Some(ELSEWHERE.to_owned()));
    if let Some(project) = project
        && (path.starts_with(project) || project.starts_with(path))
    {
        return elsewhere(format!(
            "{shown} and the project {} overlap, so an agent would see the records of all runs",
            project.display()
        ));
    }
    if let Some(kind) = remote(path) {
        return elsewhere(format!(
            "{shown} is on {kind}, which cannot hold the state store"
        ));
    }
    let (owner, mode) = match fs::metadata(path) {
        Ok(found) => (found.uid(), found.mode() & 0o777),
        Err(error) => return elsewhere(format!("{shown} cannot be looked at: {error}")),
    };
    if owner != geteuid().as_raw() {
        return elsewhere(format!("{shown} belongs to uid {owner}, and not to you"));
    }
    if let Err(error) = write(supervisor) {
        return elsewhere(format!("{shown} cannot be written to: {error}"));
    }
    if mode & 0o077 != 0 {
        return Finding::warning(
            format!("{shown} may be looked into by others: its mode is {mode:o}"),
            format!("`chmod 700 {shown}`"),
        );
    }
    Finding::ok(format!(
        "{shown} is private and on a local disk; its store opens"
    ))
}

/// Writes where runs are recorded, durably, as they do.
fn write(supervisor: &Supervisor) -> io::Result<()> {
    let scratch = supervisor.state_dir().scratch()?;
    crate::state_dir::write_durably(&scratch.path().join("probe"), b"probe")
}

fn remote(path: &Path) -> Option<&'static str> {
    let found = statfs(path).ok()?.f_type;
    REMOTE
        .iter()
        // The magic number is the low half.
        .find(|(magic, _)| *magic == found & 0xffff_ffff)
        .map(|(_, name)| *name)
}

/// Says what is left over for `prune`, and is older than `grace`.
pub async fn leftovers(supervisor: &Supervisor, grace: Duration) -> Finding {
    match supervisor.leftovers(grace).await {
        Ok(left) if left.is_empty() => Finding::ok("nothing is left over"),
        Ok(left) => Finding::warning(
            format!(
                "{} containers, images and folders are left over",
                left.len()
            ),
            "`dark-factory prune` lists them, and removes them with --apply",
        ),
        Err(error) => Finding::from(&error),
    }
}
