//! What a run used, and what that costs: by the agent's word, and by our table.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use dark_factory_agents::{AGENT_NAMES, Transcript, agent, priced_usd};
use dark_factory_types::{EventKind, EventStream, Usage};
use jiff::Timestamp;

fn recording(name: &str, recording: &str) -> String {
    let path = format!("tests/data/streams/{name}/{recording}.jsonl");
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The run's usage, and that of each turn.
fn used(name: &str, stdout: &str) -> (Usage, Vec<Usage>) {
    let mut transcript = Transcript::new(agent(name).unwrap());
    let mut events = Vec::new();
    let (at, bytes) = (Timestamp::UNIX_EPOCH, stdout.as_bytes());
    transcript.feed(EventStream::Stdout, bytes, at, &mut events);
    transcript.finish(at, &mut events);
    let turns = events.into_iter().filter_map(|event| match event.kind {
        EventKind::TurnEnd { usage, .. } => Some(usage),
        _ => None,
    });
    (transcript.conclusion().usage, turns.collect())
}

fn near(a: Option<f64>, b: f64) -> bool {
    a.is_some_and(|a| (a - b).abs() < 1e-9)
}

/// A result of Claude Code that says what is new in it and what there was before it.
fn claude_result(index: u64, new: &str, all: &str, cost: f64) -> String {
    format!(
        r#"{{"type":"result","subtype":"success","is_error":false,"result":"x","num_turns":1,"result_index":{index},"total_cost_usd":{cost},"usage":{{"input_tokens":7}},"modelUsage":{all},"model_usage_since_last_result":{new}}}"#
    )
}

#[test]
fn our_price_is_claude_codes_own_for_every_recording() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/streams/claude");
    let mut priced = 0;
    for file in fs::read_dir(folder).unwrap() {
        let stream = fs::read_to_string(file.unwrap().path()).unwrap();
        let usage = used("claude", &stream).0;
        let Some(cost) = usage.cost_usd else {
            assert_eq!((usage.total_tokens(), usage.priced_usd), (0, None));
            continue;
        };

        assert!(near(usage.priced_usd, cost), "{usage:?}");
        priced += u32::from(cost > 0.0);
    }
    assert!(priced > 20, "{priced}");
}

#[test]
fn messages_split_into_blocks_are_not_counted_again() {
    let usage = used("claude", &recording("claude", "partial")).0;

    // Six requests of 1200, however many lines speak of each.
    assert_eq!((usage.input_tokens, usage.turns), (7200, 6));
}

#[test]
fn each_model_of_a_run_has_its_own_price() {
    let models = r#"{"claude-opus-5-5":{"inputTokens":1000,"outputTokens":100,"costUSD":0.006},"claude-haiku-4-5-20251001":{"inputTokens":2000,"cacheReadInputTokens":500,"costUSD":0.00205}}"#;

    let usage = used("claude", &claude_result(0, models, models, 0.00805)).0;

    assert!(near(usage.priced_usd, 0.00805), "{usage:?}");
    assert!(near(usage.cost_usd, 0.00805), "{usage:?}");
}

#[test]
fn one_unknown_model_leaves_the_run_without_our_price() {
    let models = r#"{"claude-opus-5-5":{"inputTokens":1000,"costUSD":0.004},"my-model":{"inputTokens":1,"costUSD":0.001}}"#;

    let usage = used("claude", &claude_result(0, models, models, 0.005)).0;

    assert_eq!((usage.input_tokens, usage.priced_usd), (1001, None));
    assert!(near(usage.cost_usd, 0.005));
}

#[test]
fn a_clouds_model_has_the_clouds_price_which_we_do_not_know() {
    let models = r#"{"claude-opus-5-5":{"inputTokens":1000,"costUSD":0.004,"provider":"bedrock"}}"#;

    assert_eq!(
        used("claude", &claude_result(0, models, models, 0.004))
            .0
            .priced_usd,
        None
    );
}

#[test]
fn what_is_kept_in_the_cache_for_an_hour_costs_more() {
    let models = r#"{"alias":{"canonicalModel":"claude-opus-5-5","cacheCreationInputTokens":1000,"cacheCreationEphemeral1hInputTokens":400,"thinkingTokens":3,"costUSD":0.0062}}"#;

    let usage = used("claude", &claude_result(0, models, models, 0.0062)).0;

    assert!(near(usage.priced_usd, 0.0062), "{usage:?}");
    assert_eq!(usage.reasoning_tokens, 3);
}

