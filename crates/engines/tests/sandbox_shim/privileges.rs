//! What a sandbox may not do.

use std::os::unix::fs::MetadataExt as _;

use crate::both;
use crate::lab::Lab;

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
