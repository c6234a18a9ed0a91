//! What the kernel counted for the container's memory.
//!
//! Owns: where the two cgroup versions keep the numbers.
//! Reads: `/sys/fs/cgroup`, which in a container shows the container's own group.
//! Never: writes there, or guesses a number that cannot be read.

use std::fs;

/// Peak memory and out-of-memory kills of the container's cgroup.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct MemoryFacts {
    /// Peak use in bytes, page cache included.
    pub(super) peak: Option<u64>,
    /// Processes killed for lack of memory.
    pub(super) oom_kills: Option<u64>,
}

impl MemoryFacts {
    /// Reads the numbers, of cgroup v2 or v1, whichever is mounted.
    pub(super) fn read() -> Self {
        Self {
            peak: number("/sys/fs/cgroup/memory.peak")
                .or_else(|| number("/sys/fs/cgroup/memory/memory.max_usage_in_bytes")),
            oom_kills: field("/sys/fs/cgroup/memory.events", "oom_kill")
                .or_else(|| field("/sys/fs/cgroup/memory/memory.oom_control", "oom_kill")),
        }
    }
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn field(path: &str, name: &str) -> Option<u64> {
    parse_field(&fs::read_to_string(path).ok()?, name)
}

fn parse_field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        (key == name).then(|| value.trim().parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kill_count_is_found_by_its_whole_name() {
        let v1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        let v2 = "low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\noom_group_kill 0\n";

        assert_eq!(parse_field(v1, "oom_kill"), Some(3));
        assert_eq!(parse_field(v2, "oom_kill"), Some(1));
        assert_eq!(parse_field("low 0\n", "oom_kill"), None);
    }
}
