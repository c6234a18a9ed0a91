//! Logins of Claude Code, which end every few hours and are renewed with a token that works once.
//!
//! Owns: who renews: one at a time in this guard, and one guard at a time by a lock in the folder.
//! Reads: the file with the login, which Claude Code may write too.
//! Never: uses a new token before it is on the disk.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dark_factory_agents::CLAUDE_LOGIN;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::{Method, Request};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::upstream::HttpClient;
use crate::file_journal::Now;

/// The file in that folder that is locked while the login is renewed.
const LOCK: &str = ".dark-factory.lock";
/// The name under which Claude Code is known where logins are renewed.
const CLIENT_ID: &str = "9d1c250a-e61b-44d9-88ed-5944d1962f5e";
/// How long before its end a token is renewed, in milliseconds.
const EARLY: i64 = 5 * 60 * 1000;
/// How long a renewal may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest answer to it, in bytes.
const LONGEST: usize = 1 << 20;

/// A login that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum LoginError {
    #[error("the login with Claude in {} has ended ({why}): run `claude` on the host and type /login", folder.display())]
    Ended { folder: PathBuf, why: String },
    #[error("the login with Claude in {} cannot be renewed now: {why}", folder.display())]
    Unavailable { folder: PathBuf, why: String },
}

/// All logins that runs use.
#[derive(Debug)]
pub(crate) struct Logins {
    known: Mutex<BTreeMap<PathBuf, Arc<Login>>>,
    endpoint: String,
    now: Now,
    tasks: TaskTracker,
}

/// The login in one folder.
#[derive(Debug)]
struct Login {
    folder: PathBuf,
    state: tokio::sync::Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tokens: Option<Tokens>,
    /// What was renewed and could not be written.
    unsaved: Option<Value>,
}

/// What of a login is used.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tokens {
    access_token: String,
    #[serde(default)]
    refresh_token: Option<String>,
    /// In milliseconds since 1970.
    #[serde(default)]
    expires_at: Option<i64>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

impl Tokens {
    fn is_fresh(&self, now: i64, rejected: Option<&str>) -> bool {
        let lasts = self.expires_at.is_none_or(|end| now < end - EARLY);
        lasts && rejected != Some(self.access_token.as_str())
    }
}

/// The answer to a renewal.
#[derive(Deserialize)]
struct Renewed {
    access_token: String,
    refresh_token: Option<String>,
    /// In seconds.
    expires_in: Option<i64>,
}

impl Logins {
    pub(crate) fn new(endpoint: String, now: Now) -> Arc<Self> {
        Arc::new(Self {
            known: Mutex::default(),
            endpoint,
            now,
            tasks: TaskTracker::new(),
        })
    }

