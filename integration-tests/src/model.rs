//! The scripted model server that the real agent talks to.
//!
//! Owns: the server's process.
//! Reads: its log of requests.
//! Never: reaches a real model; any API key will do.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A model server with one scenario; it ends with the test.
///
/// `python3 integration-tests/mock_model.py --list` names the scenarios.
#[derive(Debug)]
pub struct MockModel {
    server: Child,
    port: u16,
    folder: TempDir,
}

impl MockModel {
    /// Starts a server and returns once it listens.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn start(scenario: &str) -> Self {
        Self::serve(scenario, None)
    }

    /// Starts a server that answers to this key only.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn expecting(key: &str, scenario: &str) -> Self {
        Self::serve(scenario, Some(key))
    }

    fn serve(scenario: &str, key: Option<&str>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port_file = folder.path().join("port");
        let mut server = Command::new("python3")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("mock_model.py"))
            // Containers reach the host by the bridge's address, which differs between hosts.
            .args(["--host", "0.0.0.0", "--scenario", scenario, "--port-file"])
            .arg(&port_file)
            .arg("--log")
            .arg(folder.path().join("requests.jsonl"))
            .args(key.map(|key| format!("--expect-key={key}")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("python3 can be started");
        let deadline = Instant::now() + START_TIMEOUT;
        let port = loop {
            if let Ok(port) = fs::read_to_string(&port_file) {
                break port.parse().expect("the port file holds a number");
            }
            let ended = server.try_wait().expect("the server is our child");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "the model server does not start: {ended:?}"
            );
            thread::sleep(Duration::from_millis(20));
        };
        Self {
            server,
            port,
            folder,
        }
    }

    /// Returns `ANTHROPIC_BASE_URL` for a container whose network is open.
    pub fn base_url(&self) -> String {
        format!("http://host.docker.internal:{}", self.port)
    }

    /// Returns where it is for processes of this machine.
    pub fn local_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns the port that it listens at, on every address of this machine.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the requests so far, in order: `path`, `status`, `step`, `model`, `auth` and more of each.
    ///
    /// # Panics
    ///
    /// If the server's log is not JSON.
    pub fn requests(&self) -> Vec<serde_json::Value> {
        let log = fs::read_to_string(self.folder.path().join("requests.jsonl")).unwrap_or_default();
        log.lines()
            .map(|line| serde_json::from_str(line).expect("a request is JSON"))
            .collect()
    }
}

impl Drop for MockModel {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing left to do then.
        let killed = self.server.kill();
        let waited = self.server.wait();
        assert!(
            (killed.is_ok() && waited.is_ok()) || thread::panicking(),
            "the model server cannot be stopped"
        );
    }
}
