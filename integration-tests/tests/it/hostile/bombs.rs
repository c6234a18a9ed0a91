//! An agent that takes as much as it can get of what a machine has too little of.
//!
//! Owns: small limits, so that a bomb goes off soon.
//! Reads: what the host has of the run afterwards.
//! Never: tests which limits there are; see `limits` and `ends`.

use std::fs;

use super::{Attempts, attack};
use crate::scene::{Scene, report};
use crate::support::Ended;

#[test]
fn bombs_go_off_in_the_container_and_the_agent_outlives_them() {
    bombs_go_off_inside(&Scene::new());
}

pub(super) fn bombs_go_off_inside(scene: &Scene) {
    let script = include_str!("bombs.pl");
    let flags = ["--network", "none", "--memory", "192m", "--pids", "64"];

    let run = Ended::of(&mut attack(scene, script, &flags, &[]));

    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    let mut attempts = Attempts::of(scene);
    attempts.assert_failed("fork", &["Resource temporarily unavailable"]);
    attempts.assert_failed("forked", &["fewer than 64"]);
    attempts.assert_failed("open files", &["Too many open files"]);
    for folder in ["/tmp", "/home/agent", "/dev/shm"] {
        attempts.assert_failed(&format!("disk {folder}"), &["No space left on device"]);
    }
    for folder in [
        "/",
        "/etc",
        "/usr",
        "/var/tmp",
        "/var/lib",
        "/opt",
        "/run",
        "/run/lock",
        "/root",
        "/dev",
        "/.dark-factory/attempt",
        "/sys/fs/cgroup",
        "/proc/self",
    ] {
        let closed = ["Read-only file system", "Permission denied", "No such file"];
        attempts.assert_failed(&format!("disk {folder}"), &closed);
    }
    attempts.assert_failed("inodes", &["No space left on device"]);
    attempts.assert_failed("inodes made", &["fewer than 100000"]);
    attempts.assert_failed("memory", &["killed by signal 9"]);
    attempts.assert_failed("afterwards", &["still here"]);
    attempts.assert_no_more();
    let report = report(&scene.folder());
    assert_eq!(report["log"], "complete", "{report}");
    assert!(report["oom_kills"].as_u64() > Some(0), "{report}");
}

#[test]
fn of_ten_gigabytes_of_log_the_disk_gets_no_more_than_the_limit_and_a_little() {
    let scene = Scene::new();
    let limit = 16 << 20;
    // From several processes and on both streams, 10 GB together.
    let script = "my $piece = ('x' x 99 . qq{\\n}) x 1000; for (1 .. 4) { fork or last } \
                  for (1 .. 12_500) { syswrite(STDOUT, $piece); syswrite(STDERR, $piece) } sleep 60";
    let flags = ["--network", "none", "--log-limit", "16m"];

    let run = Ended::of(&mut attack(&scene, script, &flags, &[]));

    assert_eq!(run.code, 6, "{}{}", run.stdout, run.stderr);
    let folder = scene.folder();
    let report = report(&folder);
    assert_eq!(report["outcome"], "limit", "{report}");
    assert_eq!(report["stop_reason"]["kind"], "log_limit", "{report}");
    assert_eq!(report["log"], "complete", "{report}");
    let length = |name: &str| fs::metadata(folder.join(name)).unwrap().len();
    let bytes = length("raw.jsonl") + length("stderr.log");
    // Two pipes and what was on its way.
    assert!((limit..limit + (4 << 20)).contains(&bytes), "{bytes}");
    assert!(!folder.join("spool").exists());
}
