//! The helper on a full disk: the agent waits, and nothing is lost.
//!
//! Owns: a small tmpfs, which needs root; without it these tests say on stderr that they were not run.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::supervisor::{Launch, script};
use dark_factory_init::spew;
use dark_factory_spool::{End, KILL_EVERYTHING_SIGNAL};
use tempfile::TempDir;

struct SmallDisk(TempDir);

impl SmallDisk {
    /// Mounts a file system of one MiB; `None`, with a word on stderr, where this user may not.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        if mount(&["-t", "tmpfs", "-o", "size=1m", "tmpfs"], folder.path()) {
            return Some(Self(folder));
        }
        let _said = writeln!(io::stderr(), "not run: mounting a tmpfs needs root");
        None
    }

    fn grow(&self, size: &str) {
        assert!(mount(
            &["-o", &format!("remount,size={size}")],
            self.0.path()
        ));
    }

    fn spool(&self) -> PathBuf {
        self.0.path().join("spool")
    }

    /// Waits until the spool has not grown for a second.
    fn wait_until_full(&self) -> u64 {
        let mut length = 0;
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let now = fs::metadata(self.spool()).map_or(0, |data| data.len());
            if now > 0 && now == length {
                return now;
            }
            length = now;
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn mount(options: &[&str], target: &Path) -> bool {
    Command::new("mount")
        .args(options)
        .arg(target)
        .status()
        .is_ok_and(|status| status.success())
}

#[test]
fn an_agent_waits_for_room_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let mut running = Launch::new(&script("spew 3m; exit 4"))
        .spool_at(disk.spool())
        .start();
    let length = disk.wait_until_full();
    assert!(running.is_running());
    assert!(length < 1 << 20, "{length}");

    disk.grow("8m");
    let recorded = running.finish();

    assert!(recorded.stdout() == spew(3 << 20, 80));
    assert_eq!(recorded.exit().end, End::Code(4));
}

#[test]
fn an_agent_stopped_on_a_full_disk_still_has_a_complete_record() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let running = Launch::new(&script("spew 3m"))
        .spool_at(disk.spool())
        .start();
    let length = disk.wait_until_full();

    running.signal(15);
    let recorded = running.finish();

    assert_eq!(recorded.exit().end, End::Signal(15));
    assert_eq!(recorded.exit().eof, [true, true]);
    assert!(u64::try_from(recorded.stdout().len()).unwrap() > length - (1 << 16));
    assert!(spew(3 << 20, 80).starts_with(recorded.stdout()));
}

#[test]
fn room_that_was_kept_for_the_end_is_given_back() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };

    let recorded = Launch::new(&script("spew 100k"))
        .spool_at(disk.spool())
        .run();

    assert_eq!(recorded.exit().end, End::Code(0));
    let data = fs::metadata(disk.spool()).unwrap();
    let blocks = std::os::unix::fs::MetadataExt::blocks(&data);
    assert!(blocks * 512 < data.len() + (1 << 16), "{blocks} blocks");
}

#[test]
fn a_disk_without_room_for_the_end_starts_no_agent() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    fs::write(disk.0.path().join("filler"), vec![1; 900 << 10]).unwrap();
    let mut running = Launch::new(&script("print no"))
        .spool_at(disk.spool())
        .start();
    std::thread::sleep(Duration::from_secs(1));
    assert!(running.is_running());

    running.signal(KILL_EVERYTHING_SIGNAL);
    let recorded = running.finish();

    assert_eq!(recorded.code, Some(dark_factory_spool::EXIT_HELPER_FAILED));
    assert_eq!(recorded.recording.kinds, []);
}
