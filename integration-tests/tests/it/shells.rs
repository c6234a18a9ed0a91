//! Completion in a real shell, and the manual pages.
//!
//! Owns: what bash offers for the words typed so far.
//! Reads: the script that `completion` prints.
//! Never: needs another shell than bash.

use std::fs;
use std::process::Command;

use integration_tests::dark_factory_bin;
use tempfile::TempDir;

use crate::support::{Ended, Workshop};

/// Returns what bash offers for the last of the words.
fn offered(workshop: &Workshop, words: &[&str]) -> Vec<String> {
    let script = Ended::of(&mut workshop.command(&["completion", "bash"])).stdout;
    let typed = format!(
        "{script}\nCOMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9; COMP_LINE=\"$*\"; COMP_POINT=${{#COMP_LINE}}\n\
         _clap_complete_dark_factory dark-factory \"${{COMP_WORDS[COMP_CWORD]}}\" \"\"\n\
         printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    let mut shell = Command::new("bash");
    shell
        .args(["--norc", "-c", &typed, "bash", "dark-factory"])
        .args(words);
    let own = workshop.command(&[]);
    for (name, value) in own.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let ended = Ended::of(shell.current_dir(workshop.project.path()));
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    ended.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_flags_values_files_and_runs() {
    let workshop = Workshop::new();
    workshop.project.write("prompts/fix-it.md", "Do it.\n");
    let before = offered(&workshop, &["logs", ""]);
    let nothing_made = !workshop.installation.state_dir().exists();
    let ended = Ended::of(&mut workshop.script(&["--json"], "exit 0")).one();
    let run = ended["run_id"].as_str().unwrap().to_owned();

    let all = offered(&workshop, &["logs", ""]);
    let begun = offered(&workshop, &["logs", &run[..3]]);
    let open = offered(&workshop, &["stop", ""]);
    let state_dir = workshop.installation.state_dir();
    let elsewhere = offered(
        &workshop,
        &["--state-dir", "/no/such", "inspect", &run[..1]],
    );
    let named = offered(
        &workshop,
        &[
            "--state-dir",
            state_dir.to_str().unwrap(),
            "wait",
            &run[..1],
        ],
    );

    assert!(!before.contains(&run) && nothing_made, "{before:?}");
    assert!(
        all.contains(&run) && begun == [run.clone()],
        "{all:?} {begun:?}"
    );
    assert!(!open.contains(&run), "{open:?}");
    assert!(
        !elsewhere.contains(&run) && named.contains(&run),
        "{elsewhere:?} {named:?}"
    );
    assert_eq!(offered(&workshop, &["comp"]), ["completion"]);
    assert_eq!(offered(&workshop, &["daemon", "rel"]), ["reload"]);
    assert_eq!(
        offered(&workshop, &["run", "--on-interrupt", "d"]),
        ["detach"]
    );
    assert_eq!(offered(&workshop, &["run", "--network", "o"]), ["open"]);
    assert_eq!(offered(&workshop, &["run", "--agent", "cod"]), ["codex"]);
    workshop
        .project
        .write("dark-factory.toml", "[profile.offline]\n");
    assert_eq!(offered(&workshop, &["run", "--profile", "o"]), ["offline"]);
    assert!(offered(&workshop, &["run", "--mem"]).contains(&"--memory".to_owned()));
    assert_eq!(
        offered(&workshop, &["run", "prompts/f"]),
        ["prompts/fix-it.md"]
    );
}

#[test]
fn each_shell_has_a_script_and_an_unknown_one_is_refused() {
    let workshop = Workshop::new();

    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ended = Ended::of(&mut workshop.command(&["completion", shell]));
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{shell}");
        let program = dark_factory_bin().display().to_string();
        assert!(ended.stdout.contains(&program), "{}", ended.stdout);
    }
    let ended = Ended::of(&mut workshop.command(&["completion", "tcsh"]));
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("bash, zsh, fish"), "{}", ended.stderr);
}

#[test]
fn each_command_has_a_manual_page_that_is_well_formed() {
    let workshop = Workshop::new();
    let folder = TempDir::new().unwrap();
    let dir = folder.path().join("man1");

    let main = Ended::of(&mut workshop.command(&["man"]));
    let all = Ended::of(&mut workshop.command(&["man", dir.to_str().unwrap()]));

    assert_eq!(
        (main.code, all.code),
        (0, 0),
        "{}{}",
        main.stderr,
        all.stderr
    );
    let page = |name: &str| fs::read_to_string(dir.join(format!("{name}.1"))).unwrap();
    assert!(main.stdout.contains(".SH SYNOPSIS"), "{}", main.stdout);
    let help = Ended::of(&mut workshop.command(&["--help"])).stdout;
    let commands = help.split_once("Commands:\n").unwrap().1;
    let commands = commands.split_once("\n\n").unwrap().0;
    let commands = commands.lines().filter_map(|line| {
        let name = line.strip_prefix("  ")?.split(' ').next()?;
        (!name.is_empty() && name != "help").then(|| format!("dark-factory-{name}"))
    });
    let mut names: Vec<String> = commands.collect();
    names.extend(["dark-factory", "dark-factory-daemon-start"].map(str::to_owned));
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let page = page(&name);
        assert!(
            page.contains(".TH ") && page.contains(".SH NAME\n"),
            "{name}: {page}"
        );
        assert!(page.contains(".SH SYNOPSIS\n"), "{name}: {page}");
        let macros = page.lines().filter(|line| line.starts_with('.'));
        for line in macros {
            let name = line.split(' ').next().unwrap();
            let known = [
                ".TH", ".IP", ".LP", ".SH", ".SS", ".TP", ".RS", ".RE", ".br", ".ie", ".el", ".B",
                ".I", ".PP", ".nf", ".fi", ".sp",
            ];
            assert!(known.contains(&name), "{line}");
        }
    }
    let refused = Ended::of(&mut workshop.command(&["man", "/dev/null/x"]));
    assert_eq!(refused.code, 5);
    assert!(
        refused.stderr.contains("name a folder"),
        "{}",
        refused.stderr
    );
}
