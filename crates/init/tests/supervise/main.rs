//! The helper as supervisor: what it records, how it starts and how it ends.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test"
)]

mod copy;
mod full_disk;
mod interventions;
mod killed;
mod relay;
mod stage;
mod supervisor;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use dark_factory_init::{long_line, spew};
use dark_factory_spool::{
    EXIT_EXEC_FAILED, EXIT_HELPER_FAILED, EXIT_NO_SUPERVISOR, EXIT_SPOOL_GONE, End,
    HANDOVER_VERSION, KILL_EVERYTHING_SIGNAL, Kind,
};
use supervisor::{Launch, Recorded, append_only, script, send, shell, streams};

const SIGUSR1: i32 = 10;
const SIGTERM: i32 = 15;

fn run(text: &str) -> Recorded {
    Launch::new(&script(text)).run()
}

#[test]
fn every_byte_value_is_recorded_on_both_streams() {
    let mut blob: Vec<u8> = (0..=255).cycle().take(40_000).collect();
    blob.extend(b"\r\n\0no newline at the end \xf0\x9f");
    let launch = Launch::new(&shell("cat \"$BLOB\"; cat \"$BLOB\" >&2"));
    let path = launch.folder().join("blob");
    fs::write(&path, &blob).unwrap();

    let recorded = launch.env("BLOB", path.to_str().unwrap()).run();

    assert_eq!(recorded.stdout(), blob);
    assert_eq!(recorded.stderr(), blob);
    assert_eq!(recorded.exit().eof, [true, true]);
    assert_eq!(recorded.code, Some(0));
}

#[test]
fn a_run_is_framed_by_its_start_and_exit_records() {
    let recorded = run("print hello");

    let kinds = &recorded.recording.kinds;
    assert_eq!(kinds.first(), Some(&Kind::Start));
    assert_eq!(kinds.last(), Some(&Kind::Exit));
    assert_eq!(kinds.iter().filter(|&&kind| kind == Kind::Eof).count(), 2);
    assert_eq!(recorded.text(), "hello\n");
}

#[test]
fn both_streams_at_once_are_whole() {
    let both = "\"$1\" agent -e 'spew 20m' & \"$1\" agent -e 'spew 20m 33' >&2 & wait";

    let recorded = Launch::new(&shell(both)).run();

    assert!(recorded.stdout() == spew(20 << 20, 80));
    assert!(recorded.stderr() == spew(20 << 20, 33));
    assert_eq!(recorded.exit().end, End::Code(0));
}

#[test]
fn a_line_of_64_mib_is_whole_though_nobody_reads_the_copy() {
    let recorded = run("line 64m");

    assert!(recorded.stdout() == long_line(64 << 20));
    assert_eq!(recorded.exit().totals, [(64 << 20) + 1, 0]);
}

#[test]
fn the_exit_code_is_passed_on_with_what_the_run_used() {
    let recorded = run("allocate 32m; exit 7");

    assert_eq!(recorded.code, Some(7));
    let exit = recorded.exit();
    assert_eq!(exit.end, End::Code(7));
    assert!(exit.max_rss > 32 << 20, "{}", exit.max_rss);
    assert_eq!(exit.leftovers, 0);
}

#[test]
fn a_fatal_signal_is_recorded_and_passed_on_as_the_shell_does() {
    let recorded = run("kill-self SEGV");

    assert_eq!(recorded.exit().end, End::Signal(11));
    assert_eq!(recorded.code, Some(128 + 11));
}

#[test]
fn a_program_that_cannot_be_executed_is_a_record_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str, mode: u32| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let marker = folder.path().join("marker");
    let text = format!("touch {}\n", marker.display());
    let cases = [
        ("no-such-program".to_owned(), 2),
        ("/no/such/program".to_owned(), 2),
        (file("bad-interpreter", "#!/no/such/shell\n", 0o755), 2),
        (file("not-executable", &text, 0o644), 13),
        (folder.path().to_str().unwrap().to_owned(), 13),
        // A shell would run it.
        (file("no-interpreter", &text, 0o755), 8),
        (String::new(), 2),
    ];
    for (program, errno) in cases {
        let recorded = Launch::new(&[OsString::from(&program)]).run();

        assert_eq!(recorded.code, Some(EXIT_EXEC_FAILED), "{program}");
        let failed = recorded.recording.exec_failed.as_ref().expect("a record");
        assert_eq!((failed.errno, &failed.program), (errno, &program));
        assert_eq!(recorded.recording.kinds, [Kind::Start, Kind::ExecFailed]);
        assert_eq!(recorded.message.lines().count(), 1, "{}", recorded.message);
    }
    assert!(!marker.exists());
}

