//! Decides what a run may reach.
//!
//! Owns: the decision, and the words of a refusal.
//! Reads: the run's rules; addresses that the caller has resolved.
//! Never: resolves a name or opens a connection.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use dark_factory_types::{EgressRule, HostName};

use crate::address::{Special, special};

/// Where a request wants to go: a name or an address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    host: TargetHost,
    port: u16,
}

/// The host of a [`Target`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum TargetHost {
    Name(HostName),
    Address(IpAddr),
}

impl Target {
    /// Reads the host of a request: a name, or an address with or without brackets; `None` if it is neither.
    ///
    /// An address in an odd form, such as `127.1` or `0x7f000001`, is neither.
    pub fn parse(host: &str, port: u16) -> Option<Self> {
        let bare = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host);
        let host = match bare.parse::<IpAddr>() {
            Ok(address) => TargetHost::Address(address.to_canonical()),
            Err(_) => TargetHost::Name(host.parse().ok()?),
        };
        (port != 0).then_some(Self { host, port })
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn host(&self) -> &TargetHost {
        &self.host
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            TargetHost::Name(name) => write!(f, "{name}:{}", self.port),
            TargetHost::Address(address) => SocketAddr::new(*address, self.port).fmt(f),
        }
    }
}

/// What a run may reach.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EgressPolicy {
    rules: Vec<EgressRule>,
}

impl EgressPolicy {
    /// Makes a policy of rules; without any, nothing can be reached.
    pub fn new(rules: Vec<EgressRule>) -> Self {
        Self { rules }
    }

    /// Decides by what a request names, before anything is resolved.
    ///
    /// # Errors
    ///
    /// [`Denial::NotAllowed`] if no rule names it.
    pub fn admit(&self, target: &Target) -> Result<(), Denial> {
        let is_named = match &target.host {
            TargetHost::Name(name) => self.rules.iter().any(|rule| rule.names(name, target.port)),
            TargetHost::Address(address) => self.covers(*address, target.port),
        };
        if is_named {
            Ok(())
        } else {
            Err(Denial::NotAllowed {
                target: target.clone(),
                allowed: self.rules.iter().map(EgressRule::to_string).collect(),
            })
        }
    }

    /// Returns the addresses of an admitted target that may be connected to, in their order.
    ///
    /// # Errors
    ///
    /// [`Denial::LeadsInside`] if there is no such address and one was refused, [`Denial::NoAddress`] if there is none
    /// at all.
    pub fn choose(
        &self,
        target: &Target,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> Result<Vec<SocketAddr>, Denial> {
        let mut chosen = Vec::new();
        let mut refused = None;
        for address in addresses {
            let address = address.to_canonical();
            match special(address) {
                Some(what) if !self.covers(address, target.port) => {
                    refused.get_or_insert((address, what));
                }
                _ => chosen.push(SocketAddr::new(address, target.port)),
            }
        }
        match (chosen.is_empty(), refused) {
            (false, _) => Ok(chosen),
            (true, Some((address, what))) => Err(Denial::LeadsInside {
                target: target.clone(),
                address,
                what,
            }),
            (true, None) => Err(Denial::NoAddress {
                target: target.clone(),
            }),
        }
    }

    fn covers(&self, address: IpAddr, port: u16) -> bool {
        self.rules.iter().any(|rule| rule.covers(address, port))
    }
}

/// Why a request is refused; its text names the rule and is what the agent gets to read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denial {
    /// No rule names the host with this port.
    #[error(
        "{target} is not on this run's list of allowed hosts ({}); its user can add it to `network: allow`",
        list(allowed)
    )]
    NotAllowed {
        /// What was asked for.
        target: Target,
        /// The run's rules.
        allowed: Vec<String>,
    },
    /// The name is allowed, and leads to an address that is not one of the public internet.
    #[error(
        "{target} leads to the {what} address {address}, which only a rule with that address or its range allows; its \
         user can add it to `network: allow`"
    )]
    LeadsInside {
        /// What was asked for.
        target: Target,
        /// The address.
        address: IpAddr,
        /// What is special about it.
        what: Special,
    },
    /// The name has no address.
    #[error("{target} has no address")]
    NoAddress {
        /// What was asked for.
        target: Target,
    },
    /// What was asked for is no host with a port.
    #[error("{text:?} is no host with a port")]
    NoTarget {
        /// What was asked for, its end left out if it is long.
        text: String,
    },
}

