//! The mounts that a user asks for.
//!
//! Owns: which are taken, skipped or refused.
//! Reads: the file system, to see what is there.
//! Never: mounts anything.

use std::path::{Path, PathBuf};

use super::danger::{ALLOW, Border, Danger, Purpose};
use super::target::{self, TargetProblem};
use super::{ResolveError, Warnings};
use crate::host::{HostView, PathKind};
use crate::mount_source::{MountSourceError, expand_mount_source};
use crate::settings::{ExtraMount, Origin, Sourced};
use crate::spec::{Access, Mount};

/// Why a mount is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MountProblem {
    /// Its source stands for no path.
    #[error(transparent)]
    Source(#[from] MountSourceError),
    /// There is nothing at its source.
    #[error("{path} does not exist; make it, or write optional: true to go on without it")]
    Missing {
        /// The source, expanded.
        path: PathBuf,
    },
    /// Its source cannot be looked at.
    #[error("{path} cannot be looked at; check the permissions of its folders")]
    Unreadable {
        /// The source, expanded.
        path: PathBuf,
    },
    /// Its source does not go into a container.
    #[error("{danger}; {way_out}", way_out = way_out(danger, path))]
    Danger {
        /// Why.
        danger: Danger,
        /// The source, links resolved.
        path: PathBuf,
    },
    /// Its path in the container cannot be used.
    #[error(transparent)]
    Target(#[from] TargetProblem),
    /// Something else is mounted at its path in the container.
    #[error("{target} in the container is taken by {by}; choose another path")]
    Taken {
        /// The path.
        target: String,
        /// What is there.
        by: String,
    },
}

fn way_out(danger: &Danger, path: &Path) -> String {
    match danger {
        Danger::Colon => "rename it, or mount it by a link without one".to_owned(),
        Danger::State { .. } => {
            "mount another folder, or move the state with --state-dir".to_owned()
        }
        Danger::Root => "nothing allows that; mount what the agent needs of it".to_owned(),
        Danger::EngineSocket { .. } => {
            "nothing allows that, because the record of such a run would prove nothing; give the agent an engine of its \
             own by network: DOCKER_HOST in env, and its host in network: allow"
                .to_owned()
        }
        Danger::Home
        | Danger::OtherHome { .. }
        | Danger::Credentials { .. }
        | Danger::System { .. } => format!(
            "mount something else, or add {} to {ALLOW}",
            path.display()
        ),
    }
}

/// What mounts are resolved against.
pub(super) struct Grounds<'a> {
    pub(super) host: &'a HostView,
    pub(super) root: &'a Path,
    pub(super) border: &'a Border<'a>,
    /// Paths in the container that are taken, and by what.
    pub(super) taken: Vec<(String, String)>,
}

pub(super) fn resolve(
    mounts: &[Sourced<ExtraMount>],
    mut grounds: Grounds<'_>,
    warnings: &mut Warnings,
    notices: &mut Vec<String>,
) -> Result<Vec<Mount>, ResolveError> {
    let mut resolved = Vec::new();
    for Sourced {
        value: mount,
        origin,
    } in mounts
    {
        let refused = |problem| ResolveError::Mount {
            origin: origin.clone(),
            mount: format!("{}:{}", mount.src, mount.dst),
            problem: Box::new(problem),
        };
        let told = (&mut *warnings, &mut *notices);
        if let Some(mount) = one(mount, origin, &mut grounds, told).map_err(refused)? {
            resolved.push(mount);
        }
    }
    Ok(resolved)
}

/// Returns what is wrong with a mount whatever the host is.
pub(super) fn fault(mount: &Sourced<ExtraMount>) -> Option<ResolveError> {
    let problem = target::mountable(&mount.value.dst).err()?;
    Some(ResolveError::Mount {
        origin: mount.origin.clone(),
        mount: format!("{}:{}", mount.value.src, mount.value.dst),
        problem: Box::new(problem.into()),
    })
}

fn one(
    mount: &ExtraMount,
    origin: &Origin,
    grounds: &mut Grounds<'_>,
    (warnings, notices): (&mut Warnings, &mut Vec<String>),
) -> Result<Option<Mount>, MountProblem> {
    let target = target::mountable(&mount.dst)?;
    if let Some((_, by)) = grounds.taken.iter().find(|(taken, _)| *taken == target) {
        return Err(MountProblem::Taken {
            target,
            by: by.clone(),
        });
    }
    let base = origin.folder(grounds.root, grounds.root);
    let path = expand_mount_source(&mount.src, base, grounds.host)?;
    if path.as_os_str().as_encoded_bytes().contains(&b':') {
        return Err(MountProblem::Danger {
            danger: Danger::Colon,
            path,
        });
    }
    // Dangers come before existence, so that nobody first makes the folder and is refused then.
    let named = super::project::canonical_so_far(&path);
    let allowed = grounds.border.check(&named, Purpose::Mount);
    let allowed = allowed.map_err(|danger| MountProblem::Danger {
        danger,
        path: named.clone(),
    })?;
    match grounds.host.kind(&path) {
        PathKind::File | PathKind::Folder => {}
        PathKind::Missing if mount.optional => {
            warnings.push(format!(
                "{origin}: the optional mount {}:{} is left out: {} does not exist",
                mount.src,
                mount.dst,
                path.display()
            ));
            return Ok(None);
        }
        PathKind::Missing => return Err(MountProblem::Missing { path }),
        PathKind::Unreadable => return Err(MountProblem::Unreadable { path }),
    }
    let by = match origin {
        Origin::Flag { flag } => format!("another {flag}"),
        Origin::File { .. } | Origin::Variable { .. } => format!("the mount of {origin}"),
    };
    grounds.taken.push((target.clone(), by));
    let mounted = || format!("{origin}: {}", named.display());
    notices.extend(allowed.map(|allowed| allowed.notice(&mounted())));
    let access = match mount.read_only {
        Some(true) => Access::ReadOnly,
        Some(false) | None => Access::ReadWrite,
    };
    Ok(Some(Mount {
        source: named,
        target,
        access,
    }))
}
