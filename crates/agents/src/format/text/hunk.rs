//! What an edit changes, line by line.
//!
//! Owns: a small difference of two texts.
//! Reads: the old and the new lines, a few thousand at most.
//! Never: takes longer than a table of [`CELLS`] does: longer texts are all old, then all new.

use super::page::Page;
use super::{DIM, GREEN, RED};

/// The most cells of the table that a difference is found with.
const CELLS: usize = 1 << 16;
/// Lines before and behind a change that are shown with it.
const CONTEXT: usize = 2;
/// Lines of one edit that are shown.
const LINES: usize = 16;

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Removed,
    Added,
}

/// Writes what makes one text of another.
pub(super) fn write(page: &mut Page<'_>, old: &str, new: &str) {
    let (old, new) = (lines(old), lines(new));
    let changes = difference(&old, &new);
    let near = near_changes(&changes);
    let (mut shown, mut left_out, mut was_near) = (0, 0, true);
    for ((fate, line), is_near) in changes.iter().zip(near) {
        if !is_near {
            was_near = false;
            continue;
        }
        if shown == LINES {
            left_out += 1;
            continue;
        }
        if !was_near && shown > 0 {
            page.line(DIM, "    ⋮");
        }
        (shown, was_near) = (shown + 1, true);
        let (style, mark) = match fate {
            Fate::Kept => (DIM, ' '),
            Fate::Removed => (RED, '-'),
            Fate::Added => (GREEN, '+'),
        };
        page.line(style, &format!("    {mark} {line}"));
    }
    if left_out > 0 {
        page.line(DIM, &format!("    … {left_out} more lines"));
    }
}

fn lines(text: &str) -> Vec<&str> {
    text.trim_end_matches('\n').lines().collect()
}

/// Returns which lines are changes or stand near one.
fn near_changes(changes: &[(Fate, &str)]) -> Vec<bool> {
    let mut near = vec![false; changes.len()];
    for (at, (fate, _)) in changes.iter().enumerate() {
        if *fate != Fate::Kept {
            let end = (at + CONTEXT + 1).min(near.len());
            near[at.saturating_sub(CONTEXT)..end].fill(true);
        }
    }
    near
}

/// Returns all lines of both texts, each once, in an order that makes the new text of the old.
fn difference<'t>(old: &[&'t str], new: &[&'t str]) -> Vec<(Fate, &'t str)> {
    let alike = |pair: &(&&str, &&str)| pair.0 == pair.1;
    let before = old.iter().zip(new).take_while(alike).count();
    let (old_rest, new_rest) = (&old[before..], &new[before..]);
    let behind = old_rest.iter().rev().zip(new_rest.iter().rev());
    let behind = behind.take_while(alike).count();
    let (old_middle, tail) = old_rest.split_at(old_rest.len() - behind);
    let new_middle = &new_rest[..new_rest.len() - behind];
    let with = |fate| move |line: &&'t str| (fate, *line);

    let mut changes: Vec<_> = old[..before].iter().map(with(Fate::Kept)).collect();
    if old_middle.len().saturating_mul(new_middle.len()) <= CELLS {
        middle(old_middle, new_middle, &mut changes);
    } else {
        changes.extend(old_middle.iter().map(with(Fate::Removed)));
        changes.extend(new_middle.iter().map(with(Fate::Added)));
    }
    changes.extend(tail.iter().map(with(Fate::Kept)));
    changes
}

/// Appends the difference by way of the longest common part of both.
fn middle<'t>(old: &[&'t str], new: &[&'t str], changes: &mut Vec<(Fate, &'t str)>) {
    let columns = new.len() + 1;
    // How many lines the rests from there on have in common.
    let mut common = vec![0_u32; (old.len() + 1) * columns];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * columns + j] = if old[i] == new[j] {
                common[(i + 1) * columns + j + 1] + 1
            } else {
                common[(i + 1) * columns + j].max(common[i * columns + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            changes.push((Fate::Kept, old[i]));
            (i, j) = (i + 1, j + 1);
        } else if i < old.len()
            && (j == new.len() || common[(i + 1) * columns + j] >= common[i * columns + j + 1])
        {
            changes.push((Fate::Removed, old[i]));
            i += 1;
        } else {
            changes.push((Fate::Added, new[j]));
            j += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{ColorChoice, TextStyle};
    use super::*;

    fn shown(old: &str, new: &str) -> String {
        let mut out = String::new();
        let style = TextStyle {
            color: ColorChoice::Never,
            width: None,
        };
        write(&mut Page::new(&mut out, style, 0), old, new);
        out
    }

    #[test]
    fn a_change_is_shown_with_what_is_around_it() {
        let old = "1\n2\n3\nold\n5\n6\n7\n8\n9\nx\n";
        let new = "1\n2\n3\nnew\nnewer\n5\n6\n7\n8\n9\n";

        assert_eq!(
            shown(old, new),
            "      2\n      3\n    - old\n    + new\n    + newer\n      5\n      6\n    ⋮\n      8\n      9\n    - x\n"
        );
    }

    #[test]
    fn a_text_that_stays_as_it_is_has_no_hunk_and_a_new_one_is_all_new() {
        assert_eq!(shown("a\nb", "a\nb\n"), "");
        assert_eq!(shown("", "a\nb"), "    + a\n    + b\n");
        assert_eq!(shown("a\n", ""), "    - a\n");
    }

    #[test]
    fn long_hunks_are_cut_and_long_texts_are_not_compared() {
        let text = |word: &str| {
            (0..1000)
                .map(|line| format!("{word}{line}\n"))
                .collect::<String>()
        };

        let out = shown(&text("old"), &text("new"));

        assert_eq!(out.lines().count(), LINES + 1);
        assert!(out.ends_with("    … 1984 more lines\n"), "{out}");
    }

    proptest! {
        #[test]
        fn the_old_and_the_new_text_are_all_there(old in "([ab]\n){0,12}", new in "([ab]\n){0,12}") {
            let (old, new) = (lines(&old), lines(&new));
            let changes = difference(&old, &new);
            let without = |other| changes.iter().filter(|(fate, _)| *fate != other).map(|(_, line)| *line).collect::<Vec<_>>();

            prop_assert_eq!(without(Fate::Added), old);
            prop_assert_eq!(without(Fate::Removed), new);
        }
    }
}
