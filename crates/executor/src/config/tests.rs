//! Tests of configuration files, of the seed's file, and of how layers stand over each other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::file::{decode, toml};
use super::*;
use crate::host::HostView;
use crate::prompt::Prompt;
use crate::resolve::ResolveContext;
use crate::settings::{KEYS, Layer, Level, Settings, Shape};

fn host(variables: &[(&str, &str)]) -> HostView {
    HostView {
        env: variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        home: Some(PathBuf::from("/home/me")),
        cwd: PathBuf::from("/p"),
    }
}

fn user(text: &str) -> ConfigFile {
    toml("/c/config.toml", text, Some(Path::new("/c")), Level::User).unwrap()
}

fn project(text: &str) -> ConfigFile {
    toml("dark-factory.toml", text, None, Level::Project).unwrap()
}

fn seeds(text: &str) -> Result<ConfigFile, ConfigError> {
    seed::parse(
        ".dark-factory.yaml",
        text,
        0o600,
        &host(&[("DIR", "/creds")]),
    )
}

fn front_matter(yaml: &str) -> Settings {
    let text = format!("---\n{yaml}\n---\ndo it");
    Prompt::parse("p.md", text.as_bytes()).unwrap().settings
}

fn refused(text: &str) -> String {
    toml("dark-factory.toml", text, None, Level::Project)
        .unwrap_err()
        .to_string()
}

/// Returns the rows that are not defaults, as `config show` tells them.
fn told(stack: &Stack) -> Vec<String> {
    let context = ResolveContext::new(PathBuf::from("/state"));
    let rows = stack.rows(&context, &EnvFiles::default());
    let set = rows.iter().filter_map(|row| {
        let written = row.written.as_ref()?;
        let name = row.name.as_ref().map(|name| format!(".{name}"));
        let lower = row
            .overrides
            .iter()
            .map(|lower| format!(" over {} {}", lower.text, lower.written.origin));
        Some(format!(
            "{}{} = {} {}{}",
            row.key.name,
            name.unwrap_or_default(),
            row.text,
            written.origin,
            lower.collect::<String>()
        ))
    });
    set.collect()
}

#[test]
fn each_layer_is_over_the_one_before_it_and_tells_what_it_overrides() {
    let files = [
        user(
            "memory = '1g'\ndefault-profile = 'fast'\n[profile.fast]\nmemory = '3g'\nnetwork = 'none'\n",
        ),
        seeds("env:\n  A: seed\n").unwrap(),
        project("memory = '2g'\n[env]\nA = 'toml'\nB = 'b'\n"),
    ];
    let environment = environment(&host(&[("DARK_FACTORY_MEMORY", "5g")])).unwrap();

    let stack = Stack::new(
        &files,
        Some(&front_matter("memory: 4g")),
        &environment.layer,
        &Layer::default(),
    )
    .unwrap();

    assert_eq!(
        told(&stack),
        [
            "env.A = toml dark-factory.toml:3:5 over seed .dark-factory.yaml:2:6",
            "env.B = b dark-factory.toml:4:5",
            "memory = 5g DARK_FACTORY_MEMORY over 4g p.md:2:9 over 3g /c/config.toml:4:10 \
             over 2g dark-factory.toml:1:10 over 1g /c/config.toml:1:10",
            "network = none /c/config.toml:5:11",
            "profile = fast (on hardened) /c/config.toml:2:19",
        ]
    );
}

#[test]
fn none_lifts_a_limit_of_a_lower_layer_or_of_the_defaults_in_every_layer() {
    const LIMITS: [&str; 8] = [
        "timeout",
        "idle-timeout",
        "completion-grace",
        "log-limit",
        "disk-limit",
        "memory",
        "cpus",
        "pids",
    ];
    let all = |form: fn(&str) -> String| LIMITS.map(form).concat();
    let limited = "timeout = '1h'\nidle-timeout = '9m'\ncompletion-grace = '1m'\nlog-limit = '1m'\ndisk-limit = '1g'\nmemory = '1g'\n\
                   cpus = 1\npids = 9\n";
    let in_toml = all(|key| format!("{key} = 'none'\n"));
    let in_yaml = all(|key| format!("{key}: none\n"));
    let variables = LIMITS.map(|key| {
        let name = key.to_uppercase().replace('-', "_");
        (format!("DARK_FACTORY_{name}"), "none")
    });
    let variables: Vec<(&str, &str)> = variables.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    let environment = environment(&host(&variables)).unwrap();
    let nothing = Layer::default();
    let user = user(limited);
    let project = project(&in_toml);
    let front_matter = front_matter(&in_yaml);

    for stack in [
        Stack::new(&[user.clone(), project], None, &nothing, &nothing),
        Stack::new(
            std::slice::from_ref(&user),
            Some(&front_matter),
            &nothing,
            &nothing,
        ),
        Stack::new(&[user], None, &environment.layer, &nothing),
    ] {
        let told = told(&stack.unwrap());

        for key in LIMITS {
            let start = format!("{key} = none ");
            assert!(
                told.iter()
                    .any(|line| line.starts_with(&start) && line.contains(" over ")),
                "{told:#?}"
            );
        }
    }
}

