//! Tests of settings: what a front matter may say, the text forms, and how layers combine.

use std::time::Duration;

use dark_factory_types::{ByteSize, CpuCount, NetworkMode, Transport};

use super::*;
use crate::prompt::Prompt;

fn settings(front_matter: &str) -> Settings {
    let text = format!("---\n{front_matter}\n---\ndo it");
    match Prompt::parse("p.md", text.as_bytes()) {
        Ok(prompt) => {
            assert_eq!(prompt.warnings, [], "{front_matter}");
            prompt.settings
        }
        Err(error) => panic!("{error}"),
    }
}

/// Returns the first line of the error.
fn error(front_matter: &str) -> String {
    let text = format!("---\n{front_matter}\n---\ndo it");
    let error = Prompt::parse("p.md", text.as_bytes())
        .unwrap_err()
        .to_string();
    error.lines().next().unwrap().to_owned()
}

fn value<T: Clone>(setting: &Option<Sourced<T>>) -> T {
    setting.as_ref().unwrap().value.clone()
}

fn mount(src: &str, dst: &str) -> ExtraMount {
    ExtraMount {
        src: src.to_owned(),
        dst: dst.to_owned(),
        read_only: None,
        optional: false,
    }
}

#[test]
fn every_plain_key_is_read() {
    let all = settings(
        "agent: command\nimage: a/b:1\nmodel: 4.10\ncommand: [make, 1, 'x y']\ntimeout: 1h30m\nmemory: 8g\n\
         cpus: 1.5\npids: 512\nuser: 1000:100\nnetwork: none\nhide-git: true\npull: always\nproject: ..\n\
         profile: seed\nworkspace: /w\nworkdir: /w/x\ntransport: attach\nstop-signal: int\nstop-grace: 0s\n\
         claude-dir: ~/.claude",
    );

    assert_eq!(value(&all.agent), "command");
    assert_eq!(value(&all.image), "a/b:1");
    assert_eq!(value(&all.model), "4.10");
    assert_eq!(value(&all.command), ["make", "1", "x y"]);
    assert_eq!(value(&all.timeout), Limit::At(Duration::from_secs(5400)));
    assert_eq!(value(&all.memory), Limit::At(ByteSize(8 << 30)));
    assert_eq!(
        value(&all.cpus),
        Limit::At(CpuCount {
            nanos: 1_500_000_000
        })
    );
    assert_eq!(value(&all.pids), Limit::At(512));
    assert_eq!(
        value(&all.user),
        UserSetting::Ids {
            uid: 1000,
            gid: Some(100)
        }
    );
    assert_eq!(value(&all.network), NetworkMode::None);
    assert_eq!(value(&all.git), GitVisibility::Hidden);
    assert_eq!(value(&all.pull), PullPolicy::Always);
    assert_eq!(value(&all.project), "..");
    assert_eq!(value(&all.profile), ProfileName::BuiltIn(Profile::Seed));
    assert_eq!(value(&all.workspace), "/w");
    assert_eq!(value(&all.workdir), "/w/x");
    assert_eq!(value(&all.transport), Transport::Attach);
    assert_eq!(value(&all.stop_signal), "SIGINT");
    assert_eq!(value(&all.stop_grace), Duration::ZERO);
    assert_eq!(value(&all.claude_dir), "~/.claude");
    assert_eq!(
        all.memory.unwrap().origin,
        Origin::File {
            file: "p.md".to_owned(),
            line: 7,
            column: 9,
            below: None,
        }
    );
}

#[test]
fn maps_may_be_lists_of_texts() {
    for front_matter in [
        "env: {A: x=y, B: 1.10, C: no, D: , E: ''}",
        "env: [A=x=y, B=1.10, C=no, D, E=]",
    ] {
        let env = settings(front_matter).env;

        let text = |text: &str| EnvValue::Text(text.to_owned());
        let values: Vec<_> = env
            .into_iter()
            .map(|(name, value)| (name, value.value))
            .collect();
        let expected = [
            ("A", text("x=y")),
            ("B", text("1.10")),
            ("C", text("no")),
            ("D", EnvValue::FromHost),
            ("E", text("")),
        ];
        assert_eq!(
            values,
            expected.map(|(name, value)| (name.to_owned(), value)),
            "{front_matter}"
        );
    }
}

