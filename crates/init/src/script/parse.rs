//! The script language: commands, words, quantities.
//!
//! Owns: the grammar and every command's arguments.
//! Reads: the script's text.
//! Never: runs anything.
//!
//! Commands are separated by newlines or `;`. Words are separated by blanks; `'…'` takes everything as it is, `"…"`
//! knows `\n`, `\t`, `\r`, `\e`, `\"` and `\\`. A `#` at the beginning of a command makes it a comment.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use dark_factory_init::DEFAULT_LINE_LENGTH;
use nix::sys::signal::Signal;

/// What a `result` command claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    Success,
    Failed,
    Partial,
}

impl Claim {
    /// Returns the word of the completion report.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Partial => "partial",
        }
    }
}

/// One command of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    Print(String),
    PrintRaw(String),
    Stderr(String),
    Bytes(Vec<u8>),
    Sleep(Duration),
    Exit(u8),
    KillSelf(Signal),
    IgnoreTerm,
    OnTermExit(u8),
    Allocate(u64),
    Fork(String),
    Spew {
        size: u64,
        line_length: usize,
    },
    Line(u64),
    Write {
        path: PathBuf,
        text: String,
    },
    Append {
        path: PathBuf,
        text: String,
    },
    Edit {
        path: PathBuf,
        old: String,
        new: String,
    },
    Read(PathBuf),
    Check {
        path: PathBuf,
        text: String,
    },
    Replay {
        path: PathBuf,
        delay: Duration,
    },
    Env(String),
    Prompt,
    Pwd,
    Id,
    Ls(PathBuf),
    WaitFile(PathBuf),
    Connect(String),
    Tamper,
    Begin,
    Say(String),
    Thinking(String),
    Result {
        claim: Claim,
        summary: String,
    },
    Error {
        status: u16,
        message: String,
    },
}

/// A script that cannot be understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ParseError {
    line: usize,
    message: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

/// Returns the text of the first fenced code block whose tag is `script`.
pub(super) fn script_block(markdown: &str) -> Option<String> {
    let mut lines = markdown.lines();
    let fence = lines.find_map(|line| {
        let line = line.trim_start();
        let fence: String = line
            .chars()
            .take_while(|&c| c == line.chars().next().unwrap_or(' ') && (c == '`' || c == '~'))
            .collect();
        let tag = line[fence.len()..].split_whitespace().next();
        (fence.len() >= 3 && tag == Some("script")).then_some(fence)
    })?;
    let body: Vec<&str> = lines
        .take_while(|line| !line.trim().starts_with(&fence))
        .collect();
    Some(body.join("\n"))
}

/// Parses a whole script, so that a mistake at its end is found before its beginning is run.
pub(super) fn parse(script: &str) -> Result<Vec<Command>, ParseError> {
    let mut commands = Vec::new();
    let mut rest = Scanner {
        text: script,
        line: 1,
    };
    while !rest.text.is_empty() {
        let line = rest.line;
        let (words, raw) = rest
            .next_command()
            .map_err(|message| ParseError { line, message })?;
        if let Some((name, arguments)) = words.split_first() {
            let command =
                command(name, arguments, raw).map_err(|message| ParseError { line, message })?;
            commands.push(command);
        }
    }
    Ok(commands)
}

struct Scanner<'a> {
    text: &'a str,
    line: usize,
}

impl<'a> Scanner<'a> {
    /// Splits the next command off; returns its words and its text.
    fn next_command(&mut self) -> Result<(Vec<String>, &'a str), String> {
        let text = self.text;
        let mut words = Vec::new();
        let mut word: Option<String> = None;
        let mut letters = text.char_indices();
        let mut end = text.len();
        let mut next = text.len();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\n' | ';' => {
                    (end, next) = (at, at + 1);
                    self.line += usize::from(letter == '\n');
                    break;
                }
                '#' if words.is_empty() && word.is_none() => {
                    let length = text[at..].find('\n').unwrap_or(text.len() - at);
                    (end, next) = (at, (at + length + 1).min(text.len()));
                    self.line += 1;
                    break;
                }
                '\'' => loop {
                    match letters.next() {
                        Some((_, '\'')) => {
                            word.get_or_insert_default();
                            break;
                        }
                        Some((_, c)) => self.push(&mut word, c),
                        None => return Err("a ' is not closed".to_owned()),
                    }
                },
                '"' => loop {
                    match letters.next() {
                        Some((_, '"')) => {
                            word.get_or_insert_default();
                            break;
                        }
                        Some((_, '\\')) => {
                            let escape = letters.next().ok_or("a \" is not closed")?.1;
                            self.push(&mut word, unescape(escape)?);
                        }
                        Some((_, c)) => self.push(&mut word, c),
                        None => return Err("a \" is not closed".to_owned()),
                    }
                },
                blank if blank.is_whitespace() => words.extend(word.take()),
                other => word.get_or_insert_default().push(other),
            }
        }
        words.extend(word);
        self.text = &text[next..];
        Ok((words, text[..end].trim()))
    }

    fn push(&mut self, word: &mut Option<String>, letter: char) {
        self.line += usize::from(letter == '\n');
        word.get_or_insert_default().push(letter);
    }
}

