//! What an agent makes of the project's git, against every command of ours on the host.
//!
//! Owns: traps in all places from which git executes something, and a canary on the host.
//! Reads: the canary; git itself, which falls into the traps when it is run without care.
//! Never: tests each trap by itself; see `crates/factory/src/changes/tests/attacks.rs`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::scene::Scene;
use crate::support::Ended;

/// Settings whose value is a program.
const PROGRAMS: [&str; 20] = [
    "core.sshCommand",
    "core.pager",
    "core.editor",
    "core.gitProxy",
    "core.askPass",
    "core.alternateRefsCommand",
    "diff.external",
    "diff.x.command",
    "diff.x.textconv",
    "filter.x.clean",
    "filter.x.smudge",
    "filter.x.process",
    "merge.x.driver",
    "gpg.program",
    "gpg.ssh.program",
    "credential.helper",
    "uploadpack.packObjectsHook",
    "interactive.diffFilter",
    "sequence.editor",
    "core.fsmonitor",
];

/// Returns what lays the traps, which touch a file that only the host's processes reach.
fn traps(canary: &str) -> String {
    let trap = format!("touch {canary}/fell; false");
    let settings: String = PROGRAMS
        .iter()
        .map(|key| format!("git config {key} '{trap}'\n"))
        .collect();
    format!(
        "set -e
blob=$(git rev-parse HEAD:README.md)
git config filter.x.required true
git config core.hooksPath .githooks
mkdir .githooks
for hook in pre-commit post-commit post-checkout post-index-change reference-transaction fsmonitor-watchman pre-auto-gc; do
    printf '#!/bin/sh\\n{trap}\\n' > .githooks/$hook
done
chmod +x .githooks/*
mkdir -p .git/hooks .git/info
cp .githooks/* .git/hooks/
printf '[core]\\n\\tfsmonitor = {trap}\\n\\tworktree = /\\n[alias]\\n\\tls-files = !{trap}\\n\\trev-parse = !{trap}\\n' > evil.config
git config include.path ../evil.config
git config 'includeIf.gitdir:/.path' ../evil.config
git config protocol.ext.allow always
git config remote.origin.url 'ext::sh -c \"{trap}\"'
git config remote.origin.promisor true
git config core.repositoryFormatVersion 1
git config extensions.partialClone origin
git config submodule.recurse true
git config maintenance.auto true
echo '* filter=x diff=x merge=x' > .gitattributes
cp .gitattributes .git/info/attributes
printf '[submodule \"s\"]\\n\\tpath = s\\n\\turl = ext::sh -c \"{trap}\"\\n\\tupdate = !{trap}\\n' > .gitmodules
git init --quiet s
git -C s config core.fsmonitor '{trap}'
echo x > s/x
# A repository without a work tree inside of the work tree.
git init --quiet --bare bare
git -C bare config core.fsmonitor '{trap}'
printf '/proc/self/root\\n/nowhere\\n' > .git/objects/info/alternates
# Git asks the promisor for what is missing.
rm -f .git/objects/${{blob:0:2}}/${{blob:2}}
{settings}echo changed >> README.md
echo laid"
    )
}

#[test]
fn no_command_of_ours_executes_what_an_agent_left_in_git() {
    nothing_left_in_git_is_executed(&Scene::new());
}

pub(super) fn nothing_left_in_git_is_executed(scene: &Scene) {
    let canary = tempfile::tempdir().unwrap();
    fs::set_permissions(canary.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let fallen = || fs::read_dir(canary.path()).unwrap().count();
    let traps = traps(&canary.path().display().to_string());
    let image = scene.tools_image();

    let laid = Ended::of(&mut scene.run_argv(&image, &[], &["bash", "-c", &traps]));

    assert_eq!(laid.code, 0, "{}{}", laid.stdout, laid.stderr);
    assert!(laid.stdout.contains("laid"), "{}", laid.stdout);
    let id = scene.only_run()["run_id"].as_str().unwrap().to_owned();
    let report = crate::scene::report(&scene.folder());
    assert!(report["changes"]["files"].as_u64() > Some(3), "{report}");
    assert_eq!(fallen(), 0, "after the run");
    let told = report["warnings"].to_string();
    for obeyed in [".git/config (changed)", ".gitattributes (new)"] {
        assert!(told.contains(obeyed), "{told}");
    }
    let file = scene.prompt.display().to_string();
    for arguments in [
        &["inspect", &id][..],
        &["logs", &id],
        &["explain", &file],
        &["config", "show", &file],
        &["config", "validate", &file],
        &["doctor", &file],
        &["retry", &id],
        &["recover"],
        &["prune"],
        &["rm", &id],
    ] {
        // How some of them end is not what this is about: the project is a ruin.
        let ended = Ended::of(&mut scene.dark_factory(arguments));
        assert_eq!(
            fallen(),
            0,
            "{arguments:?}: {}{}",
            ended.stdout,
            ended.stderr
        );
    }
    let next = Ended::of(&mut scene.run("append README.md more"));
    assert_eq!(next.code, 0, "{}{}", next.stdout, next.stderr);
    assert_eq!(fallen(), 0, "after the next run");

    // The traps are good ones.
    let mut careless = Command::new("git");
    careless.args(["-c", "safe.directory=*", "status"]);
    Ended::of(careless.current_dir(scene.project.path()));
    assert_eq!(fallen(), 1);
}
