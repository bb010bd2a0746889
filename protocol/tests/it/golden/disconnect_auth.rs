//! DISCONNECT and AUTH.

use tidings_protocol::mqtt::{Auth, Disconnect, Packet, Properties, Property, ReasonCode};

use super::{Case, both, forbidden, malformed, reads, writes};
use crate::notation::{V3, V5, properties};

fn disconnect(reason: ReasonCode, list: &[Property<'_>]) -> Packet<'static> {
    Packet::Disconnect(Disconnect {
        reason,
        properties: properties(list),
    })
}

fn auth(reason: ReasonCode, list: &[Property<'_>]) -> Packet<'static> {
    Packet::Auth(Auth {
        reason,
        properties: properties(list),
    })
}

pub fn cases() -> Vec<Case> {
    use ReasonCode as R;
    let normal = disconnect(R::NORMAL_DISCONNECTION, &[]);
    let method = Property::AuthenticationMethod("SCRAM-SHA-256");
    vec![
        both("DISCONNECT 3", V3, "E0 00", normal),
        reads("DISCONNECT 5 in its shortest form", V5, "E0 00", normal),
        reads(
            "DISCONNECT 5 with Reason Code 0 alone",
            V5,
            "E0 01 00",
            normal,
        ),
        both("DISCONNECT 5 in its long form", V5, "E0 02 00 00", normal),
        reads(
            "DISCONNECT 5 with a Reason Code alone",
            V5,
            "E0 01 04",
            disconnect(R::DisconnectWithWillMessage, &[]),
        ),
        both(
            "DISCONNECT with Will Message",
            V5,
            "E0 02 04 00",
            disconnect(R::DisconnectWithWillMessage, &[]),
        ),
        both(
            "DISCONNECT for Session taken over",
            V5,
            "E0 02 8E 00",
            disconnect(R::SessionTakenOver, &[]),
        ),
        both(
            "DISCONNECT with Session Expiry Interval",
            V5,
            "E0 [ 00 [ 11 0000000A ] ]",
            disconnect(
                R::NORMAL_DISCONNECTION,
                &[Property::SessionExpiryInterval(10)],
            ),
        ),
        both(
            "DISCONNECT with all its properties",
            V5,
            "E0 [ 9D [ 11 00000000 1C 'b.example' 1F 'moved' 26 'k' 'v' 26 'k' 'v' ] ]",
            disconnect(
                R::ServerMoved,
                &[
                    Property::SessionExpiryInterval(0),
                    Property::ServerReference("b.example"),
                    Property::ReasonString("moved"),
                    Property::UserProperty("k", "v"),
                    Property::UserProperty("k", "v"),
                ],
            ),
        ),
        writes(
            "DISCONNECT 3 says nothing",
            V3,
            "E0 00",
            disconnect(R::ServerMoved, &[Property::ReasonString("moved")]),
        ),
        malformed("DISCONNECT 3 with a body", V3, "E0 01 00", "MQTT311 §2.2.3"),
        forbidden(
            "DISCONNECT with an unknown Reason Code",
            V5,
            "E0 02 05 00",
            "MQTT-3.14.2-1",
        ),
        forbidden(
            "DISCONNECT with the Reason Code of another packet",
            V5,
            "E0 01 84",
            "MQTT-3.14.2-1",
        ),
        malformed(
            "DISCONNECT with bytes after its end",
            V5,
            "E0 03 00 00 00",
            "MQTT5 §2.1.4",
        ),
        malformed(
            "DISCONNECT with a property of CONNECT",
            V5,
            "E0 [ 00 [ 21 0001 ] ]",
            "MQTT5 §2.2.2.2",
        ),
        forbidden(
            "DISCONNECT with Session Expiry Interval twice",
            V5,
            "E0 [ 00 [ 11 00000000 11 00000000 ] ]",
            "MQTT5 §2.2.2.2",
        ),
        malformed(
            "DISCONNECT whose properties are longer than the packet",
            V5,
            "E0 [ 00 06 11 000000 ]",
            "MQTT5 §2.2.2.1",
        ),
        both("AUTH that is empty", V5, "F0 00", auth(R::Success, &[])),
        both(
            "AUTH that continues",
            V5,
            "F0 [ 18 [ 15 'SCRAM-SHA-256' 16 0003 00FF01 ] ]",
            auth(
                R::ContinueAuthentication,
                &[method, Property::AuthenticationData(b"\x00\xFF\x01")],
            ),
        ),
        both(
            "AUTH that begins again",
            V5,
            "F0 [ 19 [ 15 'SCRAM-SHA-256' ] ]",
            auth(R::ReAuthenticate, &[method]),
        ),
        both(
            "AUTH for success with all its properties",
            V5,
            "F0 [ 00 [ 15 'SCRAM-SHA-256' 16 0000 1F 'done' 26 'k' 'v' ] ]",
            auth(
                R::Success,
                &[
                    method,
                    Property::AuthenticationData(b""),
                    Property::ReasonString("done"),
                    Property::UserProperty("k", "v"),
                ],
            ),
        ),
        writes(
            "AUTH does not exist in MQTT 3",
            V3,
            "",
            Packet::Auth(Auth {
                reason: R::Success,
                properties: Properties::EMPTY,
            }),
        ),
        forbidden(
            "AUTH without a method",
            V5,
            "F0 02 18 00",
            "MQTT5 §3.15.2.2.2",
        ),
        forbidden(
            "AUTH for success without a method",
            V5,
            "F0 02 00 00",
            "MQTT5 §3.15.2.2.2",
        ),
        forbidden(
            "AUTH with data and without a method",
            V5,
            "F0 [ 18 [ 16 'data' ] ]",
            "MQTT5 §3.15.2.2.2",
        ),
        forbidden(
            "AUTH with a wrong Reason Code",
            V5,
            "F0 [ 87 [ 15 'm' ] ]",
            "MQTT-3.15.2-1",
        ),
        forbidden(
            "AUTH with two methods",
            V5,
            "F0 [ 18 [ 15 'a' 15 'b' ] ]",
            "MQTT5 §2.2.2.2",
        ),
        malformed(
            "AUTH without a Property Length",
            V5,
            "F0 01 18",
            "MQTT5 §2.1.4",
        ),
        malformed(
            "AUTH with a property of CONNECT",
            V5,
            "F0 [ 18 [ 15 'm' 11 00000001 ] ]",
            "MQTT5 §2.2.2.2",
        ),
        malformed(
            "AUTH with bytes after its end",
            V5,
            "F0 [ 18 [ 15 'm' ] 00 ]",
            "MQTT5 §2.1.4",
        ),
    ]
}
