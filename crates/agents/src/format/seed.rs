//! The seed's formatter: Claude's JSON lines as the seed prints them, byte for byte.
//!
//! Owns: the seed's lines, and the names of tools whose calls are open.
//! Reads: any line; whatever is not one of Claude's is printed as it is.
//! Never: stops reading, because a full disk must not block the agent; see [`Formatter`].
//!
//! The seed reads JSON with Go's rules: keys in any case, one field of a wrong type makes the whole
//! line text. This module follows them.

use std::collections::HashMap;
use std::io::{self, Read, Write};

use jiff::civil::Time;
use jiff::tz::TimeZone;

use self::go::Mismatch;
use crate::claude::BLOCK_KEYS;
use crate::json::{JsonKind, KeyMatch, Raw, fields, kind};
use crate::split::{DECODE_CAP, LineContent, LineSplitter, SplitLine};

mod go;
mod tools;

/// Names of calls that are remembered at most.
const CALLS: usize = 65_536;
/// How much is read at once, in bytes.
const READ: usize = 64 << 10;

/// The seed's `formatter.Formatter`: copies a stream to a raw log and prints it for people.
///
/// Other than the seed, it writes the raw log byte for byte, carriage returns and a missing last
/// newline included, it goes on after a line that is too long, and it goes on reading after a log
/// could not be written, so that the agent is never blocked.
#[derive(Debug, Clone)]
pub struct Formatter {
    zone: TimeZone,
}

impl Formatter {
    /// Makes a formatter that shows reset times in the given zone.
    pub fn new(zone: TimeZone) -> Self {
        Self { zone }
    }

    /// Copies `reader` to `raw` and prints its lines to `formatted`, until the end.
    ///
    /// `clock` gives the local time of each line. Raw bytes are written before the lines in them.
    ///
    /// # Errors
    ///
    /// The first error of reading or writing. After an error of one writer, reading goes on, the
    /// other writer still gets everything, and the error is returned at the end.
    pub fn process_stream(
        &mut self,
        mut reader: impl Read,
        raw: &mut impl Write,
        formatted: &mut impl Write,
        clock: &dyn Fn() -> Time,
    ) -> io::Result<()> {
        let mut lines = SeedFormatter::new(self.zone.clone());
        let mut splitter = LineSplitter::new();
        let mut raw = Patient::new(raw);
        let mut formatted = Patient::new(formatted);
        let mut chunk = vec![0; READ];
        let mut out = Vec::new();
        let read = loop {
            let len = match reader.read(&mut chunk) {
                Ok(0) => break Ok(()),
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => break Err(error),
            };
            let chunk = chunk.get(..len).unwrap_or_default();
            raw.write(chunk);
            splitter.feed(chunk, |line| lines.write(&line, &time_of(clock), &mut out));
            formatted.write(&out);
            out.clear();
        };
        splitter.finish(|line| lines.write(&line, &time_of(clock), &mut out));
        formatted.write(&out);
        read.and(raw.finish()).and(formatted.finish())
    }
}

fn time_of(clock: &dyn Fn() -> Time) -> String {
    clock().strftime("%H:%M:%S").to_string()
}

/// A writer that keeps its first error and swallows everything after it.
struct Patient<'w, W> {
    writer: &'w mut W,
    result: io::Result<()>,
}

impl<'w, W: Write> Patient<'w, W> {
    fn new(writer: &'w mut W) -> Self {
        Self {
            writer,
            result: Ok(()),
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.result.is_ok() {
            self.result = self.writer.write_all(bytes);
        }
    }

    fn finish(self) -> io::Result<()> {
        self.result.and_then(|()| self.writer.flush())
    }
}

/// Prints single lines of Claude's stream as the seed does.
#[derive(Debug)]
pub struct SeedFormatter {
    zone: TimeZone,
    calls: HashMap<String, String>,
}

impl SeedFormatter {
    /// Makes a formatter for one stream that shows reset times in the given zone.
    pub fn new(zone: TimeZone) -> Self {
        Self {
            zone,
            calls: HashMap::new(),
        }
    }

