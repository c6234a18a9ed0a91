//! Takes one run's requests to providers.
//!
//! Owns: the run's tokens and keys, in memory, and its connections to providers.
//! Reads: requests whose path begins with a provider's name.
//! Never: passes on what the budget does not allow or the journal does not take.

use std::collections::VecDeque;
use std::error::Error as _;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use dark_factory_types::{Budget, Provider};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::UPGRADE;
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::client::legacy::{self, connect::HttpInfo};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::error::Problem;
use super::headers::{self, Shown, clean, is_same};
use super::login::{LoginError, Logins};
use super::meter::Meter;
use super::route::{Call, call, route, without_keys};
use super::tap::{Account, Asking, Drain, SharedModel, Tap};
use super::upstream::{Dialer, HttpClient};
use super::usage::{UsageReader, is_priced};
use crate::control::{Broker, Key};
use crate::counted::CountedBody;
use crate::journal::{Ending, Entry, Fate, Journal};
use crate::proxy::Body;

/// The longest request that is held back until its model is known, in bytes: providers take no longer ones.
const HELD: usize = 32 << 20;
/// How long the body of a refused request is read, so that the client gets to read the answer.
const SWALLOW: Duration = Duration::from_secs(10);

/// The broker of one run.
#[derive(Debug)]
pub(crate) struct Desk {
    sources: RwLock<Sources>,
    meter: Arc<Meter>,
    logins: Arc<Logins>,
    journal: Arc<dyn Journal>,
}

/// What requests are answered from.
#[derive(Debug, Clone)]
struct Sources {
    brokers: Arc<[Broker]>,
    client: HttpClient,
    answer_time: Duration,
}

impl Sources {
    /// # Errors
    ///
    /// If a base address is none.
    fn new(brokers: &[Broker], dialer: &Dialer) -> io::Result<Self> {
        check_bases(brokers)?;
        Ok(Self {
            brokers: brokers.into(),
            client: dialer.client(),
            answer_time: dialer.answer_time,
        })
    }
}

/// Why a request is not passed on.
struct Refusal {
    problem: Problem,
    why: String,
    model: Option<String>,
}

fn refusal(problem: Problem, why: impl Into<String>) -> Refusal {
    Refusal {
        problem,
        why: why.into(),
        model: None,
    }
}

/// A request that may be passed on.
struct Ready {
    request: Request<()>,
    target: String,
    /// The login's folder and the token of it that is shown.
    login: Option<(std::path::PathBuf, String)>,
    /// For a model.
    account: Option<Account>,
}

