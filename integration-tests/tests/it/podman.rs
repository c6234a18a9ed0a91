//! Podman as the engine: the whole path of a run, on a real service.
//!
//! Owns: what differs from Docker in the service's answers, and must not be seen by a user.
//! Reads: the commands' output, the attempt's folder, the service itself.
//! Never: repeats what no engine can differ in.

use std::fs;
use std::process::Command;

use dark_factory_init::spew;
use integration_tests::{Installation, agent_image, podman_host};
use serde_json::Value;

use crate::guard::{ASK, Decoy, bridge_address};
use crate::scene::{Running, STARTED, Scene, eventually, report, text};
use crate::support::Ended;

/// Libraries and programs of this machine, mounted where they are: the scripted agent's image has none.
fn programs(names: &[&str]) -> Vec<String> {
    let mut paths: Vec<String> = names
        .iter()
        .map(|name| format!("/usr/bin/{name}"))
        .collect();
    for name in names {
        let needed = Ended::of(Command::new("ldd").arg(format!("/usr/bin/{name}")));
        let library = |line: &str| {
            line.split_whitespace()
                .find(|word| word.starts_with('/'))
                .map(str::to_owned)
        };
        paths.extend(needed.stdout.lines().filter_map(library));
    }
    paths.sort();
    paths.dedup();
    let mount = |path: &String| ["--mount".to_owned(), format!("{path}:{path}:ro")];
    paths.iter().flat_map(mount).collect()
}

fn command(scene: &Scene, arguments: &[&str]) -> Ended {
    Ended::of(&mut scene.dark_factory(arguments))
}

/// Waits until the one run's start is recorded, and returns its id.
fn running(scene: &Scene) -> String {
    eventually("the start to be recorded", || {
        let run = scene.only_run();
        (run["state"] == "running").then(|| text(&run, "run_id"))
    })
}

/// Checks that a run ended before its agent was started, for this reason, and left nothing.
fn assert_never_starts(scene: &Scene, run: &mut Command, cause: &str) {
    let ended = Ended::of(run);

    assert_eq!(ended.code, 4, "{}{}", ended.stdout, ended.stderr);
    let run = scene.only_run();
    assert_eq!(run["outcome"], "start_failed", "{run}");
    assert!(text(&run, "cause").contains(cause), "{run}");
    assert!(scene.containers().is_empty(), "containers are left");
}

#[test]
fn a_run_is_whole_and_says_which_engine_it_used() {
    let scene = Scene::on_podman();
    let script = format!("{STARTED}spew 300k 1k\nstderr there\nexit 3");

    let run = Ended::of(&mut scene.run(&script));
    let id = text(&scene.only_run(), "run_id");
    let logs = command(&scene, &["logs", &id]);

    assert!(
        run.stderr.contains("(no network, podman)"),
        "{}",
        run.stderr
    );
    let report = scene.assert_ended("failed", &spew(300 << 10, 1 << 10), b"there\n");
    assert_eq!(report["exit"]["status"]["code"], 3, "{report}");
    assert_eq!(report["engine"], "podman", "{report}");
    scene.assert_started_once();
    assert_eq!(logs.code, 0, "{}", logs.stderr);
    assert!(logs.stdout.contains("there"), "{}", logs.stdout);
}

#[test]
fn output_from_before_during_and_after_a_crash_is_whole() {
    let scene = Scene::on_podman();
    let script = format!(
        "{STARTED}spew 100k\nwrite one x\nwait-file during\nspew 100k 1k\nwrite two x\nwait-file after\nprint last\nexit 3"
    );

    scene.run_until("one", &script).crash();
    scene.project.write("during", "");
    scene.wait_for_file("two");
    let recover = Running::start(&mut scene.dark_factory(&["recover"]));
    scene.wait_until_supervised();
    scene.project.write("after", "");
    let recover = recover.ended();

    assert_eq!(recover.code, 0, "{}", recover.stderr);
    let stdout = [
        spew(100 << 10, 80),
        spew(100 << 10, 1 << 10),
        b"last\n".to_vec(),
    ]
    .concat();
    scene.assert_ended("failed", &stdout, b"");
    scene.assert_started_once();
}

#[test]
fn an_agent_that_ended_while_nobody_looked_is_recovered() {
    let scene = Scene::on_podman();

    scene
        .run_until(
            "one",
            &format!("{STARTED}write one x\nwait-file go\nprint hello\nexit 4"),
        )
        .crash();
    scene.project.write("go", "");
    scene.wait_for_container();
    scene.assert_recovers("failed");

    scene.assert_ended("failed", b"hello\n", b"");
    scene.assert_started_once();
}

