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
use self::tools::{Answer, Shown};
use crate::claude::{Block, Content, Fields, Message, Reading};
use crate::json::{JsonKind, JsonStr, KeyMatch, Raw, Reader, kind};
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
        let mut stamp = Stamp::default();
        let read = loop {
            let len = match reader.read(&mut chunk) {
                Ok(0) => break Ok(()),
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => break Err(error),
            };
            let chunk = chunk.get(..len).unwrap_or_default();
            raw.write(chunk);
            splitter.feed(chunk, |line| {
                lines.write(&line, stamp.of(clock()), &mut out);
            });
            formatted.write(&out);
            out.clear();
        };
        splitter.finish(|line| lines.write(&line, stamp.of(clock()), &mut out));
        formatted.write(&out);
        read.and(raw.finish()).and(formatted.finish())
    }
}

/// The time as it is printed, made once for each second.
#[derive(Default)]
struct Stamp {
    second: Option<[i8; 3]>,
    text: String,
}

impl Stamp {
    fn of(&mut self, time: Time) -> &str {
        let second = [time.hour(), time.minute(), time.second()];
        if self.second != Some(second) {
            self.second = Some(second);
            self.text = time.strftime("%H:%M:%S").to_string();
        }
        &self.text
    }
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
    failures: tools::Failures,
}

impl SeedFormatter {
    /// Makes a formatter for one stream that shows reset times in the given zone.
    pub fn new(zone: TimeZone) -> Self {
        Self {
            zone,
            calls: HashMap::new(),
            failures: tools::Failures::new(),
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
        let mut page = Page { out, time };
        if let Err(Mismatch) = self.render(&go::repair(line), &mut page) {
            page.bytes(line);
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

    /// Prints a message; nothing is printed of what is none.
    fn render(&mut self, text: &str, page: &mut Page<'_>) -> Result<(), Mismatch> {
        let envelope = Envelope::read(text)?;
        match &*envelope.kind.text() {
            "system" => envelope.system(page),
            "assistant" => match blocks(envelope.message) {
                Ok(blocks) => self.assistant(&blocks, page),
                Err(Mismatch) => page.line(&["[assistant: parse error]"]),
            },
            "user" => match blocks(envelope.message) {
                Ok(blocks) => self.user(&blocks, page),
                Err(Mismatch) => page.line(&["[user: parse error]"]),
            },
            "result" => envelope.result(page),
            "rate_limit_event" => envelope.rate_limit(page, &self.zone),
            other => page.line(&["[unknown type: ", other, "]"]),
        }
        Ok(())
    }

    fn assistant(&mut self, blocks: &[TypedBlock<'_>], page: &mut Page<'_>) {
        for block in blocks {
            match &*block.kind.text() {
                "text" => {
                    let text = block.text.text();
                    if !text.trim().is_empty() {
                        page.line(&[&text]);
                    }
                }
                "thinking" => page.line(&["💭 ", &tools::truncate(block.thinking, 500)]),
                "tool_use" => {
                    let name = block.name.text();
                    page.line(&[&tools::call(&name, block.input)]);
                    if self.calls.len() < CALLS {
                        self.calls
                            .insert(block.id.text().into_owned(), name.into_owned());
                    }
                }
                other => page.line(&["[assistant content: ", other, "]"]),
            }
        }
    }

    fn user(&mut self, blocks: &[TypedBlock<'_>], page: &mut Page<'_>) {
        for block in blocks {
            if block.kind.text() != "tool_result" {
                continue;
            }
            let name = self.calls.get(&*block.tool_use_id.text());
            let name = name
                .map(String::as_str)
                .filter(|name| !name.is_empty())
                .unwrap_or("(unknown tool)");
            let text = tools::content_text(block.content);
            match tools::answer(name, &text, block.answer, &mut self.failures) {
                Shown::Nothing => {}
                Shown::Line(line) => page.line(&[&line]),
                Shown::Output(output) => page.line(&["⚠ [bash output]\n", output]),
            }
        }
    }
}

/// Where lines go, and the time before them.
struct Page<'o> {
    out: &'o mut Vec<u8>,
    time: &'o str,
}

impl Page<'_> {
    fn line(&mut self, parts: &[&str]) {
        self.stamp();
        for part in parts {
            self.out.extend_from_slice(part.as_bytes());
        }
        self.out.push(b'\n');
    }

    fn bytes(&mut self, line: &[u8]) {
        self.stamp();
        self.out.extend_from_slice(line);
        self.out.push(b'\n');
    }

    fn stamp(&mut self) {
        for part in ["[", self.time, "] "] {
            self.out.extend_from_slice(part.as_bytes());
        }
    }
}

/// A line as the seed's message type holds it.
struct Envelope<'a> {
    kind: JsonStr<'a>,
    subtype: JsonStr<'a>,
    session_id: JsonStr<'a>,
    model: JsonStr<'a>,
    cwd: JsonStr<'a>,
    tools: u64,
    message: Option<Message<'a>>,
    result: Option<JsonStr<'a>>,
    duration_ms: Option<f64>,
    cost: Option<f64>,
    tokens: Option<(i64, i64)>,
    rate_limit: Option<RateLimit<'a>>,
}

struct RateLimit<'a> {
    status: JsonStr<'a>,
    window: JsonStr<'a>,
    resets_at: i64,
    utilization: f64,
}

/// Go reads keys in any case, and all blocks of a message.
const READING: Reading = Reading {
    keys: KeyMatch::AnyCase,
    blocks: usize::MAX,
};

impl<'a> Envelope<'a> {
    fn read(text: &'a str) -> Result<Self, Mismatch> {
        let names = [
            "type",
            "subtype",
            "session_id",
            "model",
            "cwd",
            "tools",
            "result",
            "is_error",
            "duration_ms",
            "total_cost_usd",
            "usage",
            "rate_limit_info",
        ];
        let line = match text.trim_ascii() {
            "null" => READING.line("{}", names),
            _ => READING.line(text, names),
        };
        let line = line.ok_or(Mismatch)?;
        let [
            kind,
            subtype,
            session_id,
            model,
            cwd,
            tools,
            result,
            is_error,
            duration,
            cost,
            usage,
            limit,
        ] = line.fields;
        go::boolean(is_error)?;
        Ok(Self {
            kind: go::string(kind)?,
            subtype: go::string(subtype)?,
            session_id: go::string(session_id)?,
            model: go::string(model)?,
            cwd: go::string(cwd)?,
            tools: count_strings(tools)?,
            message: line.message,
            result: go::optional_string(result)?,
            duration_ms: go::float(duration)?,
            cost: go::float(cost)?,
            tokens: read_tokens(usage)?,
            rate_limit: read_rate_limit(limit)?,
        })
    }

