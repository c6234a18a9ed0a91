//! Whether an output that seems to have ended is all that the engine's log has.
//!
//! Owns: the last bytes of each stream and of both, and the comparison.
//! Reads: the end of the log.
//! Never: compares more than the ASCII: a log replaces bytes that are not UTF-8, and splits characters.

use dark_factory_spool::Stream;

use super::dialect::Logged;

/// Bytes of the log's end that are looked for.
const SAMPLE: usize = 4 << 10;
/// Bytes of a copied stream among which they are to be found; the log may be a little behind.
const KEPT: usize = 64 << 10;

/// The last ASCII bytes of an output.
#[derive(Debug, Default)]
pub(super) struct Tail {
    streams: [Vec<u8>; 2],
    /// Those of both streams as they came, without newlines.
    both: Vec<u8>,
}

impl Tail {
    /// Takes note of bytes that follow.
    pub(super) fn push(&mut self, stream: Stream, bytes: &[u8]) {
        let ascii = bytes.iter().filter(|byte| byte.is_ascii());
        keep(&mut self.streams[stream.index()], ascii.clone());
        keep(&mut self.both, ascii.filter(|&&byte| byte != b'\n'));
    }

    /// Returns whether this output has what a log ends with.
    ///
    /// An output of nothing but repetitions may lack some of them and not be noticed.
    pub(super) fn covers(&self, log: &Self, logged: Logged) -> bool {
        match logged {
            Logged::EachStream => {
                let mut streams = self.streams.iter().zip(&log.streams);
                streams.all(|(copied, log)| has_end_of(copied, log))
            }
            Logged::BothMixed => has_end_of(&self.both, &log.both),
        }
    }
}

fn keep<'a>(kept: &mut Vec<u8>, bytes: impl Iterator<Item = &'a u8>) {
    kept.extend(bytes);
    if kept.len() > 2 * KEPT {
        kept.drain(..kept.len() - KEPT);
    }
}

fn has_end_of(copied: &[u8], log: &[u8]) -> bool {
    let sample = &log[log.len().saturating_sub(SAMPLE)..];
    sample.is_empty() || copied.windows(sample.len()).any(|window| window == sample)
}

#[cfg(test)]
mod tests {
    use super::Logged::{BothMixed, EachStream};
    use super::*;

    fn tail(chunks: &[(Stream, &[u8])]) -> Tail {
        let mut tail = Tail::default();
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

        assert!(copied.covers(&tail(&[]), EachStream));
        assert!(copied.covers(&tail(&[(Stream::Stdout, b"two\n")]), EachStream));
        assert!(copied.covers(&tail(&[(Stream::Stdout, b"one\n")]), EachStream));
        assert!(!copied.covers(&tail(&[(Stream::Stdout, b"one\ntwo\nmore\n")]), EachStream));
        assert!(!copied.covers(&tail(&[(Stream::Stderr, b"two\n")]), EachStream));
    }

    #[test]
    fn a_log_that_mixes_streams_is_compared_as_a_whole() {
        let copied = tail(&[(Stream::Stdout, b"one\n"), (Stream::Stderr, b"two\n")]);

        // As Podman has them if the second was printed as "two" and then "\n".
        let mixed = tail(&[(Stream::Stdout, b"onetwo\n"), (Stream::Stderr, b"\n")]);
        assert!(copied.covers(&mixed, BothMixed) && !copied.covers(&mixed, EachStream));
        let more = tail(&[(Stream::Stdout, b"onetwo\n"), (Stream::Stderr, b"\nmore\n")]);
        assert!(!copied.covers(&more, BothMixed));
    }

    #[test]
    fn what_a_log_does_to_bytes_that_are_no_text_is_no_difference() {
        let copied = tail(&[
            (Stream::Stdout, b"a\x00\xff\x80\xc3"),
            (Stream::Stdout, b"\xa9b\n"),
        ]);

        assert!(copied.covers(
            &tail(&[(Stream::Stdout, "a\0\u{fffd}\u{fffd}éb\n".as_bytes())]),
            EachStream
        ));
    }

    #[test]
    fn of_a_long_output_only_the_end_is_kept() {
        let long = b"0123456789abcde\n".repeat(20_000);
        let mut copied = tail(&[(Stream::Stdout, &long)]);

        assert!(copied.covers(&tail(&[(Stream::Stdout, &long)]), EachStream));
        assert!(copied.streams[0].len() <= 2 * KEPT);
        copied.push(Stream::Stdout, b"end");
        assert!(copied.covers(&tail(&[(Stream::Stdout, b"\nend")]), EachStream));
        assert!(!copied.covers(&tail(&[(Stream::Stdout, b"\nends")]), EachStream));
    }
}
