//! The edges: bytes and sockets on one side, the broker's one interface on the other.
//!
//! Each edge translates its protocol to that interface and back, and decides nothing about
//! delivery. Edges never import each other.

pub mod mqtt;
