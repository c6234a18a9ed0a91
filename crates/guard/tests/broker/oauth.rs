//! Logins of Claude Code: used, renewed once, never lost.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dark_factory_guard::{Ask, EGRESS_SOCKET, Key};
use dark_factory_types::{Budget, Provider};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::lab::{ATTEMPT, Lab, OTHER, Reply, TOKEN, Upstream, post};

const MESSAGES: &str = "/anthropic/v1/messages";
const HOUR: i64 = 3_600_000;

struct Login {
    lab: Lab,
    issuer: Arc<Upstream>,
    folder: PathBuf,
}

impl Login {
    /// The guard's clock stands at 0.
    async fn ending_at(end: i64) -> Self {
        let mut lab = Lab::new().await;
        let issuer = Arc::<Upstream>::default();
        let address = lab.server(Arc::clone(&issuer)).await;
        lab.upstreams.claude_token_endpoint = format!("http://{address}/v1/oauth/token");
        let folder = lab.state.path().join("claude");
        fs::create_dir(&folder).unwrap();
        let login = Self {
            lab,
            issuer,
            folder,
        };
        login.write("old-access", "old-refresh", end);
        login
    }

    fn write(&self, access: &str, refresh: &str, end: i64) {
        let document = json!({
            "claudeAiOauth": {"accessToken": access, "refreshToken": refresh, "expiresAt": end, "scopes": ["user:inference"], "subscriptionType": "max"},
            "mcpOAuth": {"kept": true},
        });
        let file = self.file();
        fs::write(&file, document.to_string()).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.folder.join(".credentials.json")
    }

    async fn open(&mut self) {
        self.lab.start();
        let mut client = self.lab.client().await;
        for attempt in [ATTEMPT, OTHER] {
            let mut broker = self.lab.broker(Provider::Anthropic);
            broker.key = Key::ClaudeFolder(self.folder.clone());
            let way = self.lab.way_of(attempt, vec![broker], Budget::default());
            client.ask(&Ask::Open(way)).await.unwrap();
        }
    }

    fn renewal(&self) -> Reply {
        Reply::json(
            r#"{"access_token":"new-access","refresh_token":"new-refresh","expires_in":28800}"#,
        )
    }

    fn shown(&self) -> Vec<String> {
        let got = self.lab.upstream.got();
        got.iter()
            .map(|got| got.header("authorization").unwrap().to_owned())
            .collect()
    }
}

#[tokio::test]
async fn a_login_that_lasts_is_used_as_it_is() {
    let mut login = Login::ending_at(HOUR).await;
    login.open().await;
    login.lab.upstream.says(Reply::json("{}"));

    login.lab.post(MESSAGES, "{}").await;

    assert_eq!(login.shown(), ["Bearer old-access"]);
    assert!(login.issuer.got().is_empty());
}

