//! What dark-factory costs, beside the docker command line and the bare Engine API, in one run.
//!
//! Owns: which parts are measured.
//! Reads: its options, and what `cargo xtask bench` provides: the release binary and the test images.
//! Never: compares across runs: every ratio is between neighbours of one round; fails for a figure that misses a goal.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench talks to the terminal that it was started from"
)]

mod accounts;
mod api;
mod guard;
mod latency;
mod launch;
mod measure;
mod memory;
mod output;
mod own;
mod podman;
mod queries;
mod rig;
mod sandbox;
mod starts;
mod streams;
mod supervision;
mod table;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use rig::Rig;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// A part of the bench: its name for `--only`, and its rounds unless told otherwise.
const PARTS: [(Part, &str, usize); 13] = [
    (Part::Streams, "streams", STREAMS_ROUNDS),
    (Part::Guard, "guard", GUARD_ROUNDS),
    (Part::Launch, "launch", 15),
    (Part::Podman, "podman", 15),
    (Part::Own, "own", 15),
    (Part::Output, "output", 5),
    (Part::Latency, "latency", 3),
    (Part::Queries, "queries", 15),
    (Part::Starts, "starts", 3),
    (Part::Memory, "memory", 3),
    (Part::Deadline, "deadline", 10),
    (Part::Recovery, "recovery", 1),
    (Part::Sandbox, "sandbox", 9),
];
/// MiB that the output benchmark prints, unless told otherwise.
const OUTPUT_MIB: u32 = 1000;
/// Rounds of the benchmarks that need no engine.
const STREAMS_ROUNDS: usize = 5;
const GUARD_ROUNDS: usize = 9;
/// MiB of each stream that the streams benchmark reads, unless told otherwise.
const STREAMS_MIB: u32 = 100;

const USAGE: &str = "expected --only PART, --rounds N, --size MIB, --binary PATH, \
                     --seed-formatter PATH; the parts are streams, guard, launch, podman, own, output, latency, queries, \
                     starts, memory, deadline, recovery, sandbox";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Streams,
    Guard,
    Launch,
    Podman,
    Own,
    Output,
    Latency,
    Queries,
    Starts,
    Memory,
    Deadline,
    Recovery,
    Sandbox,
}

/// What is measured.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    only: Option<Part>,
    rounds: Option<usize>,
    mebibytes: Option<u32>,
    binary: Option<PathBuf>,
    seed_formatter: Option<PathBuf>,
}

impl Options {
    /// Parses `--only`, `--rounds`, `--size` (in MiB, `m` may follow), `--binary` and `--seed-formatter`.
    fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self::default();
        for pair in arguments.chunks(2) {
            let bad = || {
                format!(
                    "the bench does not understand `{}`: {USAGE}",
                    pair.join(" ")
                )
            };
            let [name, value] = pair else {
                return Err(bad().into());
            };
            match name.as_str() {
                "--only" => {
                    let part = PARTS.iter().find(|(_, name, _)| name == value);
                    options.only = Some(part.ok_or_else(bad)?.0);
                }
                "--rounds" => {
                    let rounds = value.parse().ok().filter(|&rounds| rounds > 0);
                    options.rounds = Some(rounds.ok_or_else(bad)?);
                }
                "--size" => {
                    let size = value.trim_end_matches('m').parse().ok();
                    options.mebibytes = Some(size.filter(|&size| size > 0).ok_or_else(bad)?);
                }
                "--binary" => options.binary = Some(value.into()),
                "--seed-formatter" => options.seed_formatter = Some(value.into()),
                _ => return Err(bad().into()),
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match Options::parse(&arguments).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    println!("{}", rig::machine());
    if options.only.is_none_or(|only| only == Part::Streams) {
        let rounds = options.rounds.unwrap_or(STREAMS_ROUNDS);
        let mebibytes = options.mebibytes.unwrap_or(STREAMS_MIB);
        streams::bench(rounds, mebibytes, options.seed_formatter.as_deref())?;
    }
    if options.only.is_none_or(|only| only == Part::Guard) {
        guard::bench(options.rounds.unwrap_or(GUARD_ROUNDS))?;
    }
    match options.only {
        Some(Part::Streams | Part::Guard) => Ok(()),
        _ => with_engine(options),
    }
}

fn with_engine(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let rig = Rig::new(options.binary.clone())?;
    for (part, _, rounds) in PARTS {
        if options.only.is_some_and(|only| only != part) {
            continue;
        }
        let rounds = options.rounds.unwrap_or(rounds);
        match part {
            Part::Streams | Part::Guard => {}
            Part::Launch => launch::bench(&rig, rounds)?,
            Part::Podman => podman::bench(&rig, rounds)?,
            Part::Own => runtime.block_on(own::bench(&rig, rounds))?,
            Part::Output => {
                let mebibytes = options.mebibytes.unwrap_or(OUTPUT_MIB);
                runtime.block_on(output::bench(&rig, rounds, mebibytes))?;
            }
            Part::Latency => runtime.block_on(latency::bench(&rig, rounds))?,
            Part::Queries => runtime.block_on(queries::bench(&rig, rounds))?,
            Part::Starts => runtime.block_on(starts::bench(&rig, rounds))?,
            Part::Memory => memory::bench(&rig, rounds)?,
            Part::Deadline => supervision::deadline(&rig, rounds)?,
            Part::Recovery => supervision::recovery(&rig)?,
            Part::Sandbox => {
                let mebibytes = options.mebibytes.unwrap_or(OUTPUT_MIB);
                runtime.block_on(sandbox::bench(&rig, rounds, mebibytes))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        Options::parse(&words)
    }

    #[test]
    fn options_are_pairs_in_any_order() {
        let options = parse(&["--size", "64m", "--only", "output", "--rounds", "3"]).unwrap();

        assert_eq!(
            options,
            Options {
                only: Some(Part::Output),
                rounds: Some(3),
                mebibytes: Some(64),
                binary: None,
                seed_formatter: None,
            }
        );
        assert_eq!(parse(&[]).unwrap(), Options::default());
    }

    #[test]
    fn what_is_not_an_option_is_refused() {
        for words in [
            &["--rounds"][..],
            &["--rounds", "0"],
            &["--only", "all"],
            &["--size", "8x"],
            &["x", "y"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }
}
