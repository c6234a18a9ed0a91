//! What the scripted agent of a schedule does, and the bytes that it prints.
//!
//! Owns: that both are derived from the same description.
//! Reads: nothing.
//! Never: prints anything that depends on the machine.

use std::fmt::Write;

use dark_factory_init::spew;

use super::Random;

/// The file that counts the agent's starts.
pub(super) const STARTS: &str = "starts.txt";
/// The file that the agent makes once it has printed the first part.
pub(super) const BEGUN: &str = "one";
/// The file for which the agent of a paused run waits.
pub(super) const GO: &str = "go";

/// One piece of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// So many bytes in lines of so many on standard output.
    Stdout(u64, usize),
    /// One line with this number on standard error.
    Stderr(u64),
}

/// A script.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// What it prints before it makes its file.
    pub before: Vec<Piece>,
    /// What it prints in the end, if it gets there.
    pub after: Vec<Piece>,
    /// How long it works in between, in milliseconds.
    pub work: u64,
    /// Its exit code.
    pub exit: u8,
    /// What else it does at its beginning, as script commands.
    pub habits: Vec<&'static str>,
}

impl Script {
    /// Returns a short script that prints to both streams before and after its work.
    pub fn short() -> Self {
        Self {
            before: vec![Piece::Stdout(3000, 80), Piece::Stderr(1)],
            after: vec![Piece::Stdout(100, 40), Piece::Stderr(2)],
            work: 30,
            exit: 0,
            habits: Vec::new(),
        }
    }

    /// Makes a script up.
    pub fn random(random: &mut Random) -> Self {
        let mut pieces = |most: u64| -> Vec<Piece> {
            let count = random.below(most + 1);
            (0..count)
                .map(|_| match random.chance(70) {
                    true => Piece::Stdout(
                        1 + random.below(200_000),
                        random.one_of(&[1, 17, 80, 1024, 70_000]),
                    ),
                    false => Piece::Stderr(random.below(1000)),
                })
                .collect()
        };
        let (before, after) = (pieces(3), pieces(2));
        let mut habits = Vec::new();
        if random.chance(20) {
            habits.push("fork 'ignore-term; sleep 1h'");
        }
        if random.chance(20) {
            habits.push("ignore-term");
        }
        Self {
            before,
            after,
            work: random.below(400),
            exit: random.one_of(&[0, 0, 0, 3, 1, 77]),
            habits,
        }
    }

    /// Returns the script's text with something in the middle that it waits for.
    pub(super) fn text(&self, middle: &str) -> String {
        let mut text = format!("append {STARTS} \"started\\n\"\n");
        for habit in &self.habits {
            text.push_str(habit);
            text.push('\n');
        }
        write_pieces(&mut text, &self.before);
        text.push_str("write ");
        text.push_str(BEGUN);
        text.push_str(" x\n");
        text.push_str(middle);
        text.push('\n');
        write_pieces(&mut text, &self.after);
        let _written = writeln!(text, "exit {}", self.exit);
        text
    }

    /// Returns all that it prints, by stream.
    pub(super) fn output(&self) -> [Vec<u8>; 2] {
        let whole: Vec<Piece> = self.before.iter().chain(&self.after).copied().collect();
        output(&whole)
    }

    /// Returns what it prints before it makes its file, by stream.
    pub(super) fn output_before(&self) -> [Vec<u8>; 2] {
        output(&self.before)
    }
}

fn write_pieces(text: &mut String, pieces: &[Piece]) {
    for piece in pieces {
        let _written = match piece {
            Piece::Stdout(size, line) => writeln!(text, "spew {size} {line}"),
            Piece::Stderr(number) => writeln!(text, "stderr line {number}"),
        };
    }
}

fn output(pieces: &[Piece]) -> [Vec<u8>; 2] {
    let mut streams = [Vec::new(), Vec::new()];
    for piece in pieces {
        match piece {
            Piece::Stdout(size, line) => streams[0].extend(spew(*size, *line)),
            Piece::Stderr(number) => streams[1].extend(format!("line {number}\n").into_bytes()),
        }
    }
    streams
}
