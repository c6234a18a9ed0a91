//! The image of the real Claude Code, without dark-factory: what fails here is the image or the model server.

use std::process::Command;

use integration_tests::{MockModel, Project, claude_image};

#[test]
fn claude_code_works_on_a_project_in_a_hardened_container() {
    let model = MockModel::start("report");
    let project = Project::new();

    let output = Command::new("docker")
        .args([
            "run",
            "--rm",
            "--user",
            "1000:1000",
            "--read-only",
            "--cap-drop",
            "ALL",
        ])
        .args([
            "--security-opt",
            "no-new-privileges",
            "--memory",
            "2g",
            "--memory-swap",
            "2g",
            "--pids-limit",
            "512",
        ])
        .args([
            "--tmpfs",
            "/tmp:uid=1000,gid=1000",
            "--tmpfs",
            "/home/agent:uid=1000,gid=1000",
        ])
        .args([
            "--add-host",
            "host.docker.internal:host-gateway",
            "--workdir",
            "/workspace",
        ])
        .args([
            "--volume",
            &format!("{}:/workspace", project.path().display()),
        ])
        .args([
            "--env",
            "HOME=/home/agent",
            "--env",
            "ANTHROPIC_API_KEY=test",
            "--env",
            "CLAUDE_CODE_MAX_RETRIES=1",
        ])
        .args([
            "--env",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1",
            "--env",
            "DISABLE_AUTOUPDATER=1",
        ])
        .args([
            "--env",
            &format!("ANTHROPIC_BASE_URL={}", model.base_url()),
            &claude_image(),
        ])
        .args([
            "claude",
            "-p",
            "Write hello.txt",
            "--output-format",
            "stream-json",
            "--verbose",
        ])
        .arg("--dangerously-skip-permissions")
        .output()
        .unwrap();

    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    assert_eq!(
        project.read("hello.txt"),
        "Hello, world!\nline 2 (edited)\n"
    );
    assert_eq!(model.requests().len(), 6);
}
