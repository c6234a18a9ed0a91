//! Runs a script.
//!
//! Owns: the agent's stdout, its memory, and its exit status.
//! Reads: whatever the script names.
//! Never: stops at a command that failed, as a shell would not: the failure shows in the exit status.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command as Process, Stdio, exit};
use std::thread;
use std::time::Duration;

use dark_factory_init::{write_long_line, write_spew};
use nix::sys::signal::{SigSet, Signal, raise};

use super::claude::Session;
use super::parse::{Claim, Command};
use super::{files, read_prompt, tamper};

const WAIT_PAUSE: Duration = Duration::from_millis(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Memory is taken in pieces, so that a limit is met while touching it.
const ALLOCATION_PIECE: usize = 1 << 20;

/// What a command means for the script.
enum Next {
    Command,
    Exit(u8),
}

/// The scripted agent.
pub(super) struct Agent {
    prompt: Option<Vec<u8>>,
    held: Vec<Vec<u8>>,
    status: u8,
    failed_checks: Vec<String>,
    session: Option<Session>,
}

impl Agent {
    /// Makes an agent; `prompt` is what was read already.
    pub(super) fn new(prompt: Option<Vec<u8>>) -> Self {
        Self {
            prompt,
            held: Vec::new(),
            status: 0,
            failed_checks: Vec::new(),
            session: None,
        }
    }

    /// Runs the commands; returns the exit status: the script's, else 1 after any failure, else 0.
    pub(super) fn run(mut self, commands: &[Command]) -> u8 {
        for command in commands {
            match self.step(command) {
                Ok(Next::Command) => {}
                Ok(Next::Exit(code)) => return code,
                // Nobody reads our output any more.
                Err(_) => return 1,
            }
        }
        self.status
    }

    fn step(&mut self, command: &Command) -> io::Result<Next> {
        match command {
            Command::Exit(code) => return Ok(Next::Exit(*code)),
            Command::Print(text) => print_line(text)?,
            Command::PrintRaw(text) => print(text.as_bytes())?,
            Command::Stderr(text) => writeln!(io::stderr(), "{text}")?,
            Command::Bytes(bytes) => print(bytes)?,
            Command::Sleep(time) => thread::sleep(*time),
            Command::KillSelf(signal) => self.note("kill-self", kill_self(*signal)),
            Command::IgnoreTerm => self.note("ignore-term", term().thread_block()),
            Command::OnTermExit(code) => {
                let waiting = exit_on_term(*code);
                self.note("on-term", waiting);
            }
            Command::Allocate(size) => self.allocate(*size),
            Command::Fork(script) => self.note("fork", fork(script)),
            Command::Spew { size, line_length } => {
                let mut out = io::stdout().lock();
                write_spew(&mut out, *size, *line_length)?;
                // A last line that was cut.
                out.flush()?;
            }
            Command::Line(size) => buffered(|out| write_long_line(out, *size))?,
            Command::Replay { path, delay } => match File::open(path) {
                Ok(file) => replay(file, *delay)?,
                Err(error) => self.fail(&format!("cannot replay {}: {error}", path.display())),
            },
            Command::Env(name) => match std::env::var_os(name) {
                Some(value) => print_line(&value.to_string_lossy())?,
                None => print_line(&format!("{name} is not set"))?,
            },
            Command::Prompt => {
                let prompt = self.prompt.get_or_insert_with(read_prompt);
                print(prompt)?;
            }
            Command::Pwd => match std::env::current_dir() {
                Ok(folder) => print_line(&folder.to_string_lossy())?,
                Err(error) => self.fail(&format!("cannot tell the working directory: {error}")),
            },
            Command::Id => print_line(&identity())?,
            Command::Ls(path) => match list(path) {
                Ok(names) => names.iter().try_for_each(|name| print_line(name))?,
                Err(error) => self.fail(&format!("cannot list {}: {error}", path.display())),
            },
            Command::WaitFile(path) => {
                while !path.exists() {
                    thread::sleep(WAIT_PAUSE);
                }
            }
            Command::Connect(address) => match connect(address) {
                Ok(()) => print_line(&format!("connect {address} ok"))?,
                Err(error) => print_line(&format!("connect {address} refused: {error}"))?,
            },
            Command::Tamper => match tamper::run() {
                Ok(lines) => lines.iter().try_for_each(|line| print_line(line))?,
                Err(error) => self.fail(&error),
            },
            Command::Begin => {
                self.session()?;
            }
            Command::Say(text) => {
                let line = self.session()?.say(text);
                print_line(&line)?;
            }
            Command::Thinking(text) => {
                let line = self.session()?.thinking(text);
                print_line(&line)?;
            }
            Command::Result { claim, summary } => return self.finish(*claim, summary),
            Command::Error { status, message } => {
                let lines = self.session()?.error(*status, message);
                lines.iter().try_for_each(|line| print_line(line))?;
                return Ok(Next::Exit(1));
            }
            Command::Write { .. }
            | Command::Append { .. }
            | Command::Edit { .. }
            | Command::Read(_)
            | Command::Check { .. } => self.file_command(command)?,
        }
        Ok(Next::Command)
    }

    /// Returns the conversation, which begins with its first event.
    fn session(&mut self) -> io::Result<&mut Session> {
        if self.session.is_none() {
            let (session, line) = Session::begin();
            print_line(&line)?;
            self.session = Some(session);
        }
        self.session
            .as_mut()
            .ok_or_else(|| io::Error::other("no session"))
    }

    fn file_command(&mut self, command: &Command) -> io::Result<()> {
        if let Some(line) = self
            .session
            .as_mut()
            .and_then(|session| session.tool_use(command))
        {
            print_line(&line)?;
        }
        let Some(answer) = files::perform(command) else {
            return Ok(());
        };
        match (&self.session, &answer) {
            (Some(session), answer) => print_line(&session.tool_result(command, answer))?,
            (None, Ok(content)) if matches!(command, Command::Read(_)) => print(content)?,
            (None, _) => {}
        }
        if let Err(error) = answer {
            if let Command::Check { .. } = command {
                self.failed_checks.push(error.clone());
            }
            self.fail(&error);
        }
        Ok(())
    }

    fn finish(&mut self, claim: Claim, summary: &str) -> io::Result<Next> {
        let blockers = std::mem::take(&mut self.failed_checks);
        let session = self.session()?;
        let lines = match (claim, blockers.first()) {
            (Claim::Success, Some(blocker)) => session.result(
                Claim::Failed,
                &format!("A check failed: {blocker}"),
                &blockers,
            ),
            _ => session.result(claim, summary, &blockers),
        };
        lines.iter().try_for_each(|line| print_line(line))?;
        Ok(Next::Exit(0))
    }

    fn allocate(&mut self, size: u64) {
        let mut left = size;
        while left > 0 {
            let piece =
                usize::try_from(left).map_or(ALLOCATION_PIECE, |left| left.min(ALLOCATION_PIECE));
            // Not zero: zeroed memory would not be touched.
            self.held.push(vec![1; piece]);
            left -= u64::try_from(piece).unwrap_or(left);
        }
    }

    fn note<E: std::fmt::Display>(&mut self, command: &str, result: Result<(), E>) {
        if let Err(error) = result {
            self.fail(&format!("{command}: {error}"));
        }
    }

    fn fail(&mut self, message: &str) {
        // A script's stderr may be closed on purpose.
        let _said = writeln!(io::stderr(), "{message}");
        self.status = 1;
    }
}

fn print_line(text: &str) -> io::Result<()> {
    let mut line = String::with_capacity(text.len() + 1);
    line.push_str(text);
    line.push('\n');
    print(line.as_bytes())
}

fn print(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

fn buffered(
    write: impl FnOnce(&mut BufWriter<io::StdoutLock<'_>>) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    write(&mut out)?;
    out.flush()
}

fn replay(file: File, delay: Duration) -> io::Result<()> {
    let mut lines = BufReader::new(file);
    if delay.is_zero() {
        return buffered(|out| io::copy(&mut lines, out).map(drop));
    }
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        print(&line)?;
        line.clear();
        thread::sleep(delay);
    }
    Ok(())
}

fn kill_self(signal: Signal) -> nix::Result<()> {
    raise(signal)?;
    if [Signal::SIGSEGV, Signal::SIGBUS].contains(&signal) {
        // The first went to the runtime's stack guard, which only restores the default.
        raise(signal)?;
    }
    Ok(())
}

fn term() -> SigSet {
    SigSet::from_iter([Signal::SIGTERM])
}

/// Ends the process with `code` when SIGTERM comes.
#[expect(
    clippy::exit,
    reason = "the script asked for this exit, from whatever it is doing"
)]
fn exit_on_term(code: u8) -> nix::Result<()> {
    term().thread_block()?;
    thread::spawn(move || {
        if term().wait().is_ok() {
            exit(i32::from(code));
        }
    });
    Ok(())
}