#[tokio::test]
async fn a_login_about_to_end_is_renewed_once_for_all_runs_and_written_before_it_is_used() {
    let mut login = Login::ending_at(60_000).await;
    login.open().await;
    login.issuer.says(login.renewal());
    for _ in 0..8 {
        login.lab.upstream.says(Reply::json("{}"));
    }
    let request = post(MESSAGES, &format!("x-api-key: {TOKEN}\r\n"), "{}");

    let mut runs = tokio::task::JoinSet::new();
    for run in 0..8 {
        let attempt = [ATTEMPT, OTHER][run % 2];
        let socket = login.lab.state.path().join(attempt).join(EGRESS_SOCKET);
        let request = request.clone();
        runs.spawn(async move {
            let mut stream = UnixStream::connect(socket).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        });
    }
    for answer in runs.join_all().await {
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    let [renewal] = login.issuer.got().try_into().unwrap();
    let asked: Value = serde_json::from_str(&renewal.body).unwrap();
    assert_eq!(renewal.line, "POST /v1/oauth/token");
    assert_eq!(asked["grant_type"], "refresh_token");
    assert_eq!(asked["refresh_token"], "old-refresh");
    assert_eq!(login.shown(), vec!["Bearer new-access"; 8]);
    let written: Value = serde_json::from_slice(&fs::read(login.file()).unwrap()).unwrap();
    assert_eq!(
        written,
        json!({
            "claudeAiOauth": {"accessToken": "new-access", "refreshToken": "new-refresh", "expiresAt": 28_800_000, "scopes": ["user:inference"], "subscriptionType": "max"},
            "mcpOAuth": {"kept": true},
        })
    );
    assert_eq!(
        fs::metadata(login.file()).unwrap().permissions().mode() & 0o777,
        0o640
    );
}

#[tokio::test]
async fn a_token_that_is_refused_is_renewed_and_the_client_is_asked_to_come_again() {
    let mut login = Login::ending_at(HOUR).await;
    login.open().await;
    login.issuer.says(login.renewal());
    login
        .lab
        .upstream
        .says(Reply::new(401, "application/json", "{}"));
    login.lab.upstream.says(Reply::json("{}"));

    let first = login.lab.post(MESSAGES, "{}").await;
    let again = login.lab.post(MESSAGES, "{}").await;

    assert!(
        first.starts_with("HTTP/1.1 503 ") && first.contains("x-should-retry: true"),
        "{first}"
    );
    assert!(again.starts_with("HTTP/1.1 200 "), "{again}");
    assert_eq!(login.shown(), ["Bearer old-access", "Bearer new-access"]);
}

#[tokio::test]
async fn what_somebody_else_renewed_is_used() {
    let mut login = Login::ending_at(HOUR).await;
    login.open().await;
    login.lab.upstream.says(Reply::json("{}"));
    login.lab.post(MESSAGES, "{}").await;
    login.write("their-access", "their-refresh", 8 * HOUR);
    login
        .lab
        .upstream
        .says(Reply::new(401, "application/json", "{}"));
    login.lab.upstream.says(Reply::json("{}"));

    login.lab.post(MESSAGES, "{}").await;
    login.lab.post(MESSAGES, "{}").await;

    assert_eq!(
        login.shown(),
        [
            "Bearer old-access",
            "Bearer old-access",
            "Bearer their-access"
        ]
    );
    assert!(login.issuer.got().is_empty());
}

#[tokio::test]
async fn a_login_that_cannot_be_renewed_is_told_with_what_to_do() {
    let mut login = Login::ending_at(0).await;
    login.open().await;
    login.issuer.says(Reply::new(
        400,
        "application/json",
        r#"{"error":"invalid_grant old-refresh"}"#,
    ));

    let refused = login.lab.post(MESSAGES, "{}").await;
    fs::remove_file(login.file()).unwrap();
    let absent = login.lab.post(MESSAGES, "{}").await;

    for answer in [refused, absent] {
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        assert!(
            answer.contains("authentication_error") && answer.contains("type /login"),
            "{answer}"
        );
        assert!(!answer.contains("old-refresh"), "{answer}");
    }
    assert!(login.lab.upstream.got().is_empty());
}

#[tokio::test]
async fn a_login_that_still_lasts_is_used_while_it_cannot_be_renewed() {
    let mut login = Login::ending_at(60_000).await;
    login.open().await;
    login.issuer.says(Reply::new(503, "text/plain", ""));
    login.lab.upstream.says(Reply::json("{}"));

    login.lab.post(MESSAGES, "{}").await;

    assert_eq!(login.shown(), ["Bearer old-access"]);
}

/// Waits until somebody waits for the lock on a file.
async fn is_waited_for(file: &Path) {
    let is_waited_for = || {
        let inode = fs::metadata(file).ok()?.ino();
        let waits = |line: &&str| line.contains("->") && line.contains(&format!(":{inode} "));
        let locks = fs::read_to_string("/proc/locks").unwrap();
        locks.lines().find(waits).map(drop)
    };
    for _ in 0..12_000 {
        if is_waited_for().is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("nobody waits for {}", file.display());
}

#[tokio::test]
async fn of_two_guards_of_other_owners_one_renews_a_login_and_the_other_uses_it() {
    let mut one = Login::ending_at(60_000).await;
    one.open().await;
    let mut other = Lab::new().await;
    other.upstreams = one.lab.upstreams.clone();
    other.start();
    let mut broker = other.broker(Provider::Anthropic);
    broker.key = Key::ClaudeFolder(one.folder.clone());
    let way = other.way(vec![broker], Budget::default());
    other.client().await.ask(&Ask::Open(way)).await.unwrap();
    let (renewal, reply) = Reply::pieces();
    one.issuer.says(reply);
    // What the issuer answers to a token that was used already.
    one.issuer.says(Reply::new(
        400,
        "application/json",
        r#"{"error":"invalid_grant"}"#,
    ));
    one.lab.upstream.says(Reply::json("{}"));
    other.upstream.says(Reply::json("{}"));

    let (first, second, ()) = tokio::join!(
        one.lab.post(MESSAGES, "{}"),
        async {
            one.issuer.arrived.notified().await;
            other.post(MESSAGES, "{}").await
        },
        async {
            is_waited_for(&one.folder.join(".dark-factory.lock")).await;
            renewal
                .send(r#"{"access_token":"new-access","refresh_token":"new-refresh","expires_in":28800}"#.into())
                .unwrap();
            drop(renewal);
        }
    );

    for answer in [first, second] {
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert_eq!(one.issuer.got().len(), 1);
    assert_eq!(one.shown(), ["Bearer new-access"]);
    let shown = other.upstream.got()[0]
        .header("authorization")
        .map(str::to_owned);
    assert_eq!(shown.as_deref(), Some("Bearer new-access"));
}

#[tokio::test]
async fn a_login_is_renewed_by_the_certificates_of_the_run_that_needs_it() {
    let mut login = Login::ending_at(0).await;
    let pem = login.lab.state.path().join("ca.pem");
    let issuer = Arc::clone(&login.issuer);
    let address = login.lab.tls_server(issuer, &pem).await;
    login.lab.upstreams.claude_token_endpoint = format!("https://{address}/v1/oauth/token");
    login.open().await;
    let mut broker = login.lab.broker(Provider::Anthropic);
    broker.key = Key::ClaudeFolder(login.folder.clone());
    let mut way = login.lab.way_of(OTHER, vec![broker], Budget::default());
    way.certificates.file = Some(pem);
    login.lab.client().await.ask(&Ask::Open(way)).await.unwrap();
    login.issuer.says(login.renewal());
    login.lab.upstream.says(Reply::json("{}"));

    let doubted = login.lab.post(MESSAGES, "{}").await;
    let believed = login.lab.post_of(OTHER, MESSAGES, "{}").await;

    assert!(doubted.starts_with("HTTP/1.1 502 "), "{doubted}");
    assert!(believed.starts_with("HTTP/1.1 200 "), "{believed}");
    assert_eq!(login.shown(), ["Bearer new-access"]);
}