#[test]
fn labels_and_secrets_are_maps() {
    let all = settings("labels: {team: a, n: 1}\nsecrets:\n  KEY: env:KEY\n  cert: file:~/c.pem");

    assert_eq!(all.labels["team"].value, "a");
    assert_eq!(all.labels["n"].value, "1");
    assert_eq!(
        all.secrets["KEY"].value,
        SecretSource::Env("KEY".to_owned())
    );
    assert_eq!(
        all.secrets["cert"].value,
        SecretSource::File("~/c.pem".to_owned())
    );
}

#[test]
fn mounts_are_texts_or_maps() {
    let mounts = settings(
        "mounts:\n  - docs:/docs\n  - ~/a:/a:ro\n  - {src: $B, dst: /b, readOnly: true, optional: true}",
    )
    .mounts;

    let values: Vec<_> = mounts.iter().map(|mount| mount.value.clone()).collect();
    assert_eq!(
        values,
        [
            mount("docs", "/docs"),
            ExtraMount {
                read_only: Some(true),
                ..mount("~/a", "/a")
            },
            ExtraMount {
                read_only: Some(true),
                optional: true,
                ..mount("$B", "/b")
            },
        ]
    );
    assert_eq!(mounts[1].origin.to_string(), "p.md:4:5");
}

#[test]
fn other_names_of_keys_are_accepted() {
    for (front_matter, other) in [
        ("hide-git: true", "hide_git: true"),
        ("mount: a:/b", "mounts: [a:/b]"),
        ("label: {a: b}", "labels: [a=b]"),
        ("env-file: x", "env_files: [x]"),
        ("secrets: {a: env:b}", "secret: [a=env:b]"),
    ] {
        let texts = |front_matter| {
            let layer = Layer {
                run: settings(front_matter),
                ..Layer::default()
            };
            let entries = KEYS.iter().flat_map(|key| key.entries(&layer));
            entries.map(|entry| entry.text).collect::<Vec<_>>()
        };
        assert_eq!(texts(front_matter), texts(other), "{other}");
    }
}

