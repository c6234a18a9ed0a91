//! The seed's own results: what its functions built, case by case.

#![cfg(feature = "docker")]
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use dark_factory_engines::docker::launch::{
    ContainerLaunchOpts, build_docker_run_args, insert_prompt_mount,
};
use dark_factory_executor::host::HostView;
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
struct ArgvCase {
    name: String,
    env: BTreeMap<String, String>,
    fs: Vec<Entry>,
    #[serde(default)]
    cwd: Option<String>,
    opts: Map<String, Value>,
    argv: Vec<String>,
}

#[derive(Deserialize)]
struct Entry {
    path: String,
    kind: String,
}

#[derive(Deserialize)]
struct PromptCase {
    name: String,
    argv: Vec<String>,
    prompt_file: String,
    image: String,
    expected: Vec<String>,
}

fn cases<T: for<'de> Deserialize<'de>>(lines: &str) -> Vec<T> {
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Puts the root's path where the data says `{root}`; the path needs no escaping in JSON.
fn substitute(lines: &str, root: &str) -> String {
    lines.replace("{root}", root)
}

/// Creates what a case needs below the root, which is emptied first.
fn lay_out(root: &Path, entries: &[Entry]) {
    for old in fs::read_dir(root).unwrap().map(Result::unwrap) {
        if old.file_type().unwrap().is_dir() {
            fs::remove_dir_all(old.path()).unwrap();
        } else {
            fs::remove_file(old.path()).unwrap();
        }
    }
    for entry in entries {
        let path = root.join(&entry.path);
        if entry.kind == "dir" {
            fs::create_dir_all(path).unwrap();
        } else {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
    }
}

/// Reads the seed's field names, two of which are flags where ours are words.
fn launch_opts(mut fields: Map<String, Value>) -> ContainerLaunchOpts {
    if fields.remove("hide_git") == Some(Value::Bool(true)) {
        fields.insert("git".to_owned(), "hidden".into());
    }
    if fields.remove("claude_dir_read_only") == Some(Value::Bool(true)) {
        fields.insert("claude_dir_access".to_owned(), "read_only".into());
    }
    serde_json::from_value(Value::Object(fields)).unwrap()
}

#[test]
fn the_seeds_fields_give_the_seeds_arguments_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let lines = substitute(include_str!("data/argv.jsonl"), root.to_str().unwrap());

    let cases: Vec<ArgvCase> = cases(&lines);

    assert_eq!(cases.len(), 200);
    for case in cases {
        lay_out(&root, &case.fs);
        let host = HostView {
            env: case.env,
            cwd: case.cwd.map_or_else(|| root.clone(), Into::into),
            home: None,
        };
        let args = build_docker_run_args(&launch_opts(case.opts), &host);
        assert_eq!(args.argv, case.argv, "{}", case.name);
    }
}

#[test]
fn the_prompt_is_mounted_where_the_seed_mounts_it() {
    let cases: Vec<PromptCase> = cases(include_str!("data/insert_prompt.jsonl"));

    assert_eq!(cases.len(), 12);
    for case in cases {
        let argv = insert_prompt_mount(&case.argv, &case.prompt_file, &case.image);
        assert_eq!(argv, case.expected, "{}", case.name);
    }
}
