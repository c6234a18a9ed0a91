//! Tests of resolving, with real folders and messages as a user sees them.

mod access;
mod danger;
mod demand;
mod environment;
mod paths;
mod told;

use std::fs;
use std::os::unix::fs::MetadataExt;

use dark_factory_types::{Budget, CpuCount, NetworkMode, Transport};

use super::*;

/// A host of its own: `home`, `state`, and a project `proj` with `.git` and `proj/prompts`.
struct Fixture {
    dir: tempfile::TempDir,
    host: HostView,
    context: ResolveContext,
    flags: Settings,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        for folder in [
            "home/.ssh",
            "state",
            "proj/.git",
            "proj/prompts",
            "proj/docs",
            "data",
        ] {
            fs::create_dir_all(base.join(folder)).unwrap();
        }
        let env = [
            ("ANTHROPIC_API_KEY", "host-key"),
            ("SET", "host value"),
            ("EMPTY", ""),
        ];
        Self {
            host: HostView {
                env: env
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                    .collect(),
                home: Some(base.join("home")),
                cwd: base.join("proj"),
            },
            context: ResolveContext::new(base.join("state")),
            flags: Settings::default(),
            dir,
        }
    }

    fn base(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.base().join(path)
    }

    fn file(&self, path: &str, text: &str) {
        fs::write(self.path(path), text).unwrap();
    }

    fn resolve_file(&self, file: &str, front_matter: &str) -> Result<Resolved, ResolveError> {
        let text = format!("---\n{front_matter}\n---\ndo it\n");
        let prompt = Prompt::parse(file, text.as_bytes()).unwrap();
        resolve(&prompt, &self.flags, &self.host, &self.context)
    }

    /// Resolves a prompt of the `command` agent with an image; lines of the front matter begin at 4.
    fn resolve(&self, front_matter: &str) -> Result<Resolved, ResolveError> {
        self.resolve_file(
            "prompts/p.md",
            &format!("agent: command\nimage: i\n{front_matter}"),
        )
    }

    fn spec(&self, front_matter: &str) -> LaunchSpec {
        match self.resolve(front_matter) {
            Ok(resolved) => resolved.spec,
            Err(error) => panic!("{error}"),
        }
    }

    fn error(&self, front_matter: &str) -> String {
        self.shown(self.resolve(front_matter))
    }

    /// Returns the error's text with the fixture's folder as `BASE`, and without columns; those are the reader's.
    fn shown(&self, result: Result<Resolved, ResolveError>) -> String {
        let error = result.unwrap_err();
        assert_eq!(error.exit_code(), 2);
        without_columns(&error.to_string()).replace(self.base().to_str().unwrap(), "BASE")
    }
}

/// Returns a text with `FILE:LINE` for each `FILE:LINE:COLUMN`.
fn without_columns(text: &str) -> String {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let mut kept: Vec<&str> = Vec::new();
    for part in text.split(':') {
        if !(is_number(part) && kept.last().is_some_and(|last| is_number(last))) {
            kept.push(part);
        }
    }
    kept.join(":")
}