impl Desk {
    /// Makes the broker of a run.
    ///
    /// # Errors
    ///
    /// If a base address is none.
    pub(crate) fn new(
        brokers: &[Broker],
        meter: Arc<Meter>,
        dialer: &Dialer,
        logins: Arc<Logins>,
        journal: Arc<dyn Journal>,
    ) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            sources: RwLock::new(Sources::new(brokers, dialer)?),
            meter,
            logins,
            journal,
        }))
    }

    /// Goes on with other keys, certificates and another budget; requests in flight are not touched.
    ///
    /// # Errors
    ///
    /// If a base address is none.
    pub(crate) fn replace(
        &self,
        brokers: &[Broker],
        dialer: &Dialer,
        budget: Budget,
    ) -> io::Result<()> {
        let sources = Sources::new(brokers, dialer)?;
        *self.sources.write().unwrap_or_else(PoisonError::into_inner) = sources;
        self.meter.set_budget(budget);
        Ok(())
    }

    fn sources(&self) -> Sources {
        let sources = self.sources.read().unwrap_or_else(PoisonError::into_inner);
        sources.clone()
    }

    /// Returns what counts for the run.
    pub(crate) fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Answers a request for which [`route`] names this provider.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        provider: Provider,
        request: Request<Incoming>,
        drain: Drain,
    ) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let mut asking = Asking {
            read: VecDeque::new(),
            rest: body,
            model: None,
        };
        match self.ready(provider, &parts, &mut asking).await {
            Ok(ready) => self.pass(provider, ready, asking, drain).await,
            Err(refusal) => {
                self.journal.record(Entry {
                    at: self.journal.now(),
                    target: provider.to_string(),
                    fate: Fate::BrokerRefused {
                        provider,
                        model: refusal.model,
                        why: refusal.why.clone(),
                    },
                });
                swallow(&mut asking.rest).await;
                refusal.problem.response(provider, &refusal.why)
            }
        }
    }

    /// Decides about a request and counts it, if it is for a model.
    async fn ready(
        &self,
        provider: Provider,
        parts: &Parts,
        asking: &mut Asking,
    ) -> Result<Ready, Refusal> {
        let path = route(&parts.uri).map_or("", |(_, path)| path);
        let Sources { brokers, .. } = self.sources();
        let broker = brokers
            .iter()
            .find(|broker| broker.provider == provider)
            .ok_or_else(|| {
                refusal(
                    Problem::NotGiven,
                    format!("this run has no credentials for {provider}"),
                )
            })?;
        let (keys, query) = without_keys(parts.uri.query().unwrap_or_default());
        let mut shown = headers::shown(&parts.headers);
        shown.extend(keys.iter().map(String::as_str));
        if !shown.iter().any(|shown| is_same(shown, &broker.token)) {
            return Err(refusal(
                Problem::Unauthenticated,
                "the key is not the one that this run was given",
            ));
        }
        if parts.headers.contains_key(UPGRADE) {
            return Err(refusal(
                Problem::NoUpgrade,
                "WebSocket and other protocols are not passed on, only plain HTTP",
            ));
        }
        let call = call(provider, &parts.method, path).ok_or_else(|| {
            refusal(
                Problem::NotFound,
                format!("of the API of {provider}, only requests to models are passed on"),
            )
        })?;
        let uri = address(&broker.base, path, &query)
            .ok_or_else(|| refusal(Problem::Malformed, "the request's address is not readable"))?;
        let target = target(&uri);
        let is_model = matches!(call, Call::Model(_));
        let asked = match call {
            Call::Model(model) => model,
            Call::Free => None,
        };
        let body = SharedModel::default();
        let asked = if is_model {
            asking.model = asked.is_none().then(|| Arc::clone(&body));
            self.hold(asked, asking, &body).await?
        } else {
            None
        };
        let (shown, login) = self.credential(broker).await?;
        let mut request = Request::new(());
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        request.headers_mut().clone_from(&parts.headers);
        headers::prepare(request.headers_mut(), provider, &shown).map_err(|_invalid| {
            refusal(
                Problem::Internal,
                "the credentials have a character that cannot be sent",
            )
        })?;
        let account = match is_model {
            true => Some(self.admit(provider, asked, body, &target)?),
            false => None,
        };
        Ok(Ready {
            request,
            target,
            login,
            account,
        })
    }

    /// Reads of a request until its model is known, if the budget wants to know what it costs.
    async fn hold(
        &self,
        asked: Option<String>,
        asking: &mut Asking,
        body: &SharedModel,
    ) -> Result<Option<String>, Refusal> {
        if self.meter.budget().cost.is_none() {
            return Ok(asked);
        }
        let mut held = 0;
        let known = || {
            let reader = body.lock().unwrap_or_else(PoisonError::into_inner);
            reader.model().map(str::to_owned)
        };
        let mut model = asked;
        while model.is_none() {
            let Some(Ok(frame)) = asking.rest.frame().await else {
                break;
            };
            let Ok(data) = frame.into_data() else { break };
            held += data.len();
            if held > HELD {
                return Err(refusal(
                    Problem::TooLong,
                    "the request is too long, and does not name its model before",
                ));
            }
            body.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(&data);
            asking.read.push_back(data);
            model = known();
        }
        match model {
            Some(model) if is_priced(&model) => Ok(Some(model)),
            Some(model) => Err(Refusal {
                why: format!(
                    "the run has a budget in dollars, and {model:?} has no known price; use another model, or a \
                     budget of tokens"
                ),
                problem: Problem::Budget,
                model: Some(model),
            }),
            None => Err(refusal(
                Problem::Budget,
                "the run has a budget in dollars, and the request does not name one model",
            )),
        }
    }

    /// Counts a request to a model, once it is written down.
    fn admit(
        &self,
        provider: Provider,
        asked: Option<String>,
        body: SharedModel,
        target: &str,
    ) -> Result<Account, Refusal> {
        self.meter.admit().map_err(|stop| Refusal {
            problem: Problem::Budget,
            why: stop.to_string(),
            model: asked.clone(),
        })?;
        let kept = self.journal.keep(Entry {
            at: self.journal.now(),
            target: target.to_owned(),
            fate: Fate::Asked {
                provider,
                model: asked.clone(),
            },
        });
        if let Err(error) = kept {
            self.meter.give_back();
            tracing::warn!(%error, "a request to a provider is refused, as it cannot be written down");
            return Err(refusal(
                Problem::Internal,
                format!("the request cannot be written down: {error}"),
            ));
        }
        Ok(Account {
            meter: Arc::clone(&self.meter),
            journal: Arc::clone(&self.journal),
            target: target.to_owned(),
            provider,
            asked,
            body,
            began: Instant::now(),
            is_ended: false,
        })
    }

    /// Returns what the provider is to be shown.
    async fn credential(
        &self,
        broker: &Broker,
    ) -> Result<(Shown, Option<(std::path::PathBuf, String)>), Refusal> {
        match &broker.key {
            Key::ApiKey(key) => Ok((Shown::Key(key.0.clone()), None)),
            Key::Bearer(token) => Ok((Shown::Bearer(token.0.clone()), None)),
            Key::ClaudeFolder(folder) => match self.token(folder, None).await {
                Ok(token) => Ok((Shown::Bearer(token.clone()), Some((folder.clone(), token)))),
                Err(error @ LoginError::Ended { .. }) => {
                    Err(refusal(Problem::LoggedOut, error.to_string()))
                }
                Err(error) => Err(refusal(Problem::Unreachable, error.to_string())),
            },
        }
    }

    async fn pass(
        self: &Arc<Self>,
        provider: Provider,
        ready: Ready,
        asking: Asking,
        drain: Drain,
    ) -> Response<Body> {
        let Some(account) = ready.account else {
            return self.pass_free(provider, ready, asking).await;
        };
        let request = ready.request.map(|()| asking.boxed());
        let (desk, login) = (Arc::clone(self), ready.login);
        if !self.meter.counts_tokens() {
            // Should the client leave, the request is dropped, and the provider stops.
            return desk.ask(provider, request, account, login, None).await;
        }
        let (answer, answered) = oneshot::channel();
        let (tasks, stop) = (drain.tasks.clone(), drain.stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                response = desk.ask(provider, request, account, login, Some(drain)) => {
                    // Should the client have left, the answer is dropped, and goes on to be read.
                    let _sent = answer.send(response);
                }
            }
        });
        answered.await.unwrap_or_else(|_closed| {
            Problem::Unreachable.response(provider, "the run's way out is closed")
        })
    }

    /// Asks a model.
    async fn ask(
        &self,
        provider: Provider,
        request: Request<Body>,
        mut account: Account,
        login: Option<(std::path::PathBuf, String)>,
        drain: Option<Drain>,
    ) -> Response<Body> {
        let sources = self.sources();
        let asked = timeout(sources.answer_time, sources.client.request(request));
        let mut response = match asked.await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let ending = match error.is_connect() {
                    true => Ending::Whole,
                    false => Ending::Cut,
                };
                account.end(None, None, ending);
                return unreachable(provider, &account.target, &chain(&error));
            }
            Err(_late) => {
                account.end(None, None, Ending::Cut);
                return unreachable(provider, &account.target, "it did not answer in time");
            }
        };
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED
            && let Some((folder, token)) = login
        {
            account.end(Some(status.as_u16()), None, Ending::Whole);
            return self.log_in_again(provider, &folder, &token).await;
        }
        clean(response.headers_mut());
        let reader = UsageReader::new(provider, response.headers());
        response.map(|body| Tap::new(body, reader, status.as_u16(), account, drain).boxed())
    }

    /// Refreshes a login whose token was refused, and has the client ask again.
    async fn log_in_again(
        &self,
        provider: Provider,
        folder: &std::path::Path,
        token: &str,
    ) -> Response<Body> {
        match self.token(folder, Some(token)).await {
            Ok(_fresh) => Problem::Again.response(provider, "the login was renewed; ask again"),
            Err(error @ LoginError::Ended { .. }) => {
                Problem::LoggedOut.response(provider, &error.to_string())
            }
            Err(error) => Problem::Unreachable.response(provider, &error.to_string()),
        }
    }

    async fn token(
        &self,
        folder: &std::path::Path,
        rejected: Option<&str>,
    ) -> Result<String, LoginError> {
        let Sources { client, .. } = self.sources();
        self.logins.token(client, folder, rejected).await
    }

    /// Asks for something that uses no tokens.
    async fn pass_free(&self, provider: Provider, ready: Ready, asking: Asking) -> Response<Body> {
        let began = Instant::now();
        let request = ready.request.map(|()| asking.boxed());
        let sources = self.sources();
        let asked = timeout(sources.answer_time, sources.client.request(request));
        let why = match asked.await {
            Ok(Ok(mut response)) => {
                if response.status() == StatusCode::UNAUTHORIZED
                    && let Some((folder, token)) = ready.login
                {
                    return self.log_in_again(provider, &folder, &token).await;
                }
                clean(response.headers_mut());
                let address = response
                    .extensions()
                    .get::<HttpInfo>()
                    .map(HttpInfo::remote_addr);
                let (journal, target) = (Arc::clone(&self.journal), ready.target);
                return response.map(|body| {
                    let count = move |received| {
                        let Some(address) = address else { return };
                        journal.record(Entry {
                            at: journal.now(),
                            target,
                            fate: Fate::Reached {
                                address,
                                sent: 0,
                                received,
                                duration_ms: u64::try_from(began.elapsed().as_millis())
                                    .unwrap_or(u64::MAX),
                            },
                        });
                    };
                    CountedBody::new(body, count).map_err(Into::into).boxed()
                });
            }
            Ok(Err(error)) => chain(&error),
            Err(_late) => "it did not answer in time".to_owned(),
        };
        self.journal.record(Entry {
            at: self.journal.now(),
            target: ready.target.clone(),
            fate: Fate::Failed { why: why.clone() },
        });
        unreachable(provider, &ready.target, &why)
    }
}

