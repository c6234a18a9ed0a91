//! Reading a prompt: from a file, or from standard input.
//!
//! Owns: what may be read, and how much.
//! Reads: the file, or standard input.
//! Never: waits for a file that has no end, as a pipe or a device has none; standard input is waited for.

use std::fs::{self, File};
use std::io::{self, ErrorKind, IsTerminal, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use dark_factory_types::ByteSize;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::context::Context;
use crate::error::CommandError;
use crate::tell;

/// The longest prompt: far above what a model reads, far below what would be felt.
const LONGEST: ByteSize = ByteSize(10 << 20);

/// Returns whether a name stands for standard input.
pub(super) fn is_stdin(file: &Path) -> bool {
    file == Path::new("-")
}

/// Reads a prompt; returns how it is called, and its bytes.
pub(super) fn read(context: &Context, file: &Path) -> Result<(String, Vec<u8>), CommandError> {
    if is_stdin(file) {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            tell::note(
                "the prompt is read from this terminal; Ctrl-D on a line of its own ends it",
            );
        }
        let bytes = read_all(stdin.lock())
            .map_err(|error| CommandError::internal("read standard input", error))?;
        return Ok(("-".to_owned(), bytes.ok_or_else(|| too_long("-"))?));
    }
    let name = file.display().to_string();
    let path = context.host.absolute(file);
    let refused = |error: io::Error| {
        let hint = match error.kind() {
            ErrorKind::NotFound => format!(
                "check its name; a relative one is looked for in {}",
                context.host.cwd.display()
            ),
            ErrorKind::IsADirectory => "name a file in it".to_owned(),
            ErrorKind::InvalidFilename => "check its name; it is longer than any file's".to_owned(),
            _ if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
                "its symbolic links lead back to themselves; name the file itself".to_owned()
            }
            _ => "make it a file that you may read".to_owned(),
        };
        CommandError::usage(format!(
            "prompt file {} cannot be read: {error}",
            shortened(&name)
        ))
        .hint(hint)
    };
    let kind = fs::metadata(&path).map_err(refused)?.file_type();
    if kind.is_dir() {
        return Err(refused(ErrorKind::IsADirectory.into()));
    }
    if !kind.is_file() {
        let what = match () {
            () if kind.is_fifo() => "a pipe",
            () if kind.is_socket() => "a socket",
            () => "a device",
        };
        return Err(
            CommandError::usage(format!("prompt file {name} is {what}, not a file")).hint(
                "write the prompt into a file, or give it on standard input and - as its name",
            ),
        );
    }
    if path.to_str().is_none() {
        let message = format!("prompt file {name} cannot be used: its path is not UTF-8");
        return Err(CommandError::usage(message).hint("rename it"));
    }
    // It may be another file by now, and a pipe would be waited for.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open(&path, flags, Mode::empty()).map_err(io::Error::from);
    let bytes = opened
        .and_then(|opened| read_all(File::from(opened)))
        .map_err(refused)?;
    let bytes = bytes.ok_or_else(|| too_long(&name))?;
    Ok((name, bytes))
}

/// Reads to the end; `None` if that is too far away.
fn read_all(source: impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    source.take(LONGEST.0 + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= LONGEST.0).then_some(bytes))
}

fn too_long(name: &str) -> CommandError {
    CommandError::usage(format!("{name}: a prompt has at most {LONGEST}"))
        .hint("let the agent read what is long from a file of the project")
}

/// A name as much of which is shown as a person reads.
fn shortened(name: &str) -> String {
    const SHOWN: usize = 200;
    match name.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}.. ({} bytes)", &name[..end], name.len()),
        None => name.to_owned(),
    }
}
