//! What is known of an engine from an earlier process, so that it is not asked before every run.
//!
//! Owns: two small files in the state folder, and what makes each void.
//! Reads: the engine's socket, and the process that listens there.
//! Never: says who an engine is that is not, for certain, the same process behind the same socket.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dark_factory_executor::engine::{Capabilities, LimitKind};
use dark_factory_executor::state_dir::write_whole;
use serde::{Deserialize, Serialize};

/// The file's name in the state folder.
const FILE: &str = "engine.json";
/// Version of [`Note`].
const VERSION: u32 = 2;
/// The engines' own processes, as the kernel names them; Podman's is one as long as its service lives.
const PROCESSES: [&str; 2] = ["dockerd", "podman"];
/// Where the engine writes down its process, beside a socket that somebody else made for it.
const PID_FILE: &str = "docker.pid";

/// What was found out of an engine, and of which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    version: u32,
    mark: Mark,
    /// Device and inode of the state folder that it sees.
    folder: [u64; 2],
    /// Who it is; `None` if it has no id that lasts.
    identity: Option<String>,
    /// What it can do.
    pub(super) capabilities: Capabilities,
}

/// What changes whenever another engine answers, or the same one anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    socket: PathBuf,
    /// Device and inode of the socket.
    inode: [u64; 2],
    /// When its inode last changed, in seconds and nanoseconds.
    changed: [i64; 2],
    process: u32,
    /// When the process was started, in ticks since the boot.
    started: u64,
}

impl Mark {
    /// Returns the mark of the engine at a socket, on which the process `listener` listens; `None` if it cannot be told.
    pub(super) fn of(socket: &Path, listener: u32) -> Option<Self> {
        let found = fs::metadata(socket).ok()?;
        let (process, started) = match start_of(listener) {
            Some(started) => (listener, started),
            // The system's service manager listens for it.
            None if listener == 1 => {
                let file = socket.parent()?.join(PID_FILE);
                let process = fs::read_to_string(file).ok()?.trim().parse().ok()?;
                (process, start_of(process)?)
            }
            None => return None,
        };
        Some(Self {
            socket: socket.to_owned(),
            inode: [found.dev(), found.ino()],
            changed: [found.ctime(), found.ctime_nsec()],
            process,
            started,
        })
    }
}

impl Note {
    /// Makes the note of an engine that sees a state folder; `None` if the folder cannot be looked at.
    pub(super) fn new(
        mark: Mark,
        state: &Path,
        identity: Option<String>,
        capabilities: Capabilities,
    ) -> Option<Self> {
        Some(Self {
            version: VERSION,
            mark,
            folder: inode(state)?,
            identity,
            capabilities,
        })
    }

    /// Reads the note in a state folder, if it is of this engine and of this folder.
    pub(super) fn read(state: &Path, mark: &Mark) -> Option<Self> {
        let note: Self = serde_json::from_slice(&fs::read(state.join(FILE)).ok()?).ok()?;
        (note.version == VERSION && note.mark == *mark && note.folder == inode(state)?)
            .then_some(note)
    }

    /// Writes the note. Of several processes that do so at once one may leave it torn, and then it is none.
    pub(super) fn write(&self, state: &Path) -> io::Result<()> {
        write_whole(&state.join(FILE), &serde_json::to_vec(self)?)
    }

    /// Returns who the engine is, if it has a lasting id, and if this is still the engine with that mark.
    pub(super) fn identity(&self, now: &Mark) -> Option<String> {
        self.identity.clone().filter(|_| self.mark == *now)
    }
}

/// File: [`Whole`].
const WHOLE_FILE: &str = "engine-limits.json";

/// An engine that takes long to say what it can do, and was found to keep every limit.
///
/// The service behind its socket may be another process each time, so this says not who it is; but its host is the same
/// until the next boot. One that lacks something is asked each time: it may have been mended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Whole {
    version: u32,
    place: Place,
    pub(super) capabilities: Capabilities,
}

/// Where an engine answers, until the next boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    socket: PathBuf,
    /// Device and inode of the socket.
    inode: [u64; 2],
    boot: String,
}

impl Place {
    /// Returns the place of the engine at a socket; `None` if that cannot be looked at.
    pub(super) fn of(socket: &Path, boot: String) -> Option<Self> {
        Some(Self {
            socket: socket.to_owned(),
            inode: inode(socket)?,
            boot,
        })
    }
}

impl Whole {
    /// Reads what is known of the engine at a place.
    pub(super) fn read(state: &Path, place: &Place) -> Option<Self> {
        let whole: Self = serde_json::from_slice(&fs::read(state.join(WHOLE_FILE)).ok()?).ok()?;
        (whole.version == VERSION && whole.place == *place).then_some(whole)
    }

