//! Tests of resolving, with real folders and messages as a user sees them.

use std::os::unix::fs::{MetadataExt, symlink};

use dark_factory_types::{NetworkMode, Transport};

use super::*;
use crate::settings::{EnvValue, ExtraMount, parse_mount};
use crate::spec::{Access, Mount, PullPolicy};

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
            context: ResolveContext {
                state_dir: base.join("state"),
                ..ResolveContext::default()
            },
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

    /// Returns the error's text with the fixture's folder as `BASE`.
    fn shown(&self, result: Result<Resolved, ResolveError>) -> String {
        let error = result.unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error
            .to_string()
            .replace(self.base().to_str().unwrap(), "BASE")
    }
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
                timeout: None,
            },
            network: NetworkMode::Open,
            stop: StopPolicy::default(),
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
fn the_project_is_the_git_top_level_of_the_prompt() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.path("proj/sub/tree")).unwrap();
    fixture.file("proj/sub/.git", "gitdir: elsewhere");
    symlink(fixture.path("proj/sub/tree"), fixture.path("link")).unwrap();
    let data = fixture.path("data/p.md");
    for (file, root, git_is_file) in [
        ("prompts/p.md", "proj", false),
        ("sub/tree/p.md", "proj/sub", true),
        ("../link/p.md", "proj/sub", true),
        ("-", "proj", false),
        (data.to_str().unwrap(), "data", false),
    ] {
        let spec = fixture
            .resolve_file(file, "agent: command\nimage: i")
            .unwrap()
            .spec;

        assert_eq!(spec.workspace.source, fixture.path(root), "{file}");
        assert_eq!(spec.workspace.git_is_file, git_is_file, "{file}");
    }
}

#[test]
fn standard_input_is_a_prompt_of_that_name() {
    let fixture = Fixture::new();

    let spec = fixture
        .resolve_file("-", "agent: command\nimage: i")
        .unwrap()
        .spec;

    assert_eq!((spec.file.as_str(), spec.prompt.as_str()), ("-", "stdin"));
}

#[test]
fn a_project_can_be_named() {
    let mut fixture = Fixture::new();
    assert_eq!(
        fixture.spec("project: ../docs").workspace.source,
        fixture.path("proj/docs")
    );

    fixture.flags.project = Some(Sourced::flag("--project", "docs".to_owned()));
    let spec = fixture.spec("project: elsewhere\nhide-git: true");

    assert_eq!(spec.workspace.source, fixture.path("proj/docs"));
    assert_eq!(spec.project, "docs");
    assert_eq!(spec.workspace.git, GitVisibility::Visible);
}

#[test]
fn a_project_that_is_not_there_is_refused() {
    let fixture = Fixture::new();
    fixture.file("proj/file", "");

    assert_eq!(
        fixture.error("project: ../nope"),
        "prompts/p.md:4: the project BASE/proj/prompts/../nope cannot be used; name a folder that is there"
    );
    assert_eq!(
        fixture.error("project: ../file"),
        "prompts/p.md:4: the project BASE/proj/prompts/../file cannot be used; name a folder that is there"
    );
    assert_eq!(
        fixture.shown(fixture.resolve_file("nope/p.md", "")),
        "the project's folder BASE/proj/nope cannot be used; check that it is there and may be read"
    );
}

#[test]
fn a_project_that_holds_too_much_is_refused() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.path("state/runs")).unwrap();
    let way_out = "put the prompt into a folder of its own, or name another with --project";
    for (project, why) in [
        (
            "/",
            "/ cannot be the project that is mounted: it is the whole file system of the host",
        ),
        (
            "~/",
            "BASE/home cannot be the project that is mounted: it holds your whole home folder",
        ),
        (
            "../..",
            "BASE cannot be the project that is mounted: it holds your whole home folder",
        ),
        (
            "~/.ssh",
            "BASE/home/.ssh cannot be the project that is mounted: it holds, or is in, your SSH keys at \
             BASE/home/.ssh",
        ),
        (
            "../../state/runs",
            "BASE/state/runs cannot be the project that is mounted: it holds, or is in, the state folder \
             BASE/state, where the records of all runs are",
        ),
    ] {
        assert_eq!(
            fixture.error(&format!("project: {project}")),
            format!("{why}; {way_out}")
        );
    }
}