#[test]
fn the_program_is_looked_up_in_the_path_of_the_environment() {
    let launch = Launch::new(&["mine", "x"].map(OsString::from));
    let [first, second] = ["first", "second"].map(|name| launch.folder().join(name));
    for (folder, mode) in [(&first, 0o644), (&second, 0o755)] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("mine"), "#!/bin/sh\necho \"$0 $1\"\n").unwrap();
        fs::set_permissions(folder.join("mine"), Permissions::from_mode(mode)).unwrap();
    }
    let path = format!("{}:{}", first.display(), second.display());

    let recorded = launch.env("PATH", &path).run();

    assert_eq!(recorded.text(), format!("{}/mine x\n", second.display()));
}

#[test]
fn without_a_supervisor_the_agent_is_not_started() {
    let started = Instant::now();
    let launch = Launch::with_options(&["--connect-timeout", "0.3"], &script("write marker x"));

    let recorded = launch.start_alone().finish();

    assert_eq!(recorded.code, Some(EXIT_NO_SUPERVISOR));
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert_eq!(recorded.message.lines().count(), 1, "{}", recorded.message);
}

#[test]
fn a_supervisor_that_says_nothing_is_none() {
    let launch = Launch::with_options(&["--connect-timeout", "0.5"], &script("print no"));

    let running = launch.start_alone();
    let _silent = running.accept();
    let recorded = running.finish();

    assert_eq!(recorded.code, Some(EXIT_NO_SUPERVISOR));
}

#[test]
fn a_second_supervisor_may_take_the_place_of_one_that_died() {
    let running = Launch::new(&script("print hello")).start_alone();
    drop(running.accept());

    running.hand_over(HANDOVER_VERSION, &append_only(running.spool()));

    assert_eq!(running.finish().text(), "hello\n");
}

#[test]
fn a_stop_before_the_handover_ends_the_wait() {
    let running = Launch::new(&script("print no")).start_alone();
    let _silent = running.accept();

    running.signal(SIGTERM);

    assert_eq!(running.finish().code, Some(EXIT_NO_SUPERVISOR));
}

#[test]
fn a_signal_that_asks_for_no_stop_does_not_cost_the_handover() {
    let running = Launch::new(&script("print hello")).start_alone();
    let stream = running.accept();

    running.signal(SIGUSR1);
    running.wait_until_signals_are_taken();
    send(&stream, HANDOVER_VERSION, &append_only(running.spool()));

    assert_eq!(running.finish().text(), "hello\n");
}

#[test]
fn a_handover_that_is_no_spool_is_refused() {
    let running = Launch::new(&script("print no")).start_alone();
    running.hand_over(HANDOVER_VERSION + 1, &append_only(running.spool()));
    assert_eq!(running.finish().code, Some(EXIT_HELPER_FAILED));

    let running = Launch::new(&script("print no")).start_alone();
    let [_, stdout, stderr] = append_only(running.spool());
    let cut = File::create(running.spool()).unwrap();
    running.hand_over(HANDOVER_VERSION, &[cut, stdout, stderr]);
    assert_eq!(running.finish().code, Some(EXIT_HELPER_FAILED));

    let running = Launch::new(&script("print no")).start_alone();
    let device = OpenOptions::new().append(true).open("/dev/null").unwrap();
    let [records, stdout, _] = append_only(running.spool());
    running.hand_over(HANDOVER_VERSION, &[records, stdout, device]);
    assert_eq!(running.finish().code, Some(EXIT_HELPER_FAILED));

    let running = Launch::new(&script("print no")).start_alone();
    let [_, stdout, stderr] = append_only(running.spool());
    let read = File::open(running.spool()).unwrap();
    running.hand_over(HANDOVER_VERSION, &[read, stdout, stderr]);
    assert_eq!(running.finish().code, Some(EXIT_HELPER_FAILED));

    let running = Launch::new(&script("print no")).start_alone();
    let [records, stdout, _] = append_only(running.spool());
    running.hand_over(HANDOVER_VERSION, &[records, stdout]);
    assert_eq!(running.finish().code, Some(EXIT_HELPER_FAILED));

    let running = Launch::new(&script("print no")).start_alone();
    let files = append_only(running.spool());
    fs::write(&streams(running.spool())[0], "somebody else's").unwrap();
    running.hand_over(HANDOVER_VERSION, &files);
    assert_eq!(running.finish().code, Some(EXIT_HELPER_FAILED));
}

#[test]
fn leftovers_are_killed_counted_and_heard_out() {
    let started = Instant::now();

    let recorded = run(
        "fork 'print child; fork print grandchild; sleep 60'; fork sleep 60; sleep 500ms; exit 3",
    );

    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(recorded.code, Some(3));
    let exit = recorded.exit();
    assert_eq!((exit.leftovers, exit.eof), (2, [true, true]));
    assert!(recorded.text().contains("child\n") && recorded.text().contains("grandchild\n"));
}

