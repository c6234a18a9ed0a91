//! What is known of a process, and what one inherits.
//!
//! Owns: how a process is told from a later one with the same id.
//! Reads: `/proc`.
//! Never: signals anything.

use std::fs;
use std::io;
use std::os::fd::RawFd;

use nix::unistd::close;

use crate::sandbox::process::Stat;

/// Returns when a process was started, in clock ticks since the boot.
pub(super) fn started(pid: i32) -> io::Result<u64> {
    let stat = Stat::read(pid).ok_or_else(|| io::Error::other("/proc does not say it"))?;
    Ok(stat.started)
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