#[test]
fn a_project_around_the_state_folder_is_refused() {
    let mut fixture = Fixture::new();
    fixture.context.state_dir = fixture.path("proj/not/yet/there");

    let error = fixture.error("");

    assert!(
        error.contains("the state folder BASE/proj/not/yet/there"),
        "{error}"
    );
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
            "p.md:2: there is no agent \"cluade\"; there are claude, command; did you mean claude?",
        ),
        (
            "agent: x",
            "p.md:2: there is no agent \"x\"; there are claude, command",
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
        ["prompts/p.md:4: the agent command has no model; the key does nothing"]
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
fn claude_without_credentials_is_refused() {
    let mut fixture = Fixture::new();

    let error = fixture.shown(fixture.resolve_file("p.md", "image: i"));
    assert!(
        error.contains("ANTHROPIC_API_KEY is set here but containers do not see"),
        "{error}"
    );

    fixture.host.env.clear();
    let error = fixture.shown(fixture.resolve_file("p.md", "image: i\nprofile: seed"));
    assert!(
        error.starts_with("Claude OAuth token missing or expired in BASE/home/.claude-yolo"),
        "{error}"
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
        fixture.shown(fixture.resolve_file("p.md", "agent: command\nimage: Debian")),
        "p.md:3: \"Debian\" is not an image reference: its name must be in lower case; \
         write [registry/]name[:tag][@sha256:…], such as debian:12"
    );

    fixture.context.default_image = Some("default".to_owned());

    assert_eq!(
        fixture.resolve_file("p.md", no_image).unwrap().spec.image,
        "default"
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
            "timeout: 500ms",
            "prompts/p.md:4: timeout must be at least 1s, not 500ms",
        ),
    ] {
        assert_eq!(fixture.error(front_matter), message);
    }
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
fn layers_of_the_environment_win_in_order() {
    let mut fixture = Fixture::new();
    fixture.file("proj/low.env", "A=file\nB=file\nC=file\nD=file\nSET\n");
    fixture.file("data/high.env", "C=flag file\nD=flag file\n");
    fixture.host.cwd = fixture.path("data");
    fixture.flags.env_file = vec![Sourced::flag("--env-file", "high.env".to_owned())];
    let text = EnvValue::Text("flag".to_owned());
    fixture.flags.env = [("D".to_owned(), Sourced::flag("--env", text))].into();
    let file = fixture.path("proj/prompts/p.md");
    let front_matter =
        "agent: command\nimage: i\nenv-file: low.env\nenv: {B: key, C: key, D: key, HOME: /h}";

    let env = fixture
        .resolve_file(file.to_str().unwrap(), front_matter)
        .unwrap()
        .spec
        .env;

    let value = |name: &str| env[name].as_str();
    assert_eq!(
        ["A", "B", "C", "D"].map(value),
        ["file", "key", "flag file", "flag"]
    );
    assert_eq!((value("SET"), value("HOME")), ("host value", "/h"));
}

#[test]
fn bad_environments_are_refused_without_their_values() {
    let fixture = Fixture::new();
    fixture.file("proj/bad.env", "A=1\nB C=hunter2\n");
    fixture.file("proj/reserved.env", "DARK_FACTORY_MANAGED=hunter2\n");
    let p = "prompts/p.md:4: the environment variable";
    for (front_matter, message) in [
        (
            "env: {1A: hunter2}",
            format!("{p} \"1A\" is not a variable's name: write letters, digits and _, no digit in front"),
        ),
        (
            "env: {DARK_FACTORY_PROMPT_FILE: hunter2}",
            format!(
                "{p} \"DARK_FACTORY_PROMPT_FILE\" cannot be set: names that begin with DARK_FACTORY_ \
                 belong to dark-factory"
            ),
        ),
        (
            "env: [UNSET]",
            format!(
                "{p} \"UNSET\" has no value on the host that could be passed on; \
                 set it here, or give it a value"
            ),
        ),
        (
            "env: {A: \"a\\0hunter2\"}",
            format!("{p} \"A\" has a NUL byte in its value, which no program can be given; remove it"),
        ),
        (
            "env-file: nope.env",
            "prompts/p.md:4: the environment file BASE/proj/nope.env cannot be read; \
             make it a readable UTF-8 file"
                .to_owned(),
        ),
        (
            "env-file: bad.env",
            "BASE/proj/bad.env:2: this line must be NAME=VALUE, or NAME alone for the host's value, \
             not \"B C\""
                .to_owned(),
        ),
        (
            "env-file: reserved.env",
            "BASE/proj/reserved.env:1: the environment variable \"DARK_FACTORY_MANAGED\" cannot be set: \
             names that begin with DARK_FACTORY_ belong to dark-factory"
                .to_owned(),
        ),
    ] {
        assert_eq!(fixture.error(front_matter), message);
    }
}

#[test]
fn an_empty_credential_of_claude_is_refused() {
    let fixture = Fixture::new();
    for name in ["ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "OTHER_KEY"] {
        let front_matter = format!("image: i\nenv: {{ANTHROPIC_AUTH_TOKEN: t, {name}: ''}}");
        assert_eq!(
            fixture.shown(fixture.resolve_file("p.md", &front_matter)),
            format!(
                "p.md:3: the environment variable \"{name}\" is empty, and an empty credential hides every \
                 other; give it a value, or remove it"
            )
        );
    }
    assert_eq!(fixture.spec("env: {SOME_KEY: ''}").env["SOME_KEY"], "");
}

#[test]
fn secrets_have_their_values_beside_the_spec() {
    let fixture = Fixture::new();
    fixture.file("proj/key.txt", "from file\n\n");
    fixture.file("home/pem", "from home\r\n");

    let front_matter = "secrets: {b: env:SET, a.pem: file:~/pem, c-1: file:key.txt}";
    let resolved = fixture.resolve(front_matter).unwrap();

    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        resolved.secrets,
        [
            pair("a.pem", "from home"),
            pair("b", "host value"),
            pair("c-1", "from file\n")
        ]
    );
    assert_eq!(resolved.spec.secrets, ["a.pem", "b", "c-1"]);
    let shown = format!("{:?} {resolved:?}", resolved.spec);
    assert!(
        !shown.contains("from file") && !shown.contains("host value"),
        "{shown}"
    );
}

