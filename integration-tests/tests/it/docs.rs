//! The docs quote what the program says, and name tests that exist.
//!
//! Owns: how a quoted message and a named test are found in the source.
//! Reads: `docs/troubleshooting.md`, `docs/security.md`, the source.
//! Never: starts anything.

use std::fs;
use std::path::{Path, PathBuf};

/// Stands for a value in a quoted message.
const ANYTHING: char = '…';

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the string literals of all sources, about as the compiler does: what a line's end cuts is joined.
fn literals() -> Vec<String> {
    let mut literals = Vec::new();
    let mut folders = vec![root().join("crates")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = fs::read_to_string(path).unwrap();
                literals.extend(source.split('"').map(join));
            }
        }
    }
    literals
}

fn join(literal: &str) -> String {
    let mut parts = literal.split("\\\n");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.trim_start())
}

/// Returns what the first column of each row quotes.
fn quoted(page: &str) -> Vec<&str> {
    page.lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"))
        .map(|(message, _)| message)
        .collect()
}

fn says(literal: &str, message: &str) -> bool {
    let mut rest = literal;
    message.split(ANYTHING).all(|part| {
        let found = rest.find(part);
        rest = found.map_or(rest, |at| &rest[at + part.len()..]);
        found.is_some()
    })
}

#[test]
fn every_message_of_the_troubleshooting_page_is_one_of_ours() {
    let page = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let literals = literals();

    let unknown: Vec<&str> = quoted(&page)
        .into_iter()
        .filter(|message| !literals.iter().any(|literal| says(literal, message)))
        .collect();

    assert!(quoted(&page).len() > 60, "the page's tables are not found");
    assert!(unknown.is_empty(), "nobody says {unknown:#?}");
}

/// Returns what stands in a page as code, without fenced blocks.
fn code(page: &str) -> impl Iterator<Item = &str> {
    page.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// Returns the file and the function of a test that a page names; a whole file has no function.
fn named_test(code: &str) -> Option<(PathBuf, Option<&str>)> {
    let (module, name) = match code.rsplit_once("::") {
        Some((module, "*")) => (module, None),
        Some((module, name)) => (module, Some(name)),
        None => (code, None),
    };
    let is_file = module.starts_with("crates/") && module.ends_with(".rs");
    if is_file {
        return Some((root().join(module), name));
    }
    let tests = root().join("integration-tests/tests/it");
    let file = tests.join(module.replace("::", "/")).with_extension("rs");
    code.contains("::").then_some((file, name))
}

#[test]
fn every_test_that_the_security_page_names_exists() {
    let page = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let named: Vec<_> = code(&page)
        .filter(|code| *code != "x::y")
        .filter_map(named_test)
        .collect();

    let missing: Vec<_> = named
        .iter()
        .filter(|(file, name)| {
            let source = fs::read_to_string(file).unwrap_or_default();
            let is_there = match name {
                Some(name) => source.contains(&format!("fn {name}(")),
                None => source.contains("test]\n"),
            };
            !is_there
        })
        .collect();

    assert!(named.len() > 30, "the page's tests are not found");
    assert!(missing.is_empty(), "no test is {missing:#?}");
}