#[test]
fn a_profile_starts_from_a_built_in_one_and_a_later_files_keys_are_over_an_earlier_ones() {
    let files = [
        user("[profile.x]\nprofile = 'seed'\npids = 7\ncpus = 1\n"),
        project("[profile.x]\npids = 8\n"),
    ];
    let chosen = front_matter("profile: x");

    let stack = Stack::new(&files, Some(&chosen), &Layer::default(), &Layer::default()).unwrap();

    assert_eq!(
        told(&stack),
        [
            "cpus = 1 /c/config.toml:4:8",
            "pids = 8 dark-factory.toml:2:8",
            "profile = x (on seed) p.md:2:10",
        ]
    );
}

#[test]
fn a_profile_that_is_not_there_is_named_with_those_that_are() {
    let files = [user("[profile.fast]\n[profile.slow]\n")];
    let chosen = front_matter("profile: fsat");

    let error = Stack::new(&files, Some(&chosen), &Layer::default(), &Layer::default());

    assert_eq!(
        error.unwrap_err().to_string(),
        "p.md:2:10: there is no profile \"fsat\"; there are hardened, seed, fast, slow; did you mean fast?"
    );
}

#[test]
fn what_a_configuration_file_may_not_say_is_told_all_at_once() {
    assert_eq!(
        refused(
            "memroy = '4g'\ncpus = 'x'\nproject = '..'\nhost = 'tcp://x:1'\n\
             [profile.hardened]\n[profile.y]\nprofile = 'sead'\njobs = 2\n"
        ),
        "dark-factory.toml:1:1: there is no key memroy\n  \
         1 | memroy = '4g'\n    | ^^^^^^\n  help: did you mean memory?\n\
         dark-factory.toml:2:8: cpus must be a number of CPUs above 0, such as 2 or 0.5, or none, not \"x\"\n  \
         2 | cpus = 'x'\n    |        ^^^\n\
         dark-factory.toml:3:1: project cannot be set here\n  \
         3 | project = '..'\n    | ^^^^^^^\n  \
         help: it can stand in a front matter, in DARK_FACTORY_PROJECT, or as --project\n\
         dark-factory.toml:4:1: host cannot be set here\n  \
         4 | host = 'tcp://x:1'\n    | ^^^^\n  \
         help: it can stand in config.toml of your own configuration folder, in DARK_FACTORY_HOST, or as --host\n\
         dark-factory.toml:5:10: the profile hardened is built in and cannot be changed\n  \
         5 | [profile.hardened]\n    |          ^^^^^^^^\n  \
         help: give this one another name, and write profile = \"hardened\" in it\n\
         dark-factory.toml:7:11: a profile starts from hardened or seed, not from \"sead\"\n  \
         7 | profile = 'sead'\n    |           ^^^^^^\n  help: did you mean seed?\n\
         dark-factory.toml:8:1: jobs cannot be set here\n  \
         8 | jobs = 2\n    | ^^^^\n  \
         help: it can stand in config.toml or dark-factory.toml, in DARK_FACTORY_JOBS, or as --jobs"
    );
}

#[test]
fn a_profile_cannot_be_chosen_by_the_name_of_its_own_table() {
    assert_eq!(
        refused("profile = 'x'\n[profile.x]\npids = 1\n"),
        "dark-factory.toml:2:2: the key profile appears twice\n  \
         2 | [profile.x]\n    |  ^^^^^^^\n  \
         help: where there are [profile.NAME] tables, write default-profile = \"NAME\" to choose one"
    );
}

