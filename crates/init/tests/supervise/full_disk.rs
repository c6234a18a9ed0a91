//! The helper on a full disk: the agent waits, and nothing is lost.
//!
//! Owns: a small tmpfs, which needs root; without it these tests say on stderr that they were not run.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use dark_factory_init::spew;
use dark_factory_spool::{End, Intervention, KILL_EVERYTHING_SIGNAL, Kind};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::Errno;
use rustix::pipe::fcntl_setpipe_size;
use tempfile::TempDir;

use crate::supervisor::{Launch, Recording, Running, script, shell, streams};

const SIGTERM: i32 = 15;
/// Size of the disk: what the helper keeps for the end, which is two pipes of one MiB, and about as much again.
const DISK: u64 = 4 << 20;
/// Largest pipe that a process without privileges may have.
const LARGEST_PIPE: usize = 1 << 20;
/// What a page of a pipe holds, and so the largest packet.
const PACKET: usize = 4096;

struct SmallDisk(TempDir);

impl SmallDisk {
    /// Mounts a file system of [`DISK`] bytes; `None`, with a word on stderr, where this user may not.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={DISK}");
        if mount(&["-t", "tmpfs", "-o", &size, "tmpfs"], folder.path()) {
            return Some(Self(folder));
        }
        let _said = writeln!(io::stderr(), "not run: mounting a tmpfs needs root");
        None
    }

    fn grow_to(&self, size: u64) {
        assert!(mount(
            &["-o", &format!("remount,size={size}")],
            self.0.path()
        ));
    }

    fn spool(&self) -> PathBuf {
        self.0.path().join("spool")
    }

    /// Returns the length of all files of the spool.
    fn used(&self) -> u64 {
        self.files().iter().map(fs::Metadata::len).sum()
    }

    fn files(&self) -> [fs::Metadata; 3] {
        let [stdout, stderr] = streams(&self.spool());
        [self.spool(), stdout, stderr].map(|path| fs::metadata(path).unwrap())
    }

    /// Starts an agent that prints until the disk is full, and waits until it is.
    fn fill(&self, launch: Launch) -> Running {
        let mut running = launch.spool_at(self.spool()).start();
        running.wait_for_records(Kind::Full, 1);
        assert!(running.is_running());
        running
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

/// The writing end of one of an agent's pipes, opened as the agent itself could.
struct PipeEnd {
    pipe: File,
    written: u64,
}

impl PipeEnd {
    fn open(agent: &str, descriptor: u32, flags: OFlags) -> Self {
        let pipe = OpenOptions::new()
            .write(true)
            .open(format!("/proc/{agent}/fd/{descriptor}"))
            .unwrap();
        fcntl_setfl(&pipe, flags | OFlags::NONBLOCK).unwrap();
        assert_eq!(fcntl_setpipe_size(&pipe, LARGEST_PIPE), Ok(LARGEST_PIPE));
        Self { pipe, written: 0 }
    }

    /// Writes until the pipe takes no more and the helper has said that the disk is full.
    fn fill(&mut self, running: &Running) {
        loop {
            let recorded = Recording::read(running.spool());
            let full = recorded.count(Kind::Full);
            if self.write_until_refused() == 0 && full > 0 {
                return;
            }
        }
    }

    fn write_until_refused(&mut self) -> usize {
        let mut count = 0;
        loop {
            match rustix::io::write(&self.pipe, &[b'x'; PACKET]) {
                Ok(length) => count += length,
                Err(error) => {
                    assert_eq!(error, Errno::AGAIN);
                    self.written += u64::try_from(count).unwrap();
                    return count;
                }
            }
        }
    }
}

/// Starts an agent that only waits, and enlarges its pipes; fills the disk and then the pipes.
///
/// Returns how much the agent has printed.
fn fill_with_pipes(disk: &SmallDisk, launch: Launch, flags: OFlags) -> (Running, [u64; 2]) {
    let running = launch.spool_at(disk.spool()).start();
    let greeting = running.wait_for_output("\n");
    let pid = greeting.trim().strip_prefix("pid ").unwrap();
    let mut ends = [1, 2].map(|descriptor| PipeEnd::open(pid, descriptor, flags));
    ends.iter_mut().for_each(|end| end.fill(&running));
    let greeting = u64::try_from(greeting.len()).unwrap();
    let printed = [greeting + ends[0].written, ends[1].written];
    (running, printed)
}

fn quiet_agent() -> Launch {
    Launch::new(&shell("echo pid $$; exec sleep 60"))
}

#[test]
fn an_agent_waits_for_room_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let running = disk.fill(Launch::new(&script("spew 3m; exit 4")));
    let length = disk.used();

    disk.grow_to(4 * DISK);
    let recorded = running.finish();

    assert!(length < DISK, "{length}");
    assert!(recorded.stdout() == spew(3 << 20, 80));
    assert_eq!(recorded.exit().end, End::Code(4));
    let marks = |kind: &&Kind| [Kind::Full, Kind::Room].contains(kind);
    let marks: Vec<_> = recorded.recording.kinds.iter().filter(marks).collect();
    assert_eq!(marks, [&Kind::Full, &Kind::Room]);
}

