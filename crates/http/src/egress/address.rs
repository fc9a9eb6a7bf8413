//! What kind of place an address is.
//!
//! The IANA IPv4 and IPv6 Special-Purpose Address Registries in full, the multicast and deprecated ranges that stand
//! outside them, and the addresses at which clouds hand out credentials. Where an IPv6 address carries an IPv4 address
//! that the network will act on, the embedded one is judged. Of IPv6 only 2000::/3 can be public: what the registry
//! allocates next is refused until somebody says otherwise.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What kind of place an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressClass {
    /// Globally reachable and nobody's special case.
    Public,
    /// This host.
    Loopback,
    /// An organisation's own network: RFC 1918, shared address space (RFC 6598), unique local (RFC 4193).
    Private,
    /// This link only.
    LinkLocal,
    /// A cloud's metadata or platform service, whatever range it lies in.
    Metadata,
    /// Many hosts at once.
    Multicast,
    /// No host at all.
    Unspecified,
    /// Documentation, benchmarking, protocol assignments, transition prefixes, unallocated or deprecated space.
    Reserved,
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "public",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::LinkLocal => "link-local",
            Self::Metadata => "cloud metadata",
            Self::Multicast => "multicast",
            Self::Unspecified => "unspecified",
            Self::Reserved => "reserved",
        })
    }
}

/// Judges one address.
pub fn classify(address: IpAddr) -> AddressClass {
    match address {
        IpAddr::V4(v4) => classify_v4(v4),
        IpAddr::V6(v6) => classify_v6(v6),
    }
}

/// Metadata and platform services outside link-local space, and those within it that deserve their own name.
const METADATA_V4: [Ipv4Addr; 5] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];

const SPECIAL_V4: [(Ipv4Addr, u32, AddressClass); 19] = {
    use AddressClass::{LinkLocal, Loopback, Multicast, Private, Reserved};
    [
        (Ipv4Addr::new(0, 0, 0, 0), 8, Reserved),          // "this network"
        (Ipv4Addr::new(10, 0, 0, 0), 8, Private),          // RFC 1918
        (Ipv4Addr::new(100, 64, 0, 0), 10, Private),       // shared address space
        (Ipv4Addr::new(127, 0, 0, 0), 8, Loopback),        // loopback
        (Ipv4Addr::new(169, 254, 0, 0), 16, LinkLocal),    // link-local
        (Ipv4Addr::new(172, 16, 0, 0), 12, Private),       // RFC 1918
        (Ipv4Addr::new(192, 0, 0, 0), 24, Reserved),       // IETF protocol assignments
        (Ipv4Addr::new(192, 0, 2, 0), 24, Reserved),       // documentation
        (Ipv4Addr::new(192, 31, 196, 0), 24, Reserved),    // AS112
        (Ipv4Addr::new(192, 52, 193, 0), 24, Reserved),    // AMT
        (Ipv4Addr::new(192, 88, 99, 0), 24, Reserved),     // 6to4 relay, deprecated
        (Ipv4Addr::new(192, 168, 0, 0), 16, Private),      // RFC 1918
        (Ipv4Addr::new(192, 175, 48, 0), 24, Reserved),    // AS112 direct delegation
        (Ipv4Addr::new(198, 18, 0, 0), 15, Reserved),      // benchmarking
        (Ipv4Addr::new(198, 51, 100, 0), 24, Reserved),    // documentation
        (Ipv4Addr::new(203, 0, 113, 0), 24, Reserved),     // documentation
        (Ipv4Addr::new(224, 0, 0, 0), 4, Multicast),       // multicast
        (Ipv4Addr::new(240, 0, 0, 0), 4, Reserved),        // future use
        (Ipv4Addr::new(255, 255, 255, 255), 32, Reserved), // limited broadcast
    ]
};

fn classify_v4(address: Ipv4Addr) -> AddressClass {
    if METADATA_V4.contains(&address) {
        return AddressClass::Metadata;
    }
    if address.is_unspecified() {
        return AddressClass::Unspecified;
    }
    let within = |network: Ipv4Addr, length: u32| (address.to_bits() ^ network.to_bits()).leading_zeros() >= length;
    SPECIAL_V4
        .iter()
        .find(|(network, length, _)| within(*network, *length))
        .map_or(AddressClass::Public, |(_, _, class)| *class)
}

