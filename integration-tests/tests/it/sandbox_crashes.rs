//! Crashes around the embedded sandbox: of the supervisor, of the shim, of the helper, of the agent, of the machine.
//!
//! Owns: what is killed.
//! Reads: what a user can read.
//! Never: kills at each fail point: that is the chaos tests'.

use std::fs;

use integration_tests::sandboxes::{Left, Part, started_at};

use crate::recovery;
use crate::scene::{Place, Running, STARTED, Scene, eventually, report, text};
use crate::support::Ended;

/// Begins, says so, and goes on for too long.
const ENDLESS: &str =
    "append starts.txt \"started\\n\"\nprint hello\nstderr there\nwrite one x\nsleep 1h";

fn of_root() -> Scene {
    Scene::in_place(Place::Sandbox)
}

fn of_a_user() -> Scene {
    Scene::in_place(Place::UsersSandbox)
}

/// Checks that the one run has ended so, that its log is an exact prefix, and that nothing is left of it.
fn assert_cut_short(scene: &Scene, outcome: &str) {
    let folder = scene.folder();
    let report = report(&folder);
    assert_eq!(
        (&report["outcome"], &report["log"]),
        (&outcome.into(), &"incomplete".into()),
        "{report}"
    );
    // What was still in a pipe is lost with the helper.
    for (name, whole) in [("raw.jsonl", "hello\n"), ("stderr.log", "there\n")] {
        let found = fs::read_to_string(folder.join(name)).unwrap();
        assert!(whole.starts_with(&found), "{name}: {found:?}");
    }
    assert!(
        folder.join("spool").exists(),
        "an incomplete log keeps its spool"
    );
    assert!(scene.containers().is_empty());
    assert_eq!(scene.recover().stdout, "nothing to recover\n");
    scene.assert_started_once();
}

#[test]
fn output_around_a_crash_is_whole_in_sandboxes() {
    recovery::output_is_whole(&of_root());
    recovery::output_is_whole(&of_a_user());
}

#[test]
fn a_sandbox_that_ended_while_nobody_looked_is_recovered() {
    recovery::an_end_nobody_saw_is_recovered(&of_root());
}

#[test]
fn a_recovery_of_a_sandbox_that_is_killed_too_is_recovered() {
    recovery::a_killed_recovery_is_recovered(&of_root());
}

#[test]
fn a_crash_at_any_moment_of_a_sandbox_is_recovered() {
    recovery::crashes_at_any_moment_are_recovered(Place::Sandbox);
}

#[test]
fn a_run_whose_shim_is_killed_is_lost_and_its_log_is_a_prefix() {
    for scene in [of_root(), of_a_user()] {
        let run = scene.run_until("one", ENDLESS);

        assert!(scene.sandbox().kill(Part::Shim));
        let run = run.ended();

        assert_eq!(run.code, 7, "{}", run.stderr);
        assert_cut_short(&scene, "lost");
    }
}

#[test]
fn a_shim_that_died_while_nobody_looked_is_a_run_that_is_lost() {
    let scene = of_root();
    scene.run_until("one", ENDLESS).crash();
    let helper = scene.sandbox().process(Part::Helper).unwrap();

    assert!(scene.sandbox().kill(Part::Shim));
    // Its own end is that of all in it.
    eventually("the end of the helper", || {
        started_at(helper).is_none().then_some(())
    });
    scene.assert_recovers("lost");

    assert_cut_short(&scene, "lost");
}

#[test]
fn a_helper_that_is_killed_in_its_sandbox_leaves_an_exact_prefix() {
    let scene = of_root();
    let run = scene.run_until("one", ENDLESS);

    assert!(scene.sandbox().kill(Part::Helper));
    let run = run.ended();

    assert_eq!(run.code, 137, "{}", run.stderr);
    assert_cut_short(&scene, "killed");
}

#[test]
fn an_agent_that_is_killed_from_outside_has_a_whole_record_whoever_looks() {
    for is_watched in [true, false] {
        let scene = of_root();
        let run = scene.run_until("one", ENDLESS);
        let run = match is_watched {
            true => Some(run),
            false => {
                run.crash();
                None
            }
        };

        scene.kill_agent();
        match run.map(Running::ended) {
            Some(run) => assert_eq!(run.code, 137, "{}", run.stderr),
            None => scene.assert_recovers("killed"),
        }

        let report = scene.assert_ended("killed", b"hello\n", b"there\n");
        assert_eq!(report["exit"]["status"]["signal"], 9, "{report}");
        scene.assert_started_once();
    }
}

/// The power goes, and the ids of its processes are those of others after that.
#[test]
fn a_run_that_a_reboot_took_is_lost() {
    let scene = of_root();
    scene.run_until("one", ENDLESS).crash();
    let sandbox = scene.sandbox();
    let shim = sandbox.process(Part::Shim).unwrap();
    assert!(sandbox.kill(Part::Shim));
    eventually("the end of the shim", || {
        started_at(shim).is_none().then_some(())
    });
    let own = i32::try_from(std::process::id()).unwrap();
    sandbox.change_record(|record| {
        record["boot"] = "00000000-0000-0000-0000-000000000000".into();
        for (pid, started) in [("shim", "shim_started"), ("init", "init_started")] {
            record[pid] = own.into();
            record[started] = started_at(own).into();
        }
    });

    scene.assert_recovers("lost");

    assert_cut_short(&scene, "lost");
}

/// The same, and the disk has less of it than there was.
#[test]
fn a_run_of_which_a_loss_of_power_left_less_is_lost_and_not_started_again() {
    for (file, left) in [
        ("shim.json", Left::Nothing),
        ("shim.json", Left::Name),
        ("config.json", Left::Name),
    ] {
        let scene = of_root();
        scene.run_until("one", ENDLESS).crash();
        let sandbox = scene.sandbox();
        let processes = [Part::Helper, Part::Shim].map(|part| sandbox.process(part).unwrap());
        assert!(sandbox.kill(Part::Shim));
        for process in processes {
            eventually("its end", || started_at(process).is_none().then_some(()));
        }

        sandbox.lose(file, left);
        scene.assert_recovers("lost");

        assert_cut_short(&scene, "lost");
    }
}

#[test]
fn a_run_whose_end_a_loss_of_power_took_from_the_sandbox_alone_is_whole() {
    for file in ["exit.json", "shim.json", "config.json"] {
        let scene = of_root();
        let script = format!("{STARTED}write one x\nwait-file go\nprint hello");
        scene.run_until("one", &script).crash();
        scene.project.write("go", "");
        scene.wait_for_container();

        scene.sandbox().lose(file, Left::Name);
        scene.assert_recovers("succeeded");

        scene.assert_ended("succeeded", b"hello\n", b"");
        scene.assert_started_once();
    }
}

#[test]
fn a_stop_of_an_orphan_in_a_sandbox_ends_it_as_cancelled() {
    let scene = of_a_user();
    scene
        .run_until(
            "one",
            &format!("{STARTED}print hello\nwrite one x\nsleep 1h"),
        )
        .crash();
    let id = text(&scene.only_run(), "run_id");

    let stop = Ended::of(&mut scene.dark_factory(&["stop", &id]));

    assert_eq!(stop.code, 0, "{}{}", stop.stdout, stop.stderr);
    scene.assert_ended("cancelled", b"hello\n", b"");
    scene.assert_started_once();
}
