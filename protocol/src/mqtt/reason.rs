//! Reason Codes (MQTT 5 §2.4, table 2-6) and the CONNACK return codes of MQTT 3.

macro_rules! reason_codes {
    ($($value:literal $name:ident $words:literal)*) => {
        /// A Reason Code of MQTT 5. Below 0x80 it tells of success.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum ReasonCode {
            $(#[doc = $words] $name = $value,)*
        }

        impl ReasonCode {
            /// Every Reason Code, in ascending order.
            pub const ALL: &'static [ReasonCode] = &[$(ReasonCode::$name),*];

            /// The Reason Code for a byte; `None` if the specification knows none.
            #[inline]
            pub const fn from_u8(value: u8) -> Option<ReasonCode> {
                match value {
                    $($value => Some(ReasonCode::$name),)*
                    _ => None,
                }
            }

            /// The words of the specification.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(ReasonCode::$name => $words,)*
                }
            }
        }
    };
}

reason_codes! {
    0x00 Success "Success"
    0x01 GrantedQoS1 "Granted QoS 1"
    0x02 GrantedQoS2 "Granted QoS 2"
    0x04 DisconnectWithWillMessage "Disconnect with Will Message"
    0x10 NoMatchingSubscribers "No matching subscribers"
    0x11 NoSubscriptionExisted "No subscription existed"
    0x18 ContinueAuthentication "Continue authentication"
    0x19 ReAuthenticate "Re-authenticate"
    0x80 UnspecifiedError "Unspecified error"
    0x81 MalformedPacket "Malformed Packet"
    0x82 ProtocolError "Protocol Error"
    0x83 ImplementationSpecificError "Implementation specific error"
    0x84 UnsupportedProtocolVersion "Unsupported Protocol Version"
    0x85 ClientIdentifierNotValid "Client Identifier not valid"
    0x86 BadUserNameOrPassword "Bad User Name or Password"
    0x87 NotAuthorized "Not authorized"
    0x88 ServerUnavailable "Server unavailable"
    0x89 ServerBusy "Server busy"
    0x8A Banned "Banned"
    0x8B ServerShuttingDown "Server shutting down"
    0x8C BadAuthenticationMethod "Bad authentication method"
    0x8D KeepAliveTimeout "Keep Alive timeout"
    0x8E SessionTakenOver "Session taken over"
    0x8F TopicFilterInvalid "Topic Filter invalid"
    0x90 TopicNameInvalid "Topic Name invalid"
    0x91 PacketIdentifierInUse "Packet Identifier in use"
    0x92 PacketIdentifierNotFound "Packet Identifier not found"
    0x93 ReceiveMaximumExceeded "Receive Maximum exceeded"
    0x94 TopicAliasInvalid "Topic Alias invalid"
    0x95 PacketTooLarge "Packet too large"
    0x96 MessageRateTooHigh "Message rate too high"
    0x97 QuotaExceeded "Quota exceeded"
    0x98 AdministrativeAction "Administrative action"
    0x99 PayloadFormatInvalid "Payload format invalid"
    0x9A RetainNotSupported "Retain not supported"
    0x9B QoSNotSupported "QoS not supported"
    0x9C UseAnotherServer "Use another server"
    0x9D ServerMoved "Server moved"
    0x9E SharedSubscriptionsNotSupported "Shared Subscriptions not supported"
    0x9F ConnectionRateExceeded "Connection rate exceeded"
    0xA0 MaximumConnectTime "Maximum connect time"
    0xA1 SubscriptionIdentifiersNotSupported "Subscription Identifiers not supported"
    0xA2 WildcardSubscriptionsNotSupported "Wildcard Subscriptions not supported"
}

impl ReasonCode {
    /// What 0x00 is called in DISCONNECT.
    pub const NORMAL_DISCONNECTION: ReasonCode = ReasonCode::Success;
    /// What 0x00 is called in SUBACK.
    pub const GRANTED_QOS_0: ReasonCode = ReasonCode::Success;

    /// The byte on the wire.
    #[inline]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// True from 0x80: the operation failed.
    #[inline]
    pub const fn is_error(self) -> bool {
        self.as_u8() >= 0x80
    }

    /// The SUBACK code that grants a maximum QoS.
    #[inline]
    pub const fn granted(qos: super::QoS) -> ReasonCode {
        match qos {
            super::QoS::AtMostOnce => ReasonCode::GRANTED_QOS_0,
            super::QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
            super::QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
        }
    }

    /// The CONNACK return code of MQTT 3 (MQTT 3.1.1 table 3.1) that is nearest in meaning.
    ///
    /// What a client may try again later, unchanged, becomes 3 (server unavailable); what it would
    /// have to change first becomes 5 (not authorized), the only other general refusal there is.
    pub const fn as_return_code(self) -> u8 {
        match self {
            code if !code.is_error() => 0,
            ReasonCode::UnsupportedProtocolVersion => 1,
            ReasonCode::ClientIdentifierNotValid => 2,
            ReasonCode::BadUserNameOrPassword => 4,
            ReasonCode::NotAuthorized
            | ReasonCode::Banned
            | ReasonCode::BadAuthenticationMethod
            | ReasonCode::TopicNameInvalid
            | ReasonCode::PacketTooLarge
            | ReasonCode::PayloadFormatInvalid
            | ReasonCode::RetainNotSupported
            | ReasonCode::QoSNotSupported
            | ReasonCode::MalformedPacket
            | ReasonCode::ProtocolError => 5,
            _ => 3,
        }
    }

    /// The Reason Code for a CONNACK return code of MQTT 3; `None` above 5, which is reserved.
    pub const fn from_return_code(value: u8) -> Option<ReasonCode> {
        match value {
            0 => Some(ReasonCode::Success),
            1 => Some(ReasonCode::UnsupportedProtocolVersion),
            2 => Some(ReasonCode::ClientIdentifierNotValid),
            3 => Some(ReasonCode::ServerUnavailable),
            4 => Some(ReasonCode::BadUserNameOrPassword),
            5 => Some(ReasonCode::NotAuthorized),
            _ => None,
        }
    }
}

impl std::fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
