//! Which mounts a container gets.
//!
//! Owns: the resolution of mount sources, the order of mounts, and which of them are skipped.
//! Reads: the host, through a [`HostView`].
//! Never: refuses a mount or renders a flag.

use std::borrow::Cow;
use std::path::Path;

use dark_factory_executor::host::{HostView, PathKind};
use dark_factory_executor::settings::ExtraMount;
use dark_factory_executor::spec::{Access, GitVisibility, WORKSPACE_TARGET};

use super::opts::ContainerLaunchOpts;

const WORKSPACE_GIT: &str = "/workspace/.git";
/// Where the seed's image has its credential folder.
pub(in crate::docker) const CLAUDE_DIR_TARGET: &str = "/home/node/.claude";
/// Where it has the file of `netrc_file`.
pub(in crate::docker) const NETRC_TARGET: &str = "/home/node/.netrc";
/// A staging name: `git config --global` replaces its file, which a mounted file does not allow.
pub(in crate::docker) const GITCONFIG_TARGET: &str = "/home/node/.gitconfig-extra";

/// A mount that the options ask for and the container does not get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedMount {
    /// Source as it was written.
    pub src: String,
    /// Source after expansion.
    pub resolved: String,
    /// Path in the container.
    pub dst: String,
    /// Why it was skipped.
    pub reason: SkipReason,
}

/// Why a mount was skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// The source does not exist.
    Missing,
    /// It could not be told whether the source exists.
    Unreadable,
    /// The credential folder's path contains a `:`, which ends a source; an error for whoever reads the log.
    ColonInSource,
}

/// A source on the host at a path in the container, neither of them checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Volume {
    pub(super) source: String,
    pub(super) target: String,
    pub(super) access: Access,
}

impl Volume {
    /// Returns it as the value of `-v`.
    pub(super) fn spec(&self) -> String {
        let suffix = match self.access {
            Access::ReadWrite => "",
            Access::ReadOnly => ":ro",
        };
        format!("{}:{}{suffix}", self.source, self.target)
    }
}

/// What covers the project's `.git`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GitCover {
    /// A folder in memory, as path and options.
    Folder(&'static str, &'static str),
    /// An empty file.
    File(Volume),
}

/// The seed's mounts, in its order.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    pub(super) volumes: Vec<Volume>,
    pub(super) git_cover: Option<GitCover>,
    pub(super) skipped: Vec<SkippedMount>,
}

impl Mounts {
    pub(super) fn resolve(opts: &ContainerLaunchOpts, host: &HostView) -> Self {
        let mut mounts = Self::default();
        mounts.add_standard(opts);
        for mount in &opts.extra_mounts {
            mounts.add_extra(mount, opts, host);
        }
        mounts.git_cover = git_cover(opts, host);
        mounts
    }

    fn add_standard(&mut self, opts: &ContainerLaunchOpts) {
        if !opts.project_root.is_empty() {
            self.add(
                opts.project_root.clone(),
                WORKSPACE_TARGET,
                Access::ReadWrite,
            );
        }
        if opts.claude_dir.contains(':') {
            self.skipped.push(SkippedMount {
                src: opts.claude_dir.clone(),
                resolved: opts.claude_dir.clone(),
                dst: CLAUDE_DIR_TARGET.to_owned(),
                reason: SkipReason::ColonInSource,
            });
        } else if !opts.claude_dir.is_empty() {
            self.add(
                opts.claude_dir.clone(),
                CLAUDE_DIR_TARGET,
                opts.claude_dir_access,
            );
        }
        for (file, target) in [
            (&opts.netrc_file, NETRC_TARGET),
            (&opts.gitconfig_file, GITCONFIG_TARGET),
        ] {
            if !file.is_empty() {
                self.add(
                    expand_tilde(file, &opts.home).into_owned(),
                    target,
                    Access::ReadOnly,
                );
            }
        }
    }

    fn add_extra(&mut self, mount: &ExtraMount, opts: &ContainerLaunchOpts, host: &HostView) {
        let resolved = resolve_source(&mount.src, opts, host);
        let reason = match kind(&resolved, host) {
            PathKind::File | PathKind::Folder => {
                let access = match mount.read_only {
                    Some(true) => Access::ReadOnly,
                    Some(false) | None => Access::ReadWrite,
                };
                return self.add(resolved, &mount.dst, access);
            }
            PathKind::Missing => SkipReason::Missing,
            PathKind::Unreadable => SkipReason::Unreadable,
        };
        self.skipped.push(SkippedMount {
            src: mount.src.clone(),
            resolved,
            dst: mount.dst.clone(),
            reason,
        });
    }

