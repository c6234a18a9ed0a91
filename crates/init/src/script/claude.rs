//! The Claude-shaped stream of a script: the same events as `claude -p --output-format stream-json`.
//!
//! Owns: event shapes, ids, and the made-up token counts.
//! Reads: the kernel's UUID source.
//! Never: claims a real model or a cost: the model is `scripted-stand-in` and costs nothing.

use std::fs;
use std::path::Path;
use std::time::Instant;

use super::files::Answer;
use super::json::quote;
use super::parse::{Claim, Command};

const MODEL: &str = "scripted-stand-in";
/// Made-up tokens of one turn; output counts the text at four bytes a token, on top of a base.
const INPUT_PER_TURN: u64 = 1200;
const CACHE_READ_PER_TURN: u64 = 800;
const CACHE_CREATION_PER_TURN: u64 = 100;
const OUTPUT_BASE: u64 = 20;

/// One conversation; every method returns one line without its newline.
pub(super) struct Session {
    id: String,
    began: Instant,
    turns: u64,
    output_tokens: u64,
    tool_uses: u64,
}

impl Session {
    /// Begins a conversation; returns it with its `system`/`init` line.
    pub(super) fn begin() -> (Self, String) {
        let session = Self {
            id: uuid(),
            began: Instant::now(),
            turns: 0,
            output_tokens: 0,
            tool_uses: 0,
        };
        let folder = std::env::current_dir().unwrap_or_default();
        let line = session.event(&format!(
            r#""type":"system","subtype":"init","cwd":{},"tools":["Bash","Edit","Read","Write"],"mcp_servers":[],"model":"{MODEL}","permissionMode":"bypassPermissions","slash_commands":[],"apiKeySource":"none","output_style":"default","agents":[],"skills":[],"plugins":[]"#,
            quote(&folder.to_string_lossy()),
        ));
        (session, line)
    }

