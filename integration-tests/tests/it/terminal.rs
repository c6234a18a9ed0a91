//! What a person sees on a real terminal, in a pipe and in CI, while runs go on and when something is wrong.
//!
//! Owns: what a terminal of a given size shows.
//! Reads: everything that is written to it.
//! Never: looks at escape codes themselves, but where there must be none.

use std::fs::{self, File};
use std::io::Read;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::sys::signal::Signal;

use crate::pty::{Pty, resize};
use crate::pulls::Harbour;
use crate::scene::eventually;
use crate::support::{Ended, Workshop, for_agent, send, wait_for};

/// Whether somebody takes what is written to a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    Reads,
    Stopped,
}

/// A command on a terminal of its own.
struct OnTerminal {
    child: Child,
    keyboard: File,
    written: Arc<Mutex<Vec<u8>>>,
    reading: Option<JoinHandle<()>>,
    /// Gone with the value, which ends a reader that reads nothing.
    _go_on: Sender<()>,
    columns: usize,
}

impl OnTerminal {
    /// Starts a command on a terminal with so many columns that shows Unicode.
    fn of(command: &mut Command, columns: u16) -> Self {
        Self::with_rows(command, columns, 24)
    }

    fn with_rows(command: &mut Command, columns: u16, rows: u16) -> Self {
        Self::start(command, columns, rows, Reader::Reads)
    }

    /// Starts a command on a terminal that somebody has stopped with Ctrl-S.
    fn unread(command: &mut Command) -> Self {
        Self::start(command, 80, 24, Reader::Stopped)
    }

    fn start(command: &mut Command, columns: u16, rows: u16, reader: Reader) -> Self {
        let pty = Pty::open(columns, rows);
        // Of these the test's own values count, and not those of whoever runs it.
        for (name, usual) in [
            ("CI", None),
            ("NO_COLOR", None),
            ("TERM", Some("xterm-256color")),
            ("LC_ALL", Some("C.UTF-8")),
        ] {
            if command.get_envs().any(|(set, _)| set == name) {
                continue;
            }
            match usual {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let child = pty.start(command);
        // The command has it as long as it lives.
        drop(pty.line);
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let kept = Arc::clone(&written);
        let mut output = pty.keyboard.try_clone().expect("a file descriptor");
        let (go_on, stopped) = channel::<()>();
        let reading = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            if reader == Reader::Stopped {
                // The terminal stays open until the test is over.
                let _ended = stopped.recv();
                return;
            }
            // It ends with an error once nobody has the terminal any more.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                kept.lock().unwrap().extend(&bytes[..count]);
            }
        });
        Self {
            child,
            keyboard: pty.keyboard,
            written,
            reading: Some(reading),
            _go_on: go_on,
            columns: usize::from(columns),
        }
    }

    /// Makes the terminal's rows longer or shorter, without showing anything anew.
    fn resize(&mut self, columns: u16) {
        self.columns = usize::from(columns);
        resize(&self.keyboard, columns, 24);
    }

    /// Returns what has been written to the terminal so far.
    fn written(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned()
    }

    /// Returns what the terminal shows now.
    fn shows(&self) -> Screen {
        Screen::of(&self.written(), self.columns)
    }

    /// Waits until the terminal shows a row with this in it.
    fn wait_for(&self, text: &str) -> Screen {
        eventually(text, || {
            Some(self.shows()).filter(|screen| screen.rows.iter().any(|row| row.contains(text)))
        })
    }

    /// Waits for the command's end; returns its exit code.
    fn code(mut self) -> i32 {
        let status = eventually("the end of the command", || {
            self.child.try_wait().expect("it is our child")
        });
        status.code().unwrap_or(-1)
    }

    /// Waits for the command's end; returns its exit code, what was written, and what the terminal shows.
    fn ended(mut self) -> (i32, String, Screen) {
        let status = eventually("the end of the command", || {
            self.child.try_wait().expect("it is our child")
        });
        let reading = self.reading.take().expect("it is read once");
        reading.join().expect("the terminal is read");
        let written = String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned();
        let screen = Screen::of(&written, self.columns);
        (status.code().unwrap_or(-1), written, screen)
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// What a terminal shows: its rows, and which of them go on in the next one.
#[derive(Debug, Default)]
struct Screen {
    rows: Vec<String>,
    wraps: Vec<bool>,
}

impl Screen {
    /// Does what a terminal does with what our program writes; anything else fails the test.
    fn of(written: &str, columns: usize) -> Self {
        let mut cells: Vec<Vec<char>> = vec![Vec::new()];
        let mut wraps = vec![false];
        let (mut row, mut column) = (0, 0);
        let mut chars = written.chars().peekable();
        while let Some(char) = chars.next() {
            match char {
                '\r' => column = 0,
                '\n' => {
                    row += 1;
                    if row == cells.len() {
                        cells.push(Vec::new());
                        wraps.push(false);
                    }
                }
                '\x1b' => {
                    // It may not have been written whole yet.
                    if chars.next().is_none() {
                        break;
                    }
                    let mut parameter = String::new();
                    while let Some(digit) = chars.next_if(|c| c.is_ascii_digit() || *c == ';') {
                        parameter.push(digit);
                    }
                    match chars.next() {
                        Some('A') => row -= parameter.parse::<usize>().unwrap(),
                        Some('J') => {
                            cells.truncate(row + 1);
                            wraps.truncate(row + 1);
                            cells[row].truncate(column);
                            wraps[row] = false;
                        }
                        Some('m') | None => {}
                        Some(other) => panic!("{other:?} is not known here"),
                    }
                }
                char => {
                    if column == columns {
                        wraps[row] = true;
                        row += 1;
                        column = 0;
                        if row == cells.len() {
                            cells.push(Vec::new());
                            wraps.push(false);
                        }
                    }
                    let line = &mut cells[row];
                    line.resize(line.len().max(column + 1), ' ');
                    line[column] = char;
                    column += 1;
                }
            }
        }
        Self {
            rows: cells.iter().map(|row| row.iter().collect()).collect(),
            wraps,
        }
    }

    /// Returns the lines as they were printed: rows that go on are one.
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![String::new()];
        for (row, wraps) in self.rows.iter().zip(&self.wraps) {
            lines.last_mut().unwrap().push_str(row);
            if !wraps {
                lines.push(String::new());
            }
        }
        lines
    }

    fn last(&self) -> &str {
        self.rows.iter().rfind(|row| !row.is_empty()).unwrap()
    }
}

