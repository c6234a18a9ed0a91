//! A guard, a run's way, and a provider that answers as it is told.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use dark_factory_guard::{
    Answer, Ask, Broker, Certificates, Client, EGRESS_SOCKET, Key, Secret, Served, Service,
    SystemResolver, Upstreams, Way, summarise,
};
use dark_factory_types::{Budget, EgressSummary, Provider};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Bytes, Frame};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) const TOKEN: &str = "run-token-1";
pub(crate) const ATTEMPT: &str = "k3v9x2m7qa1b-1";
pub(crate) const OTHER: &str = "k3v9x2m7qa1c-1";

/// A request as the provider got it.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) line: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// An answer of the provider.
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: BoxBody<Bytes, Infallible>,
}

impl Reply {
    pub(crate) fn new(status: u16, kind: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: vec![("content-type", kind.to_owned())],
            body: Full::new(body.into()).boxed(),
        }
    }

    pub(crate) fn json(body: &str) -> Self {
        Self::new(200, "application/json", body.to_owned())
    }

    /// Events, each in a piece of its own.
    pub(crate) fn events(events: &[&str]) -> Self {
        let (sender, reply) = Self::pieces();
        for event in events {
            sender.send(format!("data: {event}\n\n").into()).unwrap();
        }
        reply
    }

    /// An answer whose pieces are sent one by one.
    pub(crate) fn pieces() -> (mpsc::UnboundedSender<Bytes>, Self) {
        let (sender, pieces) = mpsc::unbounded_channel();
        let reply = Self {
            status: 200,
            headers: vec![(
                "content-type",
                "text/event-stream; charset=utf-8".to_owned(),
            )],
            body: Pieces(pieces).boxed(),
        };
        (sender, reply)
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

struct Pieces(mpsc::UnboundedReceiver<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let polled = self.0.poll_recv(context);
        polled.map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// A provider.
#[derive(Default)]
pub(crate) struct Upstream {
    script: Mutex<VecDeque<Reply>>,
    got: Mutex<Vec<Got>>,
    pub(crate) arrived: Notify,
}

impl Upstream {
    pub(crate) fn says(&self, reply: Reply) {
        self.script.lock().unwrap().push_back(reply);
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    pub(crate) async fn connection(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) {
        let service = service_fn(|request: Request<hyper::body::Incoming>| async {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            self.got.lock().unwrap().push(Got {
                line: format!("{} {}", parts.method, parts.uri),
                headers: parts.headers,
                body: String::from_utf8(body.to_vec()).unwrap(),
            });
            self.arrived.notify_one();
            let reply = self.script.lock().unwrap().pop_front();
            let reply = reply.unwrap_or_else(|| Reply::new(500, "text/plain", "nothing to say"));
            let mut response = Response::builder().status(reply.status);
            for (name, value) in reply.headers {
                response = response.header(name, value);
            }
            Ok::<_, Infallible>(response.body(reply.body).unwrap())
        });
        let _ended = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }
}

pub(crate) struct Lab {
    pub(crate) state: TempDir,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) base: String,
    pub(crate) upstreams: Upstreams,
    stop: CancellationToken,
    guards: JoinSet<Served>,
    servers: JoinSet<()>,
}

impl Lab {
    pub(crate) async fn new() -> Self {
        let mut lab = Self {
            state: TempDir::new().unwrap(),
            upstream: Arc::default(),
            base: String::new(),
            upstreams: Upstreams::default(),
            stop: CancellationToken::new(),
            guards: JoinSet::new(),
            servers: JoinSet::new(),
        };
        let upstream = Arc::clone(&lab.upstream);
        lab.base = format!("http://{}", lab.server(upstream).await);
        lab
    }

    /// Starts a server; returns its address.
    pub(crate) async fn server(&mut self, upstream: Arc<Upstream>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        self.servers.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(Arc::clone(&upstream).connection(stream));
            }
        });
        address
    }

    /// Starts a server with a certificate of its own making for `localhost`; returns its address, and writes the
    /// certificate to a file.
    pub(crate) async fn tls_server(&mut self, upstream: Arc<Upstream>, pem: &Path) -> String {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        fs::write(pem, made.cert.pem()).unwrap();
        let key =
            rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        self.servers.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, upstream) = (acceptor.clone(), Arc::clone(&upstream));
                connections.spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        upstream.connection(stream).await;
                    }
                });
            }
        });
        format!("localhost:{port}")
    }

    pub(crate) fn start(&mut self) {
        let service = Service {
            state_dir: self.state.path().to_owned(),
            resolver: Arc::new(SystemResolver),
            now: || Timestamp::UNIX_EPOCH,
            patience: Duration::from_secs(3600),
            upstreams: self.upstreams.clone(),
        };
        let stop = self.stop.clone();
        self.guards
            .spawn(async move { service.serve(stop).await.unwrap() });
    }

    /// Ends the guard as a kill would.
    pub(crate) async fn kill(&mut self) {
        self.guards.abort_all();
        while self.guards.join_next().await.is_some() {}
    }

    pub(crate) async fn client(&self) -> Client {
        for _ in 0..1000 {
            if let Ok(client) = Client::connect(self.state.path()).await {
                return client;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("no guard listens");
    }

    pub(crate) fn way(&self, brokers: Vec<Broker>, budget: Budget) -> Way {
        self.way_of(ATTEMPT, brokers, budget)
    }

    pub(crate) fn way_of(&self, attempt: &str, brokers: Vec<Broker>, budget: Budget) -> Way {
        let folder = self.state.path().join(attempt);
        fs::create_dir_all(&folder).unwrap();
        Way {
            attempt: attempt.parse().unwrap(),
            journal: self.state.path().join(format!("{attempt}.jsonl")),
            folder,
            rules: Vec::new(),
            brokers,
            budget,
            certificates: Certificates::default(),
        }
    }

    pub(crate) fn broker(&self, provider: Provider) -> Broker {
        Broker {
            provider,
            base: self.base.clone(),
            token: TOKEN.to_owned(),
            key: Key::ApiKey(Secret("real-key".to_owned())),
        }
    }

    /// Starts a guard and opens a way with a broker of each provider.
    pub(crate) async fn open(&mut self, budget: Budget) -> Client {
        self.start();
        let mut client = self.client().await;
        let brokers = Provider::ALL.map(|provider| self.broker(provider)).to_vec();
        let opened = client.ask(&Ask::Open(self.way(brokers, budget))).await;
        assert_eq!(opened.unwrap(), Answer::Opened);
        client
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.state.path().join(ATTEMPT).join(EGRESS_SOCKET)
    }

    pub(crate) async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.socket()).await.unwrap()
    }

    /// Sends a request as it is and returns all that comes back.
    pub(crate) async fn raw(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// Sends a request of the run; its answer comes in pieces that the test sends.
    pub(crate) async fn post_for_pieces(
        &self,
        path: &str,
        body: &str,
    ) -> (mpsc::UnboundedSender<Bytes>, UnixStream) {
        let (pieces, reply) = Reply::pieces();
        self.upstream.says(reply);
        let mut stream = self.connect().await;
        let request = post(path, &format!("x-api-key: {TOKEN}\r\n"), body);
        stream.write_all(request.as_bytes()).await.unwrap();
        (pieces, stream)
    }

    /// Posts to the broker with the run's token.
    pub(crate) async fn post(&self, path: &str, body: &str) -> String {
        self.post_of(ATTEMPT, path, body).await
    }

    /// Posts to the broker of another run.
    pub(crate) async fn post_of(&self, attempt: &str, path: &str, body: &str) -> String {
        let socket = self.state.path().join(attempt).join(EGRESS_SOCKET);
        let request = post(path, &format!("x-api-key: {TOKEN}\r\n"), body);
        let mut stream = UnixStream::connect(socket).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    pub(crate) fn journal(&self) -> String {
        fs::read_to_string(self.state.path().join(format!("{ATTEMPT}.jsonl"))).unwrap()
    }

    pub(crate) fn summary(&self) -> EgressSummary {
        summarise(self.journal().as_bytes()).unwrap()
    }
}

pub(crate) fn post(path: &str, headers: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: 127.0.0.1:3128\r\n{headers}Content-Type: application/json\r\nContent-Length: \
         {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Reads until what was read has this text in it.
pub(crate) async fn read_until(stream: &mut UnixStream, text: &str) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let so_far = String::from_utf8_lossy(&all).into_owned();
        if so_far.contains(text) {
            return so_far;
        }
        let length = stream.read(&mut buffer).await.unwrap();
        assert!(length > 0, "it ended with {so_far}");
        all.extend_from_slice(&buffer[..length]);
    }
}
