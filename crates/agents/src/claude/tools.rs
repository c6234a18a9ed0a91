//! What tools are given and what they answer, shortened.
//!
//! Owns: what is kept of a long input or output.
//! Reads: the `input` of a call, the `content` of an answer.
//! Never: fails; what is not understood is left out.

use crate::json::{JsonKind, KeyMatch, Raw, clip, each_element, each_entry, fields, kind, string};
use crate::sink::{LineSink, VALUE_CAP, WORD_CAP};
use crate::split::to_u64;

/// The answer of one tool, in bytes.
const OUTPUT_CAP: usize = 16 << 10;
/// Values of a tool's input.
const INPUT_VALUES: usize = 64;

/// Returns a JSON object with the values of a tool's input, long ones shortened.
pub(crate) fn summarise(input: Option<Raw<'_>>, sink: &mut LineSink<'_>) -> String {
    let mut object = serde_json::Map::new();
    let mut left_out = 0_usize;
    each_entry(input.map_or("{}", Raw::get), |key, value| {
        if object.len() == INPUT_VALUES {
            left_out += 1;
            return;
        }
        let short = match string(Some(value)) {
            Some(_) => sink.text(string(Some(value)), VALUE_CAP).into(),
            None if value.get().len() <= VALUE_CAP && sink.take(value.get().len()) => {
                // Too deep to be held as a value: kept as text.
                serde_json::from_str(value.get()).unwrap_or_else(|_| value.get().into())
            }
            None => format!("… {} bytes left out …", value.get().len()).into(),
        };
        object.insert(clip(key, WORD_CAP), short);
    });
    if left_out > 0 {
        object.insert("…".to_owned(), format!("{left_out} values left out").into());
    }
    serde_json::Value::Object(object).to_string()
}

/// Returns a tool's answer, shortened, and its whole length: a string, or the texts of a list of blocks.
pub(super) fn tool_output(content: Option<Raw<'_>>, sink: &mut LineSink<'_>) -> (String, u64) {
    let Some(content) = content else {
        return (String::new(), 0);
    };
    if let Some(text) = string(Some(content)) {
        let len = text.len();
        return (sink.text_of_length(text, OUTPUT_CAP, len), to_u64(len));
    }
    let (mut output, mut len) = (String::new(), 0);
    if kind(content) == JsonKind::Array {
        each_element(content.get(), |block| {
            if let Some([Some(text)]) = fields(block.get(), ["text"], KeyMatch::Exact)
                && let Some(text) = string(Some(text))
            {
                if len > 0 && output.len() < OUTPUT_CAP {
                    output.push('\n');
                }
                let text_len = text.len();
                len += text_len;
                // A text for which there is no room would still say how many bytes of it were left out.
                if let Some(room @ 1..) = OUTPUT_CAP.checked_sub(output.len()) {
                    output += &sink.text_of_length(text, room, text_len);
                }
            }
            true
        });
    }
    (output, to_u64(len))
}
