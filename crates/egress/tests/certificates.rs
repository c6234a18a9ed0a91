//! Two runs whose supervisors have other environments, and one guard: a process that one of them started.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dark_factory_egress::{GuardProcess, GuardProgram};
use dark_factory_executor::egress::{EgressDemand, EgressGuard as _, run_token};
use dark_factory_executor::host::HostView;
use dark_factory_executor::keys::KeySources;
use dark_factory_executor::spec::AttemptDir;
use dark_factory_executor::state_dir::{HelperExe, StateDir};
use dark_factory_guard::EGRESS_SOCKET;
use dark_factory_types::{Budget, Provider};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixStream};
use tokio::task::JoinSet;

/// Returns the command that is the guard; without the name of one, that beside the folder of the tests.
#[expect(
    clippy::disallowed_methods,
    reason = "a test is told by its environment what it works with"
)]
fn dark_factory() -> PathBuf {
    let beside = || {
        let test = std::env::current_exe().unwrap();
        test.ancestors().nth(2).unwrap().join("dark-factory")
    };
    std::env::var_os("DARK_FACTORY_TEST_BIN").map_or_else(beside, PathBuf::from)
}

/// Starts a provider whose certificate nobody has signed; returns its address, and writes the certificate to a file.
async fn provider(servers: &mut JoinSet<()>, pem: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(pem, made.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
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
    servers.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Who does not believe the certificate leaves.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\
                          Connection: close\r\n\r\n{}";
            let _read = stream.read(&mut [0; 4096]).await;
            let _written = stream.write_all(answer.as_bytes()).await;
            let _ended = stream.shutdown().await;
        }
    });
    format!("https://localhost:{port}")
}

/// Asks the provider as the agent of a run would.
async fn ask(dir: &AttemptDir) -> String {
    let socket = dir.mount().join(EGRESS_SOCKET);
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let request = format!(
        "POST /openai/v1/responses HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}",
        run_token(dir.attempt())
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_run_believes_what_its_own_supervisors_environment_names_whoever_started_the_guard() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let state = StateDir::open(&state, HelperExe::new(b"no helper")).unwrap();
    let pem = folder.path().join("ca.pem");
    let mut servers = JoinSet::new();
    let base = provider(&mut servers, &pem).await;
    let guard = |certificates: Option<&Path>| {
        let mut host = HostView {
            cwd: "/".into(),
            ..HostView::default()
        };
        let mut set = |name: &str, value: &str| host.env.insert(name.to_owned(), value.to_owned());
        set("OPENAI_API_KEY", "a-key");
        set("OPENAI_BASE_URL", &base);
        if let Some(file) = certificates {
            set("SSL_CERT_FILE", &file.display().to_string());
        }
        let program = GuardProgram::DarkFactory(dark_factory());
        GuardProcess::new(state.path(), program, KeySources::default(), host)
    };
    let demand = EgressDemand {
        rules: Vec::new(),
        providers: vec![Provider::Openai],
        budget: Budget::default(),
    };
    let attempt = |id: &str| {
        let id = id.parse().unwrap();
        state.make_attempt(id, "Ask.".into(), &[], b"{}").unwrap()
    };
    let (first, second) = (attempt("k3v9x2m7qa1b-1"), attempt("k3v9x2m7qa1c-1"));
    let (usual, own) = (guard(None), guard(Some(&pem)));

    let started = usual.probe().await.unwrap();
    let _ways = (
        usual.open(&demand, &first).await.unwrap(),
        own.open(&demand, &second).await.unwrap(),
    );
    let (doubted, believed) = (ask(&first).await, ask(&second).await);

    assert!(
        doubted.starts_with("HTTP/1.1 502 ") && doubted.contains("certificate"),
        "{doubted}"
    );
    assert!(believed.starts_with("HTTP/1.1 200 "), "{believed}");
    assert_eq!(own.probe().await.unwrap(), started);
    for dir in [first, second] {
        own.close(dir.attempt()).await;
    }
}