fn unescape(letter: char) -> Result<char, String> {
    Ok(match letter {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'e' => '\u{1b}',
        '"' | '\\' => letter,
        other => return Err(format!("unknown escape \\{other}")),
    })
}

fn command(name: &str, words: &[String], raw: &str) -> Result<Command, String> {
    let text = |from: usize| words.get(from..).unwrap_or_default().join(" ");
    let word = |at: usize| {
        words
            .get(at)
            .map(String::as_str)
            .ok_or_else(|| format!("`{name}` needs more words"))
    };
    let path = |at: usize| word(at).map(PathBuf::from);
    Ok(match name {
        "print" => Command::Print(text(0)),
        "print-raw" => Command::PrintRaw(text(0)),
        "stderr" => Command::Stderr(text(0)),
        "bytes" => Command::Bytes(hex(&words.concat())?),
        "sleep" => Command::Sleep(duration(word(0)?)?),
        "exit" => Command::Exit(exit_code(word(0)?)?),
        "kill-self" => Command::KillSelf(signal(word(0)?)?),
        "ignore-term" => Command::IgnoreTerm,
        "on-term" => match words {
            [exit, code] if exit == "exit" => Command::OnTermExit(exit_code(code)?),
            _ => return Err("expected `on-term exit N`".to_owned()),
        },
        "allocate" => Command::Allocate(size(word(0)?)?),
        "fork" => {
            // One word is a quoted script; more are a command as they stand, quotes included.
            let script = match words {
                [script] => script.clone(),
                _ => raw["fork".len()..].trim().to_owned(),
            };
            if parse(&script).map_err(|error| error.message)?.is_empty() {
                return Err("`fork` needs a command".to_owned());
            }
            Command::Fork(script)
        }
        "spew" => Command::Spew {
            size: size(word(0)?)?,
            line_length: match words.get(1) {
                Some(length) => usize::try_from(size(length)?).map_err(|e| e.to_string())?,
                None => DEFAULT_LINE_LENGTH,
            },
        },
        "line" => Command::Line(size(word(0)?)?),
        "write" => Command::Write {
            path: path(0)?,
            text: text(1),
        },
        "append" => Command::Append {
            path: path(0)?,
            text: text(1),
        },
        "edit" => Command::Edit {
            path: path(0)?,
            old: word(1)?.to_owned(),
            new: word(2)?.to_owned(),
        },
        "read" => Command::Read(path(0)?),
        "check" => Command::Check {
            path: path(0)?,
            text: text(1),
        },
        "replay" => Command::Replay {
            path: path(0)?,
            delay: words
                .get(1)
                .map_or(Ok(Duration::ZERO), |word| duration(word))?,
        },
        "env" => Command::Env(word(0)?.to_owned()),
        "prompt" => Command::Prompt,
        "pwd" => Command::Pwd,
        "id" => Command::Id,
        "ls" => Command::Ls(path(0)?),
        "wait-file" => Command::WaitFile(path(0)?),
        "connect" => Command::Connect(word(0)?.to_owned()),
        "tamper" => Command::Tamper,
        "begin" => Command::Begin,
        "say" => Command::Say(text(0)),
        "thinking" => Command::Thinking(text(0)),
        "result" => Command::Result {
            claim: match word(0)? {
                "success" => Claim::Success,
                "failed" => Claim::Failed,
                "partial" => Claim::Partial,
                other => return Err(format!("`{other}` is not success, failed or partial")),
            },
            summary: text(1),
        },
        "error" => Command::Error {
            status: word(0)?
                .parse()
                .map_err(|_| format!("`{}` is not an HTTP status", words[0]))?,
            message: text(1),
        },
        other => return Err(format!("unknown command `{other}`")),
    })
}

