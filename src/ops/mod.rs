//! What the person who runs the broker sees of it: the log, the service manager's view, and the
//! socket for what can be asked of it while it runs.
//!
//! Nothing here is needed to route a message.

pub mod control;
pub mod files;
pub mod logging;
pub mod systemd;
