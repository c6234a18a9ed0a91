//! What the container is like, as the engine says it and as the agent sees it.

use std::collections::BTreeSet;

use dark_factory_engines::docker::launch::{ContainerLaunchOpts, build_docker_run_args};
use dark_factory_engines::docker::launch_opts;
use dark_factory_executor::engine::Engine;
use dark_factory_executor::host::HostView;
use dark_factory_executor::spec::{LaunchSpec, Limits, Profile, User};
use dark_factory_types::{ByteSize, CpuCount, NetworkMode, Transport};
use serde_json::{Value, json};

use super::lab::{Lab, docker, inspect};

/// Returns the fields of `Config` and `HostConfig` in which two containers differ.
fn differences(one: &str, other: &str) -> Vec<String> {
    let inspected = docker(&["container", "inspect", one, other]);
    let mut inspected: Vec<Value> = serde_json::from_str(&inspected).unwrap();
    let (other, one) = (inspected.remove(1), inspected.remove(0));
    let mut differences = Vec::new();
    for part in ["Config", "HostConfig"] {
        let (one, other) = (
            one[part].as_object().unwrap(),
            other[part].as_object().unwrap(),
        );
        let fields: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
        for field in fields {
            let values = [one, other].map(|container| match container.get(field) {
                // The command line sends empty lists for what nobody asked for.
                Some(empty) if *empty == json!([]) || *empty == json!({}) => Value::Null,
                // It keeps these in maps, so their order is another one each time.
                Some(Value::Array(values)) if ["Binds", "Env"].contains(&field.as_str()) => {
                    let mut values = values.clone();
                    values.sort_by_key(ToString::to_string);
                    Value::Array(values)
                }
                value => value.cloned().unwrap_or_default(),
            });
            if values[0] != values[1] && field != "Hostname" {
                differences.push(format!("{part}.{field}"));
            }
        }
    }
    differences
}

#[tokio::test]
async fn the_container_is_that_of_the_command_line_but_for_what_is_around_it() {
    // `--rm` takes the exit with the container, and docker-init would be PID 1 in the helper's place.
    const REMOVED_BY_US: [&str; 2] = ["HostConfig.AutoRemove", "HostConfig.Init"];
    // Our helper is the entrypoint, so that every byte is recorded; it is mounted, as are its socket and the prompt.
    const HELPER: [&str; 3] = ["Config.Cmd", "Config.Entrypoint", "HostConfig.Mounts"];
    let lab = Lab::new();
    let host = HostView::default();
    let hardened = || lab.spec("print hello");
    let open = || LaunchSpec {
        network: NetworkMode::Open,
        ..hardened()
    };
    for (spec, around) in [
        (open(), &HELPER[..]),
        (
            // Set by a field of the request that is faster and that no flag sets.
            hardened(),
            &[&HELPER[..], &["Config.NetworkDisabled"]].concat(),
        ),
        (
            LaunchSpec {
                profile: Profile::Seed,
                user: User::Image,
                ..open()
            },
            &HELPER,
        ),
        (
            LaunchSpec {
                transport: Transport::Attach,
                ..open()
            },
            &["HostConfig.Mounts"],
        ),
    ] {
        let dir = lab.attempt();
        let handle = lab.create(&spec, &dir).await;
        let opts = ContainerLaunchOpts {
            container_name: format!("{}-line", handle.container),
            ..launch_opts(&spec, dir.attempt(), &lab.owner, &host)
        };
        let argv = build_docker_run_args(&opts, &host).argv;
        let argv: Vec<&str> = argv.iter().skip(1).map(String::as_str).collect();

        docker(&[&["create"], argv.as_slice()].concat());

        let mut expected = [around, &REMOVED_BY_US].concat();
        expected.sort_unstable();
        assert_eq!(
            differences(&handle.container, &opts.container_name),
            expected
        );
    }
}

#[tokio::test]
async fn hardening_and_limits_are_what_the_engine_was_asked_for() {
    let lab = Lab::new();
    let limits = Limits {
        memory: Some(ByteSize(64 << 20)),
        cpus: Some(CpuCount { nanos: 500_000_000 }),
        pids: Some(50),
        timeout: None,
        ..Limits::default()
    };
    let spec = LaunchSpec {
        limits,
        ..lab.spec("print hello")
    };
    let handle = lab.create(&spec, &lab.attempt()).await;

    let fields = [
        "{{.Config.User}}",
        "{{.Config.OpenStdin}}",
        "{{.HostConfig.CapDrop}}",
        "{{.HostConfig.SecurityOpt}}",
        "{{.HostConfig.ReadonlyRootfs}}",
        "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}",
        "{{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}",
        "{{.HostConfig.NetworkMode}}",
        "{{.HostConfig.AutoRemove}} {{.HostConfig.Privileged}} {{.HostConfig.Init}}",
        "{{.HostConfig.LogConfig.Type}}",
        "{{.HostConfig.PidMode}}{{.HostConfig.UTSMode}}",
        "{{.Config.StopSignal}} {{.Config.StopTimeout}}",
    ];
    let found = fields.map(|field| inspect(&handle.container, field));

    assert_eq!(
        found,
        [
            "1000:1000",
            "false",
            "[ALL]",
            "[no-new-privileges]",
            "true",
            "67108864 67108864",
            "500000000 50",
            "none",
            "false false false",
            "json-file",
            "",
            "SIGTERM 10",
        ]
    );
}

#[tokio::test]
async fn an_open_network_is_the_engines_bridge() {
    let lab = Lab::new();
    let spec = LaunchSpec {
        network: NetworkMode::Open,
        ..lab.spec("ls /sys/class/net")
    };

    let (_, spool) = lab.run(&spec).await;

    assert!(spool.text().contains("eth0"), "{}", spool.text());
}

#[tokio::test]
async fn the_seeds_container_runs_the_images_entrypoint_with_the_prompt_where_the_seed_puts_it() {
    let lab = Lab::new();
    let image = format!("{}-seed", lab.image);
    lab.build_image(
        &image,
        &[
            r#"ENTRYPOINT ["/bin/agent", "-e", "id; read /tmp/prompt.md; env YOLO_PROMPT_FILE; prompt; print end"]"#,
            "WORKDIR /workspace",
        ],
    );
    let spec = LaunchSpec {
        profile: Profile::Seed,
        image: image.clone(),
        command: Vec::new(),
        user: User::Image,
        env: [("YOLO_PROMPT_FILE".to_owned(), "/tmp/prompt.md".to_owned())].into(),
        workdir: String::new(),
        network: NetworkMode::Open,
        ..lab.spec("")
    };
    let dir = lab.attempt();
    let handle = lab.create(&spec, &dir).await;

    let workload = lab.engine.start(&spec, &handle, &dir).await.unwrap();
    workload.wait().await.unwrap();

    let (caps, root) = (
        inspect(&handle.container, "{{.HostConfig.CapAdd}}"),
        inspect(&handle.container, "{{.HostConfig.ReadonlyRootfs}}"),
    );
    workload.remove().await.unwrap();
    docker(&["rmi", &image]);
    assert_eq!(
        (caps.as_str(), root.as_str()),
        ("[CAP_NET_ADMIN CAP_NET_RAW]", "false")
    );
    let text = super::lab::Spool::read(&dir).text();
    assert_eq!(text.matches("the prompt\n").count(), 1, "{text}");
    assert!(
        text.contains("/tmp/prompt.md\n") && text.ends_with("end\n"),
        "{text}"
    );
}
