//! Where a call goes: the directive's URL, judged, and the caller's path and query put behind it (contract: gateway.md
//! §14, §15.1; README D9, D18, D21).
//!
//! The directive alone chooses scheme, host and port. Addresses are judged twice at most: a literal here, and every
//! address, literal or resolved, by the connector that then dials exactly what it judged. A name is not resolved here,
//! because what a second look-up would say is anybody's guess.

use caracal_http::egress::{EgressError, GuardedConnector, Host, TargetUrl};
use http::Uri;

use super::query::{self, QueryFault};
use super::request::BuildFault;
use crate::exchange::Directive;

/// Why the guard refuses an upstream; for the operator, never for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAddressable {
    /// The URL is none, or its address must not be reached.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// `UPSTREAM_HOST_ALLOWLIST` does not have the host.
    #[error("host `{0}` is not in UPSTREAM_HOST_ALLOWLIST")]
    NotListed(String),
}

/// Judges the directive's URL (§14.1).
pub(crate) async fn judge(
    directive: &Directive,
    allowlist: &[String],
    connector: &GuardedConnector,
) -> Result<TargetUrl, NotAddressable> {
    let target = TargetUrl::parse(&directive.url).map_err(EgressError::from)?;
    let host = target.host().to_string();
    if !allowlist.is_empty() && !allowlist.contains(&host) {
        return Err(NotAddressable::NotListed(host));
    }
    if let Host::Address(_) = target.host() {
        connector.admit(target.host(), target.port()).await?;
    }
    Ok(target)
}

/// Whether the directive's credential may go to the target's host (§14.3).
pub(crate) fn may_receive_credential(target: &TargetUrl, directive: &Directive) -> bool {
    let host = target.host().to_string();
    let hosts = &directive.allowed_token_hosts;
    hosts.is_empty() || hosts.iter().any(|allowed| allowed.trim().eq_ignore_ascii_case(&host))
}

/// The target with the caller's path and query. `path` goes out byte for byte, behind the target's own base path.
pub(crate) fn address(
    target: &TargetUrl,
    path: &str,
    client_query: Option<&str>,
    credential: Option<(&str, &str)>,
) -> Result<Uri, BuildFault> {
    let query = query::merge(target.query(), client_query, credential).map_err(|fault| match fault {
        QueryFault::Separator | QueryFault::Escape => BuildFault::Query(fault),
    })?;
    let mut address = join(target.path(), path);
    if let Some(query) = query {
        address.push('?');
        address.push_str(&query);
    }
    target.uri_with(&address).map_err(|_| BuildFault::Address)
}

fn join(base: &str, path: &str) -> String {
    match (base, path) {
        ("/" | "", path) => path.to_owned(),
        (base, "/") => base.to_owned(),
        (base, path) => format!("{}{path}", base.trim_end_matches('/')),
    }
}

#[cfg(test)]
mod t03_gateway_egress {
    use std::sync::Arc;

    use caracal_http::egress::{AddressPolicy, PrivateHosts, SystemResolver, TlsTrust};

    use super::*;

    fn directive(url: &str, hosts: &[&str]) -> Directive {
        let allowed_token_hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        Directive { url: url.to_owned(), allowed_token_hosts, ..Directive::default() }
    }

    fn connector(policy: AddressPolicy) -> GuardedConnector {
        GuardedConnector::new(policy, Arc::new(SystemResolver::new()), TlsTrust::from_pem(false, None))
    }

    async fn admitted(url: &str, allowlist: &[&str]) -> bool {
        let allowlist: Vec<String> = allowlist.iter().map(|host| (*host).to_owned()).collect();
        let development = AddressPolicy::new(true, PrivateHosts::parse("10.0.0.1,fd00::1").unwrap());
        judge(&directive(url, &[]), &allowlist, &connector(development)).await.is_ok()
    }

