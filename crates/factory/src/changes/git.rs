//! The host's git, run so that nothing an agent wrote is executed.
//!
//! Owns: a git folder of ours, git's whole environment, the time limit and the limits of its output.
//! Reads: the project's files, and objects of the project's as data.
//! Never: lets git read the configuration, the hooks or the attributes of a project.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use dark_factory_executor::host::HostView;
use dark_factory_executor::recorder::Touched;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout_at};

/// The most that is kept of what one git prints: the list of a million files.
const OUTPUT: u64 = 256 << 20;

/// The most that is kept of what git says is wrong.
const COMPLAINT: u64 = 1000;

/// What our git folder says about itself. No filter, driver, hook, pager or program is named here, so that attributes
/// of the project have nothing to name.
const CONFIG: &str = "\
[core]
\tbare = false
\tfileMode = true
\tsymlinks = true
\tignoreCase = false
\tprotectNTFS = false
\tautocrlf = false
\tattributesFile = /dev/null
\thooksPath = /dev/null
\tfsmonitor = false
\tuntrackedCache = false
\tsplitIndex = false
\tsparseCheckout = false
\tcompression = 1
\tfsync = none
[gc]
\tauto = 0
[diff]
\trenameLimit = 1000
[submodule]
\trecurse = false
";

/// Turns all conversions off, over whatever the project's own attributes say: bytes are hashed as they are.
const RAW_BYTES: &str =
    "* -text !eol !crlf -ident -filter -working-tree-encoding !diff !whitespace\n";

/// Why git did not do something.
#[derive(Debug, thiserror::Error)]
pub(super) enum GitError {
    /// There is no git on this machine that may be used.
    #[error("there is no git in PATH outside of what the agent can write to")]
    Missing,
    /// It could not be started, or its files could not be used.
    #[error("git cannot {operation}: {source}")]
    Io {
        /// What it was to do.
        operation: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
    /// It took too long.
    #[error("git did not {operation} in time")]
    TimedOut {
        /// What it was to do.
        operation: &'static str,
    },
    /// It printed too much.
    #[error("git printed more than {OUTPUT} bytes to {operation}")]
    TooMuch {
        /// What it was to do.
        operation: &'static str,
    },
    /// It said no.
    #[error("git cannot {operation}: {complaint}")]
    Failed {
        /// What it was to do.
        operation: &'static str,
        /// Its own words.
        complaint: String,
    },
}

/// How object ids of a repository are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ObjectFormat {
    Sha1,
    Sha256,
}

/// Makes a git folder of ours at `dir`, which is there and empty.
pub(super) fn init(dir: &Path, format: ObjectFormat, excludes: &[u8]) -> io::Result<()> {
    for folder in ["objects/info", "objects/pack", "refs", "info"] {
        fs::create_dir_all(dir.join(folder))?;
    }
    fs::write(dir.join("HEAD"), "ref: refs/heads/none\n")?;
    fs::write(dir.join("excludes"), excludes)?;
    fs::write(dir.join("info/attributes"), RAW_BYTES)?;
    let format = match format {
        ObjectFormat::Sha1 => "[core]\n\trepositoryFormatVersion = 0\n",
        ObjectFormat::Sha256 => {
            "[core]\n\trepositoryFormatVersion = 1\n[extensions]\n\tobjectFormat = sha256\n"
        }
    };
    fs::write(dir.join("config"), format!("{CONFIG}{format}"))
}

/// The git of one attempt, until a deadline.
#[derive(Debug, Clone)]
pub(super) struct Git {
    program: PathBuf,
    dir: PathBuf,
    workspace: PathBuf,
    /// The project's own objects.
    objects: PathBuf,
    deadline: Instant,
}

impl Git {
    /// Uses the first git in the host's `PATH` that no agent can have put there.
    pub(super) fn find(
        host: &HostView,
        dir: &Path,
        touched: &Touched,
        objects: &Path,
        deadline: Instant,
    ) -> Result<Self, GitError> {
        Ok(Self {
            program: program(host, touched).ok_or(GitError::Missing)?,
            dir: dir.to_owned(),
            workspace: touched.workspace.clone(),
            objects: objects.to_owned(),
            deadline,
        })
    }

    /// Returns when everything has to be done.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Prepares one call; `operation` completes "git cannot …".
    pub(super) fn call(&self, operation: &'static str, index: &Path) -> Call {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("GIT_DIR", &self.dir)
            .env("GIT_WORK_TREE", &self.workspace)
            .env("GIT_INDEX_FILE", index)
            .env("GIT_OBJECT_DIRECTORY", self.dir.join("objects"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LC_ALL", "C")
            .current_dir(&self.workspace)
            .arg("-c")
            .arg(config("core.excludesFile", &self.dir.join("excludes")))
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Call {
            command,
            operation,
            alternates: quoted(&self.objects),
            input: Input::None,
            deadline: self.deadline,
        }
    }
}

fn config(key: &str, path: &Path) -> OsString {
    let mut setting = OsString::from(format!("{key}="));
    setting.push(path);
    setting
}

/// Returns a path as `GIT_ALTERNATE_OBJECT_DIRECTORIES` takes it, colons and all.
fn quoted(path: &Path) -> OsString {
    let mut quoted = vec![b'"'];
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'"' | b'\\') {
            quoted.push(b'\\');
        }
        quoted.push(*byte);
    }
    quoted.push(b'"');
    OsString::from_vec(quoted)
}

