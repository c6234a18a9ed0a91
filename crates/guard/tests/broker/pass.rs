//! What is passed on, with what, and what is not.

use std::sync::Arc;

use dark_factory_guard::{Answer, Ask, Key, Secret};
use dark_factory_types::{Budget, Provider};

use crate::lab::{Lab, OTHER, Reply, TOKEN, post, read_until};

const MESSAGES: &str = "/anthropic/v1/messages?beta=true";
const ASK: &str = r#"{"model":"claude-sonnet-4-5","messages":[]}"#;

#[tokio::test]
async fn the_key_stands_in_place_of_the_token_and_nothing_of_the_way_is_passed_on() {
    let mut lab = Lab::new().await;
    lab.open(Budget::default()).await;
    let extra = "Cookie: a=b\r\nX-Forwarded-For: 10.0.0.1\r\nForwarded: for=x\r\nX-HTTP-Method-Override: DELETE\r\n\
                 Connection: close, x-hop\r\nX-Hop: 1\r\nanthropic-version: 2023-06-01\r\nAccept-Encoding: gzip, br\r\n";
    let cases = [
        (
            MESSAGES,
            format!("x-api-key: {TOKEN}\r\n"),
            "x-api-key",
            "real-key",
            "POST /v1/messages?beta=true",
        ),
        (
            MESSAGES,
            format!("Authorization: Bearer {TOKEN}\r\n"),
            "x-api-key",
            "real-key",
            "POST /v1/messages?beta=true",
        ),
        (
            "/openai/v1/responses",
            format!("authorization: bearer {TOKEN}\r\n"),
            "authorization",
            "Bearer real-key",
            "POST /v1/responses",
        ),
        (
            "/gemini/v1beta/models/gemini-3-pro:generateContent",
            format!("x-goog-api-key: {TOKEN}\r\n"),
            "x-goog-api-key",
            "real-key",
            "POST /v1beta/models/gemini-3-pro:generateContent",
        ),
        (
            "/gemini/v1beta/models/gemini-3-pro:generateContent?alt=sse&key=run-token-1",
            String::new(),
            "x-goog-api-key",
            "real-key",
            "POST /v1beta/models/gemini-3-pro:generateContent?alt=sse",
        ),
        (
            "http://127.0.0.1:3128/openai/v1/responses",
            format!("authorization: Bearer {TOKEN}\r\n"),
            "authorization",
            "Bearer real-key",
            "POST /v1/responses",
        ),
    ];
    for (path, credential, name, key, line) in cases {
        lab.upstream.says(
            Reply::json("{}")
                .with("set-cookie", "x=y")
                .with("x-kept", "1"),
        );

        let answer = lab
            .raw(&post(path, &format!("{credential}{extra}"), ASK))
            .await;

        let got = lab.upstream.got().pop().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{path}: {answer}");
        assert!(
            answer.contains("x-kept: 1") && !answer.contains("set-cookie"),
            "{answer}"
        );
        assert_eq!(got.line, line);
        assert_eq!(got.header(name), Some(key), "{path}");
        assert_eq!(got.body, ASK);
        assert_eq!(
            got.header("host").map(|host| format!("http://{host}")),
            Some(lab.base.clone())
        );
        assert_eq!(got.header("accept-encoding"), Some("identity"));
        assert_eq!(got.header("anthropic-version"), Some("2023-06-01"));
        let others = [
            "authorization",
            "x-api-key",
            "x-goog-api-key",
            "cookie",
            "x-forwarded-for",
            "forwarded",
            "x-http-method-override",
            "x-hop",
        ];
        for other in others.iter().filter(|other| **other != name) {
            assert_eq!(got.header(other), None, "{path}: {other}");
        }
    }
    let journal = lab.journal();
    assert!(
        !journal.contains("key") && !journal.contains("token-1"),
        "{journal}"
    );
}