    /// Returns a token that works, renewing the login by this client if it is about to end or its token was rejected.
    /// Cancel-safe: what was begun goes on.
    pub(crate) async fn token(
        self: &Arc<Self>,
        client: HttpClient,
        folder: &Path,
        rejected: Option<&str>,
    ) -> Result<String, LoginError> {
        let login = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let login = known.entry(folder.to_owned()).or_insert_with(|| {
                Arc::new(Login {
                    folder: folder.to_owned(),
                    state: tokio::sync::Mutex::default(),
                })
            });
            Arc::clone(login)
        };
        let (logins, rejected) = (Arc::clone(self), rejected.map(str::to_owned));
        let renewed = self.tasks.spawn(async move {
            let mut state = login.state.lock().await;
            logins
                .fresh(&client, &login.folder, &mut state, rejected.as_deref())
                .await
        });
        renewed.await.unwrap_or_else(|error| {
            Err(LoginError::Unavailable {
                folder: folder.to_owned(),
                why: error.to_string(),
            })
        })
    }

    async fn fresh(
        &self,
        client: &HttpClient,
        folder: &Path,
        state: &mut State,
        rejected: Option<&str>,
    ) -> Result<String, LoginError> {
        let unavailable = |error: io::Error| LoginError::Unavailable {
            folder: folder.to_owned(),
            why: error.to_string(),
        };
        let now = (self.now)().as_millisecond();
        if let Some(unsaved) = state.unsaved.take()
            && let Err(error) = save(folder, &unsaved)
        {
            state.unsaved = Some(unsaved);
            return Err(unavailable(error));
        }
        if let Some(tokens) = state
            .tokens
            .as_ref()
            .filter(|tokens| tokens.is_fresh(now, rejected))
        {
            return Ok(tokens.access_token.clone());
        }
        let (_, tokens) = read(folder)?;
        if tokens.is_fresh(now, rejected) {
            return Ok(state.keep(tokens));
        }
        let _lock = lock(folder).await.map_err(unavailable)?;
        // Another may have renewed it while we waited.
        let (document, tokens) = read(folder)?;
        if tokens.is_fresh(now, rejected) {
            return Ok(state.keep(tokens));
        }
        match self.renew(client, folder, &tokens).await {
            Ok(renewed) => {
                let (document, tokens) = merged(document, renewed, now);
                if let Err(error) = save(folder, &document) {
                    // The old one works no longer: this one must not be lost.
                    state.unsaved = Some(document);
                    return Err(unavailable(error));
                }
                Ok(state.keep(tokens))
            }
            Err(error) => {
                // Claude Code may have renewed it meanwhile, without our lock.
                let (_, again) = read(folder)?;
                if again.access_token != tokens.access_token && again.is_fresh(now, rejected) {
                    return Ok(state.keep(again));
                }
                let still_works = tokens.expires_at.is_none_or(|end| now < end)
                    && rejected != Some(tokens.access_token.as_str());
                match error {
                    LoginError::Unavailable { .. } if still_works => Ok(tokens.access_token),
                    error => Err(error),
                }
            }
        }
    }

    async fn renew(
        &self,
        client: &HttpClient,
        folder: &Path,
        tokens: &Tokens,
    ) -> Result<Renewed, LoginError> {
        let ended = |why: String| LoginError::Ended {
            folder: folder.to_owned(),
            why,
        };
        let unavailable = |why: String| LoginError::Unavailable {
            folder: folder.to_owned(),
            why,
        };
        let refresh = tokens
            .refresh_token
            .as_deref()
            .ok_or_else(|| ended("it has no token to renew it with".to_owned()))?;
        let body = json!({
            "grant_type": "refresh_token",
            "refresh_token": refresh,
            "client_id": CLIENT_ID,
        });
        let body = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {});
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.endpoint)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json")
            .body(body.boxed())
            .map_err(|error| unavailable(error.to_string()))?;
        let asked = async {
            let response = client
                .request(request)
                .await
                .map_err(|error| error.to_string())?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LONGEST).collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            Ok::<_, String>((status, body))
        };
        let (status, body) = timeout(PATIENCE, asked)
            .await
            .map_err(|_late| unavailable("no answer in time".to_owned()))?
            .map_err(unavailable)?;
        match status.as_u16() {
            200..=299 => serde_json::from_slice(&body)
                .map_err(|_| unavailable("the answer is not readable".to_owned())),
            // The answer's text could have what was sent.
            400 | 401 | 403 => Err(ended(format!("its renewal was refused with {status}"))),
            _ => Err(unavailable(format!("the answer was {status}"))),
        }
    }
}

impl State {
    fn keep(&mut self, tokens: Tokens) -> String {
        let token = tokens.access_token.clone();
        self.tokens = Some(tokens);
        token
    }
}

/// Reads the file with the login.
fn read(folder: &Path) -> Result<(Value, Tokens), LoginError> {
    let ended = |why: String| LoginError::Ended {
        folder: folder.to_owned(),
        why,
    };
    let (file, login) = CLAUDE_LOGIN;
    let text = fs::read(folder.join(file)).map_err(|error| ended(format!("{file}: {error}")))?;
    let unreadable = || ended(format!("{file} has no login"));
    let document: Value = serde_json::from_slice(&text).map_err(|_| unreadable())?;
    let tokens = document.get(login).ok_or_else(unreadable)?;
    let tokens = Tokens::deserialize(tokens).map_err(|_| unreadable())?;
    Ok((document, tokens))
}

/// Returns the file's content with the new tokens in it; all else stays.
fn merged(mut document: Value, renewed: Renewed, now: i64) -> (Value, Tokens) {
    let login = &mut document[CLAUDE_LOGIN.1];
    login["accessToken"] = json!(renewed.access_token);
    if let Some(refresh) = &renewed.refresh_token {
        login["refreshToken"] = json!(refresh);
    }
    let end = renewed
        .expires_in
        .map(|seconds| now.saturating_add(seconds.saturating_mul(1000)));
    login["expiresAt"] = json!(end);
    let tokens = Tokens {
        access_token: renewed.access_token,
        refresh_token: login["refreshToken"].as_str().map(str::to_owned),
        expires_at: end,
    };
    (document, tokens)
}

/// Puts the file in place as a whole, with the mode that it has.
fn save(folder: &Path, document: &Value) -> io::Result<()> {
    // Where it is a link, what it leads to is replaced.
    let path = fs::canonicalize(folder.join(CLAUDE_LOGIN.0))?;
    let mode = fs::metadata(&path)?.permissions().mode() & 0o777;
    let beside = path.with_extension(format!("json.dark-factory-{}", std::process::id()));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(document.to_string().as_bytes())?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()?;
    fs::rename(&beside, &path)?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Keeps other guards from renewing the same login.
async fn lock(folder: &Path) -> io::Result<File> {
    let path = folder.join(LOCK);
    let locked = tokio::task::spawn_blocking(move || {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        file.lock()?;
        Ok(file)
    });
    locked.await.map_err(io::Error::other)?
}
