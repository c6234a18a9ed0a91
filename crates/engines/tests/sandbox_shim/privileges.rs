//! What a sandbox may not do.

use std::os::unix::fs::MetadataExt as _;

use crate::both;
use crate::lab::{Lab, Who};

both! {
    fn there_are_no_capabilities_and_never_will_be(who) {
        let mut lab = Lab::new(who);

        let status = lab.output_of("grep -E '^(Cap|NoNewPrivs|Seccomp)' /proc/self/status");

        let none = "0000000000000000";
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert!(status.contains(&format!("{set}:\t{none}\n")), "{status}");
        }
        assert!(status.contains("NoNewPrivs:\t1\n"), "{status}");
        assert!(status.contains("Seccomp:\t2\n"), "{status}");
    }

    fn the_user_is_the_configured_one_without_other_groups(who) {
        let mut lab = Lab::new(who);
        let (uid, nobody) = (who.inside(), "65534");

        let ids = lab.output_of("id -u; id -g; id -G; echo >/out/written");

        let groups: Vec<&str> = ids.lines().collect();
        assert_eq!(groups[..2], [uid.to_string(), uid.to_string()]);
        assert!(groups[2] == uid.to_string() || groups[2] == nobody, "{ids}");
        let written = std::fs::metadata(lab.path("out/written")).unwrap();
        assert_eq!((written.uid(), written.gid()), (uid, uid));
    }

    fn mounts_namespaces_and_the_machine_itself_are_refused(who) {
        let commands = [
            "mount -t tmpfs x /tmp",
            "umount /tmp",
            "unshare -U true",
            "unshare -m true",
            "nsenter -t 1 -m true",
            "chroot / true",
            "hostname other",
            "dmesg",
            "setarch -R true",
        ];
        for command in commands {
            let mut lab = Lab::new(who);

            let said = lab.output_of(&format!("{command}; echo $?"));

            let code = said.lines().last().unwrap();
            assert!(code != "0" && code != "127", "{command}: {said}");
        }
    }

    fn system_calls_that_no_agent_needs_are_refused(who) {
        let not_permitted = [
            (libc::SYS_mount, "0, 0, 0, 0, 0"),
            (libc::SYS_fsopen, "0, 0"),
            (libc::SYS_unshare, "0x10000000"),
            (libc::SYS_clone, "0x10000011, 0, 0, 0, 0"),
            (libc::SYS_setns, "0, 0"),
            (libc::SYS_bpf, "0, 0, 0"),
            (libc::SYS_keyctl, "0, 0, 0"),
            (libc::SYS_io_uring_setup, "0, 0"),
            (libc::SYS_perf_event_open, "0, 0, 0, 0, 0"),
            (libc::SYS_userfaultfd, "0"),
            (libc::SYS_personality, "0x40000"),
            // Sockets of virtual machines, and of the kernel's ciphers.
            (libc::SYS_socket, "40, 1, 0"),
            (libc::SYS_socket, "38, 5, 0"),
            // Typing into a terminal.
            (libc::SYS_ioctl, "0, 0x5412, 0"),
        ];
        let missing = [
            (libc::SYS_clone3, "0, 0"),
            // Newer than the list: `open_tree_attr`, which clones mounts.
            (467, "-100, 0, 1, 0, 0"),
            (libc::SYS_getpid | 0x4000_0000, "0"),
        ];
        let calls = not_permitted.iter().map(|call| (call, libc::EPERM));
        let calls = calls.chain(missing.iter().map(|call| (call, libc::ENOSYS)));
        let script: Vec<String> = calls
            .map(|((number, arguments), error)| {
                format!(
                    "$! = 0; my $r = syscall({number}, {arguments}); \
                     print \"{number}({arguments}): $r, $!\\n\" if $r != -1 or $! != {error};"
                )
            })
            .collect();
        let mut lab = Lab::new(who);

        let said = lab.output_of(&format!("perl -e '{}'; echo done", script.join("\n")));

        assert_eq!(said, "done\n");
    }

    fn threads_and_processes_are_not_refused(who) {
        let mut lab = Lab::new(who);

        let said = lab.output_of(
            "perl -e 'pipe(R, W); if (fork) { wait; print \"parent\\n\" } else { print \"child\\n\" }'; \
             sort --parallel=4 -S 1M /etc/services | head -c 0; echo sorted; (true | cat) && echo piped",
        );

        assert_eq!(said, "child\nparent\nsorted\npiped\n");
    }

    fn only_its_own_processes_are_seen(who) {
        let mut lab = Lab::new(who);

        let seen = lab.output_of("echo $$; ls /proc | grep -c '^[0-9]'; kill -0 2 2>&1 | head -1");

        let lines: Vec<&str> = seen.lines().collect();
        assert_eq!(lines[0], "1");
        assert!(lines[1].parse::<u32>().unwrap() <= 4, "{seen}");
    }

    fn what_tells_of_the_machine_is_hidden_or_read_only(who) {
        let mut lab = Lab::new(who);

        let said = lab.output_of(
            "cat /proc/keys /proc/timer_list; (echo x >/proc/sys/kernel/hostname) 2>/dev/null || echo refused; hostname",
        );

        assert_eq!(said, "refused\na-sandbox\n");
    }
}

