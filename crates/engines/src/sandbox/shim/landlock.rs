//! The second wall around a sandbox's files, where the kernel has it.
//!
//! Owns: which files may be written to: those on writable mounts.
//! Reads: the configuration.
//! Never: is the only wall: older kernels let it through to sockets, and some have none.

use std::path::Path;

use dark_factory_executor::spec::Access as Access_;
use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, Scope,
};

use super::super::config::{Network, SandboxConfig};
use super::error::{Doing as _, ShimError};

/// The newest form whose rights the rules below know; of these the kernel takes what it has.
const FORM: ABI = ABI::V5;

/// Lets this process, and all that it starts, write only where the sandbox is writable.
pub(super) fn restrict(config: &SandboxConfig) -> Result<(), ShimError> {
    rules(config).doing(|| "restrict what files may be written to".to_owned())
}

/// Returns whether the kernel has it, by making rules that nobody is held to.
pub(super) fn is_there() -> bool {
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1));
    rules.and_then(Ruleset::create).is_ok()
}

fn rules(config: &SandboxConfig) -> Result<(), RulesetError> {
    let everything = AccessFs::from_all(FORM);
    let mut ruleset = Ruleset::default().handle_access(everything)?;
    if config.network == Network::Host {
        // Sockets without a path are not of the mount namespace, but of that of the network.
        ruleset = ruleset.scope(Scope::AbstractUnixSocket)?;
    }
    let mounts = config.binds.iter();
    let writable = mounts
        .filter(|bind| bind.access == Access_::ReadWrite)
        .map(|bind| bind.target.as_path())
        .chain(config.tmpfs.iter().map(|memory| memory.target.as_path()))
        .chain([Path::new("/dev")]);
    let mut grants: Vec<(&Path, BitFlags<AccessFs>)> =
        writable.map(|path| (path, everything)).collect();
    grants.push((Path::new("/"), AccessFs::from_read(FORM)));
    // A process may set some things of its own there.
    grants.push((
        Path::new("/proc"),
        AccessFs::from_read(FORM) | AccessFs::WriteFile | AccessFs::Truncate,
    ));
    let mut created = ruleset.create()?;
    for (path, access) in grants {
        // What cannot be opened cannot be written to.
        if let Ok(open) = PathFd::new(path) {
            created = created.add_rule(PathBeneath::new(open, access))?;
        }
    }
    created.restrict_self().map(drop)
}
