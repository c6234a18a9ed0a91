//! Deterministic test output: the bytes of the scripts' `spew` and `line` commands.
//!
//! Owns: what line number N looks like.
//! Reads: nothing.
//! Never: buffers more than one line.

use std::io::{self, Write};

/// Length of a `spew` line where the script names none, in bytes, newline included.
pub const DEFAULT_LINE_LENGTH: usize = 80;

const ALPHABET: &[u8; 26] = b"abcdefghijklmnopqrstuvwxyz";

/// Returns exactly `size` bytes of numbered lines, each `line_length` bytes long including its newline.
///
/// Line N is N as twelve digits, a space, the alphabet over and over beginning at letter N mod 26, and a newline.
/// A length under 14 cuts the number; a length of 0 counts as 1. The last line is cut to fit `size`.
pub fn spew(size: u64, line_length: usize) -> Vec<u8> {
    let mut out = Vec::new();
    // Writing to a vector cannot fail.
    let _written = write_spew(&mut out, size, line_length);
    out
}

/// Writes what [`spew`] returns, one line at a time.
///
/// # Errors
///
/// Whatever `out` fails with.
pub fn write_spew(out: &mut impl Write, size: u64, line_length: usize) -> io::Result<()> {
    let text_length = line_length.max(1) - 1;
    let mut line = Vec::with_capacity(text_length + 1);
    // Enough to begin at any letter.
    let letters = ALPHABET.repeat(text_length / ALPHABET.len() + 2);
    let mut left = size;
    for (number, first_letter) in (0_u64..).zip((0..ALPHABET.len()).cycle()) {
        if left == 0 {
            break;
        }
        line.clear();
        write!(line, "{number:012} ")?;
        let more = text_length.saturating_sub(line.len());
        line.extend_from_slice(&letters[first_letter..][..more]);
        line.truncate(text_length);
        line.push(b'\n');
        let whole = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if left < whole {
            line.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        }
        out.write_all(&line)?;
        left = left.saturating_sub(whole);
    }
    Ok(())
}

/// Returns one line: `size` letters and a newline.
pub fn long_line(size: u64) -> Vec<u8> {
    let mut out = Vec::new();
    // Writing to a vector cannot fail.
    let _written = write_long_line(&mut out, size);
    out
}

/// Writes what [`long_line`] returns, in small pieces.
///
/// # Errors
///
/// Whatever `out` fails with.
pub fn write_long_line(out: &mut impl Write, size: u64) -> io::Result<()> {
    let piece = ALPHABET.repeat(1024);
    let mut left = size;
    while left > 0 {
        let take = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
        out.write_all(&piece[..take])?;
        left -= u64::try_from(take).unwrap_or(left);
    }
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbered_and_of_the_length_asked_for() {
        assert_eq!(spew(40, 20), b"000000000000 abcdef\n000000000001 bcdefg\n");
    }

    #[test]
    fn the_last_line_is_cut_to_the_size() {
        assert_eq!(spew(23, 20), b"000000000000 abcdef\n000");
        assert_eq!(spew(4, 1), b"\n\n\n\n");
        assert!(spew(0, 80).is_empty());
    }

    #[test]
    fn a_long_line_has_one_newline_at_its_end() {
        let line = long_line(100_000);

        assert_eq!(line.len(), 100_001);
        assert_eq!(line.iter().position(|&b| b == b'\n'), Some(100_000));
    }
}
