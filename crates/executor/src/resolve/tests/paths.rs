//! Tests of what is mounted, and where.

use std::fs;
use std::os::unix::fs::symlink;

use super::Fixture;
use crate::settings::{ExtraMount, Sourced, parse_mount};
use crate::spec::{Access, GitVisibility, Mount};

/// Returns where the machine's owner can allow a mount, behind what is to be added there.
fn allow(what: &str) -> String {
    format!(
        "{what} allow-mounts in config.toml of your own configuration folder, in DARK_FACTORY_ALLOW_MOUNTS or as \
         --allow-mount"
    )
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
    let allow = |path: &str| allow(&format!(", or add BASE/{path} to"));
    for (project, why, allow) in [
        (
            "/",
            "/ cannot be the project that is mounted: it is the whole file system of the host",
            String::new(),
        ),
        (
            "~/",
            "BASE/home cannot be the project that is mounted: it holds your whole home folder",
            allow("home"),
        ),
        (
            "../..",
            "BASE cannot be the project that is mounted: it holds, or is in, the state folder BASE/state, where the \
             records of all runs are",
            String::new(),
        ),
        (
            "~/.ssh",
            "BASE/home/.ssh cannot be the project that is mounted: it holds, or is in, SSH keys at BASE/home/.ssh",
            allow("home/.ssh"),
        ),
        (
            "../../state/runs",
            "BASE/state/runs cannot be the project that is mounted: it holds, or is in, the state folder \
             BASE/state, where the records of all runs are",
            String::new(),
        ),
    ] {
        assert_eq!(
            fixture.error(&format!("project: {project}")),
            format!("{why}; {way_out}{allow}")
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

    let spec = fixture.spec("mounts: ['docs:/docs', 'link:/l/:ro', ../data:/workspace/data:rw]");

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
            "prompts/p.md:4:9: the optional mount nope:/x is left out: {}/proj/nope does not exist",
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
    let podman = format!("unix://{}", fixture.path("c.sock").display());
    fixture.host.env.insert("CONTAINER_HOST".into(), podman);
    fixture.file("c.sock", "");
    let root = "it is the whole file system of the host; nothing allows that; mount what the agent needs of it";
    let keys = |path: &str| {
        let allow = allow(&format!("mount something else, or add BASE/{path} to"));
        format!("it holds, or is in, SSH keys at BASE/home/.ssh; {allow}")
    };
    let state = "it holds, or is in, the state folder BASE/state, where the records of all runs are; \
                 mount another folder, or move the state with --state-dir";
    let socket = |path: &str| {
        format!(
            "it holds the container engine's socket {path}, which gives control of the host; nothing allows that, \
             because the record of such a run would prove nothing; give the agent an engine of its own by network: \
             DOCKER_HOST in env, and its host in network: allow"
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
        ("/:/host", root.to_owned()),
        ("everything:/host", root.to_owned()),
        ("/var/run/docker.sock:/s", socket("/var/run/docker.sock")),
        ("/run/docker.sock:/s", socket("/var/run/docker.sock")),
        ("../e.sock:/s", socket("BASE/e.sock")),
        ("../c.sock:/s", socket("BASE/c.sock")),
        ("~/.ssh:/k", keys("home/.ssh")),
        ("~/.ssh/id:/k", keys("home/.ssh/id")),
        ("keys:/k", keys("home/.ssh")),
        (
            "~/:/h",
            format!(
                "it holds your whole home folder; {}",
                allow("mount something else, or add BASE/home to")
            ),
        ),
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
fn the_socket_of_the_engine_in_use_is_not_mounted_whatever_named_it() {
    let mut fixture = Fixture::new();
    fs::create_dir_all(fixture.path("run")).unwrap();
    fixture.file("run/mine.sock", "");
    fixture.context.engine_socket = Some(fixture.path("run/mine.sock"));
    let told = "it holds the container engine's socket BASE/run/mine.sock, which gives control of the host";

    for mount in ["../run/mine.sock:/s", "../run:/s"] {
        let error = fixture.error(&format!("mount: ['{mount}']"));
        assert!(error.contains(told), "{error}");
    }
    let error = fixture.error("project: ../../run");
    assert!(error.contains(told), "{error}");
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
         prompts/p.md:5:5; choose another path"
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
