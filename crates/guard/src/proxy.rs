//! The way out of one run: an HTTP proxy on a Unix socket.
//!
//! Owns: the run's connections, to it and to the outside.
//! Reads: requests: `CONNECT` for anything over TLS, and plain HTTP.
//! Never: connects to what the policy has not chosen; reads what goes through a tunnel.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::{Desk, Drain, route};
use crate::counted::{Counted, CountedBody};
use crate::journal::{Entry, Fate, Journal};
use crate::policy::{Denial, EgressPolicy, Target, TargetHost};
use crate::resolve::Resolve;

/// Bytes that are carried at once in each direction of a tunnel.
const TUNNEL_BUFFER: usize = 64 << 10;
/// How long a connection waits when there are too many open files.
const SHORTAGE: Duration = Duration::from_millis(100);
/// Characters of an unreadable target that are repeated.
const ECHO: usize = 80;

/// Headers that are about one connection, and not for who is behind it (RFC 9110, 7.6.1).
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// An error of a body.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A body of either side.
pub(crate) type Body = BoxBody<Bytes, BoxError>;

/// How much of the guard one run may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyLimits {
    /// Connections at the same time; more of them wait in the socket's queue. Default: 256.
    pub connections: usize,
    /// How long a request's head may take, so that a slow sender holds its place for no longer. Default: 15 s.
    pub head_time: Duration,
    /// How long a name's addresses may take, and then each connection. Default: 10 s.
    pub connect_time: Duration,
}

impl Default for ProxyLimits {
    fn default() -> Self {
        Self {
            connections: 256,
            head_time: Duration::from_secs(15),
            connect_time: Duration::from_secs(10),
        }
    }
}

/// The proxy of one run.
#[derive(Debug)]
pub struct Proxy {
    policy: EgressPolicy,
    limits: ProxyLimits,
    resolver: Arc<dyn Resolve>,
    journal: Arc<dyn Journal>,
    desk: Option<Arc<Desk>>,
    /// Tasks that carry what was let through.
    carried: TaskTracker,
}

impl Proxy {
    /// Makes a proxy that lets through what the policy allows.
    pub fn new(
        policy: EgressPolicy,
        limits: ProxyLimits,
        resolver: Arc<dyn Resolve>,
        journal: Arc<dyn Journal>,
    ) -> Arc<Self> {
        Self::with_desk(policy, limits, resolver, journal, None)
    }