    fn add(&mut self, source: String, target: &str, access: Access) {
        self.volumes.push(Volume {
            source,
            target: target.to_owned(),
            access,
        });
    }
}

/// Returns what stands at a source; nothing stands at an empty one.
fn kind(source: &str, host: &HostView) -> PathKind {
    if source.is_empty() {
        PathKind::Missing
    } else {
        host.kind(Path::new(source))
    }
}

fn git_cover(opts: &ContainerLaunchOpts, host: &HostView) -> Option<GitCover> {
    if opts.git == GitVisibility::Visible {
        return None;
    }
    match kind(&join(&opts.project_root, ".git"), host) {
        PathKind::Folder => Some(GitCover::Folder(WORKSPACE_GIT, "rw,size=1k")),
        PathKind::File => Some(GitCover::File(Volume {
            source: "/dev/null".to_owned(),
            target: WORKSPACE_GIT.to_owned(),
            access: Access::ReadWrite,
        })),
        PathKind::Missing | PathKind::Unreadable => None,
    }
}

/// Returns the source's path on the host: variables first, then `~/`, then relative to the project.
fn resolve_source(src: &str, opts: &ContainerLaunchOpts, host: &HostView) -> String {
    let expanded = expand(src, |name| variable(name, host));
    if expanded.starts_with("~/") {
        expand_tilde(&expanded, &opts.home).into_owned()
    } else if expanded.starts_with('/') {
        expanded
    } else {
        join(&opts.project_root, &expanded)
    }
}

fn variable<'a>(name: &str, host: &'a HostView) -> Cow<'a, str> {
    let value = host.var(name).unwrap_or_default();
    if name != "HOST_CACHE_DIR" || !value.is_empty() {
        return Cow::Borrowed(value);
    }
    cache_folder(
        host,
        if cfg!(target_os = "macos") {
            Caches::MacOs
        } else {
            Caches::Xdg
        },
    )
}

/// Where an operating system keeps caches.
#[derive(Clone, Copy)]
enum Caches {
    Xdg,
    MacOs,
}

fn cache_folder(host: &HostView, caches: Caches) -> Cow<'_, str> {
    let home = host.var("HOME").unwrap_or_default();
    let xdg = host.var("XDG_CACHE_HOME").unwrap_or_default();
    match caches {
        Caches::Xdg if !xdg.is_empty() => Cow::Borrowed(xdg),
        _ if home.is_empty() => Cow::Borrowed(""),
        Caches::Xdg => Cow::Owned(format!("{home}/.cache")),
        Caches::MacOs => Cow::Owned(format!("{home}/Library/Caches")),
    }
}

fn expand_tilde<'a>(path: &'a str, home: &str) -> Cow<'a, str> {
    match path.strip_prefix('~') {
        Some(rest) if rest.starts_with('/') => Cow::Owned(format!("{home}{rest}")),
        _ => Cow::Borrowed(path),
    }
}

/// Replaces `$NAME` and `${NAME}` by the rules of Go's `os.Expand`, which the seed uses.
///
/// A name is letters, digits and `_`, or one of `*#$@!?-0123456789` alone, or anything between braces. `${}` and an
/// unclosed `${` are dropped; a `$` before anything else, or at the end, stays. Values are not expanded again.
fn expand<'a>(text: &str, variable: impl Fn(&str) -> Cow<'a, str>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        rest = match shell_name(after) {
            ShellName::Named(name, length) => {
                expanded.push_str(&variable(name));
                &after[length..]
            }
            ShellName::Malformed(length) => &after[length..],
            ShellName::None => {
                expanded.push('$');
                after
            }
        };
    }
    expanded.push_str(rest);
    expanded
}

enum ShellName<'a> {
    /// A name, and the length of what it was written as.
    Named(&'a str, usize),
    /// Bad syntax of that length.
    Malformed(usize),
    /// No name.
    None,
}

/// Reads the variable's name behind a `$`.
fn shell_name(text: &str) -> ShellName<'_> {
    let is_special = |b: u8| b"*#$@!?-0123456789".contains(&b);
    match text.as_bytes() {
        [b'{', one, b'}', ..] if is_special(*one) => ShellName::Named(&text[1..2], 3),
        [b'{', ..] => match text.find('}') {
            Some(1) => ShellName::Malformed(2),
            Some(end) => ShellName::Named(&text[1..end], end + 1),
            None => ShellName::Malformed(1),
        },
        [one, ..] if is_special(*one) => ShellName::Named(&text[..1], 1),
        bytes => {
            let is_name = |b: &u8| *b == b'_' || b.is_ascii_alphanumeric();
            match bytes.iter().take_while(|b| is_name(b)).count() {
                0 => ShellName::None,
                length => ShellName::Named(&text[..length], length),
            }
        }
    }
}

