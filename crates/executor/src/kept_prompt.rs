//! The prompt of an attempt, in its two files.
//!
//! Owns: what tells a prompt that a loss of power left torn from one that is whole.
//! Reads: the file that the agent gets.
//! Never: writes them.

use std::fs;
use std::io;

use crate::spec::{AttemptDir, LaunchSpec, PromptDigests};
use crate::state_dir::sha256_hex;

/// Returns what a prompt is known again by: as its author wrote it, and as the agent gets it.
pub(crate) fn digests(written: &str, given: Option<&str>) -> PromptDigests {
    let written = sha256_hex(written.as_bytes());
    PromptDigests {
        given: given.map_or_else(|| written.clone(), |given| sha256_hex(given.as_bytes())),
        written,
    }
}

/// Returns whether the agent would get the whole prompt, as it was recorded. Blocks.
pub(crate) fn is_given_whole(dir: &AttemptDir, spec: &LaunchSpec) -> io::Result<bool> {
    let Some(digests) = &spec.prompt_digests else {
        return Ok(true);
    };
    match fs::read(dir.prompt()) {
        Ok(given) => Ok(sha256_hex(&given) == digests.given),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns whether this is the whole prompt as its author wrote it.
pub(crate) fn is_written_whole(prompt: &str, spec: &LaunchSpec) -> bool {
    let digests = spec.prompt_digests.as_ref();
    digests.is_none_or(|digests| sha256_hex(prompt.as_bytes()) == digests.written)
}
