//! Budgets: what is refused, who hears of it, what is left of them after a guard's end.

use std::fs;

use dark_factory_guard::{Answer, Ask};
use dark_factory_types::{Budget, Provider, SpentBudget};
use futures_util::FutureExt as _;

use crate::lab::{ATTEMPT, Lab, Reply, read_until};

const MESSAGES: &str = "/anthropic/v1/messages";
const ASK: &str = r#"{"model":"claude-opus-4-5","messages":[]}"#;
/// 1000 tokens for 0.021 dollars.
const ANSWER: &str =
    r#"{"model":"claude-opus-4-5","usage":{"input_tokens":200,"output_tokens":800}}"#;

fn tokens(limit: u64) -> Budget {
    Budget {
        tokens: Some(limit),
        ..Budget::default()
    }
}

fn requests(limit: u64) -> Budget {
    Budget {
        requests: Some(limit),
        ..Budget::default()
    }
}

fn cost(limit: &str) -> Budget {
    Budget {
        cost: Some(limit.parse().unwrap()),
        ..Budget::default()
    }
}

#[tokio::test]
async fn the_request_that_would_pass_a_cap_is_refused_and_the_supervisor_hears_of_it_once() {
    for (budget, spent, text) in [
        (
            requests(2),
            SpentBudget::Requests { limit: 2 },
            "2 requests",
        ),
        (
            tokens(1500),
            SpentBudget::Tokens { limit: 1500 },
            "1500 tokens",
        ),
        (
            cost("0.03"),
            SpentBudget::Cost {
                limit: "0.03".parse().unwrap(),
            },
            "$0.03",
        ),
    ] {
        let mut lab = Lab::new().await;
        let mut client = lab.open(budget).await;
        for _ in 0..2 {
            lab.upstream.says(Reply::json(ANSWER));
            let answer = lab.post(MESSAGES, ASK).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }

        let refused = lab.post(MESSAGES, ASK).await;
        lab.post(MESSAGES, ASK).await;
        let told = client.told().await.unwrap();
        let status = client.ask(&Ask::Status).await.unwrap();

        assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
        assert!(
            refused.contains(&format!(
                "dark-factory: the run's budget of {text} is used up"
            )),
            "{refused}"
        );
        assert!(
            refused.contains(r#""type":"invalid_request_error""#),
            "{refused}"
        );
        assert_eq!(
            told,
            Answer::Spent {
                attempt: ATTEMPT.parse().unwrap(),
                spent
            }
        );
        assert!(matches!(status, Answer::Status { .. }));
        assert_eq!(lab.upstream.got().len(), 2);
        // Told once: nothing more is waiting.
        assert!(client.told().now_or_never().is_none());
    }
}

#[tokio::test]
async fn each_provider_says_it_in_its_own_form() {
    let mut lab = Lab::new().await;
    lab.open(requests(0)).await;

    let openai = lab.post("/openai/v1/responses", ASK).await;
    let gemini = lab
        .post("/gemini/v1beta/models/m:generateContent", "{}")
        .await;

    assert!(
        openai.starts_with("HTTP/1.1 400 ") && openai.contains(r#""code":"insufficient_quota""#),
        "{openai}"
    );
    assert!(
        gemini.starts_with("HTTP/1.1 400 ") && gemini.contains(r#""status":"FAILED_PRECONDITION""#),
        "{gemini}"
    );
}

#[tokio::test]
async fn who_opens_the_way_later_hears_of_it_too_and_a_larger_budget_goes_on() {
    let mut lab = Lab::new().await;
    drop(lab.open(requests(1)).await);
    lab.upstream.says(Reply::json(ANSWER));
    lab.post(MESSAGES, ASK).await;
    lab.post(MESSAGES, ASK).await;

    let brokers = vec![lab.broker(Provider::Anthropic)];
    let mut later = lab.client().await;
    later
        .ask(&Ask::Open(lab.way(brokers.clone(), requests(1))))
        .await
        .unwrap();
    let told = later.told().await.unwrap();
    later
        .ask(&Ask::Open(lab.way(brokers, requests(2))))
        .await
        .unwrap();
    lab.upstream.says(Reply::json(ANSWER));
    let answer = lab.post(MESSAGES, ASK).await;

    assert!(matches!(
        told,
        Answer::Spent {
            spent: SpentBudget::Requests { limit: 1 },
            ..
        }
    ));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn requests_in_flight_count_and_those_that_no_model_answered_do_not() {
    let mut lab = Lab::new().await;
    lab.open(requests(1)).await;
    for _ in 0..2 {
        lab.upstream.says(Reply::new(529, "application/json", "{}"));
        let answer = lab.post(MESSAGES, ASK).await;
        assert!(answer.starts_with("HTTP/1.1 529 "), "{answer}");
    }
    let (pieces, mut stream) = lab.post_for_pieces(MESSAGES, ASK).await;
    pieces.send("begun".into()).unwrap();
    read_until(&mut stream, "begun").await;

    let meanwhile = lab.post(MESSAGES, ASK).await;

    assert!(
        meanwhile.contains("budget of 1 requests is used up"),
        "{meanwhile}"
    );
}

#[tokio::test]
async fn what_counts_no_tokens_is_not_a_request() {
    let mut lab = Lab::new().await;
    lab.open(requests(0)).await;
    lab.upstream.says(Reply::json(r#"{"input_tokens":5}"#));

    let answer = lab.post("/anthropic/v1/messages/count_tokens", ASK).await;

    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn what_was_used_is_known_to_the_next_guard() {
    let mut lab = Lab::new().await;
    lab.open(tokens(1500)).await;
    for _ in 0..2 {
        lab.upstream.says(Reply::json(ANSWER));
        lab.post(MESSAGES, ASK).await;
    }

    lab.kill().await;
    lab.open(tokens(1500)).await;
    let refused = lab.post(MESSAGES, ASK).await;

    assert!(
        refused.contains("budget of 1500 tokens is used up"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_request_that_was_in_flight_when_a_guard_died_counts_for_the_next_one() {
    let mut lab = Lab::new().await;
    let journal = lab.way(Vec::new(), Budget::default()).journal;
    let asked = r#"{"at":"1970-01-01T00:00:00Z","target":"a:1","fate":{"kind":"asked","provider":"anthropic"}}"#;
    // The line that it died in is not whole.
    fs::write(&journal, format!("{asked}\n{{\"at\":\"1970")).unwrap();
    lab.open(requests(2)).await;
    lab.upstream.says(Reply::json(ANSWER));

    let one = lab.post(MESSAGES, ASK).await;
    let two = lab.post(MESSAGES, ASK).await;

    assert!(one.starts_with("HTTP/1.1 200 "), "{one}");
    assert!(two.contains("budget of 2 requests is used up"), "{two}");
    let brokered = lab.summary().brokered;
    let answered: u64 = brokered.iter().map(|used| used.requests).sum();
    assert_eq!(answered, 1, "its line is a line of its own");
}

#[tokio::test]
async fn under_a_budget_of_money_only_models_with_a_price_are_asked() {
    let mut lab = Lab::new().await;
    lab.open(cost("5")).await;
    let long = format!(
        r#"{{"messages":["{}"],"model":"claude-opus-4-5"}}"#,
        "x".repeat(300_000)
    );
    lab.upstream.says(Reply::json(ANSWER));

    let late_name = lab.post(MESSAGES, &long).await;
    let unknown = lab.post(MESSAGES, r#"{"model":"llama-at-home"}"#).await;
    let unnamed = lab.post(MESSAGES, r#"{"messages":[]}"#).await;
    let in_path = lab
        .post("/gemini/v1beta/models/llama:generateContent", "{}")
        .await;

    assert!(late_name.starts_with("HTTP/1.1 200 "), "{late_name}");
    assert_eq!(lab.upstream.got()[0].body, long);
    assert!(unknown.starts_with("HTTP/1.1 400 "), "{unknown}");
    assert!(
        unknown.contains("llama-at-home") && unknown.contains("has no known price"),
        "{unknown}"
    );
    assert!(unnamed.contains("does not name one model"), "{unnamed}");
    assert!(in_path.contains("has no known price"), "{in_path}");
    assert_eq!(lab.upstream.got().len(), 1);
}

#[tokio::test]
async fn an_answer_that_hides_what_it_used_is_the_last_one_under_a_budget_of_tokens() {
    let mut lab = Lab::new().await;
    lab.open(tokens(1_000_000)).await;
    lab.upstream.says(Reply::events(&[
        r#"{"model":"gpt-x","choices":[]}"#,
        "[DONE]",
    ]));

    let first = lab
        .post(
            "/openai/v1/chat/completions",
            r#"{"model":"gpt-x","stream":true}"#,
        )
        .await;
    let second = lab
        .post("/openai/v1/chat/completions", r#"{"model":"gpt-x"}"#)
        .await;

    assert!(first.starts_with("HTTP/1.1 200 "), "{first}");
    assert!(second.contains("stream_options.include_usage"), "{second}");
}

#[tokio::test]
async fn a_client_that_leaves_early_does_not_keep_its_tokens_from_being_counted() {
    let mut lab = Lab::new().await;
    lab.open(tokens(500)).await;
    let (pieces, mut stream) = lab.post_for_pieces(MESSAGES, ASK).await;
    pieces.send("data: {}\n\n".into()).unwrap();
    read_until(&mut stream, "data: {}").await;
    drop(stream);

    pieces.send(format!("data: {ANSWER}\n\n").into()).unwrap();
    drop(pieces);
    while !lab.journal().contains(r#""kind":"brokered""#) {
        tokio::task::yield_now().await;
    }
    let refused = lab.post(MESSAGES, ASK).await;

    assert!(
        refused.contains("budget of 500 tokens is used up"),
        "{refused}"
    );
    let brokered = lab.summary().brokered;
    let used: u64 = brokered.iter().map(|used| used.usage.total_tokens()).sum();
    assert_eq!(used, 1000);
}

#[tokio::test]
async fn a_way_whose_use_cannot_be_written_down_is_not_opened() {
    let mut lab = Lab::new().await;
    lab.start();
    let mut way = lab.way(vec![lab.broker(Provider::Anthropic)], Budget::default());
    way.journal = "/dev/full".into();

    let opened = lab.client().await.ask(&Ask::Open(way)).await.unwrap();

    assert!(matches!(opened, Answer::Refused { .. }), "{opened:?}");
}
