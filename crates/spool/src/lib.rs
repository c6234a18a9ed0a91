//! The record layout of a spool: the one record of what a workload printed.
//!
//! Owns: the byte layout of records, their checks, the exit record's fields, and the numbers that both sides agree on.
//! Reads: nothing.
//! Never: opens files, knows about engines, or decides what a record means for an outcome.
//!
//! A spool is a file of records, and beside it one file for each of the agent's streams with nothing but what the agent
//! printed to it. Each record is a [`HEADER_LEN`]-byte header, little endian, and its payload. What the agent printed is
//! not in the record: its place is in the file of its stream, at the record's offset, and it is there before the record is.
//!
//! | bytes | field |
//! |---|---|
//! | 0..4 | magic `DFS2` |
//! | 4 | [`Kind`] |
//! | 5 | [`Stream`] (0 where the kind has none) |
//! | 6..8 | reserved, zero |
//! | 8..12 | payload length, at most [`MAX_PAYLOAD`] |
//! | 12..16 | CRC-32 (IEEE) of the header with this field zero, followed by the payload that is in the record |
//! | 16..24 | offset of the payload's first byte in its stream |
//! | 24..32 | `CLOCK_MONOTONIC` in nanoseconds, when the bytes were read |
//! | 32..40 | wall time in nanoseconds since the Unix epoch, when the bytes were read |
//! | 40..56 | the attempt's id, ASCII, padded with NUL |
//! | 56..60 | CRC-32 (IEEE) of the payload that is in the file of the stream; 0 where there is none |
//!
//! The offset is what lets a reader prove that nothing is missing and nothing stands twice, and
//! resume by position. A torn last record is the normal end of a spool whose writer was killed, and so is a file of a
//! stream that goes on behind what the records say of it.

use std::fmt;

/// The port on a container's loopback that leads to the guard, where that is its only way out.
pub const EGRESS_PORT: u16 = 3128;
/// Length of a record's header, in bytes.
pub const HEADER_LEN: usize = 60;
/// Largest payload of one record, in bytes.
pub const MAX_PAYLOAD: usize = 1 << 20;
/// Longest attempt id that a record can carry, in bytes.
pub const MAX_ID_LEN: usize = 16;
/// First byte of the handover message that carries the spool's file descriptors: of the records, of standard output, of
/// standard error.
pub const HANDOVER_VERSION: u8 = 2;
/// Number of the signal that makes the helper kill everything at once, drain, and write its exit record.
///
/// It is `SIGRTMIN+1` as glibc and the Docker Engine count; other C libraries begin elsewhere, so only the number means
/// the same everywhere.
pub const KILL_EVERYTHING_SIGNAL: i32 = 35;
/// Number of the signal that means the same: `SIGSTKFLT`, which nothing else sends, for senders that can name no real-time
/// signal.
pub const KILL_EVERYTHING_NAMED: i32 = 16;
/// Exit status of the helper when no supervisor handed it a spool in time; the agent was not started.
pub const EXIT_NO_SUPERVISOR: i32 = 120;
/// Exit status of the helper when its own set-up failed; the agent was not started.
pub const EXIT_HELPER_FAILED: i32 = 121;
/// Exit status of the helper when the spool was removed or could not be written any more; the agent was killed.
pub const EXIT_SPOOL_GONE: i32 = 122;
/// Exit status of the helper when the agent's program could not be executed.
pub const EXIT_EXEC_FAILED: i32 = 127;

const MAGIC: [u8; 4] = *b"DFS2";

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The agent is about to be executed; synced to disk before it is.
    Start,
    /// Bytes read from one stream, which are in the file of that stream.
    Data,
    /// One stream ended.
    Eof,
    /// The agent's program could not be executed; the payload is an [`ExecFailed`].
    ExecFailed,
    /// The agent ended and everything was drained; the payload is an [`ExitRecord`].
    Exit,
    /// From here on bytes of the stream may be missing or inexact, which its offsets do not show; the payload says why,
    /// UTF-8.
    Gap,
    /// The disk is full: the agent is paused from here on, until [`Kind::Room`]; no payload.
    Full,
    /// There is room again; no payload.
    Room,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Start => 1,
            Self::Data => 2,
            Self::Eof => 3,
            Self::ExecFailed => 4,
            Self::Exit => 5,
            Self::Gap => 6,
            Self::Full => 7,
            Self::Room => 8,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Start,
            2 => Self::Data,
            3 => Self::Eof,
            4 => Self::ExecFailed,
            5 => Self::Exit,
            6 => Self::Gap,
            7 => Self::Full,
            8 => Self::Room,
            _ => return None,
        })
    }
}

