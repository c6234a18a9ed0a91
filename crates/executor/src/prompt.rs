//! Prompt files: a front matter with settings, and the text for the agent.
//!
//! Owns: where the front matter ends, and the errors of a prompt file.
//! Reads: the bytes of a prompt file.
//! Never: touches the file system or the environment.

use std::fmt;

use crate::settings::{
    Diagnostic, Fault, Joined, Level, Place, Settings, Source, parse_yaml, read_settings,
    suggest_key,
};

/// The line that opens and closes a front matter.
const FENCE: &str = "---";

/// A prompt file.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// The file as it was named; `-` is standard input.
    pub file: String,
    /// What the agent gets: every byte behind the front matter's last line, or behind the byte order mark.
    pub body: String,
    /// The settings of the front matter.
    pub settings: Settings,
    /// Keys of the front matter that mean nothing to us, in order.
    pub unknown: Vec<UnknownKey>,
    /// What a person should know about the file.
    pub warnings: Vec<Diagnostic>,
}

/// A key of a front matter that means nothing to us.
#[derive(Debug, Clone, PartialEq)]
pub struct UnknownKey {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: serde_json::Value,
    /// Its line in the file, counted from 1.
    pub line: usize,
    /// The key that was probably meant.
    pub suggestion: Option<&'static str>,
}

/// A prompt file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PromptError {
    /// The file is not UTF-8.
    #[error(
        "{file}:{line}: a prompt file must be UTF-8 text, and byte {offset} of it is not; \
         save it as UTF-8"
    )]
    NotUtf8 {
        /// The file.
        file: String,
        /// Line of the first bad byte, counted from 1.
        line: usize,
        /// Offset of the first bad byte, counted from 0.
        offset: usize,
    },
    /// There is nothing for the agent to do.
    #[error("{file}: the prompt is empty; write what the agent shall do{}", .place)]
    Empty {
        /// The file.
        file: String,
        /// Where the text belongs.
        place: EmptyPlace,
    },
    /// The front matter is not YAML, or a value in it is not what its key needs.
    #[error("{}", Joined(.problems))]
    FrontMatter {
        /// All problems, in the file's order; never empty.
        problems: Vec<Diagnostic>,
    },
}

impl PromptError {
    /// Returns the exit code of a command that ends with this error.
    pub fn exit_code(&self) -> u8 {
        dark_factory_types::exit_code::USAGE
    }
}

/// Where the text of an empty prompt belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmptyPlace {
    /// Into the file.
    File,
    /// Below the front matter.
    BelowFrontMatter,
}

impl fmt::Display for EmptyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => Ok(()),
            Self::BelowFrontMatter => f.write_str(" below the front matter"),
        }
    }
}