/// Finds git; not in a relative folder or one that the agent can write to, where it could be the agent's.
fn program(host: &HostView, touched: &Touched) -> Option<PathBuf> {
    let writable = touched.mounts.iter().chain([&touched.workspace]);
    let writable: Vec<PathBuf> = writable
        .filter_map(|folder| folder.canonicalize().ok())
        .collect();
    let is_safe = |program: &Path| !writable.iter().any(|folder| program.starts_with(folder));
    let path = host.var("PATH").unwrap_or("/usr/local/bin:/usr/bin:/bin");
    path.split(':')
        .map(Path::new)
        .filter(|folder| folder.is_absolute())
        .filter_map(|folder| folder.join("git").canonicalize().ok())
        .find(|program| program.is_file() && is_safe(program))
}

/// One call of git, not made yet.
#[derive(Debug)]
pub(super) struct Call {
    command: Command,
    operation: &'static str,
    alternates: OsString,
    input: Input,
    deadline: Instant,
}

/// What a git reads.
#[derive(Debug)]
enum Input {
    None,
    Bytes(Vec<u8>),
    File(File),
}

impl Call {
    pub(super) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// Lets it read the project's objects too, in which an agent may have put anything.
    ///
    /// Not for a git that stores something: it writes the time of an object that it finds stored already.
    pub(super) fn with_project_objects(mut self) -> Self {
        let alternates = &self.alternates;
        self.command
            .env("GIT_ALTERNATE_OBJECT_DIRECTORIES", alternates);
        self
    }

    /// Gives it something to read.
    pub(super) fn input(mut self, input: Vec<u8>) -> Self {
        self.input = Input::Bytes(input);
        self
    }

    /// Gives it a file to read, from where it stands.
    pub(super) fn input_file(mut self, file: File) -> Self {
        self.input = Input::File(file);
        self
    }

    /// Runs it to its end and returns what it printed.
    ///
    /// Cancel-safe: dropping the future kills it.
    pub(super) async fn output(self) -> Result<Vec<u8>, GitError> {
        let operation = self.operation;
        let mut printed = Vec::new();
        let length = self.run(|chunk| {
            if (printed.len() + chunk.len()) as u64 <= OUTPUT {
                printed.extend_from_slice(chunk);
            }
            Ok(())
        });
        match length.await? {
            length if length > OUTPUT => Err(GitError::TooMuch { operation }),
            _ => Ok(printed),
        }
    }

    /// Runs it to its end and writes at most `limit` bytes of what it prints to a file; returns how much it printed.
    ///
    /// Cancel-safe: dropping the future kills it.
    pub(super) async fn into_file(self, file: &mut File, limit: u64) -> Result<u64, GitError> {
        let mut length = 0;
        self.run(|chunk| {
            length += chunk.len() as u64;
            match length <= limit {
                true => file.write_all(chunk),
                false => Ok(()),
            }
        })
        .await
    }

    async fn run(mut self, mut keep: impl FnMut(&[u8]) -> io::Result<()>) -> Result<u64, GitError> {
        let operation = self.operation;
        let failed = |source| GitError::Io { operation, source };
        let (stdin, input) = match self.input {
            Input::None => (Stdio::null(), Vec::new()),
            Input::Bytes(bytes) => (Stdio::piped(), bytes),
            Input::File(file) => (file.into(), Vec::new()),
        };
        let mut group = Group(self.command.stdin(stdin).spawn().map_err(failed)?);
        let ended = timeout_at(self.deadline, talk(&mut group.0, &input, &mut keep)).await;
        let (status, length, complaint) = match ended {
            Ok(result) => result.map_err(failed)?,
            Err(_) => return Err(GitError::TimedOut { operation }),
        };
        match status.success() {
            true => Ok(length),
            false => Err(GitError::Failed {
                operation,
                complaint: one_line(&complaint),
            }),
        }
    }
}

/// Returns what git says as one line; names of files in it may be an agent's.
fn one_line(complaint: &str) -> String {
    let lines: Vec<&str> = complaint.lines().map(str::trim).collect();
    let shown = |char: char| match char {
        ' '..='~' => char,
        _ => '?',
    };
    lines.join("; ").chars().map(shown).collect()
}

/// Writes to git, reads what it prints, and waits for its end; returns how it ended, how much it printed, and what it
/// complained about.
async fn talk(
    child: &mut Child,
    input: &[u8],
    keep: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<(ExitStatus, u64, String)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // One that does not want it all says why on its standard error.
            let _written = stdin.write_all(input).await;
        }
    };
    let mut complaint = Vec::new();
    let complain = drain(stderr, |chunk| {
        if (complaint.len() as u64) < COMPLAINT {
            complaint.extend_from_slice(chunk);
        }
        Ok(())
    });
    let ((), length, complained) = tokio::join!(write, drain(stdout, keep), complain);
    complained?;
    let status = child.wait().await?;
    complaint.truncate(usize::try_from(COMPLAINT).unwrap_or(usize::MAX));
    Ok((
        status,
        length?,
        String::from_utf8_lossy(&complaint).into_owned(),
    ))
}

/// Reads a stream to its end, and returns its length.
async fn drain(
    stream: Option<impl AsyncRead + Unpin>,
    mut keep: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<u64> {
    let Some(mut stream) = stream else {
        return Ok(0);
    };
    let mut buffer = vec![0; 1 << 16];
    let mut length = 0;
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(length),
            read => {
                keep(&buffer[..read])?;
                length += read as u64;
            }
        }
    }
}

/// A git and whatever it has started, which end with this value.
#[derive(Debug)]
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        let pid = self.0.id().and_then(|id| i32::try_from(id).ok());
        // One that was waited for has no id any more.
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            let _killed = kill_process_group(pid, Signal::KILL);
        }
    }
}
