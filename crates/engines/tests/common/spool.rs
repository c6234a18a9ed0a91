//! What an attempt's spool holds.
//!
//! Owns: nothing.
//! Reads: the spool and the two logs beside it.
//! Never: waits for more.

use dark_factory_executor::spec::AttemptDir;
use dark_factory_executor::spool::SpoolReader;
use dark_factory_spool::{ExecFailed, ExitRecord, Kind};

/// Everything that a spool holds.
#[derive(Debug, Default)]
pub(crate) struct Spool {
    pub(crate) starts: usize,
    pub(crate) gaps: Vec<String>,
    pub(crate) exit: Option<ExitRecord>,
    pub(crate) exec_failed: Option<ExecFailed>,
    streams: [Vec<u8>; 2],
}

impl Spool {
    pub(crate) fn read(dir: &AttemptDir) -> Self {
        let mut spool = Self::default();
        let mut reader = SpoolReader::open(dir, Some(dir.attempt())).unwrap();
        while let Some(record) = reader.next_record().unwrap() {
            match record.header.kind {
                Kind::Start => spool.starts += 1,
                Kind::Data => spool.streams[record.header.stream.index()].extend(record.payload),
                Kind::Eof | Kind::Full | Kind::Room => {}
                Kind::Gap => spool
                    .gaps
                    .push(String::from_utf8(record.payload.to_vec()).unwrap()),
                Kind::Exit => spool.exit = ExitRecord::decode(record.payload),
                Kind::ExecFailed => spool.exec_failed = ExecFailed::decode(record.payload),
            }
        }
        spool
    }

    pub(crate) fn stdout(&self) -> &[u8] {
        &self.streams[0]
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.streams[0].clone()).unwrap()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8(self.streams[1].clone()).unwrap()
    }

    /// Returns whether there is an exit record that vouches for every byte.
    pub(crate) fn is_complete(&self) -> bool {
        let lengths = self.streams.each_ref().map(|stream| stream.len() as u64);
        self.exit
            .as_ref()
            .is_some_and(|exit| exit.totals == lengths && exit.eof == [true; 2])
    }
}