/// Joins two paths and cleans the result by its text alone, as Go's `filepath.Join` does; empty paths do not count.
fn join(base: &str, path: &str) -> String {
    match (base, path) {
        ("", "") => String::new(),
        ("", path) => clean(path),
        (base, "") => clean(base),
        (base, path) => clean(&format!("{base}/{path}")),
    }
}

fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => {
                    parts.pop();
                }
                None if rooted => {}
                _ => parts.push(".."),
            },
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.as_str()) {
        (true, _) => format!("/{joined}"),
        (false, "") => ".".to_owned(),
        (false, _) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(env: &[(&str, &str)]) -> HostView {
        HostView {
            env: env
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            home: None,
            cwd: "/cwd".into(),
        }
    }

    #[test]
    fn paths_are_cleaned_as_go_cleans_them() {
        for (path, cleaned) in [
            ("", "."),
            ("a/../..", ".."),
            ("a/../../b", "../b"),
            ("/..", "/"),
            ("/../a//./b/", "/a/b"),
            ("../../x/..", "../.."),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
        assert_eq!(join("", ""), "");
        assert_eq!(join("", "x/"), "x");
        assert_eq!(join("/r/", ""), "/r");
    }

    #[test]
    fn variables_are_expanded_as_go_expands_them() {
        let value = |name: &str| Cow::<'static, str>::Owned(format!("<{name}>"));

        for (text, expanded) in [
            ("$A_1/x", "<A_1>/x"),
            ("${A b}c", "<A b>c"),
            ("$12", "<1>2"),
            ("${1}2 ${12}", "<1>2 <12>"),
            ("$$ ${*}", "<$> <*>"),
            ("${} ${ ${", "  "),
            ("$ $é $", "$ $é $"),
            ("$${A}", "<$>{A}"),
        ] {
            assert_eq!(expand(text, value), expanded, "{text}");
        }
    }

    #[test]
    fn the_cache_folder_follows_the_operating_system() {
        let cache = |env: &[(&str, &str)], caches| cache_folder(&host(env), caches).into_owned();
        let (home, xdg) = (("HOME", "/h"), ("XDG_CACHE_HOME", "/x"));

        assert_eq!(cache(&[home], Caches::Xdg), "/h/.cache");
        assert_eq!(cache(&[home, xdg], Caches::Xdg), "/x");
        assert_eq!(cache(&[home, xdg], Caches::MacOs), "/h/Library/Caches");
        assert_eq!(cache(&[xdg], Caches::MacOs), "");
        assert_eq!(cache(&[], Caches::Xdg), "");
    }

    #[test]
    fn a_cache_folder_that_the_environment_names_wins() {
        let host = host(&[("HOME", "/h"), ("HOST_CACHE_DIR", "/q")]);

        assert_eq!(variable("HOST_CACHE_DIR", &host), "/q");
    }

    #[test]
    fn a_source_that_is_not_there_is_reported_with_what_it_became() {
        let opts = ContainerLaunchOpts {
            extra_mounts: vec![ExtraMount {
                src: "$NOPE/nowhere".to_owned(),
                dst: "/docs".to_owned(),
                ..ExtraMount::default()
            }],
            ..ContainerLaunchOpts::default()
        };

        let mounts = Mounts::resolve(&opts, &host(&[]));

        assert_eq!(
            mounts.skipped,
            [SkippedMount {
                src: "$NOPE/nowhere".to_owned(),
                resolved: "/nowhere".to_owned(),
                dst: "/docs".to_owned(),
                reason: SkipReason::Missing,
            }]
        );
    }

    #[test]
    fn a_source_that_is_no_path_is_skipped_as_unreadable() {
        let opts = ContainerLaunchOpts {
            extra_mounts: vec![ExtraMount {
                src: "/tmp\0".to_owned(),
                ..ExtraMount::default()
            }],
            ..ContainerLaunchOpts::default()
        };

        let mounts = Mounts::resolve(&opts, &HostView::default());

        assert!(mounts.volumes.is_empty());
        assert_eq!(mounts.skipped[0].reason, SkipReason::Unreadable);
    }

    #[test]
    fn a_credential_folder_with_a_colon_is_skipped_and_reported() {
        let opts = ContainerLaunchOpts {
            claude_dir: "/a:b".to_owned(),
            ..ContainerLaunchOpts::default()
        };

        let mounts = Mounts::resolve(&opts, &HostView::default());

        assert!(mounts.volumes.is_empty());
        assert_eq!(mounts.skipped[0].reason, SkipReason::ColonInSource);
    }
}
