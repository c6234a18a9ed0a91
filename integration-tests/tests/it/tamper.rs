//! An agent that attacks its own record gets nowhere, whichever user it is.
//!
//! Owns: the users that an agent may be.
//! Reads: what the scripted agent says of each attack.
//! Never: knows the attacks; they are the scripted agent's.

use integration_tests::{docker_group, is_root};

use crate::scene::{Place, Scene, give};
use crate::support::{Ended, as_user};

const SCRIPT: &str = "id\ntamper\nstderr still here\nexit 7";
/// How many ways the scripted agent knows.
const CHECKS: usize = 33;

/// Checks that every attack of a finished run was refused, and that the run's record is whole and true.
fn assert_all_refused(scene: &Scene, run: &Ended, user: &str) {
    assert_eq!(run.code, 1, "{}{}", run.stdout, run.stderr);
    let raw = std::fs::read_to_string(scene.folder().join("raw.jsonl")).expect("there is a log");
    let lines: Vec<&str> = raw.lines().collect();
    let (id, attacks) = lines.split_first().expect("the agent says who it is");
    assert!(
        id.starts_with(&format!("{user} cap_eff=0000000000000000 no_new_privs=1")),
        "{id}"
    );
    let (count, attacks) = attacks.split_last().expect("the agent counts its attacks");
    let broken: Vec<_> = attacks
        .iter()
        .filter(|line| !line.ends_with(" refused"))
        .collect();
    assert!(broken.is_empty(), "{broken:#?}");
    assert_eq!(
        (attacks.len(), *count),
        (CHECKS, format!("tamper done {CHECKS} checks").as_str())
    );
    let report = scene.assert_ended("failed", raw.as_bytes(), b"still here\n");
    assert_eq!(
        (&report["exit"]["status"]["code"], &report["unsealed"]),
        (&7.into(), &false.into()),
        "{report}"
    );
}

fn in_a_project_of_root(scene: &Scene) {
    assert!(is_root(), "this needs root, to own a project");
    give(scene.project.path(), 0);

    let run = Ended::of(&mut scene.run(SCRIPT));

    assert_all_refused(scene, &run, "uid=0 gid=0");
}

fn in_a_project_of_a_user(scene: &Scene) {
    let run = Ended::of(&mut scene.run(SCRIPT));

    assert_all_refused(scene, &run, "uid=1000 gid=1000");
}

fn as_nobody(scene: &Scene) {
    let run = Ended::of(&mut scene.run_with(&["--user", "12345:12345"], SCRIPT));

    assert_all_refused(scene, &run, "uid=12345 gid=12345");
}

#[test]
fn a_root_owned_project_gives_the_agent_no_way_in() {
    in_a_project_of_root(&Scene::new());
}

#[test]
fn an_ordinary_user_under_roots_supervisor_has_no_way_in() {
    in_a_project_of_a_user(&Scene::new());
}

#[test]
fn a_user_that_is_nobodys_has_no_way_in() {
    as_nobody(&Scene::new());
}

#[test]
fn no_user_of_a_sandbox_of_roots_has_a_way_in() {
    let scene = || Scene::in_place(Place::Sandbox);

    in_a_project_of_root(&scene());
    in_a_project_of_a_user(&scene());
    as_nobody(&scene());
}

#[test]
fn the_user_of_an_own_sandbox_has_no_way_in() {
    in_a_project_of_a_user(&Scene::in_place(Place::UsersSandbox));
}

#[test]
fn the_supervisors_own_user_has_no_way_in() {
    let scene = Scene::new();
    assert!(is_root(), "this needs root, to become another user");
    give(
        scene
            .installation
            .state_dir()
            .parent()
            .expect("it is in a folder of the test"),
        1000,
    );
    let group = docker_group().to_string();
    let mut command = as_user(1000, &["--groups", &group], &scene.run(SCRIPT));

    let run = Ended::of(&mut command);

    assert_all_refused(&scene, &run, "uid=1000 gid=1000");
}
