//! Takes a line of Claude's stream apart in one pass.
//!
//! Owns: where the blocks of a message are.
//! Reads: one line.
//! Never: judges what a field is; a decoder and a formatter do, each by its own rules.

use crate::json::{KeyMatch, Raw, Reader};

/// The keys of a content block that mean something to us.
const BLOCK_KEYS: [&str; 9] = [
    "type",
    "text",
    "thinking",
    "id",
    "name",
    "input",
    "tool_use_id",
    "content",
    "is_error",
];

/// A line: the values of the fields that were asked for, and its message.
#[derive(Debug)]
pub(crate) struct Line<'a, const N: usize> {
    pub(crate) fields: [Option<Raw<'a>>; N],
    pub(crate) message: Option<Message<'a>>,
}

/// The `message` of a line.
#[derive(Debug)]
pub(crate) enum Message<'a> {
    Object {
        model: Option<Raw<'a>>,
        content: Option<Content<'a>>,
    },
    Other(Raw<'a>),
}

/// The `content` of a message.
#[derive(Debug)]
pub(crate) enum Content<'a> {
    Blocks {
        blocks: Vec<Block<'a>>,
        /// How many there are beyond those.
        left_out: usize,
    },
    Other(Raw<'a>),
}

/// One block of a content.
#[derive(Debug)]
pub(crate) enum Block<'a> {
    Object(Fields<'a>),
    Other(Raw<'a>),
}

/// The fields of a block.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Fields<'a> {
    pub(crate) kind: Option<Raw<'a>>,
    pub(crate) text: Option<Raw<'a>>,
    pub(crate) thinking: Option<Raw<'a>>,
    pub(crate) id: Option<Raw<'a>>,
    pub(crate) name: Option<Raw<'a>>,
    pub(crate) input: Option<Raw<'a>>,
    pub(crate) tool_use_id: Option<Raw<'a>>,
    pub(crate) content: Option<Raw<'a>>,
    pub(crate) is_error: Option<Raw<'a>>,
}

/// How a line is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) keys: KeyMatch,
    /// Blocks of a message that are kept.
    pub(crate) blocks: usize,
}

impl Reading {
    /// Reads a line; `None` if it is not one JSON object.
    pub(crate) fn line<'a, const N: usize>(
        self,
        text: &'a str,
        names: [&str; N],
    ) -> Option<Line<'a, N>> {
        let mut line = Line {
            fields: [None; N],
            message: None,
        };
        let mut reader = Reader::new(text);
        reader.object(|reader, key| {
            if self.keys.are_equal(key, "message") {
                line.message = Some(self.message(reader)?);
                return Some(());
            }
            let value = reader.value()?;
            if let Some(place) = self.keys.place(key, &names) {
                line.fields[place] = Some(value);
            }
            Some(())
        })?;
        reader.is_at_end().then_some(line)
    }

    fn message<'a>(self, reader: &mut Reader<'a>) -> Option<Message<'a>> {
        if reader.peek()? != b'{' {
            return reader.value().map(Message::Other);
        }
        let (mut model, mut content) = (None, None);
        reader.object(|reader, key| {
            if self.keys.are_equal(key, "content") {
                content = Some(self.content(reader)?);
                return Some(());
            }
            let value = reader.value()?;
            if self.keys.are_equal(key, "model") {
                model = Some(value);
            }
            Some(())
        })?;
        Some(Message::Object { model, content })
    }

    fn content<'a>(self, reader: &mut Reader<'a>) -> Option<Content<'a>> {
        if reader.peek()? != b'[' {
            return reader.value().map(Content::Other);
        }
        let (mut blocks, mut left_out) = (Vec::new(), 0);
        reader.array(|reader| {
            let block = self.block(reader)?;
            if blocks.len() < self.blocks {
                blocks.push(block);
            } else {
                left_out += 1;
            }
            Some(())
        })?;
        Some(Content::Blocks { blocks, left_out })
    }

    /// Reads a content block.
    pub(crate) fn block<'a>(self, reader: &mut Reader<'a>) -> Option<Block<'a>> {
        if reader.peek()? != b'{' {
            return reader.value().map(Block::Other);
        }
        let mut fields = Fields::default();
        reader.object(|reader, key| {
            let value = Some(reader.value()?);
            match self.keys.place(key, &BLOCK_KEYS) {
                Some(0) => fields.kind = value,
                Some(1) => fields.text = value,
                Some(2) => fields.thinking = value,
                Some(3) => fields.id = value,
                Some(4) => fields.name = value,
                Some(5) => fields.input = value,
                Some(6) => fields.tool_use_id = value,
                Some(7) => fields.content = value,
                Some(8) => fields.is_error = value,
                _ => {}
            }
            Some(())
        })?;
        Some(Block::Object(fields))
    }
}
