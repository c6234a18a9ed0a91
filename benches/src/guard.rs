//! What the guard adds to a request, beside relays that only carry bytes.
//!
//! Owns: a provider on loopback that answers at once, and every way to it.
//! Reads: what the kernel accounts.
//! Never: leaves this machine; needs an engine.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dark_factory::types::{AttemptId, Budget, Provider, RunId};
use dark_factory_guard::{
    Answer, Ask, Broker, Certificates, Client, EGRESS_SOCKET, Key, Secret, Service, SystemResolver,
    Upstreams, Way,
};
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use nix::sys::resource::UsageWho;
use tempfile::TempDir;
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
    copy_bidirectional_with_sizes,
};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::runtime::{Builder, Handle};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Result;
use crate::measure::{cpu, median};
use crate::table::{Row, table};

const TOKEN: &str = "a-token-of-the-bench";
/// Requests of a round, one after the other on one connection.
const REQUESTS: usize = 300;
/// What is streamed, in events of [`EVENT`].
const STREAMED_MIB: u32 = 256;
/// Bytes of one event; providers send less in one, so that their streams have more of them.
const EVENT: usize = 1 << 10;
const SMALL: &str = "/v1/messages";
const LARGE: &str = "/v1/messages?stream";
const USAGE: &str = r#"{"id":"m","type":"message","role":"assistant","model":"claude-sonnet-4-5","content":[{"type":"text","text":"hello"}],"stop_reason":"end_turn","usage":{"input_tokens":10,"output_tokens":5}}"#;

/// How a request gets to the provider.
#[derive(Debug, Clone, Copy)]
enum Route {
    /// To the guard as if it were the provider.
    Broker,
    /// By `CONNECT` through the guard.
    Tunnel,
    /// Through a relay that carries this many bytes at once and looks at nothing.
    Relay(usize),
    /// Through a relay of requests, made as the broker is, that looks at nothing.
    HttpRelay,
    Direct,
}

/// What `copy_bidirectional` carries at once.
const RELAYED: usize = 8 << 10;
const RELAYED_AT_MOST: usize = 64 << 10;

const ROUTES: [(Route, &str); 6] = [
    (Route::Broker, "the guard, as the provider"),
    (Route::Tunnel, "the guard, by CONNECT"),
    (Route::HttpRelay, "a plain HTTP relay by hyper"),
    (Route::Direct, "no relay"),
    (Route::Relay(RELAYED_AT_MOST), "a plain relay, by 64 KiB"),
    (Route::Relay(RELAYED), "a plain relay"),
];

/// What a request and a stream cost by one route in one round.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    request_us: f64,
    megabytes_per_s: f64,
    cpu_ms_per_gb: f64,
}

/// Measures; relays and guard share a runtime like that of the guard's process, provider and client have their own.
pub(crate) fn bench(rounds: usize) -> Result<()> {
    let between = Builder::new_multi_thread().enable_all().build()?;
    let provider = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let client = Builder::new_current_thread().enable_all().build()?;
    let lab = between.block_on(Lab::new(provider.handle()))?;
    let mut requests = ROUTES.map(|(_, name)| Row::new(name, 2));
    let mut streams = ROUTES.map(|(_, name)| Row::new(name, 2));
    for round in 0..=rounds {
        let mut costs = [Cost::default(); ROUTES.len()];
        for place in 0..ROUTES.len() {
            let who = (place + round) % ROUTES.len();
            costs[who] = client.block_on(lab.measure(ROUTES[who].0))?;
        }
        // The first round warms up.
        if round == 0 {
            continue;
        }
        let direct = ROUTES
            .iter()
            .position(|(route, _)| matches!(route, Route::Direct));
        let direct = direct.map_or(0.0, |direct| costs[direct].request_us);
        for (who, cost) in costs.into_iter().enumerate() {
            requests[who].push(&[cost.request_us, (cost.request_us - direct) / 1e3]);
            streams[who].push(&[cost.megabytes_per_s, cost.cpu_ms_per_gb]);
        }
    }
    print!(
        "{}",
        table(
            "a request on an open connection",
            &["us", "added ms"],
            &requests
        )
    );
    print!(
        "{}",
        table(
            &format!("{STREAMED_MIB} MiB of 1 KiB events, CPU of both ends and what is between"),
            &["MB/s", "CPU ms/GB"],
            &streams
        )
    );
    Ok(())
}

