//! Which addresses messages may be posted to: a URL comes from an agent, and must not make this
//! service speak to what only this service can reach.

use futures_util::future::BoxFuture;
use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
};

/// A network, as in `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// A text is not a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a network; write an address and a number of bits, as in 10.0.0.0/8")]
pub struct NetworkError(String);

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let invalid = || NetworkError(text.chars().take(120).collect());
        let (address, bits) = match text.trim().split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text.trim(), None),
        };
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| invalid())?;
        if bits > most { Err(invalid()) } else { Ok(Self { address, bits }) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Network {
    const fn v4(address: [u8; 4], bits: u8) -> Self {
        let [a, b, c, d] = address;
        Self { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), bits }
    }

    const fn v6(first: [u16; 2], bits: u8) -> Self {
        let [a, b] = first;
        Self { address: IpAddr::V6(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0)), bits }
    }

    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let same = |a: u128, b: u128, width: u8| {
            let shift = u32::from(width - self.bits);
            self.bits == 0 || a >> shift == b >> shift
        };
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
            _ => false,
        }
    }
}

/// Refused unless an operator allows them: this machine, its neighbours, and addresses that
/// nobody should have.
const REFUSED: [Network; 24] = [
    Network::v4([0, 0, 0, 0], 8),
    Network::v4([10, 0, 0, 0], 8),
    Network::v4([100, 64, 0, 0], 10),
    Network::v4([127, 0, 0, 0], 8),
    Network::v4([169, 254, 0, 0], 16),
    Network::v4([172, 16, 0, 0], 12),
    Network::v4([192, 0, 0, 0], 24),
    Network::v4([192, 0, 2, 0], 24),
    Network::v4([192, 88, 99, 0], 24),
    Network::v4([192, 168, 0, 0], 16),
    Network::v4([198, 18, 0, 0], 15),
    Network::v4([198, 51, 100, 0], 24),
    Network::v4([203, 0, 113, 0], 24),
    Network::v4([224, 0, 0, 0], 4),
    Network::v4([240, 0, 0, 0], 4),
    // ::, ::1, and IPv4 hidden behind zeros.
    Network::v6([0, 0], 32),
    Network::v6([0x64, 0xff9b], 32),
    Network::v6([0x100, 0], 32),
    Network::v6([0x2001, 0], 23),
    Network::v6([0x2001, 0xdb8], 32),
    Network::v6([0x2002, 0], 16),
    Network::v6([0x3fff, 0], 20),
    Network::v6([0xfc00, 0], 7),
    // Link-local, site-local and multicast.
    Network::v6([0xfe80, 0], 9),
];

const MULTICAST: Network = Network::v6([0xff00, 0], 8);

/// How names become addresses. What a name leads to may be another thing every time.
pub(super) trait Names: fmt::Debug + Send + Sync {
    /// The addresses of a name.
    fn look_up(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// As the system says.
#[derive(Debug)]
struct SystemNames;

impl Names for SystemNames {
    fn look_up(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let name = name.to_owned();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// Which addresses messages may be posted to.
#[derive(Clone, Debug)]
pub struct AddressPolicy {
    allowed: Vec<Network>,
    names: Arc<dyn Names>,
}

impl Default for AddressPolicy {
    fn default() -> Self {
        Self::new([])
    }
}

/// Messages may not be posted there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlRefused {
    /// It is not a URL.
    #[error("`url` is not a URL")]
    Malformed,
    /// Its scheme is another one.
    #[error("`url` must begin with http:// or https://")]
    Scheme,
    /// It has a user name or a password in it.
    #[error("`url` must not hold a user name or a password")]
    Credentials,
    /// Its host has no address.
    #[error("the host of `url` cannot be resolved")]
    Unresolved,
    /// One of its addresses is refused.
    #[error(
        "`url` leads to {0}, which messages are not posted to; an operator can allow it with --push-allow"
    )]
    Address(IpAddr),
}

impl AddressPolicy {
    /// What an operator allows, whatever is refused otherwise.
    pub fn new(allowed: impl IntoIterator<Item = Network>) -> Self {
        Self { allowed: allowed.into_iter().collect(), names: Arc::new(SystemNames) }
    }

    /// The same with names of a test's own.
    #[cfg(test)]
    pub(super) fn with_names(self, names: impl Names + 'static) -> Self {
        Self { names: Arc::new(names), ..self }
    }

    /// Refuses an address.
    pub fn check(&self, address: IpAddr) -> Result<(), UrlRefused> {
        let refused = Err(UrlRefused::Address(address));
        let is_allowed = |address| self.allowed.iter().any(|network| network.contains(address));
        if is_allowed(address) {
            return Ok(());
        }
        if let IpAddr::V6(v6) = address
            && let Some(hidden) = hidden_v4(v6)
        {
            let mapped = v6.to_ipv4_mapped().is_some();
            // `::ffff:a.b.c.d` is how a.b.c.d is connected to over a v6 socket.
            return if mapped && is_allowed(hidden.into()) { Ok(()) } else { refused };
        }
        let is_refused = REFUSED.iter().chain([&MULTICAST]).any(|net| net.contains(address));
        if is_refused { refused } else { Ok(()) }
    }

