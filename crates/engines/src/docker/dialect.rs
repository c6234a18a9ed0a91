//! What differs between the engines that speak Docker's API.
//!
//! Owns: every such difference: how an engine is told from another, what it can be asked for, what its answers mean.
//! Reads: status codes and headers, never an error's text.
//! Never: asks an engine; where a status alone does not tell, the caller looks at the container.
//!
//! | | Docker | Podman |
//! |---|---|---|
//! | says who it is | | the header `Libpod-API-Version` of every answer |
//! | a name is taken; a request is refused | 409; 400 | 500 for both |
//! | kill, remove, execute in what does not run | 409 | 500, or 409 |
//! | start of what cannot be executed | 400 | 500, and no error is kept in the state |
//! | attach to what cannot be started | is answered | 409: it is prepared first |
//! | wait for what was never started | code 0 | code -1 |
//! | wait for what runs | is answered at the end | up to 250 ms later |
//! | `tmpfs` with an owner or a number of inodes | kept | refused |
//! | `tmpfs` where there is something | empty | with a copy of it, unless told otherwise |
//! | the state of an ended container | `exited` | `stopped` for a moment, then `exited` |
//! | a read-only root | nothing beside it | with writable `/run` and `/var/tmp` |
//! | the tag of an import | counts | is left out, unless it is part of the repository |
//! | the name of an image | as it was given | in full: `docker.io/library/…`, `localhost/…` |
//! | the id of `/info` | lasts | is made up for every answer |
//! | `/info` | is answered at once | waits for containers that are being made or started |
//! | containers when the engine ends | end, unless live-restore is set | run on |
//! | the log of a line that was printed in parts | in order | its end may be in the other stream, and behind what follows |
//! | events | say which signal was asked for, and when memory ran out | do not, and come late |

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::ContainerCreateBody;
use dark_factory_executor::engine::OnRestart;
use serde_json::Value;

/// The header by which Podman says which version its own API has.
const LIBPOD_HEADER: &str = "libpod-api-version";

/// What Podman makes writable in a container whose root is not, and what keeps it from that.
const WRITABLE_BY_ITSELF: [&str; 2] = ["/run", "/var/tmp"];
const SHUT: &str = "ro,nosuid,nodev,noexec,size=4096";

/// Option of a memory file system: it begins empty, as Docker's do.
const EMPTY: &str = "notmpcopyup";

/// How long a wait may be silent before the engine is asked about the container otherwise, the first time and from
/// then on.
const FIRST_LOOK: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_secs(30);
/// The same before that where a wait is silent after the end too: from the first one to how often Podman itself looks.
const PODMAN_FIRST_LOOK: Duration = Duration::from_millis(10);
const PODMAN_LOOK: Duration = Duration::from_millis(250);

/// An engine that speaks Docker's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// The Docker Engine, or whatever does not say otherwise.
    Docker,
    /// Podman, by its compatible API.
    Podman,
}

/// Whether a refusal is about the state that a container is in, or about a name that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conflict {
    /// It is.
    Yes,
    /// It may be: the container, or whoever has the name, has to be looked at.
    Possible,
    /// It is about something else.
    No,
}

/// What an engine's events say of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    /// Who asked for it.
    OfCauses,
    /// No more than that it came.
    OfNothing,
}

/// How an engine's log has what was printed on both streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Logged {
    /// Each stream as it was printed; one may be ahead of the other.
    EachStream,
    /// Both in the order in which they were printed; where a line was printed in parts, some of it may be in the other
    /// stream, and newlines elsewhere.
    BothMixed,
}

/// Whether a container is prepared for its start when it is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preparation {
    /// It is, and that may be what failed.
    MayHaveFailed,
    /// It is about something else.
    OfNoMatter,
}

/// What it means that a container has no trace of a start that was answered with a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Traceless {
    /// The start may still come.
    Unknown,
    /// It was refused: what has been answered is over.
    Refused,
}

impl Dialect {
    /// Every dialect.
    pub(super) const ALL: [Self; 2] = [Self::Docker, Self::Podman];

