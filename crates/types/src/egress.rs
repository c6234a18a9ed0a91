//! What a run may reach beyond its container, as a list of rules.
//!
//! Owns: the rules' text form and which hosts a rule names.
//! Reads: nothing.
//! Never: resolves a name or opens a connection; see the `dark-factory-guard` crate.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::BrokeredUse;

/// The ports of a rule that names none: HTTPS and HTTP.
const DEFAULT_PORTS: [u16; 2] = [443, 80];
/// The longest name of a host, in bytes (RFC 1035).
const NAME_LEN: usize = 253;
/// The longest part of a name between two dots, in bytes (RFC 1035).
const LABEL_LEN: usize = 63;

/// A name of a host in its one spelling: lower case, ASCII, no dot at the end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(String);

impl HostName {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether the name is below `domain`, and not `domain` itself.
    pub fn is_below(&self, domain: &Self) -> bool {
        self.0
            .strip_suffix(&domain.0)
            .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HostName {
    type Err = EgressError;

    /// Reads a name. One that resolvers take for an address, such as `127.1` or `0x7f000001`, is none.
    fn from_str(text: &str) -> Result<Self, EgressError> {
        let refused = |why| EgressError::Name {
            name: clipped(text),
            why,
        };
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() {
            return Err(refused("it is empty"));
        }
        if name.len() > NAME_LEN {
            return Err(refused("it is longer than 253 bytes"));
        }
        if !name.is_ascii() {
            return Err(refused(
                "write it in its ASCII form, which begins with xn--",
            ));
        }
        for label in name.split('.') {
            if label.is_empty() || label.len() > LABEL_LEN {
                return Err(refused("each part has 1 to 63 characters"));
            }
            let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            if !label.bytes().all(is_fine) {
                return Err(refused(
                    "only letters, digits, - and _ may stand between the dots",
                ));
            }
        }
        let last = name.rsplit('.').next().unwrap_or(name);
        if is_number(last) {
            return Err(refused(
                "it ends in a number, and so is an address in an odd form",
            ));
        }
        Ok(Self(name.to_ascii_lowercase()))
    }
}

/// Returns whether resolvers read a part of a name as a number.
fn is_number(label: &str) -> bool {
    let hex = label
        .strip_prefix("0x")
        .or_else(|| label.strip_prefix("0X"));
    match hex {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// Which hosts a rule names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EgressHost {
    /// One name.
    Name(HostName),
    /// Every name below one, and not that one itself.
    Below(HostName),
    /// Addresses. Only these name private, loopback and link-local ones, also where a name leads to them.
    Net(IpNet),
}

/// One thing that a run may reach.
///
/// In text: `api.example.com`, `*.example.com`, `10.1.0.0/16`, `192.0.2.7`, `[2001:db8::]/32`, each with an optional
/// `:PORT`. Without one it is ports 443 and 80.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EgressRule {
    /// The hosts.
    pub host: EgressHost,
    /// The port; `None` for 443 and 80.
    pub port: Option<u16>,
}

impl EgressRule {
    /// Returns whether the rule names this host and port.
    pub fn names(&self, host: &HostName, port: u16) -> bool {
        let is_named = match &self.host {
            EgressHost::Name(name) => name == host,
            EgressHost::Below(domain) => host.is_below(domain),
            EgressHost::Net(_) => false,
        };
        is_named && self.has_port(port)
    }

    /// Returns whether the rule names this address and port.
    pub fn covers(&self, address: IpAddr, port: u16) -> bool {
        let address = address.to_canonical();
        matches!(&self.host, EgressHost::Net(net) if net.contains(&address)) && self.has_port(port)
    }

    fn has_port(&self, port: u16) -> bool {
        match self.port {
            Some(only) => only == port,
            None => DEFAULT_PORTS.contains(&port),
        }
    }
}

impl FromStr for EgressRule {
    type Err = EgressError;

    fn from_str(text: &str) -> Result<Self, EgressError> {
        if let Some(scheme) = ["https://", "http://"]
            .iter()
            .find(|s| text.starts_with(**s))
        {
            return Err(EgressError::Rule {
                rule: clipped(text),
                why: match *scheme {
                    "https://" => "leave https:// and the path away: rules are hosts with ports",
                    _ => "leave http:// and the path away: rules are hosts with ports",
                },
            });
        }
        let (host, port) = split_port(text)?;
        let host = match host.strip_prefix("*.") {
            Some(domain) => EgressHost::Below(domain.parse()?),
            None => match net(host) {
                Some(net) => EgressHost::Net(net),
                None if host.contains('/') => {
                    return Err(EgressError::Rule {
                        rule: clipped(text),
                        why: "what stands before and after the / is no range of addresses, such as 10.1.0.0/16",
                    });
                }
                None => EgressHost::Name(host.parse()?),
            },
        };
        Ok(Self { host, port })
    }
}

/// Splits `HOST[:PORT]`; an IPv6 address stands in brackets where a port follows it.
fn split_port(text: &str) -> Result<(&str, Option<u16>), EgressError> {
    let is_bare_v6 = text.matches(':').count() > 1 && !text.starts_with('[');
    let end_of_brackets = text.rfind(']').map_or(0, |at| at + 1);
    let port = match text.rfind(':') {
        Some(colon) if colon >= end_of_brackets && !is_bare_v6 => Some(colon),
        _ => None,
    };
    let Some(colon) = port else {
        return Ok((text, None));
    };
    let port = text[colon + 1..].parse().ok().filter(|port| *port != 0);
    match port {
        Some(port) => Ok((&text[..colon], Some(port))),
        None => Err(EgressError::Rule {
            rule: clipped(text),
            why: "the port is a number from 1 to 65535",
        }),
    }
}

/// Reads an address or a range of addresses, an IPv6 one with or without brackets.
fn net(text: &str) -> Option<IpNet> {
    let plain: String = text.chars().filter(|c| !matches!(c, '[' | ']')).collect();
    let net = match plain.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address.to_canonical()),
        Err(_) => plain.parse().ok()?,
    };
    Some(net.trunc())
}

