//! The connection to the engine.
//!
//! Owns: the negotiated client, every call's deadline, and what an error of the client means.
//! Reads: status codes and error types, never an error's text.
//! Never: tries a call again.

use std::error::Error;
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bollard::errors::Error as ClientError;
use bollard::{API_DEFAULT_VERSION, BollardRequest, ClientVersion, Docker};
use dark_factory_executor::engine::EngineError;
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;
use tokio::time::{sleep, timeout};

use super::dialect::Dialect;
use super::endpoint::{Address, DockerEndpoint};
use super::memory::Mark;
use super::ping::ping;
use super::question;

/// The header of a login at a registry.
const LOGIN_HEADER: &str = "x-registry-auth";

/// The oldest API that has everything we ask for.
const MINIMUM_VERSION: ClientVersion = ClientVersion {
    major_version: 1,
    minor_version: 41,
};

/// How long a call may take before we say that we are waiting.
const PATIENCE: Duration = Duration::from_secs(3);

/// The client's own limit for an answer's first byte, in seconds: out of the way, since every call has a deadline
/// and a stream has none.
const CLIENT_TIMEOUT: u64 = 30 * 24 * 3600;

/// A call to the engine, and how long it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Operation {
    /// What is done, as "to …" would go on.
    pub(super) name: &'static str,
    /// How long it may take; a stream has no limit.
    pub(super) deadline: Duration,
}

impl Operation {
    const fn new(name: &'static str, seconds: u64) -> Self {
        Self {
            name,
            deadline: Duration::from_secs(seconds),
        }
    }

    const fn stream(name: &'static str) -> Self {
        Self {
            name,
            deadline: Duration::MAX,
        }
    }
}

pub(super) const NEGOTIATE: Operation = Operation::new("tell its version", 10);
pub(super) const INFO: Operation = Operation::new("tell its capabilities", 20);
pub(super) const PROBE: Operation = Operation::new("look for a folder of this machine", 20);
pub(super) const INSPECT_IMAGE: Operation = Operation::new("inspect the image", 20);
pub(super) const PULL: Operation = Operation::stream("pull the image");
pub(super) const CREATE: Operation = Operation::new("create the container", 30);
pub(super) const ATTACH: Operation = Operation::new("attach to the container", 20);
pub(super) const START: Operation = Operation::new("start the container", 30);
pub(super) const INSPECT: Operation = Operation::new("inspect the container", 15);
pub(super) const WAIT: Operation = Operation::stream("wait for the container");
pub(super) const LOGS: Operation = Operation::stream("read the container's log");
/// The engine waits up to 10 s for a container that it kills.
pub(super) const KILL: Operation = Operation::new("signal the container", 20);
pub(super) const PAUSE: Operation = Operation::new("pause the container", 20);
pub(super) const UNPAUSE: Operation = Operation::new("let the container go on", 20);
pub(super) const REMOVE: Operation = Operation::new("remove the container", 30);
pub(super) const EVENTS: Operation = Operation::new("tell what happened to the container", 10);
pub(super) const EXEC: Operation = Operation::new("execute a program in the container", 30);
pub(super) const RESIZE: Operation = Operation::new("change the size of a terminal", 10);
pub(super) const INSPECT_EXEC: Operation = Operation::new("tell how a program ended", 15);
pub(super) const USAGE: Operation = Operation::new("measure the container", 15);
/// It looks at each file of the container.
pub(super) const MEASURE: Operation = Operation::new("measure the container's file system", 300);
/// It copies what the container has written.
pub(super) const COMMIT: Operation = Operation::new("copy the container", 600);
pub(super) const REMOVE_IMAGE: Operation = Operation::new("remove the image", 60);
pub(super) const LIST_IMAGES: Operation = Operation::new("list images", 60);
pub(super) const LIST: Operation = Operation::new("list containers", 30);

/// A call that did not succeed.
#[derive(Debug)]
pub(super) enum Fault {
    /// The engine answered, with this HTTP status.
    Status {
        /// What was asked for.
        operation: Operation,
        /// The status.
        code: u16,
        /// The engine's words.
        message: String,
    },
    /// Anything else.
    Other(EngineError),
}

impl From<Fault> for EngineError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Status {
                operation, message, ..
            } => Self::Failed {
                operation: operation.name.to_owned(),
                source: message.into(),
            },
            Fault::Other(error) => error,
        }
    }
}

impl From<EngineError> for Fault {
    fn from(error: EngineError) -> Self {
        Self::Other(error)
    }
}

/// The connection to one engine: contacted when it is first needed, and one connection for each call.
#[derive(Debug, Clone)]
pub(super) struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    endpoint: DockerEndpoint,
    docker: OnceCell<Docker>,
    /// The process that listened on the engine's socket when it was first contacted.
    listener: OnceLock<u32>,
    /// Which engine answered when it was first contacted.
    dialect: OnceLock<Dialect>,
}

