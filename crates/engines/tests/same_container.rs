//! Both renderers of the launch options make the same container, as a real engine sees it.
//!
//! Each case is created twice, by the docker command line from the argv and by the API from the create request, and
//! what `docker inspect` says of the two is compared. Nothing is started. [`exceptions`] lists all that may differ. What
//! the engine puts around the container, our helper and its mounts, is compared in `docker_engine/hardening.rs`. Needs a
//! Docker engine and the `docker` command.

#![cfg(feature = "docker")]
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::CreateContainerOptionsBuilder;
use dark_factory_engines::docker::launch::{
    Bind, ContainerLaunchOpts, LogDriver, NetworkDemand, Privileges, RootFilesystem, TmpfsMount,
    build_docker_run_args, create_body,
};
use dark_factory_executor::host::HostView;
use dark_factory_executor::settings::ExtraMount;
use dark_factory_executor::spec::{Access, GitVisibility};
use dark_factory_types::ByteSize;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A field of `HostConfig` or of the container that differs on purpose.
struct Exception {
    field: &'static str,
    by_command_line: Value,
    by_api: Value,
    /// Why it must, in one sentence.
    why: &'static str,
}

/// Everything in which the two containers differ.
fn exceptions() -> [Exception; 2] {
    [
        Exception {
            field: "AutoRemove",
            by_command_line: json!(true),
            by_api: json!(false),
            why: "the seed always says `--rm`, and an engine that removes a container by itself takes its exit with it",
        },
        Exception {
            field: "Init",
            by_command_line: Value::Null,
            by_api: json!(false),
            why: "our helper is the entrypoint and PID 1, which docker-init would be if the engine's default says so",
        },
    ]
}

/// An image, folders on the host, and the containers of this test; all of them go when it is dropped.
struct Scratch {
    prefix: String,
    folder: TempDir,
    containers: Vec<String>,
}

impl Scratch {
    fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("df-same-")
            .tempdir()
            .unwrap();
        for path in ["project/.git", "worktree", "claude", "cache", "plain"] {
            fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        fs::create_dir_all(folder.path().join("ünï cödé 日本/it's")).unwrap();
        for (target, link) in [
            ("project", "link to project"),
            ("cache", "link-to-cache"),
            ("netrc", "link-to-netrc"),
        ] {
            std::os::unix::fs::symlink(target, folder.path().join(link)).unwrap();
        }
        for path in ["worktree/.git", "netrc", "gitconfig"] {
            fs::write(folder.path().join(path), "").unwrap();
        }
        let name = folder.path().file_name().unwrap().to_str().unwrap();
        let scratch = Self {
            prefix: name.to_ascii_lowercase().replace('.', ""),
            folder,
            containers: Vec::new(),
        };
        scratch.import_image();
        scratch
    }

