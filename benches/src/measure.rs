//! Times whole programs and compares what was measured.
//!
//! Owns: the clock, the CPU accounting of this process and its children, medians.
//! Reads: the monotonic clock; what the kernel accounts.
//! Never: runs two programs at once; their CPU times could not be told apart.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dark_factory::executor::clock::{Clock, SystemClock};
use jiff::Timestamp;
use nix::sys::resource::{UsageWho, getrusage};

use crate::Result;

/// One run of one program.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measurement {
    /// Seconds from start to exit.
    pub(crate) wall: f64,
    /// Seconds from start to the first byte on standard output; the wall time if there was none.
    pub(crate) first_byte: f64,
    /// Seconds of CPU that the program and its children used; what the engine used is not in it.
    pub(crate) cpu: f64,
}

/// Runs a program that must succeed; what it prints goes to `output`.
pub(crate) fn measure(command: &mut Command, mut output: impl Write) -> Result<Measurement> {
    let cpu_before = cpu(UsageWho::RUSAGE_CHILDREN)?;
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut first_byte = None;
    if let Some(mut stdout) = child.stdout.take() {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = stdout.read(&mut buffer)?;
            if length == 0 {
                break;
            }
            first_byte.get_or_insert_with(|| start.elapsed());
            output.write_all(&buffer[..length])?;
        }
    }
    let ended = child.wait_with_output()?;
    let wall = start.elapsed();
    let cpu = cpu(UsageWho::RUSAGE_CHILDREN)?.saturating_sub(cpu_before);
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.stderr);
        return Err(format!("{command:?} failed: {}\n{}", ended.status, said.trim_end()).into());
    }
    Ok(Measurement {
        wall: wall.as_secs_f64(),
        first_byte: first_byte.unwrap_or(wall).as_secs_f64(),
        cpu: cpu.as_secs_f64(),
    })
}

/// Runs a program for its standard output.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let mut output = Vec::new();
    measure(command, &mut output)?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}

/// Returns the CPU time of this process, or of its children that have ended.
pub(crate) fn cpu(of: UsageWho) -> Result<Duration> {
    let usage = getrusage(of)?;
    let micros = [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap_or(0))
        .sum();
    Ok(Duration::from_micros(micros))
}

/// Returns a wall time as the seconds since 1970, to the microsecond.
#[expect(
    clippy::cast_precision_loss,
    reason = "microseconds since 1970 are below 2^53"
)]
pub(crate) fn seconds(at: Timestamp) -> f64 {
    at.as_microsecond() as f64 / 1e6
}

/// Returns the wall time in seconds since 1970.
pub(crate) fn wall_seconds() -> f64 {
    seconds(SystemClock.now())
}

/// Returns the middle value, or the mean of the two middle ones; zero for no values.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

/// Returns the value below which this part of the values lies, between two neighbours if need be; zero for no values.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the places of a few thousand values"
)]
pub(crate) fn quantile(values: impl IntoIterator<Item = f64>, part: f64) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let place = part * values.len().saturating_sub(1) as f64;
    let (lower, upper) = (place.floor() as usize, place.ceil() as usize);
    match (values.get(lower), values.get(upper)) {
        (Some(lower), Some(upper)) => lower + (upper - lower) * place.fract(),
        _ => 0.0,
    }
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
        let failure = measure(
            Command::new("sh").args(["-c", "echo why >&2; exit 3"]),
            Vec::new(),
        )
        .unwrap_err();

        assert!(
            failure.to_string().contains("exit status: 3\nwhy"),
            "{failure}"
        );
    }
}
