//! Reads the records of a spool, whole ones only, and proves that none is missing.
//!
//! Owns: the read position and each stream's offset.
//! Reads: the files of the spool, which somebody else may still be writing.
//! Never: passes over damage.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use dark_factory_spool::{
    Damage, Decoded, HEADER_LEN, Header, Kind, MAX_PAYLOAD, RecordId, decode,
};
use dark_factory_types::AttemptId;

use crate::spec::AttemptDir;

/// Bytes of the records that are read at once.
const READ_SIZE: usize = 32 * 1024;
/// Bytes of a stream that are read at once, where its records are smaller.
const OUTPUT_SIZE: usize = 64 * 1024;

/// Why a spool could not be read on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file could not be read.
    #[error("reading the spool failed")]
    Read(#[from] io::Error),
    /// The bytes at this position are not a record.
    #[error("the spool is damaged at byte {position} ({damage})")]
    Damaged {
        /// Position in the file.
        position: u64,
        /// What is wrong.
        damage: Damage,
    },
    /// The record at this position belongs to something else.
    #[error("the spool holds a record of {found:?} at byte {position}")]
    Foreign {
        /// Position in the file.
        position: u64,
        /// The id that stands there.
        found: String,
    },
    /// A record's offset is not where its stream's last one ended.
    #[error("the spool jumps from offset {expected} to {found} at byte {position}")]
    Discontinuous {
        /// Position in the file.
        position: u64,
        /// Where the stream was.
        expected: u64,
        /// Where the record says that it is.
        found: u64,
    },
}

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its header.
    pub header: Header,
    /// Its payload, wherever that is.
    pub payload: &'a [u8],
}

/// Reads a spool from its beginning.
#[derive(Debug)]
pub struct SpoolReader {
    file: File,
    /// The id that every record must have, as a record carries it.
    id: Option<RecordId>,
    buffer: Vec<u8>,
    /// Where in the buffer the bytes begin that were read from the file and not handed over.
    start: usize,
    /// Where they end.
    end: usize,
    position: u64,
    offsets: [u64; 2],
    outputs: [Output; 2],
}

impl SpoolReader {
    /// Opens a spool; records of another attempt than `id` are refused.
    ///
    /// # Errors
    ///
    /// The operating system's error.
    pub fn open(dir: &AttemptDir, id: Option<AttemptId>) -> io::Result<Self> {
        Ok(Self {
            file: File::open(dir.spool())?,
            id: id.and_then(|id| RecordId::new(&id.to_string())),
            buffer: vec![0; READ_SIZE],
            start: 0,
            end: 0,
            position: 0,
            offsets: [0; 2],
            outputs: [dir.raw_log(), dir.stderr_log()].map(Output::new),
        })
    }

    /// Opens a spool behind a record, where so much of each stream had been read; `None` if no record follows there.
    ///
    /// # Errors
    ///
    /// The operating system's error.
    pub fn resume(
        dir: &AttemptDir,
        id: Option<AttemptId>,
        position: u64,
        offsets: [u64; 2],
    ) -> io::Result<Option<Self>> {
        let open = || {
            let mut reader = Self::open(dir, id)?;
            reader.file.seek(SeekFrom::Start(position))?;
            (reader.position, reader.offsets) = (position, offsets);
            Ok(reader)
        };
        let mut ahead = open()?;
        if ahead.file.metadata()?.len() < position {
            return Ok(None);
        }
        match ahead.next_record() {
            Ok(_) => open().map(Some),
            Err(ReadError::Read(error)) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Returns the number of bytes of each stream that were read, by the stream's index.
    pub fn offsets(&self) -> [u64; 2] {
        self.offsets
    }

    /// Returns the position behind the last whole record, in bytes.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Returns the next whole record; `None` if there is none yet.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; every call after one fails the same way.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, ReadError> {
        let (header, consumed) = loop {
            match decode(&self.buffer[self.start..self.end]) {
                Decoded::Record {
                    header, consumed, ..
                } => break (header, consumed),
                Decoded::Damaged(damage) => {
                    return Err(ReadError::Damaged {
                        position: self.position,
                        damage,
                    });
                }
                Decoded::Partial { needed } => {
                    if !self.fill(needed)? {
                        return Ok(None);
                    }
                }
            }
        };
        if self.id.is_some_and(|id| id != header.id) {
            return Err(ReadError::Foreign {
                position: self.position,
                found: header.id.as_str().to_owned(),
            });
        }
        let offset = &mut self.offsets[header.stream.index()];
        match header.kind {
            Kind::Gap => *offset = header.offset,
            Kind::Data => {
                if header.offset != *offset {
                    return Err(ReadError::Discontinuous {
                        position: self.position,
                        expected: *offset,
                        found: header.offset,
                    });
                }
                let output = &mut self.outputs[header.stream.index()];
                // Without a loss of power it is there before its record is.
                if !output.has(header.offset, header.len as usize)? {
                    return Ok(None);
                }
                if !header.matches(output.bytes(header.offset, header.len as usize)) {
                    return Err(ReadError::Damaged {
                        position: self.position,
                        damage: Damage::Output,
                    });
                }
                *offset += u64::from(header.len);
            }
            Kind::Start | Kind::Eof | Kind::ExecFailed | Kind::Exit | Kind::Full | Kind::Room => {}
        }
        let start = self.start;
        self.start += consumed;
        self.position += consumed as u64;
        let payload = match header.kind {
            Kind::Data => {
                self.outputs[header.stream.index()].bytes(header.offset, header.len as usize)
            }
            _ => &self.buffer[start..][HEADER_LEN..consumed],
        };
        Ok(Some(Record { header, payload }))
    }

    /// Reads until the buffer holds `needed` bytes of the next record; false at the end of the file.
    fn fill(&mut self, needed: usize) -> io::Result<bool> {
        debug_assert!(needed <= HEADER_LEN + MAX_PAYLOAD);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start + needed > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.buffer.len() < needed {
            // Twice as much, so that what was read of the record behind it is not moved each time.
            self.buffer.resize(2 * needed, 0);
        }
        while self.end - self.start < needed {
            match self.file.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Ok(false),
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// A part of the file of a stream.
#[derive(Debug)]
struct Output {
    path: PathBuf,
    /// The file, once something of it was wanted.
    file: Option<File>,
    /// What was read of it, from `start` on.
    buffer: Vec<u8>,
    start: u64,
    length: usize,
}

impl Output {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            buffer: Vec::new(),
            start: 0,
            length: 0,
        }
    }

    /// Returns whether the file has `length` bytes at `offset`, which are then held.
    fn has(&mut self, offset: u64, length: usize) -> io::Result<bool> {
        let end = self.start + self.length as u64;
        if offset >= self.start && offset + length as u64 <= end {
            return Ok(true);
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => match File::open(&self.path) {
                Ok(file) => none.insert(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(error),
            },
        };
        (self.start, self.length) = (offset, 0);
        // A large record alone: of the next one a part would be read twice.
        let size = length.max(OUTPUT_SIZE);
        if self.buffer.len() < size {
            self.buffer.resize(size, 0);
        }
        while self.length < length {
            let read = file.read_at(
                &mut self.buffer[self.length..size],
                offset + self.length as u64,
            );
            match read {
                Ok(0) => return Ok(false),
                Ok(read) => self.length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Returns bytes that are held.
    fn bytes(&self, offset: u64, length: usize) -> &[u8] {
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        &self.buffer[from..from + length]
    }
}
