//! Reading files that people write by hand.
//!
//! Owns: what may be read, and how much.
//! Reads: the file system.
//! Never: waits for a pipe, or reads more than a person would write.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// The most bytes of such a file.
const MOST: u64 = 1 << 20;

/// A file that was read.
pub(crate) struct PlainFile {
    pub(crate) bytes: Vec<u8>,
    /// Its permission bits.
    pub(crate) mode: u32,
    /// Its owner's user id.
    pub(crate) owner: u32,
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlainFileError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is a folder")]
    Folder,
    #[error("it is no plain file")]
    NotPlain,
    #[error("it is larger than 1 MiB")]
    TooLarge,
}

impl From<PlainFileError> for io::Error {
    fn from(error: PlainFileError) -> Self {
        match error {
            PlainFileError::Io(error) => error,
            PlainFileError::Folder | PlainFileError::NotPlain | PlainFileError::TooLarge => {
                Self::new(io::ErrorKind::InvalidInput, error)
            }
        }
    }
}

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<PlainFile, PlainFileError> {
    // A pipe would be waited for until somebody writes to it.
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)?;
    let found = opened.metadata()?;
    if found.is_dir() {
        return Err(PlainFileError::Folder);
    }
    if !found.is_file() {
        return Err(PlainFileError::NotPlain);
    }
    let mut bytes = Vec::new();
    opened.take(MOST + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len > MOST) {
        return Err(PlainFileError::TooLarge);
    }
    Ok(PlainFile {
        bytes,
        mode: found.mode(),
        owner: found.uid(),
    })
}

/// Reads a file of UTF-8 text.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    let bytes = read(path)?.bytes;
    String::from_utf8(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}
