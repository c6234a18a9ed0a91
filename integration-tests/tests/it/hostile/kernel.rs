//! What only an administrator of the host may have of its kernel.
//!
//! Owns: the list of what is refused, and how.
//! Reads: nothing but the attempts.
//! Never: traces, stops or reads PID 1 by other ways; see `tamper`.

use integration_tests::claude_image;

use super::{Attempts, attack};
use crate::scene::Scene;
use crate::support::Ended;

const NOT_PERMITTED: &[&str] = &["Operation not permitted", "Permission denied"];
/// A kernel that was built without something refuses it, too.
const REFUSED: &[&str] = &["Operation not permitted", "Function not implemented"];
const CLOSED: &[&str] = &[
    "Permission denied",
    "Read-only file system",
    "No such file or directory",
];
const ABSENT: &[&str] = &["No such file or directory"];

#[test]
fn the_kernel_gives_an_agent_nothing_that_is_not_its_own() {
    let scene = Scene::new();
    let script = include_str!("kernel.pl");

    let run = Ended::of(&mut attack(&scene, script, &["--network", "none"], &[]));

    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    let mut attempts = Attempts::of(&scene);
    // File systems.
    attempts.assert_all_failed(
        &[
            "mount",
            "mount-bind",
            "remount-root",
            "umount",
            "pivot-root",
        ],
        NOT_PERMITTED,
    );
    attempts.assert_all_failed(&["fsopen", "open-tree", "move-mount"], REFUSED);
    attempts.assert_all_failed(&["chroot", "open-by-handle", "fanotify"], NOT_PERMITTED);
    // Namespaces.
    let namespaces = ["unshare-user", "unshare-mount", "unshare-net", "setns"];
    attempts.assert_all_failed(&namespaces, NOT_PERMITTED);
    // Identities and privileges.
    let identities = [
        "setuid",
        "setgroups",
        "capset",
        "chown-root",
        "file-capability",
    ];
    attempts.assert_all_failed(&identities, NOT_PERMITTED);
    attempts.assert_failed("privileges-back", &["Invalid argument"]);
    attempts.assert_failed(
        "set-user-id",
        &["a set-user-id program is 1000 1000 1000 1000"],
    );
    attempts.assert_failed(
        "set-user-id-mount",
        &["must be superuser", "permission denied"],
    );
    // Parts of the kernel that many ways out began in.
    let parts = [
        "bpf",
        "keyctl",
        "add-key",
        "request-key",
        "perf-event",
        "userfaultfd",
    ];
    attempts.assert_all_failed(&parts, REFUSED);
    // The machine as a whole.
    let machine = [
        "init-module",
        "finit-module",
        "delete-module",
        "kexec",
        "reboot",
        "swapon",
        "acct",
        "quotactl",
        "clock",
        "host-name",
        "kernel-log",
    ];
    attempts.assert_all_failed(&machine, REFUSED);
    attempts.assert_all_failed(&["device-memory", "device-disk"], NOT_PERMITTED);
    for path in [
        "/proc/sysrq-trigger",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/vm/drop_caches",
        "/etc/passwd",
        "/usr/bin/git",
        "/.dark-factory/init",
    ] {
        attempts.assert_failed(&format!("write {path}"), CLOSED);
    }
    for path in ["/proc/1/environ", "/proc/1/mem", "/root/.profile"] {
        attempts.assert_failed(&format!("read {path}"), &["Permission denied"]);
    }
    for device in ["mem", "kmsg", "vda", "sda", "fuse", "net/tun", "kvm"] {
        attempts.assert_failed(&format!("read /dev/{device}"), ABSENT);
    }
    for path in [
        "/proc/kcore",
        "/proc/kmsg",
        "/proc/timer_list",
        "/proc/keys",
        "/sys/firmware/dmi/tables/DMI",
        "/sys/kernel/debug/sleep_time",
    ] {
        attempts.assert_failed(&format!("kernel {path}"), &["nothing"]);
    }
    attempts.assert_failed("control-groups", &["nothing can be written"]);
    attempts.assert_failed("processes", &["0 others"]);
    // Who it is, as the kernel says.
    for set in ["capinh", "capprm", "capeff", "capbnd", "capamb"] {
        attempts.assert_failed(&format!("status {set}"), &["0000000000000000"]);
    }
    attempts.assert_failed("status uid", &["1000\t1000\t1000\t1000"]);
    attempts.assert_failed("status groups", &["1000"]);
    attempts.assert_failed("status nonewprivs", &["1"]);
    attempts.assert_failed("status seccomp", &["2"]);
    attempts.assert_no_more();
    assert!(!scene.project.path().join("mem").exists());
}

#[test]
fn an_agent_that_lets_pid_1_trace_it_ends_as_it_ends() {
    let scene = Scene::new();
    // PTRACE_TRACEME: from then on it stops at each signal, and PID 1 is told.
    let script = "syscall((POSIX::uname())[4] eq 'aarch64' ? 117 : 101, 0, 0, 0, 0) == 0 or die $!; \
                  kill 'USR1', $$; kill 'STOP', $$; print `echo from a child`; print qq{after\\n}; exit 9";

    let argv = ["perl", "-MPOSIX", "-e"];
    let ignoring = format!(
        "$SIG{{USR1}} = 'IGNORE'; {}",
        script.replace("kill 'STOP', $$; ", "")
    );
    let run =
        Ended::of(&mut scene.run_argv(&claude_image(), &[], &[&argv[..], &[&ignoring]].concat()));

    assert_eq!(run.code, 1, "{}{}", run.stdout, run.stderr);
    let report = scene.assert_ended("failed", b"from a child\nafter\n", b"");
    assert_eq!(report["exit"]["status"]["code"], 9, "{report}");
}
