//! The keys that the guard is told, as they are when a way is opened.
//!
//! Owns: running the program that prints a key, once for an attempt, and how long what it printed is good for another.
//! Reads: where keys are on this machine; see `dark_factory_executor::keys`.
//! Never: writes a key anywhere, or puts one into an error.

use std::collections::BTreeMap;
use std::io;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dark_factory_agents::neutralise;
use dark_factory_executor::egress::run_token;
use dark_factory_executor::host::HostView;
use dark_factory_executor::keys::{FoundValue, KeySources};
use dark_factory_guard::{Broker, Key, Secret};
use dark_factory_types::{AttemptId, Provider};
use tokio::process::Command;
use tokio::time::{Instant, timeout};

/// How long a program may take to print a key: less than an attempt waits for its way.
const PATIENCE: Duration = Duration::from_secs(25);
/// For how long what it printed is good for another attempt, and how long its failure counts for the same one.
const FRESH: Duration = Duration::from_secs(60);
/// The longest key, in bytes.
const KEY_CAP: usize = 16 << 10;
/// What is shown of a program's words, in characters.
const SHOWN: usize = 300;

/// Gets keys, and remembers what programs printed: some ask a person each time.
#[derive(Debug)]
pub(crate) struct Keyring {
    sources: KeySources,
    host: HostView,
    /// Held while a program runs, so that of several that want its key one runs it.
    turn: tokio::sync::Mutex<()>,
    memory: Mutex<Memory>,
}

/// A program and its arguments.
type Argv = Vec<String>;

#[derive(Debug, Default)]
struct Memory {
    /// What each program printed last.
    latest: BTreeMap<Argv, Printed>,
    /// What came of it for each attempt that is not finished: the key that its way has, and its logs hide.
    of_attempts: BTreeMap<(AttemptId, Argv), Printed>,
}

#[derive(Clone)]
struct Printed {
    at: Instant,
    /// The key, or why there is none.
    said: Result<String, String>,
}

impl std::fmt::Debug for Printed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Printed").finish_non_exhaustive()
    }
}

impl Memory {
    /// Returns what a program is known to have said to an attempt, or just now to another one.
    fn known(&mut self, argv: &Argv, attempt: AttemptId, fresh: Duration) -> Option<Printed> {
        let of_attempt = (attempt, argv.clone());
        let is_fresh = |printed: &Printed| printed.at.elapsed() < fresh;
        if let Some(printed) = self.of_attempts.get(&of_attempt)
            && (printed.said.is_ok() || is_fresh(printed))
        {
            return Some(printed.clone());
        }
        let printed = self.latest.get(argv).filter(|printed| is_fresh(printed))?;
        let printed = printed.clone();
        self.of_attempts.insert(of_attempt, printed.clone());
        Some(printed)
    }

    fn keep(&mut self, argv: Argv, attempt: AttemptId, printed: &Printed) {
        if printed.said.is_ok() {
            self.latest.insert(argv.clone(), printed.clone());
        }
        self.of_attempts.insert((attempt, argv), printed.clone());
    }
}

impl Keyring {
    pub(crate) fn new(sources: KeySources, host: HostView) -> Self {
        Self {
            sources,
            host,
            turn: tokio::sync::Mutex::default(),
            memory: Mutex::default(),
        }
    }

