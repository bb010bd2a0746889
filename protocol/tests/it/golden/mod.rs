//! The golden table: named cases for every packet, every rule and every version.
//!
//! A case gives bytes and what they mean. The same table drives reading, writing, reading in
//! pieces and refusing, and a test makes sure that no rule of the crate is without a case.

mod acks;
mod connack;
mod connect;
mod connect_will;
mod disconnect_auth;
mod framing;
mod publish;
mod subscribe;

use std::collections::{HashMap, HashSet};

use tidings_protocol::mqtt::{
    PACKET_SIZE_MAX, Packet, ProtocolError, ReasonCode, Version, decode, fixed_header,
};

use crate::notation::{bytes, read, write};

struct Case {
    name: &'static str,
    versions: &'static [Version],
    bytes: Vec<u8>,
    expected: Expected,
}

enum Expected {
    /// The bytes are read as this packet, and this packet is written as these bytes.
    Both(Packet<'static>),
    /// The bytes are a permitted form of the packet which is not the one that is written.
    Reads(Packet<'static>),
    /// The packet is written as these bytes, which say less than it does.
    Writes(Packet<'static>),
    /// The bytes are refused, with this Reason Code for a reason in this clause.
    Fails(ReasonCode, &'static str),
    /// The bytes are the beginning of a packet.
    Incomplete,
}

fn both(
    name: &'static str,
    versions: &'static [Version],
    notation: &str,
    packet: Packet<'static>,
) -> Case {
    Case {
        name,
        versions,
        bytes: bytes(notation),
        expected: Expected::Both(packet),
    }
}

fn reads(
    name: &'static str,
    versions: &'static [Version],
    notation: &str,
    packet: Packet<'static>,
) -> Case {
    Case {
        name,
        versions,
        bytes: bytes(notation),
        expected: Expected::Reads(packet),
    }
}

fn writes(
    name: &'static str,
    versions: &'static [Version],
    notation: &str,
    packet: Packet<'static>,
) -> Case {
    Case {
        name,
        versions,
        bytes: bytes(notation),
        expected: Expected::Writes(packet),
    }
}

fn fails(
    name: &'static str,
    versions: &'static [Version],
    notation: &str,
    reason: ReasonCode,
    clause: &'static str,
) -> Case {
    Case {
        name,
        versions,
        bytes: bytes(notation),
        expected: Expected::Fails(reason, clause),
    }
}

/// 0x81
fn malformed(
    name: &'static str,
    versions: &'static [Version],
    notation: &str,
    clause: &'static str,
) -> Case {
    fails(
        name,
        versions,
        notation,
        ReasonCode::MalformedPacket,
        clause,
    )
}

/// 0x82
fn forbidden(
    name: &'static str,
    versions: &'static [Version],
    notation: &str,
    clause: &'static str,
) -> Case {
    fails(name, versions, notation, ReasonCode::ProtocolError, clause)
}

fn incomplete(name: &'static str, versions: &'static [Version], notation: &str) -> Case {
    Case {
        name,
        versions,
        bytes: bytes(notation),
        expected: Expected::Incomplete,
    }
}

fn table() -> Vec<Case> {
    [
        framing::cases(),
        connect::cases(),
        connect_will::cases(),
        connack::cases(),
        publish::cases(),
        acks::cases(),
        subscribe::cases(),
        disconnect_auth::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Calls `check` with each case in each of its versions, and reports all that went wrong at once.
fn for_each(check: impl Fn(&Case, Version) -> Result<(), String>) {
    let mut wrong = Vec::new();
    for case in table() {
        for &version in case.versions {
            if let Err(problem) = check(&case, version) {
                wrong.push(format!(
                    "{} ({version}, {:02X?}): {problem}",
                    case.name, case.bytes
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} cases:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn the_table_is_large_and_its_names_are_unique() {
    let table = table();
    let names: HashSet<_> = table.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), table.len(), "two cases have the same name");
    let in_all_versions: usize = table.iter().map(|case| case.versions.len()).sum();
    assert!(
        table.len() >= 450 && in_all_versions >= 700,
        "{}, {in_all_versions}",
        table.len()
    );
}

#[test]
fn reading() {
    for_each(
        |case, version| match (&case.expected, read(version, &case.bytes)) {
            (Expected::Both(packet) | Expected::Reads(packet), Ok(Some(found)))
                if found == *packet =>
            {
                Ok(())
            }
            (Expected::Fails(reason, clause), Err(error))
                if error.reason == *reason && error.clause.contains(&format!("[{clause}]")) =>
            {
                Ok(())
            }
            (Expected::Incomplete, Ok(None)) => Ok(()),
            (Expected::Writes(_), _) => Ok(()),
            (Expected::Fails(reason, clause), found) => {
                Err(format!("expected {reason} [{clause}], found {found:?}"))
            }
            (_, found) => Err(format!("found {found:?}")),
        },
    );
}

#[test]
fn writing() {
    for_each(|case, version| match &case.expected {
        Expected::Both(packet) | Expected::Writes(packet) => {
            let written = write(version, packet);
            if written == case.bytes {
                Ok(())
            } else {
                Err(format!("wrote {written:02X?}"))
            }
        }
        // Another form of a packet: what is written instead must mean the same.
        Expected::Reads(packet) => match read(version, &write(version, packet)) {
            Ok(Some(again)) if again == *packet => Ok(()),
            again => Err(format!("wrote what is read as {again:?}")),
        },
        Expected::Fails(..) | Expected::Incomplete => Ok(()),
    });
}

/// A packet is found in a stream however much of it, and of the next one, has arrived.
#[test]
fn reading_in_pieces() {
    for_each(|case, version| {
        let (Expected::Both(packet) | Expected::Reads(packet)) = &case.expected else {
            return Ok(());
        };
        for end in 0..case.bytes.len() {
            match read(version, &case.bytes[..end]) {
                Ok(None) => {}
                found => return Err(format!("after {end} bytes: {found:?}")),
            }
        }
        let glued = [case.bytes.as_slice(), &case.bytes].concat();
        match read(version, &glued) {
            Ok(Some(found)) if found == *packet => Ok(()),
            found => Err(format!("before another packet: {found:?}")),
        }
    });
}

/// A packet cut short, with a Remaining Length that says so, is refused or means something else:
/// no field is ever read from beyond the end. (The fields that may be left out are left out here.)
#[test]
fn truncating() {
    for_each(|case, version| {
        let (Expected::Both(packet) | Expected::Reads(packet)) = &case.expected else {
            return Ok(());
        };
        let header = match fixed_header(&case.bytes, PACKET_SIZE_MAX) {
            Ok(Some(header)) => header,
            other => return Err(format!("{other:?}")),
        };
        let may_be_shorter = match packet {
            Packet::Disconnect(packet) => packet.properties.is_empty(),
            Packet::Connect(_) => false,
            _ => matches!(case.expected, Expected::Reads(_)),
        };
        if may_be_shorter {
            return Ok(());
        }
        for remaining_len in 0..header.remaining_len {
            let header = tidings_protocol::mqtt::FixedHeader {
                remaining_len,
                ..header
            };
            let bytes = &case.bytes[..header.total_len()];
            if decode(version, header, bytes) == Ok(*packet) {
                return Err(format!("{remaining_len} bytes mean the same packet"));
            }
        }
        Ok(())
    });
}

/// Every rule that the crate can say is broken has a case that breaks it.
#[test]
fn every_rule_has_a_case() {
    let mut broken: HashMap<&str, ProtocolError> = HashMap::new();
    for case in table() {
        for &version in case.versions {
            if let Err(error) = read(version, &case.bytes) {
                broken.insert(error.message, error);
            }
        }
    }
    // Only the caller's limit brings about this one: see `framing`.
    let too_large = fixed_header(&[0x30, 0x7F], 100).unwrap_err();
    broken.insert(too_large.message, too_large);

    let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/mqtt");
    let mut rules = 0;
    let mut missing = Vec::new();
    for file in std::fs::read_dir(sources).unwrap() {
        let source = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for rule in source.split(": ProtocolError =").skip(1) {
            let rule = rule.split(';').next().unwrap();
            // The message is the last string of the constant.
            let message = rule.rsplit('"').nth(1).unwrap();
            rules += 1;
            if !broken.contains_key(message) {
                missing.push(message.to_owned());
            }
        }
    }
    assert!(rules > 50, "the sources were not understood: {rules} rules");
    assert!(missing.is_empty(), "no case breaks: {missing:#?}");
}

/// A message is for a person, a clause for a search in the specification.
#[test]
fn errors_are_readable() {
    for_each(|case, version| {
        let Err(error) = read(version, &case.bytes) else {
            return Ok(());
        };
        let shown = error.to_string();
        let good = error.reason.is_error()
            && error.clause.starts_with("[MQTT")
            && error.clause.ends_with(']')
            && error.message.len() > 15
            && !error.message.ends_with('.')
            && shown.starts_with(error.reason.as_str())
            && shown.contains(error.message)
            && shown.ends_with(error.clause);
        if good { Ok(()) } else { Err(shown) }
    });
}
