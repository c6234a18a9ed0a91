//! What the guard adds to a request, beside a relay that only carries bytes.
//!
//! Owns: a provider on loopback that answers at once, and every way to it.
//! Reads: nothing.
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
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
    copy_bidirectional,
};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Result;
use crate::measure::median;
use crate::table::{Row, table};

const TOKEN: &str = "a-token-of-the-bench";
/// Requests of a round, one after the other on one connection.
const REQUESTS: usize = 300;
/// What is streamed, in events of [`EVENT`].
const STREAMED_MIB: u32 = 64;
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
    /// Through a relay that carries bytes and looks at nothing.
    Relay,
    Direct,
}

const ROUTES: [(Route, &str); 4] = [
    (Route::Broker, "the guard, as the provider"),
    (Route::Tunnel, "the guard, by CONNECT"),
    (Route::Direct, "no relay"),
    (Route::Relay, "a plain relay"),
];

pub(crate) async fn bench(rounds: usize) -> Result<()> {
    let lab = Lab::new().await?;
    let mut requests = ROUTES.map(|(_, name)| Row::new(name, 2));
    let mut streams = ROUTES.map(|(_, name)| Row::new(name, 1));
    for round in 0..=rounds {
        let mut walls = [0.0; ROUTES.len()];
        let mut speeds = [0.0; ROUTES.len()];
        for place in 0..ROUTES.len() {
            let who = (place + round) % ROUTES.len();
            let route = ROUTES[who].0;
            walls[who] = lab.requests(route).await?;
            speeds[who] = lab.stream(route).await?;
        }
        // The first round warms up.
        if round > 0 {
            let direct = walls[2];
            for (who, wall) in walls.into_iter().enumerate() {
                requests[who].push(&[wall, (wall - direct) / 1e3]);
                streams[who].push(&[speeds[who]]);
            }
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
            &format!("{STREAMED_MIB} MiB of 1 KiB events"),
            &["MB/s"],
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
    async fn new() -> Result<Self> {
        let mut lab = Self {
            state: TempDir::new()?,
            provider: 0,
            stop: CancellationToken::new(),
            _servers: JoinSet::new(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        lab.provider = listener.local_addr()?.port();
        lab._servers.spawn(provide(listener));
        let relay = UnixListener::bind(lab.relay())?;
        lab._servers.spawn(relay_to(relay, lab.provider));
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

    fn relay(&self) -> PathBuf {
        self.state.path().join("relay.sock")
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
            Route::Relay => Connection::new(unix(&self.relay()).await?),
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

    /// Returns the megabytes a second of a long answer.
    async fn stream(&self, route: Route) -> Result<f64> {
        let mut connection = self.connect(route).await?;
        let start = Instant::now();
        let length = connection.ask(LARGE).await?;
        #[expect(clippy::cast_precision_loss, reason = "some megabytes")]
        let speed = length as f64 / 1e6 / start.elapsed().as_secs_f64();
        Ok(speed)
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

async fn provide(listener: TcpListener) {
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

async fn relay_to(listener: UnixListener, port: u16) {
    let mut connections = JoinSet::new();
    while let Ok((mut inside, _)) = listener.accept().await {
        connections.spawn(async move {
            if let Ok(mut outside) = TcpStream::connect(("127.0.0.1", port)).await
                && outside.set_nodelay(true).is_ok()
            {
                let _carried = copy_bidirectional(&mut inside, &mut outside).await;
            }
        });
    }
}
