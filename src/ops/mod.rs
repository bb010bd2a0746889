//! What the person who runs the broker sees of it: the log, and the service manager's view.
//!
//! Nothing here is needed to route a message; the binary calls it at start and at stop.

pub mod files;
pub mod logging;
pub mod systemd;
