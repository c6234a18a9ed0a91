use dark_factory_types::{
    ByteSize, ErrorClass, ExitSource, ImageRecord, REPORT_VERSION, RunId, Transport, Verification,
};

use super::*;

fn dir() -> AttemptDir {
    let attempt = RunId::from_random_bits(0).attempt(1);
    AttemptDir::new(
        attempt,
        "/state/runs/000000000000-1".into(),
        "/state/init".into(),
    )
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

fn succeeded() -> Report {
    Report {
        version: REPORT_VERSION,
        attempt_id: dir().attempt(),
        file: "/home/me/p/042-fix.md".to_owned(),
        engine: "docker".to_owned(),
        agent: "claude".to_owned(),
        container: "p-042-fix-000000000000-1".to_owned(),
        image: Some(ImageRecord {
            reference: "claude:1".to_owned(),
            digest: "sha256:abc".to_owned(),
        }),
        outcome: OutcomeKind::Succeeded,
        cause: "the agent reports success".to_owned(),
        exit: Some(Exit {
            status: ExitStatus::Code(0),
            oom: Oom::No,
            source: ExitSource::Record,
        }),
        verdict: Verdict::Report {
            report: CompletionReport {
                status: ReportStatus::Success,
                summary: "Fixed it.".to_owned(),
                blockers: Vec::new(),
                verification: Some(Verification {
                    command: "make precommit".to_owned(),
                    exit_code: 0,
                }),
                unknown: [("tests".to_owned(), "[1,2]".to_owned())].into(),
            },
        },
        stop_reason: None,
        log: LogState::Complete,
        transport: Transport::Spool,
        unsealed: false,
        root_owner: false,
        limits: LimitsRecord {
            memory: Some(ByteSize(2 << 30)),
            pids: Some(512),
            timeout_ms: Some(90_000),
            ..LimitsRecord::default()
        },
        usage: Usage {
            input_tokens: 10,
            output_tokens: 20,
            turns: 3,
            cost_usd: Some(0.25),
            ..Usage::default()
        },
        model: Some("claude-x".to_owned()),
        session_id: Some("s-1".to_owned()),
        peak_memory: Some(ByteSize(100 << 20)),
        last_tool: Some("Bash".to_owned()),
        oom_kills: Some(0),
        oom_victim: None,
        cpu_ms: Some(1500),
        stdout_bytes: 1234,
        stderr_bytes: 0,
        changes: Some(Changes {
            files: Some(3),
            insertions: Some(21),
            deletions: Some(4),
            patch: Some("/state/runs/000000000000-1/changes.patch".to_owned()),
            note: None,
        }),
        changed_files: vec![
            ChangedFile {
                path: "src/main.rs".to_owned(),
                renamed_from: Some("main.rs".to_owned()),
                insertions: Some(21),
                deletions: Some(4),
            },
            ChangedFile {
                path: "logo.png".to_owned(),
                renamed_from: None,
                insertions: None,
                deletions: None,
            },
        ],
        egress: None,
        warnings: Vec::new(),
        created_at: at(0),
        started_at: Some(at(1)),
        finished_at: at(62),
    }
}

#[test]
fn a_success_is_told_whole() {
    insta::assert_snapshot!(report_md(&succeeded(), &dir()));
}

#[test]
fn a_failure_without_a_result_says_why_and_how_to_go_on() {
    let report = Report {
        outcome: OutcomeKind::TimedOut,
        cause: "the time limit of 90 s passed".to_owned(),
        exit: Some(Exit {
            status: ExitStatus::Signal(15),
            oom: Oom::No,
            source: ExitSource::Record,
        }),
        verdict: Verdict::Silent,
        stop_reason: Some(StopReason::Deadline {
            limit: std::time::Duration::from_secs(90),
        }),
        log: LogState::Incomplete,
        changes: Some(Changes {
            note: Some("not a git project".to_owned()),
            ..Changes::default()
        }),
        changed_files: Vec::new(),
        warnings: vec!["the log is not whole".to_owned()],
        ..succeeded()
    };

    insta::assert_snapshot!(report_md(&report, &dir()));
}

#[test]
fn one_that_never_started_has_no_times_and_no_numbers() {
    let report = Report {
        outcome: OutcomeKind::StartFailed,
        cause: "image claude:1 is not there".to_owned(),
        image: None,
        exit: Some(Exit {
            status: ExitStatus::NeverStarted,
            oom: Oom::No,
            source: ExitSource::Engine,
        }),
        verdict: Verdict::Silent,
        limits: LimitsRecord::default(),
        usage: Usage::default(),
        model: None,
        session_id: None,
        peak_memory: None,
        last_tool: None,
        cpu_ms: None,
        oom_kills: None,
        oom_victim: None,
        stdout_bytes: 0,
        changes: None,
        changed_files: Vec::new(),
        started_at: None,
        ..succeeded()
    };

    insta::assert_snapshot!(report_md(&report, &dir()));
}

#[test]
fn memory_that_ran_out_is_named() {
    let report = Report {
        outcome: OutcomeKind::OutOfMemory,
        cause: "the kernel killed the agent".to_owned(),
        exit: Some(Exit {
            status: ExitStatus::Signal(9),
            oom: Oom::Certain,
            source: ExitSource::Record,
        }),
        oom_kills: Some(2),
        oom_victim: Some("python3".to_owned()),
        ..succeeded()
    };

    let text = report_md(&report, &dir());

    assert!(
        text.contains("- exit: SIGKILL, for lack of memory\n"),
        "{text}"
    );
    assert!(
        text.contains("- processes killed for lack of memory: 2 (`python3`)\n"),
        "{text}"
    );
}

#[test]
fn what_an_agent_wrote_formats_nothing_and_links_nowhere_and_drives_no_terminal() {
    let evil = "a\n# heading\n| x | <img src=x onerror=alert(1)> [l](javascript:x) `c` **b** http://e.vil www.e.vil @me \u{1b}[31m\u{202e}";
    let mut report = Report {
        cause: evil.to_owned(),
        model: Some(evil.to_owned()),
        session_id: Some(evil.to_owned()),
        last_tool: Some(evil.to_owned()),
        verdict: Verdict::Error {
            class: ErrorClass::Internal,
            message: evil.to_owned(),
        },
        warnings: vec![evil.to_owned()],
        ..succeeded()
    };
    evil.clone_into(&mut report.changed_files[0].path);

    let text = report_md(&report, &dir());

    let shown = plain(evil);
    insta::assert_snapshot!(shown, @r"a \# heading \| x \| &lt;img src=x onerror=alert(1)&gt; \[l\](javascript:x) \`c\` \*\*b\*\* http:\//e.vil www\.e.vil \@me ␛\[31m&lt;U+202E&gt;");
    assert_eq!(text.matches(&shown).count(), 7, "{text}");
    let lines = text.lines();
    assert!(!text.contains('\u{1b}') && lines.clone().all(|line| line != "# heading"));
    assert_eq!(lines.filter(|line| line.starts_with("# ")).count(), 1);
}

#[test]
fn nothing_begins_a_list_or_a_heading_by_standing_at_the_beginning_of_a_line() {
    for (text, shown) in [
        ("- a", "\\- a"),
        ("===", "\\==="),
        ("12. a", "12\\. a"),
        ("1) a", "1\\) a"),
        ("12 a", "12 a"),
    ] {
        assert_eq!(plain(text), shown);
    }
}

#[test]
fn our_price_is_told_where_it_is_not_the_agents() {
    let usage = |cost_usd, priced_usd| {
        let report = Report {
            usage: Usage {
                input_tokens: 1,
                cost_usd,
                priced_usd,
                ..Usage::default()
            },
            ..succeeded()
        };
        let text = report_md(&report, &dir());
        let line = text.lines().find(|line| line.starts_with("- usage:"));
        line.unwrap().to_owned()
    };
    let listed = format!("by list prices of {PRICES_DATE}");

    assert_eq!(
        usage(Some(0.25), Some(0.25)),
        "- usage: 1 tokens in, $0.2500 by the agent's own estimate"
    );
    assert_eq!(
        usage(Some(0.25), Some(0.5)),
        format!("- usage: 1 tokens in, $0.2500 by the agent's own estimate, $0.5000 {listed}")
    );
    assert_eq!(
        usage(None, Some(0.5)),
        format!("- usage: 1 tokens in, $0.5000 {listed}")
    );
}
