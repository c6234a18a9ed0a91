//! A prompt in, an outcome out.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use dark_factory_engines::docker::seed::{BuildError, DockerExecutor};
use dark_factory_executor::engine::EngineError;
use dark_factory_executor::error::ExecutorError;
use dark_factory_executor::execute::Executor;
use dark_factory_executor::host::HostView;
use dark_factory_executor::settings::ExtraMount;
use dark_factory_executor::spec::{Access, Profile};
use dark_factory_types::OutcomeKind;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::lab::{docker, inspect, wait_for_file};
use crate::rig::{PROJECT_LABEL, Rig, dead_endpoint, prompt_of, settings, unstamped};

const STREAM: &str = r#"print '{"type":"system","subtype":"init","session_id":"0123456789","model":"m","cwd":"/workspace","tools":[]}'
print '{"type":"assistant","message":{"content":[{"type":"text","text":"hello"}]}}'
print no json
stderr a complaint"#;

#[tokio::test]
async fn a_prompt_comes_to_its_outcome_and_both_logs_hold_what_was_said() {
    let rig = Rig::new();

    let outcome = rig.execute("042-fix", STREAM).await;

    assert_eq!(outcome.kind, OutcomeKind::Succeeded, "{}", outcome.cause);
    let (raw, log) = rig.log_texts("042-fix");
    let said: Vec<&str> = STREAM
        .lines()
        .filter_map(|line| line.strip_prefix("print "))
        .collect();
    let said: Vec<&str> = said.iter().map(|word| word.trim_matches('\'')).collect();
    assert_eq!(raw.lines().collect::<Vec<_>>(), said);
    // The two streams are two pipes: where the line of the other one stands is not sure.
    let mut lines: Vec<String> = unstamped(&log).lines().map(str::to_owned).collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "[init] session=01234567 model=m cwd=/workspace tools=0",
            "a complaint",
            "hello",
            "no json"
        ]
    );
    assert!(rig.containers().is_empty());
}

#[tokio::test]
async fn a_bad_exit_is_an_outcome_and_becomes_the_seeds_error() {
    let rig = Rig::new();

    let outcome = rig.execute("a", "exit 3").await;

    assert_eq!(outcome.kind, OutcomeKind::Failed);
    let error = outcome.into_result().unwrap_err().to_string();
    assert!(error.contains("failed") && error.contains('3'), "{error}");
}

