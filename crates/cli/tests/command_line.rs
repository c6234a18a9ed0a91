//! The binary itself, as far as it needs no engine.

#![expect(
    clippy::expect_used,
    reason = "a test that cannot start the binary has failed"
)]

use std::process::{Command, Output};

fn dark_factory(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dark-factory"));
    command
        .args(arguments)
        .env("DARK_FACTORY_STATE_DIR", "/nonexistent/state");
    command.output().expect("the binary can be started")
}

#[test]
fn help_lists_every_exit_code() {
    let output = dark_factory(&["--help"]);

    let help = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success());
    for (code, meaning) in dark_factory::types::exit_code::MEANINGS {
        assert!(
            help.lines()
                .any(|line| line.trim() == format!("{code}  {meaning}")),
            "{code} in {help}"
        );
    }
}

#[test]
fn an_unknown_flag_is_bad_usage_and_names_the_flag() {
    let output = dark_factory(&["run", "--memroy", "1g", "a.md"]);

    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        error.contains("--memroy") && error.contains("--memory"),
        "{error}"
    );
}

#[test]
fn the_same_facade_is_there_for_programs() {
    let prompt =
        dark_factory::executor::prompt::Prompt::parse("a.md", b"Do it.\n").expect("a prompt");

    assert_eq!(prompt.body, "Do it.\n");
    assert!(!dark_factory::HELPER.bytes().is_empty());
}