#[test]
fn a_daemon_in_a_session_of_its_own_is_a_leftover_too() {
    let recorded = Launch::new(&shell("setsid sh -c 'sleep 60 & sleep 60' & sleep 0.5")).run();

    let exit = recorded.exit();
    assert_eq!(exit.eof, [true, true]);
    assert!(exit.leftovers >= 2, "{}", exit.leftovers);
}

#[test]
fn a_pipe_held_open_from_elsewhere_does_not_hold_the_end_up() {
    let running = Launch::new(&shell("echo pid $$; exec sleep 60")).start();
    let output = running.wait_for_output("\n");
    let pid = output.trim().strip_prefix("pid ").unwrap();
    let held = OpenOptions::new()
        .write(true)
        .open(format!("/proc/{pid}/fd/1"))
        .unwrap();

    running.signal(SIGTERM);
    let recorded = running.finish();

    assert_eq!(recorded.exit().end, End::Signal(SIGTERM));
    assert_eq!(recorded.exit().eof, [false, true]);
    drop(held);
}

#[test]
fn a_stop_signal_reaches_the_agent() {
    let running = Launch::new(&script("on-term exit 9; print ready; sleep 60")).start();
    running.wait_for_output("ready");

    running.signal(SIGTERM);
    let recorded = running.finish();

    assert_eq!(recorded.code, Some(9));
    assert_eq!(recorded.exit().end, End::Code(9));
}

#[test]
fn a_stubborn_agent_is_killed_and_its_record_is_complete() {
    let running = Launch::new(&script("ignore-term; fork sleep 60; print ready; sleep 60")).start();
    running.wait_for_output("ready");

    running.signal(SIGTERM);
    running.signal(KILL_EVERYTHING_SIGNAL);
    let recorded = running.finish();

    assert_eq!(recorded.code, Some(137));
    let exit = recorded.exit();
    assert_eq!((exit.end, exit.leftovers), (End::Signal(9), 1));
    assert_eq!(exit.eof, [true, true]);
}

#[test]
fn stdin_is_the_file_that_was_named_or_empty() {
    let named = Launch::new(&[]);
    let file = named.folder().join("prompt.md");
    fs::write(&file, "do it\n").unwrap();

    let with = Launch::with_options(&["--stdin", file.to_str().unwrap()], &script("prompt")).run();
    let without = run("prompt");

    assert_eq!(with.text(), "do it\n");
    assert_eq!(without.text(), "");
    assert_eq!(without.code, Some(0));
}

#[test]
fn an_stdin_that_cannot_be_opened_is_a_failure_of_the_set_up() {
    let launch = Launch::with_options(&["--stdin", "/no/such/file"], &script("print no"));

    let recorded = launch.start_alone().finish();

    assert_eq!(recorded.code, Some(EXIT_HELPER_FAILED));
    assert!(recorded.message.contains("/no/such/file"));
}

#[test]
fn the_agent_gets_clean_signals_and_no_descriptor_but_the_three() {
    let recorded = Launch::new(&script(
        "read /proc/self/status; read /proc/self/oom_score_adj; env LANG; ls /proc/self/fd",
    ))
    .env("LANG", "from-outside")
    .run();

    let text = recorded.text();
    assert!(text.contains("SigBlk:\t0000000000000000\n"), "{text}");
    // SIGPIPE is ignored by the scripted agent's own runtime; 32 and 33 by any child of glibc's posix_spawn.
    assert!(text.contains("SigIgn:\t0000000180001000\n"), "{text}");
    // The fourth is the listing's own.
    assert!(text.ends_with("500\nfrom-outside\n0\n1\n2\n3\n"), "{text}");
}

#[test]
fn the_agent_leads_a_session_of_its_own() {
    let recorded = Launch::new(&shell(
        "read -r _ _ _ _ group session _ < /proc/$$/stat; echo $(($$ - group)) $(($$ - session))",
    ))
    .run();

    assert_eq!(recorded.text(), "0 0\n");
}

#[test]
fn a_stream_that_is_closed_early_ends_early() {
    let running = Launch::new(&shell("exec >&-; sleep 60")).start();
    while !supervisor::Recording::read(running.spool()).ended[0] {
        std::thread::sleep(Duration::from_millis(10));
    }

    running.signal(SIGTERM);

    assert_eq!(running.finish().exit().eof, [true, true]);
}

#[test]
fn a_spool_that_was_removed_ends_the_run() {
    let mut running = Launch::new(&script("print ready; sleep 60")).start();
    running.wait_for_output("ready");
    assert!(running.is_running());

    fs::remove_file(running.spool()).unwrap();
    let recorded = running.finish();

    assert_eq!(recorded.code, Some(EXIT_SPOOL_GONE));
    assert!(recorded.message.contains("removed"), "{}", recorded.message);
}