fn exit_code(word: &str) -> Result<u8, String> {
    word.parse()
        .map_err(|_| format!("`{word}` is not an exit code"))
}

fn signal(word: &str) -> Result<Signal, String> {
    let upper = word.to_ascii_uppercase();
    if let Ok(number) = upper.parse::<i32>() {
        return Signal::try_from(number).map_err(|_| format!("no signal has the number {word}"));
    }
    let name = if upper.starts_with("SIG") {
        upper
    } else {
        format!("SIG{upper}")
    };
    name.parse()
        .map_err(|_| format!("`{word}` is not a signal"))
}

fn hex(digits: &str) -> Result<Vec<u8>, String> {
    let bad = || format!("`{digits}` is not pairs of hexadecimal digits");
    if !digits.is_ascii() || !digits.len().is_multiple_of(2) {
        return Err(bad());
    }
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| bad()))
        .collect()
}

/// Parses `100ms`, `2s`, `1m`, `1h`; a bare number is seconds.
fn duration(word: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(word);
    let seconds_per_unit = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("`{word}` is not a duration")),
    };
    number
        .parse::<f64>()
        .ok()
        .and_then(|number| Duration::try_from_secs_f64(number * seconds_per_unit).ok())
        .ok_or_else(|| format!("`{word}` is not a duration"))
}

/// Parses a number of bytes; `k`, `m` and `g` are powers of 1024, with or without `b` or `ib` behind them.
fn size(word: &str) -> Result<u64, String> {
    let lower = word.to_ascii_lowercase();
    let (number, unit) = split_unit(&lower);
    let scale = match unit {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return Err(format!("`{word}` is not a size")),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(scale))
        .ok_or_else(|| format!("`{word}` is not a size"))
}

fn split_unit(word: &str) -> (&str, &str) {
    let at = word
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(word.len());
    word.split_at(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(text: &str) -> Command {
        Command::Print(text.to_owned())
    }

    #[test]
    fn words_are_split_like_a_shell_does() {
        let script =
            "print a  b; print 'c ; d' \"e\\n\" f\"g\"'h'\n\n# not; this\nprint ''\nprint x#y";

        assert_eq!(
            parse(script),
            Ok(vec![
                print("a b"),
                print("c ; d e\n fgh"),
                print(""),
                print("x#y")
            ])
        );
    }

    #[test]
    fn a_mistake_names_its_line() {
        for (script, line) in [
            ("print a\nfrobnicate", 2),
            ("# c\n\nprint 'a\nb'\nsleep x", 5),
            ("print 'open", 1),
            ("exit 300", 1),
            ("write", 1),
            ("fork", 1),
            ("fork nonsense", 1),
            ("bytes 0g", 1),
            ("kill-self WHAT", 1),
            ("print \"\\q\"", 1),
        ] {
            assert_eq!(parse(script).unwrap_err().line, line, "{script}");
        }
    }

    #[test]
    fn fork_takes_the_rest_of_its_command_or_a_quoted_script() {
        assert_eq!(
            parse("fork print 'a b'; exit 0"),
            Ok(vec![
                Command::Fork("print 'a b'".to_owned()),
                Command::Exit(0)
            ])
        );
        assert_eq!(
            parse("fork 'sleep 1s; exit 3'"),
            Ok(vec![Command::Fork("sleep 1s; exit 3".to_owned())])
        );
    }

    #[test]
    fn quantities_have_units() {
        assert_eq!(duration("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("3k"), Ok(3072));
        assert!(size("99999999999g").is_err());
        assert_eq!(signal("term"), Ok(Signal::SIGTERM));
        assert_eq!(signal("9"), Ok(Signal::SIGKILL));
    }

    #[test]
    fn the_first_script_block_of_a_prompt_is_taken() {
        let prompt = "# Do it\n```sh\nprint no\n```\n~~~ script x\nprint a\n```\nprint b\n~~~\n```script\nprint c\n```\n";

        assert_eq!(
            script_block(prompt).as_deref(),
            Some("print a\n```\nprint b")
        );
        assert_eq!(script_block("no block"), None);
        assert_eq!(
            script_block("```script\nprint a").as_deref(),
            Some("print a")
        );
    }
}
