//! Whether the server is alive, and whether it can promise anything.

use hyper::{Response, StatusCode};
use serde_json::json;

use super::Edge;
use super::problem::Problem;
use super::respond::{self, Body};
use crate::store::Health;

/// `GET /healthz`: it answers.
pub(super) fn alive() -> Response<Body> {
    respond::json(&json!({"status": "ok"}))
}

/// `GET /readyz`.
pub(super) fn ready(edge: &Edge) -> Result<Response<Body>, Problem> {
    let not = |why: String| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "not-ready",
            "Not ready",
            why,
        )
    };
    if edge.broker.is_stopping() {
        return Err(not("the server is stopping".to_owned()));
    }
    match edge.broker.store().health() {
        Health::Well => Ok(respond::json(&json!({"status": "ready"}))),
        Health::DiskLow { free_bytes } => Err(not(format!(
            "only {free_bytes} bytes are free on the disk: no new messages of QoS 1 and 2 are taken"
        ))),
        Health::Failed(failure) => Err(not(format!("the store has failed: {failure}"))),
    }
}
