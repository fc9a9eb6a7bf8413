//! Which addresses may be dialled.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::EgressError;
use super::address::{AddressClass, classify};
use super::target::Host;

/// Admits private addresses, and loopback, for exact host names.
const PRIVATE_HOSTS_VARIABLE: &str = "CARACAL_PRIVATE_EGRESS_HOSTS";
const LOOPBACK_VARIABLES: &str = "CARACAL_MODE=dev or CARACAL_PRIVATE_EGRESS_HOSTS";

/// An entry of `CARACAL_PRIVATE_EGRESS_HOSTS` that is not a bare host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a host: expected a name or address without scheme, port, path or wildcard")]
pub struct BadPrivateHost(pub String);

/// The exact hosts whose addresses may be private: the value of `CARACAL_PRIVATE_EGRESS_HOSTS`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrivateHosts(BTreeSet<String>);

impl PrivateHosts {
    /// Parses a comma-separated list; case and surrounding blanks do not matter, empty entries are skipped, IPv6
    /// addresses may stand with or without brackets.
    pub fn parse(list: &str) -> Result<Self, BadPrivateHost> {
        let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries.map(|entry| parse_entry(entry).ok_or_else(|| BadPrivateHost(entry.to_owned()))).collect()
    }

    /// Whether exactly this host is listed. `api.example.` is not `api.example`.
    pub fn contains(&self, host: &Host) -> bool {
        self.0.contains(&host.to_string())
    }
}

impl FromIterator<String> for PrivateHosts {
    fn from_iter<I: IntoIterator<Item = String>>(hosts: I) -> Self {
        Self(hosts.into_iter().collect())
    }
}

fn parse_entry(entry: &str) -> Option<String> {
    if let Ok(address) = entry.parse::<Ipv6Addr>() {
        return Some(address.to_string());
    }
    if entry.contains(['*', '@', '/']) {
        return None;
    }
    Host::parse(entry).ok().map(|host| host.to_string())
}

/// Which addresses may be dialled (README D9).
///
/// Public ones always. Private ones when the exact host is listed. Loopback when it is listed or in development. Never
/// link-local, cloud metadata, multicast, unspecified and reserved ones, listed or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    admit_loopback: bool,
    private_hosts: PrivateHosts,
}

impl AddressPolicy {
    /// `admit_loopback` is for `CARACAL_MODE=dev` only.
    pub fn new(admit_loopback: bool, private_hosts: PrivateHosts) -> Self {
        Self { admit_loopback, private_hosts }
    }

    /// Judges every address that `host` resolved to. One bad answer refuses all: a resolver that mixes them is hostile
    /// or misconfigured, and dialling only its good answers would make the outcome a matter of luck.
    pub fn admit(&self, host: &Host, port: u16, addresses: &[IpAddr]) -> Result<Admitted, EgressError> {
        if addresses.is_empty() {
            return Err(EgressError::ResolveFailed { host: host.to_string(), reason: "no address".to_owned() });
        }
        let listed = self.private_hosts.contains(host);
        let refused = addresses.iter().map(|address| classify(*address)).filter(|class| !self.admits(*class, listed));
        // A refusal that no setting can lift is the one to report.
        let worst = refused.reduce(|worst, class| if remedy(worst).is_none() { worst } else { class });
        match worst {
            Some(class) => Err(EgressError::Refused { host: host.to_string(), class, admitted_by: remedy(class) }),
            None => {
                let addresses = addresses.iter().map(|address| SocketAddr::new(*address, port)).collect();
                Ok(Admitted { host: host.clone(), addresses })
            }
        }
    }

    fn admits(&self, class: AddressClass, listed: bool) -> bool {
        match class {
            AddressClass::Public => true,
            AddressClass::Loopback => self.admit_loopback || listed,
            AddressClass::Private => listed,
            AddressClass::LinkLocal
            | AddressClass::Metadata
            | AddressClass::Multicast
            | AddressClass::Unspecified
            | AddressClass::Reserved => false,
        }
    }
}

