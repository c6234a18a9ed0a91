//! What answers say was used, in every form that they come in.

use dark_factory_types::{Budget, Usage};

use crate::lab::{Lab, Reply};

const MESSAGES: &str = "/anthropic/v1/messages";
const RESPONSES: &str = "/openai/v1/responses";
const CHAT: &str = "/openai/v1/chat/completions";
const GENERATE: &str = "/gemini/v1beta/models/gemini-x:generateContent";
const STREAM: &str = "/gemini/v1beta/models/gemini-x:streamGenerateContent";

/// Input, output, read from and written to the cache, reasoning.
type Counts = [u64; 5];

async fn used(path: &str, reply: Reply) -> (String, Option<Counts>) {
    let mut lab = Lab::new().await;
    lab.open(Budget::default()).await;
    lab.upstream.says(reply);
    lab.post(path, r#"{"model":"asked-model","stream":true}"#)
        .await;
    let used = lab.summary().brokered.pop().unwrap();
    assert_eq!((used.requests, used.failed), (1, 0), "{path}");
    let usage = Some(used.usage).filter(|usage| *usage != Usage::default());
    let counts = usage.map(|usage| {
        [
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_tokens,
            usage.cache_write_tokens,
            usage.reasoning_tokens,
        ]
    });
    (used.model, counts)
}

#[tokio::test]
async fn whole_answers_are_read() {
    let cases = [
        (
            MESSAGES,
            r#"{"type":"message","model":"claude-x","content":[{"type":"text","text":"\"usage\":{\"input_tokens\":9}"},{"type":"tool_use","input":{"usage":{"output_tokens":1000}}}],"usage":{"input_tokens":10,"cache_creation_input_tokens":20,"cache_read_input_tokens":30,"output_tokens":40}}"#,
            ("claude-x", [10, 40, 30, 20, 0]),
        ),
        (
            RESPONSES,
            r#"{"id":"r","model":"gpt-x","output":[],"usage":{"input_tokens":100,"input_tokens_details":{"cached_tokens":60},"output_tokens":50,"output_tokens_details":{"reasoning_tokens":20},"total_tokens":150}}"#,
            ("gpt-x", [40, 50, 60, 0, 20]),
        ),
        (
            CHAT,
            r#"{"model":"gpt-x","choices":[],"usage":{"prompt_tokens":100,"completion_tokens":50,"prompt_tokens_details":{"cached_tokens":60},"completion_tokens_details":{"reasoning_tokens":5}}}"#,
            ("gpt-x", [40, 50, 60, 0, 5]),
        ),
        (
            GENERATE,
            r#"{"candidates":[],"usageMetadata":{"promptTokenCount":100,"cachedContentTokenCount":60,"candidatesTokenCount":50,"thoughtsTokenCount":7,"totalTokenCount":157},"modelVersion":"gemini-x-1"}"#,
            ("gemini-x-1", [40, 57, 60, 0, 7]),
        ),
        (
            STREAM,
            r#"[{"usageMetadata":{"promptTokenCount":9}},{"usageMetadata":{"promptTokenCount":10,"candidatesTokenCount":5}}]"#,
            ("gemini-x", [10, 5, 0, 0, 0]),
        ),
    ];
    for (path, body, (model, counts)) in cases {
        assert_eq!(
            used(path, Reply::json(body)).await,
            (model.to_owned(), Some(counts)),
            "{path}"
        );
    }
}

#[tokio::test]
async fn events_are_read() {
    let long = format!(
        r#"{{"type":"content_block_delta","delta":{{"text":"{}"}}}}"#,
        "x".repeat(3 << 20)
    );
    let cases: [(&str, &[&str], &str, Counts); 4] = [
        (
            MESSAGES,
            &[
                r#"{"type":"message_start","message":{"model":"claude-x","usage":{"input_tokens":10,"cache_read_input_tokens":30,"output_tokens":1}}}"#,
                &long,
                r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":40}}"#,
                r#"{"type":"message_stop"}"#,
            ],
            "claude-x",
            [10, 40, 30, 0, 0],
        ),
        (
            RESPONSES,
            &[
                r#"{"type":"response.created","response":{"model":"gpt-x","usage":null}}"#,
                r#"{"type":"response.completed","response":{"model":"gpt-x","usage":{"input_tokens":100,"input_tokens_details":{"cached_tokens":60},"output_tokens":50,"output_tokens_details":{"reasoning_tokens":20}}}}"#,
            ],
            "gpt-x",
            [40, 50, 60, 0, 20],
        ),
        (
            CHAT,
            &[
                r#"{"model":"gpt-x","choices":[{"delta":{"content":"a"}}],"usage":null}"#,
                r#"{"model":"gpt-x","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}"#,
                "[DONE]",
            ],
            "gpt-x",
            [10, 5, 0, 0, 0],
        ),
        (
            STREAM,
            &[
                r#"{"usageMetadata":{"promptTokenCount":10}}"#,
                r#"{"usageMetadata":{"promptTokenCount":10,"candidatesTokenCount":5,"thoughtsTokenCount":2}}"#,
            ],
            "gemini-x",
            [10, 7, 0, 0, 2],
        ),
    ];
    for (path, events, model, counts) in cases {
        assert_eq!(
            used(path, Reply::events(events)).await,
            (model.to_owned(), Some(counts)),
            "{path}"
        );
    }
}

#[tokio::test]
async fn what_is_not_said_is_not_known_and_the_request_is_counted() {
    let silent = Reply::events(&[r#"{"model":"gpt-x","choices":[]}"#, "[DONE]"]);
    let begun = Reply::events(&[
        r#"{"type":"message_start","message":{"model":"claude-x","usage":{"input_tokens":10,"output_tokens":1}}}"#,
    ]);

    assert_eq!(used(CHAT, silent).await, ("gpt-x".to_owned(), None));
    assert_eq!(used(MESSAGES, begun).await, ("claude-x".to_owned(), None));
    assert_eq!(
        used(RESPONSES, Reply::json("nonsense")).await,
        ("asked-model".to_owned(), None)
    );
    let packed = Reply::json(r#"{"usage":{"input_tokens":1,"output_tokens":1}}"#)
        .with("content-encoding", "br");
    assert_eq!(
        used(MESSAGES, packed).await,
        ("asked-model".to_owned(), None)
    );
}

#[tokio::test]
async fn what_was_used_has_its_price() {
    let mut lab = Lab::new().await;
    lab.open(Budget::default()).await;
    for _ in 0..2 {
        lab.upstream.says(Reply::json(
            r#"{"model":"claude-opus-4-5-20251101","usage":{"input_tokens":1000,"output_tokens":1000,"cache_creation_input_tokens":1000,"cache_creation":{"ephemeral_1h_input_tokens":1000}}}"#,
        ));
        lab.post(MESSAGES, "{}").await;
    }

    let used = lab.summary().brokered.pop().unwrap();

    assert_eq!(used.requests, 2);
    let priced = used.usage.priced_usd.unwrap();
    assert!(
        (priced - 2.0 * (0.005 + 0.025 + 0.01)).abs() < 1e-9,
        "{priced}"
    );
}
