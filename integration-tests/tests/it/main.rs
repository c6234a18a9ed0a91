//! The real binary on a real engine, one file a topic.

#![expect(missing_docs, reason = "tests say in their names what they are about")]

mod support;