#[tokio::test]
async fn a_bearer_token_of_anthropic_is_shown_as_that_of_a_login() {
    let mut lab = Lab::new().await;
    lab.start();
    let mut broker = lab.broker(Provider::Anthropic);
    broker.key = Key::Bearer(Secret("login-token".to_owned()));
    let way = lab.way(vec![broker], Budget::default());
    lab.client().await.ask(&Ask::Open(way)).await.unwrap();
    let headers = format!("x-api-key: {TOKEN}\r\nanthropic-beta: fine-grained-1\r\n");
    lab.upstream.says(Reply::json("{}"));

    lab.raw(&post(MESSAGES, &headers, ASK)).await;

    let got = lab.upstream.got().pop().unwrap();
    let betas: Vec<_> = got.headers.get_all("anthropic-beta").iter().collect();
    assert_eq!(got.header("authorization"), Some("Bearer login-token"));
    assert_eq!(got.header("x-api-key"), None);
    assert_eq!(betas, ["fine-grained-1", "oauth-2025-04-20"]);
}

#[tokio::test]
async fn what_is_refused_gets_an_answer_in_the_providers_own_form() {
    let mut lab = Lab::new().await;
    lab.start();
    let brokers = vec![
        lab.broker(Provider::Anthropic),
        lab.broker(Provider::Openai),
    ];
    let way = lab.way(brokers, Budget::default());
    lab.client().await.ask(&Ask::Open(way)).await.unwrap();
    let right = format!("authorization: Bearer {TOKEN}\r\n");
    let upgrade = format!("{right}Upgrade: websocket\r\n");
    let cases = [
        (
            MESSAGES,
            "x-api-key: run-token-2\r\n",
            "401",
            r#""type":"authentication_error""#,
        ),
        (MESSAGES, "", "401", r#""type":"error""#),
        (
            MESSAGES,
            "x-api-key: \r\n",
            "401",
            "not the one that this run was given",
        ),
        (
            "/openai/v1/responses",
            "authorization: Bearer x\r\n",
            "401",
            r#""code":"invalid_api_key""#,
        ),
        (
            "/gemini/v1beta/models/m:generateContent",
            &right,
            "403",
            r#""status":"PERMISSION_DENIED""#,
        ),
        ("/openai/v1/files", &right, "404", "only requests to models"),
        (
            "/anthropic/v1/../v1/messages",
            &right,
            "404",
            "not_found_error",
        ),
        ("/anthropic/v1/%6dessages", &right, "404", "not_found_error"),
        ("/openai/responses", &upgrade, "426", "only plain HTTP"),
        ("/other/v1", &right, "400", "dark-factory: "),
    ];
    for (path, headers, status, text) in cases {
        let answer = lab.raw(&post(path, headers, ASK)).await;

        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{path}: {answer}"
        );
        assert!(answer.contains(text), "{path}: {answer}");
    }
    assert!(lab.upstream.got().is_empty());
    assert!(
        lab.journal()
            .contains(r#""kind":"broker_refused","provider":"gemini""#)
    );
    assert_eq!(
        lab.summary()
            .brokered
            .iter()
            .map(|used| used.failed)
            .sum::<u64>(),
        9
    );
}

#[tokio::test]
async fn a_redirect_is_passed_back_and_not_followed() {
    let mut lab = Lab::new().await;
    lab.open(Budget::default()).await;
    lab.upstream
        .says(Reply::new(307, "text/plain", "").with("location", "http://127.0.0.1:1/x"));

    let answer = lab.post(MESSAGES, ASK).await;

    assert!(answer.starts_with("HTTP/1.1 307 "), "{answer}");
    assert!(answer.contains("location: http://127.0.0.1:1/x"));
    assert_eq!(lab.upstream.got().len(), 1);
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_told_of() {
    let mut lab = Lab::new().await;
    lab.base = "http://127.0.0.1:1".to_owned();
    lab.open(Budget {
        requests: Some(1),
        ..Budget::default()
    })
    .await;
    for _ in 0..2 {
        let answer = lab.post(MESSAGES, ASK).await;

        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        assert!(
            answer.contains(r#""type":"api_error""#)
                && answer.contains("127.0.0.1:1 cannot be reached"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn each_piece_of_an_answer_leaves_at_once() {
    let mut lab = Lab::new().await;
    lab.open(Budget::default()).await;
    let (pieces, mut stream) = lab.post_for_pieces(MESSAGES, ASK).await;

    for text in ["one", "two", "three"] {
        pieces.send(text.into()).unwrap();
        // The next piece is not sent before this one has come.
        read_until(&mut stream, text).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_request_to_the_provider() {
    let mut lab = Lab::new().await;
    lab.open(Budget::default()).await;
    let (pieces, mut stream) = lab.post_for_pieces(MESSAGES, ASK).await;
    pieces.send("begun".into()).unwrap();
    read_until(&mut stream, "begun").await;

    drop(stream);

    pieces.closed().await;
}

#[tokio::test]
async fn other_keys_replace_the_old_ones_and_what_is_in_flight_goes_on() {
    let mut lab = Lab::new().await;
    let mut client = lab.open(Budget::default()).await;
    let (pieces, mut stream) = lab.post_for_pieces(MESSAGES, ASK).await;
    pieces.send("begun".into()).unwrap();
    read_until(&mut stream, "begun").await;
    let mut broker = lab.broker(Provider::Anthropic);
    broker.key = Key::ApiKey(Secret("second-key".to_owned()));
    broker.token = "run-token-2".to_owned();

    let way = lab.way(vec![broker], Budget::default());
    client.ask(&Ask::Open(way)).await.unwrap();
    lab.upstream.says(Reply::json("{}"));
    let old = lab.post(MESSAGES, ASK).await;
    let new = lab
        .raw(&post(MESSAGES, "x-api-key: run-token-2\r\n", ASK))
        .await;

    pieces.send("still here".into()).unwrap();
    read_until(&mut stream, "still here").await;
    assert!(old.starts_with("HTTP/1.1 401 ") && new.starts_with("HTTP/1.1 200 "));
    assert_eq!(
        lab.upstream.got().pop().unwrap().header("x-api-key"),
        Some("second-key")
    );
}

#[tokio::test]
async fn a_base_that_is_no_address_is_refused() {
    let mut lab = Lab::new().await;
    lab.start();
    let mut client = lab.client().await;
    for base in [
        "api.example",
        "ftp://api.example",
        "https://",
        "https://u:p@api.example",
        "https://api.example?x=y",
    ] {
        let mut broker = lab.broker(Provider::Openai);
        broker.base = base.to_owned();
        let way = lab.way(vec![broker], Budget::default());

        let answer = client.ask(&Ask::Open(way)).await.unwrap();

        assert!(
            matches!(&answer, Answer::Refused { why } if why.contains("base address")),
            "{base}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn each_run_believes_the_certificates_that_its_own_supervisor_names() {
    let mut lab = Lab::new().await;
    let pem = lab.state.path().join("ca.pem");
    let upstream = Arc::clone(&lab.upstream);
    lab.base = format!("https://{}", lab.tls_server(upstream, &pem).await);
    lab.start();
    let mut client = lab.client().await;
    let brokers = vec![lab.broker(Provider::Anthropic)];
    let mut usual = lab.way(brokers.clone(), Budget::default());
    let mut own = lab.way_of(OTHER, brokers, Budget::default());
    own.certificates.file = Some(pem.clone());
    client.ask(&Ask::Open(usual.clone())).await.unwrap();
    client.ask(&Ask::Open(own)).await.unwrap();
    lab.upstream.says(Reply::json("{}"));
    lab.upstream.says(Reply::json("{}"));

    let believed = lab.post_of(OTHER, MESSAGES, ASK).await;
    let doubted = lab.post(MESSAGES, ASK).await;
    // Another supervisor goes on with it.
    usual.certificates.file = Some(pem);
    client.ask(&Ask::Open(usual)).await.unwrap();
    let believed_now = lab.post(MESSAGES, ASK).await;

    assert!(
        doubted.starts_with("HTTP/1.1 502 ") && doubted.contains("certificate"),
        "{doubted}"
    );
    for answer in [believed, believed_now] {
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert_eq!(lab.upstream.got().len(), 2);
}

#[tokio::test]
async fn certificates_that_are_not_there_are_refused_by_the_files_name() {
    let mut lab = Lab::new().await;
    lab.start();
    let mut client = lab.client().await;
    let empty = lab.state.path().join("empty.pem");
    std::fs::write(&empty, "none\n").unwrap();
    let absent = lab.state.path().join("absent.pem");

    for file in [empty, absent] {
        let mut way = lab.way(vec![lab.broker(Provider::Openai)], Budget::default());
        way.certificates.file = Some(file.clone());

        let answer = client.ask(&Ask::Open(way)).await.unwrap();

        let named = file.display().to_string();
        assert!(
            matches!(&answer, Answer::Refused { why } if why.contains(&named)),
            "{answer:?}"
        );
    }
}