#[test]
fn a_resumed_session_books_only_what_is_new() {
    let new = r#"{"claude-opus-5-5":{"inputTokens":7200,"costUSD":0.0288}}"#;
    let all = r#"{"claude-opus-5-5":{"inputTokens":8400,"costUSD":0.0336}}"#;

    let (usage, turns) = used("claude", &claude_result(0, new, all, 0.0336));

    assert_eq!(usage.input_tokens, 7200);
    assert!(near(usage.cost_usd, 0.0288) && near(usage.priced_usd, 0.0288));
    assert_eq!(turns[0].input_tokens, 7200);
}

#[test]
fn several_results_are_booked_once_each() {
    let one = r#"{"claude-opus-5-5":{"inputTokens":1000,"costUSD":0.004}}"#;
    let two = r#"{"claude-opus-5-5":{"inputTokens":500,"costUSD":0.002}}"#;
    let both = r#"{"claude-opus-5-5":{"inputTokens":1500,"costUSD":0.006}}"#;
    let lines = [
        claude_result(0, one, one, 0.004),
        claude_result(1, two, both, 0.006),
        claude_result(1, two, both, 0.006),
    ];

    let (usage, turns) = used("claude", &lines.join("\n"));

    assert_eq!((usage.input_tokens, usage.turns), (1500, 2));
    assert!(near(usage.cost_usd, 0.006) && near(usage.priced_usd, 0.006));
    assert_eq!(turns[1].input_tokens, 500);
}

#[test]
fn what_subagents_used_is_included() {
    let usage = used("claude", &recording("claude", "subagent")).0;

    // Five requests in all, of which two are the subagent's.
    assert_eq!(usage.input_tokens, 6000);
    assert!(near(usage.cost_usd, 0.0333) && near(usage.priced_usd, 0.0333));
}

#[test]
fn codex_counts_its_whole_thread_in_each_turn_so_the_last_counts() {
    let turn = |input: u64| {
        format!(
            r#"{{"type":"turn.completed","usage":{{"input_tokens":{input},"cached_input_tokens":800,"cache_write_input_tokens":100,"output_tokens":60,"reasoning_output_tokens":20}}}}"#
        )
    };

    let usage = used("codex", &[turn(2000), turn(14_000)].join("\n")).0;

    assert_eq!((usage.input_tokens, usage.cache_read_tokens), (13_100, 800));
    assert_eq!((usage.cache_write_tokens, usage.turns), (100, 2));
    assert_eq!((usage.output_tokens, usage.reasoning_tokens), (60, 20));
    assert_eq!((usage.cost_usd, usage.priced_usd), (None, None));
}

#[test]
fn the_model_that_codex_was_asked_for_prices_what_it_used() {
    let usage = used("codex", &recording("codex", "success")).0;

    let price = priced_usd("gpt-5-codex", &usage);

    let expected = (7200.0 * 1.25 + 4800.0 * 0.125 + 360.0 * 10.0) / 1e6;
    assert!(near(price, expected), "{price:?}");
}

#[test]
fn gemini_counts_what_it_read_from_the_cache_as_input_and_we_do_not() {
    let usage = used("gemini", &recording("gemini", "success")).0;

    assert_eq!((usage.input_tokens, usage.cache_read_tokens), (7200, 4800));
    let expected = (7200.0 * 0.3 + 4800.0 * 0.03 + 360.0 * 2.5) / 1e6;
    assert!(near(usage.priced_usd, expected), "{usage:?}");
    assert_eq!(usage.cost_usd, None);
}

#[test]
fn the_attempts_of_a_run_add_up_and_stay_unpriced_if_one_is() {
    let first = used("gemini", &recording("gemini", "success")).0;
    let second = used("gemini", &recording("gemini", "text")).0;
    let mut both = first;
    both.add(&second);
    let mut with_codex = both;
    with_codex.add(&used("codex", &recording("codex", "success")).0);

    let expected = first.priced_usd.unwrap() + second.priced_usd.unwrap();
    assert!(near(both.priced_usd, expected));
    assert_eq!(both.input_tokens, 8400);
    assert_eq!(
        (with_codex.input_tokens, with_codex.priced_usd),
        (15_600, None)
    );
}

#[test]
fn what_says_nothing_of_usage_has_none() {
    for name in AGENT_NAMES {
        for stream in ["", "plain text\n", "{\"usage\":{\"input_tokens\":5}}\n"] {
            assert_eq!(used(name, stream).0, Usage::default(), "{name}");
        }
    }
}