    /// Makes an image of no files, with something in each field that a container inherits.
    fn import_image(&self) {
        let mut import = Command::new("docker")
            .args(["import", "--change", r#"ENTRYPOINT ["/entry"]"#])
            .args(["--change", r#"CMD ["image", "command"]"#])
            .args(["--change", "ENV FROM_IMAGE=1 A=image"])
            .args(["--change", "LABEL from.image=1"])
            .args(["--change", "WORKDIR /srv", "--change", "USER 1000"])
            .args(["-", &self.image()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Two blocks of zeros are an archive of nothing.
        import.stdin.take().unwrap().write_all(&[0; 1024]).unwrap();
        assert!(import.wait().unwrap().success());
    }

    fn image(&self) -> String {
        format!("{}:test", self.prefix)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn new_container(&mut self) -> String {
        let name = format!("{}-{}", self.prefix, self.containers.len());
        self.containers.push(name.clone());
        name
    }

    fn base(&self) -> ContainerLaunchOpts {
        ContainerLaunchOpts {
            container_image: self.image(),
            project_name: "p".to_owned(),
            ..ContainerLaunchOpts::default()
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for (command, names) in [("rm", &self.containers), ("rmi", &vec![self.image()])] {
            let output = Command::new("docker")
                .args([command, "-f"])
                .args(names)
                .output();
            let removed = output.is_ok_and(|output| output.status.success());
            // After a failed case, the name that it did not get to is no reason to abort the test's own message.
            assert!(
                removed || thread::panicking(),
                "docker {command} left some of {names:?}"
            );
        }
    }
}

fn docker(args: &[String]) -> String {
    let output = Command::new("docker").args(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// What decides how the container runs, from `docker inspect`, without what differs between any two containers.
fn inspect(name: &str) -> Value {
    let args = ["container", "inspect", name].map(str::to_owned);
    let mut all: Value = serde_json::from_str(&docker(&args)).unwrap();
    let mut container = all[0].take();
    container["Config"]["Hostname"].take();
    // The command line sends empty lists for what nobody asked for; the engine reads them as nothing.
    for value in container["HostConfig"]
        .as_object_mut()
        .unwrap()
        .values_mut()
    {
        if *value == json!([]) || *value == json!({}) {
            value.take();
        }
    }
    // The command line keeps these in maps, so their order is another one each time.
    for pointer in ["/HostConfig/Binds", "/Config/Env"] {
        if let Some(values) = container.pointer_mut(pointer).and_then(Value::as_array_mut) {
            values.sort_by_key(ToString::to_string);
        }
    }
    let mut mounts = container["Mounts"].take();
    mounts
        .as_array_mut()
        .unwrap()
        .sort_by_key(|mount| mount["Destination"].to_string());
    json!({
        "Config": container["Config"].take(),
        "HostConfig": container["HostConfig"].take(),
        "Path": container["Path"].take(),
        "Args": container["Args"].take(),
        "Mounts": mounts,
    })
}

fn create_by_command_line(opts: &ContainerLaunchOpts, host: &HostView) {
    let mut argv = build_docker_run_args(opts, host).argv;
    "create".clone_into(&mut argv[0]);
    docker(&argv);
}

async fn create_by_api(engine: &Docker, opts: &ContainerLaunchOpts, host: &HostView) {
    let launch = create_body(opts, host).unwrap();
    let options = CreateContainerOptionsBuilder::default()
        .name(&opts.container_name)
        .build();
    engine
        .create_container(Some(options), launch.body)
        .await
        .unwrap();
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn seed_cases(scratch: &Scratch) -> Vec<(&'static str, ContainerLaunchOpts)> {
    let base = || scratch.base();
    let mount = |src: &str, dst: &str, read_only| ExtraMount {
        src: src.to_owned(),
        dst: dst.to_owned(),
        read_only,
        optional: false,
    };
    vec![
        ("nothing set", base()),
        (
            "everything of the seed",
            ContainerLaunchOpts {
                project_root: scratch.path("project"),
                claude_dir: scratch.path("claude"),
                claude_dir_access: Access::ReadOnly,
                home: scratch.path(""),
                netrc_file: "~/netrc".to_owned(),
                gitconfig_file: scratch.path("gitconfig"),
                git: GitVisibility::Hidden,
                extra_mounts: vec![
                    mount("$CACHE/./", "/cache", None),
                    mount("~/netrc", "/n", Some(true)),
                    mount("nowhere", "/nowhere", None),
                    mount(".git", "/git", Some(false)),
                ],
                cap_add: words(&["NET_ADMIN", "NET_RAW"]),
                env: pairs(&[("A", "1"), ("DARK_FACTORY_MANAGED", "no")]),
                extra_labels: pairs(&[("dark-factory.prompt", "001")]),
                run_as_user: "1000:1000".to_owned(),
                memory_limit: "1.5g".to_owned(),
                cpu_limit: "1.25".to_owned(),
                pids_limit: 100,
                entrypoint: "/bin/sh".to_owned(),
                command: words(&["-c", "a b", ""]),
                ..base()
            },
        ),
        (
            "a worktree whose .git is a file",
            ContainerLaunchOpts {
                project_root: scratch.path("worktree"),
                git: GitVisibility::Hidden,
                ..base()
            },
        ),
        (
            "odd names and values in labels and environment",
            ContainerLaunchOpts {
                project_name: "a=b c/ü".to_owned(),
                env: pairs(&[
                    ("K", "0"),
                    ("K=1", "x"),
                    ("é", ""),
                    ("N", "one\ntwo"),
                    ("D", "$HOME"),
                ]),
                extra_labels: pairs(&[("k", "0"), ("k=v", "w"), ("e", ""), ("l", "one\ntwo")]),
                ..base()
            },
        ),
        (
            "an extra label that names another project",
            ContainerLaunchOpts {
                extra_labels: pairs(&[("dark-factory.project", "other")]),
                ..base()
            },
        ),
        (
            "an entrypoint that drops the image's command",
            ContainerLaunchOpts {
                entrypoint: "my ep".to_owned(),
                ..base()
            },
        ),
        (
            "a command that looks like flags",
            ContainerLaunchOpts {
                command: words(&["--rm", "-v"]),
                ..base()
            },
        ),
        (
            "limits of zero and none",
            ContainerLaunchOpts {
                memory_limit: "0".to_owned(),
                cpu_limit: "0".to_owned(),
                pids_limit: -1,
                ..base()
            },
        ),
        (
            "capabilities twice and in other spellings",
            ContainerLaunchOpts {
                cap_add: words(&["sys_ptrace", "CAP_SYS_PTRACE", "NET_RAW"]),
                ..base()
            },
        ),
    ]
}

fn own_cases(scratch: &Scratch) -> Vec<(&'static str, ContainerLaunchOpts)> {
    let base = || scratch.base();
    let tmpfs = |path: &str, options: &str| TmpfsMount {
        path: path.to_owned(),
        options: options.to_owned(),
    };
    vec![
        (
            "a locked-down container",
            ContainerLaunchOpts {
                binds: vec![
                    Bind {
                        source: scratch.path("project").into(),
                        target: "/workspace".to_owned(),
                        access: Access::ReadWrite,
                    },
                    Bind {
                        source: scratch.path("cache").into(),
                        target: "/workspace/cache".to_owned(),
                        access: Access::ReadOnly,
                    },
                ],
                workdir: "/workspace".to_owned(),
                network: NetworkDemand::Disabled,
                memory_limit: "512m".to_owned(),
                memory_swap: Some(ByteSize(512 << 20)),
                cap_drop: words(&["ALL"]),
                cap_add: words(&["CHOWN"]),
                privileges: Privileges::NoNew,
                root_filesystem: RootFilesystem::ReadOnly,
                tmpfs: vec![tmpfs("/tmp", "rw,size=64m"), tmpfs("/run", "")],
                stop_signal: "SIGRTMIN+1".to_owned(),
                stop_timeout: Some(Duration::from_millis(2500)),
                ..base()
            },
        ),
        (
            "a disabled network with host entries",
            ContainerLaunchOpts {
                network: NetworkDemand::Disabled,
                extra_hosts: words(&["db:10.0.0.1"]),
                ..base()
            },
        ),
        (
            "host entries behind the gateway",
            ContainerLaunchOpts {
                extra_hosts: words(&["db:10.0.0.1", "v6:::1"]),
                ..base()
            },
        ),
        (
            "a log driver with an option",
            ContainerLaunchOpts {
                log: Some(LogDriver {
                    name: "json-file".to_owned(),
                    options: pairs(&[("max-size", "5m")]),
                }),
                ..base()
            },
        ),
        (
            "a tmpfs in place of the one that hides .git",
            ContainerLaunchOpts {
                project_root: scratch.path("project"),
                git: GitVisibility::Hidden,
                tmpfs: vec![tmpfs("/workspace/.git", "size=2k")],
                ..base()
            },
        ),
    ]
}

/// Every field alone.
fn single_fields(scratch: &Scratch) -> Vec<(&'static str, ContainerLaunchOpts)> {
    let base = || scratch.base();
    let project = || ContainerLaunchOpts {
        project_root: scratch.path("project"),
        ..base()
    };
    let bind = |source: &str, target: &str, access| Bind {
        source: scratch.path(source).into(),
        target: target.to_owned(),
        access,
    };
    macro_rules! cases {
        ($($case:literal: { $($field:ident: $value:expr),* $(,)? }),* $(,)?) => {
            vec![$(($case, ContainerLaunchOpts { $($field: $value,)* ..base() })),*]
        };
    }
    let mut cases = cases! {
        "no project name": { project_name: String::new() },
        "a user": { run_as_user: "1000".to_owned() },
        "a user and a group by name": { run_as_user: "node:staff".to_owned() },
        "a memory limit": { memory_limit: "64m".to_owned() },
        "a memory limit in bytes": { memory_limit: "73400320".to_owned() },
        "a CPU limit": { cpu_limit: "0.5".to_owned() },
        "a limit of processes": { pids_limit: 1 },
        "an extra label": { extra_labels: pairs(&[("team", "blue")]) },
        "a capability": { cap_add: words(&["NET_ADMIN"]) },
        "all capabilities": { cap_add: words(&["ALL"]) },
        "a dropped capability": { cap_drop: words(&["NET_RAW"]) },
        "a variable": { env: pairs(&[("A", "b")]) },
        "a variable of the image": { env: pairs(&[("FROM_IMAGE", "2")]) },
        "a command": { command: words(&["run", "it"]) },
        "an entrypoint and a command": {
            entrypoint: "/bin/sh".to_owned(),
            command: words(&["-c", "true"]),
        },
        "a working directory": { workdir: "/tmp/a b".to_owned() },
        "no network": { network: NetworkDemand::Disabled },
        "a host entry": { extra_hosts: words(&["db:10.0.0.1"]) },
        "a limit of memory and swap": {
            memory_limit: "64m".to_owned(),
            memory_swap: Some(ByteSize(128 << 20)),
        },
        "no new privileges": { privileges: Privileges::NoNew },
        "a read-only root": { root_filesystem: RootFilesystem::ReadOnly },
        "a tmpfs": { tmpfs: vec![TmpfsMount { path: "/tmp".to_owned(), options: String::new() }] },
        "a stop signal": { stop_signal: "SIGINT".to_owned() },
        "a stop signal by number": { stop_signal: "10".to_owned() },
        "a stop timeout": { stop_timeout: Some(Duration::from_secs(30)) },
        "a stop timeout of zero": { stop_timeout: Some(Duration::ZERO) },
        "a log driver": { log: Some(LogDriver { name: "none".to_owned(), options: BTreeMap::new() }) },
        "a log driver with several options": {
            log: Some(LogDriver {
                name: "json-file".to_owned(),
                options: pairs(&[("max-size", "8m"), ("max-file", "2"), ("compress", "false")]),
            }),
        },
        "a writable bind": { binds: vec![bind("plain", "/b", Access::ReadWrite)] },
        "a read-only bind": { binds: vec![bind("plain", "/b", Access::ReadOnly)] },
        "a bind of a file": { binds: vec![bind("netrc", "/etc/netrc", Access::ReadOnly)] },
        "a credential folder": { claude_dir: scratch.path("claude") },
        "a read-only credential folder": {
            claude_dir: scratch.path("claude"),
            claude_dir_access: Access::ReadOnly,
        },
        "a netrc": { netrc_file: scratch.path("netrc") },
        "a gitconfig below the home": {
            home: scratch.path(""),
            gitconfig_file: "~/gitconfig".to_owned(),
        },
        "a hidden .git of a project that has none": {
            project_root: scratch.path("plain"),
            git: GitVisibility::Hidden,
        },
    };
    cases.push(("a project", project()));
    cases.push((
        "a hidden .git folder",
        ContainerLaunchOpts {
            git: GitVisibility::Hidden,
            ..project()
        },
    ));
    cases
}

/// Paths and texts that something on the way could read otherwise.
fn paths_and_texts(scratch: &Scratch) -> Vec<(&'static str, ContainerLaunchOpts)> {
    let base = || scratch.base();
    let mount = |src: &str, dst: &str, read_only| ExtraMount {
        src: src.to_owned(),
        dst: dst.to_owned(),
        read_only,
        optional: false,
    };
    let mounts = |extra_mounts| ContainerLaunchOpts {
        project_root: scratch.path("project"),
        home: scratch.path(""),
        extra_mounts,
        ..base()
    };
    vec![
        (
            "a project behind a symlink",
            ContainerLaunchOpts {
                project_root: scratch.path("link to project"),
                git: GitVisibility::Hidden,
                ..base()
            },
        ),
        (
            "mounts behind symlinks",
            mounts(vec![
                mount("~/link-to-cache", "/cache", None),
                mount("~/link-to-netrc", "/n", Some(true)),
            ]),
        ),
        (
            "a path that is not ASCII, with a blank and a quote",
            ContainerLaunchOpts {
                project_root: scratch.path("ünï cödé 日本/it's"),
                ..base()
            },
        ),
        (
            "such a path as mount source and target",
            mounts(vec![mount("~/ünï cödé 日本", "/ünï dst", Some(true))]),
        ),
        (
            "a mount of the environment's cache folder, one below another",
            mounts(vec![
                mount("${CACHE}", "/c", Some(true)),
                mount("$CACHE", "/c/inner", Some(false)),
            ]),
        ),
        (
            "one source at two places",
            mounts(vec![
                mount("~/cache", "/c", None),
                mount("~/cache", "/d", Some(true)),
            ]),
        ),
        (
            "a variable with = and blanks in its value",
            ContainerLaunchOpts {
                env: pairs(&[("A", "b=c = d"), ("B", " "), ("C", "=")]),
                ..base()
            },
        ),
        (
            "a variable with line breaks, quotes and other letters",
            ContainerLaunchOpts {
                env: pairs(&[
                    ("A", "one\ntwo\r\n\tthree"),
                    ("B", "it's \"日本\" \\n `id`"),
                ]),
                ..base()
            },
        ),
        (
            "a command with line breaks, empty words and other letters",
            ContainerLaunchOpts {
                command: words(&["-c", "", "one\ntwo", "日本", "--", "*"]),
                ..base()
            },
        ),
    ]
}

/// Fields that could get into each other's way.
fn pairs_of_fields(scratch: &Scratch) -> Vec<(&'static str, ContainerLaunchOpts)> {
    let base = || scratch.base();
    let tmp = || TmpfsMount {
        path: "/tmp".to_owned(),
        options: "rw,nosuid,nodev,exec,size=1048576,mode=1777".to_owned(),
    };
    macro_rules! cases {
        ($($case:literal: { $($field:ident: $value:expr),* $(,)? }),* $(,)?) => {
            vec![$(($case, ContainerLaunchOpts { $($field: $value,)* ..base() })),*]
        };
    }
    cases! {
        "a read-only root with a tmpfs": {
            root_filesystem: RootFilesystem::ReadOnly,
            tmpfs: vec![tmp()],
        },
        "capabilities dropped and added": {
            cap_drop: words(&["ALL"]),
            cap_add: words(&["NET_RAW", "CHOWN"]),
        },
        "a project as bind and as field": {
            project_root: scratch.path("project"),
            binds: vec![Bind {
                source: scratch.path("cache").into(),
                target: "/workspace/cache".to_owned(),
                access: Access::ReadOnly,
            }],
        },
        "a worktree and its credential files": {
            project_root: scratch.path("worktree"),
            git: GitVisibility::Hidden,
            netrc_file: scratch.path("netrc"),
            gitconfig_file: scratch.path("gitconfig"),
        },
        "no network and a log driver": {
            network: NetworkDemand::Disabled,
            log: Some(LogDriver { name: "local".to_owned(), options: pairs(&[("max-size", "1m")]) }),
        },
        "a user and a working directory": {
            run_as_user: "12345:54321".to_owned(),
            workdir: "/workspace".to_owned(),
        },
        "all limits": {
            memory_limit: "70m".to_owned(),
            memory_swap: Some(ByteSize(70 << 20)),
            cpu_limit: "1".to_owned(),
            pids_limit: 512,
        },
        "a stop signal and a timeout": {
            stop_signal: "SIGQUIT".to_owned(),
            stop_timeout: Some(Duration::from_secs(1)),
        },
        "labels and variables of the same names": {
            env: pairs(&[("A", "1"), ("B", "2")]),
            extra_labels: pairs(&[("A", "3"), ("B", "4")]),
        },
        "an image's variable emptied and its command replaced": {
            env: pairs(&[("A", "")]),
            command: words(&["x"]),
        },
    }
}

#[tokio::test]
async fn the_command_line_and_the_create_request_make_the_same_container() {
    let mut scratch = Scratch::new();
    let engine = Docker::connect_with_unix_defaults().unwrap();
    let engine = engine.negotiate_version().await.unwrap();
    let host = HostView {
        env: pairs(&[("CACHE", &scratch.path("cache"))]),
        cwd: "/".into(),
        ..HostView::default()
    };
    let mut cases = seed_cases(&scratch);
    cases.extend(own_cases(&scratch));
    cases.extend(single_fields(&scratch));
    cases.extend(paths_and_texts(&scratch));
    cases.extend(pairs_of_fields(&scratch));
    let sets: BTreeSet<String> = cases.iter().map(|(_, opts)| format!("{opts:?}")).collect();
    assert!(sets.len() >= 40, "only {} sets of options", sets.len());
    assert_eq!(sets.len(), cases.len(), "a set is there twice");

    for (case, mut opts) in cases {
        opts.container_name = scratch.new_container();
        create_by_command_line(&opts, &host);
        let mut by_command_line = inspect(&opts.container_name);
        opts.container_name = scratch.new_container();
        create_by_api(&engine, &opts, &host).await;
        let mut by_api = inspect(&opts.container_name);

        for Exception {
            field,
            by_command_line: theirs,
            by_api: ours,
            why,
        } in exceptions()
        {
            let found = [&mut by_command_line, &mut by_api]
                .map(|inspected| inspected["HostConfig"][field].take());
            assert_eq!(found, [theirs, ours], "{case}: {field}: {why}");
        }
        assert_eq!(by_command_line, by_api, "{case}");
    }
}