/// Which of the agent's streams a record belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Stream {
    /// Standard output, and records that belong to no stream.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Both streams, in the order of [`Stream::index`].
    pub const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// Returns 0 for standard output and 1 for standard error.
    pub const fn index(self) -> usize {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
        }
    }
}

/// The attempt's id as a record carries it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RecordId([u8; MAX_ID_LEN]);

impl RecordId {
    /// Packs an ASCII id of at most [`MAX_ID_LEN`] bytes; `None` if it does not fit.
    pub fn new(id: &str) -> Option<Self> {
        if !id.is_ascii() || id.len() > MAX_ID_LEN || id.bytes().any(|b| b == 0) {
            return None;
        }
        let mut bytes = [0; MAX_ID_LEN];
        bytes[..id.len()].copy_from_slice(id.as_bytes());
        Some(Self(bytes))
    }

    /// Returns the id without its padding.
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|&b| b == 0).unwrap_or(MAX_ID_LEN);
        std::str::from_utf8(&self.0[..end]).unwrap_or("")
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordId({:?})", self.as_str())
    }
}

/// The two clocks of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub monotonic_ns: u64,
    /// Wall time in nanoseconds since the Unix epoch.
    pub wall_ns: u64,
}

/// The header of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the record is.
    pub kind: Kind,
    /// The stream that it belongs to.
    pub stream: Stream,
    /// Payload length in bytes.
    pub len: u32,
    /// Offset of the payload's first byte in its stream; for other kinds, the stream's length so far.
    pub offset: u64,
    /// When the bytes were read.
    pub stamp: Stamp,
    /// The attempt that the record belongs to.
    pub id: RecordId,
    crc: u32,
    placed_crc: u32,
}

impl Header {
    /// Returns whether these are the bytes that the record says are in the file of its stream.
    pub fn matches(&self, placed: &[u8]) -> bool {
        placed.len() == self.len as usize && crc32fast::hash(placed) == self.placed_crc
    }

    /// Returns the payload length within the record, in bytes.
    fn inline_len(&self) -> usize {
        match self.kind {
            Kind::Data => 0,
            _ => self.len as usize,
        }
    }
}

/// Encodes the header of a record whose payload is `payload`.
///
/// The payload must be at most [`MAX_PAYLOAD`] bytes; a longer one is for the caller to split.
pub fn encode_header(
    kind: Kind,
    stream: Stream,
    offset: u64,
    stamp: Stamp,
    id: RecordId,
    payload: &[u8],
) -> [u8; HEADER_LEN] {
    debug_assert!(payload.len() <= MAX_PAYLOAD);
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut header = [0; HEADER_LEN];
    header[0..4].copy_from_slice(&MAGIC);
    header[4] = kind.code();
    header[5] = u8::from(stream == Stream::Stderr);
    header[8..12].copy_from_slice(&len.to_le_bytes());
    header[16..24].copy_from_slice(&offset.to_le_bytes());
    header[24..32].copy_from_slice(&stamp.monotonic_ns.to_le_bytes());
    header[32..40].copy_from_slice(&stamp.wall_ns.to_le_bytes());
    header[40..56].copy_from_slice(&id.0);
    let inline = match kind {
        Kind::Data => {
            header[56..60].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
            &[]
        }
        _ => payload,
    };
    let crc = checksum(&header, inline);
    header[12..16].copy_from_slice(&crc.to_le_bytes());
    header
}

fn checksum(header_with_zero_crc: &[u8; HEADER_LEN], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header_with_zero_crc);
    hasher.update(payload);
    hasher.finalize()
}

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// The magic, the kind, the stream or the length is not one that a writer produces.
    Header,
    /// The checksum does not match.
    Checksum,
    /// The checksum of the bytes in the file of the stream does not match.
    Output,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "no record begins there",
            Self::Checksum => "the record's checksum does not match",
            Self::Output => "the output is not what its record says",
        })
    }
}

/// What stands at the start of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A whole record and the bytes that it takes.
    Record {
        /// The record's header.
        header: Header,
        /// The payload that is in the record: none of [`Kind::Data`].
        payload: &'a [u8],
        /// The record's length, in bytes.
        consumed: usize,
    },
    /// The buffer ends inside a record; `needed` is the least total length that can say more.
    Partial {
        /// Bytes needed from the start of the record.
        needed: usize,
    },
    /// The bytes are not a record.
    Damaged(Damage),
}

