//! The host's side of an attempt's spool: making it, handing it over, reading it.
//!
//! Owns: the files of the spool and the one-shot socket over which their descriptors are passed.
//! Reads: the attempt's folder.
//! Never: decides what the records mean for an outcome.

mod handover;
mod reader;
mod writer;

pub use handover::{Handover, SpoolFiles, StartStamp, is_started, open_spool, started_at};
pub use reader::{ReadError, Record, SpoolReader};
pub use writer::SpoolWriter;
