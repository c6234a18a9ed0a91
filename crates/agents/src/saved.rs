//! A transcript written down, so that another process goes on from there.
//!
//! Owns: the format of what is written.
//! Reads: what [`Transcript::save`](crate::Transcript::save) wrote.
//! Never: goes on from what another version wrote, or what is not whole: the caller then begins anew.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::split::LineSplitter;
use crate::transcript::Numbering;

/// The version of the format. Raise it whenever a decoder keeps something else, or means something else by it.
const VERSION: u32 = 1;
/// The longest unfinished line that is written down, in bytes.
const HELD_CAP: usize = 64 << 10;

/// A transcript that cannot be gone on from. The output can still be read again from its first byte.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// It is not what a transcript writes down.
    #[error("the saved transcript is not readable; read the output again from its first byte")]
    Unreadable {
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Another version of this program wrote it.
    #[error(
        "the saved transcript has version {found}, not {VERSION}; read the output again from its first byte"
    )]
    Version {
        /// Its version.
        found: u32,
    },
    /// It is of another agent.
    #[error("the saved transcript is one of `{saved}`, not of `{agent}`")]
    Agent {
        /// The agent that it is of.
        saved: String,
        /// The agent that was asked for.
        agent: &'static str,
    },
}

impl From<serde_json::Error> for RestoreError {
    fn from(source: serde_json::Error) -> Self {
        Self::Unreadable { source }
    }
}

/// All that a transcript keeps.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedTranscript {
    version: u32,
    agent: String,
    pub(crate) stdout: SavedSplitter,
    pub(crate) stderr: SavedSplitter,
    pub(crate) numbering: Numbering,
    pub(crate) decoder: Box<RawValue>,
}

impl SavedTranscript {
    pub(crate) fn new(
        agent: &str,
        stdout: SavedSplitter,
        stderr: SavedSplitter,
        numbering: &Numbering,
        decoder: Box<RawValue>,
    ) -> Self {
        Self {
            version: VERSION,
            agent: agent.to_owned(),
            stdout,
            stderr,
            numbering: numbering.clone(),
            decoder,
        }
    }

    /// Reads one of that agent.
    pub(crate) fn read(agent: &'static str, saved: &[u8]) -> Result<Self, RestoreError> {
        /// What every version has.
        #[derive(Deserialize)]
        struct Head {
            version: u32,
            agent: String,
        }
        let head: Head = serde_json::from_slice(saved)?;
        if head.version != VERSION {
            return Err(RestoreError::Version {
                found: head.version,
            });
        }
        if head.agent != agent {
            let saved = head.agent;
            return Err(RestoreError::Agent { saved, agent });
        }
        Ok(serde_json::from_slice(saved)?)
    }
}

/// Where a splitter is, and the beginning of the line that has not ended yet.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedSplitter {
    offset: u64,
    /// One character for each byte: U+0000 to U+00FF.
    held: String,
}

impl SavedSplitter {
    /// Writes a splitter down; `None` if its unfinished line is too long for that.
    pub(crate) fn of(splitter: &LineSplitter) -> Option<Self> {
        let held = splitter.held().filter(|held| held.len() <= HELD_CAP)?;
        Some(Self {
            offset: splitter.offset(),
            held: held.iter().map(|byte| char::from(*byte)).collect(),
        })
    }

    /// Lets a new splitter go on from there.
    pub(crate) fn resume(&self, splitter: &mut LineSplitter) -> Result<(), RestoreError> {
        let bytes = self.held.chars().map(u8::try_from);
        let held: Vec<u8> = bytes
            .collect::<Result<_, _>>()
            .map_err(serde::de::Error::custom)
            .map_err(|source| RestoreError::Unreadable { source })?;
        splitter.resume(self.offset, &held);
        Ok(())
    }
}