/// Decodes the record at the start of `bytes`.
pub fn decode(bytes: &[u8]) -> Decoded<'_> {
    let Some(raw) = bytes.first_chunk::<HEADER_LEN>() else {
        return Decoded::Partial { needed: HEADER_LEN };
    };
    let Some(header) = parse_header(raw) else {
        return Decoded::Damaged(Damage::Header);
    };
    let consumed = HEADER_LEN + header.inline_len();
    let Some(payload) = bytes.get(HEADER_LEN..consumed) else {
        return Decoded::Partial { needed: consumed };
    };
    let mut zeroed = *raw;
    zeroed[12..16].fill(0);
    if checksum(&zeroed, payload) != header.crc {
        return Decoded::Damaged(Damage::Checksum);
    }
    Decoded::Record {
        header,
        payload,
        consumed,
    }
}

fn parse_header(raw: &[u8; HEADER_LEN]) -> Option<Header> {
    if raw[0..4] != MAGIC || raw[6..8] != [0, 0] {
        return None;
    }
    let stream = match raw[5] {
        0 => Stream::Stdout,
        1 => Stream::Stderr,
        _ => return None,
    };
    let len = u32::from_le_bytes(array(&raw[8..12]));
    if len as usize > MAX_PAYLOAD {
        return None;
    }
    Some(Header {
        kind: Kind::from_code(raw[4])?,
        stream,
        len,
        crc: u32::from_le_bytes(array(&raw[12..16])),
        offset: u64::from_le_bytes(array(&raw[16..24])),
        stamp: Stamp {
            monotonic_ns: u64::from_le_bytes(array(&raw[24..32])),
            wall_ns: u64::from_le_bytes(array(&raw[32..40])),
        },
        id: RecordId(array(&raw[40..56])),
        placed_crc: u32::from_le_bytes(array(&raw[56..60])),
    })
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(bytes);
    out
}

/// How the agent's main process ended, as its parent saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It returned this exit code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

/// Payload of an [`Kind::Exit`] record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitRecord {
    /// How the main process ended.
    pub end: End,
    /// Bytes read from each stream, by [`Stream::index`].
    pub totals: [u64; 2],
    /// Whether each stream was read to its end, by [`Stream::index`].
    pub eof: [bool; 2],
    /// CPU time in user mode of the main process and all descendants that were waited for, in microseconds.
    pub user_us: u64,
    /// CPU time in kernel mode of the same processes, in microseconds.
    pub system_us: u64,
    /// Largest resident set of any one of these processes, in bytes.
    pub max_rss: u64,
    /// Peak memory of the container's cgroup in bytes, where it could be read.
    pub peak_memory: Option<u64>,
    /// Processes of the container's cgroup that the kernel killed for lack of memory, where it could be read.
    pub oom_kills: Option<u64>,
    /// The name of the last of them that was a child of the helper, as the kernel had it: 15 bytes at most, and whatever
    /// the process chose.
    pub oom_victim: Option<String>,
    /// Processes that outlived the main process and were killed.
    pub leftovers: u64,
    /// What was done to the main process before it ended, to end it, if anything was.
    pub intervention: Option<Intervention>,
    /// How long before the end that was, in milliseconds.
    pub intervention_age_ms: u64,
    /// The signals that came from outside before the end and were passed on: bit N for signal N.
    pub signals: u64,
}

/// What was done to the agent's main process from outside, or by the helper on its own account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intervention {
    /// This signal came from outside the container and was passed on.
    Signal(i32),
    /// [`KILL_EVERYTHING_SIGNAL`] came from outside the container.
    Kill,
    /// The log reached its limit, and the helper killed everything.
    LogLimit,
}

impl Intervention {
    const fn code(self) -> u64 {
        match self {
            // Signal numbers are 1 to 64.
            Self::Signal(signal) => signal.cast_unsigned() as u64,
            Self::Kill => 1000,
            Self::LogLimit => 1001,
        }
    }

    fn from_code(code: u64) -> Option<Self> {
        match code {
            1..=64 => i32::try_from(code).ok().map(Self::Signal),
            1000 => Some(Self::Kill),
            1001 => Some(Self::LogLimit),
            _ => None,
        }
    }
}

impl ExitRecord {
    /// Returns whether a signal came from outside before the end.
    pub fn has_signal(&self, signal: i32) -> bool {
        u32::try_from(signal).is_ok_and(|bit| bit < u64::BITS && self.signals >> bit & 1 == 1)
    }

