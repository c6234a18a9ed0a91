//! Unit tests of the lowering: what a spec becomes, without an engine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use bollard::models::{ContainerCreateBody, HostConfig};
use dark_factory_executor::spec::{
    Disposal, GitVisibility, LABEL_ATTEMPT, LABEL_OWNER, LABEL_PROMPT, Limits, Mount as SpecMount,
    PullPolicy, SPEC_VERSION, SeedSpec, StopPolicy, Workspace,
};
use dark_factory_types::{ByteSize, CpuCount, RunId};
use tempfile::TempDir;

use super::super::launch::build_docker_run_args;
use super::*;

fn spec(profile: Profile) -> LaunchSpec {
    LaunchSpec {
        version: SPEC_VERSION,
        file: "/p/001.md".to_owned(),
        project: "p".to_owned(),
        prompt: "001".to_owned(),
        container: Some("c1".to_owned()),
        agent: "command".to_owned(),
        profile,
        image: "img:1".to_owned(),
        pull: PullPolicy::Never,
        command: vec!["/agent".to_owned(), "-x".to_owned()],
        env: BTreeMap::from([("A".to_owned(), "1".to_owned())]),
        secrets: Vec::new(),
        labels: BTreeMap::from([
            ("team".to_owned(), "a".to_owned()),
            (LABEL_ATTEMPT.to_owned(), "forged".to_owned()),
            (LABEL_PROJECT.to_owned(), "forged".to_owned()),
        ]),
        workspace: Workspace {
            source: "/p".into(),
            target: WORKSPACE_TARGET.to_owned(),
            git: GitVisibility::Visible,
            git_is_file: false,
        },
        mounts: vec![SpecMount {
            source: "/cache".into(),
            target: "/c".to_owned(),
            access: Access::ReadOnly,
        }],
        workdir: WORKSPACE_TARGET.to_owned(),
        user: User::Ids {
            uid: 1000,
            gid: 100,
        },
        limits: Limits {
            memory: Some(ByteSize(512 << 20)),
            cpus: Some(CpuCount {
                nanos: 1_500_000_000,
            }),
            pids: Some(100),
            timeout: None,
            ..Limits::default()
        },
        network: NetworkMode::Open,
        providers: Vec::new(),
        budget: dark_factory_types::Budget::default(),
        stop: StopPolicy {
            signal: "SIGINT".to_owned(),
            grace: Duration::from_secs(3),
        },
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

fn seed_spec() -> LaunchSpec {
    LaunchSpec {
        user: User::Image,
        limits: Limits::default(),
        mounts: Vec::new(),
        labels: BTreeMap::new(),
        command: Vec::new(),
        workdir: String::new(),
        seed: SeedSpec {
            claude_dir: Some("/claude".into()),
            netrc_file: Some("/n".into()),
            gitconfig_file: None,
        },
        ..spec(Profile::Seed)
    }
}

fn attempt() -> AttemptId {
    RunId::from_random_bits(7).attempt(1)
}

fn owner() -> OwnerId {
    OwnerId("owner-1".to_owned())
}

fn dir() -> AttemptDir {
    AttemptDir::new(
        attempt(),
        "/state:1/runs/a".into(),
        "/state:1/init/h".into(),
    )
}

fn opts(spec: &LaunchSpec) -> ContainerLaunchOpts {
    launch_opts(spec, attempt(), &owner(), &HostView::default())
}

fn request_of(spec: &LaunchSpec, image: &ImageConfig) -> Result<ContainerCreateBody, LowerError> {
    request(spec, &owner(), &dir(), &HostView::default(), image)
}

fn image(entrypoint: &[&str], command: &[&str]) -> ImageConfig {
    let words = |words: &[&str]| {
        (!words.is_empty()).then(|| {
            words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        })
    };
    ImageConfig {
        entrypoint: words(entrypoint),
        cmd: words(command),
        ..ImageConfig::default()
    }
}

fn host_config(spec: &LaunchSpec) -> HostConfig {
    request_of(spec, &image(&[], &["/x"]))
        .unwrap()
        .host_config
        .unwrap()
}

fn mounted(config: &HostConfig) -> Vec<(String, String)> {
    let mounts = config.mounts.clone().unwrap_or_default();
    assert!(
        mounts
            .iter()
            .all(|mount| mount.read_only == Some(true) && mount.typ == Some(MountType::BIND))
    );
    mounts
        .into_iter()
        .map(|mount| (mount.source.unwrap(), mount.target.unwrap()))
        .collect()
}

/// A workspace on disk whose `.git` is hidden, and the opts for it.
fn hidden_git(make: impl Fn(&Path)) -> ContainerLaunchOpts {
    let project = TempDir::new().unwrap();
    make(&project.path().join(".git"));
    let mut spec = spec(Profile::Hardened);
    spec.mounts.clear();
    spec.workspace = Workspace {
        source: project.path().to_owned(),
        target: "/work".to_owned(),
        git: GitVisibility::Hidden,
        git_is_file: false,
    };
    opts(&spec)
}

#[test]
fn the_limits_of_a_process_are_the_engines_to_set_only_without_our_helper() {
    let mut spec = spec(Profile::Hardened);
    spec.limits.file_size = Some(ByteSize(1 << 30));
    spec.limits.open_files = Some(1024);
    let helped = helper(&spec, "k3v9x2m7qa1b-1".parse().unwrap()).join(" ");
    spec.transport = Transport::Attach;

    let ulimits = host_config(&spec).ulimits.unwrap();

    assert!(
        helped.contains("--file-size 1073741824 --open-files 1024"),
        "{helped}"
    );
    let ulimits: Vec<_> = ulimits
        .iter()
        .map(|limit| (limit.name.as_deref(), limit.soft, limit.hard))
        .collect();
    let (file, files) = (Some(1 << 30), Some(1024));
    assert_eq!(
        ulimits,
        [(Some("fsize"), file, file), (Some("nofile"), files, files)]
    );
}

#[test]
fn the_hardened_container_has_no_privileges_and_its_limits() {
    let config = host_config(&spec(Profile::Hardened));

    assert_eq!(config.cap_drop.unwrap(), ["ALL"]);
    assert_eq!(config.cap_add, None);
    assert_eq!(config.security_opt.unwrap(), ["no-new-privileges"]);
    assert_eq!(config.readonly_rootfs, Some(true));
    assert_eq!(config.init, Some(false));
    assert_eq!(config.auto_remove, None);
    assert_eq!(
        (config.memory, config.memory_swap),
        (Some(512 << 20), Some(512 << 20))
    );
    assert_eq!(config.nano_cpus, Some(1_500_000_000));
    assert_eq!(config.pids_limit, Some(100));
    assert_eq!(config.ulimits, None, "they are the helper's to set");
    assert_eq!(config.binds.unwrap(), ["/p:/workspace", "/cache:/c:ro"]);
    assert_eq!(
        config.extra_hosts.unwrap(),
        ["host.docker.internal:host-gateway"]
    );
    let tmpfs = config.tmpfs.unwrap();
    assert_eq!(
        tmpfs["/tmp"],
        "rw,nosuid,nodev,exec,size=268435456,nr_inodes=65536,mode=1777"
    );
    assert_eq!(
        tmpfs["/home/agent"],
        "rw,nosuid,nodev,exec,size=268435456,nr_inodes=65536,uid=1000,gid=100,mode=700"
    );
}

#[test]
fn our_labels_win_over_the_users() {
    let labels = request_of(&spec(Profile::Hardened), &ImageConfig::default())
        .unwrap()
        .labels
        .unwrap();

    assert_eq!(labels["team"], "a");
    assert_eq!(labels[LABEL_PROJECT], "p");
    assert_eq!(labels[LABEL_PROMPT], "001");
    assert_eq!(labels[LABEL_OWNER], "owner-1");
    assert_eq!(labels[LABEL_ATTEMPT], attempt().to_string());
}

#[test]
fn the_helper_runs_a_command_in_place_of_the_images_entrypoint() {
    let body = request_of(&spec(Profile::Hardened), &image(&["/entry"], &["image"])).unwrap();

    let id = attempt().to_string();
    assert_eq!(
        body.entrypoint.unwrap(),
        [
            "/.dark-factory/init",
            "run",
            "--socket",
            "/.dark-factory/attempt/socket",
            "--id",
            &id,
            "--stdin",
            "/.dark-factory/attempt/prompt.md",
            "--"
        ]
    );
    assert_eq!(body.cmd.unwrap(), ["/agent", "-x"]);
    assert_eq!(body.user.unwrap(), "1000:100");
    assert_eq!(body.stop_signal.unwrap(), "SIGINT");
    assert_eq!(body.stop_timeout, Some(3));
    assert_eq!(body.working_dir.unwrap(), "/workspace");
}

#[test]
fn the_helper_is_told_how_long_the_log_may_be() {
    let mut spec = spec(Profile::Hardened);
    spec.limits.log = Some(ByteSize(1 << 30));

    let limited = request_of(&spec, &image(&[], &[])).unwrap();
    spec.limits.log = None;
    let unlimited = request_of(&spec, &image(&[], &[])).unwrap();

    let options = limited.entrypoint.unwrap();
    assert!(options.ends_with(&["--log-limit", "1073741824", "--"].map(str::to_owned)));
    assert!(
        !unlimited
            .entrypoint
            .unwrap()
            .contains(&"--log-limit".to_owned())
    );
}

#[test]
fn without_a_command_the_helper_runs_what_the_image_says() {
    let spec = LaunchSpec {
        command: Vec::new(),
        ..spec(Profile::Hardened)
    };

    let body = request_of(&spec, &image(&["/entry"], &["image"])).unwrap();
    assert_eq!(body.cmd.unwrap(), ["/entry", "image"]);
    let body = request_of(&spec, &image(&[], &["image"])).unwrap();
    assert_eq!(body.cmd.unwrap(), ["image"]);
    let nothing = request_of(&spec, &image(&[], &[])).unwrap_err();
    assert_eq!(
        nothing.to_string(),
        "the image has no command and none was given"
    );
}

#[test]
fn what_is_ours_is_mounted_read_only_whatever_its_path() {
    let mut spec = spec(Profile::Hardened);
    spec.secrets = vec!["token".to_owned()];

    assert_eq!(
        mounted(&host_config(&spec)),
        [
            ("/state:1/runs/a/mount", "/.dark-factory/attempt"),
            ("/state:1/init/h", "/.dark-factory/init"),
            ("/state:1/runs/a/secrets", "/run/secrets"),
        ]
        .map(|(source, target)| (source.to_owned(), target.to_owned()))
    );
}

#[test]
fn without_a_network_there_is_no_host_gateway() {
    let config = host_config(&LaunchSpec {
        network: NetworkMode::None,
        ..spec(Profile::Hardened)
    });

    assert_eq!(config.network_mode.unwrap(), "none");
    assert_eq!(config.extra_hosts, None);
}

#[test]
fn a_git_folder_is_hidden_by_an_empty_one_and_a_git_file_by_an_empty_file() {
    let is_file =
        |opts: &ContainerLaunchOpts| opts.binds.iter().any(|bind| bind.target == "/work/.git");
    let is_folder =
        |opts: &ContainerLaunchOpts| opts.tmpfs.iter().any(|tmpfs| tmpfs.path == "/work/.git");

    let folder = hidden_git(|git| std::fs::create_dir(git).unwrap());
    let file = hidden_git(|git| std::fs::write(git, "gitdir: /x").unwrap());
    let nothing = hidden_git(|_| ());

    assert_eq!((is_folder(&folder), is_file(&folder)), (true, false));
    assert_eq!((is_folder(&file), is_file(&file)), (false, true));
    assert_eq!((is_folder(&nothing), is_file(&nothing)), (false, false));
}

#[test]
fn the_seeds_container_is_started_as_the_seed_starts_it() {
    let mut spec = seed_spec();
    spec.stop = StopPolicy {
        signal: String::new(),
        ..StopPolicy::default()
    };
    let mut opts = opts(&spec);
    // These three are ours under every profile.
    opts.extra_labels.clear();
    (opts.log, opts.stop_timeout) = (None, None);

    assert_eq!(
        build_docker_run_args(&opts, &HostView::default())
            .argv
            .join(" "),
        "run --rm --name c1 --label dark-factory.project=p --add-host=host.docker.internal:host-gateway \
         --cap-add=NET_ADMIN --cap-add=NET_RAW -e A=1 -e DARK_FACTORY_MANAGED=true -v /p:/workspace \
         -v /claude:/home/node/.claude -v /n:/home/node/.netrc:ro img:1"
    );
}

#[test]
fn the_seeds_entrypoint_finds_the_prompt_where_the_seed_puts_it_and_not_on_stdin() {
    let body = request_of(&seed_spec(), &image(&["/entry"], &[])).unwrap();

    assert!(!body.entrypoint.unwrap().contains(&"--stdin".to_owned()));
    assert_eq!(body.cmd.unwrap(), ["/entry"]);
    let mounts = mounted(&body.host_config.unwrap());
    assert!(mounts.contains(&(
        "/state:1/runs/a/mount/prompt.md".to_owned(),
        "/tmp/prompt.md".to_owned()
    )));
}

#[test]
fn an_attached_container_runs_the_agent_itself_and_keeps_its_whole_log() {
    let spec = LaunchSpec {
        transport: Transport::Attach,
        ..spec(Profile::Hardened)
    };

    let body = request_of(&spec, &image(&["/entry"], &["image"])).unwrap();

    assert_eq!(body.entrypoint.unwrap(), ["/agent"]);
    assert_eq!(body.cmd.unwrap(), ["-x"]);
    let config = body.host_config.unwrap();
    assert_eq!(
        config.log_config.clone().unwrap().config.unwrap()["max-size"],
        "1000t"
    );
    assert_eq!(
        mounted(&config),
        [(
            "/state:1/runs/a/mount".to_owned(),
            "/.dark-factory/attempt".to_owned()
        )]
    );
}

#[test]
fn a_path_that_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let path = PathBuf::from(std::ffi::OsString::from_vec(b"/s\xff".to_vec()));
    let dir = AttemptDir::new(attempt(), path, "/h".into());

    let error = request(
        &spec(Profile::Hardened),
        &owner(),
        &dir,
        &HostView::default(),
        &ImageConfig::default(),
    );

    assert!(matches!(error.unwrap_err(), LowerError::Encoding(_)));
}

#[test]
fn a_container_without_a_project_takes_no_slot_of_one() {
    let mut spec = spec(Profile::Hardened);
    spec.project = String::new();
    spec.labels.clear();

    let body = request_of(&spec, &ImageConfig::default()).unwrap();

    let labels = body.labels.unwrap();
    assert!(!labels.contains_key(LABEL_PROJECT), "{labels:?}");
    assert!(labels.contains_key(LABEL_OWNER), "{labels:?}");
}
