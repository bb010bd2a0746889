//! What systemd is told, if it started us: readiness, reloading, stopping, and that we live.
//!
//! Everywhere else these calls do nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// The listeners are bound.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is being read again; to be followed by [`ready`].
pub fn reloading() {
    // Type=notify-reload wants the time; a clock that cannot be read is no reason to stop.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

/// The listeners are closed, clients are being told.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// How often systemd wants to hear from us, if `WatchdogSec` is set: half of that, as it advises.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// Says that the process is alive, at intervals and for ever. Runs on the runtime that serves
/// the clients, so that a runtime which is stuck is noticed.
pub async fn feed_watchdog(every: Duration) {
    let mut interval = tokio::time::interval(every);
    loop {
        interval.tick().await;
        notify(&[NotifyState::Watchdog]);
    }
}
