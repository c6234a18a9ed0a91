//! Configuration: where each value comes from, what it overrides, and what is told of configuration that is wrong.
//!
//! Owns: `config show`, `validate` and `schema`, and the messages of broken files at each layer.
//! Reads: standard output and standard error.
//! Never: repeats the unit tests of the layers.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use integration_tests::agent_image;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};

use crate::bad_input::{errors_of, nothing_ran, refuses};
use crate::support::{Ended, Workshop, attempt_text, for_agent, report};

/// Returns where the user's configuration file of an installation is, in a folder that is there.
fn user_file(workshop: &Workshop) -> PathBuf {
    let folder = workshop
        .installation
        .folder()
        .join("home/.config/dark-factory");
    fs::create_dir_all(&folder).unwrap();
    folder.join("config.toml")
}

/// Returns the line of `config show` for a key, its blanks made one.
#[track_caller]
fn shown(command: &mut Command, key: &str) -> String {
    let ended = Ended::of(command);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let line = ended
        .stdout
        .lines()
        .find(|line| line.starts_with(&format!("{key} = ")));
    let line = line.unwrap_or_else(|| panic!("no {key} in {}", ended.stdout));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_layer_is_over_the_one_before_and_show_tells_the_whole_story() {
    let workshop = Workshop::new();
    let user = user_file(&workshop);
    fs::write(&user, "memory = '1g'\n\n[profile.big]\nmemory = '4g'\n").unwrap();
    workshop.project.write(
        ".dark-factory.yaml",
        "model: seeds\nenv: {MY_TOKEN: hidden}\n",
    );
    workshop
        .project
        .write("dark-factory.toml", "# ours\nmemory = '2g'\n");
    workshop
        .project
        .write("a.md", "---\nprofile: big\nmemory: 5g\n---\nDo it.\n");
    let show = || workshop.command(&["config", "show", "a.md"]);

    let with_variable = shown(show().env("DARK_FACTORY_MEMORY", "6g"), "memory");
    let json = Ended::of(workshop.command(&["config", "show", "--json"]).arg("a.md"));

    let user = user.display();
    assert_eq!(
        with_variable,
        format!(
            "memory = 6g DARK_FACTORY_MEMORY (overrides a.md:3:9, {user}:4:10 in profile big, dark-factory.toml:2:10, \
             {user}:1:10, default 2g)"
        )
    );
    assert_eq!(
        shown(&mut show(), "model"),
        "model = seeds .dark-factory.yaml:1:8 (overrides default (the agent's own))"
    );
    assert_eq!(
        shown(&mut show(), "env.MY_TOKEN"),
        "env.MY_TOKEN = *** .dark-factory.yaml:2:17"
    );
    assert_eq!(shown(&mut show(), "pids"), "pids = 512 default");
    assert!(!json.stdout.contains("hidden"), "{}", json.stdout);
    let rows: Vec<Value> = json.json();
    let memory = rows.iter().find(|row| row["key"] == "memory").unwrap();
    assert_eq!(memory["value"], "5g");
    assert_eq!(
        memory["origin"],
        json!({"kind": "file", "file": "a.md", "line": 3, "column": 9, "profile": null})
    );
    assert_eq!(memory["overrides"][0]["origin"]["profile"], "big");
}

#[test]
fn none_lifts_a_projects_limits_in_a_front_matter_a_variable_and_a_flag() {
    let workshop = Workshop::new();
    workshop.project.write(
        "dark-factory.toml",
        "timeout = '9m'\nidle-timeout = '9m'\nmemory = '1g'\nimage = 'a/b'\nagent = 'command'\n",
    );
    workshop
        .project
        .write("a.md", "---\ntimeout: none\n---\nDo it.\n");
    let mut show = workshop.command(&["config", "show", "a.md"]);
    let mut explain = workshop.command(&["explain", "a.md", "--json", "--memory", "none"]);

    let idle = shown(
        show.env("DARK_FACTORY_IDLE_TIMEOUT", "none"),
        "idle-timeout",
    );
    let wall = shown(&mut show, "timeout");
    let explained: Value = Ended::of(&mut explain).json().remove(0);

    assert_eq!(
        idle,
        "idle-timeout = none DARK_FACTORY_IDLE_TIMEOUT (overrides dark-factory.toml:2:16, default (none))"
    );
    assert_eq!(
        wall,
        "timeout = none a.md:2:10 (overrides dark-factory.toml:1:11, default (none))"
    );
    let limits = &explained["spec"]["limits"];
    assert_eq!(limits["timeout"], Value::Null, "{explained}");
    assert_eq!(limits["memory"], Value::Null);
    assert_eq!(limits["pids"], 512);
}

#[test]
fn a_variable_of_an_environment_file_is_told_with_its_line_and_without_its_value() {
    let workshop = Workshop::new();
    workshop
        .project
        .write("one.env", "# ours\nA=hunter2\nC=hunter2\n");
    workshop.project.write("two.env", "C=hunter3\n");
    workshop.project.write(
        "dark-factory.toml",
        "env-file = 'two.env'\n[env]\nA = 'low'\nC = 'low'\n",
    );
    workshop.project.write(
        "a.md",
        "---\nenv-file: [one.env, gone.env]\nenv: {C: top}\n---\nDo it.\n",
    );
    let mut show = workshop.command(&["config", "show", "a.md"]);

    let a = shown(&mut show, "env.A");
    let c = shown(&mut show, "env.C");
    let ended = Ended::of(&mut show);

    let root = workshop.project.path().canonicalize().unwrap();
    let root = root.display();
    assert_eq!(
        a,
        format!("env.A = *** {root}/one.env:2:1 (overrides dark-factory.toml:3:5)")
    );
    assert_eq!(
        c,
        format!(
            "env.C = top a.md:3:10 (overrides {root}/one.env:3:1, dark-factory.toml:4:5, {root}/two.env:1:1)"
        )
    );
    assert!(!ended.stdout.contains("hunter"), "{}", ended.stdout);
    assert!(ended.stderr.contains("gone.env"), "{}", ended.stderr);
}

#[test]
fn a_run_has_what_all_layers_together_say() {
    let workshop = Workshop::new();
    let user = user_file(&workshop);
    fs::write(user.with_file_name("agent.env"), "FROM_USER=yes\n").unwrap();
    fs::write(
        &user,
        "env-file = 'agent.env'\nimage = 'no/such:image'\nmemory = '100m'\n",
    )
    .unwrap();
    let image = agent_image();
    workshop.project.write("project.env", "FROM_PROJECT=yes\n");
    workshop.project.write(
        "dark-factory.toml",
        format!("agent = 'command'\nimage = '{image}'\nenv-file = 'project.env'\nproject-name = 'named'\n"),
    );
    let task = for_agent("", "env FROM_USER; env FROM_PROJECT");
    workshop.project.write("prompts/a.md", task);

    let mut run = workshop.command(&["run", "--json", "prompts/a.md"]);
    let ended = Ended::of(run.env("DARK_FACTORY_PIDS", "77"));

    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let launch: Value = serde_json::from_str(&attempt_text(&ended.one(), "launch.json")).unwrap();
    assert_eq!(launch["env"]["FROM_USER"], "yes");
    assert_eq!(launch["env"]["FROM_PROJECT"], "yes");
    assert_eq!(launch["project"], "named");
    assert_eq!(launch["limits"]["pids"], 77);
    assert_eq!(launch["limits"]["memory"], 100 << 20);
    assert_eq!(report(&ended.one())["outcome"], "succeeded");
}

#[test]
fn configuration_that_is_broken_is_told_with_its_place_at_each_layer_and_nothing_runs() {
    let workshop = Workshop::new();
    let user = user_file(&workshop);
    let (toml, yaml) = ("dark-factory.toml", ".dark-factory.yaml");
    for (file, content, told) in [
        (
            toml,
            &b"memory = 4g\ncpus = \n"[..],
            &[
                "dark-factory.toml:1:10: this is not valid TOML",
                "\n  1 | memory = 4g\n    |          ^",
                "help: put a text in quotes: memory = \"4g\"",
                "dark-factory.toml:2:",
            ][..],
        ),
        (
            toml,
            b"x = 1\nmemroy = '4g'\n",
            &[
                "dark-factory.toml:2:1: there is no key memroy",
                "\n  2 | memroy = '4g'\n    | ^^^^^^\n",
                "help: did you mean memory?",
                "there is no key x",
            ],
        ),
        (
            toml,
            b"timeout = 5\n",
            &[
                "dark-factory.toml:1:11: timeout must be a duration with a unit, such as 90s, 30m or 1h30m, or none, not \"5\"",
            ],
        ),
        (
            toml,
            b"pids = 1\npids = 2\n",
            &[
                "dark-factory.toml:2:1: the key pids appears twice",
                "help: remove one of them",
            ],
        ),
        (
            toml,
            b"host = 'tcp://evil:2375'\n",
            &[
                "dark-factory.toml:1:1: host cannot be set here",
                "help: it can stand in config.toml of your own",
            ],
        ),
        (
            toml,
            b"memory = '1g'\n\xff\n",
            &[
                "dark-factory.toml:2: a configuration file must be UTF-8 text, and byte 14 of it is not",
            ],
        ),
        (
            yaml,
            b"containerImage: ''\n",
            &[".dark-factory.yaml:1:17: containerImage must not be empty"],
        ),
        (
            yaml,
            b"a: [\n",
            &[".dark-factory.yaml:", "this is not valid YAML"],
        ),
        (
            yaml,
            b"autoReview: true\n",
            &[
                ".dark-factory.yaml:1:1: autoReview was removed",
                "help: remove it",
            ],
        ),
    ] {
        let path = workshop.project.write(file, content);
        let of_run = errors_of(&mut workshop.script(&[], "exit 0"), 2, told);
        let of_validate = errors_of(&mut workshop.command(&["config", "validate"]), 2, told);
        assert_eq!(of_run, of_validate);
        fs::remove_file(path).unwrap();
    }
    fs::write(&user, "memory = '1x'\n").unwrap();
    let place = format!("{}:1:10: memory must be a size", user.display());
    refuses(&mut workshop.script(&[], "exit 0"), 2, &[&place]);
    fs::remove_file(&user).unwrap();
    refuses(
        workshop
            .script(&[], "exit 0")
            .env("DARK_FACTORY_MEMORY", "1x"),
        2,
        &["error: DARK_FACTORY_MEMORY must be a size such as 512m or 8g, or none, not \"1x\""],
    );
    let profile = workshop
        .project
        .write(toml, "default-profile = 'fast'\n[profile.fest]\n");
    refuses(
        &mut workshop.script(&[], "exit 0"),
        2,
        &[
            "dark-factory.toml:1:19: there is no profile \"fast\"; there are hardened, seed, fest; did you mean fest?",
        ],
    );
    assert_eq!(
        Ended::of(&mut workshop.command(&["config", "validate"])).code,
        2
    );
    fs::remove_file(profile).unwrap();
    refuses(
        &mut workshop.script(&["--profile", "sead"], "exit 0"),
        2,
        &["--profile: there is no profile \"sead\"; there are hardened, seed; did you mean seed?"],
    );
    nothing_ran(&workshop);
}

#[test]
fn a_configuration_file_that_is_no_file_is_named_and_never_waited_for() {
    let workshop = Workshop::new();
    let path = workshop.project.path().join("dark-factory.toml");
    let refused = |told: &str| {
        let name = "the configuration file dark-factory.toml cannot be read";
        refuses(&mut workshop.script(&[], "exit 0"), 2, &[name, told]);
    };

    fs::create_dir(&path).unwrap();
    refused("it is a folder; make it a file, or remove it");
    fs::remove_dir(&path).unwrap();
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    refused("it is no plain file");
    fs::remove_file(&path).unwrap();
    symlink("dark-factory.toml", &path).unwrap();
    refused("make it a file that you may read, or remove it");
    fs::remove_file(&path).unwrap();
    symlink("nowhere", &path).unwrap();
    refused("it is a link to nothing; make what it leads to, or remove it");
    fs::remove_file(&path).unwrap();
    fs::write(&path, "#".repeat((1 << 20) + 1)).unwrap();
    refused("it is larger than 1 MiB");
    nothing_ran(&workshop);
}

#[test]
fn of_a_project_inside_a_project_the_inner_ones_configuration_counts_and_none_of_the_outer() {
    let workshop = Workshop::new();
    workshop
        .project
        .write("dark-factory.toml", "pids = 100\nmemory = '1g'\n");
    workshop.project.write("inner/.git/HEAD", "");
    workshop
        .project
        .write("inner/dark-factory.toml", "pids = 200\n");
    workshop.project.write("inner/prompts/a.md", "Do it.\n");
    let show = || workshop.command(&["config", "show", "inner/prompts/a.md"]);

    assert_eq!(
        shown(&mut show(), "pids"),
        "pids = 200 inner/dark-factory.toml:1:8 (overrides default 512)"
    );
    assert_eq!(shown(&mut show(), "memory"), "memory = 2g default");
    assert_eq!(
        shown(&mut workshop.command(&["config", "show"]), "pids"),
        "pids = 100 dark-factory.toml:1:8 (overrides default 512)"
    );
}

#[test]
fn without_a_home_there_is_no_user_file_and_everything_else_goes_on() {
    let workshop = Workshop::new();
    let mut show = workshop.command(&["config", "show"]);

    let memory = shown(show.env_remove("HOME"), "memory");

    assert_eq!(memory, "memory = 2g default");
}

#[test]
fn a_key_of_the_tool_in_a_front_matter_does_nothing_and_the_warning_says_where_it_belongs() {
    let workshop = Workshop::new();
    workshop
        .project
        .write("a.md", "---\njobs: 3\nhost: tcp://x:1\n---\nDo it.\n");

    let ended = Ended::of(&mut workshop.command(&["config", "validate", "a.md"]));

    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (0, "a.md: ok\n"),
        "{}",
        ended.stderr
    );
    for told in [
        "warning: a.md:2:1: the key jobs does nothing in a front matter",
        "help: it can stand in config.toml or dark-factory.toml, in DARK_FACTORY_JOBS, or as --jobs",
        "warning: a.md:3:1: the key host does nothing in a front matter",
    ] {
        assert!(
            ended.stderr.contains(told),
            "{told:?} is not in {}",
            ended.stderr
        );
    }
}

