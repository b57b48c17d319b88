//! Which names the service answers to, and for whose pages.
//!
//! A web page can make a browser send requests to this machine. Two things give it away: the
//! `Host` header names what the page called this service (DNS rebinding makes that the
//! attacker's own name), and `Origin` names the page. Both must be ours. A literal address
//! cannot be rebound, so a service that listens on all addresses answers to any of them.

use crate::error::{Code, Rejection, shown};
use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

/// An entry of `allowed_hosts` makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{entry}` in allowed_hosts is not a host: write a name or address, with `:port` if only that port is meant"
)]
pub struct HostPolicyError {
    /// The entry, cut to 120 characters.
    pub entry: String,
}

/// Which names the service answers to.
#[derive(Clone, Debug)]
pub struct HostPolicy {
    allowed: Vec<Authority>,
    listen: IpAddr,
}

impl HostPolicy {
    /// `allowed_hosts` are names or addresses, with a port if only that port is meant;
    /// `listen` is the address that the service is bound to.
    pub fn new<T: AsRef<str>>(
        allowed_hosts: impl IntoIterator<Item = T>,
        listen: IpAddr,
    ) -> Result<Self, HostPolicyError> {
        let parse = |entry: T| {
            let entry = entry.as_ref().trim();
            Authority::from_str(entry)
                .map_err(|NoAuthority| HostPolicyError { entry: shown(entry) })
        };
        let allowed = allowed_hosts.into_iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Self { allowed, listen: listen.to_canonical() })
    }

    /// Refuses a request that was made under a name which is not ours, or by a page of somebody
    /// else: 403. A request without `Host` is not a browser's; it may not have an `Origin`.
    pub fn check(&self, host: Option<&str>, origin: Option<&str>) -> Result<(), Rejection> {
        let host = match host {
            None => None,
            Some(text) => match Authority::from_str(text) {
                Ok(host) if self.is_ours(&host) => Some(host),
                _ => {
                    return Err(forbidden(format!(
                        "the service does not answer to the host `{}`; if it should, add it to \
                     `allowed_hosts`",
                        shown(text)
                    )));
                }
            },
        };
        match origin {
            None => Ok(()),
            Some(text) if self.is_our_page(host.as_ref(), text) => Ok(()),
            Some(text) => Err(forbidden(format!(
                "pages of `{}` may not use this service; if they should, add their host to \
                 `allowed_hosts`",
                shown(text)
            ))),
        }
    }

    fn is_ours(&self, host: &Authority) -> bool {
        let by_address = match host.name {
            Name::Address(address) if address.is_loopback() || address == self.listen => true,
            Name::Address(_) => self.listen.is_unspecified(),
            Name::Dns(ref name) => name == "localhost",
        };
        by_address || self.is_allowed(host)
    }

    fn is_allowed(&self, host: &Authority) -> bool {
        let covers = |entry: &Authority| {
            entry.name == host.name && entry.port.is_none_or(|port| host.port == Some(port))
        };
        self.allowed.iter().any(covers)
    }

    /// Whether a page has the same origin as what it asks, or is allowed. The scheme is left
    /// out of it, since a proxy in front may end TLS.
    fn is_our_page(&self, host: Option<&Authority>, origin: &str) -> bool {
        let Some((scheme, authority)) = origin.split_once("://") else { return false };
        let default_port = match scheme.to_ascii_lowercase().as_str() {
            "http" => 80,
            "https" => 443,
            _ => return false,
        };
        let Ok(mut page) = Authority::from_str(authority) else { return false };
        let port = *page.port.get_or_insert(default_port);
        let same =
            |host: &Authority| host.name == page.name && host.port.unwrap_or(default_port) == port;
        host.is_some_and(same) || self.is_allowed(&page)
    }
}

fn forbidden(message: String) -> Rejection {
    Rejection::new(Code::Forbidden, message)
}

/// A host as it stands in a header.
#[derive(Clone, PartialEq, Eq)]
struct Authority {
    name: Name,
    port: Option<u16>,
}

/// An address, or a name in lower case without a dot at its end.
#[derive(Clone, PartialEq, Eq)]
enum Name {
    Address(IpAddr),
    Dns(String),
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Name::Address(address) => write!(f, "{address}")?,
            Name::Dns(name) => f.write_str(name)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, " port {port}"))
    }
}

/// A text is not a host with an optional port.
#[derive(Debug)]
struct NoAuthority;

impl FromStr for Authority {
    type Err = NoAuthority;

    fn from_str(text: &str) -> Result<Self, NoAuthority> {
        if let Some(rest) = text.strip_prefix('[') {
            let (address, port) = rest.split_once(']').ok_or(NoAuthority)?;
            let address: Ipv6Addr = address.parse().map_err(|_| NoAuthority)?;
            let port = match port {
                "" => None,
                port => Some(parse_port(port.strip_prefix(':').ok_or(NoAuthority)?)?),
            };
            return Ok(Self { name: Name::Address(IpAddr::V6(address).to_canonical()), port });
        }
        // An address of version 6 without brackets: only in a configuration.
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return Ok(Self {
                name: Name::Address(IpAddr::V6(address).to_canonical()),
                port: None,
            });
        }
        let (name, port) = match text.split_once(':') {
            None => (text, None),
            Some((name, port)) => (name, Some(parse_port(port)?)),
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if let Ok(address) = name.parse::<IpAddr>() {
            return Ok(Self { name: Name::Address(address), port });
        }
        let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(is_name) {
            return Err(NoAuthority);
        }
        Ok(Self { name: Name::Dns(name), port })
    }
}

fn parse_port(text: &str) -> Result<u16, NoAuthority> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(NoAuthority);
    }
    text.parse().map_err(|_| NoAuthority)
}