/// A provider, a guard with the way of one run, and a relay; gone when it is dropped.
struct Lab {
    state: TempDir,
    provider: u16,
    stop: CancellationToken,
    _servers: JoinSet<()>,
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Lab {
    async fn new(provider: &Handle) -> Result<Self> {
        let mut lab = Self {
            state: TempDir::new()?,
            provider: 0,
            stop: CancellationToken::new(),
            _servers: JoinSet::new(),
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        lab.provider = listener.local_addr()?.port();
        lab._servers.spawn_on(provide(listener), provider);
        for bytes in [RELAYED, RELAYED_AT_MOST] {
            let listener = UnixListener::bind(lab.relay(bytes))?;
            lab._servers.spawn(relay_to(listener, lab.provider, bytes));
        }
        let listener = UnixListener::bind(lab.http_relay())?;
        lab._servers.spawn(relay_http_to(listener, lab.provider));
        let service = Service {
            state_dir: lab.state.path().to_owned(),
            resolver: Arc::new(SystemResolver),
            now: Timestamp::now,
            patience: Duration::from_secs(3600),
            upstreams: Upstreams::default(),
        };
        let stop = lab.stop.clone();
        lab._servers.spawn(async move {
            // Without it the first question below goes unanswered.
            let _served = service.serve(stop).await;
        });
        lab.open_way().await?;
        Ok(lab)
    }

    fn attempt() -> AttemptId {
        RunId::from_random_bits(0).attempt(1)
    }

    fn folder(&self) -> PathBuf {
        self.state.path().join(Self::attempt().to_string())
    }

    fn relay(&self, bytes: usize) -> PathBuf {
        self.state.path().join(format!("relay-{bytes}.sock"))
    }

    fn http_relay(&self) -> PathBuf {
        self.state.path().join("http-relay.sock")
    }

    async fn open_way(&self) -> Result<()> {
        fs::create_dir_all(self.folder())?;
        let way = Way {
            attempt: Self::attempt(),
            journal: self.folder().join("egress.jsonl"),
            folder: self.folder(),
            rules: vec![format!("127.0.0.1/32:{}", self.provider).parse()?],
            brokers: vec![Broker {
                provider: Provider::Anthropic,
                base: format!("http://127.0.0.1:{}", self.provider),
                token: TOKEN.to_owned(),
                key: Key::ApiKey(Secret("a-key-of-the-bench".to_owned())),
            }],
            budget: Budget::default(),
            certificates: Certificates::default(),
        };
        for _ in 0..100 {
            if let Ok(mut guard) = Client::connect(self.state.path()).await {
                return match guard.ask(&Ask::Open(way)).await? {
                    Answer::Opened => Ok(()),
                    other => Err(format!("the guard does not open a way: {other:?}").into()),
                };
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err("the guard does not listen".into())
    }

    async fn connect(&self, route: Route) -> Result<Connection> {
        let guard = self.folder().join(EGRESS_SOCKET);
        let target = format!("127.0.0.1:{}", self.provider);
        Ok(match route {
            Route::Broker => Connection {
                prefix: "/anthropic",
                ..Connection::new(unix(&guard).await?)
            },
            Route::Relay(bytes) => Connection::new(unix(&self.relay(bytes)).await?),
            Route::HttpRelay => Connection::new(unix(&self.http_relay()).await?),
            Route::Direct => {
                let stream = TcpStream::connect(target).await?;
                stream.set_nodelay(true)?;
                Connection::new(stream)
            }
            Route::Tunnel => {
                let mut connection = Connection::new(unix(&guard).await?);
                let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
                connection.stream.write_all(request.as_bytes()).await?;
                connection.head("HTTP/1.1 200").await?;
                connection
            }
        })
    }

    async fn measure(&self, route: Route) -> Result<Cost> {
        let request_us = self.requests(route).await?;
        let mut connection = self.connect(route).await?;
        let cpu_before = cpu(UsageWho::RUSAGE_SELF)?;
        let start = Instant::now();
        let length = connection.ask(LARGE).await?;
        let wall = start.elapsed();
        let cpu = cpu(UsageWho::RUSAGE_SELF)?.saturating_sub(cpu_before);
        #[expect(clippy::cast_precision_loss, reason = "some megabytes")]
        let megabytes = length as f64 / 1e6;
        Ok(Cost {
            request_us,
            megabytes_per_s: megabytes / wall.as_secs_f64(),
            cpu_ms_per_gb: cpu.as_secs_f64() * 1e6 / megabytes,
        })
    }

    /// Returns the microseconds that a request takes, at the median.
    async fn requests(&self, route: Route) -> Result<f64> {
        let mut connection = self.connect(route).await?;
        let mut walls = Vec::with_capacity(REQUESTS);
        for _ in 0..REQUESTS {
            let start = Instant::now();
            connection.ask(SMALL).await?;
            walls.push(start.elapsed().as_secs_f64() * 1e6);
        }
        Ok(median(walls))
    }
}

async fn unix(path: &Path) -> Result<UnixStream> {
    Ok(UnixStream::connect(path).await?)
}

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// An open connection of an agent.
struct Connection {
    stream: BufReader<Box<dyn Duplex>>,
    /// What its paths begin with.
    prefix: &'static str,
}

impl Connection {
    fn new(stream: impl Duplex + 'static) -> Self {
        Self {
            stream: BufReader::with_capacity(64 << 10, Box::new(stream)),
            prefix: "",
        }
    }

    /// Sends a request and reads all of the answer; returns the length of its body.
    async fn ask(&mut self, path: &str) -> Result<u64> {
        const BODY: &str = r#"{"model":"claude-sonnet-4-5","max_tokens":64,"messages":[{"role":"user","content":"hello"}]}"#;
        let request = format!(
            "POST {}{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nx-api-key: {TOKEN}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{BODY}",
            self.prefix,
            BODY.len()
        );
        self.stream.write_all(request.as_bytes()).await?;
        let length = self.head("HTTP/1.1 200").await?;
        let mut left = (&mut self.stream).take(length);
        let read = tokio::io::copy(&mut left, &mut tokio::io::sink()).await?;
        match read == length {
            true => Ok(length),
            false => Err(format!("an answer of {length} bytes ended after {read}").into()),
        }
    }

    /// Reads the head of an answer that begins like this; returns the length of what follows.
    async fn head(&mut self, status: &str) -> Result<u64> {
        head(&mut self.stream, status).await
    }
}

/// Reads a head that begins like this; returns its content length.
async fn head(stream: &mut (impl AsyncBufReadExt + Unpin), begin: &str) -> Result<u64> {
    let mut first = String::new();
    stream.read_line(&mut first).await?;
    if !first.starts_with(begin) {
        return Err(format!("expected {begin:?}, not {first:?}").into());
    }
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse()?;
            }
            Some(_) => {}
            None => return Ok(length),
        }
    }
}

async fn provide(listener: std::net::TcpListener) {
    // Without it nobody is answered.
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(async move {
            // Its client says what is wrong.
            let _ended = serve(stream).await;
        });
    }
}

