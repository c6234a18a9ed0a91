//! How the agent reaches its API: through the broker, which has the keys, or by itself.
//!
//! Owns: the choice, the network where none is asked for, the credential folder that is mounted, the budget.
//! Reads: the settings, the environment that the run is to have, keys on this machine.
//! Never: lets a run's own settings say where a key of this machine is sent.

use std::collections::BTreeMap;

use dark_factory_agents::{Agent, ApiAccess};
use dark_factory_spool::EGRESS_PORT;
use dark_factory_types::{Budget, EgressHost, EgressRule, NetworkMode, Provider, Transport};

use super::danger::{Border, Purpose};
use super::environment::Env;
use super::project;
use super::{ResolveError, chosen, limit_at, limit_or};
use crate::host::{HostView, PathKind};
use crate::settings::{Credentials, Origin, Settings, Sourced};
use crate::spec::{Access as MountAccess, HARDENED_HOME, Mount, Profile};

/// How the agent reaches its API.
#[derive(Debug)]
pub(super) struct Access {
    /// The providers that the broker stands in for.
    pub(super) providers: Vec<Provider>,
    /// What it may use of them.
    pub(super) budget: Budget,
    /// What network it has.
    pub(super) network: NetworkMode,
    /// Where programs find the brokered APIs.
    pub(super) env: BTreeMap<String, String>,
    /// The agent's own credential folder, if it is mounted.
    pub(super) folder: Option<Mount>,
    /// Whether nobody has to look for the agent's credentials: they are found, or left to the image.
    pub(super) is_settled: bool,
    /// Why the keys of this machine are not used, where that was not asked for.
    pub(super) why_own: Option<String>,
}

/// What the choice is made of.
#[derive(Clone, Copy)]
pub(super) struct Wish<'a> {
    pub(super) agent: &'static dyn Agent,
    pub(super) settings: &'a Settings,
    pub(super) profile: Profile,
    pub(super) env: &'a Env,
    pub(super) host: &'a HostView,
    pub(super) border: &'a Border<'a>,
}