#[test]
fn the_engine_that_the_users_file_names_is_used_unless_environment_or_flag_name_another() {
    let workshop = Workshop::new();
    fs::write(
        user_file(&workshop),
        "host = 'unix:///no/such/engine.sock'\n",
    )
    .unwrap();
    let run = || {
        let mut script = workshop.script(&[], "exit 0");
        script.env_remove("DOCKER_HOST");
        script
    };

    refuses(&mut run(), 4, &["/no/such/engine.sock"]);
    refuses(
        run().env("DARK_FACTORY_HOST", "unix:///no/other.sock"),
        4,
        &["/no/other.sock"],
    );
    let docker = Ended::of(run().env("DOCKER_HOST", "unix:///var/run/docker.sock"));

    assert_eq!(docker.code, 0, "{}", docker.stderr);
}

#[test]
fn a_broken_file_keeps_nobody_from_looking_at_runs() {
    let workshop = Workshop::new();
    fs::write(user_file(&workshop), "memroy = 1\n").unwrap();

    nothing_ran(&workshop);
}

#[test]
fn validate_tells_the_problems_of_all_files_and_variables() {
    let workshop = Workshop::new();
    fs::write(user_file(&workshop), "memroy = 1\n").unwrap();
    workshop.project.write("dark-factory.toml", "piods = 1\n");
    workshop
        .project
        .write("a.md", "---\ncpus: x\n---\nDo it.\n");
    let mut validate = workshop.command(&["config", "validate", "a.md"]);

    let ended = Ended::of(validate.env("DARK_FACTORY_PIDS", "x"));

    assert_eq!(ended.code, 2);
    for told in [
        "no key memroy",
        "a.md:2:7: cpus must be",
        "DARK_FACTORY_PIDS must be",
    ] {
        assert!(
            ended.stderr.contains(told),
            "{told:?} is not in {}",
            ended.stderr
        );
    }
    let project = Ended::of(&mut workshop.command(&["config", "validate", "--json"]));
    let problems: Vec<Value> = project.json();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems.iter().all(|problem| problem["ok"] == false));
}

