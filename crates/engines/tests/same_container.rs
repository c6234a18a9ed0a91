//! Both renderers of the launch options make the same container, as a real engine sees it.
//!
//! Each case is created twice, by the docker command line from the argv and by the API from the create request, and
//! what `docker inspect` says of the two is compared. Nothing is started. The exceptions are those of the table in
//! `docker::launch`. Needs a Docker engine and the `docker` command.

#![cfg(feature = "docker")]
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::collections::BTreeMap;
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
        for path in ["project/.git", "worktree", "claude", "cache"] {
            fs::create_dir_all(folder.path().join(path)).unwrap();
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

    for (case, mut opts) in cases {
        opts.container_name = scratch.new_container();
        create_by_command_line(&opts, &host);
        let mut by_command_line = inspect(&opts.container_name);
        opts.container_name = scratch.new_container();
        create_by_api(&engine, &opts, &host).await;
        let mut by_api = inspect(&opts.container_name);

        let mut take = |field: &str| {
            let field = |inspect: &mut Value| inspect["HostConfig"][field].take();
            (field(&mut by_command_line), field(&mut by_api))
        };
        assert_eq!(take("AutoRemove"), (json!(true), json!(false)), "{case}");
        assert_eq!(take("Init"), (Value::Null, json!(false)), "{case}");
        assert_eq!(by_command_line, by_api, "{case}");
    }
}
