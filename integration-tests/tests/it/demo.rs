//! `demo`: what a newcomer sees first.
//!
//! Owns: the demo's own image, which this file alone uses.
//! Reads: the demo's temporary folder, its table, the engine's images.
//! Never: touches an image that somebody else made.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use integration_tests::{Installation, Leftovers, PROJECT_OWNER};
use serde_json::Value;

use crate::scene::docker;
use crate::support::Ended;

const FIRST_LINE: &str =
    "demo: a scripted stand-in agent works on three prompt files; no model and no key are used\n";
const IMAGE: &str = "dark-factory-demo";

/// A demo whose temporary folder is in `folder`.
fn demo(installation: &Installation, folder: &tempfile::TempDir) -> Command {
    let mut command = installation.dark_factory();
    command
        .arg("demo")
        .env("TMPDIR", folder.path())
        .current_dir("/");
    command
}

/// Returns what lies in a demo's temporary folder.
fn left_in(folder: &tempfile::TempDir) -> Vec<PathBuf> {
    fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

fn image() -> String {
    docker(&["images", "--quiet", IMAGE])
}

#[test]
fn three_prompts_end_as_expected_and_nothing_is_left_unless_it_is_kept() {
    let installation = Installation::new();
    let folder = tempfile::tempdir().unwrap();

    let ended = Ended::of(&mut demo(&installation, &folder));

    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stderr.starts_with(FIRST_LINE), "{}", ended.stderr);
    let table = ended.stdout.split("\n\n").last().unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows[0],
        [
            "PROMPT", "OUTCOME", "TIME", "EXIT", "TOKENS", "FILES", "CHANGED", "CAUSE"
        ]
    );
    assert_eq!(
        (rows.len(), rows[1][..2].join(" ")),
        (4, "greeting.md succeeded".to_owned()),
        "{table}"
    );
    assert_eq!(rows[2][..2], ["impossible.md", "failed"]);
    assert_eq!(rows[3][..2], ["hungry.md", "out_of_memory"]);
    // EXIT, and FILES CHANGED.
    assert_eq!((rows[1][3], rows[1][5]), ("0", "1"), "{table}");
    assert_eq!((rows[2][3], rows[2][5]), ("0", "0"), "{table}");
    assert_eq!((rows[3][3], rows[3][5]), ("-", "0"), "{table}");
    assert!(rows[1][4].parse::<u64>().unwrap() > 0, "{table}");
    assert!(
        table.contains("the kernel killed the agent, `claude`, for lack of memory"),
        "{table}"
    );
    assert_eq!((image().as_str(), left_in(&folder)), ("", Vec::new()));
    assert!(!installation.state_dir().exists());

    let ended = Ended::of(demo(&installation, &folder).args(["--keep", "--json"]));

    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    let outcomes: Vec<String> = ended
        .json()
        .iter()
        .map(|run| run["outcome"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(outcomes, ["succeeded", "failed", "out_of_memory"]);
    let [kept] = left_in(&folder).try_into().unwrap();
    assert!(
        ended.stderr.contains(&format!("kept: {}", kept.display())),
        "{}",
        ended.stderr
    );
    let project = kept.join("project");
    assert_eq!(
        fs::read_to_string(project.join("greeting.txt")).unwrap(),
        "Good day, world!\n"
    );
    let owner = fs::metadata(folder.path()).unwrap().uid();
    let expected = if owner == 0 { PROJECT_OWNER } else { owner };
    assert_eq!(
        fs::metadata(project.join("greeting.txt")).unwrap().uid(),
        expected
    );
    assert_eq!(Leftovers::of(&kept).containers(), [""; 0]);
    let told: Value = serde_json::from_str(ended.stderr.lines().last().unwrap()).unwrap();
    let told = told["progress"]["message"].as_str().unwrap();
    let (_, image_kept) = told.rsplit_once("and the image ").unwrap();
    assert!(image_kept.starts_with(IMAGE), "{image_kept}");
    docker(&["rmi", image_kept]);
}

#[test]
fn without_an_engine_one_line_says_so_and_what_to_install() {
    let installation = Installation::new();
    let folder = tempfile::tempdir().unwrap();

    let ended = Ended::of(demo(&installation, &folder).env("DOCKER_HOST", "unix:///nonexistent"));

    assert_eq!((ended.code, ended.stdout.as_str()), (4, ""));
    let error = ended.stderr.strip_prefix(FIRST_LINE).unwrap();
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(
        error.starts_with("error: container engine at unix:///nonexistent does not answer"),
        "{error}"
    );
    assert!(error.contains("apt-get install docker.io"), "{error}");
    assert_eq!(left_in(&folder), Vec::<PathBuf>::new());
}
