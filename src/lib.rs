//! Tidings: one broker for devices, services and browsers.

pub mod access;
pub mod config;
pub mod ops;
