//! A small supervisor: hands a spool to the helper and reads back what it recorded.
//!
//! Owns: the helper's process, its folder, its spool.
//! Reads: the spool.
//! Never: writes to the spool.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dark_factory_spool::{
    Decoded, ExecFailed, ExitRecord, HANDOVER_VERSION, Header, Kind, Stream, decode,
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tempfile::TempDir;

/// The program under test.
pub(crate) const HELPER: &str = env!("CARGO_BIN_EXE_dark-factory-init");
/// Id of every attempt here.
pub(crate) const ID: &str = "k3v9x2m7qa1b-1";
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns the arguments that make the helper run a script.
pub(crate) fn script(text: &str) -> Vec<OsString> {
    [HELPER, "agent", "-e", text].map(OsString::from).to_vec()
}

/// Returns the arguments that make a shell run `text`, with the helper as `$1`.
pub(crate) fn shell(text: &str) -> Vec<OsString> {
    ["sh", "-c", text, "sh", HELPER]
        .map(OsString::from)
        .to_vec()
}

/// A helper about to be started.
pub(crate) struct Launch {
    folder: TempDir,
    spool: PathBuf,
    command: Command,
}

impl Launch {
    /// Prepares a run of `argv`.
    pub(crate) fn new(argv: &[OsString]) -> Self {
        Self::with_options(&[], argv)
    }

    /// Prepares a run of `argv` with more options for the helper.
    pub(crate) fn with_options(options: &[&str], argv: &[OsString]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(HELPER);
        command
            .args(["run", "--id", ID, "--socket"])
            .arg(folder.path().join("socket"))
            .args(options)
            .arg("--")
            .args(argv);
        let mut launch = Self {
            spool: folder.path().join("spool"),
            folder,
            command,
        };
        launch.connect_streams();
        launch
    }

    /// Puts the spool somewhere else.
    pub(crate) fn spool_at(mut self, path: PathBuf) -> Self {
        self.spool = path;
        self
    }

    /// Sets a variable of the helper's environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Has the helper started by a shell that first runs `preparation`, in a mount namespace that nobody else is in.
    pub(crate) fn in_mounts_of_its_own(self, preparation: &str) -> Self {
        let script = format!("{preparation} && exec \"$@\"");
        self.started_by(&["unshare", "-m", "sh", "-c", &script, "sh"])
    }

    /// Has the helper started by a program with these arguments, its own behind them.
    pub(crate) fn started_by(mut self, starter: &[&str]) -> Self {
        let mut command = Command::new(starter[0]);
        command
            .args(&starter[1..])
            .arg(self.command.get_program())
            .args(self.command.get_args());
        self.command = command;
        self.connect_streams();
        self
    }

    fn connect_streams(&mut self) {
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    }

    /// Returns the run's folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts the helper and hands it nothing.
    pub(crate) fn start_alone(mut self) -> Running {
        Running {
            child: self.command.spawn().unwrap(),
            spool: self.spool,
            folder: self.folder,
        }
    }

    /// Starts the helper and hands it the spool.
    pub(crate) fn start(self) -> Running {
        let running = self.start_alone();
        let spool = append_only(&running.spool);
        running.hand_over(HANDOVER_VERSION, &spool);
        running
    }

    /// Starts the helper, hands it the spool, and waits for its end.
    pub(crate) fn run(self) -> Recorded {
        self.start().finish()
    }
}

/// Sends one handover message to a helper that has connected.
pub(crate) fn send(stream: &UnixStream, version: u8, files: &[File]) {
    let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let message = [version];
    sendmsg(
        stream,
        &[IoSlice::new(&message)],
        &mut control,
        SendFlags::empty(),
    )
    .unwrap();
}

/// Creates a spool: the records, and the files of both streams beside them.
pub(crate) fn append_only(path: &Path) -> [File; 3] {
    let [stdout, stderr] = streams(path);
    [path.to_owned(), stdout, stderr].map(|path| {
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap()
    })
}