    fn system(&self, page: &mut Page<'_>) {
        let subtype = self.subtype.text();
        if subtype != "init" {
            return page.line(&["[system: ", &subtype, "]"]);
        }
        let session = self.session_id.text();
        let session = match session.as_bytes() {
            [] => "(unknown)".into(),
            id => String::from_utf8_lossy(id.get(..8).unwrap_or(id)),
        };
        let (model, cwd, tools) = (self.model.text(), self.cwd.text(), self.tools.to_string());
        page.line(&[
            "[init] session=",
            &session,
            " model=",
            &model,
            " cwd=",
            &cwd,
            " tools=",
            &tools,
        ]);
    }

    fn result(&self, page: &mut Page<'_>) {
        let mut parts = Vec::new();
        if let Some(result) = self.result {
            parts.push(format!("result: {}", result.text()));
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
        page.line(&[&parts.join(" | ")]);
    }

    fn rate_limit(&self, page: &mut Page<'_>, zone: &TimeZone) {
        let Some(limit) = &self.rate_limit else {
            return page.line(&["⚠ rate-limit event"]);
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
        page.line(&[&format!(
            "⚠ rate-limit: {} {:.0}%{resets} status={}",
            limit.window.text(),
            // Adding zero makes a negative zero positive.
            (limit.utilization * 100.0).trunc() + 0.0,
            limit.status.text()
        )]);
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

fn read_rate_limit(info: Option<Raw<'_>>) -> Result<Option<RateLimit<'_>>, Mismatch> {
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
#[derive(Clone, Copy)]
struct TypedBlock<'a> {
    kind: JsonStr<'a>,
    text: JsonStr<'a>,
    thinking: JsonStr<'a>,
    id: JsonStr<'a>,
    name: JsonStr<'a>,
    input: Option<Raw<'a>>,
    tool_use_id: JsonStr<'a>,
    content: Option<Raw<'a>>,
    answer: Answer,
}

impl<'a> TypedBlock<'a> {
    fn read(block: Raw<'a>) -> Result<Self, Mismatch> {
        Self::new(
            &READING
                .block(&mut Reader::new(block.get()))
                .ok_or(Mismatch)?,
        )
    }

    fn new(block: &Block<'a>) -> Result<Self, Mismatch> {
        let fields = match *block {
            Block::Object(fields) => fields,
            Block::Other(null) if kind(null) == JsonKind::Null => Fields::default(),
            Block::Other(_) => return Err(Mismatch),
        };
        Ok(Self {
            kind: go::string(fields.kind)?,
            text: go::string(fields.text)?,
            thinking: go::string(fields.thinking)?,
            id: go::string(fields.id)?,
            name: go::string(fields.name)?,
            input: fields.input,
            tool_use_id: go::string(fields.tool_use_id)?,
            content: fields.content,
            answer: match go::boolean(fields.is_error)? {
                true => Answer::Error,
                false => Answer::Ok,
            },
        })
    }
}

/// Returns the blocks of an inner message.
fn blocks(message: Option<Message<'_>>) -> Result<Vec<TypedBlock<'_>>, Mismatch> {
    let content = match message.ok_or(Mismatch)? {
        Message::Object { content, .. } => content,
        Message::Other(null) if kind(null) == JsonKind::Null => None,
        Message::Other(_) => return Err(Mismatch),
    };
    match content {
        Some(Content::Blocks { blocks, .. }) => blocks.iter().map(TypedBlock::new).collect(),
        Some(Content::Other(value)) if kind(value) != JsonKind::Null => Err(Mismatch),
        Some(Content::Other(_)) | None => Ok(Vec::new()),
    }
}
