//! Whether an output that seems to have ended is all that the engine's log has.
//!
//! Owns: the last bytes of each stream, or of both, and the comparison.
//! Reads: the end of the log.
//! Never: compares more than the ASCII: a log replaces bytes that are not UTF-8, and splits characters.

use dark_factory_spool::Stream;

use super::dialect::Logged;

/// Bytes of the log's end that are looked for.
const SAMPLE: usize = 4 << 10;
/// Bytes of a copied stream among which they are to be found; the log may be a little behind.
const KEPT: usize = 64 << 10;

/// The last ASCII bytes of an output, as far as they are compared.
#[derive(Debug)]
pub(super) struct Tail {
    logged: Logged,
    /// Where a log mixes them, those of both are in the first, as they came, without newlines.
    streams: [Vec<u8>; 2],
}

impl Tail {
    /// Returns that of nothing, for an engine whose log is like this.
    pub(super) fn new(logged: Logged) -> Self {
        Self {
            logged,
            streams: Default::default(),
        }
    }

    /// Takes note of bytes that follow.
    pub(super) fn push(&mut self, stream: Stream, bytes: &[u8]) {
        let (place, has_newlines) = match self.logged {
            Logged::EachStream => (stream.index(), true),
            Logged::BothMixed => (0, false),
        };
        let kept = &mut self.streams[place];
        let is_compared = |byte: &&u8| byte.is_ascii() && (has_newlines || **byte != b'\n');
        kept.extend(bytes.iter().filter(is_compared));
        if kept.len() > 2 * KEPT {
            kept.drain(..kept.len() - KEPT);
        }
    }

    /// Returns whether this output has what a log ends with.
    ///
    /// An output of nothing but repetitions may lack some of them and not be noticed.
    pub(super) fn covers(&self, log: &Self) -> bool {
        self.streams.iter().zip(&log.streams).all(|(copied, log)| {
            let sample = &log[log.len().saturating_sub(SAMPLE)..];
            sample.is_empty() || copied.windows(sample.len()).any(|window| window == sample)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Logged::{BothMixed, EachStream};
    use super::*;

    fn tail(chunks: &[(Stream, &[u8])]) -> Tail {
        tail_for(EachStream, chunks)
    }

    fn tail_for(logged: Logged, chunks: &[(Stream, &[u8])]) -> Tail {
        let mut tail = Tail::new(logged);
        for (stream, bytes) in chunks {
            tail.push(*stream, bytes);
        }
        tail
    }

    #[test]
    fn a_copy_covers_a_log_that_ends_where_it_does_or_earlier() {
        let copied = tail(&[
            (Stream::Stdout, b"one\ntwo\n"),
            (Stream::Stderr, b"three\n"),
        ]);

        assert!(copied.covers(&tail(&[])));
        assert!(copied.covers(&tail(&[(Stream::Stdout, b"two\n")])));
        assert!(copied.covers(&tail(&[(Stream::Stdout, b"one\n")])));
        assert!(!copied.covers(&tail(&[(Stream::Stdout, b"one\ntwo\nmore\n")])));
        assert!(!copied.covers(&tail(&[(Stream::Stderr, b"two\n")])));
    }

    #[test]
    fn a_log_that_mixes_streams_is_compared_as_a_whole() {
        let printed = [(Stream::Stdout, &b"one\n"[..]), (Stream::Stderr, b"two\n")];
        // As Podman has them if the second was printed as "two" and then "\n".
        let mixed = [(Stream::Stdout, &b"onetwo\n"[..]), (Stream::Stderr, b"\n")];
        let more = [
            (Stream::Stdout, &b"onetwo\n"[..]),
            (Stream::Stderr, b"\nmore\n"),
        ];

        let copied = tail_for(BothMixed, &printed);
        assert!(copied.covers(&tail_for(BothMixed, &mixed)));
        assert!(!tail(&printed).covers(&tail(&mixed)));
        assert!(!copied.covers(&tail_for(BothMixed, &more)));
    }

    #[test]
    fn what_a_log_does_to_bytes_that_are_no_text_is_no_difference() {
        let copied = tail(&[
            (Stream::Stdout, b"a\x00\xff\x80\xc3"),
            (Stream::Stdout, b"\xa9b\n"),
        ]);

        assert!(copied.covers(&tail(&[(
            Stream::Stdout,
            "a\0\u{fffd}\u{fffd}éb\n".as_bytes()
        )])));
    }

    #[test]
    fn of_a_long_output_only_the_end_is_kept() {
        let long = b"0123456789abcde\n".repeat(20_000);
        let mut copied = tail(&[(Stream::Stdout, &long)]);

        assert!(copied.covers(&tail(&[(Stream::Stdout, &long)])));
        assert!(copied.streams[0].len() <= 2 * KEPT);
        copied.push(Stream::Stdout, b"end");
        assert!(copied.covers(&tail(&[(Stream::Stdout, b"\nend")])));
        assert!(!copied.covers(&tail(&[(Stream::Stdout, b"\nends")])));
    }
}