impl Wish<'_> {
    pub(super) fn decide(&self) -> Result<Access, ResolveError> {
        let credentials = match (chosen(self.settings.credentials.as_ref()), self.profile) {
            (Some(credentials), _) => Some(credentials),
            (None, Profile::Hardened) => Some(Credentials::Broker),
            // The seed's own way.
            (None, Profile::Seed) => None,
        };
        let (providers, why_own) = match credentials {
            Some(Credentials::Broker) => self.providers()?,
            _ => (Vec::new(), None),
        };
        let folder = match credentials {
            Some(Credentials::Mount) if self.profile == Profile::Hardened => self.folder()?,
            _ => None,
        };
        let is_brokered = |provider: Provider| providers.contains(&provider);
        Ok(Access {
            budget: self.budget(&providers)?,
            network: self.network(&providers, folder.as_ref())?,
            env: base_urls(&providers),
            is_settled: self.agent.provider().is_some_and(is_brokered)
                || folder.is_some()
                || credentials == Some(Credentials::None),
            providers,
            folder,
            why_own,
        })
    }

    /// Returns the providers that the broker stands in for; or why there are none, where there would be.
    fn providers(&self) -> Result<(Vec<Provider>, Option<String>), ResolveError> {
        let wanted = match &self.settings.providers {
            Some(providers) => {
                let mut wanted = providers.value.clone();
                wanted.sort_unstable();
                wanted.dedup();
                wanted
            }
            None => self.agent.provider().into_iter().collect(),
        };
        if wanted.is_empty() {
            return Ok((wanted, None));
        }
        // Who asks for it by name is told that it cannot be; else the agent is left to its own devices.
        let asked = self.asked_for();
        if let Some(obstacle) = self.obstacle() {
            return match asked {
                Some(origin) => Err(ResolveError::NoBroker {
                    origin: origin.clone(),
                    obstacle,
                }),
                None => Ok((Vec::new(), Some(obstacle))),
            };
        }
        let mut own = None;
        let mut brokered = Vec::new();
        for provider in wanted {
            match self.own_variable(provider) {
                Some(variable) => own = Some(variable),
                None => brokered.push(provider),
            }
        }
        Ok((brokered, own))
    }

    /// Returns where the broker was asked for by name.
    fn asked_for(&self) -> Option<&Origin> {
        let settings = self.settings;
        let credentials = settings.credentials.as_ref().map(|asked| &asked.origin);
        credentials.or_else(|| settings.providers.as_ref().map(|asked| &asked.origin))
    }

    /// Says why there cannot be a broker, if there cannot.
    fn obstacle(&self) -> Option<String> {
        if let Some(Sourced {
            value: NetworkMode::None,
            origin,
        }) = &self.settings.network
        {
            return Some(format!(
                "network: none ({origin}) leaves no way to the broker; network: allow with an empty list has one"
            ));
        }
        match &self.settings.transport {
            Some(Sourced {
                value: Transport::Attach,
                origin,
            }) => Some(format!(
                "transport: attach ({origin}) has no helper in the container that could carry requests"
            )),
            _ => None,
        }
    }

    /// Says which variable of the run makes it use its own key or address for a provider, if one does.
    fn own_variable(&self, provider: Provider) -> Option<String> {
        let access = ApiAccess::of(provider);
        let set = |name: &str| self.env.get(name).filter(|value| !value.value.is_empty());
        let told = |name: &str, origin: &Origin, what: &str| {
            Some(format!(
                "{name} ({origin}) {what}, so no key of this machine is put into the run's requests to {provider}"
            ))
        };
        if let Some(variable) = set(access.base_url) {
            return told(access.base_url, &variable.origin, "says where the API is");
        }
        let own = match self.agent.provider() == Some(provider) {
            true => self.agent.own_credentials(),
            false => access.keys,
        };
        let (name, variable) = own.iter().find_map(|name| Some((name, set(name)?)))?;
        told(
            name,
            &variable.origin,
            "gives the run credentials of its own",
        )
    }

    /// Returns the agent's own credential folder, to be mounted where the agent looks for it.
    fn folder(&self) -> Result<Option<Mount>, ResolveError> {
        let Some(folder) = self.agent.credential_folder() else {
            return Ok(None);
        };
        let named = folder.variable.and_then(|name| self.host.var(name));
        let named = named
            .filter(|dir| !dir.is_empty())
            .map(|dir| self.host.absolute(dir.as_ref()));
        let path = named.or_else(|| self.host.home.as_ref().map(|home| home.join(folder.name)));
        let path = path.filter(|path| self.host.kind(path) == PathKind::Folder);
        let origin = || {
            let asked = self.settings.credentials.as_ref();
            asked.map_or(
                Origin::Flag {
                    flag: "--credentials",
                },
                |asked| asked.origin.clone(),
            )
        };
        let Some(path) = path else {
            return Err(ResolveError::NoCredentialFolder {
                origin: origin(),
                agent: self.agent.name(),
                folder: match folder.variable {
                    Some(variable) => format!("~/{} or {variable}", folder.name),
                    None => format!("~/{}", folder.name),
                },
            });
        };
        let source = project::canonical_so_far(&path);
        if let Err(danger) = self.border.check(&source, Purpose::AgentFolder) {
            return Err(ResolveError::CredentialFolder {
                origin: origin(),
                path: source,
                danger,
            });
        }
        Ok(Some(Mount {
            source,
            target: format!("{HARDENED_HOME}/{}", folder.name),
            access: MountAccess::ReadOnly,
        }))
    }

    fn budget(&self, providers: &[Provider]) -> Result<Budget, ResolveError> {
        let settings = self.settings;
        let set = [
            (
                "max-tokens",
                limit_at(&settings.max_tokens).map(|(_, at)| at),
            ),
            (
                "max-requests",
                limit_at(&settings.max_requests).map(|(_, at)| at),
            ),
            ("max-cost", limit_at(&settings.max_cost).map(|(_, at)| at)),
        ];
        let first = set.into_iter().find_map(|(key, at)| Some((key, at?)));
        if let (Some((setting, origin)), true) = (first, providers.is_empty()) {
            return Err(ResolveError::BudgetWithoutBroker {
                origin: origin.clone(),
                setting,
            });
        }
        Ok(Budget {
            tokens: limit_or(&settings.max_tokens, None),
            requests: limit_or(&settings.max_requests, None),
            cost: limit_or(&settings.max_cost, None),
        })
    }

    fn network(
        &self,
        providers: &[Provider],
        folder: Option<&Mount>,
    ) -> Result<NetworkMode, ResolveError> {
        let attach = self.settings.transport.as_ref();
        let attach = attach.filter(|transport| transport.value == Transport::Attach);
        if let Some(network) = &self.settings.network {
            if let (NetworkMode::Allow(_), Some(_)) = (&network.value, attach) {
                return Err(ResolveError::HostsWithoutHelper {
                    origin: network.origin.clone(),
                });
            }
            return Ok(network.value.clone());
        }
        if self.profile == Profile::Seed {
            return Ok(NetworkMode::Open);
        }
        let rules = self.own_hosts(providers, folder);
        match attach {
            Some(attach) if !rules.is_empty() => Err(ResolveError::HostsWithoutHelper {
                origin: attach.origin.clone(),
            }),
            _ => Ok(NetworkMode::Allow(rules)),
        }
    }

    /// Returns the hosts that an agent needs which reaches its API by itself.
    fn own_hosts(&self, providers: &[Provider], folder: Option<&Mount>) -> Vec<EgressRule> {
        let Some(provider) = self.agent.provider() else {
            return Vec::new();
        };
        if providers.contains(&provider) {
            return Vec::new();
        }
        let base = self.env.get(ApiAccess::of(provider).base_url);
        if let Some(base) = base.filter(|base| !base.value.is_empty() && folder.is_none()) {
            return rule_of(&base.value).into_iter().collect();
        }
        let hosts = self.agent.api_hosts().iter();
        hosts.filter_map(|host| host.parse().ok()).collect()
    }
}

/// Returns the rule that names the host and the port of a URL.
fn rule_of(url: &str) -> Option<EgressRule> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let place = authority.rsplit('@').next()?;
    let mut rule: EgressRule = place.parse().ok()?;
    if let EgressHost::Below(_) = rule.host {
        return None;
    }
    let usual = match scheme.to_ascii_lowercase().as_str() {
        "http" => 80,
        _ => 443,
    };
    rule.port = rule.port.or(Some(usual));
    Some(rule)
}

/// Returns the variables that say where the brokered APIs are.
fn base_urls(providers: &[Provider]) -> BTreeMap<String, String> {
    let url = |provider: &Provider| {
        let access = ApiAccess::of(*provider);
        let url = format!(
            "http://127.0.0.1:{EGRESS_PORT}/{provider}{}",
            access.base_path
        );
        (access.base_url.to_owned(), url)
    };
    providers.iter().map(url).collect()
}
