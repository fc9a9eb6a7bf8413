//! Where somebody wants us to connect.

use std::fmt;
use std::net::IpAddr;

use http::Uri;
use url::Url;

/// Why a text is not a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Relative, unparsable, or with characters that parsers silently repair.
    #[error("not an absolute url")]
    NotAbsolute,
    /// Neither `http` nor `https`.
    #[error("scheme must be http or https")]
    Scheme,
    /// No host, or one that is neither a name nor an address.
    #[error("url has no usable host")]
    Host,
    /// `user:password@`, which hides the host from people and leaks into logs.
    #[error("url must not carry user information")]
    UserInfo,
}

/// How a target is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

/// A host as the URL standard reads it: lower case, IDNA applied, every spelling of an IPv4 address recognised as one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// To be resolved.
    Name(String),
    /// Taken as it is.
    Address(IpAddr),
}

impl Host {
    /// Reads the host of a URL (IPv6 addresses in brackets).
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        match url::Host::parse(text).map_err(|_| TargetError::Host)? {
            // The URL standard lets quotes and other signs stand in a name; no DNS name has them and no HTTP client sends them.
            url::Host::Domain(name)
                if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) =>
            {
                Ok(Self::Name(name))
            }
            url::Host::Domain(_) => Err(TargetError::Host),
            url::Host::Ipv4(address) => Ok(Self::Address(address.into())),
            url::Host::Ipv6(address) => Ok(Self::Address(address.into())),
        }
    }
}

/// Without brackets.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// An absolute `http` or `https` URL with a host and without user information; any port, path and query, no fragment.
///
/// The URL standard repairs a lot (backslashes, tabs, missing slashes). People who read the text and programs that parse
/// it must see the same host, so what would need repair before the path is refused instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetUrl {
    url: Url,
    scheme: Scheme,
    host: Host,
    port: u16,
}

impl TargetUrl {
    /// Parses `text`; see the type for what is accepted.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        if text.chars().any(|character| character.is_control() || character.is_whitespace()) {
            return Err(TargetError::NotAbsolute);
        }
        let (scheme, rest) = text.split_once("://").ok_or(TargetError::NotAbsolute)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(TargetError::Scheme),
        };
        let authority = &rest[..rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len())];
        if authority.contains('@') {
            return Err(TargetError::UserInfo);
        }
        if authority.is_empty() || authority.starts_with(':') {
            return Err(TargetError::Host);
        }
        if rest[authority.len()..].starts_with('\\') {
            return Err(TargetError::NotAbsolute);
        }
        let mut url = Url::parse(text).map_err(|error| match error {
            url::ParseError::InvalidPort => TargetError::NotAbsolute,
            _ => TargetError::Host,
        })?;
        url.set_fragment(None);
        let host = Host::parse(url.host_str().ok_or(TargetError::Host)?)?;
        let port = url.port_or_known_default().ok_or(TargetError::NotAbsolute)?;
        Ok(Self { url, scheme, host, port })
    }

    /// The whole URL, normalised. May carry a credential in its query: not for logs.
    pub fn as_str(&self) -> &str {
        self.url.as_str()
    }

    /// With or without TLS.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whether it is `https`.
    pub fn is_https(&self) -> bool {
        self.scheme == Scheme::Https
    }

    /// The host, without brackets when printed.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, the scheme's own where none is written.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and, unless it is the scheme's own, port: the value of a `Host` header.
    pub fn authority(&self) -> &str {
        &self.url[url::Position::BeforeHost..url::Position::AfterPort]
    }

    /// The path: at least `/`, percent-encoded.
    pub fn path(&self) -> &str {
        self.url.path()
    }

    /// The query without its `?`.
    pub fn query(&self) -> Option<&str> {
        self.url.query()
    }

    /// The target for an HTTP client.
    pub fn to_uri(&self) -> Result<Uri, TargetError> {
        self.uri_with(&self.url[url::Position::BeforePath..url::Position::AfterQuery])
    }

    /// The same place with another path and query, sent byte for byte. Must begin with `/` and have no fragment.
    pub fn uri_with(&self, path_and_query: &str) -> Result<Uri, TargetError> {
        if !path_and_query.starts_with('/') || path_and_query.contains('#') {
            return Err(TargetError::NotAbsolute);
        }
        let scheme = self.url.scheme();
        Uri::builder()
            .scheme(scheme)
            .authority(self.authority())
            .path_and_query(path_and_query)
            .build()
            .map_err(|_| TargetError::NotAbsolute)
    }
}

