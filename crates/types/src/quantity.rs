//! Sizes, CPU counts and durations as people write them.
//!
//! Owns: their parsing, limits and text forms.
//! Reads: nothing.
//! Never: accepts a number without a unit where the unit could be mistaken.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A quantity that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct QuantityError {
    text: String,
    expected: &'static str,
}

/// A number of bytes.
///
/// Text form as Docker's: a number, then `b`, `k`, `m`, `g` or `t` (powers of 1024, upper or lower case, an
/// optional `b` or `ib` behind), at most [`i64::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let error = || QuantityError {
            text: text.to_owned(),
            expected: "a size: write a number and a unit, such as 512m or 8g",
        };
        let lower = text.trim().to_ascii_lowercase();
        let split = lower
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(lower.len());
        let (number, unit) = lower.split_at(split);
        let factor: u64 = match unit.trim() {
            "" | "b" => 1,
            "k" | "kb" | "kib" => 1 << 10,
            "m" | "mb" | "mib" => 1 << 20,
            "g" | "gb" | "gib" => 1 << 30,
            "t" | "tb" | "tib" => 1 << 40,
            _ => return Err(error()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole: u64 = whole.parse().map_err(|_| error())?;
        let mut bytes = whole.checked_mul(factor).ok_or_else(error)?;
        if number.contains('.') {
            if fraction.is_empty() || fraction.len() > 6 {
                return Err(error());
            }
            let digits: u64 = fraction.parse().map_err(|_| error())?;
            bytes +=
                digits * factor / 10_u64.pow(u32::try_from(fraction.len()).map_err(|_| error())?);
        }
        if i64::try_from(bytes).is_err() {
            Err(error())
        } else {
            Ok(Self(bytes))
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
            let one = 1_u64 << shift;
            if self.0 >= one {
                let tenths = u128::from(self.0) * 10 / u128::from(one);
                return match tenths % 10 {
                    0 => write!(f, "{} {unit}", tenths / 10),
                    rest => write!(f, "{}.{rest} {unit}", tenths / 10),
                };
            }
        }
        write!(f, "{} B", self.0)
    }
}

/// An amount of money in US dollars, in millionths.
///
/// Text form: a decimal number of dollars with up to six digits behind the point, such as `5` or `0.25`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Usd(pub u64);

impl Usd {
    const ONE: u64 = 1_000_000;

    /// Returns the amount in dollars.
    #[allow(
        clippy::cast_precision_loss,
        reason = "exact below nine billion dollars"
    )]
    pub fn dollars(self) -> f64 {
        self.0 as f64 / Self::ONE as f64
    }
}

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / Self::ONE, self.0 % Self::ONE);
        let digits = format!("{rest:06}");
        let digits = digits.trim_end_matches('0');
        write!(f, "{whole}.{digits:0<2}")
    }
}

impl FromStr for Usd {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let parsed = || {
            let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), "0"));
            let is_number =
                |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            if !is_number(whole) || !is_number(fraction) || fraction.len() > 6 {
                return None;
            }
            let fraction: u64 = format!("{fraction:0<6}").parse().ok()?;
            let whole: u64 = whole.parse().ok()?;
            let amount = whole.checked_mul(Self::ONE)?.checked_add(fraction)?;
            i64::try_from(amount).is_ok().then_some(Self(amount))
        };
        parsed().ok_or_else(|| QuantityError {
            text: text.to_owned(),
            expected: "an amount in US dollars: write a number such as 5 or 0.25",
        })
    }
}

impl Serialize for Usd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// A share of CPU time, in billionths of one CPU.
///
/// Text form: a decimal number of CPUs greater than zero, with up to nine digits behind the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuCount {
    /// Billionths of one CPU.
    pub nanos: u64,
}

impl FromStr for CpuCount {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let error = || QuantityError {
            text: text.to_owned(),
            expected: "a number of CPUs: write a decimal number above 0, such as 2 or 0.5",
        };
        let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), "0"));
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
            return Err(error());
        }
        let whole: u64 = whole.parse().map_err(|_| error())?;
        let fraction: u64 = format!("{fraction:0<9}").parse().map_err(|_| error())?;
        let nanos = whole
            .checked_mul(1_000_000_000)
            .and_then(|n| n.checked_add(fraction))
            .ok_or_else(error)?;
        if nanos == 0 || nanos > 1_000_000_000_000_000 {
            Err(error())
        } else {
            Ok(Self { nanos })
        }
    }
}

impl fmt::Display for CpuCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!(
            "{}.{:09}",
            self.nanos / 1_000_000_000,
            self.nanos % 1_000_000_000
        );
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// Parses a duration such as `90s`, `30m`, `1h30m` or `1.5h`; a bare number is refused, zero and less too.
///
/// # Errors
///
/// [`QuantityError`] if the text is none of that.
pub fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    let error = || QuantityError {
        text: text.to_owned(),
        expected: "a duration: write a number and a unit, such as 90s, 30m or 1h30m",
    };
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(error());
    }
    let duration: jiff::SignedDuration = text.parse().map_err(|_| error())?;
    match Duration::try_from(duration) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(error()),
    }
}

macro_rules! serde_as_text {
    ($type:ident, $serialize:expr) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let value = $serialize(self);
                value.serialize(serializer)
            }
        }
    };
}

serde_as_text!(ByteSize, |size: &ByteSize| size.0);
serde_as_text!(CpuCount, ToString::to_string);

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for CpuCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        for (text, bytes) in [
            ("8g", 8 << 30),
            ("512m", 512 << 20),
            ("1.5k", 1536),
            ("100", 100),
            ("2GiB", 2 << 30),
            ("7b", 7),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "8x", "g", "-1g", "1.g", ".5g", "99999999t", "1e3"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_with_one_decimal() {
        assert_eq!(ByteSize(512 << 20).to_string(), "512 MiB");
        assert_eq!(ByteSize(1536).to_string(), "1.5 KiB");
        assert_eq!(ByteSize(9).to_string(), "9 B");
    }

    #[test]
    fn cpus_are_decimal_and_not_zero() {
        assert_eq!("0.5".parse(), Ok(CpuCount { nanos: 500_000_000 }));
        assert_eq!(
            "2".parse(),
            Ok(CpuCount {
                nanos: 2_000_000_000
            })
        );
        assert_eq!(
            CpuCount {
                nanos: 1_250_000_000
            }
            .to_string(),
            "1.25"
        );
        for text in ["0", "0.0", "-1", "two", "1.", "1e3", "", "1.0000000001"] {
            assert!(text.parse::<CpuCount>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_amount_is_read_and_written_in_dollars() {
        for (text, millionths, written) in [
            ("5", 5_000_000, "5.00"),
            ("0.25", 250_000, "0.25"),
            ("1.5", 1_500_000, "1.50"),
            ("0.000001", 1, "0.000001"),
        ] {
            let amount: Usd = text.parse().unwrap();
            assert_eq!(amount, Usd(millionths), "{text}");
            assert_eq!(amount.to_string(), written);
        }
        for text in [
            "",
            "-1",
            "1.",
            ".5",
            "1.0000001",
            "$5",
            "1e3",
            "9e99",
            "99999999999999999",
        ] {
            assert!(text.parse::<Usd>().is_err(), "{text}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("1.5h"), Ok(Duration::from_secs(5400)));
        for text in ["", "90", "0s", "-5m", "soon"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
