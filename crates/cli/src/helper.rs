//! The static helper executable, as this binary carries it.
//!
//! Owns: the embedded bytes, and an image with nothing else in it.
//! Reads: nothing.
//! Never: changes at run time.

use std::io;

use dark_factory_executor::state_dir::HelperExe;

use crate::error::CommandError;

/// The helper that every container of ours runs as PID 1; also the scripted stand-in agent of the demo.
pub const HELPER: HelperExe = HelperExe::with_digest(
    include_bytes!(env!("DARK_FACTORY_INIT_PATH")),
    env!("DARK_FACTORY_INIT_DIGEST"),
);

/// Returns an image's file system as a tar archive: the helper as `/usr/local/bin/claude`, and an empty `/tmp`.
pub(crate) fn image_archive() -> Result<Vec<u8>, CommandError> {
    let build = || -> io::Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut folder = tar::Header::new_gnu();
        folder.set_entry_type(tar::EntryType::Directory);
        folder.set_mode(0o1777);
        folder.set_size(0);
        archive.append_data(&mut folder, "tmp/", io::empty())?;
        let mut file = tar::Header::new_gnu();
        file.set_mode(0o755);
        file.set_size(HELPER.bytes().len() as u64);
        archive.append_data(&mut file, "usr/local/bin/claude", HELPER.bytes())?;
        archive.into_inner()
    };
    build().map_err(|error| CommandError::internal("pack an image of our own", error))
}
