//! Networks that a configuration allows.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::embedded::{Embedded, canonical, embedded};
use super::{Class, classify};

/// A network: an address and how many of its bits are common, such as `10.0.0.0/8`; an address
/// alone is a network of one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether the network contains an address. An IPv4-mapped address is that IPv4 address;
    /// otherwise no network of one family contains an address of the other.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, canonical(ip)) {
            (IpAddr::V4(network), IpAddr::V4(ip)) => first_v4(ip, self.prefix) == network,
            (IpAddr::V6(network), IpAddr::V6(ip)) => first_v6(ip, self.prefix) == network,
            _ => false,
        }
    }
}

fn first_v4(ip: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let host_bits = 32 - u32::from(prefix);
    Ipv4Addr::from_bits(ip.to_bits() & u32::MAX.checked_shl(host_bits).unwrap_or(0))
}

fn first_v6(ip: Ipv6Addr, prefix: u8) -> Ipv6Addr {
    let host_bits = 128 - u32::from(prefix);
    Ipv6Addr::from_bits(ip.to_bits() & u128::MAX.checked_shl(host_bits).unwrap_or(0))
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Why a text is not a network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum NetworkError {
    /// What is before the `/` is not an address.
    Address,
    /// What is after the `/` is not a whole number up to this one.
    Prefix {
        /// The bits of an address.
        max: u8,
    },
    /// Bits beyond the prefix are set.
    HostBits {
        /// The network in which the address is.
        meant: Network,
    },
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetworkError::Address => f.write_str(
                "a network is an IP address and a number of bits, for instance 10.0.0.0/8 or \
                 fd00::/8",
            ),
            NetworkError::Prefix { max } => {
                write!(f, "the number of bits after the / must be 0 to {max}")
            }
            NetworkError::HostBits { meant } => {
                write!(
                    f,
                    "the address has bits set after its prefix: write {meant}"
                )
            }
        }
    }
}

impl std::error::Error for NetworkError {}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Network, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => max,
            Some(digits) => digits
                .parse()
                .ok()
                .filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))
                .filter(|prefix| *prefix <= max)
                .ok_or(NetworkError::Prefix { max })?,
        };
        // Addresses are compared in their canonical form, so a mapped network has to be in it too.
        let (written, prefix) = match canonical(address) {
            IpAddr::V4(v4) if address.is_ipv6() && prefix >= 96 => (IpAddr::V4(v4), prefix - 96),
            _ => (address, prefix),
        };
        let first = match written {
            IpAddr::V4(v4) => IpAddr::V4(first_v4(v4, prefix)),
            IpAddr::V6(v6) => IpAddr::V6(first_v6(v6, prefix)),
        };
        let network = Network {
            address: first,
            prefix,
        };
        if first == written {
            Ok(network)
        } else {
            Err(NetworkError::HostBits { meant: network })
        }
    }
}