#[test]
fn a_value_of_the_wrong_kind_is_an_error_that_says_what_it_must_be() {
    for (front_matter, message) in [
        (
            "memory: 8x",
            "p.md:2:9: memory must be a size such as 512m or 8g, or none, not \"8x\"",
        ),
        (
            "memory:",
            "p.md:2:1: memory must be a size such as 512m or 8g, or none, not empty",
        ),
        (
            "memory: [1]",
            "p.md:2:9: memory must be a size such as 512m or 8g, or none, not a list",
        ),
        (
            "timeout: 90",
            "p.md:2:10: timeout must be a duration with a unit, such as 90s, 30m or 1h30m, or none, not \"90\"",
        ),
        (
            "cpus: 0",
            "p.md:2:7: cpus must be a number of CPUs above 0, such as 2 or 0.5, or none, not \"0\"",
        ),
        (
            "pids: -1",
            "p.md:2:7: pids must be a whole number such as 512, or none, not \"-1\"",
        ),
        ("model: {a: b}", "p.md:2:8: model must be a text, not a map"),
        (
            "hide-git: 1",
            "p.md:2:11: hide-git must be true or false, not 1",
        ),
        (
            "network: host",
            "p.md:2:10: network must be none, open, or allow and a list of hosts such as api.example.com, not \"host\"",
        ),
        (
            "network: {allow: [https://a.example/x]}",
            "p.md:2:19: network must be a host such as api.example.com, *.example.com:8443 or 10.1.0.0/16, not \
             \"https://a.example/x\": leave https:// and the path away: rules are hosts with ports",
        ),
        (
            "network: {deny: [a.example]}",
            "p.md:2:10: network must be none, open, or allow and a list of hosts such as api.example.com, not this map",
        ),
        (
            "user: 'a b'",
            "p.md:2:7: user must be UID or UID:GID, such as 1000:1000, not \"a b\"",
        ),
        (
            "stop-signal: KILL",
            "p.md:2:14: stop-signal must be the name of a signal that can be handled, such as SIGTERM \
             or SIGINT, not \"KILL\"",
        ),
        (
            "command: make test",
            "p.md:2:10: command must be a list such as [make, test], not \"make test\"",
        ),
        (
            "mount: a:/b:/c",
            "p.md:2:8: mount must be SRC:DST or SRC:DST:ro, where no path has a colon, not \"a:/b:/c\"",
        ),
        ("mount: [{src: a}]", "p.md:2:9: this mount has no dst"),
        ("mount: [{source: a}]", "p.md:2:10: a mount has no source"),
        (
            "env: A=1",
            "p.md:2:6: env must be a map of names to texts, or a list of NAME=VALUE, not one text",
        ),
        ("env: {A: [x]}", "p.md:2:10: env must be a text, not a list"),
        ("env: [A=1, A=2]", "p.md:2:12: env has A twice"),
        (
            "secrets: {A: x}",
            "p.md:2:14: secrets must be a map of names to env:VAR or file:PATH, each name once, never a value itself \
             (so what stands here is not shown)",
        ),
        ("env: {A: 1, A: 2}", "p.md:2:13: the key A appears twice"),
        (
            "mount: a:/b\nmounts: [c:/d]",
            "p.md:3:1: mounts is mount again, which line 2 sets",
        ),
    ] {
        assert_eq!(error(front_matter), message);
    }
}

#[test]
fn what_may_be_a_secret_is_in_no_message() {
    for front_matter in [
        "env: API_KEY=hunter2",
        "env: hunter2",
        "env: [API_KEY=hunter2, API_KEY=hunter2]",
        "env: [=hunter2]",
        "env: {A: hunter2, A: hunter2}",
        "env:\n  A: @hunter2",
        "env:\n  A: *hunter2",
        "env:\n  A: hunter2: hunter2",
        "env:\n  A:hunter2\n  B: 1",
        "env: {A: \"hunter2\nmemory: 1g",
        "env:\n  API_KEY: \"hunter2",
        "API_KEY: \"hunter2",
        "API_KEY: hunter2\nAPI_KEY: hunter2",
        "secrets: {A: env:B, A: \"hunter2\"}",
        "secrets: [hunter2]",
        "secrets:\n  A: @hunter2",
        "secrets:\n  - A: B: hunter2",
    ] {
        let error = error(front_matter);

        assert!(!error.contains("hunter2"), "{front_matter}: {error}");
    }
    let text = "---\nenvs: {A: hunter2}\nAPI_KEY: hunter2\n---\ndo it\n";
    let warnings = Prompt::parse("p.md", text.as_bytes()).unwrap().warnings;
    assert_eq!(warnings.len(), 2);
    for warning in warnings {
        assert!(!warning.to_string().contains("hunter2"), "{warning}");
    }
}

#[test]
fn keys_of_the_seed_are_left_alone() {
    let lines: Vec<String> = IGNORED_KEYS
        .iter()
        .map(|key| format!("{key}: [x]"))
        .collect();

    assert_eq!(settings(&lines.join("\n")), Settings::default());
}