    /// Returns what the guard needs for an attempt's requests to a provider.
    pub(crate) async fn broker(
        &self,
        provider: Provider,
        attempt: AttemptId,
    ) -> io::Result<Broker> {
        Ok(Broker {
            provider,
            base: self.sources.base(provider, &self.host),
            token: run_token(attempt),
            key: match self.value(provider, attempt).await? {
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
    pub(crate) async fn secrets(&self, provider: Provider, attempt: AttemptId) -> Vec<String> {
        match self.value(provider, attempt).await {
            Ok(FoundValue::ApiKey(key) | FoundValue::Bearer(key)) => vec![key],
            Ok(FoundValue::ClaudeFolder(folder)) => dark_factory_executor::keys::tokens(&folder),
            Ok(FoundValue::Command(_)) | Err(_) => Vec::new(),
        }
    }

    /// Forgets what an attempt had, which is over.
    pub(crate) fn forget(&self, attempt: AttemptId) {
        self.memory()
            .of_attempts
            .retain(|(of, _), _| *of != attempt);
    }

    async fn value(&self, provider: Provider, attempt: AttemptId) -> io::Result<FoundValue> {
        let (sources, host) = (self.sources.clone(), self.host.clone());
        let find = move || sources.find(provider, &host);
        let found = tokio::task::spawn_blocking(find).await?;
        let found = found.map_err(no_key)?;
        match found.key {
            FoundValue::Command(argv) => {
                let key = self.printed(argv, attempt).await?;
                Ok(FoundValue::of(provider, key))
            }
            key => Ok(key),
        }
    }

    /// Returns what a program prints. An attempt has it run once, whatever becomes of its way; if it fails, it is asked
    /// again only after a while.
    async fn printed(&self, argv: Argv, attempt: AttemptId) -> io::Result<String> {
        let _turn = self.turn.lock().await;
        let known = self.memory().known(&argv, attempt, FRESH);
        let printed = match known {
            Some(known) => known,
            None => {
                let said = print(&argv, &self.host).await;
                let at = Instant::now();
                let printed = Printed { at, said };
                self.memory().keep(argv, attempt, &printed);
                printed
            }
        };
        printed.said.map_err(no_key)
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the error of a way that needs a key which cannot be had.
fn no_key(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// Runs a program that prints a key; the error says what came of it.
async fn print(argv: &[String], host: &HostView) -> Result<String, String> {
    let failed = |why: String| {
        let line = argv.join(" ");
        format!("the program that prints the key, {line:?}, {why}")
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

#[cfg(test)]
mod tests {
    use std::fs;

    use dark_factory_executor::settings::{KeySource, Sourced, ToolSettings};

    use super::*;

    /// A keyring whose key a program prints, which leaves a line in a file each time.
    struct Vault {
        keyring: Keyring,
        folder: tempfile::TempDir,
    }

    impl Vault {
        fn of(script: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let host = HostView {
                cwd: folder.path().to_owned(),
                ..HostView::default()
            };
            let script = format!("echo asked >> asked; {script}");
            let argv = ["sh", "-c", &script].map(str::to_owned).to_vec();
            let source = Sourced::flag("--api-key", KeySource::Command(argv));
            let tool = ToolSettings {
                api_key: [(Provider::Openai.to_string(), source)].into(),
                ..ToolSettings::default()
            };
            Self {
                keyring: Keyring::new(KeySources::new(&tool, &host), host),
                folder,
            }
        }

        fn asked(&self) -> usize {
            let lines = fs::read_to_string(self.folder.path().join("asked")).unwrap();
            lines.lines().count()
        }

        /// Lets time pass after which nothing is fresh.
        fn age(&self) {
            let mut memory = self.keyring.memory();
            let Memory {
                latest,
                of_attempts,
            } = &mut *memory;
            for printed in latest.values_mut().chain(of_attempts.values_mut()) {
                printed.at = printed.at.checked_sub(FRESH).unwrap();
            }
        }

        async fn opens(&self, attempt: &str) -> io::Result<Broker> {
            let attempt = attempt.parse().unwrap();
            self.keyring.broker(Provider::Openai, attempt).await
        }

        async fn hidden(&self, attempt: &str) -> Vec<String> {
            let attempt = attempt.parse().unwrap();
            self.keyring.secrets(Provider::Openai, attempt).await
        }
    }

    const ONE: &str = "k3v9x2m7qa1b-1";
    const OTHER: &str = "k3v9x2m7qa1c-1";

    #[tokio::test]
    async fn an_attempt_has_a_program_print_its_key_once_however_long_it_takes() {
        let vault = Vault::of("wc -l < asked");

        let opened = vault.opens(ONE).await.unwrap();
        vault.age();
        let hidden = vault.hidden(ONE).await;
        let again = vault.opens(ONE).await.unwrap();

        assert_eq!(vault.asked(), 1);
        assert_eq!(hidden, ["1"]);
        assert_eq!(
            (&opened.key, &opened),
            (&Key::ApiKey(Secret("1".to_owned())), &again)
        );
    }

    #[tokio::test]
    async fn attempts_at_the_same_time_share_a_key_and_a_later_one_gets_a_new_one() {
        let vault = Vault::of("wc -l < asked");

        let (one, other) = tokio::join!(vault.opens(ONE), vault.opens(OTHER));
        assert_eq!((one.unwrap().key, vault.asked()), (other.unwrap().key, 1));
        vault.age();
        vault.opens("k3v9x2m7qa1d-1").await.unwrap();

        assert_eq!(vault.asked(), 2);
        assert_eq!(vault.hidden(ONE).await, ["1"]);
        vault.keyring.forget(ONE.parse().unwrap());
        assert_eq!(vault.hidden(ONE).await, ["2"]);
    }

    #[tokio::test]
    async fn a_program_that_fails_is_asked_again_by_another_attempt_or_after_a_while() {
        let vault = Vault::of("exit 3");

        let first = vault.opens(ONE).await.unwrap_err();
        assert!(vault.hidden(ONE).await.is_empty());
        let again = vault.opens(ONE).await.unwrap_err();
        assert_eq!((first.to_string(), vault.asked()), (again.to_string(), 1));
        assert_eq!(again.kind(), io::ErrorKind::InvalidInput);

        vault.opens(OTHER).await.unwrap_err();
        assert_eq!(vault.asked(), 2);
        vault.age();
        vault.opens(ONE).await.unwrap_err();
        assert_eq!(vault.asked(), 3);
    }
}
