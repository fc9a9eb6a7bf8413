//! Where somebody wants us to connect: whatever is accepted names one host and port, to us, to the HTTP client that
//! dials and to the URL standard; read again in its normal form, it is the same target; and no way of writing an address
//! gets it past the guard.

use std::net::IpAddr;

use caracal_http::egress::{AddressClass, AddressPolicy, Host, PrivateHosts, TargetUrl, classify};

/// Panics where a rule is broken.
pub(crate) fn attack(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = PrivateHosts::parse(text);
    let Ok(target) = TargetUrl::parse(text) else { return };
    let again = TargetUrl::parse(target.as_str()).expect("its own normal form");
    assert_eq!(again, target);
    assert_eq!(again.as_str(), target.as_str());

    let standard = url::Url::parse(text).expect("a URL to everybody");
    assert_eq!(standard.port_or_known_default(), Some(target.port()));
    assert_eq!(standard.path(), target.path());
    assert!(standard.username().is_empty() && standard.password().is_none());
    match (standard.host().expect("a host"), target.host()) {
        (url::Host::Domain(name), Host::Name(own)) => assert_eq!(name, own),
        (url::Host::Ipv4(address), Host::Address(own)) => assert_eq!(IpAddr::from(address), *own),
        (url::Host::Ipv6(address), Host::Address(own)) => assert_eq!(IpAddr::from(address), *own),
        (standard, own) => panic!("{standard:?} is not {own:?}"),
    }

    // The client knows fewer characters than the standard allows in a host; then there is nothing to dial.
    if let Ok(uri) = target.to_uri() {
        assert_eq!(Host::parse(uri.host().expect("a host")), Ok(target.host().clone()));
        assert_eq!(uri.port_u16().unwrap_or(if target.is_https() { 443 } else { 80 }), target.port());
    }

    let printed = target.host().to_string();
    assert!(printed.parse::<IpAddr>().is_ok() == matches!(target.host(), Host::Address(_)), "{printed}");
    if let Host::Address(address) = target.host() {
        let admitted = AddressPolicy::default().admit(target.host(), target.port(), &[*address]);
        assert_eq!(admitted.is_ok(), classify(*address) == AddressClass::Public);
        let listed = AddressPolicy::new(true, PrivateHosts::from_iter([printed.clone()]));
        let admissible =
            matches!(classify(*address), AddressClass::Public | AddressClass::Loopback | AddressClass::Private);
        assert_eq!(listed.admit(target.host(), target.port(), &[*address]).is_ok(), admissible);
    }
    // A list has commas between its entries and takes no wildcards.
    assert!(
        printed.contains([',', '*']) || PrivateHosts::parse(&printed).is_ok_and(|hosts| hosts.contains(target.host()))
    );
}
