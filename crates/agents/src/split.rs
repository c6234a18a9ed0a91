//! Cuts a stream of raw chunks into lines.
//!
//! Owns: the part of a line that has not ended yet, and the position in the stream.
//! Reads: bytes, in whatever pieces they come.
//! Never: looks into a line, or holds more than the decode cap.

use memchr::memchr;

/// The longest line that is decoded, in bytes; a longer one is only measured.
pub const DECODE_CAP: usize = 16 << 20;

/// A buffer that grew beyond this is given back after its line.
const KEEP: usize = 64 << 10;

/// How a line ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineEnd {
    /// With a newline, or a carriage return and a newline.
    Newline,
    /// With the stream: it may be only the beginning of a line.
    StreamEnd,
}

/// What a line consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineContent<'a> {
    /// Its bytes, without the line end.
    Whole(&'a [u8]),
    /// It is longer than the cap.
    TooLong,
}

/// One line of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitLine<'a> {
    /// Offset of its first byte in the stream.
    pub offset: u64,
    /// Its length in bytes, without the line end.
    pub len: u64,
    /// Its bytes.
    pub content: LineContent<'a>,
    /// How it ended.
    pub end: LineEnd,
}

/// Cuts chunks into lines: the same lines, however the bytes are chunked.
///
/// A line ends with `\n`; one `\r` before it, or before the end of the stream, belongs to the line
/// end. Holds at most the cap and one byte; a line wholly inside a chunk is not copied.
#[derive(Debug, Clone)]
pub struct LineSplitter {
    carry: Vec<u8>,
    offset: u64,
    len: u64,
    last: u8,
    cap: usize,
}

impl Default for LineSplitter {
    fn default() -> Self {
        Self::new()
    }
}

impl LineSplitter {
    /// Makes a splitter at the beginning of a stream, with [`DECODE_CAP`].
    pub fn new() -> Self {
        Self::with_cap(DECODE_CAP)
    }

    /// Makes a splitter for which lines of more than `cap` bytes are too long.
    pub fn with_cap(cap: usize) -> Self {
        Self {
            carry: Vec::new(),
            offset: 0,
            len: 0,
            last: 0,
            cap,
        }
    }

    /// Takes the next bytes and hands over each line that they complete.
    pub fn feed(&mut self, chunk: &[u8], mut sink: impl FnMut(SplitLine<'_>)) {
        let mut rest = chunk;
        while let Some(end) = memchr(b'\n', rest) {
            let (line, tail) = rest.split_at(end);
            if self.len == 0 {
                let line = whole(line, self.offset, self.cap, LineEnd::Newline);
                sink(line);
                self.offset += to_u64(end) + 1;
            } else {
                self.keep(line);
                self.hand_over(LineEnd::Newline, &mut sink);
                self.offset += 1;
            }
            rest = &tail[1..];
        }
        self.keep(rest);
    }

    /// Ends the stream and hands over the last line, if it has no line end.
    pub fn finish(&mut self, mut sink: impl FnMut(SplitLine<'_>)) {
        if self.len > 0 {
            self.hand_over(LineEnd::StreamEnd, &mut sink);
        }
    }

    /// Returns the offset in the stream up to which every line was handed over.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the beginning of a line that has not ended yet; `None` if it was too long to be held.
    pub(crate) fn held(&self) -> Option<&[u8]> {
        (to_u64(self.carry.len()) == self.len).then_some(&self.carry)
    }

    /// Goes on at `offset` with a line whose beginning is `held`.
    pub(crate) fn resume(&mut self, offset: u64, held: &[u8]) {
        *self = Self::with_cap(self.cap);
        self.offset = offset;
        self.keep(held);
    }

    fn keep(&mut self, part: &[u8]) {
        let Some(&last) = part.last() else { return };
        self.last = last;
        self.len += to_u64(part.len());
        // One byte more than the cap, because it may be the carriage return of the line end.
        let limit = self.cap.saturating_add(1);
        if self.len > to_u64(limit) {
            self.carry = Vec::new();
            return;
        }
        let needed = self.carry.len() + part.len();
        if needed > self.carry.capacity() {
            let target = (self.carry.capacity() * 2).clamp(needed, limit.max(needed));
            self.carry.reserve_exact(target - self.carry.len());
        }
        self.carry.extend_from_slice(part);
    }

    fn hand_over(&mut self, end: LineEnd, sink: &mut impl FnMut(SplitLine<'_>)) {
        if to_u64(self.carry.len()) == self.len {
            sink(whole(&self.carry, self.offset, self.cap, end));
        } else {
            sink(SplitLine {
                offset: self.offset,
                len: self.len - u64::from(self.last == b'\r'),
                content: LineContent::TooLong,
                end,
            });
        }
        self.offset += self.len;
        self.len = 0;
        self.carry.clear();
        if self.carry.capacity() > KEEP {
            self.carry = Vec::new();
        }
    }
}

fn whole(line: &[u8], offset: u64, cap: usize, end: LineEnd) -> SplitLine<'_> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let content = if line.len() > cap {
        LineContent::TooLong
    } else {
        LineContent::Whole(line)
    };
    SplitLine {
        offset,
        len: to_u64(line.len()),
        content,
        end,
    }
}

/// Widens a length; `usize` is never wider than 64 bits here.
pub(crate) fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Owned = (u64, u64, Option<Vec<u8>>, LineEnd);