#[test]
fn flags_beat_the_front_matter() {
    let low = settings(
        "image: low\nmodel: low\nenv: {A: low, B: low}\nenv-file: low\nmounts: [low:/a, low:/b]\n\
         command: [low, low]",
    );
    let high = Settings {
        image: Some(Sourced::flag("--image", "high".to_owned())),
        command: Some(Sourced::flag("--", vec!["high".to_owned()])),
        env: [(
            "A".to_owned(),
            Sourced::flag("--env", EnvValue::Text("high".to_owned())),
        )]
        .into(),
        env_file: vec![Sourced::flag("--env-file", "high".to_owned())],
        mounts: vec![
            Sourced::flag("--mount", mount("high", "/b/")),
            Sourced::flag("--mount", mount("high", "/c")),
        ],
        ..Settings::default()
    };

    let all = high.over(low);

    assert_eq!(value(&all.image), "high");
    assert_eq!(all.image.as_ref().unwrap().origin.to_string(), "--image");
    assert_eq!(value(&all.model), "low");
    assert_eq!(value(&all.command), ["high"]);
    assert_eq!(all.env["A"].value, EnvValue::Text("high".to_owned()));
    assert_eq!(all.env["B"].value, EnvValue::Text("low".to_owned()));
    let files: Vec<_> = all
        .env_file
        .iter()
        .map(|file| file.value.as_str())
        .collect();
    assert_eq!(files, ["low", "high"]);
    let targets: Vec<_> = all
        .mounts
        .iter()
        .map(|m| (m.value.src.as_str(), m.value.dst.as_str()))
        .collect();
    assert_eq!(targets, [("low", "/a"), ("high", "/b/"), ("high", "/c")]);
}

#[test]
fn users_are_numbers_or_names() {
    for (text, user) in [
        (
            "1000",
            Some(UserSetting::Ids {
                uid: 1000,
                gid: None,
            }),
        ),
        (
            "0:0",
            Some(UserSetting::Ids {
                uid: 0,
                gid: Some(0),
            }),
        ),
        ("node", Some(UserSetting::Named("node".to_owned()))),
        (
            "1000:staff",
            Some(UserSetting::Named("1000:staff".to_owned())),
        ),
        ("", None),
        ("1000:", None),
        ("-1", None),
        ("4294967296", None),
        ("a:b:c", None),
    ] {
        assert_eq!(parse_user(text).ok(), user, "{text}");
    }
}

#[test]
fn an_env_file_is_read_as_docker_reads_it() {
    let found =
        parse_env_file("\u{feff}# no\n\nA=1 # not a comment\r\n  B=\"q\"\nC\nD=\n").unwrap();

    let text = |text: &str| EnvValue::Text(text.to_owned());
    assert_eq!(
        found,
        [
            (3, "A".to_owned(), text("1 # not a comment")),
            (4, "B".to_owned(), text("\"q\"")),
            (5, "C".to_owned(), EnvValue::FromHost),
            (6, "D".to_owned(), text("")),
        ]
    );
}

#[test]
fn an_error_in_an_env_file_does_not_show_the_value() {
    for (text, line) in [("A=1\nMY KEY=hunter2", 2), ("=hunter2", 1)] {
        let (at, error) = parse_env_file(text).unwrap_err();

        assert_eq!(at, line);
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[test]
fn a_near_word_is_suggested_and_a_far_one_is_not() {
    let known = || KEYS.iter().map(|key| key.name);
    for (word, suggestion) in [
        ("hideGit", Some("hide-git")),
        ("time_out", Some("timeout")),
        ("memroy", Some("memory")),
        ("cpu", Some("cpus")),
        ("title", None),
        ("x", None),
    ] {
        assert_eq!(nearest(word, known()), suggestion, "{word}");
    }
}

#[test]
fn a_list_of_hosts_is_written_as_a_map_or_as_a_text() {
    let expected = NetworkMode::Allow(vec![
        "api.example.com".parse().unwrap(),
        "*.example.com:8443".parse().unwrap(),
    ]);

    for text in [
        "network: {allow: [api.example.com, '*.example.com:8443']}",
        "network:\n  allow:\n  - api.example.com\n  - '*.example.com:8443'",
        "network: allow:api.example.com,*.example.com:8443",
    ] {
        let settings = settings(text);
        assert_eq!(value(&settings.network), expected, "{text}");
    }
}
