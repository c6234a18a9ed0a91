//! The forms in which a secret may be printed.
//!
//! Owns: the encodings.
//! Reads: a secret.
//! Never: takes a value that tells nothing for a secret.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::TELLING;

/// A longer value is looked for in parts of this length, in bytes.
const PART: usize = 1 << 10;
/// The shortest line of a value of several that is a secret by itself.
const LINE: usize = 16;
/// The shortest number that is a secret.
const DIGITS: usize = 10;
/// Values that tell nothing, in lower case.
const TRIVIAL: [&str; 8] = [
    "default",
    "disabled",
    "enabled",
    "production",
    "required",
    "optional",
    "development",
    "undefined",
];

/// Appends the forms of a secret.
pub(super) fn of(secret: &str, forms: &mut Vec<String>) {
    let secret = secret.trim();
    if !is_telling(secret) {
        return;
    }
    let mut rest = secret;
    while !rest.is_empty() {
        let (part, behind) = rest.split_at(rest.floor_char_boundary(PART));
        of_part(part, forms);
        rest = behind;
    }
    if secret.contains('\n') {
        // Line by line, as a program's standard error comes.
        let lines = secret.lines().map(str::trim);
        for line in lines.filter(|line| line.len() >= LINE && !line.starts_with("-----")) {
            of_part(line, forms);
        }
    }
}

fn is_telling(value: &str) -> bool {
    let mut chars = value.chars();
    let first = chars.next();
    let is_one_char = chars.all(|char| Some(char) == first);
    let is_number = value.len() < DIGITS && value.bytes().all(|byte| byte.is_ascii_digit());
    let lower = value.to_ascii_lowercase();
    value.len() >= TELLING && !is_one_char && !is_number && !TRIVIAL.contains(&lower.as_str())
}

fn of_part(secret: &str, forms: &mut Vec<String>) {
    let begin = forms.len();
    let escaped = json(secret);
    forms.push(json(&escaped));
    forms.push(html(&escaped));
    forms.push(escaped);
    forms.push(secret.to_owned());
    for kept in ["-._~", "-._~/", "-._~!'()*", "-._~/!'()*"] {
        let encoded = percent(secret, kept);
        forms.push(encoded.replace("%20", "+"));
        forms.push(lower_hex(&encoded));
        forms.push(encoded);
    }
    base64_of(secret, forms);
    // What is left of the last part of a secret may be short in every form.
    let mut at = begin;
    while at < forms.len() {
        if forms[at].len() < TELLING {
            forms.swap_remove(at);
        } else {
            at += 1;
        }
    }
}

/// Returns the inside of a JSON string.
fn json(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    json[1..json.len() - 1].to_owned()
}

/// Returns the inside of a JSON string that may stand in HTML, as Go writes it.
fn html(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

fn percent(text: &str, kept: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match char::from(byte) {
            char if char.is_ascii_alphanumeric() || kept.contains(char) => encoded.push(char),
            _ => encoded.extend(['%', hex(byte >> 4), hex(byte & 15)]),
        }
    }
    encoded
}

fn hex(digit: u8) -> char {
    char::from_digit(digit.into(), 16)
        .unwrap_or('0')
        .to_ascii_uppercase()
}

/// Returns a percent-encoded text with small letters in its codes.
fn lower_hex(encoded: &str) -> String {
    let mut lower = String::with_capacity(encoded.len());
    let mut code = 0;
    for char in encoded.chars() {
        lower.push(if code > 0 {
            char.to_ascii_lowercase()
        } else {
            char
        });
        code = if char == '%' {
            2_usize
        } else {
            code.saturating_sub(1)
        };
    }
    lower
}

/// Appends what base64 makes of a secret, wherever it stands among other bytes: only the characters that are all its own.
fn base64_of(secret: &str, forms: &mut Vec<String>) {
    for before in 0..3 {
        let mut bytes = vec![0; before];
        bytes.extend(secret.bytes());
        let own = (before * 8).div_ceil(6)..bytes.len() * 8 / 6;
        forms.push(STANDARD_NO_PAD.encode(&bytes)[own.clone()].to_owned());
        forms.push(URL_SAFE_NO_PAD.encode(&bytes)[own].to_owned());
    }
}