fn list(allowed: &[String]) -> String {
    const SHOWN: usize = 20;
    match allowed {
        [] => "nothing is allowed".to_owned(),
        few if few.len() <= SHOWN => few.join(", "),
        many => format!(
            "{} and {} more",
            many[..SHOWN].join(", "),
            many.len() - SHOWN
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rules: &[&str]) -> EgressPolicy {
        EgressPolicy::new(rules.iter().map(|rule| rule.parse().unwrap()).collect())
    }

    fn target(host: &str, port: u16) -> Target {
        Target::parse(host, port).unwrap()
    }

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn only_what_a_rule_names_is_admitted() {
        let policy = policy(&["api.example.com", "*.pypi.org:443", "10.1.0.0/16:5432"]);

        for (host, port, is_admitted) in [
            ("api.example.com", 443, true),
            ("API.example.com.", 80, true),
            ("api.example.com", 22, false),
            ("example.com", 443, false),
            ("files.pypi.org", 443, true),
            ("pypi.org", 443, false),
            ("10.1.2.3", 5432, true),
            ("[::ffff:10.1.2.3]", 5432, true),
            ("10.2.2.3", 5432, false),
            ("9.9.9.9", 443, false),
        ] {
            let admitted = policy.admit(&target(host, port));
            assert_eq!(admitted.is_ok(), is_admitted, "{host}:{port}");
        }
        assert!(
            EgressPolicy::default()
                .admit(&target("a.example", 443))
                .is_err()
        );
    }

    #[test]
    fn odd_forms_of_addresses_are_no_targets() {
        for host in [
            "127.1",
            "0x7f000001",
            "2130706433",
            "017700000001",
            "",
            "a b",
            "[::1",
        ] {
            assert_eq!(Target::parse(host, 80), None, "{host}");
        }
        assert_eq!(Target::parse("a.example", 0), None);
    }

    #[test]
    fn a_name_that_leads_inside_is_refused_unless_the_address_is_named() {
        let by_name = policy(&["api.example.com"]);
        let with_net = policy(&["api.example.com", "10.0.0.0/8"]);
        let api = target("api.example.com", 443);

        for inside in [
            "127.0.0.1",
            "10.0.0.1",
            "169.254.169.254",
            "::1",
            "fe80::1",
            "::ffff:192.168.0.1",
        ] {
            let denial = by_name.choose(&api, addresses(&[inside])).unwrap_err();
            assert!(matches!(denial, Denial::LeadsInside { .. }), "{inside}");
        }
        let chosen = with_net
            .choose(&api, addresses(&["10.0.0.1", "192.168.0.1"]))
            .unwrap();
        assert_eq!(chosen, ["10.0.0.1:443".parse().unwrap()]);
    }

    #[test]
    fn of_several_addresses_those_outside_stay_in_their_order() {
        let policy = policy(&["api.example.com"]);
        let found = addresses(&["9.9.9.9", "127.0.0.1", "2606:4700::1111"]);

        let chosen = policy
            .choose(&target("api.example.com", 443), found)
            .unwrap();

        let expected = ["9.9.9.9:443", "[2606:4700::1111]:443"].map(|text| text.parse().unwrap());
        assert_eq!(chosen, expected);
    }

    #[test]
    fn a_refusal_names_what_was_asked_for_and_what_is_allowed() {
        let denial = policy(&["api.example.com", "*.pypi.org"])
            .admit(&target("evil.example", 443))
            .unwrap_err();

        assert_eq!(
            denial.to_string(),
            "evil.example:443 is not on this run's list of allowed hosts (api.example.com, *.pypi.org); its user can \
             add it to `network: allow`"
        );
    }
}
