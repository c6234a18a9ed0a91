//! Reading a recorded stream, printing it and writing both logs, beside others who read JSON lines.
//!
//! Owns: the two streams, and the CPU of every way through them.
//! Reads: what the example `streams` of the agents makes and does; the seed's formatter where it is named.
//! Never: needs an engine; judges what a way prints, beyond that a raw log has every byte.

use std::env;
use std::fs::{self, File};
use std::hint::black_box;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use dark_factory::agents::{LineSplitter, SplitLine};
use nix::sys::resource::UsageWho;
use tempfile::TempDir;

use crate::Result;
use crate::measure::cpu;
use crate::table::{Row, table};

const EXAMPLE: &str = "DARK_FACTORY_BENCH_STREAMS";
/// In memory where there is one, so that no disk is measured.
const MEMORY: &str = "/dev/shm";
/// How much the splitter is fed at once, in bytes: as a reader hands it over.
const CHUNK: usize = 64 << 10;
const HEADINGS: [&str; 3] = ["CPU ms", "MB/CPU s", "M lines/CPU s"];

/// A way through a stream.
#[derive(Debug, Clone, Copy)]
enum Way<'a> {
    /// One of the example's ways: a process that reads the stream and writes both logs.
    Example(&'static str),
    /// The ends of lines in memory, by `memchr` alone.
    Ends,
    /// The lines in memory, by our splitter alone.
    Lines,
    /// A program that reads the stream and prints it.
    Program(&'static [&'static str]),
    /// The seed's formatter: a process that reads the stream and writes both logs.
    Seed(&'a Path),
    /// A program that is not here.
    Missing,
}

/// A stream and the folder that its readers write to.
#[derive(Debug)]
struct Stream<'a> {
    example: &'a Path,
    folder: &'a Path,
    path: PathBuf,
    bytes: Vec<u8>,
    lines: usize,
}

pub(crate) fn bench(rounds: usize, mebibytes: u32, seed: Option<&Path>) -> Result<()> {
    let example = env::var(EXAMPLE)
        .map_err(|_| format!("{EXAMPLE} is not set: start the bench by `cargo xtask bench`"))?;
    let folder = match Path::new(MEMORY).is_dir() {
        true => TempDir::new_in(MEMORY)?,
        false => TempDir::new()?,
    };
    for (kind, title, headings) in [
        ("sessions", "lines of sessions", &HEADINGS[..2]),
        ("short", "lines of 75 B", &HEADINGS[..]),
    ] {
        let stream = Stream::build(example.as_ref(), folder.path(), kind, mebibytes)?;
        let rows = compare(&stream, rounds, seed, headings.len())?;
        let title =
            format!("{mebibytes} MiB of {title}, CPU of the whole process, user and system");
        print!("{}", table(&title, headings, &rows));
    }
    Ok(())
}

fn compare(
    stream: &Stream<'_>,
    rounds: usize,
    seed: Option<&Path>,
    columns: usize,
) -> Result<Vec<Row>> {
    let ways = ways(seed);
    let mut rows: Vec<Row> = ways
        .iter()
        .map(|&(name, _)| Row::new(name, columns))
        .collect();
    for round in 0..=rounds {
        for turn in 0..ways.len() {
            let who = (round + turn) % ways.len();
            let Some(seconds) = stream.read(ways[who].1)? else {
                continue;
            };
            if round > 0 {
                rows[who].push(&stream.figures(seconds));
            }
        }
    }
    Ok(rows)
}

