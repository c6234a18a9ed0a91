//! Tests of environment, secrets and credentials.

use super::Fixture;
use crate::error::sentence;
use crate::resolve::secrets_again;
use crate::settings::{EnvValue, Origin, Place, SecretSource, Sourced};

#[test]
fn claude_without_credentials_is_refused() {
    let mut fixture = Fixture::new();

    let error = fixture.shown(fixture.resolve_file("p.md", "image: i\nnetwork: none"));
    assert!(
        error.contains("ANTHROPIC_API_KEY is set here but containers do not see"),
        "{error}"
    );

    fixture.host.env.clear();
    let error = fixture.shown(fixture.resolve_file("p.md", "image: i"));
    assert!(
        error.starts_with("no key of anthropic was found: looked at ANTHROPIC_API_KEY, "),
        "{error}"
    );
    assert!(
        error.contains("BASE/home/.claude/.credentials.json"),
        "{error}"
    );
    let error = fixture.shown(fixture.resolve_file("p.md", "image: i\nprofile: seed"));
    assert!(
        error.starts_with("Claude OAuth token missing or expired in BASE/home/.claude-yolo"),
        "{error}"
    );
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
    fixture.file("proj/nameless.env", "hun-ter2\n");
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
            "env-file: nameless.env",
            "BASE/proj/nameless.env:1: the environment variable \"***\" is not a variable's name: \
             write letters, digits and _, no digit in front"
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
fn a_pipe_or_a_device_is_no_file_of_environment_or_of_a_secret() {
    let fixture = Fixture::new();
    let mode = rustix::fs::Mode::RWXU;
    let fifo = fixture.path("proj/fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();

    for file in ["fifo", "/dev/zero"] {
        let env_file = fixture.resolve(&format!("env-file: {file}")).unwrap_err();
        assert!(
            sentence(&env_file).contains("it is no plain file"),
            "{env_file}"
        );
        let secret = fixture.error(&format!("secrets: {{a: file:{file}}}"));
        assert!(
            secret.contains("it is no plain file; make it a readable UTF-8 file"),
            "{secret}"
        );
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
fn a_secret_of_the_users_configuration_is_recorded_where_it_was_read() {
    let mut fixture = Fixture::new();
    fixture.file("data/key.txt", "the users");
    let place = Place {
        line: 1,
        column: 1,
        len: 1,
    };
    let source = Sourced {
        value: SecretSource::File("key.txt".to_owned()),
        origin: Origin::file("config.toml", place, Some(&fixture.path("data"))),
    };
    fixture.flags.secrets = [("key".to_owned(), source)].into();

    let resolved = fixture.resolve("").unwrap();

    let pair = ("key".to_owned(), "the users".to_owned());
    assert_eq!(resolved.secrets, std::slice::from_ref(&pair));
    let (names, sources) = (&resolved.spec.secrets, &resolved.spec.secret_sources);
    let again = secrets_again(names, sources, &fixture.host).unwrap();
    assert_eq!(again, [pair]);
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
