//! Ids of runs, attempts and installations.
//!
//! Owns: their text forms and limits.
//! Reads: random bits that the caller brings.
//! Never: makes randomness or reads a clock.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Crockford's base 32 in lower case: no i, l, o, u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const RUN_LEN: usize = 12;

/// A text that is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct IdError {
    text: String,
    expected: &'static str,
}

/// One prompt on its way to one outcome: 12 characters of Crockford's base 32.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId([u8; RUN_LEN]);

impl RunId {
    /// Makes an id from the low 60 of the given random bits.
    pub fn from_random_bits(bits: u64) -> Self {
        let mut id = [0; RUN_LEN];
        for (i, byte) in id.iter_mut().enumerate() {
            *byte = ALPHABET[(bits >> (5 * i) & 31) as usize];
        }
        Self(id)
    }

    /// Returns the id's text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("")
    }

    /// Returns the id of this run's attempt number `number`, counted from 1.
    pub fn attempt(self, number: u16) -> AttemptId {
        AttemptId { run: self, number }
    }
}

impl FromStr for RunId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        match <[u8; RUN_LEN]>::try_from(text.as_bytes()) {
            Ok(id) if id.iter().all(|b| ALPHABET.contains(b)) => Ok(Self(id)),
            _ => Err(IdError {
                text: text.to_owned(),
                expected: "a run id",
            }),
        }
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One try at a run: the run's id, a hyphen, and the attempt's number from 1 to 999.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    run: RunId,
    number: u16,
}

impl AttemptId {
    /// Returns the run that the attempt belongs to.
    pub fn run(self) -> RunId {
        self.run
    }

    /// Returns the attempt's number, counted from 1.
    pub fn number(self) -> u16 {
        self.number
    }
}

impl FromStr for AttemptId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let error = || IdError {
            text: text.to_owned(),
            expected: "an attempt id",
        };
        let (run, number) = text.split_once('-').ok_or_else(error)?;
        let run = run.parse().map_err(|_| error())?;
        match number.parse() {
            Ok(number @ 1..=999) => Ok(Self { run, number }),
            _ => Err(error()),
        }
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.run, self.number)
    }
}

/// One installation of dark-factory: the value of the owner label on everything it creates.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OwnerId(pub String);

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

macro_rules! as_text {
    ($type:ident) => {
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($type), "({})"), self)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

as_text!(RunId);
as_text!(AttemptId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_id_round_trips_through_text() {
        let attempt = RunId::from_random_bits(0x0123_4567_89ab_cdef).attempt(12);

        let text = attempt.to_string();

        assert_eq!(text.len(), 15);
        assert_eq!(text.parse(), Ok(attempt));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "k3v9x2m7qa1",
            "k3v9x2m7qa1L",
            "k3v9x2m7qa1b-0",
            "k3v9x2m7qa1b-1000",
            "../../etc",
        ] {
            assert!(
                text.parse::<RunId>().is_err() && text.parse::<AttemptId>().is_err(),
                "{text}"
            );
        }
    }
}
