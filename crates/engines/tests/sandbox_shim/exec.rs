//! Programs that are executed in a running sandbox.

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, Stdio};

use dark_factory_engines::sandbox::config::EXIT_NOT_EXECUTED;

use crate::both;
use crate::lab::{Lab, eventually};

/// Returns what a program in the sandbox printed.
fn said(lab: &Lab, script: &str) -> String {
    let output = lab.exec(&["sh", "-c", script]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Returns a command as a shell reads it.
fn quoted(command: &Command) -> String {
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    words.join(" ")
}

both! {
    fn a_program_is_in_the_same_sandbox(who) {
        let mut lab = Lab::new(who);
        let mut shim = lab.start("touch /tmp/mark; sleep 5555 &");

        let seen = said(&lab, "pwd; ls /tmp; hostname; ls -d /etc/shadow /home/* 2>/dev/null; grep -lz '^[5]555' /proc/[0-9]*/cmdline | wc -l");

        assert_eq!(seen, "/out\nmark\na-sandbox\n1\n");
        shim.kill().unwrap();
        shim.wait().unwrap();
    }

    fn a_program_is_confined_as_everything_in_the_sandbox(who) {
        let mut lab = Lab::new(who);
        let mut shim = lab.start("");
        let own = "id -u; id -G; umask; grep -E '^(Cap|NoNewPrivs|Seccomp)' /proc/self/status; \
            for n in ipc mnt net pid user uts cgroup; do readlink /proc/self/ns/$n; done; \
            touch /usr/x /x 2>&1; unshare -m true 2>&1; ls /proc/self/fd | wc -l";

        let outside = said(&lab, own);

        shim.kill().unwrap();
        shim.wait().unwrap();
        let mut other = Lab::new(who);
        let inside = other.output_of(own);
        // Another sandbox has other namespaces, and everything else the same.
        let without = |text: &str| -> Vec<String> {
            let lines = text.lines().filter(|line| !line.contains(":["));
            lines.map(str::to_owned).collect()
        };
        assert_eq!(without(&outside), without(&inside));
        assert!(outside.contains("Seccomp:\t2\n"), "{outside}");
    }

    /// As the helper is: its descriptors and its memory are closed to the sandbox's user.
    fn a_first_process_that_is_closed_to_others_is_no_hindrance(who) {
        let mut lab = Lab::new(who);
        let prctl = libc::SYS_prctl;
        let script = format!("syscall({prctl}, 4, 0, 0, 0, 0); open F, '>', '/out/up'; close F; sleep 1000");
        lab.config.argv = ["perl", "-e", &script].map(str::to_owned).to_vec();
        lab.write_config();
        let mut shim = lab.spawn();
        eventually("it is up", || lab.path("out/up").exists());

        let seen = said(&lab, "hostname; ls /proc/1/fd 2>/dev/null || echo closed");

        assert_eq!(seen, "a-sandbox\nclosed\n");
        shim.kill().unwrap();
        shim.wait().unwrap();
    }

    fn a_program_has_the_environment_of_the_sandbox_and_its_own(who) {
        let mut lab = Lab::new(who);
        let mut shim = lab.start("");

        let env = said(&lab, "env | sort | grep -v '^_='");

        assert_eq!(env, "ASKED=yes\nOWN=yes\nPATH=/usr/bin:/bin:/usr/sbin:/sbin\nPWD=/out\n");
        shim.kill().unwrap();
        shim.wait().unwrap();
    }

    fn the_exit_code_of_a_program_is_ours(who) {
        let mut lab = Lab::new(who);
        let mut shim = lab.start("");

        let code = |argv: &[&str]| lab.exec(argv).status.code().unwrap();

        assert_eq!(code(&["true"]), 0);
        assert_eq!(code(&["sh", "-c", "exit 7"]), 7);
        assert_eq!(code(&["sh", "-c", "kill -9 $$"]), 137);
        assert_eq!(code(&["no-such-program"]), 127);
        assert_eq!(code(&["/etc/passwd"]), 126);
        shim.kill().unwrap();
        shim.wait().unwrap();
    }

    fn a_program_has_the_pipes_of_the_caller(who) {
        let mut lab = Lab::new(who);
        let mut shim = lab.start("");

        let mut cat = lab.exec_command(&["sh", "-c", "cat; echo error >&2"]);
        let mut cat = cat
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut cat.stdin.take().unwrap(), b"typed\xff").unwrap();
        let output = cat.wait_with_output().unwrap();

        assert_eq!(output.stdout, b"typed\xff");
        assert_eq!(output.stderr, b"error\n");
        shim.kill().unwrap();
        shim.wait().unwrap();
    }

    fn a_program_on_a_terminal_has_it_for_itself(who) {
        let mut lab = Lab::new(who);
        let mut shim = lab.start("");
        let command = lab.exec_command(&["sh", "-c", "test -t 0 && test -t 1 && echo x >/dev/tty"]);
        let words = quoted(&command);

        // The terminal is made outside, by somebody else, and is nobody's yet: not that of a shell in between.
        let mut terminal = Command::new("script");
        let output = terminal
            .args(["-qec", &format!("exec {words}"), "/dev/null"])
            .output()
            .unwrap();

        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{shown}");
        assert!(shown == "x\r\n", "{shown}");
        shim.kill().unwrap();
        shim.wait().unwrap();
    }

    fn a_program_without_a_terminal_has_none_of_the_callers(who) {
        let mut lab = Lab::new(who);
        let mut shim = lab.start("");
        let script = "echo read >/dev/tty && echo wrote; echo asked";
        let words = quoted(&lab.exec_command(&["sh", "-c", script]));

        let mut terminal = Command::new("script");
        let output = terminal
            .args(["-qec", &format!("{words} </dev/null"), "/dev/null"])
            .output()
            .unwrap();

        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(shown.contains("asked") && !shown.contains("wrote"), "{shown}");
        shim.kill().unwrap();
        shim.wait().unwrap();
    }

    /// A signal to the own process group is not stopped by a PID namespace.
    fn a_program_that_signals_its_process_group_reaches_nobody_outside(who) {
        let mut lab = Lab::new(who);
        let mut shim = lab.start("");
        let words = quoted(&lab.exec_command(&["sh", "-c", "kill -9 0"]));

        let mut caller = Command::new("sh");
        caller.args(["-c", &format!("sleep 1000 & {words}; kill -0 $! && echo both live; kill $!")]);
        caller.uid(who.uid()).gid(who.uid()).process_group(0);
        let output = caller.stdin(Stdio::null()).output().unwrap();

        assert_eq!(String::from_utf8_lossy(&output.stdout), "both live\n", "{output:?}");
        shim.kill().unwrap();
        shim.wait().unwrap();
    }

    fn a_program_dies_with_its_sandbox(who) {
        let mut lab = Lab::new(who);
        let mut shim = lab.start("");
        let mut program = lab.exec_command(&["sh", "-c", "echo >/out/runs; sleep 1000"]);
        let mut program = program.spawn().unwrap();
        eventually("it runs", || lab.path("out/runs").exists());

        shim.kill().unwrap();
        shim.wait().unwrap();

        let status = program.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(137), None));
    }

    fn nothing_is_executed_in_a_sandbox_that_has_ended(who) {
        let mut lab = Lab::new(who);
        lab.script("true");
        lab.run();

        let output = lab.exec(&["touch", "/out/executed"]);

        assert_eq!(output.status.code(), Some(i32::from(EXIT_NOT_EXECUTED)));
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(words.contains("it does not run"), "{words}");
        assert!(!lab.path("out/executed").exists());
    }

    /// In the sandbox a name may lead to whoever executes it: then that is not a file of the host.
    fn a_program_that_is_a_link_to_its_executor_does_not_lead_out(who) {
        let mut lab = Lab::new(who);
        let mut shim = lab.start("ln -s /proc/self/exe /out/trap");
        let before = std::fs::read(lab.program()).unwrap();

        let mut executor = lab.exec_command(&["sh", "-c", "echo >/out/runs; sleep 1000"]);
        let mut executor = executor.spawn().unwrap();
        eventually("it runs", || lab.path("out/runs").exists());
        let program = std::fs::read_link(format!("/proc/{}/exe", executor.id())).unwrap();
        assert!(program.starts_with("/memfd:dark-factory (deleted)"), "{program:?}");
        let output = lab.exec(&["/out/trap"]);

        assert!(!output.status.success(), "{output:?}");
        let seen = said(&lab, "for p in /proc/[0-9]*; do readlink $p/exe; done");
        assert!(!seen.contains("program"), "{seen}");
        assert!(std::fs::read(lab.program()).unwrap() == before);
        shim.kill().unwrap();
        shim.wait().unwrap();
        executor.wait().unwrap();
    }
}
