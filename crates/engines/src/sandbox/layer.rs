//! A layer of an image as the tar archive that it is, however it is stored.
//!
//! Owns: the compressions, the bound of what comes out, and the digest of it.
//! Reads: the layer's file.
//! Never: holds more of it than a window.

use std::io::{self, BufRead as _, BufReader, Chain, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use sha2::{Digest, Sha256};

use super::image_archive::{hex, invalid, refuse_other};

/// How a compressed layer begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// How a frame begins that has no content: the first of these, or one of the next fifteen.
const SKIPPED: u32 = 0x184D_2A50;
/// How much of a file is read at once.
const PIECE: usize = 256 << 10;

/// What an image may have in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Bytes of its layers, unpacked.
    pub(super) bytes: u64,
    /// Files, folders and links.
    pub(super) entries: u64,
}

/// The most of any image.
const MOST: Bounds = Bounds {
    bytes: 64 << 30,
    entries: 4_000_000,
};
/// How many times as long as its archive an image may be; for small ones, how long anyway.
const FOLD: u64 = 100;
const ANYWAY: u64 = 1 << 30;

impl Bounds {
    /// Returns the bounds for an archive of this length.
    pub(super) fn of(length: u64) -> Self {
        let bytes = length.saturating_mul(FOLD).max(ANYWAY);
        Self {
            bytes: bytes.min(MOST.bytes),
            ..MOST
        }
    }

    /// Takes off what was unpacked; what is more than the rest is refused.
    pub(super) fn take_bytes(&mut self, bytes: u64) -> io::Result<()> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(too_large)?;
        Ok(())
    }

    /// Takes off one entry.
    pub(super) fn take_entry(&mut self) -> io::Result<()> {
        let left = self.entries.checked_sub(1);
        self.entries = left.ok_or_else(|| invalid("it has too many files".to_owned()))?;
        Ok(())
    }
}

fn too_large() -> io::Error {
    invalid(format!(
        "it unpacks to more than an image may: {FOLD} times its archive, at least {} GiB and at most {} GiB",
        ANYWAY >> 30,
        MOST.bytes >> 30
    ))
}

/// A layer that is read: what comes out of it, counted and hashed.
pub(super) struct LayerReader<R: Read> {
    content: Content<BufReader<R>>,
    left: u64,
    hash: Sha256,
}

enum Content<R: io::BufRead> {
    Plain(R),
    Gzip(Box<MultiGzDecoder<R>>),
    Zstd(Zstd<R>),
}

impl<R: Read> LayerReader<R> {
    /// Begins a layer of which at most so many bytes may come out.
    pub(super) fn new(stored: R, most: u64) -> io::Result<Self> {
        let mut stored = BufReader::with_capacity(PIECE, stored);
        let begin = stored.fill_buf()?;
        let content = if begin.starts_with(&GZIP) {
            Content::Gzip(Box::new(MultiGzDecoder::new(stored)))
        } else if begin.starts_with(&ZSTD) || is_skipped(begin) {
            Content::Zstd(Zstd::Between(Some(stored)))
        } else {
            Content::Plain(stored)
        };
        Ok(Self {
            content,
            left: most,
            hash: Sha256::new(),
        })
    }

    /// Reads what is left, and checks that all of it was what it should be; returns how many more bytes might have come.
    pub(super) fn finish(mut self, name: &str, digest: Option<&str>) -> io::Result<u64> {
        io::copy(&mut self, &mut io::sink())?;
        if let Some(digest) = digest {
            refuse_other(name, &hex(self.hash.finalize()), digest)?;
        }
        Ok(self.left)
    }
}

impl<R: Read> Read for LayerReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.content {
            Content::Plain(stored) => stored.read(buffer)?,
            Content::Gzip(stored) => stored.read(buffer)?,
            Content::Zstd(stored) => stored.read(buffer)?,
        };
        self.left = self.left.checked_sub(read as u64).ok_or_else(too_large)?;
        self.hash.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

type Frame<R> = StreamingDecoder<Chain<Cursor<[u8; 4]>, R>, FrameDecoder>;

/// A file of Zstandard frames, one behind the other.
enum Zstd<R: Read> {
    Between(Option<R>),
    Within(Box<Frame<R>>),
}

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self {
                Self::Between(source) => {
                    let Some(mut source) = source.take() else {
                        return Ok(0);
                    };
                    let Some(magic) = next_magic(&mut source)? else {
                        return Ok(0);
                    };
                    let whole = Cursor::new(magic).chain(source);
                    let frame = StreamingDecoder::new(whole);
                    *self = Self::Within(Box::new(frame.map_err(io::Error::other)?));
                }
                Self::Within(frame) => {
                    let read = frame.read(buffer)?;
                    if read > 0 || buffer.is_empty() {
                        return Ok(read);
                    }
                    let Self::Within(frame) = std::mem::replace(self, Self::Between(None)) else {
                        return Ok(0);
                    };
                    let (_, source) = (*frame).into_inner().into_inner();
                    *self = Self::Between(Some(source));
                }
            }
        }
    }
}

/// Returns how the next frame with content begins; `None` at the end.
fn next_magic(source: &mut impl Read) -> io::Result<Option<[u8; 4]>> {
    loop {
        let mut magic = Vec::new();
        source.take(4).read_to_end(&mut magic)?;
        let Ok(magic) = <[u8; 4]>::try_from(magic.as_slice()) else {
            return match magic.is_empty() {
                true => Ok(None),
                false => Err(io::ErrorKind::UnexpectedEof.into()),
            };
        };
        if !is_skipped(&magic) {
            return Ok(Some(magic));
        }
        let mut length = [0; 4];
        source.read_exact(&mut length)?;
        let length = u64::from(u32::from_le_bytes(length));
        if io::copy(&mut source.take(length), &mut io::sink())? < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn is_skipped(begin: &[u8]) -> bool {
    let magic = begin.first_chunk().copied().map(u32::from_le_bytes);
    magic.is_some_and(|magic| magic & !0xf == SKIPPED)
}