    /// Returns the engine's name, as handles and reports have it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    /// Returns the engine's name for people.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Docker => "Docker",
            Self::Podman => "Podman",
        }
    }

    /// Returns the dialect with a name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dialect| dialect.name() == name)
    }

    /// Returns who answers with this header.
    pub(super) fn of_header(header: &str) -> Self {
        let says_podman = header.lines().any(|line| {
            line.split_once(':')
                .is_some_and(|(name, _)| name.eq_ignore_ascii_case(LIBPOD_HEADER))
        });
        if says_podman {
            Self::Podman
        } else {
            Self::Docker
        }
    }

    /// Returns what a refusal with this status is about.
    pub(super) fn conflict(self, code: u16) -> Conflict {
        match (self, code) {
            (Self::Docker, 409) => Conflict::Yes,
            // It answers most refusals as a failure of its own; later versions tell some of them apart.
            (Self::Podman, 409 | 500) => Conflict::Possible,
            _ => Conflict::No,
        }
    }

    /// Returns what it says about a container that attaching to it was answered with this status.
    pub(super) fn preparation(self, code: u16) -> Preparation {
        match (self, code) {
            (Self::Podman, 409 | 500) => Preparation::MayHaveFailed,
            _ => Preparation::OfNoMatter,
        }
    }

    /// Returns what it means if nothing is seen of a start that failed with the server's own status.
    pub(super) fn traceless_start(self) -> Traceless {
        match self {
            Self::Docker => Traceless::Unknown,
            Self::Podman => Traceless::Refused,
        }
    }

    /// Returns how long a wait may be silent before the engine is asked about the container otherwise, after it
    /// was silent for `last`.
    pub(super) fn next_look(self, last: Option<Duration>) -> Duration {
        match (self, last) {
            // It looks by itself only so often: an end that comes soon is seen soon, for what a few looks cost.
            (Self::Podman, None) => PODMAN_FIRST_LOOK,
            (Self::Podman, Some(last)) if last < PODMAN_LOOK => last + last / 4,
            (_, None) => FIRST_LOOK,
            (_, Some(last)) if last < FIRST_LOOK => FIRST_LOOK,
            (_, Some(_)) => LOOK,
        }
    }

    /// Returns whether what the engine remembers of an end can say who asked for it.
    pub(super) fn memory(self) -> Memory {
        match self {
            Self::Docker => Memory::OfCauses,
            Self::Podman => Memory::OfNothing,
        }
    }

    /// Returns how its log has what was printed.
    pub(super) fn logged(self) -> Logged {
        match self {
            Self::Docker => Logged::EachStream,
            Self::Podman => Logged::BothMixed,
        }
    }

    /// Returns what becomes of containers when the engine goes down; `live_restore` is Docker's setting.
    pub(super) fn on_restart(self, live_restore: Option<bool>) -> OnRestart {
        // Podman's service has none: each has a monitor of its own, and the service may end after every answer.
        if self == Self::Podman || live_restore == Some(true) {
            OnRestart::Survive
        } else {
            OnRestart::End
        }
    }

    /// Returns the repository and the tag that an import is asked for, so that the image has this name and this tag.
    pub(super) fn import_as<'a>(self, (name, tag): (&str, &'a str)) -> (String, &'a str) {
        match self {
            Self::Docker => (name.to_owned(), tag),
            Self::Podman => (format!("{name}:{tag}"), ""),
        }
    }

    /// Puts a create request into the engine's words.
    pub(super) fn adapt(self, body: &mut ContainerCreateBody) {
        if self == Self::Docker {
            return;
        }
        let Some(config) = &mut body.host_config else {
            return;
        };
        for options in config.tmpfs.iter_mut().flat_map(HashMap::values_mut) {
            *options = plain_tmpfs(options);
        }
        if config.readonly_rootfs == Some(true) {
            let tmpfs = config.tmpfs.get_or_insert_default();
            for path in WRITABLE_BY_ITSELF {
                let options = tmpfs.entry(path.to_owned());
                options.or_insert_with(|| SHUT.to_owned());
            }
        }
    }
}

/// Puts a container's state into the words that Docker has for it.
pub(super) fn in_dockers_words(state: &mut Value) {
    if let Some(Value::String(status)) = state.get_mut("Status") {
        *status = dockers_word(status).to_owned();
    }
}

