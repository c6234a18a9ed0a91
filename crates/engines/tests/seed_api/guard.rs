//! A prompt whose network is a list of hosts, by the library alone.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use dark_factory_egress::{GuardProcess, GuardProgram};
use dark_factory_engines::docker::seed::DockerExecutorBuilder;
use dark_factory_executor::execute::Executor as _;
use dark_factory_executor::host::HostView;
use dark_factory_executor::keys::KeySources;
use dark_factory_executor::settings::{Settings, Sourced};
use dark_factory_types::{NetworkMode, Outcome, OutcomeKind};
use tokio_util::sync::CancellationToken;

use crate::rig::{Rig, settings};

/// A server of this machine that counts its visitors.
struct Decoy {
    port: u16,
    visits: Arc<AtomicUsize>,
}

impl Decoy {
    fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let visits = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&visits);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let answer =
                    b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n";
                // A visitor that leaves early has been counted.
                let _read = stream.read(&mut [0; 4096]);
                let _written = stream.write_all(answer);
            }
        });
        Self { port, visits }
    }

    fn visits(&self) -> usize {
        self.visits.load(Ordering::SeqCst)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test is told by its environment what it works with"
)]
fn named(variable: &str) -> Option<String> {
    std::env::var(variable).ok()
}

/// Returns the command that is the guard; without the name of one, that beside the folder of the tests.
fn dark_factory() -> PathBuf {
    let beside = || {
        let test = std::env::current_exe().unwrap();
        test.ancestors().nth(2).unwrap().join("dark-factory")
    };
    named("DARK_FACTORY_TEST_BIN").map_or_else(beside, PathBuf::from)
}

/// Asks the proxy in the container for these two, in bash, which the image has.
fn asking(rig: &Rig, allowed: &Decoy, other: &Decoy) -> DockerExecutorBuilder {
    let ask = r#"ask() { exec 3<>/dev/tcp/127.0.0.1/3128 && printf "GET http://127.0.0.1:$1/ HTTP/1.1\r\nConnection: close\r\n\r\n" >&3 && head -1 <&3; exec 3>&-; }"#;
    let script = format!("{ask}; ask {}; ask {}", allowed.port, other.port);
    let rule = format!("127.0.0.1:{}", allowed.port).parse().unwrap();
    rig.builder()
        .container_image(named("DARK_FACTORY_TEST_CLAUDE_IMAGE").unwrap())
        .settings(Settings {
            network: Some(Sourced::flag("network", NetworkMode::Allow(vec![rule]))),
            ..settings(&["bash", "-c", &script])
        })
}

async fn execute(rig: &Rig, builder: DockerExecutorBuilder) -> Outcome {
    let cancel = CancellationToken::new();
    let executor = builder.build().unwrap();
    executor
        .execute("Ask.", &rig.log("ask"), &rig.name("ask"), &cancel)
        .await
        .unwrap()
}

#[tokio::test]
async fn with_a_guard_a_prompt_reaches_what_is_on_its_list_and_nothing_else() {
    let rig = Rig::new();
    let (allowed, other) = (Decoy::open(), Decoy::open());
    let program = GuardProgram::DarkFactory(dark_factory());
    let host = HostView {
        cwd: "/".into(),
        ..HostView::default()
    };
    let guard = GuardProcess::new(rig.lab.state.path(), program, KeySources::default(), host);

    let outcome = execute(&rig, asking(&rig, &allowed, &other).guard(Arc::new(guard))).await;

    assert_eq!(outcome.kind, OutcomeKind::Succeeded, "{}", outcome.cause);
    let answers: Vec<String> = rig
        .log_texts("ask")
        .0
        .lines()
        .map(|line| line.trim().to_owned())
        .collect();
    assert_eq!(answers, ["HTTP/1.1 200 OK", "HTTP/1.1 403 Forbidden"]);
    assert_eq!((allowed.visits(), other.visits()), (1, 0));
    let report = rig.attempts().await.pop().unwrap().report.unwrap();
    let egress = report.egress.unwrap();
    assert_eq!(egress.denied[0].target, format!("127.0.0.1:{}", other.port));
}

#[tokio::test]
async fn without_a_guard_it_is_not_started_and_says_what_is_missing() {
    let rig = Rig::new();
    let (allowed, other) = (Decoy::open(), Decoy::open());

    let outcome = execute(&rig, asking(&rig, &allowed, &other)).await;

    assert_eq!(outcome.kind, OutcomeKind::StartFailed, "{}", outcome.cause);
    assert!(
        outcome.cause.contains("was given no guard"),
        "{}",
        outcome.cause
    );
    assert_eq!(allowed.visits(), 0);
}
