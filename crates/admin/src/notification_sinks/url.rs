//! Where notifications may be sent (contract: admin-api.md §5.10, §7).
//!
//! What can be seen to be wrong is refused when it is saved. Where a name leads is judged each time something is sent, by
//! the guard that every outbound call passes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use caracal_http::egress::{AddressClass, Host, Scheme, TargetUrl, classify};

use crate::problem::Refusal;

/// Refuses what is no address of a receiver.
pub(super) fn check(text: &str) -> Result<(), Refusal> {
    let refused = |why: &str| Err(Refusal::invalid("invalid_sink_url").describe(format!("url: {why}")));
    let url = match TargetUrl::parse(text) {
        Ok(url) => url,
        Err(error) => return refused(&error.to_string()),
    };
    match (url.scheme(), url.host()) {
        (Scheme::Http, Host::Name(name)) if name == "localhost" => Ok(()),
        (Scheme::Http, Host::Address(address)) if is_this_host(*address) => Ok(()),
        (Scheme::Http, _) => refused("must be https; http is for localhost, 127.0.0.1 and ::1 alone"),
        (Scheme::Https, Host::Address(address)) if classify(*address) != AddressClass::Public => {
            refused(&format!("names a {} address; name a host that is reached from outside", classify(*address)))
        }
        (Scheme::Https, _) => Ok(()),
    }
}

fn is_this_host(address: IpAddr) -> bool {
    address == IpAddr::V4(Ipv4Addr::LOCALHOST) || address == IpAddr::V6(Ipv6Addr::LOCALHOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t03_egress_a_sink_is_https_outside_or_http_on_this_host() {
        for (text, accepted) in [
            ("https://hooks.example/in?token=x", true),
            ("https://93.184.216.34/", true),
            ("https://[2606:4700::1111]:8443/", true),
            ("http://localhost:3000/h", true),
            ("http://127.0.0.1/h", true),
            ("http://[::1]/h", true),
            ("http://hooks.example", false),
            ("http://127.0.0.2/h", false),
            ("http://localhost.example/", false),
            ("https://10.0.0.1", false),
            ("https://127.0.0.1/", false),
            ("https://169.254.169.254/", false),
            ("https://2852039166/", false),
            ("https://[fe90::1]/", false),
            ("https://[::ffff:10.0.0.1]/", false),
            ("https://[64:ff9b::a9fe:a9fe]/", false),
            ("https://u:p@hooks.example/", false),
            ("ftp://x", false),
            ("hooks.example", false),
            ("https://", false),
        ] {
            assert_eq!(check(text).is_ok(), accepted, "{text}");
        }
    }
}
