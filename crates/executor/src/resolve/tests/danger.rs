//! Tests of what of the host does not go into a container, and of what its owner allows.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

/// Allows paths as `--allow-mount` does.
fn allow(fixture: &mut Fixture, paths: &[&str]) {
    let flag = |path: &&str| Sourced::flag("--allow-mount", (*path).to_owned());
    fixture.context.allow_mounts = paths.iter().map(flag).collect();
}

/// Returns whether a mount is refused; if it is, its error says what is expected.
fn is_refused(fixture: &Fixture, source: &str, told: &str) -> bool {
    match fixture.resolve(&format!(
        "mount: [{{src: '{source}', dst: /d, optional: true}}]"
    )) {
        Ok(_) => false,
        Err(error) => {
            let error = fixture.shown(Err(error));
            assert!(
                error.starts_with("prompts/p.md:4: cannot mount ") && error.contains(told),
                "{source}: {error}"
            );
            true
        }
    }
}

#[test]
fn places_with_credentials_are_refused_with_what_is_in_them() {
    let fixture = Fixture::new();
    for place in [
        ".aws",
        ".azure",
        ".gnupg",
        ".docker",
        ".kube",
        ".config/gh",
        ".config/gcloud",
        ".netrc",
        ".git-credentials",
        ".npmrc",
        ".pypirc",
        ".cargo/credentials.toml",
        ".claude",
        ".codex",
        ".gemini",
        ".password-store",
        ".config/dark-factory",
    ] {
        let told = format!("at BASE/home/{place}");

        assert!(is_refused(&fixture, &format!("~/{place}"), &told));
        assert!(is_refused(&fixture, &format!("~/{place}/below"), &told));
        assert!(is_refused(
            &fixture,
            &format!("/home/somebody/{place}"),
            &format!("at /home/somebody/{place}")
        ));
    }
    assert!(!is_refused(&fixture, "~/.cargo", ""));
    assert!(!is_refused(&fixture, "~/.config/other", ""));
}

#[test]
fn what_holds_such_a_place_is_refused_while_it_is_there() {
    let fixture = Fixture::new();
    assert!(!is_refused(&fixture, "~/.cargo", ""));
    fs::create_dir_all(fixture.path("home/.cargo")).unwrap();
    fixture.file("home/.cargo/credentials.toml", "");
    fs::create_dir_all(fixture.path("away/keys")).unwrap();
    symlink(fixture.path("away/keys"), fixture.path("home/.gnupg")).unwrap();

    assert!(is_refused(
        &fixture,
        "~/.cargo",
        "BASE/home/.cargo/credentials.toml"
    ));
    assert!(is_refused(
        &fixture,
        "../away",
        "GnuPG keys at BASE/home/.gnupg"
    ));
    let error = fixture.error("project: ../../away");
    assert!(error.contains("GnuPG keys"), "{error}");
}

#[test]
fn places_that_variables_name_are_refused_but_not_what_is_around_them() {
    let mut fixture = Fixture::new();
    fixture.file("proj/kube", "");
    let kube = format!("/elsewhere:{}", fixture.path("proj/kube").display());
    fixture.host.env.insert("KUBECONFIG".to_owned(), kube);
    let config = fixture.path("config").display().to_string();
    fixture
        .host
        .env
        .insert("XDG_CONFIG_HOME".to_owned(), config);

    assert!(is_refused(
        &fixture,
        "kube",
        "the credentials of Kubernetes"
    ));
    assert!(is_refused(&fixture, "../config/gh", "the login of gh"));
    assert!(!is_refused(&fixture, ".", ""));
}

#[test]
fn the_file_of_a_key_is_refused() {
    let mut fixture = Fixture::new();
    fixture.file("data/key", "k");
    let source = Sourced::flag(
        "--api-key",
        crate::settings::KeySource::File(fixture.path("data/key").display().to_string()),
    );
    let tool = crate::settings::ToolSettings {
        api_key: [("openai".to_owned(), source)].into(),
        ..Default::default()
    };
    fixture.context.keys = KeySources::new(&tool, &fixture.host);

    for mount in ["../data", "../data/key"] {
        assert!(is_refused(
            &fixture,
            mount,
            "the key that the broker uses at BASE/data/key"
        ));
    }
}

