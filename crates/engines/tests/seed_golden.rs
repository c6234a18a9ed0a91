//! The seed's own results: what its functions built, case by case.

#![cfg(feature = "docker")]
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use dark_factory_engines::docker::launch::{
    ContainerLaunchOpts, build_docker_run_args, insert_prompt_mount,
};
use dark_factory_executor::host::HostView;
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
struct ArgvCase {
    name: String,
    env: BTreeMap<String, String>,
    fs: Vec<Entry>,
    #[serde(default)]
    cwd: Option<String>,
    opts: Map<String, Value>,
    argv: Vec<String>,
}

#[derive(Deserialize)]
struct Entry {
    path: String,
    kind: String,
}

#[derive(Deserialize)]
struct PromptCase {
    name: String,
    argv: Vec<String>,
    prompt_file: String,
    image: String,
    expected: Vec<String>,
}

fn cases<T: for<'de> Deserialize<'de>>(lines: &str) -> Vec<T> {
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Puts the root's path where the data says `{root}`; the path needs no escaping in JSON.
fn substitute(lines: &str, root: &str) -> String {
    lines.replace("{root}", root)
}

/// Creates what a case needs below the root, which is emptied first.
fn lay_out(root: &Path, entries: &[Entry]) {
    for old in fs::read_dir(root).unwrap().map(Result::unwrap) {
        if old.file_type().unwrap().is_dir() {
            fs::remove_dir_all(old.path()).unwrap();
        } else {
            fs::remove_file(old.path()).unwrap();
        }
    }
    for entry in entries {
        let path = root.join(&entry.path);
        if entry.kind == "dir" {
            fs::create_dir_all(path).unwrap();
        } else {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
    }
}

/// Reads the seed's field names, two of which are flags where ours are words.
fn launch_opts(mut fields: Map<String, Value>) -> ContainerLaunchOpts {
    if fields.remove("hide_git") == Some(Value::Bool(true)) {
        fields.insert("git".to_owned(), "hidden".into());
    }
    if fields.remove("claude_dir_read_only") == Some(Value::Bool(true)) {
        fields.insert("claude_dir_access".to_owned(), "read_only".into());
    }
    serde_json::from_value(Value::Object(fields)).unwrap()
}

#[test]
fn the_seeds_fields_give_the_seeds_arguments_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let lines = substitute(include_str!("data/argv.jsonl"), root.to_str().unwrap());

    let cases: Vec<ArgvCase> = cases(&lines);

    assert_eq!(cases.len(), 200);
    for case in cases {
        lay_out(&root, &case.fs);
        let host = HostView {
            env: case.env,
            cwd: case.cwd.map_or_else(|| root.clone(), Into::into),
            home: None,
        };
        let args = build_docker_run_args(&launch_opts(case.opts), &host);
        assert_eq!(args.argv, case.argv, "{}", case.name);
    }
}

#[test]
fn the_prompt_is_mounted_where_the_seed_mounts_it() {
    let cases: Vec<PromptCase> = cases(include_str!("data/insert_prompt.jsonl"));

    assert_eq!(cases.len(), 12);
    for case in cases {
        let argv = insert_prompt_mount(&case.argv, &case.prompt_file, &case.image);
        assert_eq!(argv, case.expected, "{}", case.name);
    }
}

/// Cases 1 to 30 of the seed's conformance table; `docs/seed.md` has all fifty.
mod conformance {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use dark_factory_engines::docker::launch::{
        ContainerLaunchOpts, SkipReason, build_docker_run_args, insert_prompt_mount,
    };
    use dark_factory_engines::docker::launch_opts;
    use dark_factory_executor::host::HostView;
    use dark_factory_executor::prompt::Prompt;
    use dark_factory_executor::resolve::{ResolveContext, resolve};
    use dark_factory_executor::settings::{ExtraMount, Settings};
    use dark_factory_executor::spec::{Access, GitVisibility};
    use dark_factory_types::{OwnerId, RunId};
    use tempfile::TempDir;

    fn base() -> ContainerLaunchOpts {
        ContainerLaunchOpts {
            container_name: "n".to_owned(),
            container_image: "img:1".to_owned(),
            project_name: "p".to_owned(),
            ..ContainerLaunchOpts::default()
        }
    }

    fn argv(opts: &ContainerLaunchOpts) -> Vec<String> {
        build_docker_run_args(opts, &HostView::default()).argv
    }

    /// Returns what the options add between the seed's beginning and the marker, and between that and the image.
    fn added(opts: &ContainerLaunchOpts) -> [String; 2] {
        let line = argv(opts).join(" ");
        let begin = "run --rm --name n --label dark-factory.project=p --add-host=host.docker.internal:host-gateway ";
        let rest = line.strip_prefix(begin).unwrap();
        let (before, behind) = rest.split_once("-e DARK_FACTORY_MANAGED=true ").unwrap();
        let behind = behind.strip_suffix("img:1").unwrap();
        [before, behind].map(|part| part.trim_end().to_owned())
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// Returns the values of a flag, in order.
    fn values(argv: &[String], flag: &str) -> Vec<String> {
        let pairs = argv.windows(2).filter(|pair| pair[0] == flag);
        pairs.map(|pair| pair[1].clone()).collect()
    }

    #[test]
    fn cases_1_to_3_a_bare_launch_has_the_marker_and_nothing_takes_its_place() {
        let bare = "run --rm --name n --label dark-factory.project=p \
                    --add-host=host.docker.internal:host-gateway -e DARK_FACTORY_MANAGED=true img:1";
        let contrary = ContainerLaunchOpts {
            env: map(&[("DARK_FACTORY_MANAGED", "false")]),
            ..base()
        };

        assert_eq!(argv(&base()).join(" "), bare);
        assert_eq!(argv(&contrary).join(" "), bare);
        assert_eq!(contrary.env["DARK_FACTORY_MANAGED"], "false");
    }

    #[test]
    fn cases_4_and_5_variables_are_sorted_and_one_argument_each() {
        let opts = ContainerLaunchOpts {
            env: map(&[("GOPRIVATE", "x y"), ("GONOSUMCHECK", "y")]),
            ..base()
        };

        assert_eq!(
            values(&argv(&opts), "-e"),
            [
                "DARK_FACTORY_MANAGED=true",
                "GONOSUMCHECK=y",
                "GOPRIVATE=x y"
            ]
        );
    }

    #[test]
    fn cases_6_to_11_the_standard_mounts_and_their_order() {
        let opts = ContainerLaunchOpts {
            project_root: "/r".to_owned(),
            claude_dir: "/c".to_owned(),
            netrc_file: "~/.netrc".to_owned(),
            gitconfig_file: "/g".to_owned(),
            home: "/h".to_owned(),
            ..base()
        };
        let claude = |claude_dir: &str, claude_dir_access| ContainerLaunchOpts {
            claude_dir: claude_dir.to_owned(),
            claude_dir_access,
            ..base()
        };

        assert_eq!(
            values(&argv(&opts), "-v"),
            [
                "/r:/workspace",
                "/c:/home/node/.claude",
                "/h/.netrc:/home/node/.netrc:ro",
                "/g:/home/node/.gitconfig-extra:ro"
            ]
        );
        assert_eq!(
            added(&claude("/c", Access::ReadOnly)),
            ["", "-v /c:/home/node/.claude:ro"]
        );
        assert_eq!(added(&claude("", Access::ReadOnly)), ["", ""]);
        let colon = build_docker_run_args(&claude("/a:b", Access::ReadWrite), &HostView::default());
        assert_eq!(colon.argv, argv(&base()));
        assert_eq!(colon.skipped_mounts[0].reason, SkipReason::ColonInSource);
    }

    #[test]
    fn cases_12_to_16_capabilities_labels_user_and_limits_stand_before_the_variables() {
        for (opts, expected) in [
            (
                ContainerLaunchOpts {
                    cap_add: words(&["NET_ADMIN", "NET_RAW"]),
                    extra_labels: map(&[("b", "2"), ("a", "1")]),
                    run_as_user: "1000:1000".to_owned(),
                    memory_limit: "8g".to_owned(),
                    cpu_limit: "4".to_owned(),
                    pids_limit: 1024,
                    ..base()
                },
                "--user 1000:1000 --memory 8g --cpus 4 --pids-limit 1024 --label a=1 --label b=2 \
                 --cap-add=NET_ADMIN --cap-add=NET_RAW",
            ),
            (
                ContainerLaunchOpts {
                    run_as_user: "1000".to_owned(),
                    pids_limit: -1,
                    ..base()
                },
                "--user 1000",
            ),
            (
                ContainerLaunchOpts {
                    pids_limit: 0,
                    ..base()
                },
                "",
            ),
        ] {
            assert_eq!(added(&opts), [expected, ""]);
        }
    }

    #[test]
    fn case_17_the_entrypoint_stands_before_the_image_and_the_command_behind_it() {
        let opts = ContainerLaunchOpts {
            entrypoint: "/bin/sh".to_owned(),
            command: words(&["-c", "x"]),
            ..base()
        };

        assert!(argv(&opts).ends_with(&words(&["--entrypoint", "/bin/sh", "img:1", "-c", "x"])));
    }

    #[test]
    fn cases_18_to_23_extra_mounts_are_resolved_and_left_out_if_they_are_missing() {
        let folder = TempDir::new().unwrap();
        let root = folder.path().to_str().unwrap().to_owned();
        fs::create_dir(folder.path().join("docs")).unwrap();
        let absolute = format!("{root}/docs");
        let host = HostView {
            env: map(&[("V", &root)]),
            ..HostView::default()
        };
        let mounted = |src: &str, read_only| {
            let opts = ContainerLaunchOpts {
                project_root: root.clone(),
                home: root.clone(),
                extra_mounts: vec![ExtraMount {
                    src: src.to_owned(),
                    dst: "/dst".to_owned(),
                    read_only,
                    optional: false,
                }],
                ..base()
            };
            values(&build_docker_run_args(&opts, &host).argv, "-v").split_off(1)
        };

        for src in [&absolute, "docs", "~/docs", "$V/docs", "${V}/docs"] {
            assert_eq!(mounted(src, None), [format!("{absolute}:/dst")], "{src}");
        }
        assert_eq!(mounted("docs", Some(true)), [format!("{absolute}:/dst:ro")]);
        assert_eq!(mounted("docs", Some(false)), [format!("{absolute}:/dst")]);
        assert_eq!(mounted("missing", None), [""; 0]);
        assert_eq!(mounted("$UNDEFINED/nowhere-at-all", None), [""; 0]);
    }

    #[test]
    fn case_24_the_hosts_cache_folder_is_found_as_the_seed_finds_it() {
        let resolved = |env: &[(&str, &str)]| {
            let opts = ContainerLaunchOpts {
                extra_mounts: vec![ExtraMount {
                    src: "${HOST_CACHE_DIR}/no-such-go-build".to_owned(),
                    ..ExtraMount::default()
                }],
                ..base()
            };
            let host = HostView {
                env: map(env),
                ..HostView::default()
            };
            let mut skipped = build_docker_run_args(&opts, &host).skipped_mounts;
            skipped.remove(0).resolved
        };
        let home = ("HOME", "/h");

        for (env, folder) in [
            (&[home][..], "/h/.cache"),
            (&[home, ("XDG_CACHE_HOME", "/x")], "/x"),
            (&[home, ("HOST_CACHE_DIR", "/q")], "/q"),
            (&[], ""),
        ] {
            assert_eq!(resolved(env), format!("{folder}/no-such-go-build"));
        }
    }

    #[test]
    fn cases_25_to_27_git_is_covered_by_what_it_is_and_only_if_it_is_there() {
        let folder = TempDir::new().unwrap();
        for path in ["folder/.git", "file", "none"] {
            fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        fs::write(folder.path().join("file/.git"), "gitdir: /elsewhere").unwrap();
        let behind_the_workspace = |project: &str, git| {
            let project_root = folder.path().join(project).to_str().unwrap().to_owned();
            let opts = ContainerLaunchOpts {
                project_root: project_root.clone(),
                entrypoint: "e".to_owned(),
                git,
                ..base()
            };
            let [_, behind] = added(&opts);
            let workspace = format!("-v {project_root}:/workspace");
            behind.strip_prefix(&workspace).unwrap().trim().to_owned()
        };

        for (project, cover) in [
            (
                "folder",
                "--tmpfs /workspace/.git:rw,size=1k --entrypoint e",
            ),
            ("file", "-v /dev/null:/workspace/.git --entrypoint e"),
            ("none", "--entrypoint e"),
        ] {
            assert_eq!(behind_the_workspace(project, GitVisibility::Hidden), cover);
            let visible = behind_the_workspace(project, GitVisibility::Visible);
            assert_eq!(visible, "--entrypoint e", "{project}");
        }
    }

    /// Returns the argv of a prompt under the seed's profile, and where its project and credentials are.
    fn prompt_run(front_matter: &str) -> (Vec<String>, TempDir) {
        let folder = TempDir::new().unwrap();
        let project = folder.path().canonicalize().unwrap().join("p");
        fs::create_dir_all(&project).unwrap();
        fs::create_dir_all(folder.path().join("home/.claude-yolo")).unwrap();
        let host = HostView {
            env: map(&[("ANTHROPIC_API_KEY", "k")]),
            home: Some(folder.path().join("home")),
            cwd: project,
        };
        let text = format!("---\nprofile: seed\nimage: img:1\n{front_matter}---\nDo it.\n");
        let prompt = Prompt::parse("042-fix.md", text.as_bytes()).unwrap();
        let context = ResolveContext::new(Path::new("/nowhere/state").to_owned());
        let spec = resolve(&prompt, &Settings::default(), &host, &context)
            .unwrap()
            .spec;
        let attempt = RunId::from_random_bits(1).attempt(1);
        let opts = launch_opts(&spec, attempt, &OwnerId("o".to_owned()), &host);
        let argv = build_docker_run_args(&opts, &host).argv;
        let argv = insert_prompt_mount(&argv, "/tmp/prompt-1.md", &spec.image);
        (argv, folder)
    }

    #[test]
    fn cases_28_and_30_a_prompt_run_has_three_mounts_and_the_image_reads_the_last() {
        let (argv, folder) = prompt_run("");

        let base = folder.path().canonicalize().unwrap().display().to_string();
        assert_eq!(
            values(&argv, "-e"),
            [
                "DARK_FACTORY_MANAGED=true",
                "YOLO_OUTPUT=json",
                "YOLO_PROMPT_FILE=/tmp/prompt.md"
            ]
        );
        assert_eq!(
            values(&argv, "-v"),
            [
                format!("{base}/p:/workspace"),
                format!("{base}/home/.claude-yolo:/home/node/.claude"),
                "/tmp/prompt-1.md:/tmp/prompt.md:ro".to_owned()
            ]
        );
        assert!(argv.ends_with(&words(&[
            "-v",
            "/tmp/prompt-1.md:/tmp/prompt.md:ro",
            "img:1"
        ])));
    }

    #[test]
    fn case_29_the_model_wins_over_the_variable() {
        let (argv, _folder) = prompt_run("model: m\nenv: {ANTHROPIC_MODEL: other}\n");

        assert!(values(&argv, "-e").contains(&"ANTHROPIC_MODEL=m".to_owned()));
        assert_eq!(values(&argv, "-e").len(), 4);
    }
}
