//! Command lines as a shell reads them.
//!
//! Owns: the quoting for `sh`.
//! Reads: arguments.
//! Never: lets a control character through: what is shown can be looked at in any terminal.

use std::fmt::Write as _;

use dark_factory_agents::neutralise;

/// Returns a line that `sh` splits into exactly these words.
pub(crate) fn line<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.into_iter().map(quoted).collect();
    words.join(" ")
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    let mut quoted = "'".to_owned();
    for char in word.chars() {
        let mut bytes = [0; 4];
        let text: &str = char.encode_utf8(&mut bytes);
        if char == '\'' {
            quoted.push_str(r"'\''");
        } else if neutralise(text) == text {
            quoted.push(char);
        } else {
            quoted.push_str(r#"'"$(printf '"#);
            for byte in text.bytes() {
                // Writing to a string does not fail.
                let _written = write!(quoted, r"\{byte:03o}");
            }
            quoted.push_str(r#"')"'"#);
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_reads_every_word_as_it_was() {
        let words = [
            "",
            "plain-word_1.2:3=4",
            "two words",
            "it's",
            "''",
            "\"$HOME\" `id` $(id) \\ !",
            "one\ntwo\n",
            "\ttab",
            "ünïcödé 日本",
            "\u{1b}[31mred\u{9b}2J\r\u{202e}",
            "~ * ? [a] {b} # ; & | < >",
            "-n",
        ];

        let line = line(words);

        let script = format!("for word in {line}; do printf '%s\\0' \"$word\"; done");
        let printed = Command::new("sh").args(["-c", &script]).output().unwrap();
        let printed = String::from_utf8(printed.stdout).unwrap();
        let read: Vec<&str> = printed.split_terminator('\0').collect();
        assert_eq!(read, words);
    }

    #[test]
    fn no_terminal_obeys_what_is_quoted() {
        let line = line(["\u{1b}[31m\u{7f}\u{9b}\u{202e}"]);

        assert_eq!(neutralise(&line), line);
    }
}