#[tokio::test]
async fn the_container_has_the_callers_name_and_the_seeds_labels() {
    let rig = Rig::new();
    rig.abandon("042-fix", "write here x; wait-file go").await;

    let format = r#"{{index .Config.Labels "dark-factory.project"}} {{index .Config.Labels "dark-factory.prompt"}}"#;
    let labels = inspect(&rig.name("042-fix"), format);

    assert_eq!(labels, format!("{} 042-fix", rig.unique));
    rig.executor
        .stop_and_remove_container(&rig.name("042-fix"))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_callers_token_stops_the_container() {
    let rig = Rig::new();
    let (log, name, cancel) = (rig.log("a"), rig.name("a"), CancellationToken::new());
    let prompt = prompt_of("on-term exit 0; print begun; write here x; wait-file go");
    let run = rig.executor.execute(&prompt, &log, &name, &cancel);

    let (outcome, ()) = tokio::join!(run, async {
        wait_for_file(&rig.project_file("here")).await;
        cancel.cancel();
    });

    let outcome = outcome.unwrap();
    assert_eq!(
        (outcome.kind, outcome.cause.as_str()),
        (OutcomeKind::Cancelled, "cancelled by the caller")
    );
    assert_eq!(rig.log_texts("a").0, "begun\n");
    assert!(rig.containers().is_empty());
}

#[tokio::test]
async fn a_prompt_that_is_cancelled_before_it_begins_makes_no_container() {
    let rig = Rig::new();
    let (log, name, cancel) = (rig.log("a"), rig.name("a"), CancellationToken::new());
    cancel.cancel();

    let outcome = rig
        .executor
        .execute(&prompt_of("write here x"), &log, &name, &cancel)
        .await
        .unwrap();

    assert_eq!(outcome.kind, OutcomeKind::Cancelled);
    assert!(!rig.project_file("here").exists());
}

#[tokio::test]
async fn the_time_limit_stops_the_container() {
    let rig = Rig::new();
    let executor = rig
        .builder()
        .max_prompt_duration(Duration::from_secs(1))
        .build()
        .unwrap();
    let (log, name, cancel) = (rig.log("a"), rig.name("a"), CancellationToken::new());
    let prompt = prompt_of("on-term exit 0; wait-file go");

    let outcome = executor
        .execute(&prompt, &log, &name, &cancel)
        .await
        .unwrap();

    assert_eq!(outcome.kind, OutcomeKind::TimedOut, "{}", outcome.cause);
}

#[tokio::test]
async fn a_name_that_somebody_else_has_is_an_outcome_and_its_holder_goes_on() {
    let rig = Rig::new();
    for (prompt, labels) in [("a", &[][..]), ("b", &["--label", PROJECT_LABEL])] {
        let name = rig.running(prompt, labels, "wait-file /workspace/go");
        let id = inspect(&name, "{{.Id}}");

        let outcome = rig.execute(prompt, "print hello").await;

        assert_eq!(outcome.kind, OutcomeKind::StartFailed);
        assert!(outcome.cause.contains(&name), "{}", outcome.cause);
        assert_eq!(
            inspect(&name, "{{.Id}} {{.State.Running}}"),
            format!("{id} true")
        );
    }
}

#[tokio::test]
async fn logs_are_truncated_and_their_folders_made() {
    let rig = Rig::new();
    let log = rig.logs.path().join("a/b/c/042");
    let cancel = CancellationToken::new();
    let run = async |name: &str, script: &str| {
        rig.executor
            .execute(&prompt_of(script), &log, &rig.name(name), &cancel)
            .await
            .unwrap()
    };

    run("a", "print first and long").await;
    run("b", "print 2nd").await;

    assert_eq!(
        fs::read_to_string(log.with_extension("jsonl")).unwrap(),
        "2nd\n"
    );
    assert_eq!(unstamped(&fs::read_to_string(&log).unwrap()), "2nd");
}

#[tokio::test]
async fn a_log_that_cannot_be_made_is_an_error_before_anything_is_created() {
    let rig = Rig::new();
    fs::write(rig.logs.path().join("file"), "").unwrap();
    fs::create_dir(rig.logs.path().join("x.jsonl")).unwrap();
    let raw = rig.logs.path().join("x.jsonl").display().to_string();
    let cancel = CancellationToken::new();

    for (log, text) in [
        ("file/a.log", "prepare log file: create log directory"),
        ("x.log", raw.as_str()),
    ] {
        let log = rig.logs.path().join(log);
        let result = rig
            .executor
            .execute("do it", &log, &rig.name("a"), &cancel)
            .await;

        assert!(
            matches!(result, Err(ExecutorError::LogFile(_))),
            "{result:?}"
        );
        assert!(result.unwrap_err().to_string().contains(text), "{text}");
    }
    assert!(rig.attempts().await.is_empty() && rig.containers().is_empty());
}

#[tokio::test]
async fn the_prompt_reaches_the_agent_byte_for_byte_even_if_it_is_empty() {
    let rig = Rig::new();
    let executor = rig
        .builder()
        .settings(settings(&["/bin/agent", "-e", "prompt"]))
        .build()
        .unwrap();
    let cancel = CancellationToken::new();

    for (index, prompt) in ["", "---\nimage: other\n---\n`$HOME` \"'\\\r\n\u{feff}\n"]
        .iter()
        .enumerate()
    {
        let name = format!("p{index}");
        let outcome = executor
            .execute(prompt, &rig.log(&name), &rig.name(&name), &cancel)
            .await
            .unwrap();

        assert_eq!(outcome.kind, OutcomeKind::Succeeded);
        assert_eq!(rig.log_texts(&name).0, *prompt);
    }
}

#[tokio::test]
async fn an_engine_that_does_not_answer_is_an_error_and_leaves_no_attempt() {
    let rig = Rig::new();
    let executor = rig.builder().endpoint(dead_endpoint()).build().unwrap();
    let cancel = CancellationToken::new();

    let result = executor
        .execute("do it", &rig.log("a"), &rig.name("a"), &cancel)
        .await;

    assert!(
        matches!(
            result,
            Err(ExecutorError::Engine(EngineError::Unreachable { .. }))
        ),
        "{result:?}"
    );
    assert!(rig.attempts().await.is_empty());
}

#[tokio::test]
async fn missing_credentials_are_the_seeds_error_under_its_profile_and_nothing_is_touched() {
    let rig = Rig::new();
    let cancel = CancellationToken::new();
    fs::write(rig.log("a"), "evidence").unwrap();
    let claude = |profile| {
        let settings = dark_factory_executor::settings::Settings {
            command: None,
            ..settings(&[])
        };
        rig.builder()
            .agent("claude")
            .settings(settings)
            .profile(profile)
            .home(rig.logs.path())
            .build()
            .unwrap()
    };

    for (profile, text) in [
        (Profile::Seed, "Claude OAuth token missing or expired in"),
        (
            Profile::Hardened,
            "claude would find no credentials in the container",
        ),
    ] {
        let result = claude(profile)
            .execute("do it", &rig.log("a"), &rig.name("a"), &cancel)
            .await;

        assert!(
            matches!(&result, Err(ExecutorError::Resolve(_))),
            "{result:?}"
        );
        assert!(result.unwrap_err().to_string().contains(text), "{text}");
    }
    assert_eq!(fs::read_to_string(rig.log("a")).unwrap(), "evidence");
    assert!(rig.attempts().await.is_empty() && rig.containers().is_empty());
}

#[tokio::test]
async fn the_seeds_container_has_its_credential_files_where_the_seed_has_them() {
    let rig = Rig::new();
    let home = TempDir::new().unwrap();
    fs::create_dir(home.path().join("claude")).unwrap();
    fs::write(home.path().join(".netrc"), "machine m").unwrap();
    fs::write(home.path().join("gitconfig"), "[user]").unwrap();
    let cache = ExtraMount {
        src: "~/claude".to_owned(),
        dst: "/cache".to_owned(),
        ..ExtraMount::default()
    };
    let executor = rig
        .builder()
        .profile(Profile::Seed)
        .home(home.path())
        .netrc_file("~/.netrc")
        .gitconfig_file(home.path().join("gitconfig").display().to_string())
        .claude_dir("~/claude")
        .claude_dir_access(Access::ReadOnly)
        .extra_mounts(vec![cache])
        .env(BTreeMap::from([("COLOUR".to_owned(), "blue".to_owned())]))
        .build()
        .unwrap();
    let script = "env COLOUR; env DARK_FACTORY_MANAGED; read /home/node/.netrc; read /home/node/.gitconfig-extra
        write /cache/x y; write /home/node/.claude/z y";
    let cancel = CancellationToken::new();

    let prompt = prompt_of(script);
    let outcome = executor
        .execute(&prompt, &rig.log("a"), &rig.name("a"), &cancel)
        .await
        .unwrap();

    assert_eq!(rig.log_texts("a").0, "blue\ntrue\nmachine m[user]");
    assert_eq!(
        outcome.kind,
        OutcomeKind::Failed,
        "the last write is refused: {}",
        outcome.cause
    );
    assert!(home.path().join("claude/x").exists() && !home.path().join("claude/z").exists());
}

#[test]
fn an_input_that_is_missing_or_for_the_seeds_container_only_is_named() {
    let rig = Rig::new();
    let host = HostView {
        cwd: "/".into(),
        ..HostView::default()
    };

    let nothing = DockerExecutor::builder().host(host).build().unwrap_err();
    let netrc = rig.builder().netrc_file("/n").build().unwrap_err();
    let gitconfig = rig.builder().gitconfig_file("/g").build().unwrap_err();

    assert!(matches!(
        nothing,
        BuildError::Missing { input: "state_dir" }
    ));
    assert!(matches!(
        netrc,
        BuildError::SeedOnly {
            input: "netrc_file"
        }
    ));
    let text = gitconfig.to_string();
    assert!(
        text.contains("Profile::seed()") && text.contains("extra_mounts"),
        "{text}"
    );
}

#[tokio::test]
async fn a_container_is_stopped_and_removed_and_its_attempt_ended() {
    let rig = Rig::new();
    rig.abandon("a", "on-term exit 0; write here x; wait-file go")
        .await;

    rig.executor
        .stop_and_remove_container(&rig.name("a"))
        .await
        .unwrap();

    assert!(rig.containers().is_empty());
    let report = rig.attempts().await.pop().unwrap().report.unwrap();
    assert_eq!(
        (report.outcome, report.cause.as_str()),
        (OutcomeKind::Cancelled, "cancelled by the caller")
    );
}

#[tokio::test]
async fn the_seeds_container_is_stopped_and_removed_and_a_strangers_is_not() {
    let rig = Rig::new();
    let seeds = rig.running(
        "a",
        &["--label", PROJECT_LABEL],
        "on-term exit 0; write /workspace/here x; wait-file /none",
    );
    let strangers = rig.running("b", &[], "wait-file /none");
    wait_for_file(&rig.project_file("here")).await;

    rig.executor
        .stop_and_remove_container(&seeds)
        .await
        .unwrap();
    let refused = rig.executor.stop_and_remove_container(&strangers).await;
    let absent = rig
        .executor
        .stop_and_remove_container(&rig.name("never"))
        .await;

    assert!(
        matches!(
            refused,
            Err(ExecutorError::Engine(EngineError::NotOurs { .. }))
        ),
        "{refused:?}"
    );
    absent.unwrap();
    assert_eq!(rig.containers(), std::slice::from_ref(&strangers));
    assert_eq!(
        docker(&["ps", "--quiet", "--filter", &format!("name={strangers}")])
            .lines()
            .count(),
        1
    );
}