fn remedy(class: AddressClass) -> Option<&'static str> {
    match class {
        AddressClass::Loopback => Some(LOOPBACK_VARIABLES),
        AddressClass::Private => Some(PRIVATE_HOSTS_VARIABLE),
        _ => None,
    }
}

/// Addresses that a policy has admitted, in the resolver's order. Only [`AddressPolicy::admit`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    host: Host,
    addresses: Vec<SocketAddr>,
}

impl Admitted {
    /// The host that was judged.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// What may be dialled; never empty.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

#[cfg(test)]
mod t03_gateway_egress {
    use super::*;
    use crate::egress::TargetUrl;

    fn policy(dev: bool, hosts: &str) -> AddressPolicy {
        AddressPolicy::new(dev, PrivateHosts::parse(hosts).unwrap())
    }

    fn judge(
        policy: &AddressPolicy,
        host: &str,
        addresses: &[&str],
    ) -> Result<(), (AddressClass, Option<&'static str>)> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        match policy.admit(&Host::parse(host).unwrap(), 443, &addresses) {
            Ok(admitted) => {
                assert_eq!(admitted.addresses().len(), addresses.len());
                Ok(())
            }
            Err(EgressError::Refused { class, admitted_by, .. }) => Err((class, admitted_by)),
            Err(other) => panic!("{other}"),
        }
    }

    const LISTED: Option<&str> = Some(PRIVATE_HOSTS_VARIABLE);

    #[test]
    fn private_addresses_need_their_exact_host_listed() {
        let listed = policy(false, " Crm.Internal ,, 10.0.0.9, fd00::9,[fd00::8]");
        for (host, address, expected) in [
            ("crm.internal", "10.1.2.3", Ok(())),
            ("CRM.internal", "fd00::1", Ok(())),
            ("crm.internal", "100.64.0.1", Ok(())),
            ("crm.internal", "64:ff9b::a00:1", Ok(())),
            ("crm.internal", "8.8.8.8", Ok(())),
            ("10.0.0.9", "10.0.0.9", Ok(())),
            ("[fd00::9]", "fd00::9", Ok(())),
            ("[FD00:0::8]", "fd00::8", Ok(())),
            ("crm.internal.", "10.1.2.3", Err((AddressClass::Private, LISTED))),
            ("x.crm.internal", "10.1.2.3", Err((AddressClass::Private, LISTED))),
            ("10.0.0.8", "10.0.0.8", Err((AddressClass::Private, LISTED))),
            ("other", "192.168.0.1", Err((AddressClass::Private, LISTED))),
            ("other", "::ffff:192.168.0.1", Err((AddressClass::Private, LISTED))),
        ] {
            assert_eq!(judge(&listed, host, &[address]), expected, "{host} {address}");
        }
    }

    #[test]
    fn loopback_needs_development_or_its_host_listed() {
        let refused = Err((AddressClass::Loopback, Some(LOOPBACK_VARIABLES)));
        assert_eq!(judge(&policy(false, ""), "localhost", &["127.0.0.1"]), refused);
        assert_eq!(judge(&policy(false, "other"), "localhost", &["::1"]), refused);
        assert_eq!(judge(&policy(true, ""), "localhost", &["127.0.0.1", "::1"]), Ok(()));
        assert_eq!(judge(&policy(false, "localhost"), "localhost", &["127.8.8.8"]), Ok(()));
        assert_eq!(judge(&policy(true, ""), "x", &["10.0.0.1"]), Err((AddressClass::Private, LISTED)));
    }

    #[test]
    fn some_addresses_are_never_admitted() {
        let everything = policy(true, "host,169.254.169.254");
        for (address, class) in [
            ("169.254.1.1", AddressClass::LinkLocal),
            ("fe80::1", AddressClass::LinkLocal),
            ("169.254.169.254", AddressClass::Metadata),
            ("fd00:ec2::254", AddressClass::Metadata),
            ("100.100.100.200", AddressClass::Metadata),
            ("224.0.0.1", AddressClass::Multicast),
            ("0.0.0.0", AddressClass::Unspecified),
            ("::", AddressClass::Unspecified),
            ("255.255.255.255", AddressClass::Reserved),
            ("2002:a00:1::", AddressClass::Reserved),
            ("64:ff9b:1::a00:1", AddressClass::Reserved),
        ] {
            assert_eq!(judge(&everything, "host", &[address]), Err((class, None)), "{address}");
        }
    }