#[test]
fn bad_secrets_are_refused() {
    let fixture = Fixture::new();
    fixture.file("proj/empty", "\n");
    let p = "prompts/p.md:4: the secret";
    let name = "is not a secret's name: write letters, digits and _ . -";
    for (front_matter, message) in [
        ("secrets: {a/b: env:SET}", format!("{p} \"a/b\" {name}")),
        ("secrets: {..: env:SET}", format!("{p} \"..\" {name}")),
        (
            "secrets: {a: env:UNSET}",
            format!("{p} \"a\" has no value: UNSET is not set here or is empty; set it"),
        ),
        (
            "secrets: {a: env:EMPTY}",
            format!("{p} \"a\" has no value: EMPTY is not set here or is empty; set it"),
        ),
        (
            "secrets: {a: file:empty}",
            format!("{p} \"a\" has no value: BASE/proj/empty is empty; write it there"),
        ),
        (
            "secrets: {a: file:nope}",
            format!(
                "{p} \"a\" cannot be read from BASE/proj/nope: No such file or directory (os error 2); \
                 make it a readable UTF-8 file"
            ),
        ),
    ] {
        assert_eq!(fixture.error(front_matter), message);
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
fn paths_in_the_container_are_checked() {
    let fixture = Fixture::new();
    for (front_matter, message) in [
        (
            "workspace: src",
            "workspace \"src\" cannot be used: its path in the container must begin with /",
        ),
        (
            "workspace: /",
            "workspace \"/\" cannot be used: its path in the container must not be / itself",
        ),
        (
            "workspace: /run/secrets",
            "workspace \"/run/secrets\" cannot be used: /run/secrets in the container belongs to \
             dark-factory; choose another path",
        ),
        (
            "workdir: x",
            "workdir \"x\" cannot be used: its path in the container must begin with /",
        ),
    ] {
        assert_eq!(
            fixture.error(front_matter),
            format!("prompts/p.md:4: {message}")
        );
    }
    assert_eq!(fixture.spec("workdir: /").workdir, "/");
    assert_eq!(fixture.spec("workspace: /src").workdir, "/src");
}

#[test]
fn mounts_have_absolute_sources() {
    let fixture = Fixture::new();
    symlink(fixture.path("data"), fixture.path("proj/link")).unwrap();

    let spec = fixture.spec(
        "mounts: ['docs:/docs', 'link:/l/:ro', {src: ~/, dst: /no, optional: true}]"
            .replace(
                "{src: ~/, dst: /no, optional: true}",
                "../data:/workspace/data:rw",
            )
            .as_str(),
    );

    let mount = |source: &str, target: &str, access| Mount {
        source: fixture.path(source),
        target: target.to_owned(),
        access,
    };
    assert_eq!(
        spec.mounts,
        [
            mount("proj/docs", "/docs", Access::ReadWrite),
            mount("data", "/l", Access::ReadOnly),
            mount("data", "/workspace/data", Access::ReadWrite),
        ]
    );
}

#[test]
fn an_optional_mount_that_is_missing_is_left_out_with_a_warning() {
    let fixture = Fixture::new();

    let resolved = fixture
        .resolve("mount: [{src: nope, dst: /x, optional: true}]")
        .unwrap();

    assert!(resolved.spec.mounts.is_empty());
    let base = fixture.base();
    assert_eq!(
        resolved.warnings,
        [format!(
            "prompts/p.md:4: the optional mount nope:/x is left out: {}/proj/nope does not exist",
            base.display()
        )]
    );
}

#[test]
fn dangerous_mounts_are_refused() {
    let mut fixture = Fixture::new();
    fs::create_dir_all(fixture.path("a:b")).unwrap();
    symlink("/", fixture.path("proj/everything")).unwrap();
    symlink(fixture.path("home/.ssh"), fixture.path("proj/keys")).unwrap();
    fixture.host.env.insert(
        "DOCKER_HOST".into(),
        format!("unix://{}", fixture.path("e.sock").display()),
    );
    fixture.file("e.sock", "");
    let later = "mount a smaller part; a later version will have a way to allow this";
    let keys = "it holds, or is in, your SSH keys at BASE/home/.ssh";
    let root = "it is the whole file system of the host";
    let state = "it holds, or is in, the state folder BASE/state, where the records of all runs are; \
                 mount another folder, or move the state with --state-dir";
    let socket = |path: &str| {
        format!(
            "it holds the container engine's socket {path}, which gives control of the host; {later}"
        )
    };
    for (mount, message) in [
        (
            "$UNSET/docs:/d",
            "$UNSET is not set here or is empty; set it, or write the path itself".to_owned(),
        ),
        (
            "nope:/d",
            "BASE/proj/nope does not exist; make it, or write optional: true to go on without it"
                .to_owned(),
        ),
        ("/:/host", format!("{root}; {later}")),
        ("everything:/host", format!("{root}; {later}")),
        ("/var/run/docker.sock:/s", socket("/var/run/docker.sock")),
        ("/run/docker.sock:/s", socket("/var/run/docker.sock")),
        ("../e.sock:/s", socket("BASE/e.sock")),
        ("~/.ssh:/k", format!("{keys}; {later}")),
        ("~/.ssh/id:/k", format!("{keys}; {later}")),
        ("keys:/k", format!("{keys}; {later}")),
        ("~/:/h", format!("{keys}; {later}")),
        ("../state:/s", state.to_owned()),
        ("../state/runs:/s", state.to_owned()),
        (
            "docs:d",
            "its path in the container must begin with /".to_owned(),
        ),
        (
            "docs:/",
            "its path in the container must not be / itself".to_owned(),
        ),
        (
            "docs:/a/../b",
            "its path in the container must not have .. or a NUL byte in it".to_owned(),
        ),
        (
            "docs:/workspace/",
            "/workspace in the container is taken by the project; choose another path".to_owned(),
        ),
        (
            "docs:/.dark-factory/x",
            "/.dark-factory in the container belongs to dark-factory; choose another path"
                .to_owned(),
        ),
    ] {
        assert_eq!(
            fixture.error(&format!("mount: ['{mount}']")),
            format!("prompts/p.md:4: cannot mount {mount}: {message}")
        );
    }
}

#[test]
fn a_mount_needs_a_home_for_its_tilde() {
    let mut fixture = Fixture::new();
    fixture.host.home = None;

    assert_eq!(
        fixture.error("mount: ~/docs:/d"),
        "prompts/p.md:4: cannot mount ~/docs:/d: ~ stands for nothing, because HOME is not set; \
         write the path itself"
    );
}

#[test]
fn two_mounts_at_one_place_are_refused_but_a_flag_replaces() {
    let mut fixture = Fixture::new();
    assert_eq!(
        fixture.error("mounts:\n  - docs:/d\n  - ../data:/d/"),
        "prompts/p.md:6: cannot mount ../data:/d/: /d in the container is taken by the mount of \
         prompts/p.md:5; choose another path"
    );

    fixture.flags.mounts = vec![Sourced::flag("--mount", parse_mount("docs:/d").unwrap())];
    let spec = fixture.spec("mount: ../data:/d");

    assert_eq!(spec.mounts.len(), 1);
    assert_eq!(spec.mounts[0].source, fixture.path("proj/docs"));
}

#[test]
fn a_colon_in_a_path_cannot_be_mounted() {
    let mut fixture = Fixture::new();
    fs::create_dir_all(fixture.path("a:b")).unwrap();
    let mount = |src: &str, dst: &str| ExtraMount {
        src: src.to_owned(),
        dst: dst.to_owned(),
        read_only: None,
        optional: false,
    };
    for (mount, message) in [
        (
            mount("../a:b", "/d"),
            "--mount: cannot mount ../a:b:/d: its path on the host has a colon, which no engine can mount; \
             rename it, or mount it by a link without one",
        ),
        (
            mount("docs", "/d:ro"),
            "--mount: cannot mount docs:/d:ro: its path in the container must not have a colon",
        ),
    ] {
        fixture.flags.mounts = vec![Sourced::flag("--mount", mount)];

        assert_eq!(fixture.error(""), message);
    }
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
    assert_eq!(spec.limits, Limits::default());
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
fn the_credential_folder_is_checked() {
    let fixture = Fixture::new();
    for (front_matter, message) in [
        (
            "claude-dir: ~/x",
            "prompts/p.md:4: claude-dir is only for profile: seed; remove it, or add --profile seed",
        ),
        (
            "claude-dir: ~/x\nprofile: seed",
            "prompts/p.md:4: claude-dir BASE/home/x cannot be used; name a folder that is there",
        ),
        (
            "claude-dir: ../state\nprofile: seed",
            "the credential folder BASE/state cannot be mounted: it holds, or is in, the state folder \
             BASE/state, where the records of all runs are; name another with --claude-dir",
        ),
    ] {
        assert_eq!(fixture.error(front_matter), message);
    }
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
        "open: the engine's bridge; host.docker.internal is the host"
    );
}
