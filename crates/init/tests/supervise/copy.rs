//! The helper's copy for the engine's own log: whole at a human rate, the beginning of a flood, and how much is missing.
//!
//! Owns: the reading of a copy, which holds lines of the agent and marks of the helper.

use dark_factory_init::{long_line, spew};

use crate::supervisor::{Launch, Recorded, script};

/// What a helper's copy is never shorter than, where there is so much: what it may copy at once, less one line.
const BEGINNING: usize = (256 << 10) - 1024;

/// Runs a script while somebody reads both copies.
fn run(text: &str) -> (Recorded, [String; 2]) {
    let mut running = Launch::new(&script(text)).start();
    let copies = running.read_copies();
    let recorded = running.finish();
    (recorded, copies.map(|copy| copy.join().unwrap()))
}

/// Returns the number of bytes that a line says to be missing, if it is such a line.
fn missing(line: &str) -> Option<usize> {
    let (count, rest) = line
        .strip_prefix("[dark-factory: ")?
        .split_once(" bytes not shown here; ")?;
    assert_eq!(rest, "`dark-factory logs RUN` has everything]\n");
    count.parse().ok()
}

/// Returns the agent's lines of a copy, and how many bytes the marks between them say to be missing.
fn lines_and_missing(copy: &str) -> (Vec<&str>, usize) {
    let (marks, lines): (Vec<&str>, Vec<&str>) = copy
        .split_inclusive('\n')
        .partition(|line| missing(line).is_some());
    (lines, marks.into_iter().filter_map(missing).sum())
}

#[test]
fn what_comes_at_a_human_rate_is_copied_whole() {
    let text = "print one; sleep 50ms; stderr two; sleep 50ms; spew 100k; print three";

    let (recorded, [stdout, stderr]) = run(text);

    assert!(stdout.as_bytes() == recorded.stdout());
    assert_eq!(stderr, "two\n");
}

#[test]
fn of_a_flood_the_beginning_is_copied_and_the_rest_is_counted() {
    let flood = String::from_utf8(spew(30 << 20, 1024)).unwrap();

    let (recorded, [stdout, _]) = run("spew 30m 1k");

    assert!(recorded.stdout() == flood.as_bytes());
    assert!(stdout.starts_with(&flood[..BEGINNING]));
    let (lines, missing) = lines_and_missing(&stdout);
    let copied: usize = lines.iter().map(|line| line.len()).sum();
    assert_eq!(copied + missing, flood.len());
    assert!(missing > 0 && lines.iter().all(|line| line.len() == 1024));
    assert!(stdout.ends_with("has everything]\n"));
}

#[test]
fn after_a_flood_the_copy_goes_on_with_a_whole_line() {
    let (recorded, [stdout, _]) = run("spew 30m 1k; sleep 1200ms; print after; exit 3");

    assert_eq!(recorded.code, Some(3));
    let end = stdout.lines().rev().take(2).collect::<Vec<_>>();
    assert_eq!(end[0], "after");
    assert!(missing(&format!("{}\n", end[1])).is_some(), "{}", end[1]);
    let (lines, missing) = lines_and_missing(&stdout);
    let copied: usize = lines.iter().map(|line| line.len()).sum();
    assert_eq!(copied + missing, recorded.stdout().len());
}

#[test]
fn a_line_that_does_not_end_is_cut_and_the_mark_has_a_line_of_its_own() {
    let (recorded, [stdout, _]) = run("line 8m");

    assert!(recorded.stdout() == long_line(8 << 20));
    let (begun, mark) = stdout.split_once('\n').unwrap();
    assert!(long_line(8 << 20).starts_with(begun.as_bytes()));
    assert!(begun.len() >= BEGINNING);
    assert_eq!(missing(mark), Some((8 << 20) + 1 - begun.len()));
}

#[test]
fn the_beginning_waits_for_an_engine_that_does_not_read() {
    let flood = spew(30 << 20, 1024);
    let mut running = Launch::new(&script("spew 30m 1k; sleep 60")).start();
    running.wait_for_length(30 << 20);

    let [stdout, _] = running.read_copies();
    running.signal(15);
    let recorded = running.finish();

    assert!(recorded.stdout() == flood);
    let stdout = stdout.join().unwrap();
    assert!(flood.starts_with(&stdout.as_bytes()[..BEGINNING]));
}