#[test]
fn a_disk_that_is_full_again_and_again_keeps_the_room_for_the_end() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let running = disk.fill(Launch::new(&script("spew 64m")));

    // Each time there is room for one read or two.
    let times = 30;
    for time in 1..=times {
        let size = DISK + time * (400 << 10);
        disk.grow_to(size);
        running.wait_for_records(Kind::Full, usize::try_from(time).unwrap() + 1);
    }
    running.signal(SIGTERM);
    let recorded = running.finish();

    let exit = recorded.exit();
    assert_eq!((exit.end, exit.eof), (End::Signal(SIGTERM), [true, true]));
    let rooms = recorded.recording.count(Kind::Room);
    assert_eq!(recorded.recording.count(Kind::Full), rooms + 1);
    assert!(spew(64 << 20, 80).starts_with(recorded.stdout()));
}

#[test]
fn an_agent_stopped_on_a_full_disk_still_has_a_complete_record() {
    for signal in [SIGTERM, KILL_EVERYTHING_SIGNAL] {
        let Some(disk) = SmallDisk::mount() else {
            return;
        };
        let running = disk.fill(Launch::new(&script("spew 3m")));
        let length = disk.used();

        running.signal(signal);
        let recorded = running.finish();

        let exit = recorded.exit();
        let (end, intervention) = match signal {
            SIGTERM => (SIGTERM, Intervention::Signal(SIGTERM)),
            _ => (9, Intervention::Kill),
        };
        assert_eq!(exit.end, End::Signal(end));
        assert_eq!(exit.intervention, Some(intervention));
        assert_eq!(exit.eof, [true, true]);
        assert!(u64::try_from(recorded.stdout().len()).unwrap() > length - (1 << 16));
        assert!(spew(3 << 20, 80).starts_with(recorded.stdout()));
    }
}

#[test]
fn a_leftover_that_prints_on_does_not_take_the_room_of_the_exit_record() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let print_on = "\"$1\" agent -e 'spew 64m' & exec sleep 60";
    let running = disk.fill(Launch::new(&shell(print_on)));

    running.signal(SIGTERM);
    let recorded = running.finish();

    let exit = recorded.exit();
    assert_eq!((exit.end, exit.leftovers), (End::Signal(SIGTERM), 1));
    assert_eq!(exit.eof, [true, true]);
    assert!(spew(64 << 20, 80).starts_with(recorded.stdout()));
}

#[test]
fn all_that_is_in_pipes_as_large_as_an_agent_can_make_them_fits_on_a_full_disk() {
    // In packet mode every page takes a record of its own.
    for flags in [OFlags::empty(), OFlags::DIRECT] {
        let Some(disk) = SmallDisk::mount() else {
            return;
        };
        let (running, printed) = fill_with_pipes(&disk, quiet_agent(), flags);

        running.signal(SIGTERM);
        let recorded = running.finish();

        assert_eq!(recorded.exit().totals, printed);
        assert_eq!(recorded.exit().eof, [true, true]);
    }
}

#[test]
fn pipes_larger_than_the_system_allows_leave_room_for_the_exit_record_on_a_full_disk() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    // As if they had been enlarged with a privilege; the helper believes what it reads here.
    let limit = disk.0.path().join("limit");
    fs::write(&limit, "65536\n").unwrap();
    let hide = format!(
        "mount --bind {} /proc/sys/fs/pipe-max-size",
        limit.display()
    );
    let launch = quiet_agent().in_mounts_of_its_own(&hide);
    let (running, printed) = fill_with_pipes(&disk, launch, OFlags::empty());

    running.signal(SIGTERM);
    let recorded = running.finish();

    let exit = recorded.exit();
    assert_eq!(exit.end, End::Signal(SIGTERM));
    assert_eq!(exit.eof, [false, false]);
    let recorded: u64 = exit.totals.iter().sum();
    assert!(recorded < printed.iter().sum());
    // The rest of the disk is not left empty: the smaller the pieces were, the more of it the records of them took.
    assert!(recorded > DISK - DISK / 8, "{recorded}");
}

#[test]
fn a_helper_killed_on_a_full_disk_leaves_an_exact_prefix() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let mut running = disk.fill(Launch::new(&script("spew 3m")));

    running.kill();
    let recorded = running.finish();

    assert_eq!(recorded.recording.kinds.last(), Some(&Kind::Full));
    assert_eq!(recorded.recording.rest, 0);
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
    for data in disk.files() {
        let blocks = std::os::unix::fs::MetadataExt::blocks(&data);
        assert!(blocks * 512 < data.len() + (1 << 16), "{blocks} blocks");
    }
}

#[test]
fn a_disk_without_room_for_the_end_starts_no_agent() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    fs::write(disk.0.path().join("filler"), vec![1; 3 << 20]).unwrap();
    let mut running = Launch::new(&script("print no"))
        .spool_at(disk.spool())
        .start();
    // That nothing happens has no event.
    std::thread::sleep(Duration::from_secs(1));
    assert!(running.is_running());

    running.signal(KILL_EVERYTHING_SIGNAL);
    let recorded = running.finish();

    assert_eq!(recorded.code, Some(dark_factory_spool::EXIT_HELPER_FAILED));
    assert_eq!(recorded.recording.kinds, []);
}
