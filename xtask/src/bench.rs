//! Compares dark-factory with the docker command line: same image, same command, same run.
//!
//! Owns: the pairs that are compared, and the tables.
//! Reads: nothing but its options.
//! Never: compares across runs; every ratio is between neighbours of one round.

mod supervision;

use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use tempfile::TempDir;

use crate::engine::Engine;
use crate::helper;
use crate::images;
use crate::measure::{Measurement, measure, median};
use crate::packages::{self, Packages};
use crate::program::{self, Failure};
use crate::workspace::Workspace;

const LAUNCH_ROUNDS: usize = 15;
const OUTPUT_ROUNDS: usize = 5;
/// MiB that the output benchmark prints, unless told otherwise.
const OUTPUT_MIB: u32 = 200;
/// Owner of the project folder, so that the container runs as an ordinary user.
const PROJECT_OWNER: u32 = 1000;

/// What is measured.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    only: Option<Part>,
    rounds: Option<usize>,
    mebibytes: Option<u32>,
    binary: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Launch,
    Output,
    Recovery,
    Deadline,
}

impl Options {
    /// Parses `--only`, `--rounds`, `--size` (in MiB, `m` may follow) and `--binary`.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, Failure> {
        let mut options = Self::default();
        for pair in arguments.chunks(2) {
            let bad = || Failure::new(format!("bench does not understand `{}`", pair.join(" ")));
            let [name, value] = pair else {
                return Err(bad());
            };
            match (name.as_str(), value.as_str()) {
                ("--only", "launch") => options.only = Some(Part::Launch),
                ("--only", "output") => options.only = Some(Part::Output),
                ("--only", "recovery") => options.only = Some(Part::Recovery),
                ("--only", "deadline") => options.only = Some(Part::Deadline),
                ("--rounds", number) => {
                    let rounds = number.parse().ok().filter(|&rounds| rounds > 0);
                    options.rounds = Some(rounds.ok_or_else(bad)?);
                }
                ("--size", size) => {
                    let mebibytes = size
                        .trim_end_matches('m')
                        .parse()
                        .ok()
                        .filter(|&size| size > 0);
                    options.mebibytes = Some(mebibytes.ok_or_else(bad)?);
                }
                ("--binary", path) => options.binary = Some(path.into()),
                _ => return Err(bad()),
            }
        }
        Ok(options)
    }
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode, Failure> {
    let cache = workspace.cache();
    fs::create_dir_all(&cache)?;
    let engine = Engine::provide(&mut Packages::new(&cache), &cache)?;
    let helper = helper::build(workspace)?;
    images::provide_agent(&engine, &cache, &helper)?;
    let binary = match &options.binary {
        Some(binary) => fs::canonicalize(binary)?,
        None => {
            program::run(
                workspace
                    .cargo()
                    .args(["build", "--release", "--package", "dark-factory"])
                    .env(helper::VARIABLE, &helper),
            )?;
            workspace.target().join("release/dark-factory")
        }
    };
    let bench = Bench::prepare(engine, binary, &cache)?;
    let wanted = |part| options.only.is_none_or(|only| only == part);
    if wanted(Part::Launch) {
        bench.launch(options.rounds.unwrap_or(LAUNCH_ROUNDS))?;
    }
    if wanted(Part::Output) {
        bench.output(
            options.rounds.unwrap_or(OUTPUT_ROUNDS),
            options.mebibytes.unwrap_or(OUTPUT_MIB),
        )?;
    }
    if wanted(Part::Recovery) {
        bench.recovery()?;
    }
    if wanted(Part::Deadline) {
        bench.deadline(options.rounds.unwrap_or(supervision::DEADLINE_ROUNDS))?;
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug)]
struct Bench {
    engine: Engine,
    binary: PathBuf,
    folder: TempDir,
}

/// One row of a table: a program, and the run of each round.
#[derive(Debug)]
struct Row {
    name: &'static str,
    runs: Vec<Measurement>,
}

impl Bench {
    fn prepare(engine: Engine, binary: PathBuf, cache: &Path) -> Result<Self, Failure> {
        let folder = TempDir::new_in(cache)?;
        let project = folder.path().join("project");
        fs::create_dir(&project)?;
        fs::write(project.join("prompt.md"), "A prompt that nobody reads.\n")?;
        // Without it the project would be the checkout around it.
        fs::create_dir(project.join(".git"))?;
        if packages::is_root() {
            chown(&project, Some(PROJECT_OWNER), Some(PROJECT_OWNER))?;
        }
        Ok(Self {
            engine,
            binary,
            folder,
        })
    }

    /// Start of the client to its exit, for an agent that does nothing.
    fn launch(&self, rounds: usize) -> Result<(), Failure> {
        let ours = |network| self.dark_factory(network, "exit 0");
        let docker = |network| self.docker_run(network, "exit 0");
        for (title, ours, docker) in [
            ("launch to exit, no network", ours("none"), docker("none")),
            (
                "launch to exit, bridge network",
                ours("open"),
                docker("bridge"),
            ),
        ] {
            let rows = compare(rounds, ours, docker, |_| Ok(()), || self.nowhere())?;
            print!("{}", table(title, &rows, None));
        }
        Ok(())
    }