impl Client {
    pub(super) fn new(endpoint: DockerEndpoint) -> Self {
        Self {
            inner: Arc::new(Inner {
                endpoint,
                docker: OnceCell::new(),
                listener: OnceLock::new(),
                dialect: OnceLock::new(),
            }),
        }
    }

    /// Returns where the engine is, for people.
    pub(super) fn endpoint(&self) -> String {
        self.inner.endpoint.to_string()
    }

    /// Returns where the engine is, as it is connected to.
    pub(super) fn address(&self) -> &Address {
        &self.inner.endpoint.address
    }

    /// Returns which engine it is; before it was contacted, which one it has to be, or else Docker.
    pub(super) fn dialect(&self) -> Dialect {
        let known = self.inner.dialect.get().copied();
        known
            .or(self.inner.endpoint.only)
            .unwrap_or(Dialect::Docker)
    }

    /// Returns the client; the first time, the API's version is negotiated.
    pub(super) async fn docker(&self) -> Result<&Docker, EngineError> {
        self.inner.docker.get_or_try_init(|| self.connect()).await
    }

    /// Returns what tells this engine from another one at the same endpoint; `None` before it was contacted, and where
    /// that cannot be told.
    pub(super) fn mark(&self) -> Option<Mark> {
        let Address::Unix(socket) = self.address() else {
            return None;
        };
        Mark::of(Path::new(socket), *self.inner.listener.get()?)
    }

    /// Makes a call that is bounded by its deadline, and says so once if it takes long.
    pub(super) async fn call<T>(
        &self,
        operation: Operation,
        request: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, Fault> {
        let mut request = std::pin::pin!(timeout(operation.deadline, request));
        let result = tokio::select! {
            result = &mut request => result,
            () = sleep(PATIENCE) => {
                tracing::warn!(endpoint = %self.inner.endpoint, "waiting for the container engine to {}", operation.name);
                request.await
            }
        };
        match result {
            Ok(result) => result.map_err(|error| self.fault(operation, error)),
            Err(elapsed) => Err(Fault::Other(self.unreachable(operation, elapsed))),
        }
    }

    /// Asks for what is at a path of the API, of which `T` has what is needed.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        operation: Operation,
        path: &str,
    ) -> Result<T, Fault> {
        let version = self.docker().await?.client_version();
        let path = format!("/v{version}{path}");
        // On the heap: it is part of every future that asks for anything.
        let question = Box::pin(question::get(self.address(), &path));
        self.call(operation, question).await
    }

