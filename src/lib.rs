//! Tidings: one broker for devices, services and browsers.

pub mod store;
