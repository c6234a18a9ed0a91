//! A stream is recognised by its first lines.

use std::fs;
use std::path::Path;

use dark_factory_agents::{AGENT_NAMES, detect};

fn name_of(head: &[u8]) -> Option<&'static str> {
    detect(head).map(dark_factory_agents::Agent::name)
}

#[test]
fn every_recording_is_recognised_by_each_of_its_lines_or_by_none() {
    for name in AGENT_NAMES {
        let folder = format!("tests/data/streams/{name}");
        let Ok(files) = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)) else {
            continue;
        };
        for file in files {
            let path = file.unwrap().path();
            let bytes = fs::read(&path).unwrap();

            let found = name_of(&bytes);

            assert_eq!(
                found,
                (!bytes.is_empty()).then_some(name),
                "{}",
                path.display()
            );
            for line in bytes.split(|byte| *byte == b'\n') {
                let line = name_of(line);
                assert!(line.is_none_or(|line| line == name), "{}", path.display());
            }
        }
    }
}

#[test]
fn what_stands_before_the_first_line_does_not_matter_and_a_cut_line_says_nothing() {
    let init = r#"{"type":"init","session_id":"s","model":"m"}"#;

    assert_eq!(
        name_of(format!("warning: x\r\n\n{{}}\n{init}\r\n").as_bytes()),
        Some("gemini")
    );
    assert_eq!(name_of(&init.as_bytes()[..20]), None);
    assert_eq!(name_of(b"\xff\n{\"type\":\"turn.started\"}"), Some("codex"));
}

#[test]
fn the_first_line_of_a_known_shape_decides() {
    let codex = r#"{"type":"thread.started","thread_id":"t"}"#;
    let claude = r#"{"type":"result","subtype":"success","is_error":false}"#;

    assert_eq!(
        name_of(format!("{codex}\n{claude}").as_bytes()),
        Some("codex")
    );
    assert_eq!(
        name_of(format!("{claude}\n{codex}").as_bytes()),
        Some("claude")
    );
}

#[test]
fn what_any_program_may_print_is_no_agents() {
    for line in [
        "",
        "plain text",
        "{}",
        r#"{"message":"started"}"#,
        r#"{"level":"info","msg":"started","time":"t"}"#,
        r#"{"type":"error","message":"x"}"#,
        r#"{"type":"message","role":"user","content":"x"}"#,
        r#"{"type":"message","message":"x"}"#,
        r#"{"type":"result","status":"success"}"#,
        r#"{"type":"init"}"#,
        r#"{"type":"system","message":"x"}"#,
        r#"{"type":"assistant","message":"x"}"#,
        r#"{"reason":"compiler-message","message":{}}"#,
        r#"[{"type":"turn.started"}]"#,
    ] {
        assert_eq!(name_of(line.as_bytes()), None, "{line}");
    }
}
