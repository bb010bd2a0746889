//! The last words to a client: from the reasons of the broker and the decoder to those of MQTT.

use std::borrow::Cow;
use std::time::Duration;

use tidings_protocol::mqtt::{
    Disconnect, PropertiesBuilder, Property, ProtocolError, ReasonCode, Version,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::broker::outbox::Outbox;
use crate::broker::session::Closing;

/// Why a connection ends.
#[derive(Debug)]
pub enum Farewell {
    /// The client said goodbye; there is nothing to answer.
    Goodbye,
    /// The network failed or was closed: nobody is there to be told.
    Gone,
    /// The client broke a rule.
    Error(Fault),
    /// The broker ends it.
    Closing(Closing),
}

/// A client's mistake, or a refusal, in MQTT's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What version 5 calls it.
    pub reason: ReasonCode,
    /// Where the rule comes from; empty where a limit of ours is the reason.
    pub clause: &'static str,
    /// A sentence for the person who wrote the client.
    pub message: Cow<'static, str>,
}

impl Fault {
    /// A fault with a fixed sentence.
    pub const fn new(reason: ReasonCode, clause: &'static str, message: &'static str) -> Fault {
        Fault {
            reason,
            clause,
            message: Cow::Borrowed(message),
        }
    }
}

/// A packet with more User Properties than `limits.user_properties_max`.
pub const TOO_MANY_USER_PROPERTIES: Fault = Fault::new(
    ReasonCode::QuotaExceeded,
    "",
    "more User Properties than this server allows in a packet",
);

impl From<ProtocolError> for Fault {
    fn from(error: ProtocolError) -> Fault {
        Fault::new(error.reason, error.clause, error.message)
    }
}

impl From<ProtocolError> for Farewell {
    fn from(error: ProtocolError) -> Farewell {
        Farewell::Error(error.into())
    }
}

impl From<Fault> for Farewell {
    fn from(fault: Fault) -> Farewell {
        Farewell::Error(fault)
    }
}

/// What the broker's reasons are in MQTT.
fn closing_fault(why: Closing) -> Fault {
    match why {
        Closing::TakenOver => Fault::new(
            ReasonCode::SessionTakenOver,
            "[MQTT-3.1.4-3]",
            "another connection uses the same Client Identifier",
        ),
        Closing::KeepAliveTimeout => Fault::new(
            ReasonCode::KeepAliveTimeout,
            "[MQTT-3.1.2-22]",
            "nothing was received for one and a half times the Keep Alive",
        ),
        Closing::ShuttingDown => Fault::new(
            ReasonCode::ServerShuttingDown,
            "",
            "the server is shutting down",
        ),
        Closing::QueueFull => Fault::new(
            ReasonCode::QuotaExceeded,
            "",
            "messages queue up faster than this client takes them",
        ),
        Closing::StoreFailed => Fault::new(
            ReasonCode::ImplementationSpecificError,
            "",
            "the server cannot store messages any more",
        ),
        Closing::NotAuthorized => Fault::new(
            ReasonCode::NotAuthorized,
            "",
            "this client's rights have been withdrawn",
        ),
    }
}

/// How long a client may take to read the last words.
const PATIENCE: Duration = Duration::from_secs(2);

/// How much of what a client still sends is read and thrown away, so that the last words are not
/// lost to a reset of the connection.
const DISCARD_MAX: usize = 256 * 1024;

impl Farewell {
    /// What the client is told, in version 5 [MQTT-4.13.1-1].
    fn fault(&self) -> Option<Fault> {
        match self {
            Farewell::Goodbye | Farewell::Gone => None,
            Farewell::Error(fault) => Some(fault.clone()),
            Farewell::Closing(why) => Some(closing_fault(*why)),
        }
    }

    /// One quiet line about it, if the client or the broker had a reason.
    pub fn log(&self, client_id: &str, peer: &str) {
        match self {
            Farewell::Goodbye | Farewell::Gone => {}
            Farewell::Error(fault) => tracing::info!(
                client = client_id,
                address = peer,
                clause = fault.clause,
                reason = %fault.reason,
                "connection ended: {}",
                fault.message
            ),
            Farewell::Closing(why) => {
                tracing::debug!(client = client_id, address = peer, ?why, "connection ended");
            }
        }
    }

    /// Writes what is left and the last words, then closes the stream. Takes no longer than
    /// [`PATIENCE`].
    pub async fn say<S>(
        &self,
        stream: &mut S,
        version: Version,
        explain: bool,
        packet_size_max: usize,
        mut out: Outbox,
    ) where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if matches!(self, Farewell::Gone) {
            return;
        }
        if version.is_v5()
            && let Some(fault) = self.fault()
        {
            disconnect(&fault, explain, packet_size_max, out.tail());
        }
        let last_words = async {
            while !out.is_empty() {
                let mut slices = [std::io::IoSlice::new(&[]); 8];
                let filled = out.slices(&mut slices);
                let written = stream.write_vectored(&slices[..filled]).await?;
                if written == 0 {
                    break;
                }
                out.advance(written);
            }
            stream.shutdown().await?;
            let mut rest = [0; 4096];
            let mut discarded = 0;
            while discarded < DISCARD_MAX {
                match stream.read(&mut rest).await? {
                    0 => break,
                    count => discarded += count,
                }
            }
            std::io::Result::Ok(())
        };
        // The client is gone already, or takes too long: there is nobody left to tell.
        let _ = tokio::time::timeout(PATIENCE, last_words).await;
    }
}

/// The nearest that DISCONNECT has for a reason that belongs to other packets (MQTT 5 table 2-6).
fn for_disconnect(reason: ReasonCode) -> ReasonCode {
    match reason {
        ReasonCode::BadUserNameOrPassword | ReasonCode::Banned => ReasonCode::NotAuthorized,
        ReasonCode::UnsupportedProtocolVersion | ReasonCode::ClientIdentifierNotValid => {
            ReasonCode::ProtocolError
        }
        ReasonCode::ServerUnavailable => ReasonCode::ServerBusy,
        other => other,
    }
}

/// Appends a DISCONNECT; the Reason String is left out if the client wants none
/// [MQTT-3.1.2-29] or it would make the packet too long for it [MQTT-3.14.2-3].
fn disconnect(fault: &Fault, explain: bool, packet_size_max: usize, out: &mut Vec<u8>) {
    let mut properties = PropertiesBuilder::new();
    if explain && fault.message.len() + 16 <= packet_size_max {
        properties.push(Property::ReasonString(&fault.message));
    }
    let packet = Disconnect {
        reason: for_disconnect(fault.reason),
        properties: properties.as_properties(),
    };
    let start = out.len();
    packet.encode(Version::V5, out);
    if out.len() - start > packet_size_max {
        out.truncate(start);
    }
}