impl fmt::Display for EgressRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_one = |net: &IpNet| net.prefix_len() == net.max_prefix_len();
        match &self.host {
            EgressHost::Name(name) => write!(f, "{name}")?,
            EgressHost::Below(domain) => write!(f, "*.{domain}")?,
            EgressHost::Net(IpNet::V6(net)) => {
                write!(f, "[{}]", net.addr())?;
                if !is_one(&IpNet::V6(*net)) {
                    write!(f, "/{}", net.prefix_len())?;
                }
            }
            EgressHost::Net(net) if is_one(net) => write!(f, "{}", net.addr())?,
            EgressHost::Net(net) => write!(f, "{net}")?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl Serialize for EgressRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EgressRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What came of a run's requests to the outside.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct EgressSummary {
    /// What was reached.
    pub reached: Vec<EgressCount>,
    /// What was refused.
    pub denied: Vec<EgressCount>,
    /// What was let through and did not answer.
    pub failed: Vec<EgressCount>,
    /// What was used of its providers through the broker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub brokered: Vec<BrokeredUse>,
    /// Whether there was more than is told here.
    pub omitted: bool,
}

/// Requests to one host and port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressCount {
    /// Where they wanted to go, as `host:port`.
    pub target: String,
    /// How many there were.
    pub requests: u64,
    /// Bytes that the run sent.
    pub sent: u64,
    /// Bytes that the run received.
    pub received: u64,
    /// Why the last of them was refused or not answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A text that is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EgressError {
    /// The host's name is none.
    #[error("{name:?} is no name of a host: {why}")]
    Name {
        /// What was written, its end left out if it is long.
        name: String,
        /// Why it is refused.
        why: &'static str,
    },
    /// The rule is none.
    #[error("{rule:?} is nothing that can be allowed: {why}")]
    Rule {
        /// What was written, its end left out if it is long.
        rule: String,
        /// Why it is refused.
        why: &'static str,
    },
}

impl EgressError {
    /// Returns why the text is refused.
    pub fn why(&self) -> &'static str {
        match self {
            Self::Name { why, .. } | Self::Rule { why, .. } => why,
        }
    }
}

fn clipped(text: &str) -> String {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> EgressRule {
        text.parse().unwrap()
    }

    fn name(text: &str) -> HostName {
        text.parse().unwrap()
    }

    #[test]
    fn a_rule_is_written_as_it_is_read() {
        for text in [
            "api.example.com",
            "*.example.com",
            "api.example.com:8443",
            "10.1.0.0/16",
            "192.0.2.7:22",
            "[2001:db8::]/32",
            "[2001:db8::1]:8080",
        ] {
            assert_eq!(rule(text).to_string(), text);
        }
        assert_eq!(rule("API.Example.COM.").to_string(), "api.example.com");
        assert_eq!(rule("10.1.2.3/16").to_string(), "10.1.0.0/16");
        assert_eq!(rule("::ffff:10.0.0.1").to_string(), "10.0.0.1");
        assert_eq!(rule("2001:db8::1").to_string(), "[2001:db8::1]");
    }

    #[test]
    fn what_is_no_rule_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "it is empty"),
            ("*.", "it is empty"),
            ("https://a.example/x", "leave https:// and the path away"),
            ("a.example:0", "the port is a number"),
            ("a.example:99999", "the port is a number"),
            ("a.example/x", "no range of addresses"),
            ("10.0.0.0/33", "no range of addresses"),
            ("a..example", "each part has 1 to 63"),
            ("a*.example", "only letters, digits"),
            ("exämple.com", "ASCII form"),
            ("127.1", "an address in an odd form"),
            ("2130706433", "an address in an odd form"),
            ("0x7f000001", "an address in an odd form"),
        ] {
            let error = text.parse::<EgressRule>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_name_is_named_with_its_ports_and_no_other_name_is() {
        let plain = rule("example.com");
        let below = rule("*.example.com:8443");

        assert!(plain.names(&name("EXAMPLE.com."), 443));
        assert!(plain.names(&name("example.com"), 80));
        assert!(!plain.names(&name("example.com"), 22));
        assert!(!plain.names(&name("a.example.com"), 443));
        assert!(below.names(&name("a.b.example.com"), 8443));
        assert!(!below.names(&name("example.com"), 8443));
        assert!(!below.names(&name("badexample.com"), 8443));
        assert!(!below.names(&name("a.example.com.evil.org"), 8443));
    }

    #[test]
    fn an_address_is_covered_in_either_of_its_forms() {
        let net = rule("10.1.0.0/16:5432");

        assert!(net.covers("10.1.9.9".parse().unwrap(), 5432));
        assert!(net.covers("::ffff:10.1.9.9".parse().unwrap(), 5432));
        assert!(!net.covers("10.2.0.1".parse().unwrap(), 5432));
        assert!(!net.covers("10.1.9.9".parse().unwrap(), 443));
        assert!(!rule("example.com").covers("10.1.9.9".parse().unwrap(), 443));
    }

    #[test]
    fn a_long_text_is_not_repeated_whole() {
        let error = "x".repeat(10_000).parse::<EgressRule>().unwrap_err();

        assert!(error.to_string().len() < 200);
    }
}