    /// Length of version 1, which has nothing of interventions and signals.
    const LEN_1: usize = 4 + 8 * 9;
    const LEN: usize = Self::LEN_1 + 8 * 3;
    /// Length of the name behind version 2: an earlier reader leaves it, an earlier helper writes none.
    const NAME_LEN: usize = 16;

    /// Encodes the record's payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::LEN + Self::NAME_LEN);
        let (tag, value) = match self.end {
            End::Code(code) => (0_u8, code),
            End::Signal(signal) => (1, signal),
        };
        let flags = u8::from(self.eof[0])
            | u8::from(self.eof[1]) << 1
            | u8::from(self.peak_memory.is_some()) << 2
            | u8::from(self.oom_kills.is_some()) << 3
            | u8::from(self.oom_victim.is_some()) << 4;
        out.extend([2, tag, flags, 0]);
        out.extend(i64::from(value).to_le_bytes());
        for number in [
            self.totals[0],
            self.totals[1],
            self.user_us,
            self.system_us,
            self.max_rss,
            self.peak_memory.unwrap_or(0),
            self.oom_kills.unwrap_or(0),
            self.leftovers,
            self.intervention.map_or(0, Intervention::code),
            self.intervention_age_ms,
            self.signals,
        ] {
            out.extend(number.to_le_bytes());
        }
        let mut name = [0; Self::NAME_LEN];
        let victim = self.oom_victim.iter().flat_map(|victim| victim.bytes());
        name.iter_mut()
            .zip(victim)
            .for_each(|(to, from)| *to = from);
        out.extend(name);
        out
    }

    /// Decodes a payload; `None` if it is not an exit record of a known version.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let length = match payload.first()? {
            1 => Self::LEN_1,
            2 => Self::LEN,
            _ => return None,
        };
        let behind = payload.get(length..)?;
        let payload = &payload[..length];
        let is_whole = length == Self::LEN;
        let number = |i: usize| u64::from_le_bytes(array(&payload[4 + 8 * i..12 + 8 * i]));
        let value = i32::try_from(number(0).cast_signed()).ok()?;
        let flag = |bit: u8| payload[2] & (1 << bit) != 0;
        Some(Self {
            end: match payload[1] {
                0 => End::Code(value),
                1 => End::Signal(value),
                _ => return None,
            },
            totals: [number(1), number(2)],
            eof: [flag(0), flag(1)],
            user_us: number(3),
            system_us: number(4),
            max_rss: number(5),
            peak_memory: flag(2).then(|| number(6)),
            oom_kills: flag(3).then(|| number(7)),
            oom_victim: behind
                .first_chunk::<{ Self::NAME_LEN }>()
                .filter(|_| is_whole && flag(4))
                .map(|name| text(name)),
            leftovers: number(8),
            intervention: is_whole
                .then(|| Intervention::from_code(number(9)))
                .flatten(),
            intervention_age_ms: if is_whole { number(10) } else { 0 },
            signals: if is_whole { number(11) } else { 0 },
        })
    }
}

/// Returns the text in front of the first zero.
fn text(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// Payload of an [`Kind::ExecFailed`] record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecFailed {
    /// The operating system's error number.
    pub errno: i32,
    /// The program that could not be executed, as it was asked for.
    pub program: String,
}

