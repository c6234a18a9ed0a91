//! A program of somebody else's that embeds the library: the example of `crates/cli`.
//!
//! Owns: nothing.
//! Reads: the report, and which processes there are.
//! Never: uses the command line where the program is to do it.

use std::fs;

use integration_tests::{claude_image, example_bin};
use nix::unistd::{Pid, getsid};

use crate::guard::{ASK, Decoy};
use crate::scene::{Running, Scene, eventually, report};

/// Returns the process that the example has started as the guard of a scene.
fn own_guard(scene: &Scene) -> Option<i32> {
    let line = format!("\0__guard\0{}\0", scene.installation.state_dir().display());
    fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let pid = entry.file_name().into_string().ok()?.parse().ok()?;
        let found = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&found)
            .ends_with(&line)
            .then_some(pid)
    })
}

#[test]
fn its_guard_is_itself_and_keeps_the_way_of_a_run_whose_program_died() {
    let scene = Scene::new();
    let (allowed, other) = (Decoy::open(), Decoy::open());
    let (reach, avoid) = (allowed.port, other.port);
    let script = format!(
        "{ASK} ask 'GET http://127.0.0.1:{reach}/ HTTP/1.1'; touch here; \
         while [ ! -e go ]; do sleep 0.05; done; \
         ask 'GET http://127.0.0.1:{reach}/ HTTP/1.1'; ask 'CONNECT 127.0.0.1:{avoid} HTTP/1.1'"
    );
    let command = serde_json::json!(["bash", "-c", script]);
    let text = format!(
        "---\nagent: command\nimage: {}\nnetwork: {{allow: ['127.0.0.1:{reach}']}}\ncommand: {command}\n---\nAsk.\n",
        claude_image()
    );
    let prompt = scene.project.write("ask.md", &text);
    let mut program = scene.installation.command(&example_bin("embed"));
    program.arg(scene.installation.state_dir()).arg(prompt);

    let program = Running::start(&mut program);
    scene.wait_for_file("here");
    let guard = eventually("its guard", || own_guard(&scene));
    let session = getsid(Some(Pid::from_raw(guard))).unwrap();
    program.crash();
    scene.project.write("go", "");
    eventually("a second visit", || (allowed.visits() == 2).then_some(()));
    let still = own_guard(&scene);
    let recover = scene.recover();

    assert_eq!(recover.code, 0, "{}{}", recover.stdout, recover.stderr);
    assert_eq!((session.as_raw(), still), (guard, Some(guard)));
    assert_eq!((allowed.visits(), other.visits()), (2, 0));
    let report = report(&scene.folder());
    assert_eq!(report["outcome"], "succeeded", "{report}");
    let egress = &report["egress"];
    assert_eq!(egress["reached"][0]["requests"], 2, "{report}");
    let denied = format!("127.0.0.1:{avoid}");
    assert_eq!(egress["denied"][0]["target"], denied.as_str(), "{report}");
}