    #[test]
    fn one_bad_answer_refuses_all_and_the_hopeless_one_is_reported() {
        let strict = policy(false, "");
        assert_eq!(judge(&strict, "h", &["8.8.8.8", "169.254.0.1"]), Err((AddressClass::LinkLocal, None)));
        assert_eq!(
            judge(&strict, "h", &["10.0.0.1", "169.254.0.1", "127.0.0.1"]),
            Err((AddressClass::LinkLocal, None))
        );
        assert_eq!(judge(&strict, "h", &["8.8.8.8", "10.0.0.1"]), Err((AddressClass::Private, LISTED)));
        let none = strict.admit(&Host::Name("h".to_owned()), 443, &[]);
        assert!(matches!(none, Err(EgressError::ResolveFailed { .. })));
    }

    #[test]
    fn the_refusal_names_the_variable_that_would_admit() {
        let text = |host: &str, address: &str| {
            let address = [address.parse().unwrap()];
            policy(false, "").admit(&Host::parse(host).unwrap(), 80, &address).unwrap_err().to_string()
        };
        let private = "egress to `crm` refused: private address (admitted by CARACAL_PRIVATE_EGRESS_HOSTS)";
        assert_eq!(text("crm", "10.0.0.1"), private);
        assert!(text("localhost", "127.0.0.1").contains("CARACAL_MODE=dev"));
        assert_eq!(text("x", "169.254.169.254"), "egress to `x` refused: cloud metadata address");
    }

    #[test]
    fn a_list_with_anything_but_hosts_is_refused() {
        for bad in
            ["*.internal", "a.example,http://b.example", "b.example:8080", "b.example/x", "u@b", "a b", "[fd00::1"]
        {
            assert!(PrivateHosts::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(PrivateHosts::parse(" , ").unwrap(), PrivateHosts::default());
    }

    #[test]
    fn metadata_is_refused_in_every_spelling() {
        let spellings = [
            "169.254.169.254",
            "169.254.169.254.",
            "2852039166",
            "0xa9fea9fe",
            "0xA9.0xFE.0xA9.0xFE",
            "0251.0376.0251.0376",
            "169.254.43518",
            "169.16689662",
            "[::ffff:169.254.169.254]",
            "[::ffff:a9fe:a9fe]",
            "[0:0:0:0:0:FFFF:A9FE:A9FE]",
            "[64:ff9b::169.254.169.254]",
            "[64:ff9b::a9fe:a9fe]",
            "[64:ff9b:1::a9fe:a9fe]",
            "[::a9fe:a9fe]",
            "[2002:a9fe:a9fe::1]",
            "[::ffff:0:a9fe:a9fe]",
            "169。254。169。254",
            "１６９.２５４.１６９.２５４",
            "%31%36%39.254.169.254",
            "[fd00:ec2::254]",
            "[fd00:0ec2:0::0254]",
            "[fd20:ce::254]",
            "100.100.100.200",
            "0x64.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "[::ffff:168.63.129.16]",
        ];
        for spelling in spellings {
            let target = TargetUrl::parse(&format!("http://{spelling}/latest/meta-data")).unwrap();
            let Host::Address(address) = *target.host() else { panic!("{spelling} is not seen as an address") };
            // The most permissive configuration there is: development, and this very host listed.
            let permissive = AddressPolicy::new(true, PrivateHosts::from_iter([target.host().to_string()]));
            let refused = permissive.admit(target.host(), 80, &[address]);
            assert!(matches!(refused, Err(EgressError::Refused { admitted_by: None, .. })), "{spelling}");
        }
    }
}
