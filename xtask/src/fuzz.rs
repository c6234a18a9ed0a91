//! Fuzzes what reads an agent's output: `cargo xtask fuzz`.
//!
//! Owns: the options, the inputs that fuzzing begins with, libFuzzer's limits, and the sum at the end.
//! Reads: the recordings, the kept inputs, libFuzzer's log.
//! Never: is needed by `cargo xtask test`, which plays the kept inputs on a stable compiler.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use crate::chaos::duration;
use crate::program::{self, Failure};
use crate::workspace::Workspace;

const HOW_TO_INSTALL: &str = "cargo-fuzz or a nightly toolchain is not installed: \
    rustup toolchain install nightly && cargo install cargo-fuzz --locked";

/// The longest input that is tried, in bytes; hard long ones have tests of their own.
const MOST_BYTES: u32 = 16 << 10;
/// The longest input that is kept, in bytes.
const KEPT_BYTES: u32 = 512;
/// What one input may take: seconds, memory of the process and of one allocation in MiB.
const LIMITS: [&str; 3] = ["-timeout=10", "-rss_limit_mb=1024", "-malloc_limit_mb=20"];

/// What is done with the inputs that were found.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// They stay in the work folder.
    Leave,
    /// Those that are small and needed to reach something replace the kept ones.
    Keep,
}

/// Which targets, and how long each.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    targets: Vec<String>,
    time: Duration,
    found: Found,
}

impl Options {
    /// Parses names of targets, `--time` (a number of `s`, `m` or `h`) and `--keep`.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, Failure> {
        let mut options = Self {
            targets: Vec::new(),
            time: Duration::from_secs(180),
            found: Found::Leave,
        };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let bad = || Failure::new(format!("fuzz does not understand `{word}`"));
            match word.as_str() {
                "--time" => {
                    options.time = words
                        .next()
                        .and_then(|time| duration(time))
                        .ok_or_else(bad)?;
                }
                "--keep" => options.found = Found::Keep,
                name if name.starts_with('-') => return Err(bad()),
                name => options.targets.push(name.to_owned()),
            }
        }
        Ok(options)
    }
}

/// Where things are.
struct Folders<'w> {
    workspace: &'w Workspace,
    /// Inputs that were found, and logs.
    work: PathBuf,
    /// The inputs that fuzzing begins with.
    seeds: PathBuf,
    /// The recordings and the kept inputs.
    data: PathBuf,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode, Failure> {
    if !program::succeeds(cargo_fuzz(workspace).arg("--version")) {
        return Err(Failure::new(HOW_TO_INSTALL));
    }
    let work = workspace.cache().join("fuzz");
    let folders = Folders {
        workspace,
        seeds: work.join("seeds"),
        work,
        data: workspace.root().join("crates/agents/tests/data"),
    };
    let targets = chosen(&folders, &options.targets)?;
    make_seeds(&folders)?;
    program::run(fuzz(&folders, "build").stdout(Stdio::null()))?;

    let mut failed = Vec::new();
    println!("{:<16} {:>12} {:>8}", "target", "executions", "seconds");
    for target in &targets {
        let began = Instant::now();
        let outcome = fuzz_target(&folders, target, options);
        let seconds = began.elapsed().as_secs();
        match outcome {
            Ok(executions) => println!("{target:<16} {executions:>12} {seconds:>8}"),
            Err(failure) => {
                println!("{target:<16} {:>12} {seconds:>8}\n{failure}", "FAILED");
                failed.push(target.as_str());
            }
        }
    }
    if failed.is_empty() {
        Ok(ExitCode::SUCCESS)
    } else {
        Err(Failure::new(format!(
            "a bug was found in: {}",
            failed.join(", ")
        )))
    }
}

/// The proxy of rustup chooses the toolchain; the variables of the cargo that runs us would decide instead of it.
fn cargo_fuzz(workspace: &Workspace) -> Command {
    let mut command = Command::new("cargo");
    command
        .args(["+nightly", "fuzz"])
        .current_dir(workspace.root())
        .env_remove("CARGO")
        .env_remove("RUSTUP_TOOLCHAIN");
    command
}

fn fuzz(folders: &Folders<'_>, task: &str) -> Command {
    let mut command = cargo_fuzz(folders.workspace);
    command
        .arg(task)
        .arg("--target-dir")
        .arg(folders.workspace.target().join("fuzz"));
    command
}