    /// A finished block of the assistant's text.
    pub(super) fn say(&mut self, text: &str) -> String {
        self.assistant(&format!(r#"{{"type":"text","text":{}}}"#, quote(text)))
    }

    /// A finished block of the assistant's thinking.
    pub(super) fn thinking(&mut self, text: &str) -> String {
        self.assistant(&format!(
            r#"{{"type":"thinking","thinking":{},"signature":""}}"#,
            quote(text)
        ))
    }

    /// The use of a tool, before it is run; `None` if the command has no tool.
    pub(super) fn tool_use(&mut self, command: &Command) -> Option<String> {
        let (name, input) = match command {
            Command::Write { path, text } => (
                "Write",
                format!(
                    r#""file_path":{},"content":{}"#,
                    absolute(path),
                    quote(text)
                ),
            ),
            Command::Edit { path, old, new } => (
                "Edit",
                format!(
                    r#""replace_all":false,"file_path":{},"old_string":{},"new_string":{}"#,
                    absolute(path),
                    quote(old),
                    quote(new)
                ),
            ),
            Command::Read(path) => ("Read", format!(r#""file_path":{}"#, absolute(path))),
            Command::Check { path, text } => ("Bash", {
                let line = format!("grep -q -F -e {} {}", shell_word(text), shell_path(path));
                format!(
                    r#""command":{},"description":"Check the file""#,
                    quote(&line)
                )
            }),
            Command::Append { path, text } => ("Bash", {
                let line = format!("printf %s {} >> {}", shell_word(text), shell_path(path));
                format!(
                    r#""command":{},"description":"Append to the file""#,
                    quote(&line)
                )
            }),
            _ => return None,
        };
        self.tool_uses += 1;
        let id = self.tool_id();
        Some(self.assistant(&format!(
            r#"{{"type":"tool_use","id":"{id}","name":"{name}","input":{{{input}}}}}"#
        )))
    }

    /// The result of the tool that was used last.
    pub(super) fn tool_result(&self, command: &Command, answer: &Answer) -> String {
        let id = self.tool_id();
        let (content, flag) = match (command, answer) {
            (Command::Read(_), Ok(content)) => {
                (numbered(&String::from_utf8_lossy(content)), "false")
            }
            (_, Ok(content)) => (String::from_utf8_lossy(content).into_owned(), "false"),
            (Command::Check { .. } | Command::Append { .. }, Err(error)) => {
                (format!("Exit code 1\n{error}"), "true")
            }
            (_, Err(error)) => (format!("<tool_use_error>{error}</tool_use_error>"), "true"),
        };
        let content = quote(&content);
        self.event(&format!(
            r#""type":"user","message":{{"role":"user","content":[{{"tool_use_id":"{id}","type":"tool_result","content":{content},"is_error":{flag}}}]}},"parent_tool_use_id":null,"tool_use_result":{content}"#,
        ))
    }

    /// The end of the work: the last text with its completion report, then the `result` line.
    pub(super) fn result(
        &mut self,
        claim: Claim,
        summary: &str,
        blockers: &[String],
    ) -> [String; 2] {
        let blockers: Vec<String> = blockers.iter().map(|blocker| quote(blocker)).collect();
        let text = format!(
            "{summary}\n\n<!-- DARK-FACTORY-REPORT\n{{\"status\":\"{}\",\"summary\":{},\"blockers\":[{}]}}\nDARK-FACTORY-REPORT -->",
            claim.as_str(),
            quote(summary),
            blockers.join(",")
        );
        let last_text = self.say(&text);
        let input = INPUT_PER_TURN * self.turns;
        let cache_read = CACHE_READ_PER_TURN * self.turns;
        let cache_creation = CACHE_CREATION_PER_TURN * self.turns;
        let output = self.output_tokens;
        let duration = self.began.elapsed().as_millis();
        let result = self.event(&format!(
            r#""type":"result","subtype":"success","is_error":false,"terminal_reason":"completed","api_error_status":null,"stop_reason":"end_turn","num_turns":{},"duration_ms":{duration},"duration_api_ms":0,"total_cost_usd":0,"usage":{{"input_tokens":{input},"cache_creation_input_tokens":{cache_creation},"cache_read_input_tokens":{cache_read},"output_tokens":{output}}},"modelUsage":{{"{MODEL}":{{"inputTokens":{input},"outputTokens":{output},"cacheReadInputTokens":{cache_read},"cacheCreationInputTokens":{cache_creation},"webSearchRequests":0,"costUSD":0,"contextWindow":200000}}}},"permission_denials":[],"result_index":0,"result":{}"#,
            self.turns,
            quote(&text),
        ));
        [last_text, result]
    }

    /// The end by an API error: the synthetic text, then the `result` line.
    pub(super) fn error(&mut self, status: u16, message: &str) -> [String; 2] {
        let text = quote(&format!("API Error: {status} {message}"));
        let word = match status {
            400 => "invalid_request",
            401 | 403 => "authentication_failed",
            402 => "billing_error",
            404 => "model_not_found",
            429 => "rate_limit",
            500.. => "server_error",
            _ => "unknown",
        };
        let duration = self.began.elapsed().as_millis();
        let usage = r#"{"input_tokens":0,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":0}"#;
        [
            self.event(&format!(
                r#""type":"assistant","message":{{"id":"{}","type":"message","role":"assistant","model":"<synthetic>","content":[{{"type":"text","text":{text}}}],"stop_reason":"stop_sequence","stop_sequence":"","usage":{usage}}},"parent_tool_use_id":null,"error":"{word}","is_api_error_message":true,"api_error_status":{status}"#,
                uuid(),
            )),
            self.event(&format!(
                r#""type":"result","subtype":"success","is_error":true,"terminal_reason":"api_error","api_error_status":{status},"stop_reason":"stop_sequence","num_turns":{},"duration_ms":{duration},"duration_api_ms":0,"total_cost_usd":0,"usage":{usage},"modelUsage":{{}},"permission_denials":[],"result_index":0,"result":{text}"#,
                self.turns + 1,
            )),
        ]
    }

    fn assistant(&mut self, block: &str) -> String {
        self.turns += 1;
        let output = OUTPUT_BASE + u64::try_from(block.len() / 4).unwrap_or(0);
        self.output_tokens += output;
        self.event(&format!(
            r#""type":"assistant","message":{{"id":"msg_{:024x}","type":"message","role":"assistant","model":"{MODEL}","content":[{block}],"stop_reason":null,"stop_sequence":null,"usage":{{"input_tokens":{INPUT_PER_TURN},"cache_creation_input_tokens":{CACHE_CREATION_PER_TURN},"cache_read_input_tokens":{CACHE_READ_PER_TURN},"output_tokens":{output}}}}},"parent_tool_use_id":null"#,
            self.turns,
        ))
    }

    fn event(&self, fields: &str) -> String {
        format!(
            r#"{{{fields},"session_id":"{}","uuid":"{}"}}"#,
            self.id,
            uuid()
        )
    }

    fn tool_id(&self) -> String {
        format!("toolu_{:024x}", self.tool_uses)
    }
}

fn uuid() -> String {
    fs::read_to_string("/proc/sys/kernel/random/uuid").map_or_else(
        |_| "00000000-0000-4000-8000-000000000000".to_owned(),
        |uuid| uuid.trim().to_owned(),
    )
}

fn absolute(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    quote(&path.to_string_lossy())
}

fn shell_path(path: &Path) -> String {
    shell_word(&path.to_string_lossy())
}

fn shell_word(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn numbered(text: &str) -> String {
    let lines: Vec<String> = text
        .split('\n')
        .zip(1..)
        .map(|(line, number)| format!("{number}\t{line}"))
        .collect();
    lines.join("\n")
}