/// First match wins: the narrower prefix stands before the wider.
const SPECIAL_V6: [(Ipv6Addr, u32, AddressClass); 13] = {
    use AddressClass::{LinkLocal, Loopback, Metadata, Multicast, Private, Reserved, Unspecified};
    const fn prefix(a: u16, b: u16, c: u16) -> Ipv6Addr {
        Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)
    }
    [
        (Ipv6Addr::UNSPECIFIED, 128, Unspecified),
        (Ipv6Addr::LOCALHOST, 128, Loopback),
        (prefix(0xfd00, 0x0ec2, 0), 32, Metadata), // AWS: metadata, DNS, time, workload identity
        (Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254), 128, Metadata), // Google Cloud
        (prefix(0xfc00, 0, 0), 7, Private),        // unique local
        (prefix(0xfe80, 0, 0), 10, LinkLocal),     // link-local
        (prefix(0xff00, 0, 0), 8, Multicast),      // multicast
        (prefix(0x2001, 0, 0), 23, Reserved),      // IETF protocol assignments: Teredo, ORCHID, benchmarking, …
        (prefix(0x2001, 0x0db8, 0), 32, Reserved), // documentation
        (prefix(0x2002, 0, 0), 16, Reserved),      // 6to4: routed to whatever IPv4 address it embeds
        (prefix(0x2620, 0x004f, 0x8000), 48, Reserved), // AS112 direct delegation
        (prefix(0x3fff, 0, 0), 20, Reserved),      // documentation
        (prefix(0x3ffe, 0, 0), 16, Reserved),      // 6bone, returned
    ]
};

fn classify_v6(address: Ipv6Addr) -> AddressClass {
    let within = |network: Ipv6Addr, length: u32| (address.to_bits() ^ network.to_bits()).leading_zeros() >= length;
    if let Some(embedded) = embedded_v4(address) {
        return classify_v4(embedded);
    }
    if let Some((_, _, class)) = SPECIAL_V6.iter().find(|(network, length, _)| within(*network, *length)) {
        return *class;
    }
    // Everything else outside global unicast, among it discard-only 100::/64, local NAT64 64:ff9b:1::/48, IPv4-compatible
    // and IPv4-translated forms, SRv6 5f00::/16 and deprecated site-local fec0::/10, is nowhere to go.
    let global_unicast = Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0);
    if within(global_unicast, 3) { AddressClass::Public } else { AddressClass::Reserved }
}

/// The IPv4 address that a connection to `address` would really go to: mapped (::ffff:0:0/96) and well-known NAT64
/// (64:ff9b::/96) forms.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => {
            let [.., a, b, c, d] = address.octets();
            Some(Ipv4Addr::new(a, b, c, d))
        }
        _ => None,
    }
}

#[cfg(test)]
mod t03_gateway_egress {
    use proptest::prelude::*;

    use super::AddressClass::*;
    use super::*;