#[test]
fn the_schema_is_printed_for_editors() {
    let workshop = Workshop::new();

    let ended = Ended::of(&mut workshop.command(&["config", "schema"]));

    let schema: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(
        schema["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
    assert_eq!(
        schema["properties"]["memory"]["type"],
        json!(["string", "number"])
    );
}

#[test]
fn a_variable_that_was_probably_meant_to_be_a_setting_is_warned_about() {
    let workshop = Workshop::new();
    let mut show = workshop.command(&["config", "show"]);

    let ended = Ended::of(show.env("DARK_FACTORY_MEMROY", "1g"));

    assert_eq!(
        ended.stderr,
        "warning: DARK_FACTORY_MEMROY is not known and does nothing; did you mean DARK_FACTORY_MEMORY?\n"
    );
}

#[test]
fn what_a_seeds_project_has_besides_is_told_in_one_note() {
    let workshop = Workshop::new();
    workshop.project.write(
        ".dark-factory.yaml",
        "workflow: clone\nautoMerge: true\nhideGti: true\n",
    );

    let ended = Ended::of(&mut workshop.command(&["config", "validate"]));

    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (0, ".dark-factory.yaml: ok\n")
    );
    assert_eq!(
        ended.stderr,
        "warning: .dark-factory.yaml:3:1: the key hideGti is not known and does nothing\n  3 | hideGti: true\n    | \
         ^^^^^^^\n  help: did you mean hideGit?\nnote: .dark-factory.yaml: left alone, as they mean nothing to \
         dark-factory's runs: workflow, autoMerge\n"
    );
}

#[test]
fn a_projects_jobs_count_for_its_runs_and_the_users_for_the_daemon() {
    let workshop = Workshop::new();
    fs::write(user_file(&workshop), "jobs = 3\n").unwrap();
    workshop.project.write("dark-factory.toml", "jobs = 2\n");
    // Each waits for the other one.
    for (name, mine, other) in [("a.md", "a", "b"), ("b.md", "b", "a")] {
        let task = for_agent("", &format!("write {mine} x; wait-file {other}"));
        workshop.project.write(name, task);
    }

    let run = Ended::of(workshop.run(&["--quiet"]).args(["a.md", "b.md"]));
    let daemon = Ended::of(&mut workshop.command(&["daemon", "start", "--json"]));

    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(daemon.one()["jobs"], 3, "{}", daemon.stderr);
}

#[test]
fn the_engine_in_use_is_shown_with_who_names_it() {
    let workshop = Workshop::new();
    let user = user_file(&workshop);
    fs::write(&user, "host = 'unix:///f'\n").unwrap();
    let show = |flags: &[&str]| {
        let mut command = workshop.command(&[flags, &["config", "show"]].concat());
        command.env("DOCKER_HOST", "unix:///d");
        command
    };

    let by_flag = shown(&mut show(&["--host", "unix:///h"]), "host");
    let by_docker = shown(&mut show(&[]), "host");
    let by_variable = shown(show(&[]).env("DARK_FACTORY_HOST", "unix:///v"), "host");
    let by_file = shown(show(&[]).env_remove("DOCKER_HOST"), "host");

    let file = format!("{}:1:8", user.display());
    let docker = "default (DOCKER_HOST or CONTAINER_HOST, else the engine's usual socket)";
    assert_eq!(
        by_flag,
        format!("host = unix:///h --host (overrides {file}, {docker})")
    );
    assert_eq!(
        by_docker,
        format!("host = unix:///d DOCKER_HOST (overrides {file}, {docker})")
    );
    assert_eq!(
        by_variable,
        format!("host = unix:///v DARK_FACTORY_HOST (overrides {file}, {docker})")
    );
    assert_eq!(
        by_file,
        format!("host = unix:///f {file} (overrides {docker})")
    );
}

#[test]
fn every_problem_of_the_configuration_is_an_error_of_its_own_and_told_once_for_all_files() {
    let workshop = Workshop::new();
    fs::write(user_file(&workshop), "pids = 'x'\n").unwrap();
    let broken = "memory = '1x'\ncpus = 'x'\n";
    workshop.project.write("dark-factory.toml", broken);
    workshop.project.write("a.md", "Do it.\n");
    workshop.project.write("b.md", "Do it.\n");

    let ended = Ended::of(&mut workshop.command(&["run", "--json", "a.md", "b.md"]));

    assert_eq!(ended.code, 2, "{}", ended.stderr);
    let errors: Vec<Value> = ended
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let places: Vec<_> = errors
        .iter()
        .map(|error| {
            (
                error["error"]["line"].clone(),
                error["error"]["column"].clone(),
            )
        })
        .collect();
    assert_eq!(
        places,
        [
            (json!(1), json!(8)),
            (json!(1), json!(10)),
            (json!(2), json!(8))
        ]
    );
    for error in errors {
        let message = error["error"]["message"].as_str().unwrap();
        assert!(
            !message.contains('\n') && error["error"]["file"].is_string(),
            "{error}"
        );
    }
}

#[test]
fn validate_tells_of_a_prompt_what_its_run_would_be_refused_for() {
    let workshop = Workshop::new();
    let project = &workshop.project;
    project.write("a.md", "---\nmount: [/nowhere:/n]\n---\nDo it.\n");
    project.write("b.md", "Do it without credentials.\n");

    let refused = ["a.md:2:9: ", "/nowhere does not exist"];
    assert_eq!(
        errors_of(
            &mut workshop.command(&["config", "validate", "a.md"]),
            2,
            &refused
        ),
        1
    );
    let sound = Ended::of(&mut workshop.command(&["config", "validate", "b.md"]));

    assert_eq!(
        (sound.code, sound.stdout.as_str()),
        (0, "b.md: ok\n"),
        "{}",
        sound.stderr
    );
}
