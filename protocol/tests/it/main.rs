//! The protocol crate from outside: one golden table, generated packets, and other people's codecs
//! and parsers.
//!
//! - `golden`: named cases, bytes and what they mean or why they fail; used for reading and writing
//! - `properties`, `reasons`: the specification's tables 2-4 and 2-6, tried exhaustively
//! - `generated`: arbitrary bytes and generated packets (proptest)
//! - `invariants`: what holds for any bytes; shared with the fuzz targets
//! - `oracles`: mqttbytes and rmqtt-codec must agree on valid packets
//! - `envelope`: what serde_json reads of an envelope
//! - `event_stream`: what a client after the WHATWG specification hears of a stream
//! - `topics`: topic grammar and matching against a model

mod envelope;
mod event_stream;
mod generated;
mod golden;
mod invariants;
mod notation;
mod oracles;
mod properties;
mod reasons;
mod topics;