    /// Every entry of both registries, the multicast and deprecated ranges, and who is to be found there.
    const REGISTRIES: &[(&str, u32, AddressClass)] = &[
        ("0.0.0.0", 32, Unspecified),
        ("0.0.0.1", 32, Reserved),
        ("0.128.0.0", 9, Reserved),
        ("10.0.0.0", 8, Private),
        ("100.64.0.0", 10, Private),
        ("127.0.0.0", 8, Loopback),
        ("169.254.0.0", 16, LinkLocal),
        ("172.16.0.0", 12, Private),
        ("192.0.0.0", 24, Reserved),
        ("192.0.0.0", 29, Reserved),
        ("192.0.0.8", 32, Reserved),
        ("192.0.0.9", 32, Reserved),
        ("192.0.0.10", 32, Reserved),
        ("192.0.0.170", 31, Reserved),
        ("192.0.2.0", 24, Reserved),
        ("192.31.196.0", 24, Reserved),
        ("192.52.193.0", 24, Reserved),
        ("192.88.99.0", 24, Reserved),
        ("192.168.0.0", 16, Private),
        ("192.175.48.0", 24, Reserved),
        ("198.18.0.0", 15, Reserved),
        ("198.51.100.0", 24, Reserved),
        ("203.0.113.0", 24, Reserved),
        ("224.0.0.0", 4, Multicast),
        ("240.0.0.0", 4, Reserved),
        ("255.255.255.255", 32, Reserved),
        ("::", 128, Unspecified),
        ("::1", 128, Loopback),
        ("::2", 128, Reserved),
        ("::7f00:1", 128, Reserved),
        ("::ffff:7f00:0", 104, Loopback),
        ("::ffff:0:0:0", 96, Reserved),
        ("64:ff9b::7f00:0", 104, Loopback),
        ("64:ff9b:1::", 48, Reserved),
        ("100::", 64, Reserved),
        ("100:0:0:1::", 64, Reserved),
        ("2001::", 23, Reserved),
        ("2001::", 32, Reserved),
        ("2001:1::1", 128, Reserved),
        ("2001:1::2", 128, Reserved),
        ("2001:1::3", 128, Reserved),
        ("2001:2::", 48, Reserved),
        ("2001:3::", 32, Reserved),
        ("2001:4:112::", 48, Reserved),
        ("2001:10::", 28, Reserved),
        ("2001:20::", 28, Reserved),
        ("2001:30::", 28, Reserved),
        ("2001:db8::", 32, Reserved),
        ("2002::", 16, Reserved),
        ("2620:4f:8000::", 48, Reserved),
        ("3ffe::", 16, Reserved),
        ("3fff::", 20, Reserved),
        ("5f00::", 16, Reserved),
        ("fc00::", 8, Private),
        ("fd01::", 16, Private),
        ("fe80::", 10, LinkLocal),
        ("fec0::", 10, Reserved),
        ("ff00::", 8, Multicast),
        ("ff02::1", 128, Multicast),
    ];

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn last_of(network: IpAddr, length: u32) -> IpAddr {
        match network {
            IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() | u32::MAX.checked_shr(length).unwrap_or(0)).into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() | u128::MAX.checked_shr(length).unwrap_or(0)).into(),
        }
    }

    #[test]
    fn registries_are_covered_completely() {
        for (network, length, class) in REGISTRIES {
            let first = ip(network);
            assert_eq!(classify(first), *class, "{network}/{length}");
            assert_eq!(classify(last_of(first, *length)), *class, "last of {network}/{length}");
        }
    }

    #[test]
    fn what_lies_just_outside_a_range_is_public() {
        for public in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "168.63.129.17",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "191.255.255.255",
            "192.0.1.0",
            "192.0.3.0",
            "192.31.195.255",
            "192.31.197.0",
            "192.52.192.255",
            "192.52.194.0",
            "192.88.98.255",
            "192.88.100.0",
            "192.167.255.255",
            "192.169.0.0",
            "192.175.47.255",
            "192.175.49.0",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.99.255",
            "198.51.101.0",
            "203.0.112.255",
            "203.0.114.0",
            "223.255.255.255",
            "8.8.8.8",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2000::",
            "2001:200::",
            "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
            "2001:db9::",
            "2001:ffff::",
            "2003::",
            "2620:4f:7fff::",
            "2620:4f:8001::",
            "2606:4700::1111",
            "3ffd:ffff::",
            "3fff:1000::",
        ] {
            assert_eq!(classify(ip(public)), Public, "{public}");
        }
    }

    #[test]
    fn metadata_is_recognised_whatever_range_it_lies_in() {
        for metadata in [
            "169.254.169.254",
            "169.254.170.2",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "::ffff:169.254.169.254",
            "::ffff:100.100.100.200",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b::168.63.129.16",
        ] {
            assert_eq!(classify(ip(metadata)), Metadata, "{metadata}");
        }
    }

    proptest! {
        #[test]
        fn an_embedded_address_is_judged_like_itself(bits in any::<u32>()) {
            let plain = Ipv4Addr::from_bits(bits);
            let [a, b] = [bits >> 16, bits & 0xffff].map(|half| u16::try_from(half).unwrap());
            let class = classify(plain.into());
            prop_assert_eq!(classify(plain.to_ipv6_mapped().into()), class);
            prop_assert_eq!(classify(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a, b).into()), class);
            for other in [
                Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, a, b),
                Ipv6Addr::new(0x2002, a, b, 0, 0, 0, 0, 1),
                Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, a, b),
                Ipv6Addr::new(0x2001, 0, a, b, 0, 0, 0, 0),
            ] {
                prop_assert_eq!(classify(other.into()), Reserved);
            }
        }

        #[test]
        fn nothing_outside_global_unicast_is_public(bits in any::<u128>()) {
            let address = Ipv6Addr::from_bits(bits);
            if address.segments()[0] >> 13 != 1 && embedded_v4(address).is_none() {
                prop_assert_ne!(classify(address.into()), Public);
            }
        }
    }
}