fn unreachable(provider: Provider, target: &str, why: &str) -> Response<Body> {
    Problem::Unreachable.response(provider, &format!("{target} cannot be reached: {why}"))
}

/// Returns an error with its causes.
fn chain(error: &legacy::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Reads away what is left of a refused request, within bounds.
async fn swallow(body: &mut Incoming) {
    let read = async {
        let mut left = HELD;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, bytes::Bytes::len);
            match left.checked_sub(length) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // Whoever is that slow gets to see less.
    let _late = timeout(SWALLOW, read).await;
}

fn check_bases(brokers: &[Broker]) -> io::Result<()> {
    for broker in brokers {
        let is_base = !broker.base.contains(['?', '#', '@'])
            && address(&broker.base, "", "").is_some_and(|uri| {
                matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
            });
        if !is_base {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "the base address for {} is not http(s)://HOST[:PORT][/PATH]",
                    broker.provider
                ),
            ));
        }
        if broker.token.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("the token for {} is empty", broker.provider),
            ));
        }
    }
    Ok(())
}

/// Puts an address together.
fn address(base: &str, path: &str, query: &str) -> Option<Uri> {
    let base = base.trim_end_matches('/');
    let text = match query {
        "" => format!("{base}{path}"),
        query => format!("{base}{path}?{query}"),
    };
    text.parse().ok()
}

/// Returns where an address leads, as `host:port`.
fn target(uri: &Uri) -> String {
    let port = uri.port_u16().unwrap_or(match uri.scheme_str() {
        Some("http") => 80,
        _ => 443,
    });
    format!("{}:{port}", uri.host().unwrap_or_default())
}
