//! The same few things, said as each agent says them.

use dark_factory_types::Verdict;

/// How an agent says things.
#[derive(Debug)]
pub(crate) struct Dialect {
    /// The agent.
    pub(crate) name: &'static str,
    /// A line with words, of which `TEXT` is a JSON value; `None` if the agent prints no JSON.
    said: Option<&'static str>,
    /// A line with a tool call, of which `NAME` is a word and `INPUT` a JSON object.
    call: Option<&'static str>,
    /// A line with a success, of which `NUMBER` is every number; `None` if nothing in the stream says so.
    success: Option<&'static str>,
}

/// One for each agent.
pub(crate) const AGENTS: &[Dialect] = &[
    Dialect {
        name: "claude",
        said: Some(r#"{"type":"assistant","message":{"content":[{"type":"text","text":TEXT}]}}"#),
        call: Some(
            r#"{"type":"assistant","message":{"content":[{"type":"tool_use","id":"1","name":"NAME","input":INPUT}]}}"#,
        ),
        success: Some(
            r#"{"type":"result","subtype":"success","is_error":false,"result":"ok","duration_ms":NUMBER,"num_turns":NUMBER,"total_cost_usd":NUMBER,"result_index":NUMBER,"modelUsage":{"m":{"inputTokens":NUMBER,"outputTokens":NUMBER,"costUSD":NUMBER}},"usage":{"input_tokens":NUMBER}}"#,
        ),
    },
    Dialect {
        name: "codex",
        said: Some(
            r#"{"type":"item.completed","item":{"id":"1","type":"agent_message","text":TEXT}}"#,
        ),
        call: Some(
            r#"{"type":"item.started","item":{"id":"2","type":"mcp_tool_call","server":"s","tool":"NAME","arguments":INPUT}}"#,
        ),
        success: Some(
            r#"{"type":"turn.completed","usage":{"input_tokens":NUMBER,"cached_input_tokens":NUMBER,"output_tokens":NUMBER,"reasoning_output_tokens":NUMBER}}"#,
        ),
    },
    Dialect {
        name: "gemini",
        said: Some(r#"{"type":"message","role":"assistant","content":TEXT}"#),
        call: Some(r#"{"type":"tool_use","tool_name":"NAME","tool_id":"1","parameters":INPUT}"#),
        success: Some(
            r#"{"type":"result","status":"success","stats":{"total_tokens":NUMBER,"input_tokens":NUMBER,"output_tokens":NUMBER,"cached":NUMBER,"input":NUMBER,"duration_ms":NUMBER}}"#,
        ),
    },
    Dialect {
        name: "command",
        said: None,
        call: None,
        success: None,
    },
];

impl Dialect {
    /// A line that says plain words.
    pub(crate) fn says(&self, words: &str) -> String {
        self.says_json(&format!("\"{words}\""))
            .unwrap_or_else(|| words.to_owned())
    }

    /// A line that says a JSON string, written as it is.
    pub(crate) fn says_json(&self, json: &str) -> Option<String> {
        Some(self.said?.replace("TEXT", json))
    }

    /// A line that calls a tool.
    pub(crate) fn calls(&self, name: &str, input: &str) -> Option<String> {
        Some(self.call?.replace("NAME", name).replace("INPUT", input))
    }

    /// The line of a success, if there is one.
    pub(crate) fn succeeds(&self) -> Option<String> {
        self.succeeds_with("1")
    }

    /// As [`Dialect::succeeds`], all its numbers this one.
    pub(crate) fn succeeds_with(&self, number: &str) -> Option<String> {
        Some(self.success?.replace("NUMBER", number))
    }

    /// What follows from a success.
    pub(crate) fn success(&self) -> Verdict {
        match self.success {
            Some(_) => Verdict::Success,
            None => Verdict::Silent,
        }
    }
}