    /// Returns what the seed prints for a line: nothing, or whole lines with the given time in front.
    ///
    /// `line` is without its line end, `time` without brackets. What is not UTF-8 is U+FFFD here;
    /// [`SeedFormatter::write_line`] keeps it.
    pub fn line(&mut self, line: &[u8], time: &str) -> String {
        let mut out = Vec::new();
        self.write_line(line, time, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// Appends what the seed prints for a line, byte for byte.
    pub fn write_line(&mut self, line: &[u8], time: &str, out: &mut Vec<u8>) {
        let stamp = format!("[{time}] ");
        let text = go::repair(line);
        match self.render(&text, &stamp) {
            Ok(rendered) if rendered.is_empty() => {}
            Ok(rendered) => {
                out.extend_from_slice(rendered.as_bytes());
                out.push(b'\n');
            }
            Err(Mismatch) => {
                out.extend_from_slice(stamp.as_bytes());
                out.extend_from_slice(line);
                out.push(b'\n');
            }
        }
    }

    /// Appends what is printed for a line that is longer than the decode cap.
    pub fn write_too_long(&mut self, len: u64, time: &str, out: &mut Vec<u8>) {
        let text = format!(
            "[{time}] [formatter: scanner error, line truncated or dropped: \
             {len} bytes are more than {DECODE_CAP}]\n"
        );
        out.extend_from_slice(text.as_bytes());
    }

    /// Appends what is printed for a line as the splitter hands it over.
    pub fn write(&mut self, line: &SplitLine<'_>, time: &str, out: &mut Vec<u8>) {
        match line.content {
            LineContent::Whole(bytes) => self.write_line(bytes, time, out),
            LineContent::TooLong => self.write_too_long(line.len, time, out),
        }
    }

    fn render(&mut self, text: &str, stamp: &str) -> Result<String, Mismatch> {
        let message = Message::read(text)?;
        Ok(match &*message.kind {
            "system" if message.subtype == "init" => message.init(stamp),
            "system" => format!("{stamp}[system: {}]", message.subtype),
            "assistant" => self
                .assistant(message.message, stamp)
                .unwrap_or_else(|Mismatch| format!("{stamp}[assistant: parse error]")),
            "user" => self
                .user(message.message, stamp)
                .unwrap_or_else(|Mismatch| format!("{stamp}[user: parse error]")),
            "result" => message.result(stamp),
            "rate_limit_event" => message.rate_limit(stamp, &self.zone),
            other => format!("{stamp}[unknown type: {other}]"),
        })
    }

    fn assistant(&mut self, message: Option<Raw<'_>>, stamp: &str) -> Result<String, Mismatch> {
        let mut lines = Vec::new();
        blocks(message, |block| match &*block.kind {
            "text" if block.text.trim().is_empty() => {}
            "text" => lines.push(format!("{stamp}{}", block.text)),
            "thinking" => lines.push(format!(
                "{stamp}💭 {}",
                tools::truncate(&block.thinking, 500)
            )),
            "tool_use" => {
                let line = tools::call(&block.name, block.input);
                lines.push(format!("{stamp}{line}"));
                if self.calls.len() < CALLS {
                    self.calls.insert(block.id, block.name);
                }
            }
            other => lines.push(format!("{stamp}[assistant content: {other}]")),
        })?;
        Ok(lines.join("\n"))
    }

    fn user(&mut self, message: Option<Raw<'_>>, stamp: &str) -> Result<String, Mismatch> {
        let mut lines = Vec::new();
        blocks(message, |block| {
            if block.kind != "tool_result" {
                return;
            }
            let name = self
                .calls
                .get(&block.tool_use_id)
                .map_or("(unknown tool)", String::as_str);
            if let Some(line) = tools::answer(name, block.content, block.is_error) {
                lines.push(format!("{stamp}{line}"));
            }
        })?;
        Ok(lines.join("\n"))
    }
}

/// A line as the seed's message type holds it.
struct Message<'a> {
    kind: String,
    subtype: String,
    session_id: String,
    model: String,
    cwd: String,
    tools: u64,
    message: Option<Raw<'a>>,
    result: Option<String>,
    duration_ms: Option<f64>,
    cost: Option<f64>,
    tokens: Option<(i64, i64)>,
    rate_limit: Option<RateLimit>,
}

struct RateLimit {
    status: String,
    window: String,
    resets_at: i64,
    utilization: f64,
}

impl<'a> Message<'a> {
    fn read(text: &'a str) -> Result<Self, Mismatch> {
        let names = [
            "type",
            "subtype",
            "session_id",
            "model",
            "cwd",
            "tools",
            "message",
            "result",
            "is_error",
            "duration_ms",
            "total_cost_usd",
            "usage",
            "rate_limit_info",
        ];
        let found = if text.trim_ascii() == "null" {
            [None; 13]
        } else {
            fields(text, names, KeyMatch::AnyCase).ok_or(Mismatch)?
        };
        let [
            kind,
            subtype,
            session_id,
            model,
            cwd,
            tools,
            message,
            result,
            is_error,
            duration,
            cost,
            usage,
            limit,
        ] = found;
        go::boolean(is_error)?;
        Ok(Self {
            kind: go::string(kind)?,
            subtype: go::string(subtype)?,
            session_id: go::string(session_id)?,
            model: go::string(model)?,
            cwd: go::string(cwd)?,
            tools: count_strings(tools)?,
            message,
            result: go::optional_string(result)?,
            duration_ms: go::float(duration)?,
            cost: go::float(cost)?,
            tokens: read_tokens(usage)?,
            rate_limit: read_rate_limit(limit)?,
        })
    }