    #[tokio::test]
    async fn only_absolute_urls_of_permitted_addresses_are_addressable() {
        for url in
            ["http://127.0.0.1:1/", "https://[::1]/", "http://10.0.0.1", "http://[fd00::1]/", "http://8.8.8.8/x?y"]
        {
            assert!(admitted(url, &[]).await, "{url}");
        }
        for url in [
            "",
            "/relative",
            "ftp://x",
            "http://u:p@h/",
            "http:///x",
            "http://169.254.169.254/",
            "http://[fe80::1%25eth0]/",
            "http://[::ffff:169.254.169.254]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://224.0.0.1/",
            "http://0.0.0.0/",
            "http://[::]/",
            "http://[ff02::1]/",
            "http://2852039166/",
            "http://0xa9fea9fe/",
            "http://10.0.0.2/",
            "http://192.168.0.1/",
        ] {
            assert!(!admitted(url, &[]).await, "{url}");
        }
        let strict = connector(AddressPolicy::default());
        for url in
            ["http://127.0.0.1/", "http://127.1/", "http://2130706433/", "http://0177.0.0.1/", "http://127.0.0.1./"]
        {
            let refused = judge(&directive(url, &[]), &[], &strict).await.unwrap_err();
            assert!(refused.to_string().contains("CARACAL_PRIVATE_EGRESS_HOSTS"), "{url}: {refused}");
        }
    }

    #[tokio::test]
    async fn an_allowlist_names_exact_hosts_without_port() {
        let list = ["api.example.com", "::1"];
        for url in ["https://API.example.com:8443/x", "http://api.example.com", "http://[::1]:80/"] {
            assert!(admitted(url, &list).await, "{url}");
        }
        for url in ["http://api.example.com./", "http://x.api.example.com/", "http://example.com/", "http://127.0.0.1/"]
        {
            assert!(!admitted(url, &list).await, "{url}");
        }
    }

    #[test]
    fn a_credential_goes_only_to_the_hosts_it_is_pinned_to() {
        let target = TargetUrl::parse("https://API.example.com:8443/").unwrap();
        for (hosts, expected) in [
            (&[][..], true),
            (&["api.example.com"], true),
            (&[" Api.Example.Com "], true),
            (&["other", "api.example.com"], true),
            (&["other"], false),
            (&["api.example.com:8443"], false),
            (&["example.com"], false),
            (&[""], false),
        ] {
            assert_eq!(may_receive_credential(&target, &directive("", hosts)), expected, "{hosts:?}");
        }
    }

    #[test]
    fn the_path_goes_out_as_it_came_behind_the_base() {
        for (url, path, query, expected) in [
            ("http://h", "/", None, "http://h/"),
            ("http://h/", "/a%2Fb/c%20d/", None, "http://h/a%2Fb/c%20d/"),
            ("http://h/base/", "/x/", None, "http://h/base/x/"),
            ("http://h/mcp", "/t/", None, "http://h/mcp/t/"),
            ("http://h/base/", "/", None, "http://h/base/"),
            ("http://h/base", "/", None, "http://h/base"),
            ("http://h/base", "/x", Some("a=1&b=%20&a=2"), "http://h/base/x?a=1&b=%20&a=2"),
            ("http://h/base?k=1#f", "/x", None, "http://h/base/x?k=1"),
            ("http://h/", "/x", Some(""), "http://h/x?"),
        ] {
            let target = TargetUrl::parse(url).unwrap();
            assert_eq!(address(&target, path, query, None).unwrap(), expected, "{url} {path}");
        }
    }

    #[test]
    fn nothing_in_path_or_query_changes_the_host() {
        let target = TargetUrl::parse("http://good.example:81/b").unwrap();
        for path in ["/@evil.example", "/.evil.example", "/:80", "/x?y", "/%2f%2fevil.example/"] {
            let uri = address(&target, path, Some("u=@evil.example:1"), None).unwrap();
            assert_eq!(uri.authority().unwrap(), "good.example:81", "{path}");
        }
    }
}
