//! Room on a disk.
//!
//! Owns: how little is too little.
//! Reads: the file system's own count.
//! Never: writes anything.

use std::path::Path;

use dark_factory_types::ByteSize;
use rustix::fs::statvfs;

use super::Finding;

/// Less than this is not enough for an image, or for an agent's log.
const TOO_LITTLE: u64 = 500 << 20;
/// Less than this is soon used up.
const LITTLE: u64 = 5 << 30;
/// Fewer files than this are not enough for a run and what it builds.
const TOO_FEW_FILES: u64 = 1_000;
const FEW_FILES: u64 = 50_000;

/// Says how much room is left where a folder is, for whoever runs as we do; too little fails with `exit_code`.
///
/// `what` is what lies there, as in "the state folder".
pub fn room(path: &Path, what: &str, exit_code: u8) -> Finding {
    let at = format!("{what} {}", path.display());
    let disk = match statvfs(path) {
        Ok(disk) => disk,
        Err(error) => return Finding::skipped(format!("{at} cannot be looked at: {error}")),
    };
    let bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    // Some file systems make room for files as they come, and count none.
    let files = (disk.f_files > 0).then_some(disk.f_favail);
    judge(&at, bytes, files, exit_code)
}

fn judge(at: &str, bytes: u64, files: Option<u64>, exit_code: u8) -> Finding {
    let room = ByteSize(bytes);
    let (found, is_failure) = match files {
        Some(files) if files < FEW_FILES => (
            format!("{at} has room for {room}, and for {files} files"),
            bytes < TOO_LITTLE || files < TOO_FEW_FILES,
        ),
        _ if bytes < LITTLE => (format!("{at} has room for {room}"), bytes < TOO_LITTLE),
        _ => return Finding::ok(format!("{at} has room for {room}")),
    };
    let advice = "make room: `dark-factory prune` and `docker system df` show what takes it";
    if is_failure {
        Finding::failed(exit_code, found, Some(advice.to_owned()))
    } else {
        Finding::warning(found, advice)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn little_room_is_a_warning_and_too_little_a_failure() {
        let many = Some(1_000_000);
        for (bytes, files, status) in [
            (6 << 30, many, Status::Ok),
            (6 << 30, None, Status::Ok),
            (1 << 30, many, Status::Warning),
            (100 << 20, None, Status::Failed),
            (6 << 30, Some(2_000), Status::Warning),
            (6 << 30, Some(10), Status::Failed),
        ] {
            let found = judge("it", bytes, files, 2);

            assert_eq!(found.status, status, "{found:?}");
            let code = if status == Status::Failed { 2 } else { 0 };
            assert_eq!(found.exit_code, code);
        }
    }
}