    /// Output of 1 KiB lines, from the agent into a file that a person can read afterwards.
    fn output(&self, rounds: usize, mebibytes: u32) -> Result<(), Failure> {
        let script = format!("spew {mebibytes}m 1k");
        let captured = self.folder.path().join("stdout");
        let check = |who: Who| {
            let written = match who {
                Who::DarkFactory => {
                    let written = raw_log_length(&self.state());
                    fs::remove_dir_all(self.state())?;
                    written
                }
                Who::Docker => fs::metadata(&captured)?.len(),
            };
            if written == u64::from(mebibytes) << 20 {
                Ok(())
            } else {
                Err(Failure::new(format!(
                    "{who:?} kept {written} bytes of {mebibytes} MiB"
                )))
            }
        };
        let rows = compare(
            rounds,
            self.dark_factory("none", &script),
            self.docker_run("none", &script),
            check,
            || Ok(File::create(&captured)?),
        )?;
        print!(
            "{}",
            table("output of 1 KiB lines into a file", &rows, Some(mebibytes))
        );
        Ok(())
    }

    fn dark_factory(&self, network: &str, script: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(["run", "--quiet", "--network", network, "--agent", "command"])
            .args([
                "--image",
                images::AGENT,
                "prompt.md",
                "--",
                "/bin/agent",
                "-e",
                script,
            ])
            .current_dir(self.folder.path().join("project"))
            .env("DARK_FACTORY_STATE_DIR", self.state());
        command
    }

    fn docker_run(&self, network: &str, script: &str) -> Command {
        let mut command = self.engine.docker();
        command
            .args(["run", "--rm", "--network", network, images::AGENT])
            .args(["/bin/agent", "-e", script]);
        command
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn nowhere(&self) -> Result<File, Failure> {
        Ok(File::options().write(true).open("/dev/null")?)
    }
}

#[derive(Debug, Clone, Copy)]
enum Who {
    DarkFactory,
    Docker,
}

/// Runs both once unmeasured, then `rounds` times in turn, each round beginning with the other one.
fn compare(
    rounds: usize,
    mut dark_factory: Command,
    mut docker: Command,
    check: impl Fn(Who) -> Result<(), Failure>,
    stdout: impl Fn() -> Result<File, Failure>,
) -> Result<[Row; 2], Failure> {
    let mut rows = ["dark-factory", "docker run"].map(|name| Row {
        name,
        runs: Vec::new(),
    });
    for round in 0..=rounds {
        let mut order = [Who::DarkFactory, Who::Docker];
        order.rotate_left(round % 2);
        for who in order {
            let (command, row) = match who {
                Who::DarkFactory => (&mut dark_factory, &mut rows[0]),
                Who::Docker => (&mut docker, &mut rows[1]),
            };
            let run = measure(command, stdout()?)?;
            check(who)?;
            if round > 0 {
                row.runs.push(run);
            }
        }
    }
    Ok(rows)
}

/// Lays out two rows; ratios are medians of the ratios of each round, so that a busy moment weighs on both alike.
fn table(title: &str, rows: &[Row; 2], mebibytes: Option<u32>) -> String {
    let mut lines = vec![
        format!("\n{title}, {} rounds", rows[0].runs.len()),
        "                  wall ms  fastest   ratio    client CPU ms   ratio".to_owned(),
    ];
    for row in rows {
        let ratio = |part: fn(&Measurement) -> f64| {
            let rounds = row.runs.iter().zip(&rows[1].runs);
            median(rounds.map(|(run, docker)| part(run) / part(docker)))
        };
        let wall = median(row.runs.iter().map(|run| run.wall));
        let fastest = row
            .runs
            .iter()
            .map(|run| run.wall)
            .fold(f64::INFINITY, f64::min);
        let cpu = median(row.runs.iter().map(|run| run.cpu));
        let mut line = format!(
            "  {:<14} {:>8.0} {:>8.0} {:>6.2}x {:>16.1} {:>6.2}x",
            row.name,
            wall * 1e3,
            fastest * 1e3,
            ratio(|run| run.wall),
            cpu * 1e3,
            ratio(|run| run.cpu),
        );
        if let Some(mebibytes) = mebibytes {
            let rate = f64::from(mebibytes) / wall;
            line = format!("{line}   {rate:.0} MiB/s");
        }
        lines.push(line);
    }
    lines.push(String::new());
    lines.join("\n")
}

/// Returns the length of all raw logs below a folder, in bytes.
fn raw_log_length(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => raw_log_length(&entry.path()),
            Ok(_) if entry.file_name() == "raw.jsonl" => {
                entry.metadata().map_or(0, |raw| raw.len())
            }
            _ => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options, Failure> {
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

    #[test]
    fn ratios_are_medians_of_the_rounds() {
        let row = |name, walls: [f64; 3]| Row {
            name,
            runs: walls
                .iter()
                .map(|&wall| Measurement {
                    wall,
                    cpu: wall / 10.0,
                })
                .collect(),
        };
        let rows = [
            row("dark-factory", [0.2, 0.9, 0.3]),
            row("docker run", [0.4, 0.6, 0.6]),
        ];

        let table = table("launch", &rows, Some(30));

        assert!(table.contains("launch, 3 rounds"), "{table}");
        assert!(
            table.contains("dark-factory        300      200   0.50x"),
            "{table}"
        );
        assert!(table.contains("100 MiB/s"), "{table}");
    }
}
