//! One process of the product, with its fault.
//!
//! Owns: its life, the files that its output goes to, and noticing that it hangs where it was told to.
//! Reads: its standard error, where reached fail points are traced.
//! Never: outlives its value.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::schedule::{Effect, Fault};

const GLANCE: Duration = Duration::from_millis(4);
/// How long a process may take; one that takes longer is stuck where nobody told it to be.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a process must be silent after it reached the point at which it hangs.
const QUIET: Duration = Duration::from_millis(60);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal: it was killed by its fault, or by us.
    Killed,
    /// By us, because it did not end.
    Stuck,
}

/// What became of a process.
#[derive(Debug, Clone)]
pub struct Ended {
    /// How it ended.
    pub how: How,
    /// What it printed to standard output.
    pub stdout: String,
    /// What it printed to standard error, traces included.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
    /// Whether its fault came to pass.
    pub struck: bool,
}

impl Ended {
    /// Returns the fail points that it reached, in order, one for each hit.
    pub fn reached(&self) -> Vec<&str> {
        reached(&self.stderr).collect()
    }
}

fn reached(stderr: &str) -> impl Iterator<Item = &str> {
    stderr.lines().filter_map(|line| {
        let (_, point) = line.split_once("TRACE point=")?;
        point.split_whitespace().next()
    })
}

/// A running process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    began: Instant,
    stdout: PathBuf,
    stderr: PathBuf,
    fault: Fault,
}

impl Process {
    /// Starts a command of the product with a fault; its output and its command line go to files that begin with `files`.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn start(command: &mut Command, fault: &Fault, files: &Path) -> Self {
        let file = |ending: &str| files.with_extension(ending);
        let create = |path: &Path| File::create(path).expect("a file of the test");
        let (stdout, stderr) = (file("stdout"), file("stderr"));
        command
            .env_remove("FAILPOINTS")
            .env("RUST_LOG", "warn,failpoint=trace");
        if let Some(points) = fault.variable() {
            command.env("FAILPOINTS", points);
        }
        fs::write(file("command"), format!("{command:?}\n{fault}\n")).expect("a file of the test");
        let child = command
            .stdin(Stdio::null())
            .stdout(create(&stdout))
            .stderr(create(&stderr))
            .spawn()
            .expect("the binary can be started");
        Self {
            child,
            began: Instant::now(),
            stdout,
            stderr,
            fault: fault.clone(),
        }
    }

    /// Waits for its end, bringing it about where its fault says so; `begun` is the file that the agent makes.
    ///
    /// # Panics
    ///
    /// If it is not our child.
    pub fn ended(self, begun: &Path) -> Ended {
        self.ended_within(PATIENCE, begun, || {})
    }

    /// Waits for its end as [`Process::ended`] does, but for so long, and does something now and then meanwhile.
    ///
    /// # Panics
    ///
    /// If it is not our child.
    pub fn ended_within(
        mut self,
        patience: Duration,
        begun: &Path,
        mut meanwhile: impl FnMut(),
    ) -> Ended {
        let mut hanging: Option<(u64, Instant)> = None;
        let how = loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                break status.code().map_or(How::Killed, How::Exited);
            }
            let ran = self.began.elapsed();
            let is_due = match &self.fault {
                Fault::KillAfter(time) => ran >= *time,
                Fault::KillOnceBegun => begun.exists(),
                Fault::Point {
                    effect: Effect::Hang,
                    ..
                } => self.hangs(&mut hanging),
                Fault::None | Fault::Point { .. } => false,
            };
            if is_due || ran >= patience {
                // It may end by itself in this moment.
                let _killed = self.child.kill();
                let status = self.child.wait().expect("it is our child");
                break match status.code() {
                    Some(code) => How::Exited(code),
                    None if is_due => How::Killed,
                    None => How::Stuck,
                };
            }
            meanwhile();
            thread::sleep(GLANCE);
        };
        let stderr = text(&self.stderr);
        let struck = match &self.fault {
            Fault::None => false,
            Fault::Point { point, hit, .. } => {
                reached(&stderr).filter(|reached| reached == point).count() >= *hit
            }
            Fault::KillAfter(_) | Fault::KillOnceBegun => how == How::Killed,
        };
        Ended {
            how,
            stdout: text(&self.stdout),
            stderr,
            took: self.began.elapsed(),
            struck,
        }
    }

    /// Returns whether it reached the point at which it hangs, and has been silent since.
    fn hangs(&self, since: &mut Option<(u64, Instant)>) -> bool {
        let length = fs::metadata(&self.stderr).map_or(0, |file| file.len());
        match since {
            Some((known, _)) if *known == length => {}
            _ => *since = Some((length, Instant::now())),
        }
        let Some((_, at)) = since else { return false };
        if at.elapsed() < QUIET {
            return false;
        }
        let Fault::Point { point, hit, .. } = &self.fault else {
            return false;
        };
        let stderr = text(&self.stderr);
        reached(&stderr).filter(|reached| reached == point).count() >= *hit
    }

    /// Returns the process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it as a crash does.
    ///
    /// # Panics
    ///
    /// If it is not our child.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _killed = self.child.kill();
        self.child.wait().expect("it is our child");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended, unless the test gave up on it.
        let _killed = self.child.kill();
        let _waited = self.child.wait();
    }
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
