//! Room on this machine's disks.
//!
//! Owns: the check that there is enough.
//! Reads: the file systems of the folders that are used.
//! Never: makes room.

use std::io;
use std::path::Path;

use dark_factory_types::ByteSize;
use rustix::fs::statvfs;

use super::error::AgentImageError;

/// Refuses a folder that has less room than is needed; `other` says how another one is named.
pub(crate) fn require_room(
    folder: &Path,
    needed: ByteSize,
    what: &str,
    other: &'static str,
) -> Result<(), AgentImageError> {
    let found = statvfs(folder).map_err(|error| {
        AgentImageError::local(
            format!("{} cannot be looked at", folder.display()),
            io::Error::from(error),
        )
    })?;
    let free = ByteSize(found.f_bavail.saturating_mul(found.f_frsize));
    if free >= needed {
        return Ok(());
    }
    Err(AgentImageError::NoRoom {
        folder: folder.to_owned(),
        free,
        needed,
        what: what.to_owned(),
        other,
    })
}