#[test]
fn how_much_of_an_image_is_there_is_shown_while_it_is_pulled() {
    let harbour = Harbour::new();
    harbour.registry.offer("large", 4 << 20);
    harbour.registry.slow_down();

    let run = OnTerminal::of(&mut harbour.run("large", &[], "exit 0"), 100);
    run.wait_for(" MiB of ");

    let (code, _, screen) = run.ended();
    assert_eq!(code, 0, "{screen:?}");
    assert!(!screen.rows.iter().any(|row| row.contains(" MiB of ")));
}

#[test]
fn a_run_has_one_status_line_below_its_output_that_is_gone_at_the_end() {
    let workshop = Workshop::new();
    let long = "a line that is longer than forty columns, and is whole all the same";
    let script = format!("print {long}; wait-file go; print {long}; print last");

    for columns in [40, 12, 120] {
        let running = OnTerminal::of(&mut workshop.script(&[], &script), columns);
        running.wait_for("running");
        let shown = eventually("the line and the status below it", || {
            let screen = running.shows();
            let is_whole = screen.lines().iter().any(|line| line == long);
            (is_whole && screen.last().starts_with("running")).then_some(screen)
        });
        workshop.project.write("go", "");
        let (code, _, screen) = running.ended();
        fs::remove_file(workshop.project.path().join("go")).unwrap();

        assert_eq!(shown.wraps.last(), Some(&false), "{shown:?}");
        assert!(shown.last().chars().count() < usize::from(columns));
        let lines = screen.lines();
        assert_eq!(code, 0, "{lines:?}");
        let printed = lines.iter().filter(|line| *line == long).count();
        assert_eq!(
            (printed, lines.contains(&"last".to_owned())),
            (2, true),
            "{lines:?}"
        );
        for phase in ["running", "collecting", "starting", "creating"] {
            let left = lines.iter().find(|line| line.contains(phase));
            assert_eq!(left, None, "{lines:?}");
        }
    }
}