    fn init(&self, stamp: &str) -> String {
        let session = match self.session_id.as_bytes() {
            [] => "(unknown)".into(),
            id => String::from_utf8_lossy(id.get(..8).unwrap_or(id)),
        };
        format!(
            "{stamp}[init] session={session} model={} cwd={} tools={}",
            self.model, self.cwd, self.tools
        )
    }

    fn result(&self, stamp: &str) -> String {
        let mut parts = Vec::new();
        if let Some(result) = &self.result {
            parts.push(format!("result: {result}"));
        }
        if let Some(duration) = self.duration_ms {
            parts.push(format!("duration: {duration:.0}ms"));
        }
        if let Some(cost) = self.cost {
            parts.push(format!("cost: ${cost:.4}"));
        }
        if let Some((input, output)) = self.tokens {
            parts.push(format!("tokens: {input} in / {output} out"));
        }
        format!("{stamp}{}", parts.join(" | "))
    }

    fn rate_limit(&self, stamp: &str, zone: &TimeZone) -> String {
        let Some(limit) = &self.rate_limit else {
            return format!("{stamp}⚠ rate-limit event");
        };
        let resets = jiff::Timestamp::from_second(limit.resets_at)
            .ok()
            .filter(|_| limit.resets_at != 0)
            .map(|at| {
                at.to_zoned_datetime(zone.clone())
                    .strftime(" resets=%H:%M:%S")
                    .to_string()
            })
            .unwrap_or_default();
        format!(
            "{stamp}⚠ rate-limit: {} {:.0}%{resets} status={}",
            limit.window,
            // Adding zero makes a negative zero positive.
            (limit.utilization * 100.0).trunc() + 0.0,
            limit.status
        )
    }
}

fn count_strings(tools: Option<Raw<'_>>) -> Result<u64, Mismatch> {
    let mut count = 0;
    go::array(tools, |tool| {
        count += 1;
        go::string(Some(tool)).map(drop)
    })?;
    Ok(count)
}

fn read_tokens(usage: Option<Raw<'_>>) -> Result<Option<(i64, i64)>, Mismatch> {
    let names = ["input_tokens", "output_tokens", "cache_read_input_tokens"];
    let [input, output, cached] = go::object(usage, names)?;
    go::integer(cached)?;
    Ok(go::integer(input)?.zip(go::integer(output)?))
}

fn read_rate_limit(info: Option<Raw<'_>>) -> Result<Option<RateLimit>, Mismatch> {
    let names = [
        "status",
        "rateLimitType",
        "resetsAt",
        "utilization",
        "isUsingOverage",
        "surpassedThreshold",
    ];
    let [status, window, resets_at, utilization, overage, surpassed] = go::object(info, names)?;
    go::boolean(overage)?;
    // The seed expects a boolean. Claude Code sends a number, so the seed prints such a line as it is.
    go::boolean(surpassed)?;
    let limit = RateLimit {
        status: go::string(status)?,
        window: go::string(window)?,
        resets_at: go::integer(resets_at)?.unwrap_or(0),
        utilization: go::float(utilization)?.unwrap_or(0.0),
    };
    Ok(info
        .filter(|info| kind(*info) != JsonKind::Null)
        .map(|_| limit))
}

/// A content block as the seed's type holds it.
struct Block<'a> {
    kind: String,
    text: String,
    thinking: String,
    id: String,
    name: String,
    input: Option<Raw<'a>>,
    tool_use_id: String,
    content: Option<Raw<'a>>,
    is_error: tools::Answer,
}

/// Hands over the blocks of an inner message once all of them were read.
fn blocks<'a>(message: Option<Raw<'a>>, sink: impl FnMut(Block<'a>)) -> Result<(), Mismatch> {
    let [content] = go::object(Some(message.ok_or(Mismatch)?), ["content"])?;
    let mut all = Vec::new();
    go::array(content, |block| {
        let [
            kind,
            text,
            thinking,
            id,
            name,
            input,
            tool_use_id,
            content,
            is_error,
        ] = go::object(Some(block), BLOCK_KEYS)?;
        all.push(Block {
            kind: go::string(kind)?,
            text: go::string(text)?,
            thinking: go::string(thinking)?,
            id: go::string(id)?,
            name: go::string(name)?,
            input,
            tool_use_id: go::string(tool_use_id)?,
            content,
            is_error: match go::boolean(is_error)? {
                true => tools::Answer::Error,
                false => tools::Answer::Ok,
            },
        });
        Ok(())
    })?;
    all.into_iter().for_each(sink);
    Ok(())
}