/// Whether a webhook may connect to an address: it is global, or one of the networks contains it.
///
/// - Cloud metadata is refused whatever the networks say.
/// - NAT64, 6to4 and IPv4-compatible addresses need a network that contains them, and the IPv4
///   address that they lead to must be allowed as well: `64:ff9b::/96` opens the Internet of IPv4
///   to a host without it, not the private network behind the gateway. For Teredo that holds for
///   the client. Where only the gateway knows the IPv4 address (`64:ff9b:1::/48`), the network
///   decides alone.
pub fn allowed(ip: IpAddr, networks: &[Network]) -> bool {
    let ip = canonical(ip);
    match classify(ip) {
        Class::Global => return true,
        Class::Metadata => return false,
        _ if !networks.iter().any(|network| network.contains(ip)) => return false,
        _ => {}
    }
    let IpAddr::V6(v6) = ip else {
        return true;
    };
    match embedded(v6) {
        Embedded::None | Embedded::AnyOf(_) => true,
        Embedded::One(inner) | Embedded::Tunnel { client: inner, .. } => {
            allowed(inner.into(), networks)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn networks_contain_addresses() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.2"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("10.0.0.0/8", "::ffff:10.0.0.1", "::ffff:11.0.0.1"),
            ("::ffff:10.0.0.0/104", "10.1.1.1", "11.0.0.0"),
            ("fd00::/8", "fdff::1", "fc00::1"),
            ("::1", "::1", "::2"),
            ("::/0", "fe80::1", "127.0.0.1"),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert!(parsed.contains(inside.parse().unwrap()), "{network}");
            assert!(!parsed.contains(outside.parse().unwrap()), "{network}");
        }
    }

    #[test]
    fn bad_networks_get_their_reason() {
        let host_bits = |meant: &str| NetworkError::HostBits {
            meant: meant.parse().unwrap(),
        };
        for (text, error) in [
            ("", NetworkError::Address),
            ("localhost/8", NetworkError::Address),
            ("10/8", NetworkError::Address),
            ("010.0.0.0/8", NetworkError::Address),
            ("[::1]/128", NetworkError::Address),
            ("10.0.0.0/", NetworkError::Prefix { max: 32 }),
            ("10.0.0.0/33", NetworkError::Prefix { max: 32 }),
            ("10.0.0.0/+8", NetworkError::Prefix { max: 32 }),
            ("10.0.0.0/255.0.0.0", NetworkError::Prefix { max: 32 }),
            ("10.0.0.0/8/8", NetworkError::Prefix { max: 32 }),
            ("::/129", NetworkError::Prefix { max: 128 }),
            ("::/999", NetworkError::Prefix { max: 128 }),
            ("10.1.2.3/8", host_bits("10.0.0.0/8")),
            ("10.0.0.1/0", host_bits("0.0.0.0/0")),
            ("fd00::1/8", host_bits("fd00::/8")),
        ] {
            assert_eq!(text.parse::<Network>(), Err(error), "{text}");
        }
        assert_eq!(
            host_bits("10.0.0.0/8").to_string(),
            "the address has bits set after its prefix: write 10.0.0.0/8"
        );
    }

    #[test]
    fn what_is_allowed() {
        let everything = networks(&["0.0.0.0/0", "::/0"]);
        let home = networks(&["192.168.1.0/24", "fd12::/16"]);
        let nat64 = networks(&["64:ff9b::/96", "64:ff9b:1::/48"]);
        let tunnels = networks(&["2002::/16", "2001::/32", "10.0.0.0/8"]);
        for (ip, networks, expected) in [
            ("8.8.8.8", &[][..], true),
            ("::ffff:8.8.8.8", &[], true),
            ("2606:4700::1111", &[], true),
            ("127.0.0.1", &[], false),
            ("::ffff:127.0.0.1", &[], false),
            ("::127.0.0.1", &[], false),
            ("::8.8.8.8", &[], false),
            ("64:ff9b::8.8.8.8", &[], false),
            ("2002:808:808::1", &[], false),
            ("192.168.1.7", &home, true),
            ("::ffff:192.168.1.7", &home, true),
            ("192.168.2.7", &home, false),
            ("fd12::1", &home, true),
            ("fd13::1", &home, false),
            ("8.8.8.8", &home, true),
            ("127.0.0.1", &everything, true),
            ("::1", &everything, true),
            ("::127.0.0.1", &everything, true),
            ("169.254.169.254", &everything, false),
            ("::ffff:169.254.169.254", &everything, false),
            ("::169.254.169.254", &everything, false),
            ("64:ff9b::169.254.169.254", &everything, false),
            ("64:ff9b:1:a9fe:a9:fe00::", &everything, false),
            ("2002:a9fe:a9fe::1", &everything, false),
            ("fd00:ec2::254", &everything, false),
            ("100.100.100.200", &everything, false),
            ("168.63.129.16", &everything, false),
            ("64:ff9b::8.8.8.8", &nat64, true),
            ("64:ff9b::10.0.0.1", &nat64, false),
            ("64:ff9b:1::10.0.0.1", &nat64, true),
            ("2002:a00:1::1", &tunnels, true),
            ("2002:7f00:1::1", &tunnels, false),
            ("2001:0:4136:e378:8000:63bf:f5ff:fffe", &tunnels, true),
            ("2001:0:4136:e378:8000:63bf:80ff:fffe", &tunnels, false),
        ] {
            assert_eq!(allowed(ip.parse().unwrap(), networks), expected, "{ip}");
        }
    }

    proptest! {
        #[test]
        fn networks_are_read_back_and_contain_their_first_address(ip: IpAddr, prefix in 0..=128_u8) {
            let text = format!("{ip}/{prefix}");
            let network = match text.parse::<Network>() {
                Ok(network) | Err(NetworkError::HostBits { meant: network }) => network,
                Err(error) => {
                    prop_assert!(ip.is_ipv4() && prefix > 32, "{}: {}", text, error);
                    return Ok(());
                }
            };
            prop_assert_eq!(network.to_string().parse(), Ok(network));
            prop_assert!(network.contains(network.address));
            // A short prefix of a mapped address reaches beyond all mapped ones: IPv6's network.
            let mapped = canonical(ip) != ip && prefix < 96;
            prop_assert_eq!(network.contains(ip), !mapped);
        }

        #[test]
        fn no_metadata_is_ever_allowed(ip: IpAddr) {
            let everything = networks(&["0.0.0.0/0", "::/0"]);
            prop_assert_eq!(allowed(ip, &everything), classify(ip) != Class::Metadata);
            prop_assert_eq!(allowed(ip, &[]), classify(ip) == Class::Global);
        }

        #[test]
        fn no_text_panics(text in any::<String>(), near in "[0-9a-f.:]{0,20}/?[0-9]{0,4}") {
            let _ = text.parse::<Network>();
            let _ = near.parse::<Network>();
        }
    }
}