#[test]
fn runs_at_the_same_time_have_a_status_line_each_or_one_for_all() {
    let workshop = Workshop::new();
    let names = ["a.md", "b.md", "a-rather-long-name.md"];
    for name in names {
        workshop
            .project
            .write(name, for_agent("memory: 32m\n", "wait-file go"));
    }

    for (rows, told) in [
        (
            24,
            &[
                "[a.md] running",
                "[b.md] running",
                "[a-rather-long..] running",
            ][..],
        ),
        (4, &["s: 3 running"]),
    ] {
        let mut run = workshop.run(&["--jobs", "3"]);
        let running = OnTerminal::with_rows(run.args(names), 45, rows);
        for told in told {
            running.wait_for(told);
        }
        workshop.project.write("go", "");
        let (code, _, screen) = running.ended();
        fs::remove_file(workshop.project.path().join("go")).unwrap();

        let lines = screen.lines();
        assert_eq!(code, 0, "{lines:?}");
        let ends = lines.iter().filter(|line| line.contains("✔")).count();
        assert_eq!(ends, 3, "{lines:?}");
        let left = lines.iter().find(|line| line.contains("running"));
        assert_eq!(left, None, "{lines:?}");
    }
}

#[test]
fn an_interrupt_leaves_no_status_line_behind() {
    let workshop = Workshop::new();
    let running = OnTerminal::of(&mut workshop.script(&[], "write begun x; sleep 1h"), 80);
    wait_for(&workshop.project.path().join("begun"));
    running.wait_for("running");

    send(&running.child, Signal::SIGINT);
    let (code, _, screen) = running.ended();

    let lines = screen.lines();
    assert_eq!(code, 130, "{lines:?}");
    let told = "stopping the agent; once more kills it".to_owned();
    assert!(lines.contains(&told), "{lines:?}");
    for phase in ["running", "collecting"] {
        assert!(!lines.iter().any(|line| line.contains(phase)), "{lines:?}");
    }
    assert!(
        !lines.iter().any(|line| line.starts_with("stopping 0")),
        "{lines:?}"
    );
}

#[test]
fn the_status_line_is_drawn_anew_when_the_terminal_changes_its_size_and_not_a_second_later() {
    let workshop = Workshop::new();
    let mut running = OnTerminal::of(&mut workshop.script(&[], "wait-file go"), 60);
    running.wait_for("running");
    // What was drawn is not looked at: a terminal breaks it anew in ways of its own.
    let drawn = |running: &OnTerminal, from: usize| {
        let written = running.written().split_off(from);
        let (_, line) = written.rsplit_once("\x1b[J")?;
        Some(line.to_owned())
    };
    let seconds = |line: &str| -> Option<u64> {
        line.strip_prefix("running ")?
            .strip_suffix('s')?
            .parse()
            .ok()
    };
    let first = eventually("a time", || seconds(&drawn(&running, 0)?));
    let mut last = first;

    for _ in 0..15 {
        let from = running.written().len();
        running.resize(8);
        eventually("the line for 8 columns", || {
            let line = drawn(&running, from)?;
            (line.starts_with("run") && line.chars().count() < 8).then_some(())
        });
        let from = running.written().len();
        running.resize(60);
        last = eventually("the line for 60 columns", || {
            seconds(&drawn(&running, from)?)
        });
    }
    workshop.project.write("go", "");
    let code = running.code();

    assert_eq!(code, 0);
    // By the times that it shows itself; with one drawing a second it would take half a minute.
    assert!(last - first < 20, "{first}, {last}");
}

#[test]
fn a_panic_takes_the_status_line_away_and_is_read_on_a_line_of_its_own() {
    let workshop = Workshop::new();
    let mut run = workshop.script(&[], "print hello; wait-file go");
    run.env("FAILPOINTS", "store.collecting.before=panic(the sky fell)");
    run.env("RUST_BACKTRACE", "0");
    let running = OnTerminal::of(&mut run, 80);
    running.wait_for("running");

    workshop.project.write("go", "");
    let (code, _, screen) = running.ended();

    assert_eq!(Ended::of(&mut workshop.command(&["recover"])).code, 0);

    let lines = screen.lines();
    assert_ne!(code, 0, "{lines:?}");
    assert!(lines.contains(&"hello".to_owned()), "{lines:?}");
    assert!(
        lines.iter().any(|line| line.ends_with("the sky fell")),
        "{lines:?}"
    );
    for phase in ["running 0", "collecting"] {
        assert!(!lines.iter().any(|line| line.contains(phase)), "{lines:?}");
    }
}