impl Prompt {
    /// Makes a prompt of text without a front matter: all of it is for the agent, and it may be empty.
    ///
    /// `file` is the name that messages have for it; `-` where there is no file.
    pub fn from_text(file: &str, text: &str) -> Self {
        Self {
            file: file.to_owned(),
            body: text.to_owned(),
            settings: Settings::default(),
            unknown: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Parses the bytes of the prompt file that was named `file`.
    ///
    /// A front matter stands between a first line `---` and the next line `---`; blanks behind the hyphens and
    /// CRLF do not matter, and a byte order mark in front is dropped. A file without one is all prompt. Nothing
    /// else is taken from the text, not even an empty line below the front matter.
    ///
    /// # Errors
    ///
    /// [`PromptError`]; one that is about the front matter tells of every problem in it.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, PromptError> {
        let text = str::from_utf8(bytes).map_err(|error| {
            let offset = error.valid_up_to();
            let line = 1 + bytes.iter().take(offset).filter(|b| **b == b'\n').count();
            PromptError::NotUtf8 {
                file: file.to_owned(),
                line,
                offset,
            }
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let front_matter = |faults: Vec<Fault>| PromptError::FrontMatter {
            problems: faults
                .into_iter()
                .map(|fault| fault.in_file(file, text))
                .collect(),
        };

        let parts = split(text).map_err(|fault| front_matter(vec![fault]))?;
        let mut prompt = Self::from_text(file, parts.body);
        if let Some(yaml) = parts.front_matter {
            let root = parse_yaml(yaml, 1).map_err(|fault| front_matter(vec![fault]))?;
            let level = Level::FrontMatter;
            let source = Source {
                file,
                below: None,
                level,
            };
            let reading = read_settings(source, root);
            if !reading.errors.is_empty() {
                return Err(front_matter(reading.errors));
            }
            prompt.settings = reading.layer.run;
            for unknown in reading.unknown {
                let name = &unknown.name.name;
                let message = match unknown.elsewhere {
                    Some(_) => format!("the key {name} does nothing in a front matter"),
                    None => format!("the key {name} is not known and does nothing"),
                };
                let mut warning = Fault::new(unknown.name.place, message);
                warning.help = unknown.help(level);
                prompt.warnings.push(warning.in_file(file, text));
                prompt.unknown.push(UnknownKey {
                    value: unknown.node.to_json(),
                    line: unknown.name.place.line,
                    suggestion: suggest_key(name, level),
                    name: unknown.name.name,
                });
            }
        }
        if prompt.body.trim().is_empty() {
            let place = match parts.front_matter {
                Some(_) => EmptyPlace::BelowFrontMatter,
                None => EmptyPlace::File,
            };
            return Err(PromptError::Empty {
                file: file.to_owned(),
                place,
            });
        }
        Ok(prompt)
    }
}

struct Parts<'a> {
    front_matter: Option<&'a str>,
    body: &'a str,
}

fn split(text: &str) -> Result<Parts<'_>, Fault> {
    let mut lines = text.split_inclusive('\n');
    let is_fence = |line: &str| line.trim_end() == FENCE;
    let start = match lines.next() {
        Some(first) if is_fence(first) => first.len(),
        _ => {
            return Ok(Parts {
                front_matter: None,
                body: text,
            });
        }
    };
    let mut end = start;
    for line in lines {
        let next = end + line.len();
        if is_fence(line) {
            return Ok(Parts {
                front_matter: Some(&text[start..end]),
                body: &text[next..],
            });
        }
        end = next;
    }
    let place = Place {
        line: 1,
        column: 1,
        len: FENCE.len(),
    };
    let message = "the front matter that begins here has no end";
    Err(Fault::new(place, message).help(
        "end it with a line ---; if the file has none, do not begin it with --- (*** is a rule too)",
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Prompt, PromptError> {
        Prompt::parse("p.md", text.as_bytes())
    }

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn text_of_a_caller_is_taken_as_it_is() {
        for text in ["", "---\nimage: x\n---\ndo it", "\u{feff}`$x` \"'\r\n"] {
            let prompt = Prompt::from_text("-", text);

            assert_eq!(
                (prompt.body.as_str(), prompt.settings),
                (text, Settings::default())
            );
        }
    }

    #[test]
    fn the_body_is_every_byte_behind_the_front_matter() {
        for (text, body) in [
            ("do it", "do it"),
            ("\u{feff}do it\r\n", "do it\r\n"),
            ("---\nmodel: m\n---\ndo it\n", "do it\n"),
            ("---\nmodel: m\n---\n\n  do it", "\n  do it"),
            (
                "\u{feff}---\r\nmodel: m\r\n---\r\ndo\r\n---\r\nit",
                "do\r\n---\r\nit",
            ),
            ("--- \nmodel: m\n---\t\ndo it", "do it"),
            ("---\n---\ndo it", "do it"),
            ("---\n# nothing\n---\ndo it", "do it"),
            ("---- \ndo it", "---- \ndo it"),
            (" ---\ndo it", " ---\ndo it"),
            (
                "# Title\n---\nmodel: m\n---\n",
                "# Title\n---\nmodel: m\n---\n",
            ),
        ] {
            assert_eq!(parse(text).unwrap().body, body, "{text:?}");
        }
    }

    #[test]
    fn a_front_matter_without_an_end_is_an_error() {
        assert_eq!(
            error("---\nmodel: m\n"),
            "p.md:1:1: the front matter that begins here has no end\n  \
             1 | ---\n    | ^^^\n  \
             help: end it with a line ---; if the file has none, do not begin it with --- \
             (*** is a rule too)"
        );
    }

    #[test]
    fn a_prompt_without_text_is_an_error() {
        for (text, message) in [
            (
                "",
                "p.md: the prompt is empty; write what the agent shall do",
            ),
            (
                " \r\n\t",
                "p.md: the prompt is empty; write what the agent shall do",
            ),
            (
                "---\nmodel: m\n---\n\n",
                "p.md: the prompt is empty; write what the agent shall do below the front matter",
            ),
        ] {
            assert_eq!(error(text), message);
        }
    }

    #[test]
    fn a_prompt_that_is_not_utf_8_is_an_error_with_the_place() {
        let error = Prompt::parse("p.md", b"ab\nc\xff").unwrap_err();

        assert_eq!(
            error.to_string(),
            "p.md:2: a prompt file must be UTF-8 text, and byte 4 of it is not; save it as UTF-8"
        );
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn broken_yaml_is_shown_with_its_place_in_the_file() {
        assert_eq!(
            error("---\nmodel: m\nname: fix: bug\n---\ndo it"),
            "p.md:3:10: this is not valid YAML: mapping values are not allowed in this context\n  \
             3 | name: fix: bug\n    |          ^\n  \
             help: put the value in quotes: name: \"fix: bug\""
        );
    }

    #[test]
    fn every_wrong_value_is_shown() {
        assert_eq!(
            error("---\r\nmemory: 8x\r\nmodel: m\r\nhide-git: yes\r\n---\r\ndo it"),
            "p.md:2:9: memory must be a size such as 512m or 8g, or none, not \"8x\"\n  \
             2 | memory: 8x\n    |         ^^\n\
             p.md:4:11: hide-git must be true or false, not \"yes\"\n  \
             4 | hide-git: yes\n    |           ^^^"
        );
    }

    #[test]
    fn an_unknown_key_is_kept_and_warned_about() {
        let prompt =
            parse("---\ntime-out: 5m\nmy: {a: [1, x]}\nstatus: draft\n---\ndo it").unwrap();

        let shown: Vec<String> = prompt.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "p.md:2:1: the key time-out is not known and does nothing\n  \
                 2 | time-out: 5m\n    | ^^^^^^^^\n  help: did you mean timeout?",
                "p.md:3:1: the key my is not known and does nothing\n  \
                 3 | my: {a: [1, x]}\n    | ^^",
            ]
        );
        assert_eq!(prompt.unknown[1].name, "my");
        assert_eq!(prompt.unknown[1].value, serde_json::json!({"a": [1, "x"]}));
    }

    #[test]
    fn a_front_matter_that_is_no_map_is_an_error() {
        assert_eq!(
            error("---\nmodel:opus\n---\ndo it"),
            "p.md:2:1: the front matter must be lines of KEY: VALUE\n  \
             2 | model:opus\n    | ^^^^^^^^^^\n  help: write a space behind each colon"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _unused = Prompt::parse("p.md", &bytes).map_err(|error| error.to_string());
        }

        #[test]
        fn no_front_matter_makes_it_panic(
            yaml in "([a-z&*!?|>%@`'\"#{}\\[\\]:,<=~é\\-\\\\ \t\r\n0-9]|env|mount|: |\n  ){0,80}"
        ) {
            let text = format!("---\n{yaml}\n---\ndo it");
            let _unused = Prompt::parse("p.md", text.as_bytes()).map_err(|error| error.to_string());
        }
    }
}
