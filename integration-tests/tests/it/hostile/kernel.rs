//! What only an administrator of the host may have of its kernel.
//!
//! Owns: the list of what is refused, and how.
//! Reads: nothing but the attempts.
//! Never: traces, stops or reads PID 1 by other ways; see `tamper`.

use super::{Attempts, attack};
use crate::scene::{Place, Scene};
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
    the_kernel_gives_nothing(&Scene::new());
}

#[test]
fn an_agent_that_lets_pid_1_trace_it_ends_as_it_ends() {
    a_traced_agent_ends_as_it_ends(&Scene::new());
}

pub(super) fn the_kernel_gives_nothing(scene: &Scene) {
    let script = include_str!("kernel.pl");

    let run = Ended::of(&mut attack(scene, script, &["--network", "none"], &[]));

    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    let mut attempts = Attempts::of(scene);
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
    let new = ["fsopen", "open-tree", "open-tree-attr", "move-mount"];
    attempts.assert_all_failed(&new, REFUSED);
    attempts.assert_all_failed(&["chroot", "open-by-handle", "fanotify"], NOT_PERMITTED);
    // Namespaces.
    let namespaces = ["unshare-user", "unshare-mount", "unshare-net", "setns"];
    attempts.assert_all_failed(&namespaces, NOT_PERMITTED);
    // Identities and privileges.
    let identities = ["setgroups", "capset", "file-capability"];
    attempts.assert_all_failed(&identities, NOT_PERMITTED);
    // In a user namespace of its own there is no root to become.
    let root: &[&str] = match scene.place {
        Place::UsersSandbox => &["Invalid argument"],
        Place::Container | Place::Sandbox => NOT_PERMITTED,
    };
    attempts.assert_all_failed(&["setuid", "chown-root"], root);
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
    for path in ["/proc/1/environ", "/proc/1/mem"] {
        attempts.assert_failed(&format!("read {path}"), &["Permission denied"]);
    }
    attempts.assert_failed("read /root/.profile", CLOSED);
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
    let groups = match scene.place {
        // What the user's process had is what it keeps.
        Place::UsersSandbox => "",
        Place::Container | Place::Sandbox => "1000",
    };
    attempts.assert_failed("status groups", &[groups]);
    attempts.assert_failed("status nonewprivs", &["1"]);
    attempts.assert_failed("status seccomp", &["2"]);
    attempts.assert_no_more();
    assert!(!scene.project.path().join("mem").exists());
}

pub(super) fn a_traced_agent_ends_as_it_ends(scene: &Scene) {
    // PTRACE_TRACEME: from then on it stops at each signal, and PID 1 is told.
    let script = "syscall((POSIX::uname())[4] eq 'aarch64' ? 117 : 101, 0, 0, 0, 0) == 0 or die $!; \
                  kill 'USR1', $$; kill 'STOP', $$; print `echo from a child`; print qq{after\\n}; exit 9";

    let argv = ["perl", "-MPOSIX", "-e"];
    let ignoring = format!(
        "$SIG{{USR1}} = 'IGNORE'; {}",
        script.replace("kill 'STOP', $$; ", "")
    );
    let argv = [&argv[..], &[&ignoring]].concat();
    let run = Ended::of(&mut scene.run_argv(&scene.tools_image(), &[], &argv));

    assert_eq!(run.code, 1, "{}{}", run.stdout, run.stderr);
    let report = scene.assert_ended("failed", b"from a child\nafter\n", b"");
    assert_eq!(report["exit"]["status"]["code"], 9, "{report}");
}