#[test]
fn a_stopped_run_ends_also_if_its_agent_ignores_that() {
    for (ignores, code) in [("", "15"), ("ignore-term\n", "9")] {
        let scene = Scene::on_podman();
        let run = scene.run_until(
            "begun",
            &format!("{ignores}print begun\nwrite begun x\nsleep 1h"),
        );
        let id = running(&scene);

        let mut stop = scene.dark_factory(&["stop", &id, "--grace", "1s"]);
        let stop = Ended::of(&mut stop);

        assert_eq!(stop.code, 0, "{}", stop.stderr);
        run.ended();
        let report = scene.assert_ended("cancelled", b"begun\n", b"");
        assert_eq!(
            report["exit"]["status"]["signal"].to_string(),
            code,
            "{report}"
        );
    }
}

#[test]
fn a_frozen_run_goes_on_and_can_be_stopped_while_it_is_frozen() {
    let scene = Scene::on_podman();
    let run = scene.run_until(
        "begun",
        "write begun x\nwait-file go\nwrite went x\nsleep 1h",
    );
    let id = running(&scene);

    let paused = command(&scene, &["pause", &id]);
    assert_eq!(paused.code, 0, "{}", paused.stderr);
    assert_eq!(scene.only_run()["state"], "paused");
    scene.project.write("go", "");
    let resumed = command(&scene, &["resume", &id]);
    assert_eq!(resumed.code, 0, "{}", resumed.stderr);
    scene.wait_for_file("went");
    assert_eq!(command(&scene, &["pause", &id]).code, 0);
    let stopped = command(&scene, &["stop", &id]);

    assert_eq!(stopped.code, 0, "{}", stopped.stderr);
    run.ended();
    scene.assert_ended("cancelled", b"", b"");
}

#[test]
fn a_program_is_executed_and_what_the_run_uses_is_measured() {
    let scene = Scene::on_podman();
    let script = "allocate 64m\nwrite begun x\nwait-file go\nexit 0";
    let run = Running::start(&mut scene.run_with(&["--memory", "256m"], script));
    scene.wait_for_file("begun");
    let id = running(&scene);

    let executed = command(
        &scene,
        &[
            "exec",
            &id,
            "--",
            "/bin/agent",
            "-e",
            "print inside; stderr beside; exit 7",
        ],
    );
    let unknown = command(&scene, &["exec", &id, "--", "/bin/none"]);
    let stats = command(&scene, &["stats", "--json"]);
    scene.project.write("go", "");
    assert_eq!(run.ended().code, 0);

    assert_eq!(
        (
            executed.code,
            executed.stdout.as_str(),
            executed.stderr.as_str()
        ),
        (7, "inside\n", "beside\n")
    );
    assert_eq!(unknown.code, 127, "{}", unknown.stderr);
    let stats = stats.one();
    assert!(
        stats["memory_bytes"].as_u64().unwrap() >= 64 << 20,
        "{stats}"
    );
    assert_eq!(stats["memory_limit_bytes"], 256 << 20);
    assert!(stats["pids"].as_u64().unwrap() >= 2, "{stats}");
    scene.assert_ended("succeeded", b"", b"");
}

#[test]
fn the_files_of_a_kept_container_are_looked_at_in_a_copy_that_leaves_nothing() {
    let scene = Scene::on_podman();
    let run = Ended::of(&mut scene.run_with(&["--keep"], "print hello"));
    assert_eq!(run.code, 0, "{}", run.stderr);
    let id = text(&scene.only_run(), "run_id");

    let looked = command(
        &scene,
        &["exec", &id, "--", "/bin/agent", "-e", "print copy"],
    );
    let images = scene.docker(&[
        "images",
        "--filter",
        "reference=*reopened*",
        "--format",
        "{{.Tag}}",
    ]);
    let kept = scene.containers();
    let removed = command(&scene, &["rm", &id]);

    assert_eq!(
        (looked.code, looked.stdout.as_str()),
        (0, "copy\n"),
        "{}",
        looked.stderr
    );
    assert!(!images.contains(&id), "{images}");
    assert_eq!(removed.code, 0, "{}", removed.stderr);
    assert_eq!(kept.len(), 1, "{kept:?}");
    let name = format!("name={id}");
    assert_eq!(
        scene.docker(&["ps", "--all", "--quiet", "--filter", &name]),
        ""
    );
}

#[test]
fn running_out_of_memory_is_told_though_podman_does_not_say_it() {
    let scene = Scene::on_podman();

    let run = Ended::of(&mut scene.run_with(&["--memory", "32m"], "print begin; allocate 128m"));

    assert_eq!(run.code, 137, "{}", run.stderr);
    let report = scene.assert_ended("out_of_memory", b"begin\n", b"");
    assert_eq!(report["limits"]["memory"], 32 << 20);
}

