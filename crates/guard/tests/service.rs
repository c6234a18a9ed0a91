//! The guard as a service: its supervisors, its ways, its end.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed expectation is a failed test"
)]

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dark_factory_guard::{
    Answer, Ask, CONTROL_SOCKET, Certificates, Client, EGRESS_SOCKET, Served, Service,
    SystemResolver, Upstreams, Way,
};
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

struct Lab {
    state: TempDir,
    stop: CancellationToken,
    guards: JoinSet<Served>,
}

impl Lab {
    fn new() -> Self {
        Self {
            state: TempDir::new().unwrap(),
            stop: CancellationToken::new(),
            guards: JoinSet::new(),
        }
    }

    fn start(&mut self, patience: Duration) {
        let service = Service {
            state_dir: self.state.path().to_owned(),
            resolver: Arc::new(SystemResolver),
            now: || Timestamp::UNIX_EPOCH,
            patience,
            upstreams: Upstreams::default(),
        };
        let stop = self.stop.clone();
        self.guards
            .spawn(async move { service.serve(stop).await.unwrap() });
    }

    async fn client(&self) -> Client {
        for _ in 0..1000 {
            if let Ok(client) = Client::connect(self.state.path()).await {
                return client;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("no guard listens");
    }

    fn way(&self, attempt: &str, rules: &[&str]) -> Way {
        let folder = self.state.path().join(attempt);
        fs::create_dir_all(&folder).unwrap();
        Way {
            attempt: attempt.parse().unwrap(),
            journal: self.state.path().join(format!("{attempt}.jsonl")),
            folder,
            rules: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
            brokers: Vec::new(),
            budget: dark_factory_types::Budget::default(),
            certificates: Certificates::default(),
        }
    }
}

async fn ask_proxy(socket: PathBuf, request: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

const REFUSED: &str = "CONNECT evil.example:443 HTTP/1.1\r\nConnection: close\r\n\r\n";
const LONG: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn each_run_has_its_own_way_with_its_own_rules_and_journal() {
    let mut lab = Lab::new();
    lab.start(LONG);
    let mut client = lab.client().await;
    let ways = [
        lab.way("k3v9x2m7qa1b-1", &["a.example"]),
        lab.way("k3v9x2m7qa1c-1", &["b.example"]),
    ];
    for way in &ways {
        assert_eq!(
            client.ask(&Ask::Open(way.clone())).await.unwrap(),
            Answer::Opened
        );
    }

    for (way, allowed) in ways.iter().zip(["(a.example)", "(b.example)"]) {
        let answer = ask_proxy(way.folder.join(EGRESS_SOCKET), REFUSED)
            .await
            .unwrap();
        assert!(answer.contains(allowed), "{answer}");
        let journal = fs::read_to_string(&way.journal).unwrap();
        assert!(
            journal.contains(r#""target":"evil.example:443""#),
            "{journal}"
        );
        assert_eq!(journal.lines().count(), 1);
    }
}

#[tokio::test]
async fn a_way_outlives_its_supervisor_and_is_found_by_the_next_one() {
    let mut lab = Lab::new();
    lab.start(LONG);
    let way = lab.way("k3v9x2m7qa1b-1", &["a.example"]);
    let mut first = lab.client().await;
    first.ask(&Ask::Open(way.clone())).await.unwrap();
    drop(first);

    let mut second = lab.client().await;
    let status = second.ask(&Ask::Status).await.unwrap();
    let again = second.ask(&Ask::Open(way.clone())).await.unwrap();
    let answer = ask_proxy(way.folder.join(EGRESS_SOCKET), REFUSED)
        .await
        .unwrap();

    assert!(matches!(&status, Answer::Status { attempts, .. } if *attempts == [way.attempt]));
    assert_eq!(again, Answer::Opened);
    assert!(answer.starts_with("HTTP/1.1 403 "));
}

#[tokio::test]
async fn a_closed_way_leads_nowhere_and_other_rules_replace_the_old_ones() {
    let mut lab = Lab::new();
    lab.start(LONG);
    let mut client = lab.client().await;
    let socket = lab.way("k3v9x2m7qa1b-1", &[]).folder.join(EGRESS_SOCKET);
    for rules in [["a.example"], ["b.example"]] {
        let way = lab.way("k3v9x2m7qa1b-1", &rules);
        client.ask(&Ask::Open(way)).await.unwrap();
    }
    let replaced = ask_proxy(socket.clone(), REFUSED).await.unwrap();

    let attempt = "k3v9x2m7qa1b-1".parse().unwrap();
    let closed = client.ask(&Ask::Close { attempt }).await.unwrap();

    assert!(replaced.contains("(b.example)"), "{replaced}");
    assert_eq!(closed, Answer::Closed);
    assert!(ask_proxy(socket, REFUSED).await.is_err());
}

#[tokio::test]
async fn a_second_guard_leaves_the_work_to_the_first() {
    let mut lab = Lab::new();
    lab.start(LONG);
    drop(lab.client().await);

    lab.start(LONG);

    assert_eq!(
        lab.guards.join_next().await.unwrap().unwrap(),
        Served::AnotherLives
    );
    lab.client().await;
}

#[tokio::test]
async fn a_supervisor_hears_of_the_guards_end_and_the_next_guard_serves_the_same_socket() {
    let mut lab = Lab::new();
    lab.start(LONG);
    let way = lab.way("k3v9x2m7qa1b-1", &["a.example"]);
    let mut client = lab.client().await;
    client.ask(&Ask::Open(way.clone())).await.unwrap();

    // As a kill would, it leaves its sockets behind.
    lab.guards.abort_all();
    assert_eq!(client.told().await, None);
    let meanwhile = ask_proxy(way.folder.join(EGRESS_SOCKET), REFUSED).await;
    while lab.guards.join_next().await.is_some() {}
    lab.start(LONG);
    let mut next = lab.client().await;
    next.ask(&Ask::Open(way.clone())).await.unwrap();
    let answer = ask_proxy(way.folder.join(EGRESS_SOCKET), REFUSED)
        .await
        .unwrap();

    assert!(meanwhile.is_err());
    assert!(answer.starts_with("HTTP/1.1 403 "));
}

#[tokio::test]
async fn a_guard_without_work_ends_and_so_does_one_whose_runs_folders_are_gone() {
    let mut lab = Lab::new();
    lab.start(Duration::from_millis(50));
    let way = lab.way("k3v9x2m7qa1b-1", &["a.example"]);
    let mut client = lab.client().await;
    client.ask(&Ask::Open(way.clone())).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let status = client.ask(&Ask::Status).await;

    fs::remove_dir_all(&way.folder).unwrap();
    let served = lab.guards.join_next().await.unwrap().unwrap();

    assert!(status.is_ok(), "it stays while it has a way to keep");
    assert_eq!(served, Served::Idle);
    assert!(!lab.state.path().join(CONTROL_SOCKET).exists());
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_the_connection_goes_on() {
    let mut lab = Lab::new();
    lab.start(LONG);
    lab.client().await;
    let mut stream = UnixStream::connect(lab.state.path().join(CONTROL_SOCKET))
        .await
        .unwrap();

    stream
        .write_all(b"{\"ask\":\"dance\"}\nnonsense\n{\"ask\":\"status\"}\n")
        .await
        .unwrap();
    let mut answers = String::new();
    while answers.lines().count() < 3 {
        let mut buffer = [0; 4096];
        let length = stream.read(&mut buffer).await.unwrap();
        answers.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
    }

    let lines: Vec<&str> = answers.lines().collect();
    assert!(
        lines[0].contains("refused") && lines[1].contains("refused"),
        "{answers}"
    );
    assert!(lines[2].contains(r#""answer":"status""#), "{answers}");
}
