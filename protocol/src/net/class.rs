//! What an address is for (the IANA IPv4 and IPv6 Special-Purpose Address Registries, RFC 6890).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::embedded::{canonical, embedded};

/// What an address is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Class {
    /// Of the public Internet: the only one that is reached without being allowed.
    Global,
    /// No address at all: `0.0.0.0`, `::`. A connection to it arrives at this machine.
    Unspecified,
    /// This machine: `127.0.0.0/8`, `::1`.
    Loopback,
    /// A network of one's own: `10.0.0.0/8`, `172.16.0.0/12`, `192.168.0.0/16`, and the former
    /// `fec0::/10`.
    Private,
    /// A network of one's own with IPv6: `fc00::/7`.
    UniqueLocal,
    /// The link alone: `169.254.0.0/16`, `fe80::/10`.
    LinkLocal,
    /// Between a provider and its customers: `100.64.0.0/10`.
    CarrierGradeNat,
    /// Where clouds hand out credentials, such as `169.254.169.254`: refused whatever is allowed.
    Metadata,
    /// For examples in documents: `192.0.2.0/24`, `2001:db8::/32` and others.
    Documentation,
    /// For measuring devices: `198.18.0.0/15`, `2001:2::/48`.
    Benchmarking,
    /// Groups: `224.0.0.0/4`, `ff00::/8`.
    Multicast,
    /// Everyone on the link: `255.255.255.255`.
    Broadcast,
    /// Translated to IPv4 by a gateway: `64:ff9b::/96`, `64:ff9b:1::/48`.
    Nat64,
    /// Tunnelled through IPv4: `2002::/16`.
    SixToFour,
    /// Tunnelled through UDP: `2001::/32`.
    Teredo,
    /// For protocols or for the future: no host is there.
    Reserved,
}

impl Class {
    /// The name, for a person.
    pub const fn as_str(self) -> &'static str {
        match self {
            Class::Global => "global",
            Class::Unspecified => "unspecified",
            Class::Loopback => "loopback",
            Class::Private => "private",
            Class::UniqueLocal => "unique-local",
            Class::LinkLocal => "link-local",
            Class::CarrierGradeNat => "carrier-grade NAT",
            Class::Metadata => "cloud metadata",
            Class::Documentation => "documentation",
            Class::Benchmarking => "benchmarking",
            Class::Multicast => "multicast",
            Class::Broadcast => "broadcast",
            Class::Nat64 => "NAT64",
            Class::SixToFour => "6to4",
            Class::Teredo => "Teredo",
            Class::Reserved => "reserved",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What an address is for.
///
/// An IPv4 address in the form of an IPv6 one (IPv4-mapped) is judged as the IPv4 address that it
/// is. A transition address (NAT64, 6to4, Teredo, IPv4-compatible) is [`Class::Metadata`] if what
/// it leads to is.
///
/// Where the registries call a few anycast addresses inside a special block global
/// (`192.0.0.9/32`, `2001:1::1/128`, the AMT and ORCHID blocks of `2001::/23`), the class is that
/// of the block: they are no web servers.
pub fn classify(ip: IpAddr) -> Class {
    match canonical(ip) {
        IpAddr::V4(v4) => classify_v4(v4),
        IpAddr::V6(v6) if embedded(v6).all().any(is_metadata_v4) => Class::Metadata,
        IpAddr::V6(v6) => classify_v6(v6),
    }
}

fn is_metadata_v4(ip: Ipv4Addr) -> bool {
    const METADATA: [[u8; 4]; 8] = [
        [169, 254, 169, 254], // AWS, Azure, Google Cloud, Oracle, DigitalOcean, OpenStack, others
        [169, 254, 170, 2],   // AWS ECS tasks
        [169, 254, 170, 23],  // AWS EKS Pod Identity
        [169, 254, 42, 42],   // Scaleway
        [169, 254, 0, 23],    // Tencent Cloud
        [100, 100, 100, 200], // Alibaba Cloud
        [168, 63, 129, 16],   // Azure's WireServer
        [192, 0, 0, 192],     // Oracle Cloud, of old
    ];
    METADATA.contains(&ip.octets())
}

fn is_metadata_v6(ip: Ipv6Addr) -> bool {
    const METADATA: [[u16; 8]; 6] = [
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254],   // AWS
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23],    // AWS EKS Pod Identity
        [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254],    // Google Cloud
        [0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42],     // Scaleway
        [0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1], // Akamai
        [0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe], // OpenStack
    ];
    METADATA.contains(&ip.segments())
}