/// A piece of text as Anthropic's API streams it.
fn event() -> String {
    let frame = |text: &str| {
        format!(
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\
             \"delta\":{{\"type\":\"text_delta\",\"text\":\"{text}\"}}}}\n\n"
        )
    };
    let text = "word ".repeat(EVENT / 5);
    frame(&text[..EVENT - frame("").len()])
}

/// Answers requests until the connection ends.
async fn serve(stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let block = event().repeat(16).into_bytes();
    let mut stream = BufReader::new(stream);
    loop {
        let begin = stream.fill_buf().await?;
        if begin.is_empty() {
            return Ok(());
        }
        let is_large = begin.starts_with(format!("POST {LARGE} ").as_bytes());
        let length = head(&mut stream, "POST ").await?;
        tokio::io::copy(&mut (&mut stream).take(length), &mut tokio::io::sink()).await?;
        let (kind, length) = match is_large {
            true => ("text/event-stream", (STREAMED_MIB as usize) << 20),
            false => ("application/json", USAGE.len()),
        };
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n");
        if is_large {
            stream.write_all(head.as_bytes()).await?;
            for _ in 0..length / block.len() {
                stream.write_all(&block).await?;
            }
        } else {
            stream.write_all((head + USAGE).as_bytes()).await?;
        }
    }
}

async fn relay_to(listener: UnixListener, port: u16, bytes: usize) {
    let mut connections = JoinSet::new();
    while let Ok((mut inside, _)) = listener.accept().await {
        connections.spawn(async move {
            if let Ok(mut outside) = TcpStream::connect(("127.0.0.1", port)).await
                && outside.set_nodelay(true).is_ok()
            {
                let (inside, outside) = (&mut inside, &mut outside);
                let _carried = copy_bidirectional_with_sizes(inside, outside, bytes, bytes).await;
            }
        });
    }
}

async fn relay_http_to(listener: UnixListener, port: u16) {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    let client = legacy::Client::builder(TokioExecutor::new()).build(tcp);
    let mut connections = JoinSet::new();
    while let Ok((inside, _)) = listener.accept().await {
        let client = client.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            // What is none cannot be asked.
            *request.uri_mut() = format!("http://127.0.0.1:{port}{}", request.uri())
                .parse()
                .unwrap_or_default();
            client.request(request)
        });
        let served = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(inside), service);
        connections.spawn(async move {
            // Its client says what is wrong.
            let _ended = served.await;
        });
    }
}
