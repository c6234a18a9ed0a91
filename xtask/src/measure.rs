//! Times whole programs and compares what was measured.
//!
//! Owns: the clock, the CPU accounting of children, medians.
//! Reads: the monotonic clock; what the kernel accounts for ended children.
//! Never: runs two programs at once; their CPU times could not be told apart.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

use crate::program::Failure;

/// One run of one program.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measurement {
    /// Seconds from start to exit.
    pub(crate) wall: f64,
    /// Seconds of CPU that the program and its children used; what the engine used is not in it.
    pub(crate) cpu: f64,
}

/// Runs a program that must succeed, with its standard output in a file.
pub(crate) fn measure(command: &mut Command, stdout: File) -> Result<Measurement, Failure> {
    let cpu_before = children_cpu()?;
    let start = Instant::now();
    let output = command
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()?
        .wait_with_output()?;
    let wall = start.elapsed();
    let cpu = children_cpu()?.saturating_sub(cpu_before);
    if !output.status.success() {
        return Err(Failure::new(format!(
            "{command:?} failed: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        )));
    }
    Ok(Measurement {
        wall: wall.as_secs_f64(),
        cpu: cpu.as_secs_f64(),
    })
}

/// Returns the middle value, or the mean of the two middle ones; zero for no values.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let (lower, upper) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    match (values.get(lower), values.get(upper)) {
        (Some(lower), Some(upper)) => f64::midpoint(*lower, *upper),
        _ => 0.0,
    }
}

fn children_cpu() -> Result<Duration, Failure> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)
        .map_err(|error| Failure::new(format!("the CPU time of children is unknown: {error}")))?;
    let micros = [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap_or(0))
        .sum();
    Ok(Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_two_middle_values() {
        assert_eq!(median([3.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]).to_bits(), 2.5_f64.to_bits());
        assert_eq!(median([]).to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn a_program_that_fails_is_no_measurement() {
        let nowhere = File::options().write(true).open("/dev/null").unwrap();

        let failure = measure(
            Command::new("sh").args(["-c", "echo why >&2; exit 3"]),
            nowhere,
        )
        .unwrap_err();

        assert!(
            failure.to_string().contains("exit status: 3\nwhy"),
            "{failure}"
        );
    }
}