/// Returns where the files of the streams are.
pub(crate) fn streams(spool: &Path) -> [PathBuf; 2] {
    ["stdout", "stderr"].map(|name| spool.with_extension(name))
}

/// A helper that runs.
pub(crate) struct Running {
    child: Child,
    spool: PathBuf,
    folder: TempDir,
}

impl Running {
    /// Listens and waits for the helper to connect.
    pub(crate) fn accept(&self) -> UnixStream {
        let path = self.folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let stream = patiently("the helper connects", || Some(listener.accept().ok()?.0));
        // A one-shot socket, as the real supervisor's.
        fs::remove_file(path).unwrap();
        stream
    }

    /// Sends one handover message.
    pub(crate) fn hand_over(&self, version: u8, files: &[File]) {
        send(&self.accept(), version, files);
    }

    /// Returns the spool's path.
    pub(crate) fn spool(&self) -> &Path {
        &self.spool
    }

    /// Sends the helper a signal by number.
    pub(crate) fn signal(&self, number: i32) {
        let status = Command::new("sh")
            .arg("-c")
            .arg(format!("kill -{number} {}", self.child.id()))
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits until the helper has taken every signal that it was sent.
    pub(crate) fn wait_until_signals_are_taken(&self) {
        let path = format!("/proc/{}/status", self.child.id());
        patiently("the helper takes its signals", || {
            let status = fs::read_to_string(&path).ok()?;
            status.contains("ShdPnd:\t0000000000000000").then_some(())
        });
    }

    /// Waits until the recorded stdout contains `text`; returns all of it.
    pub(crate) fn wait_for_output(&self, text: &str) -> String {
        patiently(text, || {
            let recording = Recording::read(&self.spool);
            let output = String::from_utf8_lossy(&recording.output[0]).into_owned();
            output.contains(text).then_some(output)
        })
    }

    /// Waits until the spool holds `count` records of `kind`.
    pub(crate) fn wait_for_records(&self, kind: Kind, count: usize) {
        patiently(&format!("{count} records {kind:?}"), || {
            let recording = Recording::read(&self.spool);
            (recording.count(kind) >= count).then_some(())
        });
    }

    /// Waits until at least `length` bytes of stdout are written.
    pub(crate) fn wait_for_length(&self, length: u64) {
        let deadline = Instant::now() + PATIENCE;
        while fs::metadata(&streams(&self.spool)[0]).map_or(0, |data| data.len()) < length {
            assert!(Instant::now() < deadline, "the spool does not grow");
            thread::yield_now();
        }
    }

    /// Kills the helper itself, and nothing else.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    /// Returns whether the helper still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Reads the helper's copy of both streams, as the engine does, to their ends.
    pub(crate) fn read_copies(&mut self) -> [JoinHandle<String>; 2] {
        fn read(pipe: impl Read + Send + 'static) -> JoinHandle<String> {
            thread::spawn(move || io::read_to_string(pipe).unwrap())
        }
        let stdout = read(self.child.stdout.take().unwrap());
        [stdout, read(self.child.stderr.take().unwrap())]
    }

    /// Waits for the helper's end and reads the spool.
    pub(crate) fn finish(mut self) -> Recorded {
        let child = &mut self.child;
        let status = patiently("the helper ends", || child.try_wait().unwrap());
        let mut stderr = Vec::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            pipe.read_to_end(&mut stderr).unwrap();
        }
        Recorded {
            code: status.code(),
            message: String::from_utf8_lossy(&stderr).into_owned(),
            recording: Recording::read(&self.spool),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only after a failed assertion is there anything left to kill.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Looks again and again until there is something to see.
pub(crate) fn patiently<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// What came of a run.
pub(crate) struct Recorded {
    /// The helper's exit status.
    pub(crate) code: Option<i32>,
    /// What the helper's own stderr held, unless it was read before: its copy of the agent's, and its message.
    pub(crate) message: String,
    /// What the spool holds.
    pub(crate) recording: Recording,
}

impl Recorded {
    /// Returns the recorded stdout.
    pub(crate) fn stdout(&self) -> &[u8] {
        &self.recording.output[0]
    }

    /// Returns the recorded stderr.
    pub(crate) fn stderr(&self) -> &[u8] {
        &self.recording.output[1]
    }

    /// Returns the recorded stdout as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(self.stdout()).into_owned()
    }

    /// Returns the exit record, which must agree with the rest of the spool.
    pub(crate) fn exit(&self) -> &ExitRecord {
        let exit = self.recording.exit.as_ref().expect("an exit record");
        for stream in Stream::ALL {
            let recorded = self.recording.output[stream.index()].len();
            assert_eq!(
                exit.totals[stream.index()],
                u64::try_from(recorded).unwrap()
            );
            assert_eq!(
                exit.eof[stream.index()],
                self.recording.ended[stream.index()]
            );
        }
        assert_eq!(self.recording.rest, 0, "bytes behind the exit record");
        exit
    }
}

/// A decoded spool.
#[derive(Default)]
pub(crate) struct Recording {
    /// The bytes of both streams.
    pub(crate) output: [Vec<u8>; 2],
    /// Streams that have an end record.
    pub(crate) ended: [bool; 2],
    /// The kinds of all records, in order.
    pub(crate) kinds: Vec<Kind>,
    /// The exit record.
    pub(crate) exit: Option<ExitRecord>,
    /// The failed execution.
    pub(crate) exec_failed: Option<ExecFailed>,
    /// Bytes at the end that are the beginning of a record.
    pub(crate) rest: usize,
}

impl Recording {
    /// Returns how many records of `kind` there are.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.kinds.iter().filter(|&&found| found == kind).count()
    }

    /// Decodes a spool, of which there may be nothing yet; whatever is not contiguous fails the test.
    pub(crate) fn read(spool: &Path) -> Self {
        let mut recording = Self::default();
        let records = fs::read(spool).unwrap_or_default();
        // After the records, which speak of nothing that is not there.
        let streams = streams(spool).map(|path| fs::read(path).unwrap_or_default());
        let mut rest = &records[..];
        let mut last_monotonic = 0;
        while let Decoded::Record {
            header,
            payload,
            consumed,
        } = decode(rest)
        {
            assert_eq!(header.id.as_str(), ID);
            assert!(header.stamp.monotonic_ns >= last_monotonic);
            assert!(header.stamp.wall_ns > 1_700_000_000_000_000_000);
            last_monotonic = header.stamp.monotonic_ns;
            if header.kind == Kind::Data {
                let place = usize::try_from(header.offset).unwrap();
                let length = usize::try_from(header.len).unwrap();
                let printed = &streams[header.stream.index()][place..place + length];
                assert!(header.matches(printed), "not the bytes that were recorded");
                recording.add(header, printed);
            } else {
                recording.add(header, payload);
            }
            rest = &rest[consumed..];
        }
        assert!(
            matches!(decode(rest), Decoded::Partial { .. }),
            "bytes that no helper wrote"
        );
        recording.rest = rest.len();
        recording
    }

    fn add(&mut self, header: Header, payload: &[u8]) {
        self.kinds.push(header.kind);
        let index = header.stream.index();
        let so_far = u64::try_from(self.output[index].len()).unwrap();
        assert_eq!(header.offset, so_far, "a gap or an overlap");
        match header.kind {
            Kind::Data => {
                assert!(!self.ended[index], "data after the end");
                self.output[index].extend(payload);
            }
            Kind::Eof => self.ended[index] = true,
            Kind::Exit => self.exit = ExitRecord::decode(payload),
            Kind::ExecFailed => self.exec_failed = ExecFailed::decode(payload),
            Kind::Start | Kind::Gap | Kind::Full | Kind::Room => {}
        }
    }
}