#[test]
fn a_bare_prompt_gets_the_hardened_defaults() {
    let fixture = Fixture::new();

    let resolved = fixture.resolve("").unwrap();

    let root = fixture.path("proj");
    let owner = fs::metadata(&root).unwrap();
    assert_eq!(resolved.prompt_text, "do it\n");
    assert_eq!(
        resolved.spec,
        LaunchSpec {
            version: SPEC_VERSION,
            file: root.join("prompts/p.md").to_str().unwrap().to_owned(),
            project: "proj".to_owned(),
            prompt: "p".to_owned(),
            container: None,
            agent: "command".to_owned(),
            profile: Profile::Hardened,
            image: "i".to_owned(),
            pull: PullPolicy::Missing,
            command: Vec::new(),
            env: [
                (
                    "DARK_FACTORY_PROMPT_FILE",
                    "/.dark-factory/attempt/prompt.md"
                ),
                ("HOME", "/home/agent"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
            secrets: Vec::new(),
            labels: BTreeMap::new(),
            workspace: Workspace {
                source: root,
                target: "/workspace".to_owned(),
                git: GitVisibility::Visible,
                git_is_file: false,
            },
            mounts: Vec::new(),
            workdir: "/workspace".to_owned(),
            user: User::Ids {
                uid: owner.uid(),
                gid: owner.gid()
            },
            limits: Limits {
                memory: Some(ByteSize(2 << 30)),
                cpus: Some(CpuCount {
                    nanos: 2_000_000_000
                }),
                pids: Some(512),
                file_size: Some(ByteSize(16 << 30)),
                open_files: Some(65_536),
                timeout: None,
                idle: None,
                log: Some(ByteSize(1 << 30)),
                disk: None,
            },
            network: NetworkMode::Allow(Vec::new()),
            providers: Vec::new(),
            budget: Budget::default(),
            stop: StopPolicy::default(),
            engine_identity: None,
            disposal: Disposal::Remove,
            tell_limits: false,
            prompt_digests: None,
            secret_sources: BTreeMap::new(),
            env_from_host: BTreeSet::new(),
            completion_grace: Some(Duration::from_secs(120)),
            transport: Transport::Spool,
            seed: SeedSpec::default(),
        }
    );
}

#[test]
fn every_setting_reaches_the_spec() {
    let fixture = Fixture::new();

    let spec = fixture.spec(
        "command: [make, test]\npull: never\nlabels: {team: a}\nworkspace: /src/\nworkdir: /src/x\n\
         user: '7:8'\nmemory: 1g\ncpus: 0.5\npids: 9\ntimeout: 5m\nnetwork: none\nstop-signal: INT\n\
         stop-grace: 0s\ntransport: attach\nhide-git: true",
    );

    assert_eq!(spec.command, ["make", "test"]);
    assert_eq!(spec.pull, PullPolicy::Never);
    assert_eq!(spec.labels["team"], "a");
    assert_eq!(spec.workspace.target, "/src");
    assert_eq!(spec.workspace.git, GitVisibility::Hidden);
    assert_eq!(spec.workdir, "/src/x");
    assert_eq!(spec.user, User::Ids { uid: 7, gid: 8 });
    assert_eq!(spec.limits.memory, Some(ByteSize(1 << 30)));
    assert_eq!(spec.limits.cpus, Some(CpuCount { nanos: 500_000_000 }));
    assert_eq!(spec.limits.pids, Some(9));
    assert_eq!(spec.limits.timeout, Some(Duration::from_secs(300)));
    assert_eq!(spec.network, NetworkMode::None);
    assert_eq!(
        spec.stop,
        StopPolicy {
            signal: "SIGINT".to_owned(),
            grace: Duration::ZERO
        }
    );
    assert_eq!(spec.transport, Transport::Attach);
}

#[test]
fn a_flag_beats_the_front_matter() {
    let mut fixture = Fixture::new();
    fixture.flags.image = Some(Sourced::flag("--image", "flag:1".to_owned()));

    assert_eq!(fixture.spec("").image, "flag:1");
}

#[test]
fn the_user_is_the_projects_owner_unless_another_is_named() {
    let ids = |uid, gid| Ok(User::Ids { uid, gid });
    for (text, profile, expected) in [
        (None, Profile::Hardened, ids(1000, 100)),
        (Some("1000"), Profile::Hardened, ids(1000, 100)),
        (Some("7"), Profile::Hardened, ids(7, 7)),
        (Some("7:8"), Profile::Seed, ids(7, 8)),
        (None, Profile::Seed, Ok(User::Image)),
        (Some("node"), Profile::Seed, Ok(User::Named("node".to_owned()))),
        (
            Some("node"),
            Profile::Hardened,
            Err("--user: user node is a name, which only profile: seed accepts; write numbers: UID or \
                 UID:GID"
                .to_owned()),
        ),
    ] {
        let setting = text.map(|text| {
            Sourced::flag("--user", crate::settings::parse_user(text).unwrap())
        });

        let user = user(setting.as_ref(), profile, (1000, 100)).map_err(|error| error.to_string());

        assert_eq!(user, expected, "{text:?}");
    }
}

#[test]
fn a_project_of_root_is_noticed() {
    let fixture = Fixture::new();
    let is_root = fs::metadata(fixture.path("proj")).unwrap().uid() == 0;

    let notices = fixture.resolve("").unwrap().notices;

    let notice = "the project belongs to root: the agent runs as uid 0 without capabilities; \
                  --user UID:GID changes that";
    assert_eq!(notices, if is_root { vec![notice] } else { vec![] });
    assert!(fixture.resolve("user: 1000").unwrap().notices.is_empty());
    assert!(fixture.resolve("profile: seed").unwrap().notices.is_empty());
}

#[test]
fn claude_is_the_agent_unless_another_is_named() {
    let fixture = Fixture::new();

    let front_matter = "image: i\nmodel: opus\nenv: [ANTHROPIC_API_KEY]\nuser: '0'";
    let spec = fixture
        .resolve_file("prompts/p.md", front_matter)
        .unwrap()
        .spec;

    assert_eq!(spec.agent, "claude");
    assert_eq!(spec.command.first().map(String::as_str), Some("claude"));
    assert!(
        spec.command
            .ends_with(&["--model".to_owned(), "opus".to_owned()])
    );
    assert_eq!(spec.env["ANTHROPIC_API_KEY"], "host-key");
    assert_eq!(spec.env["IS_SANDBOX"], "1");
}

#[test]
fn agents_and_their_commands_are_checked() {
    let fixture = Fixture::new();
    for (front_matter, message) in [
        (
            "agent: cluade",
            "p.md:2: there is no agent \"cluade\"; there are claude, codex, gemini, command; did you mean claude?",
        ),
        (
            "agent: x",
            "p.md:2: there is no agent \"x\"; there are claude, codex, gemini, command",
        ),
        (
            "command: [ls]",
            "p.md:2: a command is only for the agent command, and the agent is claude; \
             add --agent command, or remove the command",
        ),
        (
            "agent: command\ncommand: ['']",
            "p.md:3: the command's program is empty or has a NUL byte in it; write a program's name",
        ),
        (
            "model: --help",
            "p.md:2: \"--help\" is not a model's name: write up to 256 letters, digits and . _ : / @ [ ] -, \
             no - in front",
        ),
    ] {
        assert_eq!(
            fixture.shown(fixture.resolve_file("p.md", front_matter)),
            message
        );
    }
}

#[test]
fn a_model_of_the_command_agent_is_warned_about() {
    let warnings = Fixture::new().resolve("model: opus").unwrap().warnings;

    assert_eq!(
        warnings,
        ["prompts/p.md:4:8: the agent command has no model; the key does nothing"]
    );
}

#[test]
fn an_unknown_key_is_among_the_warnings() {
    let warnings = Fixture::new().resolve("memroy: 8g").unwrap().warnings;

    assert_eq!(
        warnings,
        [
            "prompts/p.md:4:1: the key memroy is not known and does nothing\n  \
          4 | memroy: 8g\n    | ^^^^^^\n  help: did you mean memory?"
        ]
    );
}

#[test]
fn the_image_must_be_named_and_well_formed() {
    let mut fixture = Fixture::new();
    let no_image = "agent: command";
    assert_eq!(
        fixture.shown(fixture.resolve_file("p.md", no_image)),
        "p.md: no image is named; pass --image IMAGE, or write image: IMAGE in the front matter"
    );
    assert_eq!(
        fixture.shown(fixture.resolve_file("p.md", "agent: gemini")),
        "p.md: no image is named; pass --image IMAGE, or write image: IMAGE in the front matter; Gemini CLI comes from \
         npm only, so `dark-factory image build` cannot make its image: build one with node, git and `npm install \
         --global @google/gemini-cli`"
    );
    assert_eq!(
        fixture.shown(fixture.resolve_file("p.md", "agent: command\nimage: Debian")),
        "p.md:3: \"Debian\" is not an image reference: its name must be in lower case; \
         write [registry/]name[:tag][@sha256:…], such as debian:12"
    );

    fixture
        .context
        .default_images
        .insert("command".to_owned(), "default".to_owned());

    assert_eq!(
        fixture.resolve_file("p.md", no_image).unwrap().spec.image,
        "default"
    );
    assert!(
        fixture
            .resolve_file("p.md", "agent: command\nprofile: seed")
            .is_err(),
        "the seed's profile needs an image that launches the agent"
    );
}

#[test]
fn an_image_of_ours_is_never_pulled() {
    let fixture = Fixture::new();
    let resolve = |pull: &str| {
        let front_matter = format!("agent: command\nimage: dark-factory/x:1\n{pull}");
        let resolved = fixture.resolve_file("p.md", &front_matter).unwrap();
        (resolved.spec.pull, resolved.warnings)
    };

    assert_eq!(resolve(""), (PullPolicy::Never, Vec::new()));
    assert_eq!(
        resolve("pull: always"),
        (
            PullPolicy::Never,
            vec!["p.md:4:7: images named dark-factory/… are made on this machine; the key does nothing".to_owned()]
        )
    );
}

#[test]
fn limits_below_what_makes_sense_are_refused() {
    let fixture = Fixture::new();
    for (front_matter, message) in [
        (
            "memory: 100",
            "prompts/p.md:4: memory must be at least 6m, not 100 B",
        ),
        (
            "memory: 5m",
            "prompts/p.md:4: memory must be at least 6m, not 5 MiB",
        ),
        ("pids: 0", "prompts/p.md:4: pids must be at least 1, not 0"),
        (
            "open-files: 255",
            "prompts/p.md:4: open-files must be at least 256, not 255",
        ),
        (
            "open-files: 1048577",
            "prompts/p.md:4: open-files must be at most 1048576, which is what the kernel gives, not 1048577",
        ),
        (
            "timeout: 500ms",
            "prompts/p.md:4: timeout must be at least 1s, not 500ms",
        ),
    ] {
        assert_eq!(fixture.error(front_matter), message);
    }
}

#[test]
fn a_limit_that_is_none_is_no_limit_and_not_the_default() {
    let fixture = Fixture::new();

    let spec = fixture.spec(
        "memory: none\ncpus: none\npids: none\nlog-limit: none\nfile-size: none\ndisk-limit: none\nopen-files: none\ncompletion-grace: none\ntimeout: none\n\
         idle-timeout: none",
    );

    assert_eq!(spec.limits, Limits::default());
    assert_eq!(spec.completion_grace, None);
}

#[test]
fn what_is_written_has_a_limit_by_default_only_where_the_root_file_system_can_be_written() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.path("home/.claude-yolo")).unwrap();

    for (front_matter, limit) in [
        ("", None),
        ("disk-limit: 2g", Some(ByteSize(2 << 30))),
        ("profile: seed", Some(ByteSize(10 << 30))),
        ("profile: seed\ndisk-limit: none", None),
    ] {
        assert_eq!(
            fixture.spec(front_matter).limits.disk,
            limit,
            "{front_matter}"
        );
    }
    assert_eq!(
        fixture.error("disk-limit: 1000k"),
        "prompts/p.md:4: disk-limit must be at least 1m, not 1000 KiB"
    );
}

