//! The real binary on a real engine, one file a topic.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod answers;
mod bad_input;
mod bad_launch;
mod bare_machine;
mod broker;
mod bytes;
mod changes;
mod claude;
mod codex;
mod commands;
mod config;
mod cursor;
mod daemon;
mod damaged_state;
mod demands;
mod demo;
mod docs;
mod doctor;
mod embed;
mod ends;
mod events;
mod exec;
mod explain;
mod faults;
mod full_disk;
mod gemini;
mod guard;
mod hostile;
mod images;
mod limits;
mod logs;
mod masks;
mod options;
mod orphans;
mod podman;
mod power;
mod pty;
mod pulls;
mod recovery;
mod removal;
mod replay;
mod requests;
mod restarts;
mod retry;
mod run;
mod sandbox;
mod sandbox_crashes;
mod sandbox_images;
mod scene;
mod seed_bugs;
mod shells;
mod stats;
mod support;
mod tamper;
mod terminal;
mod told;
