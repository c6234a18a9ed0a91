//! What is mounted in this process's mount namespace.
//!
//! Owns: the form of `/proc/self/mountinfo`.
//! Reads: it.
//! Never: mounts anything.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use nix::mount::MsFlags;

/// Returns where something is mounted, and those of its flags that a user namespace may not take away.
pub(super) fn read() -> io::Result<Vec<(PathBuf, MsFlags)>> {
    // The kernel gives no size, and a small buffer takes many calls.
    let mut text = Vec::with_capacity(64 << 10);
    File::open("/proc/self/mountinfo")?.read_to_end(&mut text)?;
    Ok(parse(&text))
}

fn parse(mountinfo: &[u8]) -> Vec<(PathBuf, MsFlags)> {
    let lines = mountinfo.split(|&byte| byte == b'\n');
    lines
        .filter_map(|line| {
            let mut fields = line.split(|&byte| byte == b' ');
            let at = fields.nth(4)?;
            let options = fields.next()?.split(|&byte| byte == b',');
            let flags = options.filter_map(|option| match option {
                b"ro" => Some(MsFlags::MS_RDONLY),
                b"nosuid" => Some(MsFlags::MS_NOSUID),
                b"nodev" => Some(MsFlags::MS_NODEV),
                b"noexec" => Some(MsFlags::MS_NOEXEC),
                _ => None,
            });
            Some((unescape(at), flags.collect()))
        })
        .collect()
}

/// Undoes what the kernel does to spaces, tabs, line ends and backslashes: three octal digits behind a backslash.
fn unescape(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, more)) = rest.split_first() {
        let code = more.get(..3).filter(|_| first == b'\\');
        let code = code.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = more.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = more;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_with_their_flags_and_any_name() {
        let text = b"36 35 98:0 / /mnt/a\\040b\\134c rw,nosuid,noexec,relatime shared:1 - ext4 /dev/sda rw\n\
                     37 35 98:0 /x /ro ro,nodev - tmpfs t rw\n";

        let mounts = parse(text);

        let first = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        let second = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
        assert_eq!(
            mounts,
            [
                (PathBuf::from("/mnt/a b\\c"), first),
                (PathBuf::from("/ro"), second)
            ]
        );
    }
}