    /// Reads a URL and looks at everything but the addresses of a name.
    pub fn parse(&self, text: &str) -> Result<reqwest::Url, UrlRefused> {
        let url = reqwest::Url::parse(text).map_err(|_| UrlRefused::Malformed)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(UrlRefused::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlRefused::Credentials);
        }
        if let Some(address) = literal(&url) {
            self.check(address)?;
        }
        Ok(url)
    }

    /// Resolves the host of a URL and looks at every address: some is refused, all is refused.
    pub async fn resolve(&self, url: &reqwest::Url) -> Result<(), UrlRefused> {
        if literal(url).is_some() {
            return Ok(());
        }
        let host = url.host_str().ok_or(UrlRefused::Malformed)?;
        self.addresses_of(host).await.map(drop)
    }

    /// The addresses that a name has now, if messages may be posted to all of them.
    pub(super) async fn addresses_of(&self, name: &str) -> Result<Vec<IpAddr>, UrlRefused> {
        let found = self.names.look_up(name).await.map_err(|_| UrlRefused::Unresolved)?;
        if found.is_empty() {
            return Err(UrlRefused::Unresolved);
        }
        found.iter().try_for_each(|address| self.check(*address))?;
        Ok(found)
    }
}

/// The address, if the host of a URL is one and not a name.
fn literal(url: &reqwest::Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// IPv4 that stands in an IPv6 address: mapped, or translated by NAT64.
fn hidden_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let nat64 = matches!(address.segments(), [0x64, 0xff9b, ..]);
    let last = Ipv4Addr::from_bits(u32::try_from(address.to_bits() & 0xffff_ffff).unwrap_or(0));
    address.to_ipv4_mapped().or(nat64.then_some(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allowed: &[&str]) -> AddressPolicy {
        AddressPolicy::new(allowed.iter().map(|network| network.parse().unwrap()))
    }

    #[test]
    fn addresses_that_only_this_service_can_reach_are_refused() {
        let refused = [
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.2.1",
            "192.168.1.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::7f00:1",
            "64:ff9b::808:808",
            "64:ff9b:1::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
        ];
        for address in refused {
            let address = address.parse().unwrap();
            assert_eq!(policy(&[]).check(address), Err(UrlRefused::Address(address)));
        }
        for address in ["8.8.8.8", "100.63.0.1", "172.32.0.1", "2606:4700::1111", "2a00::1"] {
            assert_eq!(policy(&[]).check(address.parse().unwrap()), Ok(()), "{address}");
        }
    }

    #[test]
    fn what_an_operator_allows_is_not_refused() {
        let rows = [
            ("127.0.0.0/8", "127.0.0.1", true),
            ("127.0.0.0/8", "::ffff:127.0.0.1", true),
            ("127.0.0.0/8", "64:ff9b::7f00:1", false),
            ("127.0.0.0/8", "10.0.0.1", false),
            ("127.0.0.1", "127.0.0.2", false),
            ("fd00::/8", "fd12::1", true),
            ("0.0.0.0/0", "169.254.169.254", true),
            ("::1/128", "::1", true),
        ];
        for (network, address, allowed) in rows {
            let checked = policy(&[network]).check(address.parse().unwrap());
            assert_eq!(checked.is_ok(), allowed, "{network} {address}");
        }
        for text in ["", "x", "10.0.0.0/33", "::/129", "10.0.0.0/x", "localhost"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_url_is_http_and_holds_no_secret() {
        let rows = [
            ("http://8.8.8.8/a2a", Ok(())),
            ("https://agent.example:8443/", Ok(())),
            ("ftp://8.8.8.8/", Err(UrlRefused::Scheme)),
            ("file:///etc/passwd", Err(UrlRefused::Scheme)),
            ("gopher://8.8.8.8", Err(UrlRefused::Scheme)),
            ("http://u:p@8.8.8.8/", Err(UrlRefused::Credentials)),
            ("not a url", Err(UrlRefused::Malformed)),
            ("", Err(UrlRefused::Malformed)),
            // Other ways to write 127.0.0.1.
            ("http://2130706433/", Err(UrlRefused::Address([127, 0, 0, 1].into()))),
            ("http://0x7f.1/", Err(UrlRefused::Address([127, 0, 0, 1].into()))),
            ("http://[::1]/", Err(UrlRefused::Address(Ipv6Addr::LOCALHOST.into()))),
        ];
        for (text, expected) in rows {
            assert_eq!(policy(&[]).parse(text).map(drop), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn a_name_is_as_good_as_its_addresses() {
        let check = async |policy: AddressPolicy| {
            let url = policy.parse("http://localhost/").unwrap();
            policy.resolve(&url).await
        };
        assert!(matches!(check(policy(&[])).await, Err(UrlRefused::Address(_))));
        assert_eq!(check(policy(&["127.0.0.0/8", "::1"])).await, Ok(()));
        let nowhere = policy(&[]).parse("http://nowhere.invalid/").unwrap();
        assert_eq!(policy(&[]).resolve(&nowhere).await, Err(UrlRefused::Unresolved));
    }
}
