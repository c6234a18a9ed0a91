//! What a launch demands of its engine.
//!
//! Owns: what becomes of a demand that the engine cannot meet.
//! Reads: the settings, and what the engine says that it can do.
//! Never: drops what somebody wrote: that is an error. A default that cannot be kept is left out, and a warning says so.

use std::fmt;

use dark_factory_types::Transport;

use super::{ResolveError, Warnings, limit_at};
use crate::engine::{Capabilities, Feature, LimitKind};
use crate::settings::{Limit, ProfileName, Settings, Sourced};
use crate::spec::{Limits, Profile};

/// Refuses what the engine cannot do, and leaves out default limits that it does not keep.
pub(super) fn check(
    settings: &Settings,
    limits: &mut Limits,
    capabilities: &Capabilities,
    warnings: &mut Warnings,
) -> Result<(), ResolveError> {
    let profile = settings.profile.as_ref();
    let seed = profile.filter(|it| it.value == ProfileName::BuiltIn(Profile::Seed));
    let transport = settings.transport.as_ref();
    let attach = transport.filter(|it| it.value == Transport::Attach);
    for (feature, origin) in [
        (Feature::SeedProfile, seed.map(|it| &it.origin)),
        (Feature::Attach, attach.map(|it| &it.origin)),
    ] {
        if let Some(origin) = origin
            && capabilities.lacks.contains(&feature)
        {
            return Err(ResolveError::FeatureLacking {
                origin: origin.clone(),
                feature,
            });
        }
    }
    let mut keep = Keep {
        capabilities,
        warnings,
    };
    keep.or_refuse(LimitKind::Memory, &settings.memory, &mut limits.memory)?;
    keep.or_refuse(LimitKind::Cpus, &settings.cpus, &mut limits.cpus)?;
    keep.or_refuse(LimitKind::Pids, &settings.pids, &mut limits.pids)
}

struct Keep<'a> {
    capabilities: &'a Capabilities,
    warnings: &'a mut Warnings,
}

impl Keep<'_> {
    fn or_refuse<T: Copy + fmt::Display>(
        &mut self,
        limit: LimitKind,
        setting: &Option<Sourced<Limit<T>>>,
        value: &mut Option<T>,
    ) -> Result<(), ResolveError> {
        if self.capabilities.limits.contains(&limit) {
            return Ok(());
        }
        if let Some((_, origin)) = limit_at(setting) {
            return Err(ResolveError::LimitNotKept {
                origin: origin.clone(),
                limit,
            });
        }
        if let Some(default) = value.take() {
            self.warnings.push(format!(
                "{limit} is not limited: the engine cannot do it on its host; the default of {default} is left out"
            ));
        }
        Ok(())
    }
}
