//! JSON values as Go's `encoding/json` puts them into typed fields.
//!
//! Owns: what is a mismatch and what is zero.
//! Reads: raw JSON values.
//! Never: guesses; a value of another type is a mismatch.

use std::borrow::Cow;

use crate::json::{self, JsonKind, JsonStr, KeyMatch, Raw, each_element, fields, kind};

/// A value does not fit the field's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mismatch;

/// Returns the line with each byte that is not UTF-8 replaced by U+FFFD.
pub(super) fn repair(line: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(line) {
        Ok(text) => text.into(),
        Err(_) => {
            let mut text = String::with_capacity(line.len() + 64);
            for chunk in line.utf8_chunks() {
                text.push_str(chunk.valid());
                text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
            }
            text.into()
        }
    }
}

fn present(value: Option<Raw<'_>>) -> Option<Raw<'_>> {
    value.filter(|value| kind(*value) != JsonKind::Null)
}

/// Returns a string.
pub(super) fn optional_string(value: Option<Raw<'_>>) -> Result<Option<JsonStr<'_>>, Mismatch> {
    present(value)
        .map(|value| json::string(Some(value)).ok_or(Mismatch))
        .transpose()
}

/// Returns a string; empty if there is none.
pub(super) fn string(value: Option<Raw<'_>>) -> Result<JsonStr<'_>, Mismatch> {
    optional_string(value).map(Option::unwrap_or_default)
}

/// Returns a boolean; false if there is none.
pub(super) fn boolean(value: Option<Raw<'_>>) -> Result<bool, Mismatch> {
    match present(value) {
        Some(value) => json::boolean(Some(value)).ok_or(Mismatch),
        None => Ok(false),
    }
}

/// Returns a number.
pub(super) fn float(value: Option<Raw<'_>>) -> Result<Option<f64>, Mismatch> {
    present(value)
        .map(|value| json::float(Some(value)).ok_or(Mismatch))
        .transpose()
}

/// Returns a whole number; one with a fraction or an exponent is a mismatch.
pub(super) fn integer(value: Option<Raw<'_>>) -> Result<Option<i64>, Mismatch> {
    present(value)
        .map(|value| value.get().parse().map_err(|_| Mismatch))
        .transpose()
}

/// Returns the values of an object's fields; none if there is no object.
pub(super) fn object<'a, const N: usize>(
    value: Option<Raw<'a>>,
    names: [&str; N],
) -> Result<[Option<Raw<'a>>; N], Mismatch> {
    match present(value) {
        Some(value) => fields(value.get(), names, KeyMatch::AnyCase).ok_or(Mismatch),
        None => Ok([None; N]),
    }
}

/// Hands over the elements of an array, if there is one.
pub(super) fn array<'a>(
    value: Option<Raw<'a>>,
    mut sink: impl FnMut(Raw<'a>) -> Result<(), Mismatch>,
) -> Result<(), Mismatch> {
    let Some(value) = present(value) else {
        return Ok(());
    };
    let mut result = Ok(());
    let is_array = each_element(value.get(), |element| {
        result = sink(element);
        result.is_ok()
    });
    if is_array { result } else { Err(Mismatch) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_byte_is_replaced_by_itself() {
        assert_eq!(repair(b"a\xe2\x82b\xff"), "a\u{fffd}\u{fffd}b\u{fffd}");
    }
}