    /// Makes one that also takes requests to itself, for providers.
    pub(crate) fn with_desk(
        policy: EgressPolicy,
        limits: ProxyLimits,
        resolver: Arc<dyn Resolve>,
        journal: Arc<dyn Journal>,
        desk: Option<Arc<Desk>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            policy,
            limits,
            resolver,
            journal,
            desk,
            carried: TaskTracker::new(),
        })
    }

    /// Serves the run's socket until `stop`; then every connection ends at once.
    ///
    /// # Errors
    ///
    /// If the socket can no longer be accepted from.
    pub async fn serve(
        self: Arc<Self>,
        listener: UnixListener,
        stop: CancellationToken,
    ) -> io::Result<()> {
        let places = Arc::new(Semaphore::new(self.limits.connections));
        let served = loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break Ok(()),
                accepted = next(&listener, &places) => accepted,
            };
            match accepted {
                Ok((stream, place)) => {
                    let (proxy, stop) = (Arc::clone(&self), stop.clone());
                    self.carried.spawn(async move {
                        tokio::select! {
                            () = stop.cancelled() => {}
                            () = proxy.connection(stream, &stop) => {}
                        }
                        drop(place);
                    });
                }
                // What others give back is taken then.
                Err(error) if is_shortage(&error) => {
                    tracing::warn!(%error, "a run's connection waits");
                    tokio::select! {
                        () = stop.cancelled() => break Ok(()),
                        () = tokio::time::sleep(SHORTAGE) => {}
                    }
                }
                // The client is gone already.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => break Err(error),
            }
        };
        stop.cancel();
        self.carried.close();
        self.carried.wait().await;
        served
    }

    async fn connection(self: &Arc<Self>, stream: UnixStream, stop: &CancellationToken) {
        let service = service_fn(|request| async {
            Ok::<_, Infallible>(Arc::clone(self).answer(request, stop).await)
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head_time)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a connection of the run ended early");
        }
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        stop: &CancellationToken,
    ) -> Response<Body> {
        if *request.method() != Method::CONNECT
            && let Some(desk) = &self.desk
            && let Some((provider, _)) = route(request.uri())
        {
            let drain = Drain {
                tasks: self.carried.clone(),
                stop: stop.clone(),
            };
            return desk.answer(provider, request, drain).await;
        }
        let answered = match *request.method() {
            Method::CONNECT => self.tunnel(request, stop).await,
            _ => self.forward(request, stop).await,
        };
        answered.unwrap_or_else(|refusal| refusal.response())
    }

    /// Opens a tunnel; it is carried on after the answer.
    async fn tunnel(
        self: &Arc<Self>,
        request: Request<Incoming>,
        stop: &CancellationToken,
    ) -> Result<Response<Body>, Refusal> {
        let authority = request.uri().authority();
        let target = authority
            .and_then(|authority| Target::parse(authority.host(), authority.port_u16()?))
            .ok_or_else(|| self.no_target(request.uri()))?;
        let began = Instant::now();
        let (mut outside, address) = self.connect(&target).await?;
        let (proxy, stop) = (Arc::clone(self), stop.clone());
        self.carried.spawn(async move {
            let Ok(inside) = hyper::upgrade::on(request).await else {
                return;
            };
            let mut inside = Counted::new(TokioIo::new(inside));
            let carried = async {
                tokio::io::copy_bidirectional_with_sizes(
                    &mut inside,
                    &mut outside,
                    TUNNEL_BUFFER,
                    TUNNEL_BUFFER,
                )
                .await
            };
            tokio::select! {
                () = stop.cancelled() => {}
                // How a tunnel ends is between its two ends.
                _ended = carried => {}
            }
            proxy.reached(&target, address, [inside.read(), inside.written()], began);
        });
        Ok(Response::new(empty()))
    }

    /// Passes a plain HTTP request on.
    async fn forward(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        stop: &CancellationToken,
    ) -> Result<Response<Body>, Refusal> {
        let uri = request.uri().clone();
        let target = match (uri.scheme_str(), uri.authority()) {
            (Some("http"), Some(authority)) => {
                Target::parse(authority.host(), authority.port_u16().unwrap_or(80))
            }
            _ => None,
        }
        .ok_or_else(|| self.no_target(&uri))?;
        let began = Instant::now();
        let (outside, address) = self.connect(&target).await?;

        strip(request.headers_mut());
        if let Some(host) = uri.authority().and_then(|authority| {
            // Without a user and a password, should there be any.
            let host = authority.as_str().rsplit('@').next()?;
            HeaderValue::from_str(host).ok()
        }) {
            request.headers_mut().insert(HOST, host);
        }
        *request.uri_mut() = uri
            .path_and_query()
            .and_then(|path| Uri::builder().path_and_query(path.clone()).build().ok())
            .unwrap_or_default();

        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(outside))
            .await
            .map_err(|error| self.failed(&target, &error.to_string()))?;
        let stop = stop.clone();
        self.carried.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "a connection to the outside ended early");
                },
            }
        });
        let sent = Arc::<AtomicU64>::default();
        let count = Arc::clone(&sent);
        let request = request
            .map(|body| CountedBody::new(body, move |bytes| count.store(bytes, Ordering::Relaxed)));
        let mut response = sender
            .send_request(request)
            .await
            .map_err(|error| self.failed(&target, &error.to_string()))?;
        strip(response.headers_mut());
        let proxy = Arc::clone(self);
        Ok(response.map(|body| {
            CountedBody::new(body, move |received| {
                let sent = sent.load(Ordering::Relaxed);
                proxy.reached(&target, address, [sent, received], began);
            })
            .map_err(Into::into)
            .boxed()
        }))
    }

    /// Connects to what the policy chooses of the target's addresses.
    async fn connect(&self, target: &Target) -> Result<(TcpStream, SocketAddr), Refusal> {
        let denied = |denial| self.denied(target, &denial);
        self.policy.admit(target).map_err(denied)?;
        let found = match target.host() {
            TargetHost::Address(address) => vec![*address],
            TargetHost::Name(name) => {
                match timeout(self.limits.connect_time, self.resolver.resolve(name)).await {
                    Ok(Ok(found)) => found,
                    Ok(Err(error)) => return Err(self.failed(target, &error.to_string())),
                    Err(_) => return Err(self.failed(target, "its name was not resolved in time")),
                }
            }
        };
        let chosen = self.policy.choose(target, found).map_err(denied)?;
        let mut why = String::new();
        for address in chosen {
            match timeout(self.limits.connect_time, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Requests and events are small and are waited for.
                    stream
                        .set_nodelay(true)
                        .map_err(|error| self.failed(target, &error.to_string()))?;
                    return Ok((stream, address));
                }
                Ok(Err(error)) => why = format!("{address}: {error}"),
                Err(_) => why = format!("{address} did not answer in time"),
            }
        }
        Err(self.failed(target, &why))
    }

    fn reached(
        &self,
        target: &Target,
        address: SocketAddr,
        [sent, received]: [u64; 2],
        began: Instant,
    ) {
        self.journal.record(Entry {
            at: self.journal.now(),
            target: target.to_string(),
            fate: Fate::Reached {
                address,
                sent,
                received,
                duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            },
        });
    }

    fn denied(&self, target: &Target, denial: &Denial) -> Refusal {
        self.refuse(target.to_string(), denial)
    }

    fn no_target(&self, uri: &Uri) -> Refusal {
        // The path may be a secret, and the user part is one.
        let host = uri.authority().map_or("", |authority| authority.host());
        let text: String = host.chars().take(ECHO).collect();
        self.refuse(text.clone(), &Denial::NoTarget { text })
    }

    fn refuse(&self, target: String, denial: &Denial) -> Refusal {
        self.journal.record(Entry {
            at: self.journal.now(),
            target,
            fate: Fate::Denied {
                why: denial.to_string(),
            },
        });
        Refusal {
            status: match denial {
                Denial::NoTarget { .. } => StatusCode::BAD_REQUEST,
                _ => StatusCode::FORBIDDEN,
            },
            text: denial.to_string(),
        }
    }

    fn failed(&self, target: &Target, why: &str) -> Refusal {
        self.journal.record(Entry {
            at: self.journal.now(),
            target: target.to_string(),
            fate: Fate::Failed {
                why: why.to_owned(),
            },
        });
        Refusal {
            status: StatusCode::BAD_GATEWAY,
            text: format!("{target} cannot be reached: {why}"),
        }
    }
}

/// Accepts the next connection once there is a place for it.
async fn next(
    listener: &UnixListener,
    places: &Arc<Semaphore>,
) -> io::Result<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

/// Returns whether there are too many open files, of this process or of all.
fn is_shortage(error: &io::Error) -> bool {
    let shortages = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
    let number = error.raw_os_error();
    shortages
        .iter()
        .any(|shortage| Some(shortage.raw_os_error()) == number)
}

/// An answer that is not the outside's.
struct Refusal {
    status: StatusCode,
    text: String,
}

impl Refusal {
    fn response(self) -> Response<Body> {
        let text = format!("dark-factory: {}\n", self.text);
        let body = Full::new(Bytes::from(text))
            .map_err(|never| match never {})
            .boxed();
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response
            .headers_mut()
            .insert(hyper::header::CONTENT_TYPE, plain);
        response
    }
}

fn empty() -> Body {
    http_body_util::Empty::new()
        .map_err(|never| match never {})
        .boxed()
}

/// Removes what is about one connection only.
pub(crate) fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(hyper::header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}