#[test]
fn a_container_that_is_killed_from_outside_ends_the_run_with_137() {
    let scene = Scene::on_podman();
    let run = scene.run_until("begun", "print begin; write begun x; sleep 1h");

    scene.docker(&["kill", &scene.container()]);

    let run = run.ended();
    assert_eq!(run.code, 137, "{}", run.stderr);
    assert_eq!(scene.only_run()["state"], "finished");
    assert!(scene.containers().is_empty(), "containers are left");
}

#[test]
fn what_cannot_be_launched_is_told_by_what_it_is() {
    let scene = Scene::on_podman();
    let mut missing = scene.run_argv(
        "dark-factory-test/none:1",
        &["--pull", "never"],
        &["/bin/agent"],
    );
    assert_never_starts(
        &scene,
        &mut missing,
        "image dark-factory-test/none:1 is not on the engine",
    );

    let scene = Scene::on_podman();
    let mut none = scene.run_argv(&agent_image(), &[], &["/bin/none"]);
    assert_never_starts(&scene, &mut none, "the container has no such program");

    // Without the helper it is the engine that finds out, when it is attached to.
    let scene = Scene::on_podman();
    let attach = [
        "--transport",
        "attach",
        "--open-files",
        "none",
        "--file-size",
        "none",
    ];
    let mut none = scene.run_argv(&agent_image(), &attach, &["/bin/none"]);
    assert_never_starts(&scene, &mut none, "the engine refused to start container");

    // The same status as for a name that is taken.
    let scene = Scene::on_podman();
    let mount = format!("{}:/tmp", scene.project.path().display());
    let mount = ["--mount", mount.as_str()];
    let mut refused = scene.run_with(&mount, "print never");
    assert_never_starts(
        &scene,
        &mut refused,
        "the engine refused to create container",
    );
}

#[test]
fn an_attached_run_has_its_output_and_its_exit() {
    let scene = Scene::on_podman();
    let attach = [
        "--transport",
        "attach",
        "--open-files",
        "none",
        "--file-size",
        "none",
    ];

    let run = Ended::of(&mut scene.run_with(&attach, "print attached; stderr beside; exit 2"));

    assert_eq!(run.code, 1, "{}", run.stderr);
    scene.assert_ended("failed", b"attached\n", b"beside\n");
}

#[test]
fn a_name_that_is_taken_by_something_else_is_left_alone() {
    let scene = Scene::on_podman();
    // Its first attempt ends before there is a container; then the name of the second is taken.
    let first = Ended::of(&mut scene.run("exit 1"));
    assert_eq!(first.code, 1, "{}", first.stderr);
    let first = text(&scene.only_run(), "container");
    let taken = format!("{}-2", first.strip_suffix("-1").unwrap());
    scene.docker(&[
        "create",
        "--name",
        &taken,
        "--network",
        "none",
        &agent_image(),
        "/bin/agent",
    ]);

    let second = command(&scene, &["retry", &text(&scene.only_run(), "run_id")]);
    let holder = scene.docker(&[
        "ps",
        "--all",
        "--quiet",
        "--filter",
        &format!("name={taken}"),
    ]);
    scene.docker(&["rm", &taken]);

    assert_eq!(second.code, 4, "{}", second.stderr);
    assert!(
        second
            .stdout
            .contains(&format!("container name {taken} is taken")),
        "{}",
        second.stdout
    );
    assert_eq!(holder.lines().count(), 1);
}

#[test]
fn a_hardened_container_is_shut_where_podman_would_open_it() {
    let scene = Scene::on_podman();
    let attempts = ["/run/x", "/var/tmp/x", "/bin/x"].map(|path| format!("write {path} x"));

    let refused: Vec<i32> = attempts
        .iter()
        .map(|attempt| {
            let scene = Scene::on_podman();
            Ended::of(&mut scene.run(attempt)).code
        })
        .collect();
    let script = "write /tmp/here x\nread /proc/self/status";
    let run = Ended::of(&mut scene.run_with(&["--user", "1000:1000"], script));

    assert_eq!(
        refused, [1; 3],
        "a file was made in a root that is read-only"
    );
    assert_eq!(run.code, 0, "{}", run.stderr);
    let told = fs::read_to_string(scene.folder().join("raw.jsonl")).unwrap();
    for line in [
        "NoNewPrivs:\t1",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "Seccomp:\t2",
    ] {
        assert!(told.contains(line), "{line} is not in {told}");
    }
}