#[test]
fn folders_of_the_system_and_homes_of_others_are_refused() {
    let fixture = Fixture::new();
    for path in [
        "/etc",
        "/etc/ssl/private",
        "/proc/1/environ",
        "/sys",
        "/dev",
        "/dev/kmsg",
        "/run/somebody.sock",
        "/var/run/somebody.sock",
        "/boot",
    ] {
        assert!(is_refused(
            &fixture,
            path,
            "by which the machine itself is run"
        ));
    }
    for path in ["/home/somebody", "/home", "/root"] {
        assert!(is_refused(
            &fixture,
            path,
            "the whole home folder of other users"
        ));
    }
    for path in [
        "/home/somebody/project",
        "/root/project",
        "/run/media/me/disk",
        "/dev/shm/mine",
        "/dev/null",
        "/srv",
    ] {
        assert!(!is_refused(&fixture, path, ""), "{path}");
    }
    let error = fixture.error("project: /etc");
    assert!(
        error.contains("or add /etc to allow-mounts in config.toml"),
        "{error}"
    );
}

#[test]
fn what_is_allowed_is_mounted_and_told_and_stands_for_itself_alone() {
    let mut fixture = Fixture::new();
    fs::create_dir_all(fixture.path("home/.aws/cli")).unwrap();
    symlink(fixture.path("home/.aws"), fixture.path("proj/link")).unwrap();
    allow(&mut fixture, &["~/.aws"]);

    for source in ["~/.aws", "link", "~/.aws/../.aws/"] {
        let resolved = fixture.resolve(&format!("mount: ['{source}:/aws']"));

        let resolved = resolved.unwrap();
        assert_eq!(resolved.spec.mounts[0].source, fixture.path("home/.aws"));
        let aws = fixture.path("home/.aws").display().to_string();
        let told = resolved
            .notices
            .iter()
            .find(|notice| notice.contains("allow-mounts"));
        assert_eq!(
            without_columns(told.unwrap()),
            format!(
                "prompts/p.md:4: {aws} is mounted although it holds, or is in, the credentials of AWS at {aws}: \
                 allow-mounts allows it (--allow-mount)"
            )
        );
    }
    assert!(is_refused(&fixture, "~/.aws/cli", "the credentials of AWS"));
    assert!(is_refused(&fixture, "~/", "your whole home folder"));
    assert!(is_refused(&fixture, "~/.ssh", "SSH keys"));
}

#[test]
fn a_project_can_be_allowed_too() {
    let mut fixture = Fixture::new();
    allow(&mut fixture, &["$HOME_OF_ME"]);
    let home = fixture.path("home").display().to_string();
    fixture.host.env.insert("HOME_OF_ME".to_owned(), home);

    let resolved = fixture.resolve("project: ~/").unwrap();

    assert_eq!(resolved.spec.workspace.source, fixture.path("home"));
    let told = "although it holds your whole home folder: allow-mounts allows it (--allow-mount)";
    assert!(
        resolved.notices.iter().any(|notice| notice.contains(told)),
        "{:?}",
        resolved.notices
    );
}

#[test]
fn nothing_allows_the_root_the_state_folder_or_the_engines_socket() {
    let mut fixture = Fixture::new();
    fixture.file("engine.sock", "");
    fixture.context.engine_socket = Some(fixture.path("engine.sock"));
    let around = fixture.base().display().to_string();
    let paths = [
        "/",
        &around,
        "../state",
        "../engine.sock",
        "/var/run/docker.sock",
        "/run",
    ];
    allow(&mut fixture, &paths);

    for path in paths {
        assert!(is_refused(&fixture, path, "cannot mount"), "{path}");
    }
    assert!(is_refused(
        &fixture,
        "../engine.sock",
        "nothing allows that"
    ));
}

#[test]
fn an_allowed_path_that_is_none_is_an_error_of_its_own() {
    let mut fixture = Fixture::new();
    allow(&mut fixture, &["$NOT_SET/x"]);

    assert_eq!(
        fixture.error(""),
        "--allow-mount: allow-mounts has \"$NOT_SET/x\", which cannot be used: $NOT_SET is not set here or is empty; set \
         it, or write the path itself"
    );
}

#[test]
fn an_agents_own_folder_needs_no_leave_where_it_is_its_credential_folder() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.path("home/.claude")).unwrap();
    let of_claude = |front_matter: &str| {
        fixture.resolve_file("prompts/p.md", &format!("image: i\n{front_matter}"))
    };

    let mounted = of_claude("credentials: mount").unwrap();
    let seed = of_claude("profile: seed\nclaude-dir: ~/.claude\nenv: [ANTHROPIC_API_KEY=k]");

    assert_eq!(mounted.spec.mounts[0].source, fixture.path("home/.claude"));
    assert_eq!(
        seed.unwrap().spec.seed.claude_dir,
        Some(fixture.path("home/.claude"))
    );
    let error = fixture.error("profile: seed\nclaude-dir: ~/.ssh");
    assert!(error.contains("SSH keys"), "{error}");
}