#[test]
fn a_terminal_that_takes_nothing_holds_up_neither_the_run_nor_its_end() {
    let workshop = Workshop::new();
    let running = OnTerminal::unread(&mut workshop.script(&[], "spew 1m; append ends.txt x"));

    let code = running.code();

    assert_eq!(code, 0);
    assert_eq!(workshop.project.read("ends.txt"), "x");
}

#[test]
fn a_pipe_a_dumb_terminal_and_ci_get_lines_without_escapes_and_no_status() {
    let workshop = Workshop::new();
    let script = "print one; stderr two";
    let lines = |text: &str| {
        let lines = text.lines().map(|line| line.trim_end().to_owned());
        lines
            .filter(|line| line.starts_with("run ") || line == "one")
            .count()
    };

    let pipe = Ended::of(&mut workshop.script(&[], script));
    let (mut on_dumb, mut in_ci) = (workshop.script(&[], script), workshop.script(&[], script));
    let (_, dumb, _) = OnTerminal::of(on_dumb.env("TERM", "dumb"), 40).ended();
    let (_, ci, _) = OnTerminal::of(in_ci.env("CI", "true"), 40).ended();
    let quiet = Ended::of(&mut workshop.script(&["--quiet"], script));

    let piped = format!("{}{}", pipe.stderr, pipe.stdout);
    for text in [&piped, &dumb] {
        assert!(!text.contains('\x1b'), "{text:?}");
        assert_eq!(lines(text), 2, "{text}");
    }
    // Colours are for CI to show; nothing moves there.
    assert!(!ci.contains("\x1b[J") && !ci.contains("running"), "{ci:?}");
    assert_eq!(quiet.stderr, "");
    assert!(quiet.stdout.starts_with("✔"), "{}", quiet.stdout);
}

#[test]
fn an_error_on_a_terminal_shows_the_place_in_the_words_of_a_pipe_and_fits() {
    let workshop = Workshop::new();
    let bad = format!(
        "---\nmemory: 8\u{1b}]0;x\u{7}x{}\n---\nDo it.\n",
        "y".repeat(90)
    );
    workshop.project.write("bad.md", bad);
    let refused = || workshop.command(&["run", "bad.md"]);

    let pipe = Ended::of(&mut refused());
    for columns in [40, 80] {
        let (code, written, screen) = OnTerminal::of(&mut refused(), columns).ended();

        assert_eq!(code, 2, "{screen:?}");
        assert!(
            screen.rows[0].starts_with("  error: this is not"),
            "{screen:?}"
        );
        assert!(
            screen.rows.iter().any(|row| row.contains("bad.md:2:9")),
            "{screen:?}"
        );
        assert!(
            screen.rows.iter().any(|row| row.contains("│ memory: 8")),
            "{screen:?}"
        );
        assert!(!screen.wraps.contains(&true), "{screen:?}");
        assert!(
            !written.contains("\x1b]") && !written.contains('\u{7}'),
            "{written:?}"
        );
        assert!(written.contains("\x1b["), "{written:?}");
    }
    assert!(
        pipe.stderr
            .starts_with("error: bad.md:2:9: this is not valid YAML"),
        "{}",
        pipe.stderr
    );
    assert!(!pipe.stderr.contains('\x1b'), "{:?}", pipe.stderr);
}

#[test]
fn no_color_takes_the_colours_away_and_clicolor_force_brings_them_into_a_pipe() {
    let workshop = Workshop::new();
    workshop
        .project
        .write("bad.md", "---\nmemory: 8x\n---\nDo it.\n");
    let refused = || workshop.command(&["run", "bad.md"]);

    let (_, plain, _) = OnTerminal::of(refused().env("NO_COLOR", "1"), 80).ended();
    let forced = Ended::of(refused().env("CLICOLOR_FORCE", "1"));

    assert!(
        plain.contains("memory: 8x") && !plain.contains('\x1b'),
        "{plain:?}"
    );
    assert!(forced.stderr.contains("\x1b["), "{:?}", forced.stderr);
}
