//! IPv4 addresses inside of IPv6 ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4-mapped address as the IPv4 address that a connection to it goes to; any other as it is.
pub(super) fn canonical(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

/// The IPv4 addresses to which a transition address leads, or may lead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Embedded {
    None,
    /// This one.
    One(Ipv4Addr),
    /// One of these, by a configuration that only its gateway knows.
    AnyOf([Ipv4Addr; 4]),
    /// A tunnel through a server to a client.
    Tunnel {
        server: Ipv4Addr,
        client: Ipv4Addr,
    },
}

impl Embedded {
    pub(super) fn all(self) -> impl Iterator<Item = Ipv4Addr> {
        const NONE: Option<Ipv4Addr> = None;
        let all = match self {
            Embedded::None => [NONE; 4],
            Embedded::One(ip) => [Some(ip), NONE, NONE, NONE],
            Embedded::AnyOf(ips) => ips.map(Some),
            Embedded::Tunnel { server, client } => [Some(server), Some(client), NONE, NONE],
        };
        all.into_iter().flatten()
    }
}

/// What a transition address leads to: IPv4-compatible (RFC 4291 §2.5.5.1), NAT64 (RFC 6052, RFC
/// 8215), 6to4 (RFC 3056), Teredo (RFC 4380).
pub(super) fn embedded(ip: Ipv6Addr) -> Embedded {
    let octets = ip.octets();
    // RFC 6052 §2.2: after a prefix of this many bits, with octet 8 left out.
    let after = |prefix: usize| {
        let mut rest = octets[prefix / 8..]
            .iter()
            .enumerate()
            .filter(|(index, _)| index + prefix / 8 != 8)
            .map(|(_, octet)| *octet);
        Ipv4Addr::from(std::array::from_fn(|_| rest.next().unwrap_or(0)))
    };
    let last = Ipv4Addr::from_bits(ip.to_bits() as u32);
    match ip.segments() {
        // :: and ::1 are of this form too, but are addresses of their own.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Embedded::None,
        [0, 0, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => Embedded::One(last),
        [0x64, 0xff9b, 1, ..] => Embedded::AnyOf([last, after(48), after(56), after(64)]),
        [0x2002, high, low, ..] => {
            Embedded::One(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
        }
        [0x2001, 0, high, low, ..] => Embedded::Tunnel {
            server: Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)),
            // Inverted, so that no device on the way rewrites it.
            client: Ipv4Addr::from_bits(!last.to_bits()),
        },
        _ => Embedded::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 33);

    fn of(ip: &str) -> Embedded {
        embedded(ip.parse().unwrap())
    }

    /// The examples of RFC 6052 §2.4 (with the prefix of RFC 8215), RFC 3056 and RFC 4380.
    #[test]
    fn where_the_address_is() {
        assert_eq!(of("64:ff9b::192.0.2.33"), Embedded::One(V4));
        assert_eq!(of("::192.0.2.33"), Embedded::One(V4));
        assert_eq!(of("2002:c000:221::1"), Embedded::One(V4));
        for (ip, place) in [
            ("64:ff9b:1::192.0.2.33", 0),
            ("64:ff9b:1:c000:2:2100::", 1),
            ("64:ff9b:1:c0:0:221::", 2),
            ("64:ff9b:1:3:c0:2:2100:0", 3),
        ] {
            let Embedded::AnyOf(ips) = of(ip) else {
                panic!("{ip}");
            };
            assert_eq!(ips[place], V4, "{ip}");
        }
        assert_eq!(
            of("2001:0:4136:e378:8000:63bf:3fff:fdd2"),
            Embedded::Tunnel {
                server: Ipv4Addr::new(65, 54, 227, 120),
                client: Ipv4Addr::new(192, 0, 2, 45),
            }
        );
        for ip in ["::", "::1", "2001:db8::1", "64:ff9b:2::1", "fe80::1"] {
            assert_eq!(of(ip), Embedded::None, "{ip}");
        }
    }
}
