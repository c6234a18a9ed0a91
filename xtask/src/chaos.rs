//! Plays random schedules of faults for as long as wanted.
//!
//! Owns: the options, and the environment that carries them to the tests.
//! Reads: nothing but its options.
//! Never: knows what a schedule is; see `integration-tests/src/chaos`.

use std::process::ExitCode;
use std::time::Duration;

use crate::phases::Phases;
use crate::program::{self, Failure};
use crate::test;
use crate::workspace::Workspace;

/// How long, how many at a time, from which seed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    time: Duration,
    seed: Option<u64>,
    jobs: Option<u64>,
}

impl Options {
    /// Parses `--for` (a number of `s`, `m` or `h`), `--seed` and `--jobs`.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, Failure> {
        let mut options = Self {
            time: Duration::from_secs(600),
            seed: None,
            jobs: None,
        };
        for pair in arguments.chunks(2) {
            let bad = || Failure::new(format!("chaos does not understand `{}`", pair.join(" ")));
            let [name, value] = pair else {
                return Err(bad());
            };
            let number = || value.parse::<u64>().map_err(|_| bad());
            match name.as_str() {
                "--for" => options.time = duration(value).ok_or_else(bad)?,
                "--seed" => options.seed = Some(number()?),
                "--jobs" => options.jobs = Some(number()?),
                _ => return Err(bad()),
            }
        }
        Ok(options)
    }
}

/// Reads a number of `s`, `m` or `h`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        _ => return None,
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(seconds))
        .map(Duration::from_secs)
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode, Failure> {
    let environment = test::provide_and_build(workspace, &mut Phases::default())?;
    let mut chaos = workspace.cargo();
    chaos
        .args(["test", "--package", "integration-tests", "--all-features"])
        .args(["--test", "chaos", "--", "--nocapture"])
        .envs(environment)
        .env("DARK_FACTORY_CHAOS_FOR", options.time.as_secs().to_string());
    // Another one each time is all that is asked of it.
    let new_seed = || u64::from(std::process::id());
    for (name, number) in [
        (
            "DARK_FACTORY_CHAOS_SEED",
            Some(options.seed.unwrap_or_else(new_seed)),
        ),
        ("DARK_FACTORY_CHAOS_JOBS", options.jobs),
    ] {
        if let Some(number) = number {
            chaos.env(name, number.to_string());
        }
    }
    program::run(&mut chaos)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options, Failure> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        Options::parse(&words)
    }

    #[test]
    fn a_time_has_a_unit_and_a_seed_is_a_number() {
        let options = parse(&["--for", "60m", "--seed", "7", "--jobs", "2"]).unwrap();

        assert_eq!(
            options,
            Options {
                time: Duration::from_secs(3600),
                seed: Some(7),
                jobs: Some(2),
            }
        );
        for words in [
            &["--for", "60"][..],
            &["--for"],
            &["--seed", "x"],
            &["--for", ""],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }
}
