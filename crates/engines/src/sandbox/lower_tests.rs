//! What launch specs mean in a sandbox.

use std::collections::BTreeSet;

use dark_factory_executor::spec::{
    Disposal, GitVisibility, Limits, Mount, PullPolicy, SPEC_VERSION, SeedSpec, StopPolicy,
    WORKSPACE_TARGET, Workspace,
};
use dark_factory_types::{Budget, RunId};

use super::*;

fn spec() -> LaunchSpec {
    LaunchSpec {
        version: SPEC_VERSION,
        file: "/project/001.md".to_owned(),
        project: "p".to_owned(),
        prompt: "001".to_owned(),
        container: None,
        agent: "command".to_owned(),
        profile: Profile::Hardened,
        image: "host".to_owned(),
        pull: PullPolicy::Never,
        command: vec!["agent".to_owned(), "two words".to_owned()],
        env: BTreeMap::from([("A".to_owned(), "of the spec".to_owned())]),
        secrets: Vec::new(),
        labels: BTreeMap::from([("own".to_owned(), "label".to_owned())]),
        workspace: Workspace {
            source: "/project".into(),
            target: WORKSPACE_TARGET.to_owned(),
            git: GitVisibility::Visible,
            git_is_file: false,
        },
        mounts: Vec::new(),
        workdir: WORKSPACE_TARGET.to_owned(),
        user: User::Ids {
            uid: 1000,
            gid: 1001,
        },
        limits: Limits {
            memory: Some(ByteSize(1 << 20)),
            ..Limits::default()
        },
        network: NetworkMode::None,
        providers: Vec::new(),
        budget: Budget::default(),
        stop: StopPolicy::default(),
        engine_identity: None,
        disposal: Disposal::Remove,
        tell_limits: false,
        prompt_digests: None,
        secret_sources: BTreeMap::new(),
        env_from_host: BTreeSet::new(),
        completion_grace: None,
        transport: Transport::Spool,
        seed: SeedSpec::default(),
    }
}

fn lower_in(spec: &LaunchSpec, image: Image) -> Result<SandboxConfig, Refusal> {
    lower_by(spec, image, None)
}

fn lower_by(
    spec: &LaunchSpec,
    image: Image,
    only_user: Option<(u32, u32)>,
) -> Result<SandboxConfig, Refusal> {
    let attempt = RunId::from_random_bits(1).attempt(1);
    let dir = AttemptDir::new(attempt, "/state/a".into(), "/state/init/x".into());
    let around = Surroundings {
        host: &HostView::default(),
        image,
        only_user,
        limits: SandboxLimits::default(),
        empty: "/empty".into(),
        now: Timestamp::UNIX_EPOCH,
    };
    config(spec, &OwnerId("o".to_owned()), &dir, around)
}

fn lower(spec: &LaunchSpec) -> Result<SandboxConfig, Refusal> {
    lower_in(spec, Image::plain(Root::Host))
}

fn mounted(config: &SandboxConfig) -> Vec<String> {
    let bind = |bind: &SandboxBind| {
        let access = match bind.access {
            Access::ReadWrite => "rw",
            Access::ReadOnly => "ro",
        };
        format!(
            "{} {} {access}",
            bind.source.display(),
            bind.target.display()
        )
    };
    config.binds.iter().map(bind).collect()
}

#[test]
fn the_helper_is_around_the_agent_and_what_is_ours_is_read_only() {
    let config = lower(&spec()).unwrap();

    let id = "100000000000-1";
    assert_eq!(
        config.argv,
        [
            "/.dark-factory/init",
            "run",
            "--socket",
            "/.dark-factory/attempt/socket",
            "--id",
            id,
            "--stdin",
            "/.dark-factory/attempt/prompt.md",
            "--",
            "agent",
            "two words",
        ]
    );
    assert_eq!(
        mounted(&config),
        [
            "/project /workspace rw",
            "/state/a/mount /.dark-factory/attempt ro",
            "/state/init/x /.dark-factory/init ro",
        ]
    );
    assert_eq!(
        (config.uid, config.gid, config.network),
        (1000, 1001, Network::Loopback)
    );
    assert_eq!(config.labels["own"], "label");
    assert_eq!(config.labels["dark-factory.attempt"], id);
    let memory: Vec<_> = config
        .tmpfs
        .iter()
        .map(|memory| {
            (
                memory.target.to_str().unwrap(),
                memory.size.0,
                memory.files,
                memory.mode,
            )
        })
        .collect();
    assert_eq!(
        memory,
        [
            ("/tmp", 512 << 10, 128, 0o1777),
            ("/home/agent", 512 << 10, 128, 0o700)
        ]
    );
}