#[test]
fn the_default_cpus_are_not_above_the_hosts() {
    let mut fixture = Fixture::new();
    for (host, cpus) in [
        (None, 2),
        (NonZeroUsize::new(1), 1),
        (NonZeroUsize::new(64), 2),
    ] {
        fixture.context.host_cpus = host;

        let limit = fixture.spec("").limits.cpus;

        assert_eq!(
            limit,
            Some(CpuCount {
                nanos: cpus * 1_000_000_000
            }),
            "{host:?}"
        );
    }
}

#[test]
fn labels_of_ours_are_refused() {
    let fixture = Fixture::new();

    assert_eq!(
        fixture.error("labels: {dark-factory.project: x}"),
        "prompts/p.md:4: the label \"dark-factory.project\" cannot be set: \
         names that begin with dark-factory. belong to dark-factory"
    );
    assert_eq!(
        fixture.error("labels: {'a b': x}"),
        "prompts/p.md:4: the label \"a b\" cannot be set: a label's name has no blanks and no ="
    );
}

#[test]
fn the_seed_profile_has_the_seeds_defaults() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.path("home/.claude-yolo")).unwrap();
    let front_matter = "image: i\nprofile: seed\nmodel: m\nenv: {ANTHROPIC_MODEL: other, A: b}";

    let spec = fixture.resolve_file("p.md", front_matter).unwrap().spec;

    assert_eq!(spec.agent, "claude");
    assert!(spec.command.is_empty());
    assert_eq!(spec.user, User::Image);
    assert_eq!(
        spec.limits,
        Limits {
            log: Some(ByteSize(1 << 30)),
            disk: Some(ByteSize(10 << 30)),
            ..Limits::default()
        }
    );
    let env: Vec<_> = spec
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(
        env,
        [
            "A=b",
            "ANTHROPIC_MODEL=m",
            "YOLO_OUTPUT=json",
            "YOLO_PROMPT_FILE=/tmp/prompt.md"
        ]
    );
    assert_eq!(
        spec.seed.claude_dir,
        Some(fixture.path("home/.claude-yolo"))
    );
}

