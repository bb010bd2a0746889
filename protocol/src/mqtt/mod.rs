//! The packets of MQTT 3.1, 3.1.1 and 5.0.
//!
//! Reading takes two steps. [`fixed_header`] needs only the first two to five bytes and says how
//! long the packet is, or why it will never be acceptable; [`decode`] takes exactly that packet
//! and answers a [`Packet`] that borrows every string, payload and property from it. Nothing is
//! allocated and no payload is copied. Writing is `encode` on a packet or on [`Packet`].
//!
//! One module for each packet or pair of packets; what they share is in `reader` (bytes to
//! values), `writer` (values to bytes), `text` (strings) and [`Properties`]. Each module keeps its
//! rules as constants of [`ProtocolError`]: the Reason Code, the clause, and a sentence.

mod ack;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod error;
mod fixed_header;
mod packet;
mod packet_id;
mod properties;
mod property;
mod publish;
mod qos;
mod reader;
mod reason;
mod subscribe;
mod text;
mod unsubscribe;
mod version;
mod writer;

pub use ack::{Ack, AckKind};
pub use auth::Auth;
pub use connack::ConnAck;
pub use connect::{Connect, Will};
pub use disconnect::Disconnect;
pub use error::ProtocolError;
pub use fixed_header::{FixedHeader, PACKET_SIZE_MAX, fixed_header};
pub use packet::{Packet, decode};
pub use packet_id::PacketId;
pub use properties::{Properties, PropertiesBuilder, PropertyIter};
pub use property::Property;
pub use publish::Publish;
pub use qos::QoS;
pub use reason::ReasonCode;
pub use subscribe::{
    FilterIter, Filters, FiltersBuilder, RetainHandling, SubAck, Subscribe, SubscriptionOptions,
};
pub use unsubscribe::{FilterNameIter, FilterNames, FilterNamesBuilder, UnsubAck, Unsubscribe};
pub use version::Version;