    /// Makes a call that is known to take long, bounded by its deadline.
    pub(super) async fn call_slow<T>(
        &self,
        operation: Operation,
        request: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, Fault> {
        match timeout(operation.deadline, request).await {
            Ok(result) => result.map_err(|error| self.fault(operation, error)),
            Err(elapsed) => Err(Fault::Other(self.unreachable(operation, elapsed))),
        }
    }

    /// Returns what an error of the client means.
    pub(super) fn fault(&self, operation: Operation, error: ClientError) -> Fault {
        match error {
            ClientError::DockerResponseServerError {
                status_code,
                message,
            } => Fault::Status {
                operation,
                code: status_code,
                message,
            },
            ClientError::RequestTimeoutError
            | ClientError::IOError { .. }
            | ClientError::HyperResponseError { .. }
            | ClientError::HyperLegacyError { .. }
            | ClientError::SocketNotFoundError(_) => {
                Fault::Other(self.unreachable(operation, error))
            }
            error => Fault::Other(EngineError::Failed {
                operation: operation.name.to_owned(),
                source: error.into(),
            }),
        }
    }

    /// Returns the error for a stream that ended before it said anything.
    pub(super) fn cut(&self, operation: Operation) -> EngineError {
        self.unreachable(operation, io::Error::from(io::ErrorKind::UnexpectedEof))
    }

    /// Returns the error for an engine that could not be asked: not there, or not for us.
    pub(super) fn unreachable(
        &self,
        operation: Operation,
        source: impl Error + Send + Sync + 'static,
    ) -> EngineError {
        let endpoint = self.endpoint();
        if is_denied(&source) {
            EngineError::PermissionDenied {
                endpoint,
                source: source.into(),
            }
        } else {
            EngineError::Unreachable {
                endpoint,
                operation: operation.name,
                source: source.into(),
            }
        }
    }

    async fn connect(&self) -> Result<Docker, EngineError> {
        let address = self.address();
        let ping = async {
            ping(address)
                .await
                .map_err(|err| ClientError::IOError { err })
        };
        let unsupported = |reason| EngineError::Unsupported {
            endpoint: self.endpoint(),
            reason,
            advice: None,
        };
        let pong = self.call(NEGOTIATE, ping).await?;
        if let Some(listener) = pong.listener {
            let _first = self.inner.listener.set(listener);
        }
        if let Some(only) = self.inner.endpoint.only
            && only != pong.dialect
        {
            let (found, wanted) = (pong.dialect.title(), only.title());
            return Err(unsupported(format!(
                "it is {found}, and {wanted} is asked for"
            )));
        }
        let _first = self.inner.dialect.set(pong.dialect);
        let newest = pong
            .version
            .ok_or_else(|| unsupported("it does not say which version its API has".to_owned()))?;
        if newest < MINIMUM_VERSION {
            return Err(unsupported(format!(
                "its API is version {newest}, and {MINIMUM_VERSION} is needed"
            )));
        }
        let version = if newest < *API_DEFAULT_VERSION {
            newest
        } else {
            *API_DEFAULT_VERSION
        };
        let docker = match address {
            Address::Unix(path) => Docker::connect_with_unix(path, CLIENT_TIMEOUT, &version),
            Address::Tcp(address) => Docker::connect_with_http(address, CLIENT_TIMEOUT, &version),
        };
        let docker = docker.map_err(|error| self.fault(NEGOTIATE, error))?;
        Ok(docker.with_request_modifier(move |request| pin(request, version)))
    }
}

/// Asks for the negotiated version of the API: the client negotiates it, but leaves it out of its paths. A login is put into the
/// alphabet that engines read, which is that of URLs.
fn pin(request: BollardRequest, version: ClientVersion) -> BollardRequest {
    let (mut head, body) = request.into_parts();
    let mut uri = head.uri.clone().into_parts();
    if let Some(path) = &uri.path_and_query
        && let Ok(path) = format!("/v{version}{path}").parse()
    {
        uri.path_and_query = Some(path);
        if let Ok(uri) = uri.try_into() {
            head.uri = uri;
        }
    }
    if let Some(login) = head.headers.get_mut(LOGIN_HEADER)
        && let Ok(text) = login.to_str()
        && let Ok(text) = text.replace('+', "-").replace('/', "_").parse()
    {
        *login = text;
        login.set_sensitive(true);
    }
    BollardRequest::from_parts(head, body)
}

/// Returns whether the operating system's refusal is among an error's causes.
fn is_denied(error: &(dyn Error + 'static)) -> bool {
    // Both of these stand in for what they wrap: its cause is their cause, and it is none itself.
    if let Some(ClientError::IOError { err }) = error.downcast_ref() {
        return is_denied(err);
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return error.kind() == io::ErrorKind::PermissionDenied
            || error.get_ref().is_some_and(|wrapped| is_denied(wrapped));
    }
    error.source().is_some_and(is_denied)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn client() -> Client {
        Client::new(
            DockerEndpoint::resolve(Some("unix:///nowhere.sock"), &BTreeMap::new()).unwrap(),
        )
    }

    fn fault(error: ClientError) -> Fault {
        client().fault(INSPECT, error)
    }

    #[test]
    fn a_refused_socket_is_a_missing_permission_however_deep_it_is() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let nested = ClientError::IOError {
            err: io::Error::other(ClientError::IOError { err: denied() }),
        };

        for error in [ClientError::IOError { err: denied() }, nested] {
            let fault = fault(error);
            assert!(
                matches!(fault, Fault::Other(EngineError::PermissionDenied { .. })),
                "{fault:?}"
            );
        }
    }

    #[test]
    fn a_connection_that_breaks_says_nothing_about_a_container() {
        let reset = ClientError::IOError {
            err: io::Error::from(io::ErrorKind::ConnectionReset),
        };

        for error in [
            reset,
            ClientError::RequestTimeoutError,
            ClientError::SocketNotFoundError("s".into()),
        ] {
            let fault = fault(error);
            assert!(
                matches!(fault, Fault::Other(EngineError::Unreachable { .. })),
                "{fault:?}"
            );
        }
    }

    #[test]
    fn an_answer_keeps_its_status() {
        let answer = ClientError::DockerResponseServerError {
            status_code: 409,
            message: "busy".into(),
        };

        assert!(matches!(fault(answer), Fault::Status { code: 409, .. }));
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_unreachable() {
        let error = client().docker().await.unwrap_err();

        assert!(
            matches!(error, EngineError::Unreachable { .. }),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn a_call_that_is_not_answered_ends_at_its_deadline() {
        let operation = Operation {
            deadline: Duration::from_millis(1),
            ..INSPECT
        };

        let fault = client()
            .call(operation, std::future::pending::<Result<(), _>>())
            .await
            .unwrap_err();

        assert!(matches!(
            fault,
            Fault::Other(EngineError::Unreachable {
                operation: "inspect the container",
                ..
            })
        ));
    }
}