#[test]
fn the_seed_profile_can_run_a_command() {
    let spec = Fixture::new().spec("profile: seed\ncommand: [make]");

    assert_eq!(spec.command, ["make"]);
    assert_eq!(spec.env["DARK_FACTORY_PROMPT_FILE"], "/tmp/prompt.md");
    assert_eq!(spec.env.len(), 1);
}

#[test]
fn the_record_of_a_launch_masks_what_looks_secret() {
    let spec = Fixture::new()
        .spec("env: {MY_KEY: hunter2, token_x: hunter2, Db_Password: hunter2, PLAIN: shown}");

    let record = launch_record(&spec, "docker");

    assert!(!record.to_string().contains("hunter2"));
    assert_eq!(record["env"]["MY_KEY"], "***");
    assert_eq!(record["env"]["PLAIN"], "shown");
    assert_eq!(record["engine"], "docker");
    assert_eq!(record["image"], "i");
    assert_eq!(
        record["network"],
        "allow: nothing but the container's own loopback"
    );
}

#[test]
fn a_masked_value_is_hidden_wherever_else_it_occurs() {
    let spec = Fixture::new().spec(
        "env: {MY_KEY: hunter2, A_TOKEN: x, HOME_TOWN: kyoto22, PLAIN: shown, URL: '//u:hunter2@h', DB: 'pg://u:pw@h'}\n\
         command: [curl, -H, 'Bearer hunter2', kyoto22, x, shown]\nlabel: {a: hunter2}",
    );
    let hidden = BTreeSet::from(["HOME_TOWN".to_owned()]);

    let masked = masked(&spec, &hidden);

    assert_eq!(
        masked.command,
        ["curl", "-H", "Bearer ***", "***", "x", "shown"]
    );
    assert_eq!(masked.labels["a"], "***");
    assert_eq!(masked.env["HOME_TOWN"], "***");
    assert_eq!(masked.env["A_TOKEN"], "***");
    assert_eq!(masked.env["URL"], "//u:***@h");
    assert_eq!(masked.env["DB"], "pg://u:***@h");
    assert_eq!(masked.env["PLAIN"], "shown");
}
