//! What a running sandbox uses.
//!
//! Owns: which of the kernel's numbers is which of ours.
//! Reads: control groups of either version, else `/proc`.
//! Never: computes a rate: that takes two answers.

use std::fs;
use std::path::Path;
use std::time::Duration;

use dark_factory_executor::engine::Usage;
use dark_factory_types::ByteSize;
use jiff::Timestamp;
use rustix::param::{clock_ticks_per_second, page_size};

use super::config::SandboxLimits;
use super::folder::Living;
use super::process::family;

/// Measures what a sandbox uses; `None` if nothing of it lives.
pub(super) fn usage(limits: &SandboxLimits, living: &Living, at: Timestamp) -> Option<Usage> {
    let family = family(living.init.as_ref()?.pid());
    let ticks: u64 = family.iter().map(|(_, stat)| stat.cpu).sum();
    let pages: u64 = family.iter().map(|(_, stat)| stat.pages).sum();
    let threads: u64 = family.iter().map(|(_, stat)| stat.threads).sum();
    let counted = Counted::read(limits);
    Some(Usage {
        at,
        cpu: counted.cpu.unwrap_or_else(|| of_ticks(ticks)),
        memory: counted
            .memory
            .unwrap_or(ByteSize(pages.saturating_mul(page_size() as u64))),
        memory_limit: counted.memory_limit,
        memory_peak: counted.memory_peak,
        pids: Some(counted.pids.unwrap_or(threads)),
        network: None,
        block: None,
    })
}

fn of_ticks(ticks: u64) -> Duration {
    let per_second = clock_ticks_per_second().max(1);
    Duration::from_millis(ticks.saturating_mul(1000) / per_second)
}

/// What control groups have counted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    cpu: Option<Duration>,
    memory: Option<ByteSize>,
    memory_limit: Option<ByteSize>,
    memory_peak: Option<ByteSize>,
    pids: Option<u64>,
}

impl Counted {
    fn read(limits: &SandboxLimits) -> Self {
        let mut counted = Self::default();
        for group in &limits.cgroups {
            counted.add(group);
        }
        counted
    }

    fn add(&mut self, group: &Path) {
        let number = |names: [&str; 2]| names.iter().find_map(|name| number(&group.join(name)));
        if let Some(used) = number(["memory.current", "memory.usage_in_bytes"]) {
            let names = ["total_inactive_file", "inactive_file"];
            let droppable = names
                .iter()
                .find_map(|name| keyed(&group.join("memory.stat"), name));
            self.memory = Some(ByteSize(used.saturating_sub(droppable.unwrap_or_default())));
            self.memory_peak = number(["memory.peak", "memory.max_usage_in_bytes"]).map(ByteSize);
            // Without a limit the first version says the largest number of pages.
            self.memory_limit = number(["memory.max", "memory.limit_in_bytes"])
                .filter(|limit| *limit < 1 << 62)
                .map(ByteSize);
        }
        if let Some(nanos) = self::number(&group.join("cpuacct.usage")) {
            self.cpu = Some(Duration::from_nanos(nanos));
        } else if let Some(micros) = keyed(&group.join("cpu.stat"), "usage_usec")
            && self.cpu.is_none()
        {
            self.cpu = Some(Duration::from_micros(micros));
        }
        if let Some(pids) = self::number(&group.join("pids.current")) {
            self.pids = Some(pids);
        }
    }
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn keyed(file: &Path, key: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(' ')?;
        (found == key).then(|| value.trim().parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_control_groups_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let group = |name: &str, files: &[(&str, &str)]| {
            let group = folder.path().join(name);
            fs::create_dir(&group).unwrap();
            for (file, text) in files {
                fs::write(group.join(file), text).unwrap();
            }
            group
        };
        let limits = |cgroups| SandboxLimits {
            cgroups,
            ..SandboxLimits::default()
        };
        let two = limits(vec![group(
            "two",
            &[
                ("memory.current", "100\n"),
                ("memory.stat", "anon 1\ninactive_file 30\n"),
                ("memory.max", "max\n"),
                ("memory.peak", "150\n"),
                ("cpu.stat", "usage_usec 2000000\nuser_usec 1\n"),
                ("pids.current", "3\n"),
            ],
        )]);
        let one = limits(vec![
            group(
                "memory",
                &[
                    ("memory.usage_in_bytes", "100\n"),
                    ("memory.stat", "inactive_file 1\ntotal_inactive_file 30\n"),
                    ("memory.limit_in_bytes", "200\n"),
                    ("memory.max_usage_in_bytes", "150\n"),
                ],
            ),
            group("cpuacct", &[("cpuacct.usage", "2000000000\n")]),
            group("pids", &[("pids.current", "3\n")]),
        ]);
        let expected = Counted {
            cpu: Some(Duration::from_secs(2)),
            memory: Some(ByteSize(70)),
            memory_limit: None,
            memory_peak: Some(ByteSize(150)),
            pids: Some(3),
        };

        assert_eq!(Counted::read(&two), expected);
        assert_eq!(
            Counted::read(&one),
            Counted {
                memory_limit: Some(ByteSize(200)),
                ..expected
            }
        );
    }
}