/// Starts another process of this program that runs `script`; it is left to itself.
fn fork(script: &str) -> io::Result<()> {
    Process::new("/proc/self/exe")
        .args(["agent", "-e", script])
        .stdin(Stdio::null())
        .spawn()
        .map(drop)
}

/// Connects to `HOST:PORT`, where the host is an address or a name in `/etc/hosts`.
///
/// The C library's resolver is left out: it would make the static helper a tenth larger.
fn connect(address: &str) -> io::Result<()> {
    let unknown = || io::Error::other("the host is no address and not in /etc/hosts");
    let target = match address.parse() {
        Ok(target) => target,
        Err(_) => {
            let (host, port) = address.rsplit_once(':').ok_or_else(unknown)?;
            let ip = host_address(&fs::read_to_string("/etc/hosts")?, host).ok_or_else(unknown)?;
            SocketAddr::new(ip, port.parse().map_err(io::Error::other)?)
        }
    };
    TcpStream::connect_timeout(&target, CONNECT_TIMEOUT).map(drop)
}

fn host_address(hosts: &str, name: &str) -> Option<IpAddr> {
    hosts.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?;
        words
            .any(|word| word == name)
            .then(|| address.parse().ok())?
    })
}

fn list(path: &Path) -> io::Result<Vec<String>> {
    let mut names = fs::read_dir(path)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// Describes who the agent is and what it may do.
fn identity() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .and_then(|rest| rest.split_whitespace().next())
            .unwrap_or("?")
    };
    format!(
        "uid={} gid={} cap_eff={} no_new_privs={}",
        field("Uid"),
        field("Gid"),
        field("CapEff"),
        field("NoNewPrivs")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_found_by_any_of_its_names() {
        let hosts = "# 1.1.1.1 b\n127.0.0.1 localhost\n172.17.0.1\ta b # c\n";

        assert_eq!(
            host_address(hosts, "b"),
            Some(IpAddr::from([172, 17, 0, 1]))
        );
        assert_eq!(host_address(hosts, "c"), None);
    }
}