/// Who is user 0 in a sandbox that root started is user 0 outside, without what makes it root.
#[test]
fn user_0_is_confined_as_everybody() {
    let mut lab = Lab::new(Who::Root);
    lab.config.uid = 0;
    lab.config.gid = 0;
    lab.give(&lab.path("out"), 0o755, 0);

    let said = lab.output_of(
        "id -u; grep -c '^Cap.*0000000000000000$' /proc/self/status; \
         (echo x >/proc/sys/kernel/domainname) 2>/dev/null && echo wrote; mknod /tmp/disk b 8 0 2>/dev/null && echo made; \
         chown 1 /tmp 2>/dev/null && echo gave; touch /usr/x 2>/dev/null && echo wrote; \
         ls /etc/shadow /etc/ssl/private 2>/dev/null; unshare -m true 2>/dev/null && echo unshared; true",
    );

    assert_eq!(said, "0\n5\n");
}

/// The devices in a sandbox are the machine's, and belong to user 0.
#[test]
fn user_0_cannot_change_who_may_use_the_machines_devices() {
    let mut lab = Lab::new(Who::Root);
    lab.config.uid = 0;
    lab.config.gid = 0;
    lab.give(&lab.path("out"), 0o755, 0);
    let mode = || std::fs::metadata("/dev/full").unwrap().mode();
    let before = mode();

    let said = lab.output_of(
        "chmod 600 /dev/full 2>/dev/null && echo changed; touch -d 2001-01-01 /dev/full 2>/dev/null && echo touched; \
         echo x >/dev/null && head -c 2 /dev/zero | wc -c; head -c 2 /dev/zero 2>&1 >/dev/full | grep -o 'No space'",
    );

    assert_eq!(said, "2\nNo space\n");
    assert_eq!(mode(), before);
}

/// A program of another architecture has other numbers for its system calls, which the list does not know.
#[test]
#[cfg(target_arch = "x86_64")]
fn a_program_with_32_bit_system_calls_is_killed() {
    let mut lab = Lab::new(Who::Root);
    lab.file("out/program", "");
    std::fs::write(lab.path("out/program"), exits_with_42_by_32_bit_calls()).unwrap();

    let said = lab.output_of("cp program /out/p; chmod +x /out/p; /out/p; echo $?");

    // 31 is SIGSYS; 126 is what a kernel without such calls says.
    let code = said.lines().last().unwrap();
    assert!(code == "159" || code == "126", "{said}");
}

/// A whole 32-bit program of two system calls' worth: `exit(42)`.
#[cfg(target_arch = "x86_64")]
fn exits_with_42_by_32_bit_calls() -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const HEADERS: u32 = 52 + 32;
    // mov $1, %eax; mov $42, %ebx; int $0x80
    let code = [0xb8, 1, 0, 0, 0, 0xbb, 42, 0, 0, 0, 0xcd, 0x80];
    let size = HEADERS + 12;
    let mut file = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let half = |file: &mut Vec<u8>, value: u16| file.extend(value.to_le_bytes());
    let word = |file: &mut Vec<u8>, value: u32| file.extend(value.to_le_bytes());
    // An executable of the 80386, form 1.
    half(&mut file, 2);
    half(&mut file, 3);
    for value in [1, BASE + HEADERS, 52, 0, 0] {
        word(&mut file, value);
    }
    for value in [52, 32, 1, 0, 0, 0] {
        half(&mut file, value);
    }
    // One part, loaded as it is, to be read and executed.
    for value in [1, 0, BASE, BASE, size, size, 5, 4096] {
        word(&mut file, value);
    }
    file.extend(code);
    file
}