#[test]
fn a_run_reaches_what_its_list_names_through_the_guard_and_nothing_else() {
    let scene = Scene::on_podman();
    let host = bridge_address(&Scene::new());
    let (named, other) = (Decoy::open(), Decoy::open());
    let script = format!(
        "{ASK} ask 'GET http://{host}:{0}/ HTTP/1.1'; ask 'GET http://{host}:{1}/ HTTP/1.1'; \
         (exec 3<>/dev/tcp/{host}/{1}) 2>/dev/null && echo reached; echo end",
        named.port, other.port
    );
    let mut run = scene.dark_factory(&["run", "--agent", "command", "--image", &agent_image()]);
    run.args(["--network", &format!("allow:{host}:{}", named.port)]);
    run.args(programs(&["bash", "cat"])).arg(&scene.prompt);
    run.args([
        "--env",
        "PATH=/usr/bin",
        "--",
        "/usr/bin/bash",
        "-c",
        &script,
    ]);

    let run = Ended::of(&mut run);

    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    let told = fs::read_to_string(scene.folder().join("raw.jsonl")).unwrap();
    assert!(told.contains("hello") && told.ends_with("end\n"), "{told}");
    assert!(!told.contains("reached"), "{told}");
    assert_eq!((named.visits(), other.visits()), (1, 0));
    let report = report(&scene.folder());
    assert_eq!(
        report["egress"]["denied"].as_array().unwrap().len(),
        1,
        "{report}"
    );
}

/// Returns `doctor`'s findings in an installation, with variables.
fn findings(arguments: &[&str], variables: &[(&str, &str)]) -> (Ended, Vec<Value>) {
    let installation = Installation::new();
    let mut doctor = installation.dark_factory();
    doctor
        .args(["doctor", "--json"])
        .args(arguments)
        .current_dir(installation.folder())
        .env_remove("DOCKER_HOST")
        .env_remove("CONTAINER_HOST")
        .envs(variables.iter().copied());
    let ended = Ended::of(&mut doctor);
    let findings = ended.json();
    (ended, findings)
}

fn found(findings: &[Value], probe: &str) -> String {
    let found = findings.iter().find(|finding| finding["probe"] == probe);
    let finding = found.unwrap_or_else(|| panic!("no {probe} in {findings:?}"));
    format!("{}: {}", text(finding, "status"), text(finding, "found"))
}

#[test]
fn doctor_tries_podman_and_names_it() {
    let host = podman_host();
    let (_, findings) = findings(&[], &[("CONTAINER_HOST", &host)]);

    let engine = format!("ok: {host} (from CONTAINER_HOST) answers");
    assert_eq!(found(&findings, "engine"), engine);
    assert!(
        found(&findings, "version").starts_with("ok: podman "),
        "{findings:?}"
    );
    assert!(
        found(&findings, "setup").contains("containers outlive a restart"),
        "{findings:?}"
    );
    for probe in ["limits", "boot", "mount", "leftovers"] {
        assert!(
            found(&findings, probe).starts_with("ok: "),
            "{probe}: {findings:?}"
        );
    }
}

#[test]
fn an_engine_that_was_named_is_used_or_nothing_is() {
    let podman = podman_host();
    let nowhere = "unix:///nowhere/podman.sock";

    for (arguments, variables, engine, version) in [
        // Each variable names an engine, and neither is passed over for the other's socket.
        (
            &[][..],
            &[("CONTAINER_HOST", nowhere)][..],
            "failed",
            "skipped",
        ),
        (
            &[],
            &[
                ("DOCKER_HOST", podman.as_str()),
                ("CONTAINER_HOST", nowhere),
            ],
            "ok",
            "ok: podman",
        ),
        (
            &["--engine", "podman"],
            &[("DOCKER_HOST", nowhere), ("CONTAINER_HOST", &podman)],
            "ok",
            "ok: podman",
        ),
        (
            &["--engine", "podman"],
            &[("XDG_RUNTIME_DIR", "/nowhere")],
            "failed",
            "skipped",
        ),
        (
            &["--engine", "podman", "--host", &podman],
            &[],
            "ok",
            "ok: podman",
        ),
        (
            &["--engine", "docker", "--host", &podman],
            &[],
            "ok",
            "failed: ",
        ),
        (
            &[],
            &[
                ("DARK_FACTORY_ENGINE", "podman"),
                ("DOCKER_HOST", nowhere),
                ("CONTAINER_HOST", &podman),
            ],
            "ok",
            "ok: podman",
        ),
    ] {
        let (_, findings) = findings(arguments, variables);
        let seen = (found(&findings, "engine"), found(&findings, "version"));

        let is_so = seen.0.starts_with(engine) && seen.1.starts_with(version);
        assert!(is_so, "{arguments:?} {variables:?}: {seen:?}");
    }
    let (ended, _) = findings(&["--engine", "dokcer"], &[]);
    assert_eq!(ended.code, 2);
    assert!(
        ended
            .stderr
            .contains("--engine must be auto, docker, podman or sandbox"),
        "{}",
        ended.stderr
    );
    let (_, refused) = findings(&["--engine", "docker", "--host", &podman], &[]);
    assert!(
        found(&refused, "version").contains("it is Podman, and Docker is asked for"),
        "{refused:?}"
    );
}
