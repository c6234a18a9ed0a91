//! What an engine cannot do: refused where it is written, before anything starts; a default of it is left out.
//!
//! Owns: an engine that says that its host keeps no limits, and a sandbox of somebody who may make no control groups.
//! Reads: what the commands print, the runs that are recorded.
//! Never: asks for what the machine of the tests may or may not have.

use std::process::Command;

use integration_tests::{EngineProxy, Fault, Instead, PROJECT_OWNER, agent_image};

use crate::scene::{Scene, report, text};
use crate::support::{Ended, Person, Workshop};

/// Where the scripted agent is in every container of ours.
const AGENT: &str = "/.dark-factory/init";

/// Writes a prompt file with a demand in its fourth line.
fn demanding(workshop: &Workshop, image: &str, demand: &str) {
    let command = format!("command: [{AGENT}, agent, -e, 'write out x']");
    let text = format!("---\nagent: command\nimage: {image}\n{demand}\n{command}\n---\nDo it.\n");
    workshop.project.write("task.md", text);
}

/// Checks that there is no run and never was, as whoever runs this command sees it.
fn assert_nothing_began(workshop: &Workshop, like: impl Fn(Command) -> Command) {
    let runs = Ended::of(&mut like(workshop.command(&["ps", "-a", "--json"])));
    assert_eq!(
        (runs.code, runs.stdout.as_str()),
        (0, ""),
        "{}",
        runs.stderr
    );
    assert!(!workshop.project.path().join("out").exists());
}

#[test]
fn a_demand_that_a_docker_host_does_not_keep_is_refused_where_it_is_written() {
    for (flags, command) in [(&[][..], "run"), (&["--detach"], "run"), (&[], "explain")] {
        let workshop = Workshop::new();
        let proxy = EngineProxy::new();
        proxy.next("GET /info", Fault::Answer(Instead::NoLimits));
        demanding(&workshop, &agent_image(), "memory: 1g");

        let mut command = workshop.command(&[&[command, "task.md"], flags].concat());
        let ended = Ended::of(command.env("DOCKER_HOST", proxy.host()));

        assert_eq!(ended.code, 2, "{}{}", ended.stdout, ended.stderr);
        let place = "task.md:4:9: the engine cannot limit memory on its host";
        assert!(ended.stderr.contains(place), "{}", ended.stderr);
        assert_eq!(proxy.count("POST /containers/*/start"), 0);
        assert_nothing_began(&workshop, |command| command);
    }
}

#[test]
fn defaults_that_a_docker_host_does_not_keep_are_left_out_with_a_warning_each() {
    let scene = Scene::new();
    let proxy = EngineProxy::new();
    proxy.next("GET /info", Fault::Answer(Instead::NoLimits));
    let scene = scene.through(&proxy);

    let ended = Ended::of(&mut scene.run_with(&["--pids", "none"], "exit 0"));

    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    let warned =
        |limit| format!("warning: {limit} is not limited: the engine cannot do it on its host");
    for limit in ["memory", "cpus"] {
        assert!(ended.stderr.contains(&warned(limit)), "{}", ended.stderr);
    }
    assert!(!ended.stderr.contains(&warned("pids")), "{}", ended.stderr);
    assert_eq!(report(&scene.folder())["outcome"], "succeeded");
}

#[test]
fn a_retry_leaves_out_what_its_record_has_and_the_host_does_not_keep() {
    let scene = Scene::new();
    let first = Ended::of(&mut scene.run_with(&["--memory", "64m"], "exit 1"));
    assert_eq!(first.code, 1, "{}{}", first.stdout, first.stderr);
    let run = text(&scene.only_run(), "run_id");
    let proxy = EngineProxy::new();
    proxy.next("GET /info", Fault::Answer(Instead::NoLimits));
    let scene = scene.through(&proxy);

    let again = Ended::of(&mut scene.dark_factory(&["retry", &run]));

    assert_eq!(again.code, 1, "{}{}", again.stdout, again.stderr);
    let warning = "memory is not limited: the engine cannot do it on its host; the recorded limit of 64 MiB is left out";
    assert!(again.stderr.contains(warning), "{}", again.stderr);
}

#[test]
fn a_demand_that_a_users_sandbox_does_not_keep_is_refused_where_it_is_written() {
    let workshop = Workshop::new();
    let person = Person::at(&workshop.installation, PROJECT_OWNER);

    for (demand, words) in [
        (
            "memory: 1g",
            ":4:9: the engine cannot limit memory on its host",
        ),
        ("cpus: 1", ":4:7: the engine cannot limit cpus on its host"),
        (
            "user: 4242:4242",
            ":4:7: the engine has no user other than yours",
        ),
        (
            "transport: attach",
            ":4:12: the engine has no transport attach",
        ),
        ("profile: seed", ":4:10: the engine has no profile seed"),
    ] {
        demanding(&workshop, "host", demand);
        for command in [
            &["run", "task.md"][..],
            &["run", "-d", "task.md"],
            &["explain", "task.md"],
        ] {
            let ended = Ended::of(&mut person.runs(&workshop.command(command)));

            assert_eq!(ended.code, 2, "{}{}", ended.stdout, ended.stderr);
            let said = format!("task.md{words}");
            assert!(ended.stderr.contains(&said), "{said}: {}", ended.stderr);
        }
        assert_nothing_began(&workshop, |command| person.runs(&command));
    }
}

#[test]
fn defaults_that_a_users_sandbox_does_not_keep_are_left_out_with_a_warning_each() {
    let workshop = Workshop::new();
    let person = Person::at(&workshop.installation, PROJECT_OWNER);
    demanding(&workshop, "host", "pids: 50");

    let ended = Ended::of(&mut person.runs(&workshop.command(&["run", "task.md"])));

    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    let warned: Vec<&str> = ended
        .stderr
        .lines()
        .filter_map(|line| line.strip_prefix("warning: "))
        .collect();
    assert_eq!(warned.len(), 2, "{}", ended.stderr);
    assert!(warned[0].starts_with("memory is not limited"), "{warned:?}");
    assert!(warned[1].starts_with("cpus is not limited"), "{warned:?}");
    assert_eq!(workshop.project.read("out"), "x");
}
