//! Where an attempt's output goes besides its own files.
//!
//! Owns: the sink contract, and the sink that copies to files of the caller's.
//! Reads: nothing.
//! Never: holds up the agent, which writes to its spool; a sink whose other end may be slow drops and counts.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use dark_factory_agents::{LineContent, LineSplitter, Mask, SeedFormatter, SplitLine};
use dark_factory_types::Event;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Receives what an attempt prints, in order, on the attempt's own thread.
pub trait Sink: Send {
    /// Learns what hides the run's secrets, before anything comes; events have none, bytes are as they were printed.
    fn hide(&mut self, mask: &Mask) {
        let _unused = mask;
    }

    /// Receives bytes of standard output, as they were printed at `at`.
    fn stdout(&mut self, bytes: &[u8], at: Timestamp) {
        let _unused = (bytes, at);
    }

    /// Receives bytes of standard error, as they were printed at `at`.
    fn stderr(&mut self, bytes: &[u8], at: Timestamp) {
        let _unused = (bytes, at);
    }

    /// Receives a decoded event.
    fn event(&mut self, event: &Event) {
        let _unused = event;
    }

    /// Learns that nothing more comes; returns what a person should know, such as a number of dropped events.
    fn finish(&mut self) -> Option<String> {
        None
    }
}

/// Copies an attempt's output to a log in the seed's format and its raw `.jsonl` twin.
///
/// As in the seed, lines of standard error stand in the log as they are, and not in the twin. The run's secrets are
/// hidden in the log, not in the twin.
#[derive(Debug)]
pub struct LogFileSink {
    raw: BufWriter<File>,
    formatted: BufWriter<File>,
    splitter: LineSplitter,
    errors: LineSplitter,
    formatter: SeedFormatter,
    zone: TimeZone,
    last: Timestamp,
    mask: Mask,
    failure: Option<io::Error>,
}

impl LogFileSink {
    /// Creates or truncates both files; missing folders are made.
    ///
    /// `zone` is the time zone of the log's time stamps.
    ///
    /// # Errors
    ///
    /// The operating system's error, with the path that it is about.
    pub fn create(log_file: &Path, zone: TimeZone) -> io::Result<Self> {
        if let Some(folder) = log_file.parent() {
            std::fs::create_dir_all(folder).map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("create log directory {}: {error}", folder.display()),
                )
            })?;
        }
        Ok(Self {
            raw: open(&raw_twin(log_file))?,
            formatted: open(log_file)?,
            splitter: LineSplitter::new(),
            errors: LineSplitter::new(),
            formatter: SeedFormatter::new(zone.clone()),
            zone,
            last: Timestamp::UNIX_EPOCH,
            mask: Mask::default(),
            failure: None,
        })
    }
}

/// Returns the raw log's path beside a log: the extension replaced by `jsonl`, or appended.
pub fn raw_twin(log_file: &Path) -> PathBuf {
    log_file.with_extension("jsonl")
}

fn open(path: &Path) -> io::Result<BufWriter<File>> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    file.map(BufWriter::new).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("open log file {}: {error}", path.display()),
        )
    })
}

impl LogFileSink {
    fn time(&self) -> String {
        self.zone
            .to_datetime(self.last)
            .strftime("%H:%M:%S")
            .to_string()
    }

    fn write(&mut self, raw: &[u8], formatted: &[u8]) {
        let written = self
            .raw
            .write_all(raw)
            .and_then(|()| match self.mask.is_empty() {
                true => self.formatted.write_all(formatted),
                false => {
                    let text = String::from_utf8_lossy(formatted);
                    self.formatted.write_all(self.mask.text(&text).as_bytes())
                }
            })
            .and_then(|()| self.raw.flush())
            .and_then(|()| self.formatted.flush());
        if let Err(error) = written {
            self.failure.get_or_insert(error);
        }
    }
}

impl Sink for LogFileSink {
    fn hide(&mut self, mask: &Mask) {
        self.mask = mask.clone();
    }

    fn stdout(&mut self, bytes: &[u8], at: Timestamp) {
        self.last = at;
        let time = self.time();
        let formatter = &mut self.formatter;
        let mut text = Vec::new();
        self.splitter
            .feed(bytes, |line| formatter.write(&line, &time, &mut text));
        self.write(bytes, &text);
    }

    fn stderr(&mut self, bytes: &[u8], _at: Timestamp) {
        let mut text = Vec::new();
        self.errors
            .feed(bytes, |line| append_as_it_is(&line, &mut text));
        self.write(&[], &text);
    }

    fn finish(&mut self) -> Option<String> {
        let time = self.time();
        let formatter = &mut self.formatter;
        let mut text = Vec::new();
        self.errors.finish(|line| append_as_it_is(&line, &mut text));
        self.splitter
            .finish(|line| formatter.write(&line, &time, &mut text));
        self.write(&[], &text);
        self.failure
            .take()
            .map(|error| format!("the copies of the log are not whole: {error}"))
    }
}

fn append_as_it_is(line: &SplitLine<'_>, text: &mut Vec<u8>) {
    if let LineContent::Whole(bytes) = line.content {
        text.extend_from_slice(bytes);
        text.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_for_people_has_no_secret_and_the_raw_one_is_byte_exact() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("042.log");
        let mut sink = LogFileSink::create(&log, TimeZone::UTC).unwrap();

        sink.hide(&Mask::new(["s3cr3t-value"]));
        sink.stdout(b"it is s3cr3t-", Timestamp::UNIX_EPOCH);
        sink.stdout(b"value\n", Timestamp::UNIX_EPOCH);
        sink.stderr(b"s3cr3t-value\n", Timestamp::UNIX_EPOCH);
        assert_eq!(sink.finish(), None);

        let raw = std::fs::read_to_string(raw_twin(&log)).unwrap();
        assert_eq!(raw, "it is s3cr3t-value\n");
        let shown = std::fs::read_to_string(&log).unwrap();
        assert_eq!(shown, "[00:00:00] it is ***\n***\n");
    }

    #[test]
    fn the_raw_log_has_the_extension_jsonl() {
        for (log, raw) in [
            ("a/042.log", "a/042.jsonl"),
            ("a/042", "a/042.jsonl"),
            ("/t/x.txt", "/t/x.jsonl"),
        ] {
            assert_eq!(raw_twin(Path::new(log)), Path::new(raw));
        }
    }
}
