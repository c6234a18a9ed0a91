//! The helper itself killed while it records.
//!
//! Owns: when it is killed.

use std::io::{self, Write};

use dark_factory_init::spew;
use dark_factory_spool::Kind;

use crate::supervisor::{Launch, shell};

/// How often it is killed.
const TIMES: u64 = 40;
const PRINTED: u64 = 64 << 20;

#[test]
fn a_helper_killed_at_any_moment_leaves_an_exact_prefix() {
    let both = "\"$1\" agent -e 'spew 64m' & exec \"$1\" agent -e 'spew 64m 33' >&2";
    let expected = [spew(PRINTED, 80), spew(PRINTED, 33)];
    let mut torn = 0;
    for round in 0..TIMES {
        // Lengths that share no factor with that of a record; when exactly the kill comes is up to the scheduler.
        let length = 1 + round * 100_003 % (8 << 20);
        let mut running = Launch::new(&shell(both)).start();
        running.wait_for_length(length);

        running.kill();
        let recorded = running.finish();

        let recording = &recorded.recording;
        assert_eq!(recorded.code, None);
        assert_eq!(recording.count(Kind::Exit), 0);
        assert!(expected[0].starts_with(recorded.stdout()), "round {round}");
        assert!(expected[1].starts_with(recorded.stderr()), "round {round}");
        torn += u64::from(recording.rest > 0);
    }
    let _said = writeln!(io::stderr(), "{torn} of {TIMES} ended inside a record");
}
