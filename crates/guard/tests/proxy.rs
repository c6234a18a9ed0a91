//! The proxy of a run on a real socket, with real servers behind it.

#![expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dark_factory_guard::{
    Addresses, EgressPolicy, Entry, Fate, Journal, Proxy, ProxyLimits, Resolve,
};
use dark_factory_types::HostName;
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Answers by name, one answer after the other; the last one stays.
#[derive(Debug, Default)]
struct Names(Mutex<BTreeMap<String, VecDeque<Vec<IpAddr>>>>);

impl Resolve for Names {
    fn resolve<'a>(&'a self, name: &'a HostName) -> Addresses<'a> {
        let mut names = self.0.lock().unwrap();
        let answer = names.get_mut(name.as_str()).map(|answers| {
            if answers.len() > 1 {
                answers.pop_front().unwrap()
            } else {
                answers[0].clone()
            }
        });
        Box::pin(async move { answer.ok_or_else(|| io::Error::other("no such name")) })
    }
}

#[derive(Debug, Default)]
struct Entries(Mutex<Vec<Entry>>);

impl Journal for Entries {
    fn record(&self, entry: Entry) {
        self.0.lock().unwrap().push(entry);
    }

    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }
}

/// A run's way out, and what is behind it.
struct Way {
    _folder: TempDir,
    socket: PathBuf,
    entries: Arc<Entries>,
    stop: CancellationToken,
    tasks: JoinSet<io::Result<()>>,
}

impl Way {
    fn open(rules: &[String], names: &[(&str, &[&str])]) -> Self {
        Self::with_limits(rules, names, ProxyLimits::default())
    }

    fn with_limits(rules: &[String], names: &[(&str, &[&str])], limits: ProxyLimits) -> Self {
        let folder = TempDir::new().unwrap();
        let socket = folder.path().join("egress.sock");
        let policy = EgressPolicy::new(rules.iter().map(|rule| rule.parse().unwrap()).collect());
        let resolver = Names::default();
        for (name, addresses) in names {
            let mut known = resolver.0.lock().unwrap();
            let answers = known.entry((*name).to_owned()).or_default();
            answers.push_back(addresses.iter().map(|text| text.parse().unwrap()).collect());
        }
        let entries = Arc::<Entries>::default();
        let journal: Arc<dyn Journal> = Arc::clone(&entries) as _;
        let proxy = Proxy::new(policy, limits, Arc::new(resolver), journal);
        let stop = CancellationToken::new();
        let listener = UnixListener::bind(&socket).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(proxy.serve(listener, stop.clone()));
        Self {
            _folder: folder,
            socket,
            entries,
            stop,
            tasks,
        }
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.socket).await.unwrap()
    }

    /// Sends a request and returns everything that comes back until the other side closes.
    async fn ask(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// Opens a tunnel; returns it and the head of the answer.
    async fn tunnel(&self, target: &str) -> (UnixStream, String) {
        let mut stream = self.connect().await;
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = stream.read_u8().await.unwrap();
            head.push(byte);
        }
        (stream, String::from_utf8(head).unwrap())
    }

    /// Ends the proxy and returns what it wrote down.
    async fn close(mut self) -> Vec<Entry> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap().unwrap();
        }
        self.entries.0.lock().unwrap().clone()
    }
}

/// A server on this machine that keeps what it is sent and gives each connection the same answer.
struct Server {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn answering(answer: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let (answer, kept) = (answer.to_owned(), Arc::clone(&heard));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = vec![0; 64 << 10];
                let length = stream.read(&mut buffer).await.unwrap();
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                kept.lock().unwrap().push(text);
                // The client may have gone.
                let _written = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self {
            address,
            heard,
            _tasks: tasks,
        }
    }

