//! How fast lines are found, read and printed, in memory: `cargo bench -p dark-factory-agents`.
//!
//! Owns: nothing.
//! Reads: streams built of the recordings, see `examples/streams`, which also writes both logs.
//! Never: asserts a figure.

#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

#[path = "../examples/streams/corpus.rs"]
mod corpus;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dark_factory_agents::{
    LineContent, LineSplitter, SeedFormatter, SplitLine, TextFormatter, TextStyle, Transcript,
    agent,
};
use dark_factory_types::EventStream;
use jiff::Timestamp;
use jiff::tz::TimeZone;

const SIZE: u64 = 8 << 20;
/// As a reader hands them over.
const CHUNK: usize = 64 << 10;

fn streams() -> [(&'static str, Vec<u8>); 2] {
    let mut sessions = Vec::new();
    corpus::sessions(SIZE, &mut sessions).unwrap();
    let mut short = Vec::new();
    corpus::short_lines(SIZE, &mut short).unwrap();
    [("sessions", sessions), ("short lines", short)]
}

fn benches(criterion: &mut Criterion) {
    for (name, stream) in streams() {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(stream.len().try_into().unwrap()));
        group.sample_size(20);
        group.bench_function("memchr", |bencher| {
            bencher.iter(|| memchr::memchr_iter(b'\n', black_box(&stream)).count());
        });
        group.bench_function("split", |bencher| bencher.iter(|| split(&stream, |_| {})));
        group.bench_function("seed", |bencher| bencher.iter(|| seed(&stream)));
        for agent in ["claude", "command"] {
            group.bench_function(agent, |bencher| bencher.iter(|| text(agent, &stream)));
        }
        group.bench_function("serde_json value", |bencher| {
            bencher.iter(|| {
                split(&stream, |bytes| {
                    black_box(serde_json::from_slice::<serde_json::Value>(bytes).unwrap());
                });
            });
        });
        group.bench_function("sonic-rs value", |bencher| {
            bencher.iter(|| {
                split(&stream, |bytes| {
                    black_box(sonic_rs::from_slice::<sonic_rs::Value>(bytes).unwrap());
                });
            });
        });
        group.finish();
    }
}

fn split(stream: &[u8], mut line: impl FnMut(&[u8])) {
    let mut splitter = LineSplitter::new();
    for chunk in stream.chunks(CHUNK) {
        splitter.feed(chunk, |found| {
            if let LineContent::Whole(bytes) = black_box::<SplitLine<'_>>(found).content {
                line(bytes);
            }
        });
    }
}

fn seed(stream: &[u8]) -> Vec<u8> {
    let mut formatter = SeedFormatter::new(TimeZone::UTC);
    let mut splitter = LineSplitter::new();
    let mut out = Vec::new();
    for chunk in stream.chunks(CHUNK) {
        splitter.feed(chunk, |line| formatter.write(&line, "12:34:56", &mut out));
    }
    out
}

fn text(name: &str, stream: &[u8]) -> String {
    let mut transcript = Transcript::new(agent(name).unwrap());
    let mut formatter = TextFormatter::new(TextStyle::default());
    let mut out = String::new();
    for chunk in stream.chunks(CHUNK) {
        transcript.feed_each(EventStream::Stdout, chunk, Timestamp::UNIX_EPOCH, |event| {
            formatter.write(&event, &mut out);
        });
    }
    out
}

criterion_group!(all, benches);
criterion_main!(all);