/// Returns the targets that were named, or all.
fn chosen(folders: &Folders<'_>, named: &[String]) -> Result<Vec<String>, Failure> {
    let sources = fs::read_dir(folders.workspace.root().join("fuzz/fuzz_targets"))?;
    let mut all = BTreeSet::new();
    for source in sources {
        let path = source?.path();
        all.extend(
            path.file_stem()
                .map(|name| name.to_string_lossy().into_owned()),
        );
    }
    if let Some(unknown) = named.iter().find(|name| !all.contains(*name)) {
        let all: Vec<String> = all.into_iter().collect();
        return Err(Failure::new(format!(
            "there is no target `{unknown}`, only {}",
            all.join(", ")
        )));
    }
    Ok(match named {
        [] => all.into_iter().collect(),
        named => named.to_vec(),
    })
}

/// Makes an input of every different line of the recordings: whole recordings are long, and long inputs are slow.
fn make_seeds(folders: &Folders<'_>) -> Result<(), Failure> {
    fs::create_dir_all(&folders.seeds)?;
    let mut lines = BTreeSet::new();
    for agent in fs::read_dir(folders.data.join("streams"))? {
        let folder = agent?.path();
        if !folder.is_dir() {
            continue;
        }
        for recording in fs::read_dir(folder)? {
            let recording = fs::read(recording?.path())?;
            let whole = recording.split_inclusive(|byte| *byte == b'\n');
            lines.extend(
                whole
                    .filter(|line| line.len() <= 8 << 10)
                    .map(<[u8]>::to_vec),
            );
        }
    }
    for (number, line) in lines.iter().enumerate() {
        fs::write(folders.seeds.join(number.to_string()), line)?;
    }
    Ok(())
}

/// Fuzzes one target; returns how many inputs were tried.
fn fuzz_target(folders: &Folders<'_>, target: &str, options: &Options) -> Result<u64, Failure> {
    let found = folders.work.join(target);
    let kept = folders.data.join("corpora").join(target);
    for folder in [&found, &kept] {
        fs::create_dir_all(folder)?;
    }
    let mut fuzzing = fuzz(folders, "run");
    fuzzing
        .arg(target)
        .args([&found, &kept, &folders.seeds])
        .arg("--")
        .args(LIMITS);
    fuzzing.arg(format!("-max_len={MOST_BYTES}"));
    fuzzing.arg(format!("-max_total_time={}", options.time.as_secs()));
    fuzzing.arg("-print_final_stats=1");
    fuzzing.arg(format!(
        "-dict={}",
        folders.workspace.root().join("fuzz/words.dict").display()
    ));
    let log = folders.work.join(format!("{target}.log"));
    run_logged(&mut fuzzing, &log)?;

    if options.found == Found::Keep {
        let smaller = folders.work.join(format!("{target}.kept"));
        // Of an earlier try that was interrupted.
        if smaller.exists() {
            fs::remove_dir_all(&smaller)?;
        }
        fs::create_dir_all(&smaller)?;
        let mut merging = fuzz(folders, "run");
        merging
            .arg(target)
            .args([&smaller, &kept, &found])
            .arg("--")
            .args(LIMITS);
        // What is reached counts, not how often.
        merging
            .args(["-set_cover_merge=1", "-use_counters=0"])
            .arg(format!("-max_len={KEPT_BYTES}"));
        run_logged(
            &mut merging,
            &folders.work.join(format!("{target}.merge.log")),
        )?;
        fs::remove_dir_all(&kept)?;
        fs::create_dir_all(&kept)?;
        for input in fs::read_dir(&smaller)? {
            let input = input?;
            fs::copy(input.path(), kept.join(input.file_name()))?;
        }
    }
    executions(&log)
}

/// Runs a command with a log of its own; the log's end is shown when it fails.
fn run_logged(command: &mut Command, log: &Path) -> Result<(), Failure> {
    let file = File::create(log)?;
    drop(file);
    program::run_logged(command, log)
}

/// Reads how many inputs libFuzzer says that it tried.
fn executions(log: &Path) -> Result<u64, Failure> {
    let log = fs::read(log)?;
    let log = String::from_utf8_lossy(&log);
    let number = log
        .lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    number
        .and_then(|number| number.trim().parse().ok())
        .ok_or_else(|| Failure::new("libFuzzer does not say how many inputs it tried"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options, Failure> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        Options::parse(&words)
    }

    #[test]
    fn targets_are_named_and_the_time_has_a_unit() {
        let options = parse(&["split", "--time", "30s", "report", "--keep"]).unwrap();

        assert_eq!(
            options,
            Options {
                targets: vec!["split".to_owned(), "report".to_owned()],
                time: Duration::from_secs(30),
                found: Found::Keep,
            }
        );
        for words in [&["--time"][..], &["--time", "3"], &["--tme", "3m"]] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }
}
