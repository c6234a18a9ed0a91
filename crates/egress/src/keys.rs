//! The keys that the guard is told, as they are when a way is opened.
//!
//! Owns: running the program that prints a key, and how long what it printed is good for.
//! Reads: where keys are on this machine; see `dark_factory_executor::keys`.
//! Never: writes a key anywhere, or puts one into an error.

use std::collections::BTreeMap;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use dark_factory_agents::neutralise;
use dark_factory_executor::egress::run_token;
use dark_factory_executor::host::HostView;
use dark_factory_executor::keys::{FoundValue, KeySources};
use dark_factory_guard::{Broker, Key, Secret};
use dark_factory_types::{AttemptId, Provider};
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// How long a program may take to print a key: less than an attempt waits for its way.
const PATIENCE: Duration = Duration::from_secs(25);
/// For how long what it printed is not asked for again.
const FRESH: Duration = Duration::from_secs(60);
/// The longest key, in bytes.
const KEY_CAP: usize = 16 << 10;
/// What is shown of a program's words, in characters.
const SHOWN: usize = 300;

/// Gets keys, and remembers for a moment what programs printed.
#[derive(Debug)]
pub(super) struct Keyring {
    sources: KeySources,
    host: HostView,
    printed: Mutex<BTreeMap<Vec<String>, Printed>>,
}

struct Printed {
    at: Instant,
    key: String,
}

impl std::fmt::Debug for Printed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Printed").finish_non_exhaustive()
    }
}

impl Keyring {
    pub(super) fn new(sources: KeySources, host: HostView) -> Self {
        Self {
            sources,
            host,
            printed: Mutex::default(),
        }
    }

    /// Returns what the guard needs for an attempt's requests to a provider.
    pub(super) async fn broker(
        &self,
        provider: Provider,
        attempt: AttemptId,
    ) -> io::Result<Broker> {
        Ok(Broker {
            provider,
            base: self.sources.base(provider, &self.host),
            token: run_token(attempt),
            key: match self.value(provider).await? {
                FoundValue::ApiKey(key) => Key::ApiKey(Secret(key)),
                FoundValue::Bearer(token) => Key::Bearer(Secret(token)),
                FoundValue::ClaudeFolder(folder) => Key::ClaudeFolder(folder),
                FoundValue::Command(_) => {
                    return Err(io::Error::other("a program prints no program"));
                }
            },
        })
    }

    /// Returns the texts that are a provider's key, to be hidden; none if it cannot be had.
    pub(super) async fn secrets(&self, provider: Provider) -> Vec<String> {
        match self.value(provider).await {
            Ok(FoundValue::ApiKey(key) | FoundValue::Bearer(key)) => vec![key],
            Ok(FoundValue::ClaudeFolder(folder)) => dark_factory_executor::keys::tokens(&folder),
            Ok(FoundValue::Command(_)) | Err(_) => Vec::new(),
        }
    }

    async fn value(&self, provider: Provider) -> io::Result<FoundValue> {
        let (sources, host) = (self.sources.clone(), self.host.clone());
        let find = move || sources.find(provider, &host);
        let found = tokio::task::spawn_blocking(find).await?;
        let found = found.map_err(no_key)?;
        match found.key {
            FoundValue::Command(argv) => {
                let key = self.printed(argv).await?;
                Ok(FoundValue::of(provider, key))
            }
            key => Ok(key),
        }
    }

    /// Returns what a program prints; of several that want it at once, one runs it.
    async fn printed(&self, argv: Vec<String>) -> io::Result<String> {
        let mut printed = self.printed.lock().await;
        if let Some(known) = printed.get(&argv)
            && known.at.elapsed() < FRESH
        {
            return Ok(known.key.clone());
        }
        let key = print(&argv, &self.host).await?;
        let at = Instant::now();
        printed.insert(
            argv,
            Printed {
                at,
                key: key.clone(),
            },
        );
        Ok(key)
    }
}

/// Returns the error of a way that needs a key which cannot be had.
fn no_key(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// Runs a program that prints a key.
async fn print(argv: &[String], host: &HostView) -> io::Result<String> {
    let failed = |why: String| {
        let line = argv.join(" ");
        no_key(format!("the program that prints the key, {line:?}, {why}"))
    };
    let [program, arguments @ ..] = argv else {
        return Err(failed("is none".to_owned()));
    };
    let child = Command::new(program)
        .args(arguments)
        .current_dir(&host.cwd)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(format!("cannot be started: {error}")))?;
    let output = timeout(PATIENCE, child.wait_with_output())
        .await
        .map_err(|_| failed(format!("did not end within {}s", PATIENCE.as_secs())))?
        .map_err(|error| failed(format!("cannot be read: {error}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said: String = neutralise(said.trim()).chars().take(SHOWN).collect();
        return Err(failed(match said.as_str() {
            "" => format!("failed ({})", output.status),
            said => format!("failed ({}): {said}", output.status),
        }));
    }
    let key = String::from_utf8(output.stdout).ok();
    let key = key.as_deref().map(str::trim).unwrap_or_default();
    let is_key = !key.is_empty() && key.len() <= KEY_CAP && !key.contains(char::is_control);
    if is_key {
        Ok(key.to_owned())
    } else {
        Err(failed("printed no single line with a key".to_owned()))
    }
}
