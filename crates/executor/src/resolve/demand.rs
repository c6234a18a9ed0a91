//! What a launch demands of its engine.
//!
//! Owns: what becomes of a demand that the engine cannot meet.
//! Reads: the settings, and what the engine says that it can do.
//! Never: drops what somebody wrote: that is an error. A default that cannot be kept is left out, and a warning says so.

use std::fmt;

use dark_factory_types::Transport;

use super::{ResolveError, Warnings, limit_at};
use crate::engine::{Capabilities, Feature, LimitKind};
use crate::settings::{Limit, Origin, ProfileName, Settings, Sourced, UserSetting};
use crate::spec::{Limits, Profile, User};

/// What somebody wrote that not every engine can do, and where it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Demands {
    limits: Vec<(LimitKind, Origin)>,
    features: Vec<(Feature, Origin)>,
    is_recorded: bool,
}

impl Demands {
    /// Returns what is known of a launch that was recorded: no place, so no limit of it is refused.
    pub(crate) fn of_record() -> Self {
        Self {
            is_recorded: true,
            ..Self::default()
        }
    }

    pub(super) fn of(settings: &Settings) -> Self {
        let limits = [
            (LimitKind::Memory, written(&settings.memory)),
            (LimitKind::Cpus, written(&settings.cpus)),
            (LimitKind::Pids, written(&settings.pids)),
        ];
        let seed = ProfileName::BuiltIn(Profile::Seed);
        let profile = settings.profile.as_ref();
        let transport = settings.transport.as_ref();
        let features = [
            (
                Feature::SeedProfile,
                profile.filter(|it| it.value == seed).map(|it| &it.origin),
            ),
            (
                Feature::Attach,
                transport
                    .filter(|it| it.value == Transport::Attach)
                    .map(|it| &it.origin),
            ),
        ];
        Self {
            limits: placed(limits),
            features: placed(features),
            is_recorded: false,
        }
    }

    /// Refuses what the engine cannot do, and leaves out default limits that it does not keep.
    pub(super) fn meet(
        &self,
        limits: &mut Limits,
        capabilities: &Capabilities,
        warnings: &mut Warnings,
    ) -> Result<(), ResolveError> {
        for (feature, origin) in &self.features {
            if capabilities.lacks.contains(feature) {
                return Err(ResolveError::FeatureLacking {
                    origin: origin.clone(),
                    feature: *feature,
                });
            }
        }
        let mut keep = Keep {
            demands: self,
            capabilities,
            warnings,
        };
        keep.or_refuse(LimitKind::Memory, &mut limits.memory)?;
        keep.or_refuse(LimitKind::Cpus, &mut limits.cpus)?;
        keep.or_refuse(LimitKind::Pids, &mut limits.pids)
    }
}

fn written<T: Copy>(setting: &Option<Sourced<Limit<T>>>) -> Option<&Origin> {
    limit_at(setting).map(|(_, origin)| origin)
}

fn placed<T: Copy, const N: usize>(demands: [(T, Option<&Origin>); N]) -> Vec<(T, Origin)> {
    demands
        .into_iter()
        .filter_map(|(what, origin)| Some((what, origin?.clone())))
        .collect()
}

struct Keep<'a> {
    demands: &'a Demands,
    capabilities: &'a Capabilities,
    warnings: &'a mut Warnings,
}

impl Keep<'_> {
    fn or_refuse<T: fmt::Display>(
        &mut self,
        limit: LimitKind,
        value: &mut Option<T>,
    ) -> Result<(), ResolveError> {
        if self.capabilities.limits.contains(&limit) {
            return Ok(());
        }
        let mut written = self.demands.limits.iter();
        if let Some((_, origin)) = written.find(|(kind, _)| *kind == limit) {
            return Err(ResolveError::LimitNotKept {
                origin: origin.clone(),
                limit,
            });
        }
        if let Some(value) = value.take() {
            let what = match self.demands.is_recorded {
                true => "recorded limit",
                false => "default",
            };
            self.warnings.push(format!(
                "{limit} is not limited: the engine cannot do it on its host; the {what} of {value} is left out"
            ));
        }
        Ok(())
    }
}

/// Refuses a user whom the engine's agents cannot be; where nobody wrote one, they are who they can be.
pub(super) fn user(
    setting: Option<&Sourced<UserSetting>>,
    user: User,
    capabilities: &Capabilities,
    warnings: &mut Warnings,
) -> Result<User, ResolveError> {
    let (Some((own, own_group)), User::Ids { uid, gid }) = (capabilities.only_user, &user) else {
        return Ok(user);
    };
    let only = User::Ids {
        uid: own,
        gid: own_group,
    };
    let is_group_written = |setting: &Sourced<UserSetting>| {
        matches!(setting.value, UserSetting::Ids { gid: Some(_), .. })
    };
    match setting {
        Some(setting) if *uid != own || (*gid != own_group && is_group_written(setting)) => {
            Err(ResolveError::FeatureLacking {
                origin: setting.origin.clone(),
                feature: Feature::OtherUsers,
            })
        }
        None if *uid != own => {
            warnings.push(format!(
                "the project belongs to uid {uid}, and the engine has no user other than yours: the agent runs as {only}"
            ));
            Ok(only)
        }
        _ => Ok(only),
    }
}