impl ExecFailed {
    /// Encodes the record's payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.errno.to_le_bytes().to_vec();
        out.extend(self.program.bytes().take(MAX_PAYLOAD / 2));
        out
    }

    /// Decodes a payload; `None` if it is too short.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let (errno, program) = payload.split_first_chunk::<4>()?;
        Some(Self {
            errno: i32::from_le_bytes(*errno),
            program: String::from_utf8_lossy(program).into_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(payload: &[u8]) -> Vec<u8> {
        let id = RecordId::new("k3v9x2m7qa1b-1").unwrap();
        let stamp = Stamp {
            monotonic_ns: 7,
            wall_ns: 9,
        };
        let mut out = encode_header(Kind::Gap, Stream::Stderr, 42, stamp, id, payload).to_vec();
        out.extend(payload);
        out
    }

    proptest! {
        #[test]
        fn any_record_decodes_to_what_was_encoded(payload in proptest::collection::vec(any::<u8>(), 0..3000), tail in any::<[u8; 3]>()) {
            let mut bytes = record(&payload);
            let len = bytes.len();
            bytes.extend(tail);

            let Decoded::Record { header, payload: decoded, consumed } = decode(&bytes) else { panic!("no record") };

            prop_assert_eq!(decoded, &payload[..]);
            prop_assert_eq!(consumed, len);
            prop_assert_eq!((header.kind, header.stream, header.offset), (Kind::Gap, Stream::Stderr, 42));
            prop_assert_eq!(header.id.as_str(), "k3v9x2m7qa1b-1");
        }

        #[test]
        fn a_record_cut_anywhere_is_partial(payload in proptest::collection::vec(any::<u8>(), 0..300), cut in 0.0..1.0_f64) {
            let bytes = record(&payload);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a small length")]
            let cut = (bytes.len() as f64 * cut) as usize;

            let Decoded::Partial { needed } = decode(&bytes[..cut]) else { panic!("not partial at {cut}") };
            prop_assert!(needed > cut);
        }

        #[test]
        fn a_flipped_bit_is_never_taken_for_the_record(payload in proptest::collection::vec(any::<u8>(), 1..200), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let mut bytes = record(&payload);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;

            let taken = matches!(decode(&bytes), Decoded::Record { .. });
            prop_assert!(!taken);
        }

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _decoded = decode(&bytes);
            let _exit = ExitRecord::decode(&bytes);
            let _exec = ExecFailed::decode(&bytes);
        }
    }

    #[test]
    fn what_the_agent_printed_is_not_in_its_record_and_is_known_by_it() {
        let id = RecordId::new("k3v9x2m7qa1b-1").unwrap();
        let header = encode_header(
            Kind::Data,
            Stream::Stdout,
            7,
            Stamp::default(),
            id,
            b"printed",
        );

        let Decoded::Record {
            header,
            payload,
            consumed,
        } = decode(&header)
        else {
            panic!("no record")
        };

        assert_eq!((header.len, payload, consumed), (7, &b""[..], HEADER_LEN));
        assert!(header.matches(b"printed"));
        assert!(!header.matches(b"printeD"));
        assert!(!header.matches(b"print"));
    }

    #[test]
    fn an_exit_record_round_trips() {
        let record = ExitRecord {
            end: End::Signal(9),
            totals: [1 << 40, 3],
            eof: [true, false],
            user_us: 5,
            system_us: 6,
            max_rss: 7,
            peak_memory: Some(8),
            oom_kills: None,
            oom_victim: None,
            leftovers: 2,
            intervention: Some(Intervention::Signal(15)),
            intervention_age_ms: 70,
            signals: 1 << 15 | 1 << 10,
        };

        assert_eq!(ExitRecord::decode(&record.encode()), Some(record));
    }

    #[test]
    fn an_exit_record_of_an_older_helper_is_read() {
        let record = ExitRecord {
            end: End::Code(3),
            totals: [1, 2],
            eof: [true, true],
            user_us: 0,
            system_us: 0,
            max_rss: 0,
            peak_memory: None,
            oom_kills: None,
            oom_victim: None,
            leftovers: 4,
            intervention: None,
            intervention_age_ms: 0,
            signals: 0,
        };
        let mut version_1 = record.encode();
        version_1[0] = 1;
        version_1.truncate(ExitRecord::LEN_1);

        assert_eq!(ExitRecord::decode(&version_1), Some(record));
    }

    #[test]
    fn an_exit_record_without_the_name_behind_it_is_read() {
        let record = ExitRecord {
            end: End::Signal(9),
            totals: [1, 2],
            eof: [true, true],
            user_us: 0,
            system_us: 0,
            max_rss: 0,
            peak_memory: None,
            oom_kills: Some(1),
            oom_victim: None,
            leftovers: 0,
            intervention: Some(Intervention::Signal(9)),
            intervention_age_ms: 1,
            signals: 1 << 9,
        };
        let whole = record.encode();

        let earlier = ExitRecord::decode(&whole[..ExitRecord::LEN]);

        assert_eq!(earlier.as_ref(), Some(&record));
        assert_eq!(ExitRecord::decode(&whole[..ExitRecord::LEN - 1]), None);
    }

    #[test]
    fn a_negative_exit_code_round_trips() {
        let record = ExitRecord {
            end: End::Code(-1),
            totals: [0, 0],
            eof: [true, true],
            user_us: 0,
            system_us: 0,
            max_rss: 0,
            peak_memory: None,
            oom_kills: Some(1),
            oom_victim: Some("python3".to_owned()),
            leftovers: 0,
            intervention: Some(Intervention::LogLimit),
            intervention_age_ms: 0,
            signals: 0,
        };

        assert_eq!(ExitRecord::decode(&record.encode()), Some(record));
    }

    #[test]
    fn an_id_that_does_not_fit_is_refused() {
        assert_eq!(RecordId::new("seventeen-letters"), None);
        assert_eq!(RecordId::new("é"), None);
    }
}
