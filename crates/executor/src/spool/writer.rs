//! Writes a spool from our side, for transports whose output does not come through the helper.
//!
//! Owns: the offsets of the streams that it writes.
//! Reads: what an earlier supervisor wrote, to go on behind it.
//! Never: writes to a spool that a helper holds.

use std::fs::File;
use std::io::{self, Write};

use dark_factory_spool::{ExitRecord, Kind, MAX_PAYLOAD, RecordId, Stamp, Stream, encode_header};

use super::{SpoolFiles, SpoolReader, open_spool};
use crate::clock::Clock;
use crate::spec::AttemptDir;

/// Appends records to an attempt's spool.
#[derive(Debug)]
pub struct SpoolWriter {
    files: SpoolFiles,
    id: RecordId,
    offsets: [u64; 2],
}

impl SpoolWriter {
    /// Opens the attempt's spool behind its last whole record; what is behind it is cut off.
    ///
    /// # Errors
    ///
    /// The operating system's error, or a spool that is damaged.
    pub fn open(dir: &AttemptDir) -> io::Result<Self> {
        let files = open_spool(dir)?;
        let mut reader = SpoolReader::open(dir, Some(dir.attempt()))?;
        while reader.next_record().map_err(io::Error::other)?.is_some() {}
        files.records.set_len(reader.position())?;
        for (file, length) in files.streams.iter().zip(reader.offsets()) {
            file.set_len(length)?;
        }
        let id = RecordId::new(&dir.attempt().to_string())
            .ok_or_else(|| io::Error::other("the attempt's id does not fit a record"))?;
        Ok(Self {
            files,
            id,
            offsets: reader.offsets(),
        })
    }

    /// Returns the length of each stream so far, by the stream's index.
    pub fn offsets(&self) -> [u64; 2] {
        self.offsets
    }

    /// Appends the start record.
    ///
    /// # Errors
    ///
    /// The operating system's error.
    pub fn start(&mut self, clock: &dyn Clock) -> io::Result<()> {
        self.append(Kind::Start, Stream::Stdout, &[], clock)?;
        self.files.records.sync_data()
    }

    /// Appends bytes that were read from a stream.
    ///
    /// # Errors
    ///
    /// The operating system's error.
    pub fn data(&mut self, stream: Stream, bytes: &[u8], clock: &dyn Clock) -> io::Result<()> {
        for part in bytes.chunks(MAX_PAYLOAD) {
            self.append(Kind::Data, stream, part, clock)?;
            self.offsets[stream.index()] += part.len() as u64;
        }
        Ok(())
    }

    /// Records that bytes of a stream may be missing or inexact from here on, and why.
    ///
    /// # Errors
    ///
    /// The operating system's error.
    pub fn gap(&mut self, stream: Stream, why: &str, clock: &dyn Clock) -> io::Result<()> {
        self.append(Kind::Gap, stream, why.as_bytes(), clock)
    }

    /// Appends the exit record and syncs the spool to disk.
    ///
    /// # Errors
    ///
    /// The operating system's error.
    pub fn exit(&mut self, record: &ExitRecord, clock: &dyn Clock) -> io::Result<()> {
        self.append(Kind::Exit, Stream::Stdout, &record.encode(), clock)?;
        let SpoolFiles { records, streams } = &self.files;
        streams.iter().try_for_each(File::sync_data)?;
        records.sync_data()
    }

    fn append(
        &mut self,
        kind: Kind,
        stream: Stream,
        payload: &[u8],
        clock: &dyn Clock,
    ) -> io::Result<()> {
        let stamp = Stamp {
            monotonic_ns: 0,
            wall_ns: u64::try_from(clock.now().as_nanosecond()).unwrap_or_default(),
        };
        let offset = self.offsets[stream.index()];
        let mut record = encode_header(kind, stream, offset, stamp, self.id, payload).to_vec();
        match kind {
            Kind::Data => (&self.files.streams[stream.index()]).write_all(payload)?,
            _ => record.extend_from_slice(payload),
        }
        (&self.files.records).write_all(&record)
    }
}
