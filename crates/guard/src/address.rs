//! Which addresses lead somewhere that a run has no business to be.
//!
//! Owns: the ranges that are not the public internet.
//! Reads: nothing.
//! Never: decides what is allowed; see `policy`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address is not one of the public internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Special {
    /// This machine.
    Loopback,
    /// A private network (RFC 1918, RFC 4193), or one behind a carrier's address translation (RFC 6598).
    Private,
    /// The link that this machine is on; the metadata services of clouds are there.
    LinkLocal,
    /// More than one machine.
    Multicast,
    /// Not given to anybody, or kept for documentation and tests.
    Reserved,
}

impl fmt::Display for Special {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::LinkLocal => "link-local",
            Self::Multicast => "multicast",
            Self::Reserved => "reserved",
        })
    }
}

/// Returns what is special about an address; `None` if it is one of the public internet.
///
/// Addresses of version 6 that carry one of version 4 (mapped, compatible, NAT64, 6to4) are what that one is.
pub fn special(address: IpAddr) -> Option<Special> {
    match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => match carried(address) {
            Some(inner) => special_v4(inner),
            None => special_v6(address),
        },
    }
}

fn special_v4(address: Ipv4Addr) -> Option<Special> {
    match address.octets() {
        [127, ..] => Some(Special::Loopback),
        // On Linux, 0.0.0.0 is this machine too.
        [0, ..] => Some(Special::Loopback),
        [10, ..] | [192, 168, ..] | [172, 16..=31, ..] | [100, 64..=127, ..] => {
            Some(Special::Private)
        }
        [169, 254, ..] => Some(Special::LinkLocal),
        [224..=239, ..] | [255, 255, 255, 255] => Some(Special::Multicast),
        [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        | [240..=255, ..] => Some(Special::Reserved),
        _ => None,
    }
}

fn special_v6(address: Ipv6Addr) -> Option<Special> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Some(Special::Loopback),
        [0xfc00..=0xfdff, ..] => Some(Special::Private),
        // The second is the old site-local range.
        [0xfe80..=0xfebf, ..] => Some(Special::LinkLocal),
        [0xfec0..=0xfeff, ..] => Some(Special::Private),
        [0xff00..=0xffff, ..] => Some(Special::Multicast),
        // Global unicast but for Teredo, benchmarking, ORCHID and documentation.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Some(Special::Reserved),
        [0x2000..=0x3fff, ..] => None,
        _ => Some(Special::Reserved),
    }
}

/// Returns the address of version 4 that one of version 6 leads to.
fn carried(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let v4 = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(v4(high, low))
        }
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_that_is_not_the_internet_is_known() {
        for (text, expected) in [
            ("127.0.0.1", Some(Special::Loopback)),
            ("127.255.0.3", Some(Special::Loopback)),
            ("0.0.0.0", Some(Special::Loopback)),
            ("::1", Some(Special::Loopback)),
            ("::", Some(Special::Loopback)),
            ("::ffff:127.0.0.1", Some(Special::Loopback)),
            ("::127.0.0.1", Some(Special::Loopback)),
            ("64:ff9b::7f00:1", Some(Special::Loopback)),
            ("2002:7f00:1::", Some(Special::Loopback)),
            ("10.0.0.1", Some(Special::Private)),
            ("172.16.0.1", Some(Special::Private)),
            ("172.31.255.255", Some(Special::Private)),
            ("192.168.1.1", Some(Special::Private)),
            ("100.64.0.1", Some(Special::Private)),
            ("fd00::1", Some(Special::Private)),
            ("fd00:ec2::254", Some(Special::Private)),
            ("fec0::1", Some(Special::Private)),
            ("::ffff:10.0.0.1", Some(Special::Private)),
            ("169.254.169.254", Some(Special::LinkLocal)),
            ("::ffff:169.254.169.254", Some(Special::LinkLocal)),
            ("64:ff9b::a9fe:a9fe", Some(Special::LinkLocal)),
            ("fe80::1", Some(Special::LinkLocal)),
            ("224.0.0.1", Some(Special::Multicast)),
            ("255.255.255.255", Some(Special::Multicast)),
            ("ff02::1", Some(Special::Multicast)),
            ("192.0.0.170", Some(Special::Reserved)),
            ("198.18.0.1", Some(Special::Reserved)),
            ("240.0.0.1", Some(Special::Reserved)),
            ("2001::1", Some(Special::Reserved)),
            ("2001:db8::1", Some(Special::Reserved)),
            ("100::1", Some(Special::Reserved)),
            ("172.15.255.255", None),
            ("172.32.0.1", None),
            ("100.128.0.1", None),
            ("9.9.9.9", None),
            ("2606:4700::1111", None),
            ("2001:4860:4860::8888", None),
            ("::ffff:9.9.9.9", None),
            ("2002:909:909::", None),
        ] {
            assert_eq!(special(text.parse().unwrap()), expected, "{text}");
        }
    }
}
