//! Paths inside the container that a user chooses.
//!
//! Owns: their normal form, and which are ours.
//! Reads: nothing.
//! Never: knows what is in an image.

use crate::spec::{CONTAINER_DIR, CONTAINER_SECRETS};

/// Paths of ours in every container.
const OURS: [&str; 2] = [CONTAINER_DIR, CONTAINER_SECRETS];

/// Why a path in the container cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetProblem {
    /// It does not begin with `/`.
    #[error("its path in the container must begin with /")]
    Relative,
    /// It is `/`.
    #[error("its path in the container must not be / itself")]
    Root,
    /// It has a `:`.
    #[error("its path in the container must not have a colon")]
    Colon,
    /// It has a `..` or a NUL.
    #[error("its path in the container must not have .. or a NUL byte in it")]
    Odd,
    /// It is ours, inside it or around it.
    #[error("{ours} in the container belongs to dark-factory; choose another path")]
    Ours {
        /// Our path.
        ours: &'static str,
    },
}

/// Returns an absolute path in its normal form: no `//`, no `.`, no `/` at its end.
pub(super) fn absolute(path: &str) -> Result<String, TargetProblem> {
    if !path.starts_with('/') {
        return Err(TargetProblem::Relative);
    }
    if path.contains('\0') || path.split('/').any(|part| part == "..") {
        return Err(TargetProblem::Odd);
    }
    let parts = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".");
    let normal: String = parts.flat_map(|part| ["/", part]).collect();
    Ok(if normal.is_empty() {
        "/".to_owned()
    } else {
        normal
    })
}

/// Returns the normal form of a path that something can be mounted at.
pub(super) fn mountable(path: &str) -> Result<String, TargetProblem> {
    if path.contains(':') {
        return Err(TargetProblem::Colon);
    }
    let path = absolute(path)?;
    if path == "/" {
        return Err(TargetProblem::Root);
    }
    match OURS
        .into_iter()
        .find(|ours| is_within(&path, ours) || is_within(ours, &path))
    {
        Some(ours) => Err(TargetProblem::Ours { ours }),
        None => Ok(path),
    }
}

fn is_within(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_normal_form() {
        for (path, normal) in [
            ("/a/b", "/a/b"),
            ("//a/./b//", "/a/b"),
            ("/runner", "/runner"),
            ("/run2/x", "/run2/x"),
        ] {
            assert_eq!(mountable(path), Ok(normal.to_owned()), "{path}");
        }
        assert_eq!(absolute("//"), Ok("/".to_owned()));
    }

    #[test]
    fn paths_that_cannot_be_mounted_at_are_refused() {
        for (path, problem) in [
            ("", TargetProblem::Relative),
            ("a", TargetProblem::Relative),
            ("/", TargetProblem::Root),
            ("/./", TargetProblem::Root),
            ("/a:b", TargetProblem::Colon),
            ("/a/../b", TargetProblem::Odd),
            ("/a\0", TargetProblem::Odd),
            (
                "/.dark-factory",
                TargetProblem::Ours {
                    ours: CONTAINER_DIR,
                },
            ),
            (
                "/.dark-factory/x",
                TargetProblem::Ours {
                    ours: CONTAINER_DIR,
                },
            ),
            (
                "/run",
                TargetProblem::Ours {
                    ours: CONTAINER_SECRETS,
                },
            ),
            (
                "/run/secrets/",
                TargetProblem::Ours {
                    ours: CONTAINER_SECRETS,
                },
            ),
        ] {
            assert_eq!(mountable(path), Err(problem), "{path}");
        }
    }
}
