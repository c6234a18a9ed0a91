//! Mount sources as people write them: `$VAR/x`, `~/x`, `x`.
//!
//! Owns: their expansion to an absolute path, by the seed's rules but without its traps.
//! Reads: the host's environment and home, through a [`HostView`].
//! Never: checks whether something is there, or whether it may be mounted.

use std::path::{Path, PathBuf};

use crate::host::HostView;

/// Stands for the user's cache folder, where the environment does not say otherwise.
const CACHE_DIR: &str = "HOST_CACHE_DIR";

/// A mount source that stands for no path. The seed mounts something else instead, up to the whole project.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MountSourceError {
    /// There is nothing there.
    #[error("it has no source; write a path of the host in front of the colon")]
    Empty,
    /// A variable is not set, or empty.
    #[error("${name} is not set here or is empty; set it, or write the path itself")]
    Unset {
        /// The variable.
        name: String,
    },
    /// A `${` without its end, or with something else than a name in it.
    #[error("its source has a $ without a variable's name behind it; write $NAME or ${{NAME}}")]
    Malformed,
    /// It begins with `~`, and there is no home.
    #[error("~ stands for nothing, because HOME is not set; write the path itself")]
    NoHome,
    /// It begins with `~user`.
    #[error(
        "only ~/ is understood; write the path itself, or ./ in front of a name that begins with ~"
    )]
    OtherHome,
}

/// Expands a mount source to an absolute path.
///
/// First `$NAME` and `${NAME}` are replaced from the host's environment; `HOST_CACHE_DIR` is the user's cache
/// folder if it is not set. Then `~/` in front is the home folder, and a relative path is below `project_root`.
/// Values are not expanded again.
///
/// # Errors
///
/// [`MountSourceError`] if that gives no path.
pub fn expand_mount_source(
    source: &str,
    project_root: &Path,
    host: &HostView,
) -> Result<PathBuf, MountSourceError> {
    let expanded = expand_variables(source, host)?;
    let home = || host.home.clone().ok_or(MountSourceError::NoHome);
    match expanded.strip_prefix('~') {
        _ if expanded.is_empty() => Err(MountSourceError::Empty),
        None => Ok(project_root.join(expanded)),
        Some("") => home(),
        Some(rest) => match rest.strip_prefix('/') {
            // Joining an absolute path would replace the home.
            Some(rest) => Ok(home()?.join(rest.trim_start_matches('/'))),
            None => Err(MountSourceError::OtherHome),
        },
    }
}

fn expand_variables(text: &str, host: &HostView) -> Result<String, MountSourceError> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let name = match after.strip_prefix('{') {
            Some(braced) => {
                let (name, behind) = braced.split_once('}').ok_or(MountSourceError::Malformed)?;
                rest = behind;
                name
            }
            None => {
                let is_name = |b: &u8| *b == b'_' || b.is_ascii_alphanumeric();
                let end = after.bytes().take_while(|b| is_name(b)).count();
                rest = &after[end..];
                &after[..end]
            }
        };
        if !is_variable_name(name) {
            return Err(MountSourceError::Malformed);
        }
        let value = variable(name, host);
        expanded.push_str(&value.ok_or_else(|| MountSourceError::Unset {
            name: name.to_owned(),
        })?);
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// Returns whether a text can be the name of an environment variable.
pub(crate) fn is_variable_name(text: &str) -> bool {
    let is_start = |c: char| c == '_' || c.is_ascii_alphabetic();
    text.starts_with(is_start) && text.chars().all(|c| is_start(c) || c.is_ascii_digit())
}

fn variable(name: &str, host: &HostView) -> Option<String> {
    let set = |name: &str| {
        host.var(name)
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
    };
    let value = set(name);
    if name != CACHE_DIR || value.is_some() {
        return value;
    }
    let below_home = |folder: &str| {
        let path = host.home.as_ref()?.join(folder);
        path.to_str().map(str::to_owned)
    };
    if cfg!(target_os = "macos") {
        below_home("Library/Caches")
    } else {
        // The base directory specification says that a relative one is to be ignored.
        set("XDG_CACHE_HOME")
            .filter(|xdg| xdg.starts_with('/'))
            .or_else(|| below_home(".cache"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(source: &str, env: &[(&str, &str)], home: Option<&str>) -> Result<String, String> {
        let host = HostView {
            env: env
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            home: home.map(PathBuf::from),
            cwd: PathBuf::from("/cwd"),
        };
        match expand_mount_source(source, Path::new("/r"), &host) {
            Ok(path) => Ok(path.to_str().unwrap().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn sources_are_expanded_as_the_seed_expands_them() {
        let env = [("V", "/v"), ("R", "rel"), ("T", "~/t"), ("D", "$V")];
        for (source, path) in [
            ("docs", "/r/docs"),
            ("/abs", "/abs"),
            ("~/docs", "/h/docs"),
            ("~//docs", "/h/docs"),
            ("~", "/h"),
            ("$V/docs", "/v/docs"),
            ("${V}x/docs", "/vx/docs"),
            ("$R/docs", "/r/rel/docs"),
            ("$T/x", "/h/t/x"),
            ("a/$R", "/r/a/rel"),
            ("$D", "/r/$V"),
            ("./~x", "/r/./~x"),
        ] {
            assert_eq!(
                expand(source, &env, Some("/h")),
                Ok(path.to_owned()),
                "{source}"
            );
        }
    }

    #[test]
    fn the_cache_folder_has_a_default() {
        let source = "${HOST_CACHE_DIR}/go";
        for (env, path) in [
            (
                &[("HOST_CACHE_DIR", "/q"), ("XDG_CACHE_HOME", "/x")][..],
                "/q/go",
            ),
            (&[("HOST_CACHE_DIR", ""), ("XDG_CACHE_HOME", "/x")], "/x/go"),
            (&[("XDG_CACHE_HOME", "relative")], "/h/.cache/go"),
            (&[("XDG_CACHE_HOME", "")], "/h/.cache/go"),
            (&[], "/h/.cache/go"),
        ] {
            assert_eq!(
                expand(source, env, Some("/h")),
                Ok(path.to_owned()),
                "{env:?}"
            );
        }
        assert_eq!(
            expand(source, &[], None).unwrap_err(),
            "$HOST_CACHE_DIR is not set here or is empty; set it, or write the path itself"
        );
    }

    #[test]
    fn what_stands_for_no_path_is_refused() {
        let unset = "$X is not set here or is empty; set it, or write the path itself";
        let malformed =
            "its source has a $ without a variable's name behind it; write $NAME or ${NAME}";
        for (source, message) in [
            ("$X", unset),
            ("$X/docs", unset),
            ("${X}/docs", unset),
            ("a$X", unset),
            (
                "$EMPTY/docs",
                "$EMPTY is not set here or is empty; set it, or write the path itself",
            ),
            ("a$", malformed),
            ("${X", malformed),
            ("${}", malformed),
            ("${a b}", malformed),
            ("$1", malformed),
            ("$$", malformed),
            (
                "",
                "it has no source; write a path of the host in front of the colon",
            ),
            (
                "~/docs",
                "~ stands for nothing, because HOME is not set; write the path itself",
            ),
            (
                "~joe/docs",
                "only ~/ is understood; write the path itself, or ./ in front of a name that begins with ~",
            ),
        ] {
            assert_eq!(
                expand(source, &[("EMPTY", "")], None).unwrap_err(),
                message,
                "{source}"
            );
        }
    }
}