#[test]
fn what_is_mounted_above_comes_first_and_secrets_come_too() {
    let mount = |source: &str, target: &str| Mount {
        source: source.into(),
        target: target.to_owned(),
        access: Access::ReadOnly,
    };
    let config = lower(&LaunchSpec {
        mounts: vec![
            mount("/deep", "/workspace/a/b"),
            mount("/c", "/workspace/a"),
        ],
        secrets: vec!["token".to_owned()],
        ..spec()
    })
    .unwrap();

    assert_eq!(
        mounted(&config),
        [
            "/project /workspace rw",
            "/c /workspace/a ro",
            "/state/a/mount /.dark-factory/attempt ro",
            "/state/init/x /.dark-factory/init ro",
            "/state/a/secrets /run/secrets ro",
            "/deep /workspace/a/b ro",
        ]
    );
}

#[test]
fn git_is_hidden_by_something_empty_of_its_kind() {
    let project = tempfile::tempdir().unwrap();
    let hidden = |project: &std::path::Path| LaunchSpec {
        workspace: Workspace {
            source: project.to_owned(),
            git: GitVisibility::Hidden,
            ..spec().workspace
        },
        ..spec()
    };
    let cover = || {
        let config = lower(&hidden(project.path())).unwrap();
        let is_git = |line: &String| line.contains(" /workspace/.git ");
        mounted(&config).into_iter().find(is_git)
    };

    assert_eq!(cover(), None);
    let git = project.path().join(".git");
    std::fs::create_dir(&git).unwrap();
    assert_eq!(cover().as_deref(), Some("/empty /workspace/.git ro"));
    std::fs::remove_dir(&git).unwrap();
    std::fs::write(&git, "gitdir: elsewhere").unwrap();
    assert_eq!(cover().as_deref(), Some("/dev/null /workspace/.git rw"));
}

#[test]
fn the_environment_is_the_images_and_over_it_the_specs() {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let image = Image {
        env: BTreeMap::from([pair("A", "of the image"), pair("B", "of the image")]),
        ..Image::plain(Root::Folder("/r".into()))
    };

    let env = lower_in(&spec(), image).unwrap().env;

    assert_eq!(
        env,
        BTreeMap::from([
            pair("A", "of the spec"),
            pair("B", "of the image"),
            pair("PATH", PATH)
        ])
    );
}

#[test]
fn an_agent_of_the_image_is_found_whatever_path_is() {
    let bind = SandboxBind {
        source: "/images/claude".into(),
        target: "/.dark-factory/agent".into(),
        access: Access::ReadOnly,
    };
    let image = Image {
        first_in_path: Some("/.dark-factory/agent/bin".to_owned()),
        binds: vec![bind.clone()],
        ..Image::plain(Root::Host)
    };
    let mut own = spec();
    own.env.insert("PATH".to_owned(), "/mine".to_owned());

    let config = lower_in(&own, image).unwrap();

    assert_eq!(config.env["PATH"], "/.dark-factory/agent/bin:/mine");
    assert!(config.binds.contains(&bind));
}

#[test]
fn what_a_sandbox_cannot_do_is_refused() {
    let table = [
        (
            Refusal::Seed,
            LaunchSpec {
                profile: Profile::Seed,
                ..spec()
            },
        ),
        (
            Refusal::Attach,
            LaunchSpec {
                transport: Transport::Attach,
                ..spec()
            },
        ),
        (
            Refusal::NamedUser,
            LaunchSpec {
                user: User::Named("node".to_owned()),
                ..spec()
            },
        ),
        (
            Refusal::NoCommand,
            LaunchSpec {
                command: Vec::new(),
                ..spec()
            },
        ),
        (
            Refusal::Name("../up".to_owned()),
            LaunchSpec {
                container: Some("../up".to_owned()),
                ..spec()
            },
        ),
    ];
    for (refusal, spec) in table {
        assert_eq!(lower(&spec), Err(refusal));
    }
}

#[test]
fn without_root_there_is_no_user_but_the_own_one() {
    let by = |only| lower_by(&spec(), Image::plain(Root::Host), Some(only));

    assert!(by((1000, 1001)).is_ok());
    for only in [(4242, 1001), (1000, 4242)] {
        let (uid, gid) = only;
        assert_eq!(by(only), Err(Refusal::OtherUser { uid, gid }));
    }
}
