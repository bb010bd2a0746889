//! What every scenario stands on: a real broker with its own directory and port, and a client that
//! speaks raw packets.
//!
//! The wire format is written down here a second time (`wire.rs`) on purpose. A mistake that the
//! product's encoder and decoder share would be invisible to a client that uses them; it is not to
//! this one. Every packet that arrives is also given to the product's decoder, so that the two
//! readings check each other.
//!
//! Start reading at [`Broker`] and [`Client`].

mod broker;
mod client;
pub mod credentials;
mod panics;
pub mod process;
pub mod random;
pub mod wire;

pub use broker::{Broker, configuration, scratch};
pub use client::{Client, DEADLINE};
pub use process::ProcessBroker;
pub use wire::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, Property, Publish, Reason, Subscribe,
    Subscription, Unsubscribe, Version, Will,
};

/// The value of one property of a list, if it is there: `property!(publish.properties,
/// TopicAlias)`.
macro_rules! property {
    ($properties:expr, $name:ident) => {
        $properties.iter().find_map(|property| match property {
            $crate::harness::Property::$name(value) => Some(value.clone()),
            _ => None,
        })
    };
}
pub(crate) use property;

/// The user properties of a list, in order.
pub fn user_properties(properties: &[Property]) -> Vec<(&str, &str)> {
    properties
        .iter()
        .filter_map(|property| match property {
            Property::UserProperty(name, value) => Some((name.as_str(), value.as_str())),
            _ => None,
        })
        .collect()
}

/// The subscription identifiers of a list, sorted: the standard gives them no order.
pub fn subscription_identifiers(properties: &[Property]) -> Vec<u32> {
    let mut found: Vec<u32> = properties
        .iter()
        .filter_map(|property| match property {
            Property::SubscriptionIdentifier(value) => Some(*value),
            _ => None,
        })
        .collect();
    found.sort_unstable();
    found
}

/// Lets real time pass, for promises that are themselves about durations. What a scenario asserts
/// afterwards must be true at any later moment too, so that a slow machine cannot make it fail.
pub async fn elapse(seconds: u64) {
    tokio::time::sleep(std::time::Duration::from_millis(seconds * 1000 + 100)).await;
}