#[test]
fn variables_are_parsed_by_their_keys_and_all_that_are_wrong_are_told() {
    let good = [
        ("DARK_FACTORY_HIDE_GIT", "true"),
        ("DARK_FACTORY_ENV_FILE", "a.env"),
        ("DARK_FACTORY_MOUNT", "a:/a:ro"),
        ("DARK_FACTORY_JOBS", "3"),
        ("DARK_FACTORY_TIMEOUT", ""),
    ];
    let bad = [
        ("DARK_FACTORY_MEMORY", "8x"),
        ("DARK_FACTORY_HIDE_GIT", "yes"),
    ];

    let layer = environment(&host(&good)).unwrap().layer;
    let error = environment(&host(&bad)).unwrap_err();

    let none = Layer::default();
    let stack = Stack::new(&[], None, &layer, &none).unwrap();
    assert_eq!(
        told(&stack),
        [
            "env-file = a.env DARK_FACTORY_ENV_FILE",
            "mount = a:/a:ro DARK_FACTORY_MOUNT",
            "hide-git = true DARK_FACTORY_HIDE_GIT",
            "jobs = 3 DARK_FACTORY_JOBS",
        ]
    );
    assert_eq!(
        error.to_string(),
        "DARK_FACTORY_MEMORY must be a size such as 512m or 8g, or none, not \"8x\"\n\
         DARK_FACTORY_HIDE_GIT must be true or false, not \"yes\""
    );
}

#[test]
fn a_variable_is_warned_about_only_if_it_was_probably_meant_to_be_a_setting() {
    let variables = [
        ("DARK_FACTORY_MEMROY", "1g"),
        ("DARK_FACTORY_ENV", "A=b"),
        ("DARK_FACTORY_API_KEY", "sk-whose-value-is-not-shown"),
        ("DARK_FACTORY_STATE_DIR", "/s"),
        ("DARK_FACTORY_DISK_PATIENCE", "1s"),
        ("DARK_FACTORY_TEST_AGENT_IMAGE", "x"),
        ("DARK_FACTORY_INIT", "x"),
        ("DARK_FACTORY_PROMPT_FILE", "x"),
        ("DARK_FACTORY_CHAOS_JOBS", "x"),
        ("DARK_FACTORY_SOMETHING_ELSE", "x"),
    ];

    let warnings = environment(&host(&variables)).unwrap().warnings;

    assert_eq!(
        warnings,
        [
            "DARK_FACTORY_API_KEY does nothing: api-key cannot be set by a variable",
            "DARK_FACTORY_ENV does nothing: env cannot be set by a variable",
            "DARK_FACTORY_MEMROY is not known and does nothing; did you mean DARK_FACTORY_MEMORY?",
        ]
    );
}

#[test]
fn every_choice_of_the_schema_is_one_that_the_key_takes() {
    for key in KEYS {
        let (Shape::Choice(words), Some(variable)) = (key.shape, key.variable()) else {
            continue;
        };
        for word in words {
            let found = environment(&host(&[(&variable, word)]));

            assert!(found.is_ok(), "{variable}={word}: {found:?}");
        }
    }
}

