//! How a sandbox begins and ends.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};

use dark_factory_engines::sandbox::config::{Ended, ExitRecord, LOCK_FILE, SHIM_LOG, ShimRecord};
use dark_factory_executor::spec::Access;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::fs::{Mode, OFlags, openat};

use crate::both;
use crate::lab::{Lab, Who, eventually};

/// Returns the host's processes whose command line has a word.
fn processes_with(word: &str) -> Vec<i32> {
    let all = std::fs::read_dir("/proc").unwrap();
    all.filter_map(|entry| {
        let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let is_one = line.windows(word.len()).any(|part| part == word.as_bytes());
        is_one.then_some(pid)
    })
    .collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test is told by its environment where the helper is"
)]
fn helper_of_this_machine() -> OsString {
    std::env::var_os("DARK_FACTORY_TEST_HELPER").unwrap()
}

both! {
    fn the_exit_code_of_the_first_process_is_recorded(who) {
        for code in [0, 1, 7, 126, 255] {
            let mut lab = Lab::new(who);
            lab.script(&format!("exit {code}"));

            let exit = lab.run();

            assert_eq!(exit.ended, Ended::Code(code));
            assert!(!exit.oom_killed);
        }
    }

    fn the_signal_that_ends_the_first_process_is_recorded(who) {
        let mut lab = Lab::new(who);
        let mut shim = lab.start("");

        let init = lab.record().unwrap().init.unwrap();
        kill(Pid::from_raw(init), Signal::SIGKILL).unwrap();
        let status = shim.wait().unwrap();

        assert!(status.success(), "{status}");
        assert_eq!(lab.exit().unwrap().ended, Ended::Signal(9));
    }

    fn nothing_of_a_sandbox_outlives_its_first_process(who) {
        let mut lab = Lab::new(who);
        let seconds = format!("7777{}", who.uid());
        lab.script(&format!("sleep {seconds} & setsid sleep {seconds} & sleep 0.2"));

        lab.run();

        assert_eq!(processes_with(&seconds), [0_i32; 0]);
    }

    fn everything_dies_with_a_killed_shim_and_no_end_is_recorded(who) {
        let mut lab = Lab::new(who);
        let seconds = format!("8888{}", who.uid());
        let mut shim = lab.start(&format!("sleep {seconds} & setsid sleep {seconds} &"));
        assert!(processes_with(&seconds).len() > 1);

        shim.kill().unwrap();
        let status = shim.wait().unwrap();

        assert_eq!(status.signal(), Some(9));
        eventually("all are dead", || processes_with(&seconds).is_empty());
        assert_eq!(lab.exit(), None);
        let lock = File::open(lab.path("box").join(LOCK_FILE)).unwrap();
        lock.try_lock().unwrap();
    }

    fn an_end_on_a_full_disk_is_recorded_once_there_is_room(who) {
        let mut lab = Lab::new(who);
        lab.script("echo ready; while ! test -e /out/end; do sleep 0.05; done; exit 7");
        let mut shim = lab.spawn_on_small_disk();
        eventually("it runs", || lab.output().contains("ready"));
        let root = PathBuf::from(format!("/proc/{}/root", shim.id()));
        let disk = root.join(lab.path("box").strip_prefix("/").unwrap());
        let record = std::fs::read(disk.join("shim.json")).unwrap();
        let record: ShimRecord = serde_json::from_slice(&record).unwrap();
        std::fs::write(disk.join("big"), vec![b'x'; 100_000]).unwrap_err();

        std::fs::write(lab.path("out/end"), "").unwrap();
        let init = format!("/proc/{}", record.init.unwrap());
        eventually("it has ended", || !Path::new(&init).exists());
        eventually("its end is about to be written", || disk.join("exit.json.new").exists());
        assert!(!disk.join("exit.json").exists());
        // The way by the shim's root is gone with the shim.
        let folder = File::open(&disk).unwrap();
        std::fs::remove_file(disk.join("big")).unwrap();

        let status = shim.wait().unwrap();
        assert!(status.success(), "{status}");
        let exit = openat(&folder, "exit.json", OFlags::RDONLY, Mode::empty()).unwrap();
        let exit: ExitRecord = serde_json::from_reader(File::from(exit)).unwrap();
        assert_eq!(exit.ended, Ended::Code(7));
    }

    fn a_second_shim_leaves_and_changes_nothing(who) {
        let mut lab = Lab::new(who);
        let mut first = lab.start("echo once >>/out/starts");
        let record = lab.record();

        let second = lab.spawn().wait().unwrap();

        assert!(second.success(), "{second}");
        assert_eq!(lab.record(), record);
        assert_eq!(lab.exit(), None);
        first.kill().unwrap();
        first.wait().unwrap();
        let third = lab.spawn().wait().unwrap();
        assert!(third.success(), "{third}");
        assert_eq!(lab.exit(), None);
        let starts = std::fs::read_to_string(lab.path("out/starts")).unwrap();
        assert_eq!(starts, "once\n");
    }

    fn a_missing_mount_source_is_named_and_nothing_runs(who) {
        let mut lab = Lab::new(who);
        let missing = lab.path("missing");
        lab.bind(&missing, "/missing", Access::ReadOnly);
        lab.script("true");

        let exit = lab.run();

        let Ended::NotStarted(why) = exit.ended else {
            panic!("{exit:?}")
        };
        assert!(why.contains(missing.to_str().unwrap()), "{why}");
        assert!(why.contains("No such file"), "{why}");
        let log = std::fs::read_to_string(lab.path("box").join(SHIM_LOG)).unwrap();
        assert!(log.contains(&why), "{log}");
    }

    fn the_helper_is_the_first_process(who) {
        let mut lab = Lab::new(who);
        let helper = lab.path("helper");
        std::fs::copy(helper_of_this_machine(), &helper).unwrap();
        lab.bind(&helper, "/.dark-factory/init", Access::ReadOnly);
        let id = lab.config.attempt;
        let argv = format!("/.dark-factory/init run --socket /out/nobody --id {id} --connect-timeout 0 -- true");
        lab.config.argv = argv.split(' ').map(str::to_owned).collect();

        let exit = lab.run();

        // Nobody has handed a spool over to it.
        assert_eq!(exit.ended, Ended::Code(120));
        let log = std::fs::read_to_string(lab.path("box").join(SHIM_LOG)).unwrap();
        assert!(log.contains("dark-factory-init: "), "{log}");
    }

    fn a_configuration_of_another_form_is_not_guessed_at(who) {
        let mut lab = Lab::new(who);
        lab.config.version = 2;
        lab.script("true");

        let exit = lab.run();

        let Ended::NotStarted(why) = exit.ended else {
            panic!("{exit:?}")
        };
        assert!(why.contains("its form is 2"), "{why}");
    }

    fn a_missing_program_is_named(who) {
        let mut lab = Lab::new(who);
        lab.config.argv = vec!["/no/such/program".to_owned()];

        let exit = lab.run();

        let Ended::NotStarted(why) = exit.ended else {
            panic!("{exit:?}")
        };
        assert!(why.contains("/no/such/program"), "{why}");
    }
}

#[test]
fn a_user_cannot_be_somebody_else_in_a_sandbox() {
    let mut lab = Lab::new(Who::User);
    lab.config.uid = 1000;
    lab.script("true");

    let exit = lab.run();

    let Ended::NotStarted(why) = exit.ended else {
        panic!("{exit:?}")
    };
    assert!(why.contains("run as user 1000"), "{why}");
}

/// Each of them has namespaces, mounts and a record of its own.
#[test]
fn fifty_live_at_once_and_none_sees_another() {
    let mut labs: Vec<Lab> = (0..50)
        .map(|n| Lab::new(if n % 2 == 0 { Who::Root } else { Who::User }))
        .collect();
    for (n, lab) in labs.iter_mut().enumerate() {
        lab.script(&format!("echo /proc/[0-9]*; exit {n}"));
        lab.write_config();
    }

    let shims: Vec<_> = labs.iter().map(Lab::spawn).collect();
    for mut shim in shims {
        assert!(shim.wait().unwrap().success());
    }

    for (n, lab) in labs.iter().enumerate() {
        let code = i32::try_from(n).unwrap();
        assert_eq!(lab.exit().unwrap().ended, Ended::Code(code));
        assert_eq!(lab.output(), "/proc/1\n");
    }
}