    fn split<'a>(cap: usize, chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Owned> {
        let mut splitter = LineSplitter::with_cap(cap);
        let mut lines = Vec::new();
        let mut sink = |line: SplitLine<'_>| {
            let content = match line.content {
                LineContent::Whole(bytes) => Some(bytes.to_vec()),
                LineContent::TooLong => None,
            };
            lines.push((line.offset, line.len, content, line.end));
        };
        for chunk in chunks {
            splitter.feed(chunk, &mut sink);
        }
        splitter.finish(&mut sink);
        lines
    }

    fn texts(cap: usize, chunks: &[&[u8]]) -> Vec<String> {
        split(cap, chunks.iter().copied())
            .into_iter()
            .map(|(offset, len, content, end)| {
                let text = content.map_or_else(
                    || "too long".to_owned(),
                    |bytes| String::from_utf8_lossy(&bytes).into_owned(),
                );
                let open = if end == LineEnd::StreamEnd { "…" } else { "" };
                format!("{offset}+{len} {text}{open}")
            })
            .collect()
    }

    #[test]
    fn a_line_cut_in_half_is_one_line() {
        assert_eq!(texts(99, &[b"ab", b"c\nd", b"\n"]), ["0+3 abc", "4+1 d"]);
    }

    #[test]
    fn a_line_end_may_be_crlf_and_may_be_cut() {
        assert_eq!(
            texts(99, &[b"a\r", b"\nb\r\r\n", b"\r\n", b"c\rd\n"]),
            ["0+1 a", "3+2 b\r", "7+0 ", "9+3 c\rd"]
        );
    }

    #[test]
    fn the_last_line_needs_no_newline() {
        assert_eq!(texts(99, &[b"a\nb"]), ["0+1 a", "2+1 b…"]);
        assert_eq!(texts(99, &[b"a\n"]), ["0+1 a"]);
        assert_eq!(texts(99, &[]), [""; 0]);
    }

    #[test]
    fn nul_and_half_a_character_are_bytes_like_any_other() {
        let lines = split(99, [&b"\0\xe2\x82"[..], &b"\xac\xff\n"[..]]);

        assert_eq!(lines[0].2.as_deref(), Some(&b"\0\xe2\x82\xac\xff"[..]));
    }

    #[test]
    fn a_line_over_the_cap_is_measured_and_the_next_one_is_whole() {
        assert_eq!(
            texts(4, &[b"abcd\r\nabcde\n", b"abc", b"def\r", b"\nx\n"]),
            ["0+4 abcd", "6+5 too long", "12+6 too long", "20+1 x"]
        );
        assert_eq!(texts(4, &[b"abcd", b"\r", b"\n"]), ["0+4 abcd"]);
    }

    #[test]
    fn a_long_line_costs_no_more_memory_than_the_cap() {
        let chunk = vec![b'x'; 1000];
        let mut splitter = LineSplitter::with_cap(10_000);
        let mut most = 0;

        for _ in 0..100 {
            splitter.feed(&chunk, |_| {});
            most = most.max(splitter.carry.capacity());
        }

        assert!(most <= 10_001, "{most}");
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_lines(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..200),
            cuts in proptest::collection::vec(0usize..200, 0..20),
            cap in 0usize..40,
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);

            let lines = split(cap, chunks);

            prop_assert_eq!(&lines, &split(cap, [&bytes[..]]));
            for (offset, len, content, _) in lines {
                let start = usize::try_from(offset).unwrap();
                let end = start + usize::try_from(len).unwrap();
                if let Some(content) = content {
                    prop_assert_eq!(&bytes[start..end], &content[..]);
                }
            }
        }
    }
}
