//! Where in a log the printing begins.
//!
//! Owns: finding the last lines, and the first one that is not older than a time.
//! Reads: the log, from its end and by halves: it may be large.
//! Never: reads all of it for a part.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use jiff::Timestamp;

/// How much is read at once from the end, and how much is read through rather than halved again.
const BLOCK: u64 = 64 * 1024;

/// The length of a line's time.
const TIME: u64 = "2026-11-28T13:00:00Z".len() as u64;

/// What of a log is printed; all of it unless something is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Excerpt {
    /// Only so many lines of its end.
    pub(crate) tail: Option<u64>,
    /// Only what is not older than this.
    pub(crate) since: Option<Timestamp>,
}

impl Excerpt {
    /// Returns where the excerpt of a log begins. Blocks.
    pub(crate) fn start<F: Read + Seek>(self, log: &mut F) -> io::Result<u64> {
        let tail = self.tail.map(|lines| tail(log, lines)).transpose()?;
        let since = self.since.map(|time| since(log, time)).transpose()?;
        Ok(tail.max(since).unwrap_or(0))
    }
}

/// Returns where the last lines begin.
fn tail<F: Read + Seek>(log: &mut F, lines: u64) -> io::Result<u64> {
    let end = log.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(end);
    }
    let mut left = lines;
    let mut from = end;
    let mut block = Vec::new();
    while from > 0 {
        let to = from;
        from = from.saturating_sub(BLOCK);
        log.seek(SeekFrom::Start(from))?;
        block.clear();
        log.by_ref().take(to - from).read_to_end(&mut block)?;
        for (place, _) in block
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, byte)| **byte == b'\n')
        {
            let next = from + place as u64 + 1;
            // What ends the last line begins no other.
            if next == end {
                continue;
            }
            left -= 1;
            if left == 0 {
                return Ok(next);
            }
        }
    }
    Ok(0)
}

/// Returns where the first line begins that is not older than a time; lines have their time in front, in order.
fn since<F: Read + Seek>(log: &mut F, time: Timestamp) -> io::Result<u64> {
    let end = log.seek(SeekFrom::End(0))?;
    // Lines have whole seconds.
    let second = time.as_second();
    let is_older = |at: Option<Timestamp>| at.is_none_or(|at| at.as_second() < second);
    let (mut low, mut high) = (0, end);
    while high - low > BLOCK {
        let middle = low + (high - low) / 2;
        let line = line_after(log, middle)?;
        if line < high && is_older(time_of(log, line)?) {
            low = line;
        } else {
            high = middle;
        }
    }
    let mut line = low;
    while line < end && is_older(time_of(log, line)?) {
        line = line_after(log, line)?;
    }
    Ok(line)
}

/// Returns where the next line begins after a place; the end of the log if none does.
fn line_after<F: Read + Seek>(log: &mut F, place: u64) -> io::Result<u64> {
    log.seek(SeekFrom::Start(place))?;
    let skipped = BufReader::new(log).skip_until(b'\n')?;
    Ok(place + skipped as u64)
}

/// Returns the time of the line that begins at a place, if it has one.
fn time_of<F: Read + Seek>(log: &mut F, line: u64) -> io::Result<Option<Timestamp>> {
    log.seek(SeekFrom::Start(line))?;
    let mut time = String::new();
    match log.by_ref().take(TIME).read_to_string(&mut time) {
        Ok(_) => Ok(time.parse().ok()),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn rest(log: &str, excerpt: Excerpt) -> String {
        let start = excerpt.start(&mut Cursor::new(log)).unwrap();
        log[usize::try_from(start).unwrap()..].to_owned()
    }

    fn last(log: &str, lines: u64) -> String {
        let excerpt = Excerpt {
            tail: Some(lines),
            since: None,
        };
        rest(log, excerpt)
    }

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    /// A log of one line a second, each of about a kilobyte.
    fn log(lines: i64) -> String {
        let filling = "x".repeat(1000);
        (0..lines)
            .map(|line| format!("{} {line} {filling}\n", second(line)))
            .collect()
    }

    fn first_since(log: &str, time: Timestamp) -> Option<i64> {
        let excerpt = Excerpt {
            tail: None,
            since: Some(time),
        };
        let rest = rest(log, excerpt);
        rest.split(' ').nth(1)?.parse().ok()
    }

    #[test]
    fn the_last_lines_are_whole_whether_or_not_the_last_one_is_ended() {
        assert_eq!(last("a\nb\nc\n", 2), "b\nc\n");
        assert_eq!(last("a\nb\nc", 2), "b\nc");
        assert_eq!(last("a\n\n\n", 2), "\n\n");
        assert_eq!(last("a\nb\n", 9), "a\nb\n");
        assert_eq!(last("a\nb\n", 0), "");
        assert_eq!(last("", 3), "");
        let long = log(500);
        assert_eq!(last(&long, 300).lines().count(), 300);
    }

    #[test]
    fn the_first_line_that_is_not_older_is_found_wherever_it_is() {
        let log = log(500);

        for line in [0, 1, 63, 64, 65, 250, 498, 499] {
            assert_eq!(first_since(&log, second(line)), Some(line));
        }
        assert_eq!(first_since(&log, second(-5)), Some(0));
        assert_eq!(first_since(&log, second(500)), None);
        let within = second(7) + jiff::SignedDuration::from_millis(500);
        assert_eq!(first_since(&log, within), Some(7));
    }

    #[test]
    fn of_two_wishes_the_narrower_counts() {
        let log = log(10);
        let excerpt = |tail, since| Excerpt {
            tail: Some(tail),
            since: Some(second(since)),
        };

        assert_eq!(rest(&log, excerpt(2, 5)).lines().count(), 2);
        assert_eq!(rest(&log, excerpt(8, 5)).lines().count(), 5);
    }
}