    fn rule(&self) -> String {
        self.address.to_string()
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\nKeep-Alive: timeout=5\r\nX-Own: 1\r\n\r\nhello";

#[tokio::test]
async fn a_tunnel_to_what_is_allowed_carries_both_ways_and_is_counted() {
    let server = Server::answering("pong").await;
    let way = Way::open(&[server.rule()], &[]);

    let (mut stream, head) = way.tunnel(&server.rule()).await;
    stream.write_all(b"ping!").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();

    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(answer, "pong");
    assert_eq!(server.heard(), ["ping!"]);
    drop(stream);
    let entries = way.close().await;
    let [Entry { fate, target, .. }] = entries.as_slice() else {
        panic!("{entries:?}")
    };
    assert_eq!(*target, server.rule());
    assert!(
        matches!(fate, Fate::Reached { sent: 5, received: 4, address, .. } if *address == server.address),
        "{fate:?}"
    );
}

#[tokio::test]
async fn what_is_not_allowed_is_refused_with_the_rule_and_never_connected_to() {
    let decoy = Server::answering("secret").await;
    let way = Way::open(&["api.example.com".to_owned()], &[]);

    let tunnel = way
        .ask(&format!(
            "CONNECT {} HTTP/1.1\r\nConnection: close\r\n\r\n",
            decoy.rule()
        ))
        .await;
    let plain = way
        .ask(&format!(
            "GET http://{}/x HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n",
            decoy.rule()
        ))
        .await;

    for answer in [tunnel, plain] {
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        assert!(answer.contains("is not on this run's list of allowed hosts (api.example.com)"));
    }
    assert!(decoy.heard().is_empty());
    let entries = way.close().await;
    assert_eq!(entries.len(), 2);
    assert!(
        entries
            .iter()
            .all(|entry| matches!(entry.fate, Fate::Denied { .. }))
    );
}

#[tokio::test]
async fn an_allowed_name_that_leads_to_this_machine_is_refused() {
    let decoy = Server::answering("secret").await;
    let port = decoy.address.port();
    let way = Way::open(
        &[format!("api.example.com:{port}")],
        &[("api.example.com", &["127.0.0.1", "::1", "169.254.169.254"])],
    );

    let answer = way
        .ask(&format!(
            "CONNECT api.example.com:{port} HTTP/1.1\r\nConnection: close\r\n\r\n"
        ))
        .await;

    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(
        answer.contains("leads to the loopback address 127.0.0.1"),
        "{answer}"
    );
    assert!(decoy.heard().is_empty());
}

#[tokio::test]
async fn a_name_is_resolved_once_a_request_and_a_second_answer_is_decided_anew() {
    let server = Server::answering(OK).await;
    let port = server.address.port();
    let rules = [
        format!("rebind.example:{port}"),
        format!("127.0.0.1/32:{port}"),
    ];
    let names: [(&str, &[&str]); 2] = [
        ("rebind.example", &["127.0.0.1"]),
        ("rebind.example", &["127.0.0.2"]),
    ];
    let way = Way::open(&rules, &names);
    let request =
        format!("GET http://rebind.example:{port}/ HTTP/1.1\r\nConnection: close\r\n\r\n");

    let first = way.ask(&request).await;
    let second = way.ask(&request).await;

    assert!(first.ends_with("hello"), "{first}");
    assert!(second.starts_with("HTTP/1.1 403 "), "{second}");
    assert_eq!(server.heard().len(), 1);
}

#[tokio::test]
async fn a_plain_request_is_passed_on_without_what_is_the_proxys() {
    let server = Server::answering(OK).await;
    let way = Way::open(&[server.rule()], &[]);
    let at = server.rule();

    let answer = way
        .ask(&format!(
            "POST http://user:password@{at}/path?q=1 HTTP/1.1\r\nHost: other.example\r\nProxy-Authorization: Basic x\r\n\
             Connection: close, X-Hop\r\nX-Hop: 1\r\nX-End: 1\r\nContent-Length: 4\r\n\r\nbody"
        ))
        .await;

    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with("hello"));
    let lower = answer.to_ascii_lowercase();
    assert!(
        lower.contains("x-own: 1") && !lower.contains("keep-alive: timeout"),
        "{answer}"
    );
    let heard = server.heard().join("").to_ascii_lowercase();
    assert!(heard.starts_with("post /path?q=1 http/1.1\r\n"), "{heard}");
    assert!(heard.contains(&format!("host: {at}\r\n")), "{heard}");
    assert!(heard.contains("x-end: 1"), "{heard}");
    for absent in ["password", "proxy-authorization", "x-hop", "other.example"] {
        assert!(!heard.contains(absent), "{absent} in {heard}");
    }
    let entries = way.close().await;
    assert!(
        matches!(
            entries[..],
            [Entry {
                fate: Fate::Reached {
                    sent: 4,
                    received: 5,
                    ..
                },
                ..
            }]
        ),
        "{entries:?}"
    );
}

#[tokio::test]
async fn a_redirect_inside_is_refused_when_it_is_followed() {
    let decoy = Server::answering("secret").await;
    let to = format!("http://{}/", decoy.rule());
    let redirect = format!(
        "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    let server = Server::answering(&redirect).await;
    let way = Way::open(&[server.rule()], &[]);

    let first = way
        .ask(&format!(
            "GET http://{}/ HTTP/1.1\r\nConnection: close\r\n\r\n",
            server.rule()
        ))
        .await;
    let followed = way
        .ask(&format!("GET {to} HTTP/1.1\r\nConnection: close\r\n\r\n"))
        .await;

    assert!(first.starts_with("HTTP/1.1 302 "), "{first}");
    assert!(followed.starts_with("HTTP/1.1 403 "), "{followed}");
    assert!(decoy.heard().is_empty());
}

#[tokio::test]
async fn what_is_no_target_is_told_so() {
    let way = Way::open(&["a.example".to_owned()], &[]);

    for request in [
        "CONNECT a.example HTTP/1.1\r\nConnection: close\r\n\r\n",
        "CONNECT 0x7f000001:80 HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
        "GET https://a.example/secret HTTP/1.1\r\nConnection: close\r\n\r\n",
    ] {
        let answer = way.ask(request).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{request}: {answer}");
        assert!(!answer.contains("secret"), "{answer}");
    }
    let broken = way.ask("GARBAGE\r\n\r\n").await;
    assert!(broken.starts_with("HTTP/1.1 400 "), "{broken}");
}

#[tokio::test]
async fn a_target_that_nobody_listens_at_is_a_bad_gateway() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = free.local_addr().unwrap();
    drop(free);
    let way = Way::open(&[at.to_string(), "gone.example".to_owned()], &[]);

    for target in [at.to_string(), "gone.example:443".to_owned()] {
        let answer = way
            .ask(&format!(
                "CONNECT {target} HTTP/1.1\r\nConnection: close\r\n\r\n"
            ))
            .await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    }
    let entries = way.close().await;
    assert!(
        entries
            .iter()
            .all(|entry| matches!(entry.fate, Fate::Failed { .. })),
        "{entries:?}"
    );
}

#[tokio::test]
async fn slow_senders_lose_their_places_to_those_that_wait() {
    let server = Server::answering(OK).await;
    let limits = ProxyLimits {
        connections: 8,
        head_time: Duration::from_millis(300),
        ..ProxyLimits::default()
    };
    let way = Way::with_limits(&[server.rule()], &[], limits);
    let mut slow = Vec::new();
    for _ in 0..64 {
        let mut stream = way.connect().await;
        stream
            .write_all(b"GET http://a.example/ HTTP/1.1\r\nX: ")
            .await
            .unwrap();
        slow.push(stream);
    }

    let answer = way
        .ask(&format!(
            "GET http://{}/ HTTP/1.1\r\nConnection: close\r\n\r\n",
            server.rule()
        ))
        .await;

    assert!(answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn the_end_of_the_run_ends_every_tunnel() {
    let server = Server::answering("").await;
    let way = Way::open(&[server.rule()], &[]);
    let (mut stream, head) = way.tunnel(&server.rule()).await;
    assert!(head.starts_with("HTTP/1.1 200 "));

    let entries = way.close().await;

    let mut rest = Vec::new();
    let ended = stream.read_to_end(&mut rest).await;
    assert!(ended.is_err() || rest.is_empty());
    assert!(
        matches!(
            entries[..],
            [Entry {
                fate: Fate::Reached { .. },
                ..
            }]
        ),
        "{entries:?}"
    );
}