fn classify_v4(ip: Ipv4Addr) -> Class {
    if is_metadata_v4(ip) {
        return Class::Metadata;
    }
    match ip.octets() {
        [0, 0, 0, 0] => Class::Unspecified,
        [0, ..] => Class::Reserved, // "this network"
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Class::Private,
        [100, 64..=127, ..] => Class::CarrierGradeNat,
        [127, ..] => Class::Loopback,
        [169, 254, ..] => Class::LinkLocal,
        [192, 0, 0, _] => Class::Reserved, // IETF protocol assignments
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Class::Documentation,
        [192, 88, 99, _] => Class::Reserved, // 6to4 relays, withdrawn
        [198, 18..=19, ..] => Class::Benchmarking,
        [224..=239, ..] => Class::Multicast,
        [255, 255, 255, 255] => Class::Broadcast,
        [240..=255, ..] => Class::Reserved,
        _ => Class::Global,
    }
}

fn classify_v6(ip: Ipv6Addr) -> Class {
    if is_metadata_v6(ip) {
        return Class::Metadata;
    }
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Class::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Class::Loopback,
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => Class::Nat64,
        [0x2001, 0, ..] => Class::Teredo,
        [0x2001, 2, 0, ..] => Class::Benchmarking,
        [0x2001, 0..=0x1ff, ..] => Class::Reserved, // IETF protocol assignments
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Class::Documentation,
        [0x2002, ..] => Class::SixToFour,
        [0x2000..=0x3fff, ..] => Class::Global,
        [0xfc00..=0xfdff, ..] => Class::UniqueLocal,
        [0xfe80..=0xfebf, ..] => Class::LinkLocal,
        [0xfec0..=0xfeff, ..] => Class::Private, // site-local, deprecated by RFC 3879
        [0xff00..=0xffff, ..] => Class::Multicast,
        // Nothing else is given out: IPv4-compatible, 100::/64, 5f00::/16, and what is to come.
        _ => Class::Reserved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First and last address of each block of the two registries, the neighbours outside of it,
    /// and what carries an IPv4 address.
    const TABLE: &[(&str, Class)] = &[
        ("0.0.0.0", Class::Unspecified),
        ("0.0.0.1", Class::Reserved),
        ("0.255.255.255", Class::Reserved),
        ("1.0.0.0", Class::Global),
        ("9.255.255.255", Class::Global),
        ("10.0.0.0", Class::Private),
        ("10.255.255.255", Class::Private),
        ("11.0.0.0", Class::Global),
        ("100.63.255.255", Class::Global),
        ("100.64.0.0", Class::CarrierGradeNat),
        ("100.100.100.199", Class::CarrierGradeNat),
        ("100.100.100.200", Class::Metadata),
        ("100.127.255.255", Class::CarrierGradeNat),
        ("100.128.0.0", Class::Global),
        ("126.255.255.255", Class::Global),
        ("127.0.0.0", Class::Loopback),
        ("127.0.0.1", Class::Loopback),
        ("127.255.255.255", Class::Loopback),
        ("128.0.0.0", Class::Global),
        ("168.63.129.15", Class::Global),
        ("168.63.129.16", Class::Metadata),
        ("169.253.255.255", Class::Global),
        ("169.254.0.0", Class::LinkLocal),
        ("169.254.0.23", Class::Metadata),
        ("169.254.42.42", Class::Metadata),
        ("169.254.169.253", Class::LinkLocal),
        ("169.254.169.254", Class::Metadata),
        ("169.254.170.2", Class::Metadata),
        ("169.254.170.23", Class::Metadata),
        ("169.254.255.255", Class::LinkLocal),
        ("169.255.0.0", Class::Global),
        ("172.15.255.255", Class::Global),
        ("172.16.0.0", Class::Private),
        ("172.31.255.255", Class::Private),
        ("172.32.0.0", Class::Global),
        ("191.255.255.255", Class::Global),
        ("192.0.0.0", Class::Reserved),
        ("192.0.0.8", Class::Reserved),
        ("192.0.0.9", Class::Reserved),
        ("192.0.0.170", Class::Reserved),
        ("192.0.0.192", Class::Metadata),
        ("192.0.0.255", Class::Reserved),
        ("192.0.1.0", Class::Global),
        ("192.0.2.0", Class::Documentation),
        ("192.0.2.255", Class::Documentation),
        ("192.0.3.0", Class::Global),
        ("192.31.196.1", Class::Global),
        ("192.52.193.1", Class::Global),
        ("192.88.98.255", Class::Global),
        ("192.88.99.0", Class::Reserved),
        ("192.88.99.255", Class::Reserved),
        ("192.88.100.0", Class::Global),
        ("192.167.255.255", Class::Global),
        ("192.168.0.0", Class::Private),
        ("192.168.255.255", Class::Private),
        ("192.169.0.0", Class::Global),
        ("192.175.48.1", Class::Global),
        ("198.17.255.255", Class::Global),
        ("198.18.0.0", Class::Benchmarking),
        ("198.19.255.255", Class::Benchmarking),
        ("198.20.0.0", Class::Global),
        ("198.51.99.255", Class::Global),
        ("198.51.100.0", Class::Documentation),
        ("198.51.100.255", Class::Documentation),
        ("198.51.101.0", Class::Global),
        ("203.0.112.255", Class::Global),
        ("203.0.113.0", Class::Documentation),
        ("203.0.113.255", Class::Documentation),
        ("203.0.114.0", Class::Global),
        ("223.255.255.255", Class::Global),
        ("224.0.0.0", Class::Multicast),
        ("233.252.0.1", Class::Multicast),
        ("239.255.255.255", Class::Multicast),
        ("240.0.0.0", Class::Reserved),
        ("255.255.255.254", Class::Reserved),
        ("255.255.255.255", Class::Broadcast),
        ("::", Class::Unspecified),
        ("::1", Class::Loopback),
        ("::2", Class::Reserved),
        ("::127.0.0.1", Class::Reserved),
        ("::8.8.8.8", Class::Reserved),
        ("::169.254.169.254", Class::Metadata),
        ("::fffe:ffff:ffff", Class::Reserved),
        ("::ffff:0.0.0.0", Class::Unspecified),
        ("::ffff:127.0.0.1", Class::Loopback),
        ("::ffff:10.1.2.3", Class::Private),
        ("::ffff:169.254.169.254", Class::Metadata),
        ("::ffff:a9fe:a9fe", Class::Metadata),
        ("::ffff:8.8.8.8", Class::Global),
        ("::ffff:0:8.8.8.8", Class::Reserved),
        ("64:ff9a:ffff::", Class::Reserved),
        ("64:ff9b::", Class::Nat64),
        ("64:ff9b::8.8.8.8", Class::Nat64),
        ("64:ff9b::127.0.0.1", Class::Nat64),
        ("64:ff9b::169.254.169.254", Class::Metadata),
        ("64:ff9b::1:0:0", Class::Reserved),
        ("64:ff9b:1::", Class::Nat64),
        ("64:ff9b:1::169.254.169.254", Class::Metadata),
        ("64:ff9b:1:a9fe:a9:fe00::", Class::Metadata),
        ("64:ff9b:1:00a9:00fe:a9fe::", Class::Metadata),
        ("64:ff9b:1:0:a9:fea9:fe00:0", Class::Metadata),
        ("64:ff9b:1:ffff:ffff:ffff:ffff:ffff", Class::Nat64),
        ("64:ff9b:2::", Class::Reserved),
        ("100::", Class::Reserved),
        ("100::ffff:ffff:ffff:ffff", Class::Reserved),
        ("100:0:0:1::", Class::Reserved),
        ("1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Class::Reserved),
        ("2000::", Class::Global),
        ("2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Class::Global),
        ("2001::", Class::Teredo),
        ("2001::1", Class::Teredo),
        ("2001:0:a9fe:a9fe::", Class::Metadata),
        ("2001:0:4136:e378:8000:63bf:5601:5601", Class::Metadata),
        ("2001:0:ffff:ffff:ffff:ffff:ffff:ffff", Class::Teredo),
        ("2001:1::1", Class::Reserved),
        ("2001:2::", Class::Benchmarking),
        ("2001:2:0:ffff:ffff:ffff:ffff:ffff", Class::Benchmarking),
        ("2001:2:1::", Class::Reserved),
        ("2001:3::", Class::Reserved),
        ("2001:4:112::", Class::Reserved),
        ("2001:10::", Class::Reserved),
        ("2001:20::", Class::Reserved),
        ("2001:30::", Class::Reserved),
        ("2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", Class::Reserved),
        ("2001:200::", Class::Global),
        ("2001:db7:ffff::", Class::Global),
        ("2001:db8::", Class::Documentation),
        (
            "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
            Class::Documentation,
        ),
        ("2001:db9::", Class::Global),
        ("2001:4860:4860::8888", Class::Global),
        ("2002::", Class::SixToFour),
        ("2002:808:808::", Class::SixToFour),
        ("2002:7f00:1::", Class::SixToFour),
        ("2002:a9fe:a9fe::1", Class::Metadata),
        ("2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Class::SixToFour),
        ("2003::", Class::Global),
        ("2620:4f:8000::", Class::Global),
        ("3ffe:ffff:ffff::", Class::Global),
        ("3fff::", Class::Documentation),
        (
            "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff",
            Class::Documentation,
        ),
        ("3fff:1000::", Class::Global),
        ("3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Class::Global),
        ("4000::", Class::Reserved),
        ("5f00::", Class::Reserved),
        ("fbff:ffff::", Class::Reserved),
        ("fc00::", Class::UniqueLocal),
        ("fd00:42::42", Class::Metadata),
        ("fd00:a9fe:a9fe::1", Class::Metadata),
        ("fd00:ec2::23", Class::Metadata),
        ("fd00:ec2::253", Class::UniqueLocal),
        ("fd00:ec2::254", Class::Metadata),
        ("fd20:ce::254", Class::Metadata),
        (
            "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            Class::UniqueLocal,
        ),
        ("fe00::", Class::Reserved),
        ("fe7f:ffff::", Class::Reserved),
        ("fe80::", Class::LinkLocal),
        ("fe80::a9fe:a9fe", Class::Metadata),
        ("febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Class::LinkLocal),
        ("fec0::", Class::Private),
        ("feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Class::Private),
        ("ff00::", Class::Multicast),
        ("ff02::1", Class::Multicast),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Class::Multicast),
    ];

    #[test]
    fn the_registries() {
        for (ip, class) in TABLE {
            assert_eq!(classify(ip.parse().unwrap()), *class, "{ip}");
        }
    }

    #[test]
    fn a_mapped_address_is_what_it_maps() {
        for (ip, class) in TABLE {
            if let Ok(v4) = ip.parse::<Ipv4Addr>() {
                assert_eq!(classify(v4.to_ipv6_mapped().into()), *class, "{ip}");
            }
        }
    }
}