/// Returns what the seed's file sets, in the seed's container or in ours.
fn taken(yaml: &str, profile: &str) -> Vec<String> {
    let file = seeds(yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"));
    let chosen = front_matter(&format!("profile: {profile}"));
    let none = Layer::default();
    let stack = Stack::new(&[file], Some(&chosen), &none, &none).unwrap();
    let mut told = told(&stack);
    told.retain(|row| !row.starts_with("profile = "));
    for row in &mut told {
        *row = row.split(" .dark-factory.yaml").next().unwrap().to_owned();
    }
    told
}

#[test]
fn keys_of_the_seed_mean_what_they_mean_there() {
    for (yaml, profile, expected) in [
        ("project: p", "hardened", &["project-name = p"][..]),
        (
            "projectName: old\nproject: p",
            "hardened",
            &["project-name = p"],
        ),
        (
            "project: p\nprojectName: old",
            "hardened",
            &["project-name = p"],
        ),
        ("containerImage: a/b:1", "hardened", &["image = a/b:1"]),
        ("model: claude-x[1m]", "hardened", &["model = claude-x[1m]"]),
        ("claudeDir: ~/.claude-x", "hardened", &[]),
        (
            "claudeDir: ~/.claude-x",
            "seed",
            &["claude-dir = ~/.claude-x"],
        ),
        ("claudeDir: ${DIR}", "seed", &["claude-dir = /creds"]),
        ("netrcFile: ~/.netrc", "hardened", &[]),
        (
            "netrcFile: ~/.netrc",
            "seed",
            &["mount = ~/.netrc:/home/node/.netrc:ro"],
        ),
        (
            "gitconfigFile: g",
            "seed",
            &["mount = g:/home/node/.gitconfig-extra:ro"],
        ),
        ("netrcFile: ''", "seed", &[]),
        (
            "env: {A: b, MY_TOKEN: x, N: 1}",
            "hardened",
            &["env.A = b", "env.MY_TOKEN = ***", "env.N = 1"],
        ),
        (
            "extraMounts: [{src: $X/a, dst: /a, readOnly: true}]",
            "hardened",
            &["mount = $X/a:/a:ro (optional)"],
        ),
        (
            "extraMounts: [{src: a, dst: /a}]",
            "hardened",
            &["mount = a:/a (optional)"],
        ),
        ("hideGit: true", "hardened", &["hide-git = true"]),
        ("maxPromptDuration: 1h30m", "hardened", &["timeout = 1h30m"]),
        ("maxPromptDuration: 1.5h", "hardened", &["timeout = 1h30m"]),
        ("maxPromptDuration: ''", "hardened", &[]),
        ("maxPromptDuration: 0s", "hardened", &["timeout = none"]),
        ("maxPromptDuration: 0", "hardened", &["timeout = none"]),
        ("maxContainers: 3", "hardened", &[]),
        ("model:", "hardened", &[]),
        ("", "hardened", &[]),
    ] {
        assert_eq!(taken(yaml, profile), expected, "{yaml} in {profile}");
    }
}

#[test]
fn what_the_seed_refuses_is_refused() {
    for (yaml, message) in [
        (
            "project: ' '",
            "1:10: project must not be empty or whitespace-only when set",
        ),
        (
            "containerImage: ''",
            "1:17: containerImage must not be empty",
        ),
        ("model: ''", "1:8: model must not be empty"),
        (
            "model: a b",
            "1:8: model must be up to 256 letters, digits and . _ : / [ ] -",
        ),
        (
            "env: {lower: x}",
            "1:7: the variable \"lower\" of env must be capital letters, digits and _, no digit in front",
        ),
        (
            "env: {ANTHROPIC_MODEL: x}",
            "1:7: the variable \"ANTHROPIC_MODEL\" of env is reserved; the seed sets it itself",
        ),
        (
            "env: {A: \"x\\ny\"}",
            "1:7: the variable \"A\" of env must not have a NUL or a line end in its value",
        ),
        (
            "extraMounts: [{dst: /a}]",
            "1:15: extraMounts[0].src must not be empty",
        ),
        (
            "extraMounts: [{src: a}]",
            "1:15: extraMounts[0].dst must not be empty",
        ),
        ("hideGit: 1", "1:10: hideGit must be true or false, not 1"),
        (
            "maxPromptDuration: -5m",
            "1:20: maxPromptDuration must be a duration such as 90m or 1h30m, not \"-5m\"",
        ),
        (
            "maxContainers: -1",
            "1:16: maxContainers must be a whole number, not negative",
        ),
        (
            "autoReview: true",
            "1:1: autoReview was removed from the seed in v0.151.0, which refuses it too",
        ),
        (
            "useCollaborators: true",
            "1:1: useCollaborators was removed from the seed in v0.151.0, which refuses it too",
        ),
        (
            "allowedReviewers: [a]",
            "1:1: allowedReviewers was removed from the seed in v0.151.0, which refuses it too",
        ),
        ("- a", "1:1: .dark-factory.yaml must be lines of KEY: VALUE"),
    ] {
        let error = seeds(yaml).unwrap_err().to_string();

        let first = error.lines().next().unwrap();
        assert_eq!(first, format!(".dark-factory.yaml:{message}"), "{yaml}");
    }
}

#[test]
fn what_the_seed_has_besides_is_left_alone_with_one_note_and_what_nobody_knows_is_a_warning() {
    let file =
        seeds("workflow: branch\nautoMerge: true\ncontainerImag: x\nmaxContainers: 2\n").unwrap();

    assert_eq!(
        file.notices,
        [
            ".dark-factory.yaml: left alone, as they mean nothing to dark-factory's runs: workflow, autoMerge, maxContainers"
        ]
    );
    assert_eq!(file.warnings.len(), 1);
    assert!(
        file.warnings[0].starts_with(".dark-factory.yaml:3:1: the key containerImag is not known")
    );
    assert!(file.warnings[0].ends_with("help: did you mean containerImage?"));
}

#[test]
fn a_seeds_file_that_everybody_may_read_is_warned_about_if_it_has_secrets() {
    let read = |yaml, mode| {
        let file = seed::parse("s.yaml", yaml, mode, &host(&[])).unwrap();
        file.warnings.len()
    };

    assert_eq!(read("env: {MY_TOKEN: x}", 0o644), 1);
    assert_eq!(read("env: {MY_TOKEN: x}", 0o640), 0);
    assert_eq!(read("env: {A: x}", 0o644), 0);
}

#[test]
fn what_may_be_a_secret_is_in_no_message() {
    for text in [
        "[env]\nOPENAI_API_KEY = hunter2",
        "[env]\nA = hunter2",
        "[env]\nA: hunter2",
        "[env]\nA = \"hunter2",
        "[env]\nA = '1'\nA = 'hunter2'",
        "[env]\nA = ['hunter2']",
        "env.A = hunter2",
        "env = 'hunter2'",
        "env = { A = hunter2 }",
        "env = ['A=hunter2', 'A=hunter2']",
        "[secrets]\nA = hunter2",
        "[profile.x.secrets]\nA = 'hunter2'",
        "[envs]\nA = hunter2",
        "API_KEY = 'hunter2'",
    ] {
        let error = toml("c.toml", text, None, Level::User).unwrap_err();

        assert!(!error.to_string().contains("hunter2"), "{text}: {error}");
    }
    for yaml in [
        "env:\n  API_KEY: \"hunter2",
        "env:\n  A: \"hunter2\nmodel: x",
        "env:\n  A: @hunter2",
        "env:\n  A: hunter2\n  A: hunter2",
        "env: [A=hunter2]",
        "env: hunter2",
    ] {
        let error = seeds(yaml).unwrap_err();

        assert!(!error.to_string().contains("hunter2"), "{yaml}: {error}");
    }
}

#[test]
fn what_every_run_would_refuse_is_a_problem_of_the_file_also_in_a_profile() {
    for (line, column, told) in [
        ("agent = 'clade'", 9, "there is no agent \"clade\""),
        ("memory = '1k'", 10, "memory must be at least 6m"),
        ("image = 'A B'", 9, "is not an image reference"),
        ("workdir = 'x'", 11, "must begin with /"),
        ("mount = ['/a:x']", 10, "must begin with /"),
        (
            "env = { DARK_FACTORY_X = '1' }",
            26,
            "\"DARK_FACTORY_X\" cannot be set",
        ),
        (
            "label = { 'dark-factory.x' = '1' }",
            30,
            "belong to dark-factory",
        ),
    ] {
        for text in [format!("\n{line}"), format!("[profile.x]\n{line}")] {
            let error = toml("c.toml", &text, None, Level::User)
                .unwrap_err()
                .to_string();

            assert!(
                error.starts_with(&format!("c.toml:2:{column}: ")),
                "{error}"
            );
            assert!(error.contains(told), "{error}");
        }
    }
}

#[test]
fn the_schema_has_every_key_that_a_file_may_have() {
    let schema = json_schema();

    let properties = schema["properties"].as_object().unwrap();
    for key in KEYS {
        let text = format!("{} = 1", key.name);
        let is_refused = toml("c.toml", &text, None, Level::User)
            .is_err_and(|error| error.to_string().contains("cannot be set here"));
        assert_eq!(properties.contains_key(key.name), !is_refused, "{key:?}");
    }
    for alias in [
        "mounts",
        "labels",
        "env-files",
        "env_files",
        "secret",
        "keep_days",
        "default_profile",
    ] {
        assert!(properties.contains_key(alias), "{alias}");
    }
    let table = &schema["properties"]["profile"]["anyOf"][1]["additionalProperties"];
    assert!(
        table["properties"]["memory"]["description"].is_string(),
        "{table}"
    );
    assert!(table["properties"].get("jobs").is_none());
}

#[test]
fn the_documentation_has_the_table_of_keys() {
    let docs = include_str!("../../../../docs/configuration.md");

    assert!(
        docs.contains(&keys_table()),
        "put this there:\n{}",
        keys_table()
    );
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(text) = decode("c.toml", bytes) {
            let _unused = toml("c.toml", &text, None, Level::User).map_err(|error| error.to_string());
            let _unused = seeds(&text).map_err(|error| error.to_string());
        }
    }

    #[test]
    fn no_toml_makes_the_reader_panic(
        text in "([a-z=\\[\\]{}\"'#.,é\\-\\\\ \r\n0-9]|env|mount|profile| = |\\[profile.|'''|\n){0,80}"
    ) {
        let _unused = toml("c.toml", &text, None, Level::User).map_err(|error| error.to_string());
    }

    #[test]
    fn no_variables_make_the_reader_panic(
        variables in prop::collection::btree_map("DARK_FACTORY_(MEMORY|MOUNT|USER|X{0,3})", ".{0,20}", 0..4)
    ) {
        let env: BTreeMap<String, String> = variables;
        let _unused = environment(&HostView { env, ..HostView::default() }).map_err(|error| error.to_string());
    }
}