#[cfg(test)]
mod t03_gateway_egress {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn targets_are_read_as_browsers_read_them() {
        for (text, authority, host, port, path_and_query) in [
            ("http://api.example.com", "api.example.com", "api.example.com", 80, "/"),
            (
                "HTTPS://API.Example.com:8443/v1/?x=%2F#frag",
                "api.example.com:8443",
                "api.example.com",
                8443,
                "/v1/?x=%2F",
            ),
            ("https://api.example.com:443/a", "api.example.com", "api.example.com", 443, "/a"),
            ("https://api.example.com./", "api.example.com.", "api.example.com.", 443, "/"),
            ("http://[FD00::1]:8080/", "[fd00::1]:8080", "fd00::1", 8080, "/"),
            ("http://0x7f.1/", "127.0.0.1", "127.0.0.1", 80, "/"),
            ("http://2852039166/", "169.254.169.254", "169.254.169.254", 80, "/"),
            ("http://127.1:9/", "127.0.0.1:9", "127.0.0.1", 9, "/"),
            ("https://bücher.example/", "xn--bcher-kva.example", "xn--bcher-kva.example", 443, "/"),
            ("http://h/a/@b?c=@d", "h", "h", 80, "/a/@b?c=@d"),
        ] {
            let target = TargetUrl::parse(text).unwrap();
            assert_eq!(target.authority(), authority, "{text}");
            assert_eq!(target.host().to_string(), host, "{text}");
            assert_eq!(target.port(), port, "{text}");
            let uri = target.to_uri().unwrap();
            assert_eq!(uri.path_and_query().unwrap().as_str(), path_and_query, "{text}");
            assert_eq!(uri.authority().unwrap().as_str(), authority, "{text}");
        }
    }

    #[test]
    fn whatever_would_need_repair_is_refused() {
        for (text, expected) in [
            ("", TargetError::NotAbsolute),
            ("/relative", TargetError::NotAbsolute),
            ("//host/x", TargetError::NotAbsolute),
            ("http:host", TargetError::NotAbsolute),
            ("http:/host", TargetError::NotAbsolute),
            ("http://ho st/", TargetError::NotAbsolute),
            (" http://host/", TargetError::NotAbsolute),
            ("http://host/\n", TargetError::NotAbsolute),
            ("ht\ttp://host/", TargetError::NotAbsolute),
            ("http://good.example\\@evil.example/", TargetError::NotAbsolute),
            ("http://host:99999/", TargetError::NotAbsolute),
            ("http://host:80x/", TargetError::NotAbsolute),
            ("ftp://host/", TargetError::Scheme),
            ("file:///etc/passwd", TargetError::Scheme),
            ("javascript://host/", TargetError::Scheme),
            ("http://", TargetError::Host),
            ("http:///path", TargetError::Host),
            ("http://:80/", TargetError::Host),
            ("http:///host/", TargetError::Host),
            ("http://[fe80::1%25eth0]/", TargetError::Host),
            ("http://[::1/", TargetError::Host),
            ("http://1.2.3.4.5/", TargetError::Host),
            ("http://256.1.1.1/", TargetError::Host),
            ("http://a%00b/", TargetError::Host),
            ("http://%22/", TargetError::Host),
            ("http://a'b;c/", TargetError::Host),
            ("http://user:pass@host/", TargetError::UserInfo),
            ("http://user@host/", TargetError::UserInfo),
            ("http://@host/", TargetError::UserInfo),
            ("http://host@/", TargetError::UserInfo),
        ] {
            assert_eq!(TargetUrl::parse(text).err(), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn another_path_goes_out_byte_for_byte() {
        let target = TargetUrl::parse("https://api.example.com/base?key=1").unwrap();
        let uri = target.uri_with("/a%2Fb//c/?x=1&&y=%zz").unwrap();
        assert_eq!(uri, "https://api.example.com/a%2Fb//c/?x=1&&y=%zz");
        for bad in ["", "a", "@evil.example/", "/a b", "/a#b", "?x"] {
            assert!(target.uri_with(bad).is_err_and(|error| error == TargetError::NotAbsolute), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_target_names_one_host_to_everybody(text in r"http://[a-z0-9.:@\\/?#%\[\]xX-]{0,20}") {
            if let Ok(target) = TargetUrl::parse(&text) {
                let uri = target.to_uri().unwrap();
                prop_assert_eq!(Host::parse(uri.host().unwrap()).unwrap(), target.host().clone());
                prop_assert_eq!(uri.port_u16().unwrap_or(80), target.port());
            }
        }
    }
}
