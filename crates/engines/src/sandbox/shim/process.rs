//! What is known of a process, and what one inherits.
//!
//! Owns: how a process is told from a later one with the same id.
//! Reads: `/proc`.
//! Never: signals anything.

use std::fs;
use std::io;
use std::os::fd::RawFd;

use nix::unistd::close;

/// Returns when a process was started, in clock ticks since the boot.
pub(super) fn started(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_started(&stat).ok_or_else(|| io::Error::other("its stat has another form"))
}

/// Field 22 of a `stat` file; the second one, a name in parentheses, may contain anything.
fn parse_started(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Closes every descriptor above stderr that whoever started this process left open.
///
/// To be called before anything else is opened: it would close that too.
pub(super) fn close_inherited_descriptors() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return;
    };
    let open: Vec<RawFd> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for descriptor in open.into_iter().filter(|&descriptor| descriptor > 2) {
        // One of them is the listing's own, closed already.
        let _closed = close(descriptor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_found_behind_any_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 10 11";

        assert_eq!(parse_started(stat), Some(987_654));
        assert_eq!(parse_started("42 (a"), None);
    }
}