    /// Writes down what was found of the engine at a place, if it lacks nothing.
    pub(super) fn write(state: &Path, place: Place, capabilities: &Capabilities) -> io::Result<()> {
        let is_whole = LimitKind::ALL
            .iter()
            .all(|limit| capabilities.limits.contains(limit));
        if !is_whole || !capabilities.lacks.is_empty() {
            return Ok(());
        }
        let whole = Self {
            version: VERSION,
            place,
            capabilities: capabilities.clone(),
        };
        write_whole(&state.join(WHOLE_FILE), &serde_json::to_vec(&whole)?)
    }
}

/// Removes the note in a state folder, if there is one.
pub(super) fn forget(state: &Path) {
    match fs::remove_file(state.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::debug!(%error, "what is known of the engine stays");
        }
        _ => {}
    }
}

fn inode(path: &Path) -> Option<[u64; 2]> {
    let found = fs::metadata(path).ok()?;
    Some([found.dev(), found.ino()])
}

/// Returns when a process was started, if it is an engine's.
fn start_of(process: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    start_in(&stat)
}

/// Reads a process's start out of its `stat`, whose second field is the name in brackets, if it is the engine's.
fn start_in(stat: &str) -> Option<u64> {
    let (head, rest) = stat.rsplit_once(") ")?;
    let name = head.split_once('(')?.1;
    let is_engine = PROCESSES.contains(&name);
    is_engine.then(|| rest.split(' ').nth(19)?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use dark_factory_executor::engine::OnRestart;

    use super::*;

    fn capabilities() -> Capabilities {
        Capabilities {
            version: "1".to_owned(),
            api_version: "1.41".to_owned(),
            limits: vec![LimitKind::Pids],
            on_restart: OnRestart::End,
            lacks: Vec::new(),
            only_user: None,
        }
    }

    fn mark(folder: &Path) -> Mark {
        Mark {
            socket: folder.join("docker.sock"),
            inode: [1, 2],
            changed: [3, 4],
            process: 5,
            started: 6,
        }
    }

    #[test]
    fn a_note_counts_for_the_same_process_behind_the_same_socket_and_for_the_same_folder() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = folder.path();
        let mark = mark(path);
        let id = Some("id /data".to_owned());
        let note = Note::new(mark.clone(), path, id, capabilities()).unwrap();
        note.write(path).unwrap();

        assert_eq!(Note::read(path, &mark), Some(note.clone()));
        assert_eq!(note.identity(&mark).as_deref(), Some("id /data"));
        for another in [
            Mark {
                started: 7,
                ..mark.clone()
            },
            Mark {
                process: 7,
                ..mark.clone()
            },
            Mark {
                inode: [1, 7],
                ..mark.clone()
            },
            Mark {
                changed: [3, 7],
                ..mark.clone()
            },
            Mark {
                socket: "/another.sock".into(),
                ..mark
            },
        ] {
            assert_eq!(Note::read(path, &another), None);
            assert_eq!(note.identity(&another), None);
        }
        // A copy of the state folder, which an engine elsewhere may not see.
        fs::copy(path.join(FILE), other.path().join(FILE)).unwrap();
        assert_eq!(Note::read(other.path(), &mark), None);
        forget(path);
        assert_eq!(Note::read(path, &mark), None);
    }

    #[test]
    fn an_engine_without_a_mark_is_known_until_the_next_boot_if_it_keeps_every_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let socket = path.join("podman.sock");
        fs::write(&socket, "").unwrap();
        let place = |boot: &str| Place::of(&socket, boot.to_owned()).unwrap();
        let whole = Capabilities {
            limits: LimitKind::ALL.to_vec(),
            ..capabilities()
        };
        let read = |boot: &str| Whole::read(path, &place(boot)).map(|whole| whole.capabilities);

        Whole::write(path, place("this"), &capabilities()).unwrap();
        let of_lacking = read("this");
        Whole::write(path, place("this"), &whole).unwrap();

        assert_eq!(of_lacking, None);
        assert_eq!(read("this"), Some(whole));
        assert_eq!(read("next"), None);
        // Another socket at the same path; the first one's inode is still taken.
        fs::rename(&socket, path.join("old.sock")).unwrap();
        fs::write(&socket, "").unwrap();
        assert_eq!(read("this"), None);
    }

    #[test]
    fn what_cannot_be_read_is_no_note() {
        let folder = tempfile::tempdir().unwrap();
        let mark = mark(folder.path());

        for text in ["", "{", "{\"version\":1}", "[]"] {
            fs::write(folder.path().join(FILE), text).unwrap();
            assert_eq!(Note::read(folder.path(), &mark), None, "{text}");
        }
    }

    #[test]
    fn only_an_engines_own_process_is_marked() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";

        assert_eq!(start_in(&format!("42 (dockerd) {rest}")), Some(4711));
        for name in ["socat", "ssh", "dockerd) (x", "systemd"] {
            assert_eq!(start_in(&format!("42 ({name}) {rest}")), None, "{name}");
        }
        // This process listens, and is none.
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert_eq!(Mark::of(&socket, std::process::id()), None);
    }
}