/// Returns every way and its name; the last one is what the others are compared with.
fn ways(seed: Option<&Path>) -> Vec<(&'static str, Way<'_>)> {
    const CAT: (&str, Way<'_>) = ("cat", Way::Program(&["cat"]));
    let mut ways = vec![
        ("ours, the seed's format", Way::Example("seed")),
        ("ours, claude as text", Way::Example("claude")),
        ("ours, command as text", Way::Example("command")),
        (
            "serde_json values, raw log only",
            Way::Example("serde-value"),
        ),
        ("sonic-rs values, raw log only", Way::Example("sonic-value")),
        ("our lines alone, in memory", Way::Lines),
        ("memchr alone, in memory", Way::Ends),
    ];
    match Command::new("jq").arg("--version").output() {
        Ok(_) => ways.extend([CAT, ("jq -c .", Way::Program(&["jq", "-c", "."]))]),
        Err(_) => ways.extend([("jq -c . (not installed)", Way::Missing), CAT]),
    }
    ways.extend(seed.map(|seed| ("the seed's formatter", Way::Seed(seed))));
    ways
}

impl<'a> Stream<'a> {
    /// Builds a stream of that kind.
    fn build(example: &'a Path, folder: &'a Path, kind: &str, mebibytes: u32) -> Result<Self> {
        let path = folder.join("stream.jsonl");
        let size = u64::from(mebibytes) << 20;
        let mut build = Command::new(example);
        build.args([kind, &size.to_string()]);
        succeed(build.stdout(File::create(&path)?))?;
        let bytes = fs::read(&path)?;
        let lines = ends(&bytes);
        Ok(Self {
            example,
            folder,
            path,
            bytes,
            lines,
        })
    }

    /// Reads the stream one way and returns the seconds of CPU that it took, or nothing where the way is missing.
    fn read(&self, way: Way<'_>) -> Result<Option<f64>> {
        let seconds = match way {
            Way::Example(name) => self.log(Command::new(self.example).arg(name))?,
            Way::Seed(formatter) => self.log(&mut Command::new(formatter))?,
            Way::Program(words) => self.print(words)?,
            Way::Ends => self.count(ends)?,
            Way::Lines => self.count(split)?,
            Way::Missing => return Ok(None),
        };
        Ok(Some(seconds))
    }

    /// Runs a program that takes the paths of the raw log and of the readable one.
    fn log(&self, program: &mut Command) -> Result<f64> {
        let raw = self.fresh("raw")?;
        program.arg(&raw).arg(self.fresh("readable")?);
        let seconds = succeed(program.stdin(File::open(&self.path)?))?;
        let (kept, whole) = (fs::metadata(&raw)?.len(), fs::metadata(&self.path)?.len());
        match kept == whole {
            true => Ok(seconds),
            false => Err(format!("{program:?} kept {kept} of {whole} bytes").into()),
        }
    }

    /// Runs a program that prints to a file.
    fn print(&self, words: &[&str]) -> Result<f64> {
        let mut program = Command::new(words[0]);
        program
            .args(&words[1..])
            .stdin(File::open(&self.path)?)
            .stdout(File::create(self.fresh("printed")?)?);
        succeed(&mut program)
    }

    /// Counts the lines in this process.
    fn count(&self, count: fn(&[u8]) -> usize) -> Result<f64> {
        let before = cpu(UsageWho::RUSAGE_SELF)?;
        let lines = count(black_box(&self.bytes));
        let seconds = (cpu(UsageWho::RUSAGE_SELF)? - before).as_secs_f64();
        match lines == self.lines {
            true => Ok(seconds),
            false => Err(format!("{lines} of {} lines were found", self.lines).into()),
        }
    }

    /// Returns a path in the folder where nothing is: emptying a file is no part of any way.
    fn fresh(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(path),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "sizes below 2^53")]
    fn figures(&self, seconds: f64) -> [f64; 3] {
        [
            seconds * 1e3,
            self.bytes.len() as f64 / 1e6 / seconds,
            self.lines as f64 / 1e6 / seconds,
        ]
    }
}

fn ends(bytes: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', bytes).count()
}

fn split(bytes: &[u8]) -> usize {
    let mut lines = 0;
    let mut splitter = LineSplitter::new();
    let mut take = |line: SplitLine<'_>| {
        black_box(line);
        lines += 1;
    };
    for chunk in bytes.chunks(CHUNK) {
        splitter.feed(chunk, &mut take);
    }
    splitter.finish(&mut take);
    lines
}

/// Runs a program that must succeed and returns the seconds of CPU that it used.
fn succeed(program: &mut Command) -> Result<f64> {
    let before = cpu(UsageWho::RUSAGE_CHILDREN)?;
    let ended = program
        .output()
        .map_err(|error| format!("{program:?} cannot be started: {error}"))?;
    let seconds = cpu(UsageWho::RUSAGE_CHILDREN)?.saturating_sub(before);
    match ended.status.success() {
        true => Ok(seconds.as_secs_f64()),
        false => {
            let said = String::from_utf8_lossy(&ended.stderr);
            Err(format!("{program:?} failed: {}\n{}", ended.status, said.trim_end()).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_through_memory_find_the_same_lines() {
        let bytes = "{\"type\":\"system\"}\n".repeat(20_000);

        assert_eq!(ends(bytes.as_bytes()), 20_000);
        assert_eq!(split(bytes.as_bytes()), 20_000);
    }

    #[test]
    fn the_seed_is_what_the_others_are_compared_with_where_it_is_named() {
        assert_eq!(
            ways(Some(Path::new("formatter"))).last().map(|way| way.0),
            Some("the seed's formatter")
        );
        assert!(
            ways(None)
                .last()
                .is_some_and(|way| !matches!(way.1, Way::Missing))
        );
    }
}