/// Returns the word that Docker has for what a container does.
pub(super) fn dockers_word(status: &str) -> &str {
    match status {
        // It has ended, and what it leaves is not put away yet.
        "stopped" => "exited",
        status => status,
    }
}

/// Returns the options of a memory file system without those that Podman refuses.
///
/// What an image or a mount has in its place is not copied into it. One that is not given to its user is open to
/// everybody in the container, who is that user. The number of files is bounded by the memory that they take.
fn plain_tmpfs(options: &str) -> String {
    let is_owned = options.split(',').any(|option| option.starts_with("uid="));
    let kept = options.split(',').chain([EMPTY]).filter_map(|option| {
        match option.split_once('=').map_or(option, |(name, _)| name) {
            "uid" | "gid" | "nr_inodes" => None,
            "mode" if is_owned => Some("mode=1777"),
            _ => Some(option),
        }
    });
    kept.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use bollard::models::HostConfig;

    use super::*;

    #[test]
    fn podman_is_told_by_its_header() {
        let docker = "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nServer: Docker/20.10.24 (linux)\r\n";
        let podman = "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nLibpod-Api-Version: 4.3.1\r\n";

        assert_eq!(Dialect::of_header(docker), Dialect::Docker);
        assert_eq!(Dialect::of_header(podman), Dialect::Podman);
        for dialect in Dialect::ALL {
            assert_eq!(Dialect::named(dialect.name()), Some(dialect));
        }
    }

    #[test]
    fn a_memory_file_system_has_only_options_that_podman_takes() {
        let body = || ContainerCreateBody {
            host_config: Some(HostConfig {
                tmpfs: Some(HashMap::from([
                    (
                        "/tmp".to_owned(),
                        "rw,exec,size=8,nr_inodes=2,mode=1777".to_owned(),
                    ),
                    (
                        "/home".to_owned(),
                        "rw,size=8,uid=1,gid=2,mode=700".to_owned(),
                    ),
                ])),
                readonly_rootfs: Some(true),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let tmpfs = |dialect: Dialect| {
            let mut body = body();
            dialect.adapt(&mut body);
            body.host_config.unwrap().tmpfs.unwrap()
        };

        let podman = tmpfs(Dialect::Podman);
        assert_eq!(podman["/tmp"], "rw,exec,size=8,mode=1777,notmpcopyup");
        assert_eq!(podman["/home"], "rw,size=8,mode=1777,notmpcopyup");
        assert!(podman["/run"].starts_with("ro,") && podman["/var/tmp"].starts_with("ro,"));
        assert_eq!(
            tmpfs(Dialect::Docker)["/home"],
            "rw,size=8,uid=1,gid=2,mode=700"
        );
    }

    #[test]
    fn where_a_wait_is_answered_late_the_end_of_a_short_container_is_looked_for() {
        let looks = |dialect: Dialect| {
            std::iter::successors(Some(dialect.next_look(None)), move |last| {
                Some(dialect.next_look(Some(*last)))
            })
        };

        let docker: Vec<u64> = looks(Dialect::Docker)
            .take(3)
            .map(|it| it.as_secs())
            .collect();
        assert_eq!(docker, [5, 30, 30]);
        let dense: Vec<Duration> = looks(Dialect::Podman)
            .take_while(|silence| *silence < FIRST_LOOK)
            .collect();
        assert!(dense.len() < 20, "{dense:?}");
        assert!(
            dense.iter().sum::<Duration>() < 2 * Duration::from_secs(1),
            "{dense:?}"
        );
        let rare: Vec<Duration> = looks(Dialect::Podman).skip(dense.len()).take(2).collect();
        assert_eq!(rare, [FIRST_LOOK, LOOK]);
    }

    #[test]
    fn only_a_live_restore_keeps_dockers_containers() {
        for (dialect, live_restore, expected) in [
            (Dialect::Docker, None, OnRestart::End),
            (Dialect::Docker, Some(false), OnRestart::End),
            (Dialect::Docker, Some(true), OnRestart::Survive),
            (Dialect::Podman, Some(false), OnRestart::Survive),
        ] {
            assert_eq!(dialect.on_restart(live_restore), expected, "{dialect:?}");
        }
    }
}
